"""Subscriptions: told when a limit bites, and not otherwise."""

from __future__ import annotations

import os
import select
import subprocess
import threading
import time
from typing import Any

import pytest
from cgrouptools import start, text
from test_cgroup_limits import FILL, FORK

from minictr.errors import StepFailed, Unsupported
from minictr.kernel import cgroups
from minictr.kernel.cgroup_events import Event, Events


def until(events: Events, kind: str, timeout: float = 10) -> Event:
    """The first event of KIND."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        for event in events.wait(end - time.monotonic()):
            if event.kind == kind:
                return event
    pytest.fail(f"no {kind}")


def test_out_of_memory(group: Any) -> None:
    place = group("memory", max=16 << 20, swap=0)
    assert cgroups.usage([place]).memory.limit == 16 << 20  # type: ignore[union-attr]
    with Events([place]) as events:
        assert events.wait(0.05) == ()
        with start(FILL, place) as process:
            seen = set()
            while not seen >= {"oom", "oom_kill"}:  # one may be counted while the file is read: then it comes next
                found = events.wait(10)
                assert found, f"only {seen}"
                seen |= {event.kind for event in found}
            assert process.wait(5) == -9
        events.wait(0.6)
        assert events.wait(0.05) == ()


def test_pids_limit(group: Any) -> None:
    place = group("pids", max=4)
    assert text(place, "pids.max") == "4"
    with Events([place]) as events:
        assert not select.select([events], [], [], 0.05)[0]
        began = time.monotonic()
        with start(FORK, place):
            assert until(events, "pids_max") == Event("pids_max", 1, 1)
            assert time.monotonic() - began < 5
            cgroups.kill([place])
        with start(FORK, place):
            assert until(events, "pids_max") == Event("pids_max", 1, 2)
            cgroups.kill([place])


GROW = """
import sys
for line in sys.stdin:
    block = bytearray(b'x' * (20 << 20))
    del block
    print('ok', flush=True)
"""


def test_memory_high(group: Any) -> None:
    """v1 has none: a threshold of use tells, also of use that is over when somebody looks."""
    place = group("memory", max=64 << 20, swap=0)
    if place.version == 2:
        cgroups.write(place, high=12 << 20)
    with Events([place], high=12 << 20) as events, start(GROW, place, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        for count in (1, 2):
            process.stdin.write("go\n")
            process.stdin.flush()
            if place.version == 1:
                assert process.stdout.readline() == "ok\n"
                assert until(events, "memory_high") == Event("memory_high", 1, count)
        if place.version == 2:  # slowed down more and more: not waited for
            assert until(events, "memory_high").new >= 1
        process.kill()


def test_what_happens_outside_is_not_told(group: Any) -> None:
    pids, inner = group("pids", "a"), group("pids", "b", max=3)
    with Events([group("memory"), pids]) as events, start(FORK, inner) as process:
        assert process.stdout is not None and process.stdout.readline() == "2 11\n"
        assert events.wait(0.2) == ()
        cgroups.kill([inner])


def test_it_ends_with_its_groups(group: Any) -> None:
    place = group("memory")
    with Events([place]) as events:
        threading.Timer(0.1, cgroups.remove, [place.directory]).start()
        with pytest.raises(StepFailed, match="ENODEV .*the group was removed"):
            events.wait()
        assert [*events] == []


def test_close_gives_all_descriptors_back(group: Any) -> None:
    place, pids = group("memory"), group("pids")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        Events([place, pids], high=1 << 20).close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_groups_without_events(group: Any) -> None:
    with pytest.raises(Unsupported, match="none of these groups tells events"):
        Events([group("cpu")])


def test_a_group_that_is_gone(group: Any) -> None:
    place = group("pids")
    with pytest.raises(StepFailed, match=r"watch .*pids.events: ENOENT"):
        Events([place.replace(directory=f"{place.directory}/gone")])
