"""Dangerous things are done in a child: it has a mount namespace of its own, and nothing it does outlives it."""

from __future__ import annotations

import os
import pickle
import resource  # noqa: F401 - see below: lib-dynload may be as unreadable
import struct
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).resolve().parent.parent / "runtime"))

from boxes import box, lab
from detached import detached, plain

from minictr.kernel import (  # noqa: F401 - a child without privilege may be unable to read the library's files
    apparmor,
    capabilities,
    cgroup1,
    cgroup2,
    cgroup_cures,
    cgroup_events,
    cgroup_files,
    cgroup_in_force,
    cgroup_places,
    cgroup_probes,
    cgroup_tasks,
    cgroup_usage,
    cgroup_weights,
    cgroups,
    child,
    core,
    delegated,
    device_program,
    iproute,
    isolation,
    isolation_cgroups,
    isolation_mounts,
    isolation_target,
    isolation_values,
    labels,
    landlock,
    layers,
    links,
    mounts,
    namespaces,
    netlink,
    network,
    network_probes,
    nftables,
    pressure,
    probing,
    process,
    rootfs,
    seccomp,
    seccomp_notify,
    selinux,
    trees,
    trials,
    users,
)

__all__ = ["box", "detached", "lab", "plain"]

sys.path.append(str(Path(__file__).resolve().parent))  # cgrouptools

NOBODY = 65534
PR_SET_DUMPABLE = 4  # linux/prctl.h
InChild = Callable[..., Any]


class ChildFailed(AssertionError):
    """What went wrong in the child, with its traceback."""


def _child(function: Callable[..., Any], args: tuple[Any, ...], uid: int, mount_namespace: bool, writer: int) -> None:
    try:
        if mount_namespace:
            namespaces.unshare("mnt").keep()
        if uid:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            core.check(core.lib.mc_prctl(PR_SET_DUMPABLE, 1, 0, 0, 0), "prctl")  # or its own /proc files are root's
        answer = (True, function(*args))
    except BaseException:
        answer = (False, traceback.format_exc())
    with os.fdopen(writer, "wb") as file:
        pickle.dump(answer, file)


def run_child(function: Callable[..., Any], *args: Any, uid: int = 0, mount_namespace: bool = True) -> Any:
    """FUNCTION's answer, from a forked child; an exception there fails the test here with its traceback."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _child(function, args, uid, mount_namespace, writer)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        data = file.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if not data:
        raise ChildFailed(f"the child ended with {status} and said nothing")
    ok, answer = pickle.loads(data)
    if not ok:
        raise ChildFailed(answer)
    return answer


@pytest.fixture
def in_child(requires: Any) -> InChild:
    """``in_child(function, *args)``: as root, in a mount namespace of its own."""
    requires.root()
    return run_child


@pytest.fixture
def as_nobody(requires: Any) -> InChild:
    """``as_nobody(function, *args)``: as an ordinary user, in a mount namespace of its own."""
    requires.root()

    def run(function: Callable[..., Any], *args: Any, mount_namespace: bool = True) -> Any:
        return run_child(function, *args, uid=NOBODY, mount_namespace=mount_namespace)

    return run


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory to mount on, in which an ordinary user may walk."""
    for directory in (tmp_path, *tmp_path.parents):
        if directory.owner() != "root" or directory.stat().st_mode & 0o005 == 0o005:
            continue
        if "pytest" in str(directory):
            directory.chmod(0o755)
    path = tmp_path / "place"
    path.mkdir()
    return path


@pytest.fixture
def refusing() -> Callable[..., bytes]:
    """``refusing(errno, *numbers)``: a seccomp program with which these system calls fail.

    So looks an older kernel, or the inside of an outer container. Calls of Linux 5.2 and later have the same number on
    every architecture (asm-generic/unistd.h).
    """

    def program(errno: int, *numbers: int) -> bytes:
        rows = [(0x20, 0, 0, 0)]  # BPF_LD|BPF_W|BPF_ABS: the system call's number
        for number in numbers:
            rows += [(0x15, 0, 1, number), (0x06, 0, 0, 0x00050000 | errno)]  # equal: SECCOMP_RET_ERRNO
        return b"".join(struct.pack("=HBBI", *row) for row in (*rows, (0x06, 0, 0, 0x7FFF0000)))

    return program


@pytest.fixture
def group(requires: Any) -> Iterator[Any]:
    """``group(controller, **settings)``: a group of this test's own; see cgrouptools.Groups."""
    import cgrouptools

    requires.root()
    with cgrouptools.groups() as groups:
        yield groups
