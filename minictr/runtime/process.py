"""A running program: like :class:`subprocess.Popen`, by pidfd."""

from __future__ import annotations

import os
import select
import struct
import time
from _thread import allocate_lock

from minictr.errors import TimeoutExpired
from minictr.kernel.core import lib
from minictr.kernel.handles import shut

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import IO, Any, Self

    from minictr.kernel.cgroup_readings import Readings
    from minictr.kernel.cgroup_usage import Usage
    from minictr.runtime.clock import Clock
    from minictr.runtime.observed.denials import Denial
    from minictr.runtime.observed.start import Observer
    from minictr.runtime.supervisor import Supervisor
    from minictr.runtime.timeline import Timeline

PIPE, STDOUT, DEVNULL = -1, -2, -3  # the values of subprocess's
SIGTERM, SIGKILL = 15, 9
ESRCH, EMFILE = 3, 24
# How reboot(2) ends a pid namespace: by a signal that otherwise never ends its first process. pid_namespaces(7)
HALTS = {1: ("rebooted", 133), 2: ("halted", 0)}
_dropped: list[Process] = []  # by those who did not wait; as subprocess does
LAST_WORD = struct.Struct("=i4xq")  # struct mc_last_word of _core/init.c: wait status, largest resident set in KiB


def descriptors_cure(err: OSError) -> str:
    """What helps when ERR says that this process has too many open files; nothing for other errors."""
    return "raise the limit of open files: ulimit -n" if err.errno == EMFILE else ""


class Process:
    """A container's program.

    ``pid``: of the container's first process, as the host counts. ``pidfd``: readable when it is gone. ``returncode``:
    None while it runs, then its exit code, or minus the signal that killed it. ``signal``: that signal, or 0.
    ``halt``: "halted" or "rebooted" when the program was PID 1 and called reboot(2); returncode is 0 then, or 133 as
    systemd-nspawn's. ``rusage``: ``os.wait4``'s, of the whole container (its init and all it reaped); without init its
    ``ru_maxrss`` is at least the caller's, which exec charges to whoever shared its memory. ``elapsed``: seconds from
    the start's first step to the end. ``timeline``: the start, step by step. ``usage``: its cgroups' last readings, if
    it had any. ``handler_errors``: see there.

    A process dropped while running warns ResourceWarning, runs on, and is reaped by a later start when it has ended;
    ``with`` kills and reaps it.
    """

    def __init__(
        self,
        pid: int,
        pidfd: int,
        args: Sequence[str],
        clock: Clock,
        *,
        status_fd: int = -1,
        first: bool = False,
    ) -> None:
        self.pid, self.pidfd, self.args = pid, pidfd, tuple(args)
        self.stdin: IO[Any] | None = None
        self.stdout: IO[Any] | None = None
        self.stderr: IO[Any] | None = None
        self.returncode: int | None = None
        self.signal = 0
        self.halt = ""
        self.rusage: Any = None
        self.elapsed = 0.0
        self.partial: dict[int, list[bytes]] = {}
        self.unsent: memoryview = memoryview(b"")
        self.text: tuple[str, str] | None = None  # encoding and errors, where the streams are text
        self.readings: Readings | None = None
        self.aftermath: Callable[[], Readings | None] | None = None
        self.supervisor: Supervisor | None = None
        self.observer: Observer | None = None
        self.clock, self._status_fd, self._first = clock, status_fd, first
        self._reaping = allocate_lock()
        if _dropped:
            reap_dropped()

    @property
    def timeline(self) -> Timeline:
        return self.clock.timeline()

    @property
    def usage(self) -> Usage | None:
        return None if self.readings is None else self.readings.usage()

    @property
    def handler_errors(self) -> tuple[BaseException, ...]:
        """What an ``on_syscall`` function raised, the first 32: each such call failed with EPERM."""
        return () if self.supervisor is None else tuple(self.supervisor.errors)

    @property
    def denials(self) -> tuple[Denial, ...]:
        """What it was denied and why, when it is over and was started with ``explain_denials``; else nothing.

        Raises StepFailed when the observer was killed: then nothing is known.
        """
        return () if self.observer is None else self.observer.denials(self)

    @property
    def behind_init(self) -> bool:
        """Whether the first process is minictr's init, and the program its child. Of one that runs."""
        return self._status_fd >= 0

    def fileno(self) -> int:
        """The pidfd: for select, poll and asyncio."""
        return self.pidfd

    def poll(self) -> int | None:
        """The returncode if the program is gone, else None."""
        if self.returncode is None and is_over(self.pidfd, 0):
            self._reap()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; raises :class:`TimeoutExpired` after TIMEOUT seconds and leaves it running."""
        if self.returncode is None:
            if not is_over(self.pidfd, timeout):
                raise TimeoutExpired(self.args, timeout or 0)
            self._reap()
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, signal: int) -> None:
        """Send SIGNAL to the container's first process; its init passes it on. Nothing happens when it is gone."""
        if self.returncode is not None:
            return
        result = lib.mc_pidfd_send_signal(self.pidfd, signal, 0)
        if result < 0 and result != -ESRCH:
            raise OSError(-result, f"pidfd_send_signal {signal} to {self.pid}: {os.strerror(-result)}")

    def terminate(self) -> None:
        self.send_signal(SIGTERM)

    def kill(self) -> None:
        """SIGKILL: with a pid namespace every process of the container is gone."""
        self.send_signal(SIGKILL)

    def communicate(self, input: Any = None, timeout: float | None = None) -> tuple[Any, Any]:
        """Send INPUT, read both pipes to their end, wait: bytes, or str where the streams are text.

        Raises TimeoutExpired, with bytes; the program then still runs, and the next call goes on.
        """
        from minictr.runtime.pipes import communicate

        data = input.encode(*self.text) if self.text and isinstance(input, str) else input
        out, err = communicate(self, data, timeout)
        if self.text is None:
            return out, err
        return tuple(None if data is None else data.decode(*self.text) for data in (out, err))  # type: ignore[return-value]

    def end(self) -> tuple[bytes | None, bytes | None]:
        """Kill it and reap it; what it had written until then."""
        from minictr.runtime.pipes import remains

        self.kill()
        self.wait()
        return remains(self)

    def _reap(self) -> None:
        with self._reaping:  # threads may wait for the same process: one reaps, all get the same answer
            if self.returncode is None:
                self._reap_once()

    def _reap_once(self) -> None:
        status = 0xFF00  # somebody else's wait(-1) was faster: the init's own word is left
        for _ in range(2):  # that it is so is believed when it is said twice
            try:
                _, status, self.rusage = os.wait4(self.pid, 0)
                break
            except ChildProcessError:
                pass
        told = os.read(self._status_fd, LAST_WORD.size) if self._status_fd >= 0 else b""
        if len(told) == LAST_WORD.size:  # init leaves with 128+n, which is also an exit code: its pipe tells them apart
            status, maxrss = LAST_WORD.unpack(told)
            if self.rusage is not None:
                self.rusage = type(self.rusage)((*self.rusage[:2], maxrss, *self.rusage[3:]))
        returncode = os.waitstatus_to_exitcode(status)
        if self._first and -returncode in HALTS:
            self.halt, returncode = HALTS[-returncode]
        self.signal = max(0, -returncode)
        self.elapsed = (time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW) - self.clock.begin_ns) / 1e9
        try:
            if self.supervisor is not None:
                self.supervisor.stop()
            if self.observer is not None:
                self.observer.finish()
            if self.aftermath is not None:
                self.readings = self.aftermath()
        finally:
            self.returncode = returncode  # last but one: whoever sees it sees the rest too
            self._close_fds()

    def _close_fds(self) -> None:
        for name in ("pidfd", "_status_fd"):
            fd = getattr(self, name)
            if fd >= 0:
                shut(fd)
            setattr(self, name, -1)

    def close(self) -> None:
        """Kill it if it runs, reap it, close its pipes."""
        if self.returncode is None:
            self.kill()
            self.wait()
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                try:
                    stream.close()
                except BrokenPipeError:
                    pass  # input that nobody read

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "returncode", 0) is None:
            import warnings

            try:
                warnings.warn(f"process {self.pid} is still running", ResourceWarning, source=self, stacklevel=2)
            finally:
                _dropped.append(self)

    def __repr__(self) -> str:
        state = "running" if self.returncode is None else f"returncode={self.returncode}"
        return f"<Process {self.pid} {state} {' '.join(self.args)!r}>"


def look_ahead(groups: bool) -> None:
    """Import what the end of a program takes (os.wait4 imports resource; GROUPS have last readings): 0.4 ms that the
    child needs for its mounts anyhow, and that somebody would wait for at the end."""
    import resource  # noqa: F401

    if groups:
        import minictr.kernel.cgroup_readings  # noqa: F401


def reap(pid: int) -> int:
    """Wait for PID, which is about to end: its raw wait status."""
    try:
        return os.waitpid(pid, 0)[1]
    except ChildProcessError:  # somebody else's wait(-1) was faster
        return 0


def reap_dropped() -> None:
    """Reap what was dropped while it ran and has ended since: its cgroups and its journal rows go with it."""
    for process in _dropped[:]:
        if process.poll() is not None and process in _dropped:
            _dropped.remove(process)


def is_over(pidfd: int, timeout: float | None) -> bool:
    """Whether the process of PIDFD is gone, or is within TIMEOUT seconds (None: however long it takes)."""
    if pidfd < 0:  # another thread has reaped it this moment
        return True
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(None if timeout is None else max(0, timeout * 1000)))
