"""Groups of processes with limits, on whatever cgroups this host has. Needs root.

Proves: the limit of memory kills, the limit of processes refuses, a frozen group stands still, and nothing is left.
"""

from __future__ import annotations

import os
import subprocess
import sys

from minictr.kernel import cgroup_tasks, cgroups

NAME = f"example-{os.getpid()}"
FILL = "kept = [bytearray(b'x' * (1 << 20)) for _ in range(64)]"
FORK = """
import os, time
try:
    while os.fork():
        pass
    time.sleep(60)
except OSError as err:
    print(err.strerror, flush=True)
"""


def start(program: str, *places: cgroups.Place) -> subprocess.Popen[str]:
    """A program that is in PLACES before its first instruction."""

    def enter() -> None:
        for place in places:
            cgroup_tasks.add(place)

    command = [sys.executable, "-I", "-S", "-c", program]
    return subprocess.Popen(command, preexec_fn=enter, stdout=subprocess.PIPE, text=True)


def main() -> None:
    memory, pids, freezer = places = [cgroups.locate(name, NAME) for name in ("memory", "pids", "freezer")]
    for place in places:
        cgroups.create(place)
        print(f"{place.controller} is on cgroup v{place.version}: {place.directory}")
    try:
        cgroups.write(memory, max=32 << 20, swap=0)
        with start(FILL, memory) as process:
            print(f"64 MiB within 32 returned {process.wait()}")
        usage = cgroups.usage(places)
        print(f"processes killed for it: {usage.oom_kills}, peak {usage.memory.peak if usage.memory else None} bytes")

        cgroups.write(pids, max=8)
        with start(FORK, pids, freezer) as process:
            said = process.stdout.readline().strip() if process.stdout else ""
            print(f"an endless fork within 8 processes: {said}")
            cgroups.freeze(freezer)
            alive = len(cgroups.processes(freezer.directory))
            print(f"{alive} of them are frozen: stands still: {cgroups.frozen(freezer)}")
            cgroups.kill(places)
    finally:
        cgroups.kill(places)
        for place in places:
            cgroups.remove(place.directory)
    print(f"gone: {not any(os.path.exists(place.directory) for place in places)}")


if __name__ == "__main__":
    main()
