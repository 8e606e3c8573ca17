"""A start into a container that runs: what of ``exec`` comes after its program was compiled (:mod:`runtime.join`)."""

from __future__ import annotations

import os

from minictr.kernel.handles import shut
from minictr.runtime.launch import START_TIMEOUT, Start
from minictr.runtime.process import Process, reap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minictr.runtime.console import Console
    from minictr.runtime.program import Program
    from minictr.runtime.supervisor import Supervisor

__all__ = ["join"]


class Joining(Start):
    """A start whose program is a grandchild: who was cloned joins, and leaves when the program is born."""

    def born(self) -> int:
        """The pid of the program, 0 before the fork."""
        if not self.program.forks or self.region < 0:
            return 0
        return int.from_bytes(os.pread(self.region, 4, self.program.born_offset), "little")

    def adopt(self) -> None:
        """The program instead of who joined. While it is ours to reap, its number is no other's."""
        pid = self.born()
        if not pid:
            return
        joined, self.pid = self.pid, pid
        reap(joined)
        pidfd = os.pidfd_open(pid)
        shut(self.pidfd)
        self.pidfd = pidfd

    def _death(self) -> int:
        """Kill and reap both: the wait status of the program, or of who joined when there is none yet."""
        joined, status = self.pid, super()._death()
        pid = self.born() if joined else 0
        if pid in (0, joined):
            return status
        shut(self.pidfd)
        self.pid, self.pidfd = pid, os.pidfd_open(pid)
        return super()._death()


def join(
    program: Program,
    fds: dict[str, int],
    pidfd: int,
    preserve_fds: int = 0,
    start_timeout: float = START_TIMEOUT,
    console: Console | None = None,
    supervisor: Supervisor | None = None,
) -> Process:
    """As :func:`minictr.runtime.launch.launch`, into the container whose first process PIDFD is."""
    run = Joining(program, {**fds, "process": pidfd}, preserve_fds, start_timeout, console, None, supervisor)
    run.through("prepare", "clone", "attach", "take_console", "take_listener", "await_exec", "adopt")
    process = Process(run.pid, run.pidfd, program.argv, run.clock)
    process.supervisor = supervisor
    return process
