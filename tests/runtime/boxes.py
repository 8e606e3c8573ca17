"""Fixtures for tests that start containers, shared by tests/runtime, tests/security and tests/faults."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import minictr as mc

PROBE = Path(__file__).resolve().parent.parent / "security" / "probe.c"

Shell = Callable[..., str]


@pytest.fixture(scope="session")
def lab(rootfs: Path, tmp_path_factory: pytest.TempPathFactory, requires) -> Path:
    """``rootfs`` with tests/security/probe.c in it, as /bin/probe and, with the set-user-ID bit, as /bin/suid."""
    requires.root()
    gcc = requires("gcc")
    path = tmp_path_factory.mktemp("lab") / "rootfs"
    subprocess.run(["cp", "-a", "--reflink=auto", str(rootfs), str(path)], check=True)
    probe = path / "bin" / "probe"
    subprocess.run([gcc, "-O1", "-Wall", "-Wextra", "-Werror", "-static", "-o", probe, PROBE], check=True)
    shutil.copy(probe, path / "bin" / "suid")
    os.chmod(path / "bin" / "suid", 0o4755)
    with open(path / "etc" / "passwd", "a") as passwd, open(path / "etc" / "group", "a") as group:
        passwd.write("alice:x:1000:1001:Alice:/home/alice:/bin/sh\n")
        group.write("alice:x:1001:\nstaff-a:x:2001:bob,alice\nstaff-b:x:2002:alice\nothers:x:2003:bob\n")
    (path / "home" / "alice").mkdir(parents=True)
    os.chown(path / "home" / "alice", 1000, 1001)
    return path


@pytest.fixture(scope="session")
def box(lab: Path) -> mc.Container:
    """A container of the default profile on ``lab``."""
    return mc.Container(lab)


@pytest.fixture(scope="session")
def sh() -> Shell:
    """``sh(box, script)``: what the script prints; its failure is ours. ``sh(..., code=3)`` expects that code."""

    def run(box: mc.Container, script: str, *, code: int = 0, **options: object) -> str:
        done = box.run(["bash", "-c", script], **{"capture_output": True, "text": True, "timeout": 30, **options})
        assert done.returncode == code, f"{done.returncode}: {done.stdout}{done.stderr}"
        return str(done.stdout or "").strip()

    return run


@pytest.fixture(scope="session")
def status(sh: Shell) -> Callable[..., dict[str, str]]:
    """``status(box)``: /proc/self/status of a program in it."""

    def read(box: mc.Container, path: str = "/proc/self/status") -> dict[str, str]:
        rows = (line.partition(":") for line in sh(box, f"exec cat {path}").splitlines())
        return {name: value.strip() for name, _, value in rows}

    return read


@pytest.fixture(scope="session")
def mountinfo(sh: Shell) -> Callable[..., dict[str, list[str]]]:
    """``mountinfo(box)``: mount point -> the fields of its (topmost) line of /proc/self/mountinfo."""

    def read(box: mc.Container, **options: object) -> dict[str, list[str]]:
        lines = sh(box, "exec cat /proc/self/mountinfo", **options).splitlines()
        return {fields[4]: fields for fields in map(str.split, lines)}

    return read


def listing(root: Path) -> dict[str, tuple[object, ...]]:
    """Everything below ROOT: mode, owner, size, mtime, link target. Two equal listings: nothing was touched."""
    found: dict[str, tuple[object, ...]] = {}
    for directory, below, files in os.walk(root):
        for name in (".", *below, *files):
            path = os.path.join(directory, name)
            stat = os.lstat(path)
            target = os.readlink(path) if os.path.islink(path) else ""
            found[path] = (stat.st_mode, stat.st_uid, stat.st_gid, stat.st_size, stat.st_mtime_ns, target)
    return found
