"""Where clone3(2) "does not exist", as docker's filter and ours say inside a container, clone(2) does its work."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

import minictr as mc
from minictr.errors import StepFailed
from minictr.kernel import capabilities, seccomp
from minictr.kernel.child import Child

CLONE3 = 435  # asm-generic/unistd.h
CLONE_NEWUTS, CLONE_INTO_CGROUP = 0x04000000, 0x200000000  # linux/sched.h
ENOSYS = 38


def without_clone3(program: bytes) -> None:
    capabilities.no_new_privs()
    seccomp.load(program)


def test_a_child_in_a_namespace(in_child: Any, refusing: Any) -> None:
    def body() -> Any:
        signal.signal(signal.SIGUSR1, lambda *_: None)  # a handler, which is not the child's
        without_clone3(refusing(ENOSYS, CLONE3))
        with Child(CLONE_NEWUTS, [("sethostname", {"hostname": "other"})]) as child:
            there = os.readlink(f"/proc/{child.pid}/ns/uts"), os.stat(f"/proc/self/fd/{child.pidfd}").st_mode
            caught = next(row for row in Path(f"/proc/{child.pid}/status").read_text().split("\n") if "SigCgt" in row)
            return there[0] != os.readlink("/proc/self/ns/uts"), caught.split()[1], child.attempt()

    assert in_child(body) == (True, "0" * 16, None)


def test_a_container_to_its_end(in_child: Any, refusing: Any, rootfs: Path) -> None:
    """With every namespace, and its init, which is cloned as well."""

    def body() -> Any:
        without_clone3(refusing(ENOSYS, CLONE3))
        box = mc.Container(rootfs).without("pids", "seccomp")
        return box.run(["sh", "-c", "echo $$; exit 3"], capture_output=True, text=True)

    done = in_child(lambda: (lambda r: (r.returncode, r.stdout, r.stderr))(body()))
    assert done == (3, "2\n", "")


def test_what_clone_cannot_be_told_stays_refused(in_child: Any, refusing: Any) -> None:
    def body() -> str:
        without_clone3(refusing(ENOSYS, CLONE3))
        with pytest.raises(StepFailed) as caught:
            Child(CLONE_INTO_CGROUP, cgroup=0)
        return str(caught.value)

    assert in_child(body).startswith("clone3: ENOSYS")


def test_another_refusal_is_one(in_child: Any, refusing: Any) -> None:
    def body() -> str:
        without_clone3(refusing(1, CLONE3))
        with pytest.raises(StepFailed) as caught:
            Child()
        return str(caught.value)

    assert in_child(body).startswith("clone3: EPERM")
