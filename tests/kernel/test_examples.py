"""The examples of the kernel modules do what they say, and leave the host as it was."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import minictr

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
# example -> words of its output
SAYS = {
    "capabilities": (
        "Operation not permitted",
        "user 65534: effective ('KILL',)",
        "CapAmb:\t0000000000000020",
        "user 0 executes",
        "CapPrm:\t0000000000000000",
    ),
    "cgroups": (
        "memory is on cgroup v",
        "returned -9",
        "processes killed for it: 1",
        "stands still: True",
        "gone: True",
    ),
    "labels": ("modules: ", "apparmor: live ", "selinux: live "),
    "landlock": (
        "restricted: read /etc/passwd: EACCES, make a file in its directory: done, connect: EACCES",
        "the parent: read /etc/passwd: done, make a file in its directory: done, connect: done",
    ),
    "links": ("10.7.0.2:80 answers as 10.7.0.2", "10.7.0.1:8080 answers as 10.7.0.1", "2 br0 bridge 02:00:00:00:00:01"),
    "mounts": ("tmpfs rw,nosuid", "1048576 bytes", "writable: False", "belongs to 100000", "as before"),
    "namespaces": ("inside: host name lab", "('lo', 'down')", "own process id: 1", "joined ipc"),
    "network": ("down: ", "up: hello (lo"),
    "process": ("nofile             (64, 64)", "no_new_privs       True", "the parent is as before"),
    "rootfs": ("motd says 'changed inside'", "writable: False", "outside: motd says 'of the image'"),
    "seccomp": ("4 instructions", "with it: EDQUOT; mode and filters (2, 1)", "in the parent: mode and filters (0, 0)"),
    "seccomp_notify": (
        "probe: yes",
        "refused: EDQUOT",
        "pretended: made, there: False",
        "given: through a pipe of ours",
        "nobody answers: ENOSYS",
    ),
    "users": ("user 0 inside is user", "ours: False", "delegates"),
}
FOR_ANYBODY = ("labels", "landlock", "process", "seccomp", "seccomp_notify", "users")


def run(name: str, **options: Any) -> str:
    environment = {**os.environ, "PYTHONPATH": str(Path(minictr.__path__[0]).parent)}
    command = [sys.executable, str(EXAMPLES / f"kernel_{name}.py")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", SAYS)
def test_example(name: str, requires: Any) -> None:
    requires.root()
    if name == "landlock":
        requires.landlock(4)
    said = run(name)
    assert [words for words in SAYS[name] if words not in said] == [], said


def test_there_is_one_for_each_module() -> None:
    assert {path.stem.removeprefix("kernel_") for path in EXAMPLES.glob("kernel_*.py")} == set(SAYS)


@pytest.mark.parametrize("name", FOR_ANYBODY)
def test_example_as_an_ordinary_user(name: str, as_nobody: Any, tmp_path: Path) -> None:
    main = runpy.run_path(str(EXAMPLES / f"kernel_{name}.py"))["main"]

    def body() -> None:
        sys.stdout.flush()
        os.dup2(output.fileno(), 1)
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 - until the child ends
        main()
        sys.stdout.flush()

    with open(tmp_path / "output", "w+") as output:
        as_nobody(body, mount_namespace=False)
        output.seek(0)
        said = output.read()
    assert [words for words in SAYS[name] if words not in said] == [], said
    assert name != "users" or "is user 65534 outside" in said
