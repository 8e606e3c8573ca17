"""Limits of an ordinary user: where a cgroup v2 subtree is delegated to him they bite. Runs in the guest `unified`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parent))

from lab import UID, Lab

from minictr.kernel import cgroup_tasks, cgroups


@pytest.fixture
def subtree(machine: Lab) -> Iterator[str]:
    """A group that is the user's, with memory, pids and cpu for those below it."""
    there = [each for each in cgroups.hierarchies() if each.version == 2 and each.own]
    if not there or not {"memory", "pids", "cpu"} <= {*there[0].controllers}:
        pytest.skip("cgroup v2 with memory, pids and cpu is needed")
    for controller in ("memory", "pids", "cpu"):
        place = cgroups.locate(controller, f"mctest-rootless-{os.getpid()}")
        cgroups.create(place)
    cgroup_tasks.delegate(place, UID, UID)
    try:
        yield place.directory
    finally:
        cgroups.kill([place])
        cgroups.remove(place.directory, recorded=True)


@pytest.fixture
def inside(subtree: str, lab: Lab) -> str:
    """What root does first: the command is alone in the group, as under systemd-run --user --scope -p Delegate=yes."""
    return f"echo $$ >{subtree}/cgroup.procs"


def words(lab: Lab, *options: object) -> list[object]:
    return ["--overlay", "--rootfs", lab.rootfs, *options, "--"]


def test_the_default_limit_of_processes(inside: str, lab: Lab, subtree: str) -> None:
    """No option is needed: minictr steps aside in the group that is his, and its containers are beside it."""
    lab.ok("run", "-d", "--name", "web", *words(lab), "sleep", "1000", before=inside)
    groups = [path for path in Path(subtree).iterdir() if path.name.startswith("minictr-")]
    (group,) = groups
    assert (group / "pids.max").read_text() == "1024\n"
    assert group.stat().st_uid == UID
    assert str(lab.pid_of("web")) in (group / "cgroup.procs").read_text().split()
    aside = (Path(subtree) / "minictr.self/cgroup.procs").read_text().split()
    assert [Path(f"/proc/{pid}/comm").read_text() for pid in aside] == ["minictr-mon\n"]


def test_memory(inside: str, lab: Lab) -> None:
    eat = "head -c 200M /dev/zero | tail -c 190M >/dev/null"
    done = lab.user("run", "-m", "48M", "--memory-swap", "48M", *words(lab), "sh", "-c", eat, before=inside)
    assert "memory" in done.stderr and "48M" in done.stderr.replace(" MiB", "M"), done


def test_processes(inside: str, lab: Lab) -> None:
    many = "for i in 1 2 3 4 5 6 7 8 9; do sleep 3 & done; wait"
    done = lab.user("run", "--pids-limit", "6", *words(lab), "sh", "-c", many, before=inside)
    assert done.returncode != 0
    assert "processes" in done.stderr, done


def test_kept_containers(inside: str, lab: Lab, subtree: str) -> None:
    """Pause, update and stats: the groups of a kept container are his as well."""
    lab.ok("run", "-d", "--name", "web", *words(lab, "-m", "64M"), "sleep", "1000", before=inside)
    (group,) = (path for path in Path(subtree).iterdir() if path.name.startswith("minictr-"))
    lab.ok("pause", "web")
    assert "frozen 1" in (group / "cgroup.events").read_text()
    assert lab.ok("ps", "--format", "{{.Status}}").endswith("(Paused)")
    lab.ok("unpause", "web")
    lab.ok("update", "-m", "32M", "web")
    assert (group / "memory.max").read_text() == f"{32 << 20}\n"
    assert "32" in lab.ok("stats", "--no-stream", "web")
    lab.ok("commit", "web", f"{lab.place}/home/layer")
    lab.ok("rm", "-f", "web")
    assert not group.exists()


def test_what_is_not_his_is_refused(subtree: str, lab: Lab) -> None:
    told = lab.refused("run", "-m", "64M", *words(lab), "true")
    assert "delegated" in told and "--without" in told
