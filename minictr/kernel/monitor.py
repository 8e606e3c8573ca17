"""The monitor of a detached container: what Python says to ``_core/monitor.c`` until the container is committed.

A monitor is a static program of some 17 KB that clones the container, so it is its parent and reaper; keeps its pipes
or terminal, its log and its clients; writes its exit record; and at last executes a command in its own place. It is in
a session of its own and nobody's child. Until :meth:`Monitor.commit` it ends, and its container with it, when this
process does. docs/monitor.md draws the protocol. Linux 5.11 (close_range with CLOSE_RANGE_CLOEXEC).
"""

from __future__ import annotations

import os
import select
import struct

from minictr.errors import StartTimeout, StepFailed
from minictr.kernel.core import ffi, lib
from minictr.kernel.handles import Handle, shut
from minictr.kernel.packets import Socket, connected_pair, receive, send, unbound
from minictr.kernel.stub import (
    CLONE_INTO_CGROUP,
    CLONE_NEWUSER,
    MONITOR,
    STUB,
    not_executed,
    sealed_monitor,
    sealed_stub,
)
from minictr.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

__all__ = ["CHUNK", "EXIT_SIZE", "Exit", "Monitor", "blank_exit", "listening_socket", "read_exit"]

TIMEOUT = 10.0  # seconds for each answer of the monitor's
DYING = 0.05  # seconds for a container that has failed, to be gone by itself
CHUNK = int(lib.MC_CHUNK)  # bytes of output or input in one packet
EXIT_SIZE = int(lib.MC_EXIT_RECORD)
MAX_FINALS = int(lib.MC_MAX_FINALS)
SIGTERM, ECONNRESET = 15, 104
_SIZE = int(ffi.sizeof("struct mc_monitor"))
_NUMBER = struct.Struct("=i")
_WHAT = {b"p": "preparation of the monitor", b"n": "setns of the pid namespace", b"c": "clone3"}


class Monitor(Handle):
    """A monitor, from before its container is cloned until the container is committed to it.

    DIRECTORY: a descriptor of the container's state directory. LISTEN: a listening socket (:func:`listening_socket`);
    LOCK: a descriptor that stays open until the container has ended; LOG: opened for appending, LOG_MAX bytes (0: no
    limit) and LOG_FILES files (the current one included); EXIT: a file of EXIT_SIZE bytes (:func:`blank_exit`); EVENTS:
    opened for appending, EVENT: the beginning of the line that is written there. Each is -1 where there is none.
    FINALS: files to copy at the end: (directory descriptor, name in it, path below DIRECTORY). COMMAND, ENV: the exit
    command, its program by absolute path, and its environment as "NAME=value". STOP_SIGNAL: what a SIGTERM to the
    monitor becomes for the container; 0 is nothing. TITLE: shown by ps behind "minictr-mon".

    Descriptors stay the caller's, to be closed after :meth:`spawn`. ``pid``, ``pidfd``: the monitor's own; the
    container's are what ``spawn`` returned.
    """

    def __init__(
        self,
        directory: int = -1,
        *,
        listen: int = -1,
        lock: int = -1,
        log: int = -1,
        log_max: int = 0,
        log_files: int = 1,
        exit: int = -1,
        events: int = -1,
        event: str | bytes = b"",
        finals: Iterable[tuple[int, str, str]] = (),
        command: Sequence[str] = (),
        env: Sequence[str] = (),
        stop_signal: int = SIGTERM,
        title: str = "",
    ) -> None:
        self.pid, self.pidfd = 0, -1
        self.container, self.container_pidfd, self._committed = 0, -1, False
        self.reason: StepFailed | None = None  # why it left, where it said so
        self._control: Socket | None = None
        wish = self._wish = ffi.new("struct mc_monitor *")
        self._texts = bytearray()
        wish.magic, wish.version, wish.stop_signal = lib.MC_MONITOR_MAGIC, lib.MC_MONITOR_VERSION, stop_signal
        wish.fd[0 : len(wish.fd)] = [-1] * len(wish.fd)
        own = {"DIRECTORY": directory, "LISTEN": listen, "LOCK": lock, "LOG": log, "EXIT": exit, "EVENTS": events}
        for name, fd in own.items():
            wish.fd[getattr(lib, f"MC_FD_{name}")] = fd
        wish.log_max, wish.log_files = log_max, log_files
        wish.event = self._text(event)
        rows = list(finals)
        if len(rows) > MAX_FINALS:
            raise ValueError(f"{len(rows)} final copies: at most {MAX_FINALS}")
        wish.n_finals = len(rows)
        for row, (fd, name, target) in zip(wish.finals, rows):
            row.fd, row.name, row.target = fd, self._text(name), self._text(target)
        wish.argv, wish.n_argv = self._packed(command), len(command)
        wish.env, wish.n_env = self._packed(env), len(env)
        self._title = f"{MONITOR} {title}".rstrip().encode("utf-8", "surrogateescape")[:63]

    def spawn(
        self,
        flags: int,
        region: int,
        keep: Collection[int],
        *,
        cgroup: int = -1,
        pidns: int = -1,
        status: int = -1,
        stdin: int = -1,
        stdout: int = -1,
        stderr: int = -1,
        timeout: float = TIMEOUT,
    ) -> tuple[int, int]:
        """Start the monitor, which clones the container: the container's (pid, pidfd).

        FLAGS, REGION, KEEP, ``cgroup``: as of :func:`minictr.kernel.stub.spawn`. ``pidns``: a pid namespace that the
        container is born in. ``status``: our end of init's pipe; ``stdin``, ``stdout``, ``stderr``: our ends of the
        container's. Raises StepFailed as the stub's spawn does, StartTimeout; nothing is left then.
        """
        wish = self._wish
        wish.spawn.flags, wish.spawn.region_fd, wish.spawn.name = flags, region, STUB.encode()
        wish.spawn.raise_caps = bool(flags & CLONE_NEWUSER)
        if cgroup >= 0:
            wish.spawn.flags, wish.spawn.cgroup_fd = flags | CLONE_INTO_CGROUP, cgroup
        wish.pidns_fd = pidns
        wish.n_keep = len(keep)
        wish.keep[0 : len(keep)] = sorted(keep)
        for name, fd in (("STATUS", status), ("STDIN", stdin), ("STDOUT", stdout), ("STDERR", stderr)):
            wish.fd[getattr(lib, f"MC_FD_{name}")] = fd
        self._start()
        try:
            return self._clone(timeout)
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        """The monitor itself, its end of the control socket, /dev/null and the memory file with all it must know."""
        wish = self._wish
        ours, theirs = connected_pair()
        null = memory = -1
        try:
            null = wish.fd[lib.MC_FD_NULL] = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            wish.fd[lib.MC_FD_CONTROL] = theirs.fileno()
            wish.spawn.stub_fd = sealed_stub()
            wish.size = _SIZE + len(self._texts)
            memory = os.memfd_create("minictr-monitor", os.MFD_CLOEXEC)
            os.write(memory, bytes(ffi.buffer(wish)) + self._texts)
            self.pid, self.pidfd = _spawn(memory, self._listed(memory), self._title)
            self._control, self._open = ours, True
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
            for fd in (null, memory):
                if fd >= 0:
                    shut(fd)

    def _listed(self, memory: int) -> list[int]:
        """Every descriptor the monitor is to have."""
        wish = self._wish
        found = {*wish.fd, *wish.keep[0 : wish.n_keep], *(row.fd for row in wish.finals[0 : wish.n_finals])}
        found |= {memory, wish.spawn.stub_fd, wish.spawn.region_fd, wish.pidns_fd}
        if wish.spawn.flags & CLONE_INTO_CGROUP:
            found.add(wish.spawn.cgroup_fd)
        return sorted(fd for fd in found if fd >= 0)

    def _clone(self, timeout: float) -> tuple[int, int]:
        data, fds = self._receive(timeout, 1)
        number = _NUMBER.unpack_from(data, 1)[0]
        if data[:1] == b"p":
            self.container, self.container_pidfd = number, fds[0]
            return number, os.dup(fds[0])
        if data[5:6] == b"e":
            raise not_executed(number)
        raise StepFailed(_WHAT.get(data[5:6], "start of the monitor"), number)

    def give_terminal(self, master: int) -> None:
        """The master of the container's pty, which stays the caller's to close."""
        self._send(b"m", master)

    def give_hold(self, report: int, region: int, hold: int) -> None:
        """Two-phase start: what ``start`` needs. REPORT: our end of the report pipe; HOLD: our end of the op's pipe."""
        self._send(b"h", report, region, hold)

    def commit(self, timeout: float = TIMEOUT, *, final: bool = True) -> None:
        """From here on the container does not end with this process. Raises StepFailed, StartTimeout; then it does.

        Not ``final``: the start may still be undone (:meth:`abort`), until :meth:`close` says farewell. So a held start
        is committed before its program runs, and no program ever runs uncommitted.
        """
        self._send(b"c")
        data, _ = self._receive(timeout, 0)
        if data[:1] != b"c":
            raise StepFailed("hand the container over to its monitor", _NUMBER.unpack_from(data, 1)[0])
        self._committed = True
        if final:
            self.close()

    def abort(self, timeout: float = 5.0) -> int:
        """Kill the container: its raw wait status, 0 where nobody can say. The monitor leaves, and executes no exit
        command: undoing the start is the caller's."""
        if not self._open:
            return 0
        self._open = False
        try:
            # one that is dying has a better word to say than that we killed it
            _is_readable(self.container_pidfd, DYING)
            self._send(b"q")
            while True:  # an answer that nobody waited for may come first
                data, _ = self._receive(timeout, 0)
                if data[:1] == b"x":
                    return int(_NUMBER.unpack_from(data, 1)[0])
                if data[:1] == b"f" and len(data) > 5:  # it gave up by itself, and has ended the container
                    self.reason = StepFailed(_WHAT[data[5:6]], _NUMBER.unpack_from(data, 1)[0])
                    return 0
        except (StepFailed, StartTimeout) as err:
            self.reason = self._last_word() or (err if isinstance(err, StepFailed) else None)
            # it does not answer, or is dead already and its container without a parent
            for fd in (self.container_pidfd, self.pidfd):
                if fd >= 0:
                    lib.mc_pidfd_send_signal(fd, 9, 0)
            return 0
        finally:
            self._forget()

    def _last_word(self) -> StepFailed | None:
        """Why the monitor gave up, if it had the time to say so before it left."""
        assert self._control is not None
        try:
            while _is_readable(self._control.fileno(), 0):
                data, _ = receive(self._control, 16, 0)
                if data[:1] == b"f" and len(data) > 5:
                    return StepFailed(_WHAT[data[5:6]], _NUMBER.unpack_from(data, 1)[0])
                if not data:
                    break
        except OSError:
            pass
        return None

    def _close(self) -> None:
        if self._committed:
            self._forget()
        else:
            self._open = True
            self.abort()

    def _forget(self) -> None:
        if self._control is not None:
            shut(self._control.detach())
        for name in ("pidfd", "container_pidfd"):
            fd = getattr(self, name)
            setattr(self, name, -1)
            if fd >= 0:
                shut(fd)

    def _send(self, kind: bytes, *fds: int) -> None:
        assert self._control is not None, "spawn first"
        try:
            send(self._control, kind, fds)
        except OSError as err:
            raise self._gone(err.errno or ECONNRESET) from err

    def _receive(self, timeout: float, n_fds: int) -> tuple[bytes, list[int]]:
        """One message. Raises StepFailed when the monitor is gone, StartTimeout beyond TIMEOUT seconds."""
        assert self._control is not None, "spawn first"
        if not _is_readable(self._control.fileno(), timeout):
            raise StartTimeout("the monitor's answer", timeout)
        try:
            data, fds = receive(self._control, 16, n_fds)
        except OSError as err:
            raise self._gone(err.errno or ECONNRESET) from err
        if not data or (data[:1] == b"p" and not fds):
            raise self._gone(ECONNRESET)
        return data, fds

    @staticmethod
    def _gone(number: int) -> StepFailed:
        return StepFailed("talk to the monitor", number, cure="it was killed, or out of memory")

    def _text(self, text: str | bytes) -> int:
        """The offset of a NUL-terminated text."""
        offset = _SIZE + len(self._texts)
        self._texts += (text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text) + b"\0"
        return offset

    def _packed(self, words: Sequence[str]) -> int:
        """The offset of WORDS with room for the array of pointers that execve(2) wants in front."""
        self._texts += bytes(-(_SIZE + len(self._texts)) % 8)
        offset = _SIZE + len(self._texts)
        self._texts += bytes(8 * (len(words) + 1))
        for word in words:
            self._text(word)
        return offset


def _is_readable(fd: int, timeout: float) -> bool:
    """Whether FD has something, or ended, within TIMEOUT seconds."""
    if fd < 0:
        return False
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(max(timeout, 0) * 1000))


def _spawn(memory: int, listed: list[int], title: bytes) -> tuple[int, int]:
    """A process that is nobody's child, with the LISTED descriptors: the monitor's (pid, pidfd)."""
    request = ffi.new("struct mc_spawn *")
    request.stub_fd, request.region_fd, request.name = sealed_monitor(), memory, title
    result = lib.mc_spawn_detached(request, listed, len(listed))
    if result < 0:
        raise StepFailed("clone3 of the monitor", -result)
    if request.exec_error:
        shut(request.pidfd)
        raise not_executed(request.exec_error)
    return request.pid, request.pidfd


def listening_socket(directory: int, name: str = "attach") -> int:
    """A socket for a monitor's clients, bound to NAME in DIRECTORY, a descriptor. Mode 0600. unix(7).

    By descriptor, for a path may not be longer than 107 bytes. Raises StepFailed: EADDRINUSE when NAME is there.
    """
    try:
        made = unbound()
        try:
            os.fchmod(made.fileno(), 0o600)  # the mode that bind gives the file
            made.bind(f"/proc/self/fd/{directory}/{name}")
            made.listen(int(lib.MC_MAX_CLIENTS))
            return made.detach()
        finally:
            made.close()
    except OSError as err:
        raise StepFailed(f"listen on {name}", err.errno or 0) from err


class Exit(Value):
    """An exit record.

    ``status``: the raw wait status; ``maxrss`` in KiB; ``utime`` and ``stime`` in us; ``finished``: CLOCK_REALTIME, ns;
    ``elapsed``: ns since the program was started; ``lost``: bytes of output that could not be logged.
    """

    status: int
    maxrss: int
    utime: int
    stime: int
    finished: int
    elapsed: int
    lost: int = 0


def blank_exit(directory: int, name: str = "exit") -> int:
    """The file of an exit record to come, its bytes already on the disk: a descriptor. Raises StepFailed."""
    try:
        fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600, dir_fd=directory)
    except OSError as err:
        raise StepFailed(f"create {name}", err.errno or 0) from err
    try:
        os.write(fd, b" " * (EXIT_SIZE - 1) + b"\n")
    except OSError as err:
        shut(fd)
        raise StepFailed(f"write {name}", err.errno or 0) from err
    return fd


def read_exit(data: bytes) -> Exit | None:
    """The exit record in DATA, a file's content; None while there is none. ValueError for what is neither."""
    words = data.decode("ascii", "replace").split()
    if not words:
        return None
    if words[:2] != ["minictr-exit", "1"]:
        raise ValueError("not an exit record of version 1")
    pairs = dict(word.split("=", 1) for word in words[2:] if "=" in word)
    try:
        return Exit(**{name: int(pairs[name]) for name in Exit._fields if name in pairs or name != "lost"})
    except KeyError as err:
        raise ValueError(f"an exit record without {err.args[0]}") from None
