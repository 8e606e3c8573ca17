"""What tests of ``on_syscall`` share: a filter that asks, who answers slowly, and a look at what is left."""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path

import pytest
from waiting import eventually

import minictr as mc

HERE = Path(__file__).resolve().parent
NODES = ("mknod", "mknodat")
DIRECTORIES = ("mkdir", "mkdirat")


def asking(*names: str) -> mc.Seccomp:
    return mc.Seccomp(mc.SeccompFilter("allow").notify(*names))


def path_of(call: mc.Syscall) -> str:
    """The path argument of mknod, mkdir and the like."""
    return call.string(call.args[call.name.endswith("at")])


@pytest.fixture(scope="session")
def asks(lab, requires):
    """tests/runtime/asks.c as /bin/asks."""
    program = lab / "bin" / "asks"
    gcc = requires("gcc")
    flags = ("-O1", "-Wall", "-Wextra", "-Werror", "-static", "-pthread")
    subprocess.run([gcc, *flags, "-o", program, HERE / "asks.c"], check=True)
    return program


@pytest.fixture(scope="session")
def made(box):
    """A container that asks about mkdir, and has a place for directories."""
    return box.with_(mc.Tmpfs("/asked"), asking(*DIRECTORIES))


OF_A_START = ("seccomp notify", "eventfd", "socket:", "memfd:minictr-start")


def held() -> tuple[list[str], int]:
    """The descriptors that a start with a function has, and how many threads there are."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{name}"))
        except FileNotFoundError:
            pass  # of the listing itself
    return sorted(link for link in found if any(word in link for word in OF_A_START)), threading.active_count()


@pytest.fixture
def nothing_left():
    """No thread and no descriptor is left by a container that is over."""
    before = held()
    yield
    eventually(lambda: held() == before, 5)


class Slow:
    """A handler that sleeps until it is let go, and tells what it met."""

    def __init__(self) -> None:
        self.entered, self.go, self.left = threading.Event(), threading.Event(), threading.Event()
        self.waits = None

    def __call__(self, call: mc.Syscall) -> object:
        self.entered.set()
        try:
            assert self.go.wait(20)
            self.waits = call.waits
            path_of(call)
            return 0
        finally:
            self.left.set()
