"""A child that the kernel does not let die: the caller is told at the deadline, and nothing of it stays in the end."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import minictr as mc
from minictr.runtime import launch


@pytest.fixture
def freezer() -> Iterator[Path]:
    """A cgroup of ours in the freezer of version 1, below our own: what is frozen there dies only when it is thawed."""
    rows = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    tops = [row[4] for row in rows if row[row.index("-") + 1] == "cgroup" and "freezer" in row[-1].split(",")]
    if not tops:
        pytest.skip("this kernel has no freezer of cgroup v1")
    own = next(line for line in Path("/proc/self/cgroup").read_text().splitlines() if ":freezer:" in line)
    path = Path(tops[0], own.split(":", 2)[2].lstrip("/"), f"minictr-test-{os.getpid()}")
    path.mkdir()
    yield path
    (path / "freezer.state").write_text("THAWED")
    deadline = time.monotonic() + 5
    while (path / "cgroup.procs").read_text() and time.monotonic() < deadline:
        time.sleep(0.01)
    path.rmdir()


def children() -> set[str]:
    return set(Path("/proc/thread-self/children").read_text().split())


def test_a_child_that_cannot_die_does_not_hold_the_caller(
    box: mc.Container, freezer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attach, before = launch.Start.attach, children()

    def freeze(self: launch.Start) -> None:
        (freezer / "cgroup.procs").write_text(str(self.pid))
        (freezer / "freezer.state").write_text("FROZEN")
        attach(self)

    monkeypatch.setattr(launch.Start, "attach", freeze)
    monkeypatch.setattr(launch, "REAP_TIMEOUT", 0.3)
    begin = time.monotonic()
    with pytest.raises(mc.StartTimeout):
        # the barrier is what holds it until it is frozen: something to attach
        box.with_(mc.OomScoreAdj(0)).run(["true"], start_timeout=0.5)
    assert time.monotonic() - begin < 3
    assert len(children() - before) == 1
    (freezer / "freezer.state").write_text("THAWED")
    deadline = time.monotonic() + 5
    while children() - before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not children() - before  # killed at last, and reaped by the thread that was left for it
