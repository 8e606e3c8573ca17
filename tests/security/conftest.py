"""What the tests of this room share: containers (tests/runtime/boxes.py), the hostile programs, the trap, and the word
for a class that this kernel gives no chance to fail."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

sys.path.append(str(Path(__file__).resolve().parent))
sys.path.append(str(Path(__file__).resolve().parent.parent / "runtime"))
sys.path.append(str(Path(__file__).resolve().parent / "attempts"))

from boxes import box, lab, mountinfo, sh, status
from hostile import hostile, tried, walls
from traps import listing

import minictr as mc

__all__ = ["box", "hostile", "lab", "mountinfo", "sh", "status", "tried", "walls"]

HERE = Path(__file__).resolve().parent
NOT_EXERCISABLE = "not exercisable here: "
DENIED = ("not permitted", "ermission denied", "Read-only", "No such", "Text file busy")

Attempt = Callable[..., str]


@pytest.fixture(scope="session")
def not_exercisable() -> Callable[[str], NoReturn]:
    """``not_exercisable(reason)``: this class cannot fail on this kernel: skipped, and listed at the end."""

    def leave(reason: str) -> NoReturn:
        pytest.skip(NOT_EXERCISABLE + reason)

    return leave


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A section of their own for the classes that could not be shown to fail."""
    found = set()
    for report in terminalreporter.stats.get("skipped", ()):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
        if NOT_EXERCISABLE in reason:
            found.add(f"{report.nodeid.removeprefix('tests/security/')}: {reason.partition(NOT_EXERCISABLE)[2]}")
    if found:
        terminalreporter.section(NOT_EXERCISABLE.rstrip(": "), bold=True)
        for line in sorted(found):
            terminalreporter.line(line, yellow=True)


def compiled(requires: Callable[..., str], source: str, program: Path, *options: str) -> Path:
    """tests/security/SOURCE, compiled as PROGRAM."""
    command = [requires("gcc"), "-O1", "-Wall", "-Wextra", "-Werror", *options, "-o", program, HERE / source]
    subprocess.run(command, check=True)
    return program


@pytest.fixture(scope="session")
def tools(requires, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of the host with the static programs: probe (probe.c) and files (probe_files.c)."""
    requires.root()
    path = tmp_path_factory.mktemp("tools")
    compiled(requires, "probe.c", path / "probe", "-static")
    compiled(requires, "probe_files.c", path / "files", "-static")
    return path


@pytest.fixture(scope="session")
def den(lab: Path, tools: Path) -> Path:
    """``lab`` with probe_files.c in it, as /bin/files."""
    shutil.copy(tools / "files", lab / "bin" / "files")
    return lab


def fill_tiny(root: Path, tools: Path) -> Path:
    """A root with two static programs and the directories that a container needs: a start takes a few milliseconds."""
    for name in ("bin", "proc", "sys", "dev", "tmp", "etc", "mnt", "root"):
        (root / name).mkdir(parents=True)
    for name in ("probe", "files"):
        shutil.copy(tools / name, root / "bin" / name)
    return root


@pytest.fixture
def tiny(tools: Path, tmp_path: Path) -> Path:
    """A tiny root to spoil."""
    return fill_tiny(tmp_path / "tiny", tools)


@pytest.fixture(scope="session")
def attempt() -> Attempt:
    """``attempt(box, "VERB ARGUMENT")``: what probe.c, or with ``program="files"`` probe_files.c, says; "" when it
    succeeded."""

    def run(box: mc.Container, words: str, *, program: str = "probe", **options: object) -> str:
        done = box.run([f"/bin/{program}", *words.split()], capture_output=True, text=True, timeout=20, **options)
        if done.returncode == 0:
            assert done.stdout.startswith("ok"), done
            return ""
        assert any(word in done.stdout for word in DENIED), done
        return str(done.stdout).strip()

    return run


@pytest.fixture(scope="session")
def powerful() -> Callable[..., mc.Container]:
    """``powerful(box, "SYS_ADMIN")``: with more capabilities than the profile gives."""

    def more(box: mc.Container, *names: str) -> mc.Container:
        kept = next(f for f in box.features if f.name == "capabilities").bounding
        return box.with_(mc.Capabilities((*kept, *names)))

    return more


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """A directory of the host with everything in it that a careless start would write, remove, chmod or mount over."""
    path = tmp_path / "trap"
    for name in ("pts", "shm", "mqueue", "fd", "net/ipv4", "kernel", "self/attr", "fs/cgroup", "below"):
        (path / name).mkdir(parents=True)
    for name in ("ptmx", "console", "null", "tty", "stdin", "passwd", "group", "hostname", "secret", "kcore", "uptime"):
        (path / name).write_text(f"{name} of the host\n")
    for name in ("net/ipv4/ping_group_range", "kernel/hostname", "self/attr/exec", "below/file"):
        (path / name).write_text("of the host\n")
    (path / "link").symlink_to("secret")
    os.mkfifo(path / "fifo")
    os.chmod(path / "secret", 0o600)
    return path


@pytest.fixture
def unharmed(trap: Path) -> Callable[[], bool]:
    """``unharmed()``: whether not one byte, mode, owner or time of the trap has changed since the test began."""
    before = listing(trap)
    return lambda: listing(trap) == before
