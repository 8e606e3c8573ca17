"""Another kernel to test on: boots User-mode Linux on this machine's own files and runs one command in it.

By hand::

    python tests/guests/guest.py unified tests/kernel/test_namespaces.py -k uts     pytest, with these arguments
    python tests/guests/guest.py v1 -- cat /proc/self/cgroup                        any command

User-mode Linux (Debian: user-mode-linux, here Linux 6.1) is a kernel that runs as an ordinary process of whoever
starts it. The guest's root is the host's own file system, seen with the rights of that user, with a tmpfs overlaid:
inside everything can be written, outside nothing changes. ``init.sh`` is the guest's first program.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
# unified: every controller on cgroup v2. v1: every one on v1. hybrid: cpu, devices, freezer on v1, the others on v2.
# apparmor, selinux: as unified, with that security module live.
MODES = ("unified", "v1", "hybrid", "apparmor", "selinux")
SECURITY = ("apparmor", "selinux")  # by default this kernel would have SELinux, live and without a policy

MEMORY = 768 << 20
DISKS = (("ubda", 32 << 20), ("ubdb", 64 << 20))  # a scratch disk for io limits; swap
BOOTING = 30.0  # seconds a boot and a halt may take on top of the command's deadline; measured: 2


class Outcome(NamedTuple):
    """How a command ended in a guest. ``code`` is None when the guest did not live to tell."""

    code: int | None
    output: str
    console: str
    junit: str
    seconds: float


class Report(NamedTuple):
    """What pytest found in a guest: ids, and texts by id."""

    passed: tuple[str, ...]
    failed: dict[str, str]
    skipped: dict[str, str]


def run(
    mode: str, command: list[str], *, deadline: float = 60, follow: Callable[[str], object] | None = None
) -> Outcome:
    """Runs ``command`` as root of a fresh guest, in the repository's directory. An exit code of 124 is a time-out.

    ``mode`` is one of MODES, ``deadline`` in seconds without the boot, ``follow`` gets the output while it is written.
    Nothing of the guest is left when this returns or raises. ValueError: a path cannot be told to the guest.
    """
    if len(f"{ROOT} {sys.prefix}".split()) != 2:
        raise ValueError(f"white space in a path: {ROOT}, {sys.prefix}")
    with tempfile.TemporaryDirectory(prefix="minictr-guest-", dir=place()) as name:
        exchange, begun = Path(name), time.monotonic()
        settings = {"MODE": mode, "DEADLINE": str(deadline), "DIRECTORY": str(ROOT), "VISIBLE": f"{ROOT} {sys.prefix}"}
        lines = [f"{key}={shlex.quote(value)}" for key, value in settings.items()]
        (exchange / "settings").write_text("\n".join([*lines, f"set -- {shlex.join(command)}", ""]))
        for disk, size in DISKS:
            with open(exchange / disk, "wb") as file:
                file.truncate(size)
        with booted(exchange, mode) as process:
            watch(process, exchange / "output", deadline + BOOTING, follow)
        code = text(exchange / "exit").strip()
        return Outcome(
            int(code) if code else None,
            text(exchange / "output"),
            text(exchange / "console"),
            text(exchange / "junit.xml"),
            time.monotonic() - begun,
        )


def place() -> str:
    """Where the guest's memory is: a file, mapped executable. In /dev/shm where that is allowed and there is room."""
    shm = "/dev/shm"
    with contextlib.suppress(OSError):
        there = os.statvfs(shm)
        if os.access(shm, os.W_OK) and not there.f_flag & os.ST_NOEXEC and there.f_bavail * there.f_frsize > MEMORY:
            return shm
    return tempfile.gettempdir()


@contextlib.contextmanager
def booted(exchange: Path, mode: str) -> Iterator[subprocess.Popen[bytes]]:
    """The guest's kernel; on leaving, it and every process that it made of itself on the host are killed."""
    arguments = [
        *("linux.uml", f"mem={MEMORY >> 20}M", f"uml_dir={exchange}", "umid=guest"),
        *("root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro"),
        f"security={mode if mode in SECURITY else 'none'}",
        *(f"{disk}={exchange / disk}" for disk, _ in DISKS),
        *("con=null", "con0=null,fd:1", "ssl=null", f"init={HERE / 'init.sh'}", f"EXCHANGE={exchange}"),
    ]
    environment = {**os.environ, "TMPDIR": str(exchange), "HOME": str(exchange)}
    with open(exchange / "console", "wb") as console:
        process = subprocess.Popen(
            arguments,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        # The group's number is the kernel's pid: still its own here, since nobody has reaped it.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def watch(
    process: subprocess.Popen[bytes], output: Path, seconds: float, follow: Callable[[str], object] | None
) -> None:
    """Waits until the guest has ended, or its time is over; hands the new part of ``output`` on meanwhile."""
    end, told = time.monotonic() + seconds, 0
    while True:
        ended = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None
        if follow and (new := text(output)[told:]):
            follow(new)
            told += len(new)
        if ended or time.monotonic() > end:
            return
        time.sleep(0.05)


def text(path: Path) -> str:
    """The text of a file; "" when there is none."""
    return path.read_bytes().decode(errors="replace") if path.exists() else ""


def pytest_command(arguments: list[str]) -> list[str]:
    """pytest with these arguments, for :func:`run`; it leaves its result in ``Outcome.junit``."""
    options = ["-p", "no:cacheprovider", "--junitxml=/run/exchange/junit.xml", "--color=no"]
    return ["env", "PYTHONDONTWRITEBYTECODE=1", sys.executable, "-P", "-m", "pytest", *options, *arguments]


def report(junit: str) -> Report:
    """Reads ``Outcome.junit``."""
    passed, failed, skipped = [], {}, {}
    for case in xml.etree.ElementTree.fromstring(junit).iter("testcase"):
        name = "::".join(filter(None, (case.get("classname", ""), case.get("name", ""))))
        bad = [child for child in case if child.tag in ("failure", "error")]
        if bad:
            failed[name] = "\n".join(child.text or child.get("message", "") for child in bad)
        elif (skip := case.find("skipped")) is not None:
            skipped[name] = skip.get("message", "")
        else:
            passed.append(name)
    return Report(tuple(passed), failed, skipped)


def main(arguments: list[str]) -> int:
    """The command line; the exit code is the command's, 125 when the guest died."""
    if not arguments or arguments[0] not in MODES:
        print(f"usage: guest.py {'|'.join(MODES)} [pytest arguments | -- command]", file=sys.stderr)
        return 125
    for number in (signal.SIGTERM, signal.SIGHUP):  # an exception: what stands in finally is done, and the guest ended
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    mode, rest = arguments[0], arguments[1:]
    command = rest[1:] if rest[:1] == ["--"] else pytest_command(rest)
    outcome = run(mode, command, deadline=600, follow=lambda new: print(new, end="", flush=True))
    if outcome.code is None:
        print(f"{outcome.console}\nguest.py: the guest died; above is its console", file=sys.stderr)
    print(f"guest.py: {mode}, {outcome.seconds:.1f} s with the boot", file=sys.stderr)
    return 125 if outcome.code is None else outcome.code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
