"""One system call of one process fails, or is the last thing that process does: a small tracer after ptrace(2).

strace's own fault injection counts calls by thread, so with ``-f`` one number hits a call in every process of a start
at once; and it leaves out the call, which for close(2) is what no kernel does: a close that fails has closed. Here
exactly one call of one process is hit, the call is told with its path, and a failing close closes. x86-64, Linux 5.3.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

__all__ = ["Call", "Point", "Tracer", "call_names"]

SEIZE, CONT, DETACH, SYSCALL, SETREGS, POKEUSER, GETEVENTMSG = 0x4206, 7, 17, 24, 13, 6, 0x4201
INTERRUPT, LISTEN, SYSCALL_INFO = 0x4207, 0x4208, 0x420E
OPTIONS = 0x1 | 0x2 | 0x4 | 0x8 | 0x10 | 0x100000  # TRACESYSGOOD, FORK, VFORK, CLONE, EXEC, EXITKILL
BORN, EXECUTED, STOPPED = (1, 2, 3), 4, 128  # PTRACE_EVENT_*
ALL_KINDS = 0x40000000  # __WALL
ORIG_RAX, RAX, RDI = 15 * 8, 10 * 8, 14 * 8  # offsets in struct user
STOPS = frozenset({signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU})
HEADER = "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"

# Which of their arguments is a path: enough of them to tell what a call was about.
_POSITIONS = {
    0: "open stat lstat access mkdir rmdir unlink readlink chmod execve chdir umount2 statfs rename getxattr setxattr"
    " memfd_create fsopen sethostname pivot_root",
    1: "openat mkdirat unlinkat readlinkat newfstatat faccessat2 openat2 execveat statx open_tree mount symlink link"
    " symlinkat renameat renameat2 mknodat fchmodat mount_setattr faccessat",
    3: "move_mount",
}
PATHS = {name: position for position, names in _POSITIONS.items() for name in names.split()}

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
libc.ptrace.restype = ctypes.c_long


class SyscallInfo(ctypes.Structure):
    """struct ptrace_syscall_info, its part for an entry; an exit has its result in the place of ``number``."""

    _fields_ = [
        ("op", ctypes.c_uint8),
        ("pad", ctypes.c_uint8 * 3),
        ("arch", ctypes.c_uint32),
        ("pointers", ctypes.c_uint64 * 2),
        ("number", ctypes.c_uint64),
        ("arguments", ctypes.c_uint64 * 6),
        ("more", ctypes.c_uint64 * 2),
    ]


class Call(NamedTuple):
    """A call that was made: by which process (0 is the first, then by birth), and which of its kind."""

    process: int
    name: str
    number: int
    about: str = ""

    def __str__(self) -> str:
        about = f" {self.about}" if self.about else ""
        return f"process {self.process}, {self.name} {self.number}{about}"


class Point(NamedTuple):
    """What is done to one call: it fails with ERROR, or its process is killed before it where ERROR is ""."""

    call: Call
    error: str
    late: bool = False  # the call is made, and its result is a lie

    def __str__(self) -> str:
        return f"{self.call}: {self.error or 'SIGKILL'}"


def call_names() -> dict[int, str]:
    """Numbers of system calls -> names. FileNotFoundError where the C library's headers are not installed."""
    rows = re.findall(r"^#define __NR_(\w+)\s+(\d+)$", Path(HEADER).read_text(), re.MULTILINE)
    return {int(number): name for name, number in rows}


def ptrace(request: int, pid: int, address: int = 0, data: int = 0) -> int:
    """The result; -1 for a process that was killed meanwhile."""
    return int(libc.ptrace(request, pid, address, data))


class Tracee:
    """A thread: the process it is one of; within the call that was chosen its errno, or what its argument was."""

    def __init__(self, process: Process) -> None:
        self.process, self.fails, self.argument = process, 0, 0


class Process:
    """A process: its place in the order of births, and how many calls of each kind it has made."""

    def __init__(self, index: int) -> None:
        self.index, self.counts = index, Counter[str]()


class Tracer:
    """Follows process PID and all that it gives birth to, until one of them executes a program of PAYLOADS.

    ``made``: all calls (only where no point was asked for), ``hit``: what the point came upon, ``status``: the first
    process's wait status, None while it lives.
    """

    def __init__(
        self, pid: int, payloads: Iterable[str], point: Point | None = None, errors: dict[str, int] | None = None
    ) -> None:
        self.pid, self.point, self.errors = pid, point, errors or {}
        self.payloads = {(os.stat(path).st_dev, os.stat(path).st_ino) for path in payloads}
        self.names = call_names()
        self.made: list[Call] = []
        self.hit: Call | None = None
        self.status: int | None = None
        self.counting = False
        self.letting_go = False
        self.tracees: dict[int, Tracee] = {}
        self.processes: dict[int, Process] = {}
        self.info = SyscallInfo()
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        if ptrace(SEIZE, pid, 0, OPTIONS) < 0:
            raise OSError(ctypes.get_errno(), f"PTRACE_SEIZE {pid}")
        self.tracee(pid)
        ptrace(INTERRUPT, pid)

    def tracee(self, tid: int) -> Tracee:
        """Thread TID, known or new."""
        if tid not in self.tracees:
            leader = tid
            try:
                with open(f"/proc/{tid}/status", "rb") as file:
                    leader = next(int(line.split()[1]) for line in file if line.startswith(b"Tgid:"))
            except (OSError, StopIteration):
                pass  # it is dead: one that counts no more
            process = self.processes.setdefault(leader, Process(len(self.processes)))
            self.tracees[tid] = Tracee(process)
        return self.tracees[tid]

    def follow(self, seconds: float, *, until_first: bool = True) -> bool:
        """Until the first process is gone, or (not UNTIL_FIRST) all are gone or let go; False after SECONDS."""
        deadline = time.monotonic() + seconds
        while self.status is None or (not until_first and self.tracees):
            pid, status = self.wait()
            if pid:
                self.event(pid, status)
                continue
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            signal.sigtimedwait([signal.SIGCHLD], min(left, 0.05))
        return True

    def wait(self) -> tuple[int, int]:
        """The next change of a process, (0, 0) when there is none yet."""
        try:
            return os.waitpid(-1, ALL_KINDS | os.WNOHANG)
        except ChildProcessError:  # one that died was told of by its parent after its own end
            self.tracees.clear()
            return 0, 0

    def event(self, tid: int, status: int) -> None:
        """One change of one process."""
        if not os.WIFSTOPPED(status):
            self.tracees.pop(tid, None)
            if tid == self.pid:
                self.status = status
            return
        number, event = os.WSTOPSIG(status), status >> 16
        deliver = 0
        tracee = self.tracee(tid)
        if number == signal.SIGTRAP | 0x80:
            self.syscall(tid, tracee)
        elif event in BORN:
            child = ctypes.c_ulong()
            if ptrace(GETEVENTMSG, tid, 0, ctypes.addressof(child)) == 0:
                self.tracee(child.value)
        elif event == EXECUTED:
            for other in [one for one, it in self.tracees.items() if it.process is tracee.process and one != tid]:
                del self.tracees[other]  # the threads that it had
            if self.is_payload(tid):
                self.let_go(tid)
                return
            self.executed(tid)
        elif event == STOPPED:
            if number in STOPS:
                ptrace(LISTEN, tid)
                return
        else:
            deliver = number
        if self.letting_go:
            self.let_go(tid, deliver)
        else:
            ptrace(SYSCALL, tid, 0, deliver)

    def executed(self, tid: int) -> None:
        """Another program of the runtime's own."""

    def is_payload(self, tid: int) -> bool:
        try:
            found = os.stat(f"/proc/{tid}/exe")
        except OSError:
            return False
        return (found.st_dev, found.st_ino) in self.payloads

    def syscall(self, tid: int, tracee: Tracee) -> None:
        """A call begins or ends."""
        if ptrace(SYSCALL_INFO, tid, ctypes.sizeof(self.info), ctypes.addressof(self.info)) < 0:
            return
        if self.info.op == 2:  # PTRACE_SYSCALL_INFO_EXIT
            if tracee.argument:
                ptrace(POKEUSER, tid, RDI, tracee.argument)
                tracee.argument = 0
            if tracee.fails:
                ptrace(POKEUSER, tid, RAX, -tracee.fails & 0xFFFFFFFFFFFFFFFF)
                tracee.fails = 0
            return
        name = self.names.get(self.info.number, str(self.info.number))
        if not self.counting:
            self.counting = self.begins(name)
            return
        tracee.process.counts[name] += 1
        call = Call(tracee.process.index, name, tracee.process.counts[name])
        if self.point is None:
            self.made.append(call._replace(about=self.about(tid, name)))
        elif self.hit is None and call == self.point.call._replace(about=""):
            self.hit = call._replace(about=self.about(tid, name))
            self.strike(tid, tracee, self.point)

    def begins(self, name: str) -> bool:
        """Whether what is counted begins after a call NAME."""
        return name == "getppid"

    def strike(self, tid: int, tracee: Tracee, point: Point) -> None:
        if not point.error:
            os.kill(tid, signal.SIGKILL)
            return
        if point.call.name == "brk":  # it fails by the old break as its answer, which is that of brk(0)
            tracee.argument = self.info.arguments[0]
            ptrace(POKEUSER, tid, RDI, 0)
            return
        tracee.fails = self.errors[point.error]
        if not point.late:
            ptrace(POKEUSER, tid, ORIG_RAX, 0xFFFFFFFFFFFFFFFF)

    def about(self, tid: int, name: str) -> str:
        """The path that a call is about."""
        if name not in PATHS:
            return ""
        try:
            with open(f"/proc/{tid}/mem", "rb", buffering=0) as memory:
                memory.seek(self.info.arguments[PATHS[name]])
                text = memory.read(256)
        except (OSError, OverflowError, ValueError):
            return ""
        return text.partition(b"\0")[0].decode("utf-8", "replace")

    def let_go(self, tid: int, deliver: int = 0) -> None:
        self.tracees.pop(tid, None)
        ptrace(DETACH, tid, 0, deliver)

    def detach(self) -> None:
        """Everybody goes on by himself."""
        self.letting_go = True
        for tid in list(self.tracees):
            ptrace(INTERRUPT, tid)
        deadline = time.monotonic() + 2
        while self.tracees and time.monotonic() < deadline:
            pid, status = self.wait()
            if pid:
                self.event(pid, status)
            else:
                signal.sigtimedwait([signal.SIGCHLD], 0.01)

    def kill(self) -> None:
        """All that is traced dies, and is reaped."""
        for process in self.processes:
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.follow(2, until_first=False)
