"""Who answers the calls that a filter asks about: threads of the caller's process, one for each call that waits.

::

    parent                               child
    offer(): a socket
    clone3  ------------------------->   the filter is loaded, and its listener sent
    take(): the listener <-----------
    threads: poll, receive               execve, the first call that the function may be asked about
    function(call), answer  <-------->   calls
    stop(), when it is reaped

Calls of the start itself, where the filter is loaded before its last step, go on without the function: the region says
when the program begins. One thread listens; before it decides a call it sees to it that another listens, up to
``AT_ONCE`` in all; what comes then waits in the kernel.
"""

from __future__ import annotations

import os
import select
import threading

from minictr.errors import SpecError
from minictr.kernel import packets, seccomp_notify
from minictr.kernel.core import ffi, lib
from minictr.kernel.handles import shut
from minictr.runtime.notified import Syscall, decide

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minictr.runtime.notified import Handler
    from minictr.runtime.program import Program

__all__ = ["AT_ONCE", "Supervisor", "supervisor_of"]

AT_ONCE = 16  # calls that are decided at the same time
KEPT_ERRORS = 32
EMFILE = 24
STATE = ffi.offsetof("struct mc_region", "state")
LISTENER = "listener"  # the word for the socket in a plan


def supervisor_of(program: Program, handler: Handler | None) -> Supervisor | None:
    """Who answers for PROGRAM by HANDLER; None where nobody is asked. Raises SpecError where one is without the
    other."""
    asks = LISTENER in program.fd_names
    if handler is None:
        if asks:
            raise SpecError("seccomp: the filter notifies: a function must decide, give on_syscall= (in Python)")
        return None
    if not callable(handler):
        raise SpecError(f"on_syscall: {type(handler).__name__} is no function")
    if not asks:
        raise SpecError("on_syscall: no filter asks it: give one with SeccompFilter.notify(...)")
    return Supervisor(handler)


class Supervisor:
    """Answers by HANDLER until it is stopped, or nobody has the filter any more. ``errors``: what HANDLER raised, the
    first 32."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.errors: list[BaseException] = []
        self._socket: packets.Socket | None = None
        self._listener = self._wake = self._region = -1
        self._threads = self._busy = 0
        self._over = False
        self._turn = threading.Lock()  # of who listens
        self._changed = threading.Condition()  # guards the numbers above

    def offer(self) -> int:
        """The socket that the listener is to be sent to; the caller's to close. Raises OSError."""
        self._socket, theirs = packets.connected_pair()
        return theirs.detach()

    def take(self, timeout: float, region: int) -> None:
        """The listener, and begin to answer. TIMEOUT: seconds; REGION: the start's memory file, which is not kept.

        Where none comes the child is gone or hangs: its start will say why. Raises OSError, StepFailed.
        """
        assert self._socket is not None
        self._socket.settimeout(max(timeout, 0.001))
        try:
            data, fds = packets.receive(self._socket, 1, 1)
        except TimeoutError:
            return
        finally:
            self._socket.close()
        if not fds:
            if data:  # it was sent, and there was no room for it: unix(7), SCM_RIGHTS
                raise OSError(EMFILE, "the filter's listener could not be received")
            return
        self._listener = fds[0]
        seccomp_notify.sizes()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC)
        self._region = os.dup(region)
        self._poll = select.poll()
        self._poll.register(self._listener, select.POLLIN)
        self._poll.register(self._wake, select.POLLIN)
        self._threads = 1
        self._begin()

    def stop(self) -> None:
        """No call is answered from now on: what waits and comes fails with ENOSYS. A call that is being decided is not
        waited for: the listener is closed behind it."""
        if self._socket is not None:
            self._socket.close()
        with self._changed:
            self._over = True
            if not self._threads:
                self._close()
                return
            os.eventfd_write(self._wake, 1)
            # those that listen leave; not for ever, for an interpreter that ends stops its threads
            self._changed.wait_for(lambda: self._threads <= self._busy, 1.0)

    def _close(self) -> None:
        for fd in (self._listener, self._wake, self._region):
            if fd >= 0:
                shut(fd)
        self._listener = self._wake = self._region = -1

    def _begin(self) -> None:
        try:
            threading.Thread(target=self._serve, name="minictr on_syscall", daemon=True).start()
        except RuntimeError:  # no more threads are to be had: those that are there go on, one after another
            with self._changed:
                self._threads -= 1
                if not self._threads:
                    raise

    def _serve(self) -> None:
        busy = False
        try:
            while (call := self._next()) is not None:
                busy = True
                decide(call, self.handler, self._keep)
                with self._changed:
                    self._busy -= 1
                busy = False
        finally:
            with self._changed:
                self._busy -= busy
                self._threads -= 1
                if not self._threads:
                    self._over = True
                    self._close()
                self._changed.notify_all()

    def _keep(self, error: BaseException) -> None:
        if len(self.errors) < KEPT_ERRORS:
            self.errors.append(error)

    def annotate(self, error: BaseException) -> None:
        """Say in ERROR what the function had raised before."""
        for raised in self.errors[:1]:
            error.add_note(f"the on_syscall function had raised {raised!r}")

    def _next(self) -> Syscall | None:
        """The next call to decide, None when it is over. Another thread listens meanwhile, if there may be one more."""
        with self._turn:
            found = None if self._over else self._received()
            with self._changed:
                if found is None:
                    self._over = True
                    return None
                self._busy += 1
                more = self._busy == self._threads < AT_ONCE
                self._threads += more
        if more:
            self._begin()
        return found

    def _received(self) -> Syscall | None:
        while True:
            events = dict(self._poll.poll())
            if self._wake in events or events.get(self._listener, 0) & ~select.POLLIN:
                return None
            found = seccomp_notify.receive(self._listener)
            if found is None:
                continue
            if self._program_runs():
                return Syscall(self._listener, found)
            seccomp_notify.respond(self._listener, found.id, proceed=True)

    def _program_runs(self) -> bool:
        """Whether the start is over. Its own calls are not the function's to decide, and no program has run yet."""
        if self._region >= 0:
            state = int.from_bytes(os.pread(self._region, 4, STATE), "little")
            if state != lib.MC_STATE_EXEC:
                return False
            shut(self._region)
            self._region = -1
        return True
