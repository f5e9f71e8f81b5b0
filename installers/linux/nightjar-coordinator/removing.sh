#!/bin/sh
# Before a removal the service ends. An upgrade (Debian's "upgrade", RPM's 1) ends nothing.
set -e

case "$1" in upgrade | failed-upgrade | deconfigure | 1) exit 0 ;; esac
if [ -d /run/systemd/system ]; then
    systemctl --quiet disable --now nightjar-coordinator.service || true
fi
