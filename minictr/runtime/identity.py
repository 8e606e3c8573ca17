"""Which process it is: a pid is used again, but not with the same start time in the same boot. proc_pid_stat(5)."""

from __future__ import annotations

import os

from minictr.errors import StepFailed
from minictr.kernel.handles import shut
from minictr.values import Value

__all__ = ["ProcessIdentity", "boot_id"]

NSEC_PER_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")  # 10 ms
ENOENT, ESRCH, EMFILE = 2, 3, 24
CURES = {EMFILE: "raise the limit of open files: ulimit -n"}
_boot = ""


def boot_id() -> str:
    """The random name of this boot. proc_sys_kernel(5), random/boot_id."""
    global _boot
    if not _boot:
        _boot = _read("/proc/sys/kernel/random/boot_id").decode().strip()
    return _boot


class ProcessIdentity(Value):
    """A process that cannot be mistaken for another: ``pid``, ``start`` (clock ticks since boot), ``boot``."""

    pid: int
    start: int
    boot: str

    @classmethod
    def of(cls, pid: int) -> ProcessIdentity:
        """The process that PID is now. ProcessLookupError when there is none, StepFailed when that cannot be known."""
        found = _stat(pid)
        if found is None:
            raise ProcessLookupError(ESRCH, f"there is no process {pid}")
        return cls(pid, found[1], boot_id())

    @classmethod
    def born(cls, pid: int, before: int, after: int) -> ProcessIdentity:
        """A child of ours, not reaped yet, that was cloned between BEFORE and AFTER by CLOCK_BOOTTIME (ns).

        As a rule both are in one clock tick, and that is its start time. To read it in /proc costs the kernel the
        entries of a new directory there, and their end with the process: 150 us of a start.
        """
        tick = before // NSEC_PER_TICK
        return cls(pid, tick, boot_id()) if tick == after // NSEC_PER_TICK else cls.of(pid)

    @property
    def alive(self) -> bool:
        """Whether it still runs; a zombie does not. StepFailed when that cannot be known: then it is not dead."""
        if self.pid <= 0 or self.boot != boot_id():
            return False
        found = _stat(self.pid)
        return found is not None and found[1] == self.start and found[0] not in "ZX"

    def pidfd(self) -> int:
        """A descriptor of this very process, and of no other. ProcessLookupError when it is gone. Linux 5.3."""
        try:
            fd = os.pidfd_open(self.pid)
        except OSError as err:
            if err.errno == ESRCH:
                raise
            raise StepFailed(f"pidfd_open {self.pid}", err.errno or 0, cure=CURES.get(err.errno or 0, "")) from err
        try:
            if self.alive:  # looked at after the descriptor was opened: it is that process's
                return fd
        except BaseException:
            shut(fd)
            raise
        shut(fd)
        raise ProcessLookupError(ESRCH, f"process {self.pid} of the container is gone")


def _stat(pid: int) -> tuple[str, int] | None:
    """(state, start time); None when there is no such process, which is believed when it is said twice: what is taken
    for dead is removed."""
    data = _read(f"/proc/{pid}/stat") or _read(f"/proc/{pid}/stat")
    if not data:
        return None
    fields = data.rpartition(b")")[2].split()
    return fields[0].decode(), int(fields[19])


def _read(path: str) -> bytes:
    """What is in PATH, nothing when it is not there. StepFailed."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(fd, 4096)
        finally:
            shut(fd)
    except OSError as err:
        if err.errno in (ENOENT, ESRCH):
            return b""
        raise StepFailed(f"read {path}", err.errno or 0, cure=CURES.get(err.errno or 0, "")) from err
