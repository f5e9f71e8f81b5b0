#!/bin/sh
# After an installation or an upgrade, on every distribution. A coordinator that runs is started again: it goes on where
# its ledger ends. A new one waits for its run file and for `systemctl enable --now`.
set -e

if [ -d /run/systemd/system ]; then
    systemctl --quiet daemon-reload || true
    systemctl --quiet try-restart nightjar-coordinator.service || true
fi
