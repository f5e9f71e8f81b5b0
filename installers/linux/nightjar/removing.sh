#!/bin/sh
# Before a removal: the agents of all users end, since their program goes. What they keep in their owners' folders stays.
# An upgrade (Debian's "upgrade", RPM's 1) ends nothing.
set -e

case "$1" in upgrade | failed-upgrade | deconfigure | 1) exit 0 ;; esac
if [ -d /run/systemd/system ]; then
    for user in $(systemctl list-units --quiet --no-legend 'user@*' | sed -n 's/.*user@\([0-9]*\)\.service.*/\1/p'); do
        systemctl --quiet --user --machine "$user@" stop nightjar.service || true
    done
fi
