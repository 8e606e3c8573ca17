"""The throwaway child: what its ops did is told, and nothing of it stays."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest

from minictr.errors import StepFailed
from minictr.kernel import namespaces, procfs
from minictr.kernel.child import Child
from minictr.kernel.stub import sealed_stub

CLONE_NEWNET, CLONE_NEWUTS = 0x40000000, 0x04000000  # linux/sched.h
UMASK = ("umask", {"mask": 0})
MISSING = ("chdir", {"path": "/nowhere", "flags": 0})


@pytest.mark.parametrize(
    ("ops", "answer"),
    [([], None), ([UMASK, UMASK], None), ([UMASK, MISSING, UMASK], ("chdir", 2)), ([MISSING], ("chdir", 2))],
)
def test_what_failed_is_told(ops: list[Any], answer: object) -> None:
    sealed_stub()  # the one descriptor that a process keeps
    before = len(os.listdir("/proc/self/fd")), procfs.read("thread-self", "children")
    assert Child(0, iter(ops)).attempt() == answer
    assert (len(os.listdir("/proc/self/fd")), procfs.read("thread-self", "children")) == before


def test_it_is_in_namespaces_of_its_own(in_child: Any) -> None:
    def body() -> tuple[bool, bool]:
        with Child(CLONE_NEWNET | CLONE_NEWUTS, [("sethostname", {"hostname": "x"})]) as child:
            ours, its = (namespaces.identify(pid, kind="net") for pid in ("self", child.pid))
            assert namespaces.identify("self", kind="ipc") == namespaces.identify(child.pid, kind="ipc")
            return ours != its, child.attempt() is None

    name = os.uname().nodename
    assert in_child(body) == (True, True)
    assert os.uname().nodename == name


def test_closed_before_it_ran(in_child: Any) -> None:
    def body() -> str:
        with Child(0, [("rlimit", {"resource": 4, "soft": 0, "hard": 0})]) as child:
            assert procfs.status(child.pid)["Name"] == "minictr-init"
        return procfs.read("thread-self", "children")

    assert in_child(body) == ""


def test_one_that_hangs_is_ended() -> None:
    own, before = os.pipe(), procfs.read("thread-self", "children")
    child = Child(0, [UMASK, ("barrier", {"fd": own[0]}), UMASK], own)
    began = time.monotonic()
    assert child.attempt(timeout=0.2) == ("barrier", 110)  # ETIMEDOUT
    for fd in own:
        os.close(fd)
    assert time.monotonic() - began < 5
    assert procfs.read("thread-self", "children") == before


def test_it_ends_with_its_maker(in_child: Any) -> None:
    """Even amid an op that never ends: reading from a pipe of which it holds both ends."""

    def body() -> bool:
        reader, writer = os.pipe()
        maker = os.fork()
        if maker == 0:
            own = os.pipe()
            child = Child(0, [("barrier", {"fd": own[0]})], own)
            os.write(child._go, b"g")
            time.sleep(0.05)
            os.write(writer, b"%d" % child.pid)
            os._exit(0)
        pid = int(os.read(reader, 16))
        os.waitpid(maker, 0)
        deadline = time.monotonic() + 5
        while os.path.exists(f"/proc/{pid}") and procfs.status(pid)["State"][0] not in "ZX":
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
                return False
            time.sleep(0.01)
        return True

    assert in_child(body)


def test_one_that_is_killed() -> None:
    child = Child(0, [UMASK])
    os.kill(child.pid, signal.SIGKILL)
    failed = child.attempt()
    assert failed is not None
    assert failed[1] == 32  # EPIPE


def test_where_children_are_reaped_by_the_kernel(in_child: Any) -> None:
    def body() -> object:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        return Child(0, [UMASK]).attempt()

    assert in_child(body) is None


def test_refused(as_nobody: Any) -> None:
    def body() -> str:
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(StepFailed) as caught:
            Child(CLONE_NEWNET)
        assert len(os.listdir("/proc/self/fd")) == before
        return str(caught.value)

    assert as_nobody(body) == "clone3: EPERM (Operation not permitted)"


def test_dropped_unclosed_warns(in_child: Any) -> None:
    def body() -> tuple[str, str]:
        import gc
        import warnings

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            Child(0)
            gc.collect()
        return caught[0].category.__name__, procfs.read("thread-self", "children")

    assert in_child(body) == ("ResourceWarning", "")


def test_it_is_born_in_a_cgroup_of_version_2() -> None:
    """CLONE_INTO_CGROUP: never a moment outside. The cgroup is ours, below the one this process is in."""
    rows = procfs.read("self", "cgroup").splitlines()
    own = next((row.removeprefix("0::") for row in rows if row.startswith("0::")), "")
    tops = [row.split()[4] for row in procfs.read("self", "mountinfo").splitlines() if " - cgroup2 " in row]
    if not tops:
        pytest.skip("no cgroup v2 hierarchy is mounted on this kernel")
    path = f"{tops[0]}{own.rstrip('/')}/minictr-test-{os.getpid()}"
    os.mkdir(path)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with Child(CLONE_NEWUTS, cgroup=fd) as child, Child(CLONE_NEWUTS) as outside:
                assert procfs.read(child.pid, "cgroup").splitlines()[-1] == f"0::{path.removeprefix(tops[0])}"
                assert procfs.read(outside.pid, "cgroup").splitlines()[-1] == f"0::{own}"
        finally:
            os.close(fd)
    finally:
        os.rmdir(path)


def test_a_cgroup_that_is_none_is_an_error() -> None:
    fd = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    try:
        with pytest.raises(StepFailed, match="clone3: EBADF"):
            Child(CLONE_NEWUTS, cgroup=fd)
    finally:
        os.close(fd)
