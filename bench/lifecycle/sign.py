"""The program that tells of its first instruction (sign.c), and the socket that it tells.

Both lie in one directory of the host, which every environment is given by a bind at :data:`INSIDE`. The program's clock
is CLOCK_MONOTONIC, which is the same inside and outside as long as nobody makes a time namespace.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import select
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Iterator

from bench import host
from bench.lifecycle.lab import C_FLAGS, Lab, LabError
from bench.lifecycle.worker import ArmFailed

INSIDE = "/sign"
ARGV = (f"{INSIDE}/sign", f"{INSIDE}/socket")
TOGETHER = 1024  # connections that may wait to be accepted
CREDENTIALS = struct.Struct("3i")  # struct ucred of socket(7): pid, uid, gid


@dataclasses.dataclass
class Living:
    """One program that told. ``first``: its first instruction, nanoseconds of CLOCK_MONOTONIC; ``groups``: the control
    groups it is in and we are not; ``processes``: (pid, start time) of it and of those that were started for it."""

    pid: int
    first: int
    groups: tuple[str, ...]
    processes: tuple[tuple[int, int], ...]
    stream: socket.socket

    def gone(self, timeout: float) -> bool:
        """Whether it ends within TIMEOUT seconds."""
        poll = select.poll()
        poll.register(self.stream, select.POLLIN)
        return bool(poll.poll(timeout * 1000)) and self.stream.recv(1) == b""


class Sign:
    """The listening side. ``directory`` is what containers are given at INSIDE."""

    def __init__(self, directory: str, listening: socket.socket) -> None:
        self.directory, self._listening = directory, listening

    def living(self, timeout: float, since: int) -> Living:
        """The next program that tells. SINCE: clock ticks since boot (:func:`ticks`) when it was asked for; older
        ancestors are not its own. Raises ArmFailed when none tells within TIMEOUT seconds."""
        self._listening.settimeout(timeout)
        try:
            stream, _ = self._listening.accept()
        except TimeoutError:
            raise ArmFailed(f"its program did not begin within {timeout:g} s") from None
        stream.settimeout(timeout)
        try:
            pid = CREDENTIALS.unpack(stream.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size))[0]
            (first,) = struct.unpack("=Q", stream.recv(8, socket.MSG_WAITALL))
        except (OSError, struct.error) as err:
            stream.close()
            raise ArmFailed(f"its program did not tell when it began: {err}") from err
        return Living(pid, first, its_groups(pid), its_processes(pid, since), stream)

    def waiting(self) -> bool:
        """Whether one has told that nobody asked about."""
        return bool(select.select([self._listening], [], [], 0)[0])


@contextlib.contextmanager
def raised(lab: Lab) -> Iterator[Sign]:
    """The program compiled and its socket open, for LAB. Its root gets the directory to bind to: a root that was given
    is copied first, for it is never written to. Raises LabError."""
    if not os.path.isdir(lab.rootfs + INSIDE):
        lab.own_rootfs()
        os.mkdir(lab.rootfs + INSIDE, 0o755)
    directory = lab.path("sign", "")
    os.chmod(lab.directory, 0o755)  # mapped users go through it
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if not compiler:
        raise LabError("no C compiler for the program of the phases: install gcc, or name one in CC")
    source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "sign.c")
    words = [compiler, *C_FLAGS, "-static", "-o", os.path.join(directory, "sign"), source]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LabError(f"{compiler} cannot compile {source}: {done.stderr.strip()}")
    path = os.path.join(directory, "socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as listening:
        listening.bind(path)
        os.chmod(path, 0o666)
        listening.listen(TOGETHER)
        yield Sign(directory.rstrip("/"), listening)


def its_groups(pid: int) -> tuple[str, ...]:
    """The directories of the control groups of PID that are not our own, in every hierarchy."""
    text = read(f"/proc/{pid}/cgroup")
    return tuple(sorted(set(host.own_cgroups("", text)) - set(host.own_cgroups()))) if text else ()


def ticks() -> int:
    """Now, in clock ticks since boot: the unit of a process's start time in proc_pid_stat(5)."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK") // 1_000_000_000


def its_processes(pid: int, since: int) -> tuple[tuple[int, int], ...]:
    """PID and those of its ancestors that were started from SINCE on: its init, its monitor, its shim.

    No ancestor that is our child: that is the worker, which may have been started in the very tick of SINCE, and
    goes on.
    """
    found: list[tuple[int, int]] = []
    while pid > 1:
        fields = read(f"/proc/{pid}/stat").rpartition(")")[2].split()
        if len(fields) < 20 or int(fields[19]) < since or (found and int(fields[1]) == os.getpid()):
            break
        found.append((pid, int(fields[19])))
        pid = int(fields[1])
    return tuple(found)


def alive(pid: int, begun: int) -> bool:
    """Whether that very process is still there, as more than a zombie."""
    fields = read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return len(fields) > 19 and int(fields[19]) == begun and fields[0] != "Z"


def read(path: str) -> str:
    with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
        return file.read()
    return ""
