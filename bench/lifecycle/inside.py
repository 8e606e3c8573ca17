"""What is measured by a process on itself: many starts in a row, and minictr's own time line.

Usage: python -m bench.lifecycle.inside JSON. It prints one JSON object. ``mode`` is

``leaks``   ``starts`` containers in a row; the process's own books at the 10th and at the last
``steps``   ``starts`` containers after ``warmup``; the time line of each by feature
"""

from __future__ import annotations

import gc
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from bench.host import own_cgroups
from bench.lifecycle.serve import container, hide_mounts, hold_ballast

SETTLED = 10  # starts after which everything that is made once has been made


def _lines(path: str) -> int:
    with open(path, "rb") as file:
        return sum(1 for _ in file)


class Territory:
    """What is this process's alone on a host where others work too: what they do must not look like a leak of ours, and
    a leak of ours must not drown in it.

    ``parent``: the group that all groups of our containers are made below, in every hierarchy; ``state``: a state
    directory of our own.
    """

    def __init__(self, state: str) -> None:
        self.state = state
        self.parent = f"minictr-bench-{os.getpid()}-leaks"

    def groups(self) -> list[str]:
        """The groups below ours, in every hierarchy."""
        return [path for top in self._tops() for path, _, _ in os.walk(top) if path != top]

    def _tops(self) -> Iterable[str]:
        return (os.path.join(own, self.parent) for own in own_cgroups())

    def records(self) -> int:
        """The containers that are written down in our state directory, and the ledger."""
        path = os.path.join(self.state, "containers")
        return len(os.listdir(path)) if os.path.isdir(path) else 0

    def leave(self) -> None:
        """Remove our groups, with what was left below them; what has a process in it stays, and is in the books."""
        for top in self._tops():
            for path, _, _ in os.walk(top, topdown=False):
                with suppress(OSError):
                    os.rmdir(path)


@contextmanager
def territory() -> Iterator[Territory]:
    """A mount namespace, a state directory and a parent of control groups of our own."""
    hide_mounts(())
    with tempfile.TemporaryDirectory(prefix="minictr-bench-") as state:
        os.environ["MINICTR_ROOT"] = state
        own = Territory(state)
        try:
            yield own
        finally:
            own.leave()


def _children() -> tuple[int, int]:
    """(children, zombies among them) of this process, from /proc/PID/stat."""
    children = zombies = 0
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
                state, parent = file.read().rpartition(")")[2].split()[:2]
        except OSError:
            continue  # it ended while we looked
        if int(parent) == os.getpid():
            children += 1
            zombies += state == "Z"
    return children, zombies


def books(own: Territory) -> dict[str, int]:
    """Everything that must not grow from start to start. ``rss_kib`` is the resident memory of this process."""
    gc.collect()
    with open("/proc/self/statm", encoding="utf-8") as file:
        resident = int(file.read().split()[1]) * (os.sysconf("SC_PAGE_SIZE") // 1024)
    children, zombies = _children()
    return {
        "fds": len(os.listdir("/proc/self/fd")),
        "rss_kib": resident,
        "threads": len(os.listdir("/proc/self/task")),
        "mounts": _lines("/proc/self/mountinfo"),
        "cgroups": len(own.groups()),
        "records": own.records(),
        "children": children,
        "zombies": zombies,
    }


def leaks(rootfs: str, argv: list[str], filter_path: str, starts: int, ballast: int = 0) -> dict[str, Any]:
    """STARTS containers in a row, each timed; the books once settled and at the end."""
    ballast_held = hold_ballast(ballast)
    nanoseconds, at_settled = [], {}
    with territory() as own:
        box = container(rootfs, filter_path, cgroup_parent=own.parent)
        for number in range(1, starts + 1):
            begin = time.perf_counter_ns()
            result = box.run(argv)
            nanoseconds.append(time.perf_counter_ns() - begin)
            if result.returncode:
                raise RuntimeError(f"start {number}: the command left with {result.returncode}")
            if number == min(SETTLED, starts):
                at_settled = books(own)
        del result
        found = {"starts": starts, "settled_at": SETTLED, "settled": at_settled, "last": books(own)}
    return {**found, "nanoseconds": nanoseconds, "ballast_bytes": len(ballast_held)}


def steps(
    rootfs: str,
    argv: list[str],
    filter_path: str,
    starts: int,
    warmup: int,
    without: Sequence[str] = (),
    ballast: int = 0,
) -> dict[str, Any]:
    """The time line of STARTS containers: for each, microseconds by feature, and what the whole call took."""
    box = container(rootfs, filter_path, without)
    ballast_held = hold_ballast(ballast)
    lines, nanoseconds = [], []
    for number in range(-warmup, starts):
        begin = time.perf_counter_ns()
        result = box.run(argv)
        elapsed = time.perf_counter_ns() - begin
        if number >= 0:
            lines.append(dict(result.timeline.by_feature()))
            nanoseconds.append(elapsed)
    return {"by_feature": lines, "nanoseconds": nanoseconds, "ballast_bytes": len(ballast_held)}


MODES: dict[str, Callable[..., dict[str, Any]]] = {"leaks": leaks, "steps": steps}


def main() -> None:
    wishes = json.loads(sys.argv[1])
    json.dump(MODES[wishes.pop("mode")](**wishes), sys.stdout)


if __name__ == "__main__":
    main()
