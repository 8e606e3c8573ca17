"""Runs inside each guest, and only there (the name keeps it out of an ordinary collection): the guest is what was asked
for, and minictr works on it from end to end."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from minictr.errors import StepFailed
from minictr.images.minimal import minimal
from minictr.kernel.child import Child

MODE = os.environ["GUEST"]
CGROUPS = Path("/sys/fs/cgroup")
# mode: controllers of each v1 hierarchy, and those of v2
EXPECTED = {
    "unified": (set(), "cpu io memory pids"),
    "v1": ({"cpu,cpuacct", "memory", "blkio", "pids", "devices", "freezer", "name=systemd"}, None),
    "apparmor": (set(), "cpu io memory pids"),
    "selinux": (set(), "cpu io memory pids"),
    "hybrid": ({"cpu", "cpuacct", "devices", "freezer", "name=systemd"}, "io memory pids"),
}


def version2() -> Path | None:
    """Where v2 is mounted."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    return next((Path(where) for _, where, kind, *_ in mounts if kind == "cgroup2"), None)


def test_controllers_are_where_they_were_asked_for() -> None:
    rows = [line.split(":") for line in Path("/proc/self/cgroup").read_text().splitlines()]
    top = version2()
    controllers = (top / "cgroup.controllers").read_text().strip() if top else None
    assert ({names for number, names, _ in rows if number != "0"}, controllers) == EXPECTED[MODE]


def test_a_child_is_born_in_its_cgroup() -> None:
    """CLONE_INTO_CGROUP: before its first instruction, so nobody has to move it. A v1 directory is refused."""
    top = version2() or CGROUPS / "memory"
    place = top / "minictr-born"
    place.mkdir()
    fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if version2():
            with Child(cgroup=fd) as child:
                assert f"0::/{place.name}" in Path(f"/proc/{child.pid}/cgroup").read_text().splitlines()
                assert (place / "cgroup.procs").read_text().split() == [str(child.pid)]
                assert child.attempt() is None
        else:
            with pytest.raises(StepFailed, match="clone3: EBADF"):
                Child(cgroup=fd)
    finally:
        os.close(fd)
        place.rmdir()


def test_a_container_runs(minictr_cli: list[str], tmp_path: Path) -> None:
    rootfs = tmp_path / "rootfs"
    minimal(str(rootfs), ["sh", "true", "cat"])

    def run(*command: str) -> Any:
        arguments = [*minictr_cli, "run", "--rootfs", str(rootfs), "--", *command]
        return subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)

    answer = run("true")
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")
    answer = run("sh", "-c", "echo $$; cat /proc/sys/kernel/hostname; exit 7")
    assert (answer.returncode, answer.stdout.split()[0], answer.stderr) == (7, "2", "")
