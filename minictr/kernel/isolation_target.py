"""One process held for reading: nothing that is read through it can be of another, however fast pids are used again.

/proc/PID is opened once and every file below it by that descriptor: the directory belongs to the process, not to the
number, and says ESRCH when the process is gone. proc(5); the same for the pidfd, Linux 5.3, pidfd_open(2).
"""

from __future__ import annotations

import os

from minictr.errors import SpecError, StepFailed
from minictr.kernel import procfs
from minictr.kernel.core import lib
from minictr.kernel.handles import Handle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    Found = TypeVar("Found")

__all__ = ["Target", "Unreadable", "why"]

EPERM, ENOENT, ESRCH, EACCES = 1, 2, 3, 13
PF_KTHREAD = 0x00200000  # linux/sched.h
# fields of /proc/PID/stat behind the name, proc_pid_stat(5)
STATE, PARENT, SESSION, TERMINAL, FLAGS, START = 0, 1, 3, 4, 6, 19


class Unreadable(Exception):
    """This kernel, or this reader, cannot tell: the text says why."""


class Target(Handle):
    """Process PID, which must be alive and no kernel thread. 0: this process.

    ``start``: clock ticks since boot at which it began; given, the process must be that one. Raises SpecError for a
    kernel thread, StepFailed (ESRCH) for a process that is gone, is a zombie, or is not that one.
    """

    def __init__(self, pid: int, start: int = 0) -> None:
        if isinstance(pid, bool) or not isinstance(pid, int) or pid < 0:
            raise SpecError(f"process {pid!r}: a process id is a number, 1 or more, or 0 for this process")
        self.unknown: dict[str, str] = {}
        self._start, self.pidfd = start, -1
        try:
            self.pid = pid or int(os.readlink("/proc/self"))
            self.fd = os.open(f"/proc/{self.pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as err:
            raise self.gone("no such process" if err.errno == ENOENT else "") from err
        self._open = True
        try:
            if lib.mc_fstatfs_type(self.fd) != procfs.MAGIC:
                raise StepFailed(f"read /proc/{self.pid}", 124, cure="something else than procfs is mounted on /proc")
            self.check()
            self.pidfd = int(lib.mc_pidfd_open(self.pid, 0))
            self.check()  # it lived when the pidfd was opened: the descriptor is this process's
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"<process {getattr(self, 'pid', 0)}, held>"

    def _close(self) -> None:
        for fd in (self.fd, self.pidfd):
            if fd >= 0:
                os.close(fd)

    def gone(self, why: str = "") -> StepFailed:
        return StepFailed(f"process {getattr(self, 'pid', 0)}", ESRCH, cure=why or "it ended meanwhile")

    def check(self) -> None:
        """Raises unless it is alive, no kernel thread, and the one that was meant."""
        fields = self.stat()
        if fields[STATE] in ("Z", "X"):
            raise self.gone("it is a zombie: over, and not yet waited for by its parent")
        if int(fields[FLAGS]) & PF_KTHREAD:
            raise SpecError(f"process {self.pid} is a kernel thread ({self.text('comm').strip()}): nothing confines it")
        if self._start and int(fields[START]) != self._start:
            raise self.gone("it ended, and its number is another process's now")
        self._start = int(fields[START])

    @property
    def start(self) -> int:
        return self._start

    # --- what is below /proc/PID ---

    def text(self, name: str) -> str:
        """The text of /proc/PID/NAME. OSError as it comes, StepFailed when the process is gone."""
        try:
            fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.fd)
            try:
                found = b""
                while block := os.read(fd, 1 << 16):
                    found += block
            finally:
                os.close(fd)
        except ProcessLookupError as err:
            raise self.gone() from err
        return found.decode("utf-8", "surrogateescape")

    def link(self, name: str) -> str:
        """Where the link /proc/PID/NAME leads."""
        try:
            return os.readlink(name, dir_fd=self.fd)
        except ProcessLookupError as err:
            raise self.gone() from err

    def stat(self) -> list[str]:
        """The fields of /proc/PID/stat behind the name, which may hold anything."""
        return self.text("stat").rpartition(")")[2].split()

    def status(self, task: str = "") -> dict[str, str]:
        """The rows of /proc/PID/status, or of its thread TASK."""
        return procfs.rows(self.text(f"task/{task}/status" if task else "status"))

    def attempt(self, name: str, read: Callable[[], Found]) -> Found | None:
        """What READ gives; None, with the reason in ``unknown[NAME]``, where it cannot be had."""
        try:
            return read()
        except Unreadable as err:
            self.unknown[name] = str(err)
        except StepFailed as err:
            if err.errno == ESRCH:
                raise
            self.unknown[name] = why(err.errno or 0)
        except OSError as err:
            self.unknown[name] = why(err.errno or 0)
        return None


def why(number: int) -> str:
    """An errno as a reason."""
    if number in (EPERM, EACCES):
        return "permission denied: of another user's process this needs CAP_SYS_PTRACE (proc(5), ptrace(2))"
    if number == ENOENT:
        return "this kernel does not show it"
    return os.strerror(number)
