"""The eyes of this room: each kind of thing that can be left is left, and seen; and others' things are not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from remains import Place
from table import Row

ORPHAN = (
    "import os, sys, time; os.fork() and os._exit(0); os.setsid(); os.execve('/usr/bin/sleep', ['sleep', '60'], {})"
)


@pytest.fixture
def place(tmp_path: Path, rootfs: Path) -> Place:
    with Place(tmp_path, rootfs) as place:
        yield place


def test_nothing(place: Place) -> None:
    assert place.left(patience=0) == []
    assert place.run("run", "--rootfs", place.rootfs, *place.options, "--", "true").returncode == 0
    assert place.left() == []


def test_what_runs_is_seen_and_may_be_there(place: Place, tmp_path: Path) -> None:
    started = place.run("run", "-d", "--name", "one", "--rootfs", place.rootfs, *place.options, "--", "sleep", "60")
    assert started.returncode == 0, started.stderr
    assert len(place.processes()) == 3  # monitor, init, sleep
    kinds = {line.partition(":")[0] for line in place.left(patience=0)}
    assert kinds == {"process", "cgroup", "state"}
    assert place.left(besides=["one"], patience=0) == []
    with Place(tmp_path) as other:
        assert other.left(patience=0) == []
    assert place.run("rm", "-f", "one").returncode == 0
    assert place.left() == []


def test_each_kind_is_seen(place: Place, requires) -> None:
    requires.root()
    place.popen([sys.executable, "-c", ORPHAN]).wait()
    (group := Path(place.groups[0], "x", "y")).mkdir(parents=True)
    (place.directory / "tmp" / "file").touch()
    (place.root / "containers" / ("ab" * 32)).mkdir(parents=True)
    (place.root / "stray").touch()
    shared = Path("/dev/shm", f"x-{'ab' * 6}")
    shared.touch()
    mountpoint = place.directory / "mnt"
    mountpoint.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", mountpoint], check=True)
    try:
        found = place.left(patience=0.1)
    finally:
        shared.unlink()
    for text in ("process: pid ", str(group), str(group.parent), "/tmp/file", "stray", "abab", str(shared), "mount: "):
        assert any(text in line for line in found), (text, found)
    place.close()
    assert not place.processes()
    assert not os.path.exists(group.parent.parent)
    place.directory.mkdir()  # for the fixture


def test_sound() -> None:
    assert Row("x", 9, 4, 5, 0, 0, 0).sound
    assert not any(Row("x", 9, 4, 5, *(int(i == bad) for i in range(3))).sound for bad in range(3))
