"""Notification: a child's system calls answered by this process, and what the kernel says of them."""

from __future__ import annotations

import ctypes
import errno
import os
import pickle
import select
import signal
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from minictr.errors import SpecError, StepFailed
from minictr.kernel import core, packets, process, seccomp, seccomp_notify
from minictr.kernel.seccomp_notify import Gone, Refusal

OPENAT2 = 437  # asm-generic/unistd.h
ARCH = os.uname().machine
AT_FDCWD = -100
NOBODY = 65534
NOTIFY = 0x7FC00000  # SECCOMP_RET_USER_NOTIF
ALLOW = struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000)
PROGRAM = struct.pack("=HBBI", 0x20, 0, 0, 0) + struct.pack("=HBBI", 0x15, 0, 1, OPENAT2)
PROGRAM += struct.pack("=HBBI", 0x06, 0, 0, NOTIFY) + ALLOW


def openat2(path: Any = b"/", dirfd: int = AT_FDCWD) -> int:
    """The raw answer: a number, or minus the errno."""
    return int(core.lib.mc_openat2(dirfd, path, os.O_PATH, 0, 0))


class Asked:
    """A child whose calls of openat2 wait: its pid, its listener, and what BODY will have answered there."""

    def __init__(self, body: Callable[[], Any], flags: int = 0) -> None:
        ours, theirs = packets.connected_pair()
        self.reader, writer = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                process.no_new_privs()
                listener = seccomp.load(PROGRAM, flags=seccomp.NEW_LISTENER | flags)
                packets.send(theirs, b"l", (listener,))
                os.close(listener)
                os.write(writer, pickle.dumps(body()))
            finally:
                os._exit(0)
        os.close(writer)
        theirs.close()
        _, (self.listener,) = packets.receive(ours, 1, 1)
        ours.close()

    def next(self) -> seccomp_notify.Notification:
        """The call that waits next."""
        poll = select.poll()
        poll.register(self.listener, select.POLLIN)
        assert poll.poll(20_000) == [(self.listener, select.POLLIN)]
        found = seccomp_notify.receive(self.listener)
        assert found is not None
        return found

    def said(self) -> Any:
        """What BODY answered."""
        with os.fdopen(self.reader, "rb") as file:
            self.reader = -1
            return pickle.loads(file.read())

    def close_listener(self) -> None:
        os.close(self.listener)
        self.listener = -1

    def reap(self) -> None:
        os.waitpid(self.pid, 0)
        self.pid = 0

    def close(self) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            self.reap()
        for fd in (self.listener, self.reader):
            if fd >= 0:
                os.close(fd)


@pytest.fixture
def asked(requires: Any) -> Iterator[Callable[..., Asked]]:
    """``asked(body)``: see Asked."""
    requires.root()
    children = []

    def start(body: Callable[[], Any] = openat2, **options: Any) -> Asked:
        children.append(Asked(body, **options))
        return children[-1]

    yield start
    for child in children:
        child.close()


def test_sizes_are_those_of_the_structures() -> None:
    assert seccomp_notify.sizes() == (seccomp_notify.NOTIF.size, seccomp_notify.RESPONSE.size, 64)


@pytest.mark.parametrize(
    ("answer", "comes"),
    [({"value": 4321}, 4321), ({"value": 0}, 0), ({"error": errno.EXDEV}, -errno.EXDEV), ({"error": 4095}, -4095)],
)
def test_what_a_call_returns(asked: Any, answer: dict[str, int], comes: int) -> None:
    child = asked()
    found = child.next()
    assert (found.pid, found.number, found.arch & 0xFFFF) == (child.pid, OPENAT2, {"x86_64": 62, "aarch64": 183}[ARCH])
    assert found.args[0] & 0xFFFFFFFF == AT_FDCWD & 0xFFFFFFFF
    assert seccomp_notify.respond(child.listener, found.id, **answer)
    assert child.said() == comes
    assert not seccomp_notify.respond(child.listener, found.id, **answer)  # answered once


def test_a_call_that_proceeds_is_done(asked: Any) -> None:
    child = asked(lambda: (openat2(b"/proc") > 2, openat2(b"/not/there")))
    for _ in range(2):
        assert seccomp_notify.respond(child.listener, child.next().id, proceed=True)
    assert child.said() == (True, -errno.ENOENT)


@pytest.mark.parametrize(
    "answer", [{"value": 1, "error": 1}, {"error": 1, "proceed": True}, {"error": 4096}, {"error": -1}, {"value": -1}]
)
def test_answers_that_say_two_things_or_something_else(answer: dict[str, int]) -> None:
    with pytest.raises(SpecError, match="seccomp: "):
        seccomp_notify.respond(-1, 0, **answer)


def test_memory_is_read(asked: Any) -> None:
    text = b"/a/path" + b"/x" * 2000
    child = asked(lambda: openat2(text))
    found = child.next()
    who = child.listener, found.id, found.pid
    address = found.args[1]
    assert seccomp_notify.string(*who, address) == text
    assert seccomp_notify.string(*who, address, len(text) + 1) == text
    assert seccomp_notify.read(*who, address, 7) == b"/a/path"
    assert seccomp_notify.read(*who, address, 0) == b""
    with pytest.raises(Refusal) as caught:
        seccomp_notify.string(*who, address, len(text))
    assert caught.value.errno == errno.ENAMETOOLONG
    for bad in (0, 1, 1 << 62, 1 << 63, (1 << 64) - 1):
        for call in (seccomp_notify.string, seccomp_notify.read):
            with pytest.raises(Refusal) as caught:
                call(*who, bad, 8)
            assert caught.value.errno == errno.EFAULT
    for size in (-1, (1 << 20) + 1):
        with pytest.raises(SpecError):
            seccomp_notify.read(*who, address, size)
        with pytest.raises(SpecError):
            seccomp_notify.string(*who, address, size)
    with pytest.raises(ProcessLookupError, match="pid namespace"):
        seccomp_notify.string(child.listener, found.id, 0, address)


def test_memory_that_ends(asked: Any) -> None:
    """A text at the end of what is mapped is read; one that runs on beyond is a bad address; bytes are fewer."""

    def body() -> int:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = [ctypes.c_void_p, *[ctypes.c_size_t] * 1, *[ctypes.c_int] * 3, ctypes.c_long]
        place = libc.mmap(None, 8192, 3, 0x22, -1, 0)
        libc.munmap(ctypes.c_void_p(place + 4096), ctypes.c_size_t(4096))
        ctypes.memmove(place + 4096 - 4, b"end\0", 4)
        core.lib.mc_openat2(AT_FDCWD, core.ffi.cast("char *", place + 4096 - 4), 0, 0, 0)
        ctypes.memmove(place + 4096 - 4, b"ends", 4)
        return openat2(core.ffi.cast("char *", place + 4096 - 4))

    child = asked(body)
    first = child.next()
    assert seccomp_notify.string(child.listener, first.id, first.pid, first.args[1]) == b"end"
    assert seccomp_notify.read(child.listener, first.id, first.pid, first.args[1], 100) == b"end\0"
    seccomp_notify.respond(child.listener, first.id, error=1)
    second = child.next()
    with pytest.raises(Refusal, match="bad address"):
        seccomp_notify.string(child.listener, second.id, second.pid, second.args[1])


def test_without_the_right_to_trace_nothing_is_read(asked: Any) -> None:
    child = asked()
    found = child.next()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.setresuid(NOBODY, NOBODY, NOBODY)
            seccomp_notify.string(child.listener, found.id, found.pid, found.args[1])
        except PermissionError:
            code = 7
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7


def test_a_process_that_is_killed_takes_its_call_along(asked: Any) -> None:
    child = asked()
    found = child.next()
    assert seccomp_notify.valid(child.listener, found.id)
    memory = found.args[1]
    os.kill(child.pid, signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not seccomp_notify.valid(child.listener, found.id)
    assert not seccomp_notify.respond(child.listener, found.id, value=1)
    for call in (seccomp_notify.read, seccomp_notify.string):
        with pytest.raises(Gone):
            call(child.listener, found.id, found.pid, memory, 4)
    with pytest.raises(Gone):
        seccomp_notify.add_fd(child.listener, found.id, 0)


def test_its_number_in_another_hand_is_not_believed(asked: Any) -> None:
    """A call that is over does not open the memory of whoever has its pid: here, of a process that lives."""
    child = asked(lambda: [openat2(), openat2()])
    found = child.next()
    seccomp_notify.respond(child.listener, found.id, value=1)
    child.next()
    with pytest.raises(Gone):
        seccomp_notify.string(child.listener, found.id, found.pid, found.args[1])


def test_one_that_went_before_it_was_received(asked: Any) -> None:
    child = asked()
    poll = select.poll()
    poll.register(child.listener, select.POLLIN)
    assert poll.poll(20_000)
    os.kill(child.pid, signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert seccomp_notify.receive(child.listener) is None


def test_a_closed_listener_is_enosys(asked: Any) -> None:
    child = asked(lambda: [openat2(), openat2()])
    child.next()
    child.close_listener()
    assert child.said() == [-errno.ENOSYS, -errno.ENOSYS]


def test_it_hangs_up_when_nobody_has_the_filter(asked: Any) -> None:
    child = asked(lambda: 0)
    assert child.said() == 0
    child.reap()  # before Linux 6.12 a process that nobody waited for still has it
    poll = select.poll()
    poll.register(child.listener, select.POLLIN)
    assert poll.poll(20_000) == [(child.listener, select.POLLHUP)]


def holding(number: int) -> tuple[int, bool, str]:
    """A descriptor's number, whether it closes on exec, and what it is."""
    if number < 0:
        return number, False, ""
    return number, not os.get_inheritable(number), os.readlink(f"/proc/self/fd/{number}")


@pytest.mark.parametrize("cloexec", [False, True])
@pytest.mark.parametrize("send", [False, True])
def test_a_descriptor_is_given(asked: Any, tmp_path: Any, cloexec: bool, send: bool) -> None:
    path = tmp_path / "given"
    path.write_text("x")
    child = asked(lambda: [holding(openat2()), holding(openat2())])
    with open(path) as file:
        for at in (-1, 77):
            found = child.next()
            number = seccomp_notify.add_fd(child.listener, found.id, file.fileno(), at=at, cloexec=cloexec, send=send)
            assert number == at or at < 0
            assert seccomp_notify.respond(child.listener, found.id, value=number) is not send
    first, second = child.said()
    assert first[1:] == second[1:] == (cloexec, str(path))
    assert second[0] == 77


def test_a_descriptor_beyond_the_limit(asked: Any) -> None:
    def body() -> int:
        process.set_rlimit("nofile", 3)
        return openat2()

    child = asked(body)
    found = child.next()
    with pytest.raises(Refusal) as caught:
        seccomp_notify.add_fd(child.listener, found.id, 0, send=True)
    assert caught.value.errno == errno.EMFILE
    assert seccomp_notify.respond(child.listener, found.id, error=errno.EMFILE)  # it waits as before
    assert child.said() == -errno.EMFILE


def test_what_is_no_descriptor_of_ours(asked: Any) -> None:
    child = asked()
    with pytest.raises(OSError, match="Bad file descriptor"):
        seccomp_notify.add_fd(child.listener, child.next().id, 9999)


@pytest.mark.parametrize("flags", [0, seccomp.WAIT_KILLABLE_RECV])
def test_a_signal_while_it_is_decided(asked: Any, flags: int) -> None:
    """It interrupts the call; with WAIT_KILLABLE_RECV it waits until the call is answered."""
    if flags and not seccomp_notify.killable():
        pytest.skip("this kernel is older than Linux 5.19")

    def body() -> Any:
        caught = []
        signal.signal(signal.SIGUSR1, lambda *_: caught.append(1))
        return openat2(), len(caught)

    child = asked(body, flags=flags)
    found = child.next()
    os.kill(child.pid, signal.SIGUSR1)
    deadline = time.monotonic() + 10
    if not flags:
        while seccomp_notify.valid(child.listener, found.id):
            assert time.monotonic() < deadline
        assert child.said() == (-errno.EINTR, 1)
        return
    while "0000000000000200" not in status(child.pid, "ShdPnd"):
        assert time.monotonic() < deadline
    assert seccomp_notify.valid(child.listener, found.id)
    assert seccomp_notify.respond(child.listener, found.id, value=6)
    assert child.said() == (6, 1)


def status(pid: int, field: str) -> str:
    with open(f"/proc/{pid}/status") as file:
        return next(line for line in file if line.startswith(field))


def test_threads_wait_each_for_itself(asked: Any) -> None:
    def body() -> list[int]:
        found = [0] * 4

        def call(number: int) -> None:
            found[number] = openat2(str(number).encode())

        threads = [threading.Thread(target=call, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return found

    child = asked(body)
    waiting = [child.next() for _ in range(4)]
    assert len({found.pid for found in waiting}) == 4
    for found in reversed(waiting):
        number = int(seccomp_notify.string(child.listener, found.id, found.pid, found.args[1]))
        seccomp_notify.respond(child.listener, found.id, value=100 + number)
    assert child.said() == [100, 101, 102, 103]


def test_there_is_one_listener(in_child: Any) -> None:
    def body() -> str:
        process.no_new_privs()
        seccomp.load(PROGRAM, flags=seccomp.NEW_LISTENER)
        seccomp.load(ALLOW)
        with pytest.raises(StepFailed) as caught:
            seccomp.load(PROGRAM, flags=seccomp.NEW_LISTENER)
        return str(caught.value)

    words = in_child(body)
    assert "EBUSY" in words
    assert "has a listener already" in words


def test_all_threads_and_a_listener(in_child: Any) -> None:
    both = seccomp.TSYNC | seccomp.NEW_LISTENER
    with pytest.raises(SpecError, match="needs TSYNC_ESRCH"):
        seccomp.load(PROGRAM, flags=both)

    def body() -> str:
        process.no_new_privs()
        return os.readlink(f"/proc/self/fd/{seccomp.load(PROGRAM, flags=both | seccomp.TSYNC_ESRCH)}")

    assert "seccomp notify" in in_child(body)


def test_probe(in_child: Any, refusing: Any) -> None:
    assert seccomp_notify.probe()["seccomp_notify"]
    before = seccomp.mode()

    def body() -> str:
        process.no_new_privs()
        number = {"x86_64": 317, "aarch64": 277}[ARCH]  # seccomp(2) itself
        seccomp.load(refusing(errno.EINVAL, number))
        return str(seccomp_notify.probe()["seccomp_notify"])

    assert in_child(body) == "no: EINVAL; needs Linux 5.0"
    assert seccomp.mode() == before
