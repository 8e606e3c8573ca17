"""Another kernel to test on: boots a guest on this machine's own files and runs one command in it.

By hand::

    python tests/guests/guest.py unified tests/kernel/test_namespaces.py -k uts     pytest, with these arguments
    python tests/guests/guest.py v1 -- cat /proc/self/cgroup                        any command
    python tests/guests/guest.py bookworm -- nft list ruleset                       Debian 12's own kernel, by QEMU

The guest's root is the host's own file system with another one overlaid: inside everything can be written, outside
nothing changes. ``init.sh`` is the guest's first program. Two kinds of machine boot it: User-mode Linux (uml.py), a
kernel that runs as an ordinary process of whoever starts it, and QEMU without KVM (qemu.py) with a kernel of Debian's.
"""

from __future__ import annotations

import contextlib
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

import qemu
import uml
from watching import Guard, watch

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent


class Machine(NamedTuple):
    """``cgroups``: all controllers on v2 (unified), all on v1, or some on either (hybrid).

    ``security``: the module that is live, beside those that go with any. ``suite``: whose kernel it is, of Debian's;
    "" is User-mode Linux.
    """

    cgroups: str
    security: str = ""
    suite: str = ""


MODES = {
    "unified": Machine("unified"),
    "v1": Machine("v1"),
    "hybrid": Machine("hybrid"),
    "apparmor": Machine("unified", "apparmor"),
    "selinux": Machine("unified", "selinux"),
    "bookworm": Machine("unified", "apparmor", "bookworm"),
    "bookworm-v1": Machine("v1", "apparmor", "bookworm"),
    "bookworm-hybrid": Machine("hybrid", "apparmor", "bookworm"),
    "bookworm-backports": Machine("unified", "apparmor", "bookworm-backports"),
    "trixie-backports": Machine("unified", "apparmor", "trixie-backports"),
}


class Outcome(NamedTuple):
    """How a command ended in a guest. ``code`` is None when the guest did not live to tell."""

    code: int | None
    output: str
    console: str
    junit: str
    seconds: float
    kernel: str


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
    Nothing of the guest is left when this returns or raises, or when this process is killed. ValueError: a path
    cannot be told to the guest. kernels.NoKernel: Debian's kernel cannot be had.
    """
    if len(f"{ROOT} {sys.prefix}".split()) != 2:
        raise ValueError(f"white space in a path: {ROOT}, {sys.prefix}")
    machine = MODES[mode]
    kind = qemu if machine.suite else uml
    with tempfile.TemporaryDirectory(prefix="minictr-guest-", dir=kind.place()) as name, Guard(name) as guard:
        exchange, begun = Path(name), time.monotonic()
        shared = exchange / "shared"
        shared.mkdir()
        settings = {
            "MODE": mode,
            "CGROUPS": machine.cgroups,
            "DEADLINE": str(deadline),
            "DIRECTORY": str(ROOT),
            "VISIBLE": f"{ROOT} {sys.prefix}",
        }
        lines = [f"{key}={shlex.quote(value)}" for key, value in {**settings, **kind.SETTINGS}.items()]
        (shared / "settings").write_text("\n".join([*lines, f"set -- {shlex.join(command)}", ""]))
        with booted(exchange, machine, guard) as process:
            watch(process, shared / "output", deadline + kind.BOOTING, follow)
        code = text(shared / "exit").strip()
        return Outcome(
            int(code) if code else None,
            text(shared / "output"),
            text(exchange / "console"),
            text(shared / "junit.xml"),
            time.monotonic() - begun,
            text(shared / "kernel").strip(),
        )


@contextlib.contextmanager
def booted(exchange: Path, machine: Machine, guard: Guard) -> Iterator[subprocess.Popen[bytes]]:
    """The process that is the guest; on leaving, it and every process that it made are killed."""
    if machine.suite:
        with qemu.booted(exchange, machine.suite, str(HERE / "init.sh"), guard) as process:
            yield process
    else:
        with uml.booted(exchange, machine.security or "none", str(HERE / "init.sh"), guard) as process:
            yield process


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
    """The command line; the exit code is the command's, 125 when the guest died or cannot be had."""
    if not arguments or arguments[0] not in MODES:
        print(f"usage: guest.py {'|'.join(MODES)} [pytest arguments | -- command]", file=sys.stderr)
        return 125
    for number in (signal.SIGTERM, signal.SIGHUP):  # an exception: what stands in finally is done, and the guest ended
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    mode, rest = arguments[0], arguments[1:]
    command = rest[1:] if rest[:1] == ["--"] else pytest_command(rest)
    try:
        outcome = run(mode, command, deadline=600, follow=lambda new: print(new, end="", flush=True))
    except qemu.NoKernel as err:
        print(f"guest.py: {err}", file=sys.stderr)
        return 125
    if outcome.code is None:
        print(f"{outcome.console}\nguest.py: the guest died; above is its console", file=sys.stderr)
    print(f"guest.py: {mode}, Linux {outcome.kernel}, {outcome.seconds:.1f} s with the boot", file=sys.stderr)
    return 125 if outcome.code is None else outcome.code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
