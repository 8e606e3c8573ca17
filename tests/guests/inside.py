"""Runs inside each guest, and only there (the name keeps it out of an ordinary collection): the guest is what was asked
for, and minictr works on it from end to end."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import guest
import pytest

import minictr as mc
from minictr.errors import StepFailed
from minictr.images.minimal import minimal
from minictr.kernel.child import Child

MODE = os.environ["GUEST"]
CGROUPS = Path("/sys/fs/cgroup")
V1 = {"cpu,cpuacct", "memory", "blkio", "pids", "devices", "freezer", "name=systemd"}
SOME = {"cpu", "cpuacct", "devices", "freezer", "name=systemd"}
CLOUD = "cpuset cpu io memory hugetlb pids rdma misc"  # Debian's kernel; User-mode Linux has less
# mode: controllers of each v1 hierarchy, and those of v2
EXPECTED = {
    "unified": (set(), "cpu io memory pids"),
    "v1": (V1, None),
    "apparmor": (set(), "cpu io memory pids"),
    "selinux": (set(), "cpu io memory pids"),
    "hybrid": (SOME, "io memory pids"),
    "bookworm": (set(), CLOUD),
    "bookworm-v1": ({*V1, "cpuset", "hugetlb"}, None),
    "bookworm-hybrid": ({*SOME, "cpuset"}, "io memory hugetlb pids rdma misc"),
    "bookworm-backports": (set(), CLOUD),
    "trixie-backports": (set(), CLOUD),
}
MACHINE = guest.MODES[MODE]
LIMITS = frozenset({"cpu", "cpuset", "io", "memory", "pids", "devices", "freezer", "hugetlb", "rdma", "misc"})


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
        return subprocess.run(arguments, capture_output=True, text=True, timeout=180, check=False)

    answer = run("true")
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")
    answer = run("sh", "-c", "echo $$; cat /proc/sys/kernel/hostname; exit 7")
    assert (answer.returncode, answer.stdout.split()[0], answer.stderr) == (7, "2", "")


def test_the_doctor_says_what_this_kernel_has(minictr_cli: list[str]) -> None:
    done = subprocess.run([*minictr_cli, "doctor", "--json"], capture_output=True, text=True, timeout=360, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    works = {row["name"]: row["works"] for row in found["checks"]}
    v1, v2 = EXPECTED[MODE]
    assert found["host"]["cgroups"] == ("hybrid" if v1 and v2 else "v1" if v1 else "v2")
    given = {name for names in (*v1, (v2 or "").replace(" ", ",")) for name in names.split(",")}
    given = {{"blkio": "io"}.get(name, name) for name in given} | ({"devices", "freezer"} if v2 else set())
    assert {name for name in LIMITS if works[name]} == given & LIMITS
    assert works["apparmor"] == (MACHINE.security == "apparmor")
    assert works["selinux"] is False  # no policy is loaded yet: inside_selinux.py
    refused = {row["name"]: row["refused_by"] for row in found["checks"] if not row["works"]}
    if not MACHINE.suite:
        assert refused["cpuset"] == refused["landlock"] == "kernel"
    else:
        assert works["landlock"] and works["timens"] and works["cpuset"]


@pytest.fixture(scope="session")
def box(tmp_path_factory: pytest.TempPathFactory) -> mc.Container:
    rootfs = tmp_path_factory.mktemp("image") / "rootfs"
    minimal(str(rootfs), ["sh", "true", "cat", "sleep", "kill", "touch"])
    return mc.Container(rootfs)


def test_a_life(kept: Callable[..., Any], box: mc.Container) -> None:
    """From run -d to rm: in the background, joined, paused, stopped, started again, removed."""

    def done(*words: str) -> str:
        answer = kept(*words)
        assert answer.returncode == 0, f"{words}: {answer.stderr}"
        return str(answer.stdout).strip()

    script = "trap 'echo told to end; exit 3' TERM; echo up; while :; do sleep 0.2; done"
    done("run", "-d", "--name", "lab", "--rootfs", str(box.rootfs), "--overlay", "--", "sh", "-c", script)
    look = "echo $PPID; touch /made; cat /proc/sys/kernel/hostname"
    assert done("exec", "lab", "sh", "-c", look).split() == ["0", "lab"]
    state = json.loads(done("inspect", "lab"))[0]["State"]
    assert Path(f"/proc/{state['Pid']}/root/made").exists() and not (Path(box.rootfs) / "made").exists()
    done("pause", "lab")
    assert json.loads(done("inspect", "lab"))[0]["State"]["Status"] == "paused"
    done("unpause", "lab")
    done("stop", "lab")
    state = json.loads(done("inspect", "lab"))[0]["State"]
    assert (state["Status"], state["ExitCode"]) == ("exited", 3)
    assert done("logs", "lab").split("\n") == ["up", "told to end"]
    done("start", "lab")
    pid = json.loads(done("inspect", "lab"))[0]["State"]["Pid"]
    done("rm", "-f", "lab")
    assert not Path(f"/proc/{pid}").exists()
    assert done("ps", "-a", "-q") == ""
