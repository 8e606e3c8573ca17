"""What is measured by a process on itself: many starts in a row, and minictr's own time line.

Usage: python -m bench.lifecycle.inside JSON. It prints one JSON object. ``mode`` is

``leaks``   ``starts`` containers in a row; the process's and the host's books at the 10th and at the last
``steps``   ``starts`` containers after ``warmup``; the time line of each by feature
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from bench.lifecycle.serve import container, hold_ballast

SETTLED = 10  # starts after which everything that is made once has been made


def _lines(path: str) -> int:
    with open(path, "rb") as file:
        return sum(1 for _ in file)


def _cgroups() -> int:
    """All cgroups of the host, from the third column of /proc/cgroups (v1 and v2 hierarchies)."""
    with open("/proc/cgroups", encoding="utf-8") as file:
        return sum(int(line.split()[2]) for line in file if not line.startswith("#"))


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


def books() -> dict[str, int]:
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
        "cgroups": _cgroups(),
        "children": children,
        "zombies": zombies,
    }


def leaks(rootfs: str, argv: list[str], filter_path: str, starts: int, ballast: int = 0) -> dict[str, Any]:
    """STARTS containers in a row, each timed; the books once settled and at the end."""
    box = container(rootfs, filter_path)
    ballast_held = hold_ballast(ballast)
    nanoseconds, at_settled = [], {}
    for number in range(1, starts + 1):
        begin = time.perf_counter_ns()
        result = box.run(argv)
        nanoseconds.append(time.perf_counter_ns() - begin)
        if result.returncode:
            raise RuntimeError(f"start {number}: the command left with {result.returncode}")
        if number == min(SETTLED, starts):
            at_settled = books()
    del result
    found = {"starts": starts, "settled_at": SETTLED, "settled": at_settled, "last": books()}
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
