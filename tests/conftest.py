"""Fixtures for every test, the leak guard (house/leakguard.py), and two sessions at a time (house/beside.py)."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# The repository goes last: `bench` and `examples` are found in it, and minictr where it is installed.
sys.path.append(str(ROOT))
sys.path.append(str(ROOT / "tests" / "house"))

pytest_plugins = ["leakguard", "beside"]

# The programs of the root file system that the tests run in. Debian 12 has each of them in an essential package.
ROOTFS_PROGRAMS = ("bash", "sh", "@coreutils", "@procps", "findmnt", "setsid", "unshare", "prlimit", "mountpoint")

PATIENCE = 240 if "GUEST" in os.environ else 60  # seconds for one command of minictr; a guest is 15 times slower

# Begun in the background of a shell, the session would ignore Ctrl-C, and with it all that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def pytest_report_header() -> list[str]:
    """Which minictr is tested, where."""
    import minictr

    kernel, user = os.uname().release, f"uid {os.geteuid()}"
    return [f"minictr: {Path(minictr.__path__[0])}", f"kernel: {kernel}, {user}"]


class Requires:
    """Asks for what a test cannot do without. Missing is a failure, not a skip: `make test` installs it."""

    def __call__(self, *programs: str) -> str:
        """The path of the first program; fails when one of them is not in PATH."""
        missing = [program for program in programs if not self.has(program)]
        if missing:
            pytest.fail(f"not installed: {', '.join(missing)}; scripts/bootstrap.sh test installs it", pytrace=False)
        return shutil.which(programs[0], path=self.path) or ""

    path = os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin:/sbin"

    def has(self, program: str) -> bool:
        """Whether it is there, for the few tests that are about a peer and skip with a reason."""
        return shutil.which(program, path=self.path) is not None

    def root(self) -> None:
        """Fails for an ordinary user."""
        if os.geteuid() != 0:
            pytest.fail("this test needs root", pytrace=False)

    def landlock(self, abi: int = 1) -> None:
        """Skips where the kernel has less of Landlock: User-mode Linux has none, and no package can bring it."""
        from minictr.errors import StepFailed
        from minictr.kernel import landlock

        try:
            has = landlock.abi()
        except StepFailed as err:
            pytest.skip(f"no Landlock in this kernel: {err}")
        if has < abi:
            pytest.skip(f"this kernel has Landlock ABI {has}, the test needs {abi}")


@pytest.fixture(scope="session")
def requires() -> Requires:
    return Requires()


@pytest.fixture(scope="session")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root file system of this machine's own files, made once. Tests do not write to it: see ``own_rootfs``."""
    from minictr.images.minimal import minimal

    path = tmp_path_factory.mktemp("image") / "rootfs"
    minimal(str(path), ROOTFS_PROGRAMS)
    return path


@pytest.fixture
def own_rootfs(rootfs: Path, tmp_path: Path) -> Path:
    """A copy of ``rootfs`` to spoil."""
    path = tmp_path / "rootfs"
    subprocess.run(["cp", "-a", "--reflink=auto", str(rootfs), str(path)], check=True)
    return path


@pytest.fixture(scope="session")
def minictr_cli() -> list[str]:
    """The beginning of a command line: the installed launcher, or the module when nothing is installed."""
    launcher = Path(sys.executable).parent / "minictr"
    return [str(launcher)] if launcher.exists() else [sys.executable, "-m", "minictr"]


@pytest.fixture(scope="session")
def run_cli(minictr_cli: list[str]) -> Run:
    """``run_cli("features", ...)``: the finished process; text, both streams captured, PATIENCE at most.

    Keyword arguments are those of :func:`subprocess.run`.
    """
    if minictr_cli[0] == sys.executable:
        path = {"PYTHONPATH": os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(ROOT))))}
    else:
        path = {}

    def run(*arguments: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
        chosen: dict[str, object] = {
            "capture_output": True,
            "text": True,
            "timeout": PATIENCE,
            "stdin": subprocess.DEVNULL,
        }
        if "stdout" in options or "stderr" in options:
            del chosen["capture_output"]
        if "input" in options:
            del chosen["stdin"]
        options["env"] = {**(options.get("env") or os.environ), **path}  # type: ignore[dict-item]
        command = [*minictr_cli, *map(str, arguments)]
        return subprocess.run(command, check=False, **{**chosen, **options})  # type: ignore[call-overload,no-any-return]

    return run
