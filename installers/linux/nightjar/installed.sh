#!/bin/sh
# After an installation or an upgrade, on every distribution. Users' service managers read the unit anew, and agents that
# run are started again: their worker would be of another version than they are. They save the step at hand first.
set -e

if [ -d /run/systemd/system ]; then
    for user in $(systemctl list-units --quiet --no-legend 'user@*' | sed -n 's/.*user@\([0-9]*\)\.service.*/\1/p'); do
        systemctl --quiet --user --machine "$user@" daemon-reload || true
        systemctl --quiet --user --machine "$user@" try-restart nightjar.service || true
    done
fi
