"""The services of a laptop on private buses: UPower, logind and NetworkManager, played by python-dbusmock.

Prints the addresses of a system bus and a session bus. Then reads commands, one a line, and answers each with one
line. Ends, and everything with it, when its standard input does.
"""

import os
import subprocess
import sys
import time

import dbus
import dbusmock

MOCK = dbusmock.MOCK_IFACE
POWER = "org.freedesktop.UPower"
NETWORK = "org.freedesktop.NetworkManager"
LOGIN = "org.freedesktop.login1"


class Computer(dbusmock.DBusTestCase):
    """Two private buses; python-dbusmock's test case starts and stops them."""


class Services:
    """What is on the system bus."""

    def __init__(self):
        self.bus = Computer.get_dbus(system_bus=True)
        self.processes = {}
        self.start("upower", POWER, {"OnBattery": False})
        self.charge("80")
        self.start("networkmanager", NETWORK, {})
        # The template does not have it.
        path = "/org/freedesktop/NetworkManager"
        self.on(NETWORK, path).AddProperty(NETWORK, "Metered", dbus.UInt32(4))
        self.start("logind", LOGIN, {})

    def start(self, template, name, parameters):
        process, _ = Computer.spawn_server_template(template, parameters, stdout=subprocess.DEVNULL)
        self.processes[name] = process

    def on(self, name, path):
        return dbus.Interface(self.bus.get_object(name, path), MOCK)

    def stop(self, name):
        process = self.processes.pop(name)
        process.terminate()
        process.wait()

    def upower(self, running):
        if running == "stop":
            self.stop(POWER)
        else:
            self.start("upower", POWER, {"OnBattery": True})

    def mains(self, plugged):
        self.on(POWER, "/org/freedesktop/UPower").UpdateProperties(POWER, {"OnBattery": plugged != "yes"})

    def charge(self, percent):
        state, full = dbus.UInt32(2), float(percent)
        self.on(POWER, "/org/freedesktop/UPower").SetupDisplayDevice(
            dbus.UInt32(2), state, full, full, 100.0, 10.0, 3600, 0, True, "battery", dbus.UInt32(1)
        )

    def metered(self, value):
        path = "/org/freedesktop/NetworkManager"
        self.on(NETWORK, path).UpdateProperties(NETWORK, {"Metered": dbus.UInt32(int(value))})

    def sleep(self, begins):
        manager = self.on(LOGIN, "/org/freedesktop/login1")
        manager.EmitSignal(LOGIN + ".Manager", "PrepareForSleep", "b", [begins == "yes"])

    def inhibitors(self):
        manager = dbus.Interface(self.bus.get_object(LOGIN, "/org/freedesktop/login1"), LOGIN + ".Manager")
        return ",".join(f"{who}:{what}:{mode}" for (what, who, _, mode, _, _) in manager.ListInhibitors())

    def session(self, kind):
        self.on(LOGIN, "/org/freedesktop/login1").AddSession("c1", "seat0", dbus.UInt32(1000), "owner", True)
        path = "/org/freedesktop/login1/session/c1"
        self.on(LOGIN, path).UpdateProperties(LOGIN + ".Session", {"Type": kind})
        self.on(LOGIN, "/org/freedesktop/login1").EmitSignal(
            LOGIN + ".Manager", "SessionNew", "so", ["c1", dbus.ObjectPath(path)]
        )

    def idle(self, hint):
        # A minute ago: nobody is idle for longer than the computer is on, and one that runs tests may just have started.
        since = dbus.UInt64(int((time.time() - 60) * 1e6))
        self.on(LOGIN, "/org/freedesktop/login1/session/c1").UpdateProperties(
            LOGIN + ".Session", {"IdleHint": hint == "yes", "IdleSinceHint": since}
        )

    def locked(self, hint):
        self.on(LOGIN, "/org/freedesktop/login1/session/c1").UpdateProperties(
            LOGIN + ".Session", {"LockedHint": hint == "yes"}
        )


def main():
    Computer.setUpClass()
    try:
        Computer.start_system_bus()
        Computer.start_session_bus()
        services = Services()
        print(os.environ["DBUS_SYSTEM_BUS_ADDRESS"], os.environ["DBUS_SESSION_BUS_ADDRESS"], flush=True)
        for line in sys.stdin:
            command, *words = line.split()
            print(getattr(services, command)(*words) or "", flush=True)
        for name in list(services.processes):
            services.stop(name)
    finally:
        Computer.tearDownClass()


main()
