"""Detached containers for tests: as a starter makes them, but without its journal, names and state."""

from __future__ import annotations

import fcntl
import os
import select
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import minictr as mc
from minictr.kernel.core import lib
from minictr.kernel.monitor import Exit, Monitor, blank_exit, listening_socket, read_exit
from minictr.kernel.stub import sealed_monitor, sealed_stub
from minictr.plan import BARRIER, HOLD, plan
from minictr.runtime.console import Console
from minictr.runtime.program import Outcome, Program, outcome_size
from minictr.runtime.resolve import resolve
from minictr.steps import CLONE


class Detached:
    """One container with a monitor. Each stage is a method, so that a test can stop, or kill, between two of them."""

    def __init__(self, box: mc.Container, args: list[str], state: Path, *, hold: bool = False, **options: Any) -> None:
        extra = (BARRIER, HOLD) if hold else (BARRIER,)
        ungrouped = box.without("pids")  # what the groups need of the starter is tested with it
        self.program = Program(plan(resolve(ungrouped.spec(args)), extra))
        self.state, self.is_held = state, hold
        state.mkdir(mode=0o700, exist_ok=True)
        self.fds: list[int] = []
        self.pid, self.pidfd = 0, -1
        directory = self.own(os.open(state, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        lock = self.own(os.open("lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=directory))
        fcntl.flock(lock, fcntl.LOCK_EX)
        log = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600, dir_fd=directory)
        events = os.open("events", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600, dir_fd=directory)
        chosen = {
            "listen": self.own(listening_socket(directory)),
            "lock": lock,
            "log": self.own(log),
            "exit": self.own(blank_exit(directory)),
            "events": self.own(events),
            "event": '{"id":"x",',
        }
        self.monitor = Monitor(directory, **{**chosen, **options})

    def own(self, fd: int) -> int:
        self.fds.append(fd)
        return fd

    def pipe(self) -> tuple[int, int]:
        ends = os.pipe()
        self.fds += ends
        return ends

    def spawn(self, *, stdin: bool = False) -> None:
        """The monitor and its container, which waits at the barrier."""
        names, ours = self.program.fd_names, {}
        self.report, report = self.pipe()
        fds = {"hold": -1}
        fds["barrier"], self.go = self.pipe()
        if self.is_held:
            fds["hold"], self.hold = self.pipe()
        if "status" in names:
            ours["status"], fds["status"] = self.pipe()
        self.console = Console() if "console" in names else None
        if self.console is not None:
            fds["console"] = self.console.socket
        else:
            null = self.own(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC))
            fds["stdin"], ours["stdin"] = self.pipe() if stdin else (null, -1)
            ours["stdout"], fds["stdout"] = self.pipe()
            ours["stderr"], fds["stderr"] = self.pipe()
        self.region = self.own(os.memfd_create("minictr-test", os.MFD_CLOEXEC))
        keep = {fds[name] for name in names} | {report, self.region}
        os.write(self.region, self.program.region(fds, report, keep))
        flags = sum(step.args["flags"] for _, step in self.program.parent if step.phase == CLONE)
        self.pid, self.pidfd = self.monitor.spawn(flags, self.region, keep, **ours)
        self.monitor_pid = self.monitor.pid
        self.monitor_pidfd = os.pidfd_open(self.monitor_pid)
        kept = {self.report, self.region, self.go, getattr(self, "hold", -1)}
        for fd in self.fds:
            if fd not in kept:
                os.close(fd)
        self.fds = [fd for fd in self.fds if fd in kept]

    def let_go(self) -> Outcome:
        """Through the barrier, to the exec or the hold; what became of it."""
        self.await_report(select.POLLIN)
        assert os.read(self.report, 1) == b"r"
        os.write(self.go, b"g")
        if self.console is not None:
            self.console.receive(10)
            self.monitor.give_terminal(self.console.master)
        self.await_report(select.POLLIN if self.is_held else 0)
        if self.is_held:
            assert os.read(self.report, 1) == b"h"
            self.monitor.give_hold(self.report, self.region, self.hold)
        return self.outcome()

    def await_report(self, events: int) -> None:
        poll = select.poll()
        poll.register(self.report, events)
        assert poll.poll(10_000)

    def outcome(self) -> Outcome:
        return Outcome(os.pread(self.region, outcome_size(self.program), 0))

    def commit(self) -> None:
        self.monitor.commit()
        self.forget()

    def release(self) -> Outcome:
        """What was held runs; what became of it."""
        os.write(self.hold, b"g")
        self.await_report(0)
        return self.outcome()

    def forget(self) -> None:
        """What the starter had."""
        for fd in self.fds:
            os.close(fd)
        self.fds = []
        if self.console is not None:
            self.console.close()

    def start(self, *, stdin: bool = False) -> Detached:
        self.spawn(stdin=stdin)
        outcome = self.let_go()
        assert self.is_held or outcome.state == lib.MC_STATE_EXEC, outcome.error
        self.commit()
        return self

    def exit(self, seconds: float = 20) -> Exit:
        """The exit record, once the monitor is gone."""
        assert over(self.monitor_pidfd, seconds), "the monitor is still there"
        found = read_exit((self.state / "exit").read_bytes())
        assert found is not None
        return found

    def close(self) -> None:
        """Kill both, whatever the state."""
        self.monitor.close()
        self.forget()
        for fd in (self.pidfd, getattr(self, "monitor_pidfd", -1)):
            if fd >= 0:
                lib.mc_pidfd_send_signal(fd, signal.SIGKILL, 0)
                over(fd, 10)
                os.close(fd)
        self.pidfd = self.monitor_pidfd = -1


def over(pidfd: int, seconds: float) -> bool:
    """Whether the process of PIDFD ends within SECONDS."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


@pytest.fixture
def detached(box: mc.Container, tmp_path: Path) -> Iterator[Callable[..., Detached]]:
    """``detached(args, which=box, hold=False, **options of Monitor)``: not spawned yet."""
    sealed_monitor(), sealed_stub()  # the descriptors that a process keeps
    made: list[Detached] = []

    def make(args: list[str], which: mc.Container = box, **options: Any) -> Detached:
        one = Detached(which, args, tmp_path / f"state{len(made)}", **options)
        one.console = None
        made.append(one)
        return one

    yield make
    for one in made:
        one.close()


@pytest.fixture
def plain(box: mc.Container) -> mc.Container:
    """Without a pid namespace and without init: the container is one process, its children anybody's."""
    return box.without("init", "pid")


def logged(state: Path, stream: str = "stdout") -> bytes:
    """All that a stream wrote, from the files of the log."""
    from minictr.runtime.logs import read

    return b"".join(data for _, which, data in read(str(state)) if which == stream)
