#!/bin/sh
# Debian's purge. A run may be the work of months: its state goes only if the administrator says so, and only folders that
# bear Nightjar's mark. The run file and all else in the way stay, and are named.
set -e

[ "$1" = purge ] || exit 0
# With DynamicUser systemd keeps the folder here, and a link to it in /var/lib.
folder=/var/lib/private/nightjar
[ -d "$folder" ] || folder=/var/lib/nightjar
remove=false
if [ -d "$folder" ] && [ -e /usr/share/debconf/confmodule ]; then
    . /usr/share/debconf/confmodule
    db_input high nightjar-coordinator/remove-runs || true
    db_go || true
    db_get nightjar-coordinator/remove-runs && remove=$RET
    db_purge
    # What follows is for people, not for debconf.
    db_stop
fi
if [ "$remove" = true ]; then
    for made in "$folder/state" "$folder/data"; do
        if [ -f "$made/made-by-nightjar.txt" ]; then rm -rf "$made"; fi
    done
    rmdir "$folder" 2>/dev/null || true
    if [ -L /var/lib/nightjar ] && [ ! -e /var/lib/nightjar ]; then rm -f /var/lib/nightjar; fi
fi
for kept in "$folder" /etc/nightjar; do
    if [ -d "$kept" ]; then echo "nightjar-coordinator: $kept stays; remove it yourself if nobody needs it" >&2; fi
done
