"""A whole Debian in a container, from its boot to its end. Needs root and a Debian with systemd:

    minictr rootfs debian --include systemd,systemd-sysv,dbus,procps ./debian
    python system_container.py ./debian

Proves: systemd is PID 1 and reaches its goal with nothing failed, keeps a journal, can be frozen and given a limit
while it runs, reboots when it says so, and ends by its own word; what it changed is in a layer, not in the root.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import minictr as mc


def main(rootfs: str) -> None:
    box = mc.Container(rootfs, name="lab-system", features=[*mc.profiles.LXC, mc.Overlay()])
    system = box.start(["/sbin/init"])
    try:
        look_at(system)
        system.stop(timeout=20)
        print(f"stopped by its own signal: exit code {system.returncode}, {len(system.diff())} paths in its layer")
    finally:
        system.remove(force=True)
    print(f"left: {[each.name for each in mc.containers(all=True) if each.name == 'lab-system']}")


def look_at(system: mc.Instance) -> None:
    until(lambda: said(system, "systemctl", "is-system-running") in ("running", "degraded"))
    print(f"system: {said(system, 'systemctl', 'is-system-running')}, PID 1 is {said(system, 'cat', '/proc/1/comm')}")
    print(f"failed: {said(system, 'systemctl', '--failed', '--no-legend', '--plain') or 'nothing'}")
    said(system, "logger", "-t", "lab", "hello from inside")
    until(lambda: "hello" in said(system, "journalctl", "-t", "lab", "-o", "cat"))
    print(f"journal: {said(system, 'journalctl', '-t', 'lab', '-o', 'cat')}")

    system.pause()
    before = sum(row.cpu for row in system.top())
    time.sleep(0.3)
    print(f"paused: {system.status}, processor time used meanwhile: {sum(row.cpu for row in system.top()) - before:g}")
    system.unpause()
    system.update(memory="512M")
    print(f"limit: {system.stats().memory.limit >> 20} MiB")

    first = boot_id(system)
    system.exec(["reboot"], capture_output=True)
    until(lambda: boot_id(system) not in ("", first))
    print("rebooted: another boot id")
    until(lambda: said(system, "systemctl", "is-system-running") == "running")


def said(system: mc.Instance, *command: str) -> str:
    """What COMMAND prints in there; "" while there is nobody to run it."""
    try:
        return str(system.exec(command, capture_output=True, text=True).stdout).strip()
    except mc.MinictrError:
        return ""


def boot_id(system: mc.Instance) -> str:
    return said(system, "cat", "/proc/sys/kernel/random/boot_id")


def until(check: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() > deadline:
            raise SystemExit("it took too long")
        time.sleep(0.1)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(sys.argv[1])
