"""Seccomp, by /proc/PID/status and by system calls that fail."""

from __future__ import annotations

import os
import signal
import struct
import threading
from typing import Any

import pytest

from minictr.errors import SpecError, StepFailed
from minictr.kernel import capabilities, process, seccomp

OPENAT2 = 437  # asm-generic/unistd.h
ALLOW = struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000)
KILL = 0x80000000


def openat2() -> int:
    """The errno of an openat2 of "/"; 0 when it worked."""
    from minictr.kernel import core

    result = int(core.lib.mc_openat2(-100, b"/", os.O_PATH, 0, 0))
    if result >= 0:
        os.close(result)
    return -min(result, 0)


def test_load_refuses_what_it_was_told_to(in_child: Any, refusing: Any) -> None:
    program = refusing(77, OPENAT2)

    def body() -> Any:
        before = seccomp.mode(), openat2()
        process.no_new_privs()
        answer = seccomp.load(program)
        return before, answer, seccomp.mode(), openat2()

    assert in_child(body) == (((0, 0), 0), 0, (2, 1), 77)
    assert seccomp.mode()[0] == 0 or openat2() == 0


def test_filters_add_up(in_child: Any, refusing: Any) -> None:
    def body() -> Any:
        process.no_new_privs()
        for _ in range(3):
            seccomp.load(ALLOW)
        seccomp.load(refusing(78, OPENAT2))
        return seccomp.mode(), openat2()

    assert in_child(body) == ((2, 4), 78)


def test_a_filter_that_kills(in_child: Any) -> None:
    program = struct.pack("=HBBI", 0x20, 0, 0, 0) + struct.pack("=HBBI", 0x15, 0, 1, OPENAT2)
    program += struct.pack("=HBBI", 0x06, 0, 0, KILL) + ALLOW

    def body() -> int:
        pid = os.fork()
        if pid == 0:
            process.set_rlimit("core", 0)
            process.no_new_privs()
            seccomp.load(program)
            openat2()
            os._exit(0)
        return os.waitpid(pid, 0)[1]

    assert in_child(body) == signal.SIGSYS


def test_it_is_this_thread_alone_without_tsync(in_child: Any, refusing: Any) -> None:
    def body() -> Any:
        process.no_new_privs()
        found = []
        for flags in (0, seccomp.TSYNC):
            thread = threading.Thread(target=seccomp.load, args=(refusing(79, OPENAT2),), kwargs={"flags": flags})
            thread.start()
            thread.join()
            found.append(openat2())
        return found

    assert in_child(body) == [0, 79]


def test_tsync_says_which_thread_differs(in_child: Any) -> None:
    def body() -> str:
        process.no_new_privs()
        started, done = threading.Event(), threading.Event()

        def other() -> None:
            seccomp.load(ALLOW)
            started.set()
            done.wait()

        thread = threading.Thread(target=other)
        thread.start()
        started.wait()
        try:
            with pytest.raises(StepFailed) as caught:
                seccomp.load(ALLOW, flags=seccomp.TSYNC)
        finally:
            done.set()
            thread.join()
        return str(caught.value)

    assert "has a filter that this one lacks" in in_child(body)


def test_a_listener_is_a_descriptor(in_child: Any) -> None:
    def body() -> bool:
        process.no_new_privs()
        fd = seccomp.load(ALLOW, flags=seccomp.NEW_LISTENER)
        found = "seccomp notify" in os.readlink(f"/proc/self/fd/{fd}")
        os.close(fd)
        return found

    assert in_child(body)


def test_without_privilege_no_new_privs_comes_first(as_nobody: Any) -> None:
    def body() -> tuple[str, tuple[int, int]]:
        with pytest.raises(StepFailed) as caught:
            seccomp.load(ALLOW)
        capabilities.no_new_privs()
        seccomp.load(ALLOW)
        return str(caught.value), seccomp.mode()

    words, after = as_nobody(body)
    assert "EACCES" in words
    assert "no_new_privs" in words
    assert after == (2, 1)


@pytest.mark.parametrize("program", [b"", b"1234567", ALLOW * 4097, "text", ALLOW + b"x", None])
def test_what_is_no_program(program: Any) -> None:
    for call in (seccomp.validate, seccomp.load):
        with pytest.raises(SpecError, match="seccomp: "):
            call(program)


def test_validate() -> None:
    assert seccomp.validate(ALLOW) == 1
    assert seccomp.validate(bytearray(ALLOW) * 4096) == 4096


@pytest.mark.parametrize(
    "program", [struct.pack("=HBBI", 0x20, 0, 0, 0), struct.pack("=HBBI", 0x15, 9, 9, 0) + ALLOW, b"\xff" * 8]
)
def test_what_the_kernel_refuses(in_child: Any, program: bytes) -> None:
    def body() -> str:
        process.no_new_privs()
        with pytest.raises(StepFailed) as caught:
            seccomp.load(program)
        return str(caught.value)

    words = in_child(body)
    assert "EINVAL" in words
    assert "not a valid seccomp program" in words


def test_actions_available() -> None:
    assert {"kill_thread", "trap", "errno", "trace", "allow"} <= set(seccomp.actions_available())
