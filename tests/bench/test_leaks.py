"""The leak check: what it must see, and what is not its business. As root."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import minictr as mc
from bench import ROOT, host
from bench.lifecycle import leaks
from bench.lifecycle.inside import Territory

# as bench.lifecycle.inside does it, in a process where no container's groups are ever taken back
LEAKING = """
import json, sys
from bench.lifecycle import inside
from minictr.runtime.aftermath import Aftermath
Aftermath.__call__ = lambda self: None
json.dump(inside.leaks(sys.argv[1], ["/bin/true"], "", 12), sys.stdout)
"""


@pytest.fixture(autouse=True)
def _root(requires) -> None:
    requires.root()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Territory]:
    territory = Territory(str(tmp_path))
    yield territory
    territory.leave()


@contextmanager
def busy_neighbour(directory: Path) -> Iterator[None]:
    """Somebody else, who makes more and more groups beside ours, and mounts, all the time."""
    over, made = threading.Event(), []
    mounts: list[Path] = []

    def work() -> None:
        while not over.wait(0.01):
            for top in host.own_cgroups():
                path = f"{top}/minictr-test-neighbour-{os.getpid()}-{len(made)}"
                os.mkdir(path)
                made.append(path)
            if len(mounts) < 20:
                point = directory / f"mount-{len(mounts)}"
                point.mkdir()
                subprocess.run(["mount", "-t", "tmpfs", "tmpfs", point], check=True)
                mounts.append(point)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        for path in made:
            os.rmdir(path)
        for point in mounts:
            subprocess.run(["umount", point], check=True)


def test_a_leak_check_keeps_its_books_beside_a_busy_neighbour(rootfs: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench", "lifecycle", "--leak-check", "40", "--ballast-mb", "1"]
    with busy_neighbour(tmp_path):
        done = subprocess.run(
            [*command, "--rootfs", str(rootfs), "--format", "json"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=100,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["grown"] == []
    assert len(found["nanoseconds"]) == 40
    assert found["last"]["zombies"] == found["last"]["children"] == found["last"]["cgroups"] == 0
    assert found["last"]["records"] == 1


def test_groups_that_stay_are_seen_and_removed(rootfs: Path) -> None:
    command = [sys.executable, "-c", LEAKING, str(rootfs)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["last"]["cgroups"] - answer["settled"]["cgroups"] == 2
    assert "cgroups grew from 10 to 12" in leaks.grown(answer["settled"], answer["last"])
    left = [name for top in host.own_cgroups() for name in os.listdir(top) if name.endswith("-leaks")]
    assert left == []


def test_only_groups_of_our_containers_are_counted(own: Territory, rootfs: Path) -> None:
    box = mc.Container(str(rootfs)).with_(mc.CgroupParent(own.parent))
    with mc.Cgroup("minictr-test-foreign", pids=10):
        assert own.groups() == []
        with box.popen(["/bin/cat"], stdin=mc.PIPE) as process:
            assert len(own.groups()) == 1
            process.kill()
    assert own.groups() == []


def test_records_are_those_of_our_own_state_directory(
    own: Territory, rootfs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert own.records() == 0
    monkeypatch.setenv("MINICTR_ROOT", own.state)
    box = mc.Container(str(rootfs)).with_(mc.CgroupParent(own.parent))
    instance = box.start(["/bin/cat"], interactive=True)
    assert own.records() == 1
    instance.remove(force=True)
    assert own.records() == 0
