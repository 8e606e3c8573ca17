"""Namespaces, by what the kernel shows of them: inode numbers, and what is in them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import pytest

from minictr.errors import MinictrError, SpecError, StepFailed, Unsupported
from minictr.kernel import namespaces, process
from minictr.kernel.namespaces import KINDS, enter, identify, open_namespace, pid_for_children, unshare

LEAVABLE = ("mnt", "uts", "ipc", "net", "cgroupns")


def own(kind: str) -> int:
    return identify("thread-self", kind=kind)


def forked(function: Callable[[], int]) -> int:
    """The exit code of a child that ends with FUNCTION's answer."""
    pid = os.fork()
    if pid == 0:
        os._exit(function())
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize("kind", LEAVABLE)
def test_unshare_goes_in_and_comes_back(in_child: Any, kind: str) -> None:
    def body() -> tuple[int, int, int]:
        before = own(kind)
        with unshare(kind) as inside:
            assert inside.kinds == (kind,)
            there = own(kind)
        return before, there, own(kind)

    before, there, after = in_child(body)
    assert before == after != there
    assert own(kind) != there


def test_several_at_once_and_the_others_untouched(in_child: Any) -> None:
    def body() -> set[str]:
        before = {kind: own(kind) for kind in KINDS}
        with unshare("net", "uts"):
            process.sethostname("lab")
            return {kind for kind in KINDS if own(kind) != before[kind]}

    name = process.gethostname()
    assert in_child(body) == {"net", "uts"}
    assert process.gethostname() == name != "lab"


def test_mnt_gives_back_root_and_directory(in_child: Any, place: Any) -> None:
    def body() -> tuple[str, str, bool]:
        os.chdir(place)
        with unshare("mnt"):
            os.chdir("/")
        return os.getcwd(), os.readlink("/proc/thread-self/root"), os.path.samefile(".", place)

    assert in_child(body) == (str(place), "/", True)


def test_mnt_gives_back_a_changed_root(in_child: Any, place: Any) -> None:
    (place / "proc").mkdir()

    def body() -> str:
        from minictr.kernel import mounts, rootfs

        mounts.bind(str(place), str(place)).keep()  # unshare makes "/" private, so it must be a mount
        mounts.bind("/proc", str(place / "proc")).keep()
        rootfs.chroot(str(place))
        with unshare("mnt"):
            pass
        return os.readlink("/proc/thread-self/root") + " " + " ".join(os.listdir("/"))

    assert in_child(body) == "/ proc"


def test_mnt_of_one_thread_only(in_child: Any) -> None:
    """A thread goes in while others stay, and comes back: root and directory are its own from then on."""

    def body() -> list[int]:
        seen: list[int] = []

        def work() -> None:
            with unshare("mnt"):
                seen.append(own("mnt"))
            seen.append(own("mnt"))

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        return [own("mnt"), *seen]

    main, inside, after = in_child(body)
    assert main == after != inside


def test_mounts_do_not_come_out(in_child: Any, place: Any) -> None:
    def body() -> tuple[bool, bool]:
        from minictr.kernel import mounts

        mounts.propagation("/", "rshared")
        with unshare("mnt"):
            mounts.tmpfs(str(place)).keep()
            inside = os.path.ismount(place)
        return inside, os.path.ismount(place)

    assert in_child(body) == (True, False)


def test_pid_is_for_children(in_child: Any) -> None:
    def body() -> tuple[int, int, bool]:
        with unshare("pid"):
            inside = forked(os.getpid)
        outside = forked(lambda: 0 if os.getpid() > 1 else 1)
        return inside, outside, own("pid") == identify("thread-self", kind="pid")

    assert in_child(body) == (1, 0, True)


def test_pid_for_children_of_a_descriptor(in_child: Any) -> None:
    """The executor's way of joining: around one fork, and back."""

    def body() -> tuple[int, int, str]:
        inside = unshare("pid")
        reader, writer = os.pipe()
        first = os.fork()
        if first == 0:  # holds the namespace until told
            os.close(writer)
            os.read(reader, 1)
            os._exit(0)
        fd = open_namespace(f"/proc/{first}/ns/pid", "pid")
        inside.close()
        with pid_for_children(fd) as joined:
            second = forked(os.getpid)
        joined.__exit__()  # again: nothing happens
        third = forked(lambda: 0 if os.getpid() > 2 else 1)
        for end in (reader, writer, fd):
            os.close(end)
        os.waitpid(first, 0)
        return second, third, "" if own("pid") == os.stat("/proc/thread-self/ns/pid_for_children").st_ino else "differs"

    assert in_child(body) == (2, 0, "")


def test_pid_for_children_refuses_what_is_no_pid_namespace(in_child: Any) -> None:
    def body() -> int:
        with open("/proc/self/ns/uts") as file, pytest.raises(StepFailed) as caught, pid_for_children(file.fileno()):
            pass
        return caught.value.errno or 0

    assert in_child(body) == 22


def test_time_moves_the_clocks_of_children(in_child: Any) -> None:
    def body() -> tuple[Any, int, Any]:
        import time

        before = time.clock_gettime(time.CLOCK_BOOTTIME)
        with unshare("timens", monotonic=-0.25, boottime=1000):
            offsets = namespaces.time_offsets()
            moved = forked(lambda: int(995 < time.clock_gettime(time.CLOCK_BOOTTIME) - before < 1100))
        return offsets, moved, namespaces.time_offsets()

    assert in_child(body) == ((-0.25, 1000.0), 1, (0.0, 0.0))


def test_time_is_refused_to_a_process_with_threads(in_child: Any) -> None:
    def body() -> str:
        stop = threading.Event()
        thread = threading.Thread(target=stop.wait)
        thread.start()
        try:
            with pytest.raises(Unsupported) as caught:
                unshare("timens")
        finally:
            stop.set()
            thread.join()
        return str(caught.value)

    assert "several threads" in in_child(body)


@pytest.mark.parametrize("kinds", [("userns",), ("user",), ("net", "userns")])
def test_userns_is_refused_and_says_why(kinds: tuple[str, ...]) -> None:
    for call in (lambda: unshare(*kinds), lambda: enter(os.getpid(), *kinds)):
        with pytest.raises(SpecError, match=r"never leave a user namespace.*child process"):
            call()


@pytest.mark.parametrize(("kinds", "says"), [((), "which namespaces"), (("nut",), "not one of")])
def test_unknown_kinds(kinds: tuple[str, ...], says: str) -> None:
    with pytest.raises(SpecError, match=says):
        unshare(*kinds)


def test_bad_options() -> None:
    with pytest.raises(SpecError, match="not private, slave or shared"):
        unshare("mnt", propagation="public")
    with pytest.raises(SpecError, match="offsets need"):
        unshare("mnt", monotonic=1)


def test_an_ordinary_user_is_refused_with_the_cure(as_nobody: Any) -> None:
    def body() -> tuple[int, str]:
        fds = len(os.listdir("/proc/self/fd"))
        with pytest.raises(StepFailed) as caught:
            unshare("net", "uts")
        assert len(os.listdir("/proc/self/fd")) == fds
        return caught.value.errno or 0, str(caught.value)

    number, words = as_nobody(body)
    assert number == 1
    assert words.startswith("unshare net, uts: EPERM")
    assert "CAP_SYS_ADMIN" in words


class Held:
    """A process that waits in namespaces of its own."""

    def __init__(self, *kinds: str) -> None:
        ready, told = os.pipe()
        self._reader, self._writer = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._writer)
            unshare(*kinds).keep()
            os.write(told, b".")
            os.read(self._reader, 1)
            os._exit(0)
        os.read(ready, 1)
        for fd in (ready, told, self._reader):
            os.close(fd)

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *_exception: object) -> None:
        os.close(self._writer)
        os.waitpid(self.pid, 0)


@pytest.mark.parametrize("way", ["pid", "pidfd", "path", "fd"])
def test_enter(in_child: Any, way: str) -> None:
    def body() -> tuple[bool, bool]:
        with Held("net", "uts") as held:
            path = f"/proc/{held.pid}/ns/net"
            wanted = identify(held.pid, kind="net")
            before = own("net")
            fd = os.pidfd_open(held.pid) if way == "pidfd" else open_namespace(path, "net") if way == "fd" else -1
            how = {"pid": (held.pid, "net"), "path": (path,), "fd": (), "pidfd": (0, "net")}[way]
            with enter(*how, fd=fd):
                inside = own("net")
            if fd >= 0:
                os.close(fd)
            return inside == wanted, own("net") == before

    assert in_child(body) == (True, True)


def test_enter_several_of_a_process_mnt_too(in_child: Any) -> None:
    def body() -> tuple[bool, str]:
        with Held("mnt", "uts", "ipc") as held:
            os.chdir("/usr")
            with enter(held.pid, "mnt", "uts", "ipc"):
                same = all(own(kind) == identify(held.pid, kind=kind) for kind in ("mnt", "uts", "ipc"))
            return same, os.getcwd()

    assert in_child(body) == (True, "/usr")


def test_enter_what_is_not_there() -> None:
    with pytest.raises(StepFailed, match="ESRCH|EINVAL"):
        enter(4194305, "net")
    with pytest.raises(StepFailed, match="ENOENT"):
        enter("/nowhere/net")
    with pytest.raises(SpecError, match="not a namespace file"):
        enter("/etc/passwd")
    with pytest.raises(SpecError, match="a uts namespace, not net"):
        enter("/proc/self/ns/uts", "net")


@pytest.mark.parametrize("kind", KINDS)
def test_open_namespace(kind: str) -> None:
    fd = open_namespace(f"/proc/self/ns/{KINDS[kind][1]}", kind)
    try:
        assert os.fstat(fd).st_ino == identify("self", kind=kind)
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)


@pytest.mark.parametrize("path", ["/etc/passwd", "/dev/null", "/", "/proc/self/status"])
def test_open_namespace_refuses_other_files(path: str) -> None:
    with pytest.raises(SpecError, match="not a namespace file"):
        open_namespace(path, "net")


def test_open_namespace_refuses_another_kind_and_a_fifo(tmp_path: Any) -> None:
    with pytest.raises(SpecError, match="a uts namespace, not net"):
        open_namespace("/proc/self/ns/uts", "net")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(SpecError, match="not a namespace file"):
        open_namespace(str(tmp_path / "fifo"), "net")
    with pytest.raises(StepFailed, match="ENOENT"):
        open_namespace(str(tmp_path / "none"), "net")


def test_only_the_thread_that_went_in_can_leave(in_child: Any) -> None:
    def body() -> str:
        inside = unshare("uts")
        said: list[str] = []

        def work() -> None:
            try:
                inside.close()
            except MinictrError as err:
                said.append(str(err))

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        inside.close()
        return said[0]

    assert "only the thread that went in" in in_child(body)


def test_a_thread_started_inside_keeps_mnt_from_being_left(in_child: Any) -> None:
    """It shares root and directory, and setns(2) refuses to move both: the error says so."""

    def body() -> str:
        inside = unshare("mnt")
        stop = threading.Event()
        thread = threading.Thread(target=stop.wait)
        thread.start()
        try:
            with pytest.raises(StepFailed) as caught:
                inside.close()
        finally:
            stop.set()
            thread.join()
        return str(caught.value)

    words = in_child(body)
    assert words.startswith("setns mnt: back: EINVAL")
    assert "a thread started meanwhile shares" in words


def test_dropped_unclosed_warns_and_keeps_nothing_open(in_child: Any) -> None:
    def body() -> tuple[int, str]:
        import gc
        import warnings

        before = len(os.listdir("/proc/self/fd"))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            unshare("uts")
            gc.collect()
        return len(os.listdir("/proc/self/fd")) - before, str(caught[0].category.__name__)

    assert in_child(body) == (0, "ResourceWarning")


def test_identify() -> None:
    assert identify(os.getpid(), kind="net") == identify("self", kind="net") == identify("/proc/self/ns/net")
    with pytest.raises(SpecError, match="give kind="):
        identify(1)
    with pytest.raises(StepFailed, match="ENOENT"):
        identify("/nowhere")
