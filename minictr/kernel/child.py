"""A child that runs a few ops and ends: clone3 into new namespaces without a fork of this process.

The same static program that prepares a container (``_core/stub.c``) runs the ops, so Python's threads, heap and
locks do not matter, and nothing of this process changes. Used to hold a user namespace (users.user_namespace) and to
try features out (probing). A container's start has an executor of its own, with a time line and an init.
"""

from __future__ import annotations

import os
import select
import time

from minictr.kernel.core import lib
from minictr.kernel.handles import Handle, shut
from minictr.kernel.ops import OP, Encoder
from minictr.kernel.stub import HEADER_SIZE, region, spawn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    Op = tuple[str, Mapping[str, Any]]

__all__ = ["Child"]

SIGKILL = 9
ESRCH, EPIPE, ETIMEDOUT = 3, 32, 110  # what a child that died or hung amid an op is reported as


def is_over(pidfd: int) -> bool:
    """Whether the process of PIDFD has ended."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


class Child(Handle):
    """A process in new namespaces (FLAGS, CLONE_NEW*) that waits, runs OPS when told to, and ends.

    ``pid``, ``pidfd``: who it is. Before :meth:`attempt` its id maps can be written. FDS: descriptors of
    ours that ops mention by number. ``cgroup``: a descriptor of the cgroup v2 directory it is born in, or -1.
    Linux 5.5 (CLONE_CLEAR_SIGHAND). Raises StepFailed.
    """

    def __init__(self, flags: int = 0, ops: Iterable[Op] = (), fds: Iterable[int] = (), cgroup: int = -1) -> None:
        self.pid, self.pidfd, self._region, self._go = 0, -1, -1, -1
        # it ends with the thread that made it, whatever it is doing by then
        program = (("pdeathsig", {"signal": SIGKILL}), ("barrier", {"fd": -1}), *ops)
        self._calls = tuple(call for call, _ in program)
        barrier, self._go = os.pipe2(os.O_CLOEXEC)
        reader, report = os.pipe2(os.O_CLOEXEC)
        try:
            encoder = Encoder()
            for call, args in program:
                encoder.add(call, {"fd": barrier} if args.get("fd") == -1 else args)
            self._region = os.memfd_create("minictr-region", os.MFD_CLOEXEC)
            keep = sorted({barrier, report, self._region, *fds})
            os.write(self._region, region(bytes(encoder.ops), bytes(encoder.blob), report, keep))
            self.pid, self.pidfd = spawn(flags, self._region, keep, cgroup)
            os.close(report)
            report = -1
            # until the program says "r" it may be amid execve, and its /proc files not its user's yet
            os.read(reader, 1)
        except BaseException:
            self._reap()
            self._forget()
            raise
        finally:
            for fd in (barrier, reader, report):
                if fd >= 0:
                    shut(fd)
        self._open = True

    def attempt(self, *, timeout: float = 10) -> tuple[str, int] | None:
        """Let it run its ops, and wait for its end: the (call, errno) that failed, or None when every op was done.

        Beyond TIMEOUT seconds it is killed, and the op it was at is said to have failed with ETIMEDOUT.
        """
        try:
            os.write(self._go, b"g")
        except BrokenPipeError:
            pass  # it is dead already: the region tells of what
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        late = not poll.poll(timeout * 1000)
        failed = self._failed(len(self._calls), ETIMEDOUT if late else EPIPE)
        self.close()
        return failed

    def halt(self, *, timeout: float = 10) -> tuple[str, int] | None:
        """As :meth:`attempt`, but for the last op, at which it is left to wait (a barrier of the caller's).

        It lives, and what it has made can be looked at through its /proc files until it is closed."""
        os.write(self._go, b"g")
        deadline = time.monotonic() + timeout
        while True:
            over = is_over(self.pidfd)
            failed = self._failed(len(self._calls) - 1, EPIPE if over else ETIMEDOUT)
            if failed is None or over or failed[1] != ETIMEDOUT or time.monotonic() > deadline:
                return failed
            time.sleep(0.0005)

    def _failed(self, count: int, unfinished: int) -> tuple[str, int] | None:
        """The first of COUNT calls that failed, with its errno; UNFINISHED for one that has not ended."""
        data = os.pread(self._region, HEADER_SIZE + OP.size * count, 0)
        for place, call in enumerate(self._calls[:count]):
            *_, result, end_ns = OP.unpack_from(data, HEADER_SIZE + place * OP.size)
            if result < 0 or not end_ns:
                return call, -result or unfinished
        return None

    def _close(self) -> None:
        self._reap()
        self._forget()

    def _reap(self) -> None:
        if not self.pid:
            return
        pid, self.pid = self.pid, 0
        if lib.mc_pidfd_send_signal(self.pidfd, SIGKILL, 0) not in (0, -ESRCH):
            os.kill(pid, SIGKILL)  # it is not reaped yet: the number is its own
        try:
            os.waitpid(pid, 0)
        except ChildProcessError:
            pass

    def _forget(self) -> None:
        for name in ("pidfd", "_region", "_go"):
            fd = getattr(self, name)
            setattr(self, name, -1)
            if fd >= 0:
                shut(fd)
