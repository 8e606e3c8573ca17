"""The system calls of a program and of all it starts, looked at from outside. ptrace(2), Linux 5.3.

For a process by itself: the thread that seizes is the tracer, and waits for its tracees alone. The loop over stops is
in the core (``_core/trace.c``); what comes here is what was asked for. A tracee that is told of stands still until the
next :meth:`Tracer.next`, so that /proc/PID, its memory and its files can be looked at as they are at that moment.
"""

from __future__ import annotations

import os

from minictr.errors import StepFailed
from minictr.kernel.core import ffi, lib
from minictr.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["ARCHES", "KILLED", "TRAPPED", "Stop", "Tracer", "memory", "obstacle", "text"]

CALL, TRAPPED, KILLED = int(lib.MC_TRACE_CALL), int(lib.MC_TRACE_TRAPPED), int(lib.MC_TRACE_KILLED)
OVER, NOTHING = int(lib.MC_TRACE_OVER), int(lib.MC_TRACE_NOTHING)
CALLS = int(lib.MC_TRACE_CALLS)
PAGE = 4096
EPERM, EINTR = 1, 4
YAMA = "/proc/sys/kernel/yama/ptrace_scope"
# AUDIT_ARCH_* of linux/audit.h, by the name that libseccomp has for it
ARCHES = {0xC000003E: "x86_64", 0x40000003: "x86", 0xC00000B7: "aarch64", 0x40000028: "arm"}
FOREIGN = {"x86_64": "x86", "aarch64": "arm"}
CAP_SYS_PTRACE = 19


class Stop(Value):
    """What a tracee is told of for: ``what`` is CALL, TRAPPED or KILLED; ``pid`` its thread; ``arch`` and ``number``
    name the system call, ``args`` its six arguments; ``result`` is what it returned, -errno where it failed."""

    what: int
    pid: int
    arch: str
    number: int
    args: tuple[int, ...]
    result: int


class Tracer:
    """The tracer of one program. ``wanted``: errno values; a call that failed so is told of.

    ``always``: (arch, number) of calls that are told of whether they fail or not.
    """

    def __init__(self, wanted: Iterable[int], always: Iterable[tuple[str, int]] = ()) -> None:
        self._tracer = ffi.new("struct mc_tracer *")
        for number in wanted:
            self._tracer.wanted[number] = 1
        for arch, number in always:
            if 0 <= number < CALLS:
                self._tracer.always[_row(arch) + number] = 1

    def seize(self, pid: int) -> None:
        """Trace PID, which runs on, and whatever it will start. Raises StepFailed: EPERM with the reason, ESRCH."""
        result = lib.mc_trace_seize(pid)
        if result < 0:
            raise StepFailed(f"ptrace process {pid}", -result, cure=obstacle() if result == -EPERM else "")

    def next(self, *, wait: bool = True) -> Stop | None:
        """Let the last one go on, and wait for the next stop; None when nobody is left, or with ``wait=False`` when
        nobody has stopped. Raises InterruptedError for a signal to this process, StepFailed."""
        result = lib.mc_trace_next(self._tracer, wait)
        if result == -EINTR:
            raise InterruptedError(EINTR, "wait4")
        if result < 0:
            raise StepFailed("wait4", -result)
        t = self._tracer
        if t.what in (OVER, NOTHING):
            return None
        arch = ARCHES.get(t.arch, hex(t.arch))
        return Stop(t.what, t.tid, arch, t.nr, tuple(t.args), t.result)

    @property
    def seen(self) -> list[tuple[str, int]]:
        """(arch, number) of every system call since the first execve, that one included."""
        native = os.uname().machine
        rows = ((native, 0), (FOREIGN.get(native, ""), CALLS))
        return [(arch, number) for arch, row in rows for number in range(CALLS) if self._tracer.seen[row + number]]

    @property
    def lost(self) -> int:
        """How often a thread was not looked at, for there were too many at once (16,383)."""
        return int(self._tracer.lost)


def _row(arch: str) -> int:
    return 0 if arch == os.uname().machine else CALLS


def memory(pid: int, address: int, size: int) -> bytes:
    """SIZE bytes of PID's memory at ADDRESS, or as many as there are."""
    out = ffi.new("char[]", size)
    got = lib.mc_read_memory(pid, address, out, size)
    return bytes(ffi.buffer(out, max(0, got)))


def text(pid: int, address: int, most: int = PAGE) -> bytes | None:
    """The string at ADDRESS of PID, at most MOST bytes of it; None where there is none.

    Page by page: the next one need not be there. A program with several threads may change it meanwhile.
    """
    found = b""
    while len(found) < most:
        part = memory(pid, address + len(found), PAGE - (address + len(found)) % PAGE)
        if not part:
            return found or None
        found += part
        if b"\0" in part:
            break
    return found.partition(b"\0")[0][:most]


def obstacle() -> str:
    """Why this process may not trace another of its user's; "" where nothing is known of that. Yama(LSM), ptrace(2)."""
    try:
        with open(YAMA, encoding="ascii") as file:
            scope = int(file.read())
    except (OSError, ValueError):
        return "it is another user's, or gained privilege: be root"
    reasons = {
        1: "kernel.yama.ptrace_scope is 1, only descendants may be traced: be root, or set it to 0",
        2: "kernel.yama.ptrace_scope is 2: CAP_SYS_PTRACE is needed",
        3: "kernel.yama.ptrace_scope is 3: nobody may trace until the next boot",
    }
    return reasons.get(scope, "it is another user's, or gained privilege: be root")
