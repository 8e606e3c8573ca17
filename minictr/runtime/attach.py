"""A client of a detached container's monitor: see its output, type into it, start what is held, learn how it ended.

The protocol, one packet a message (docs/monitor.md): a -> k, then o, r and x come, and i, e, w, g go; s -> s with three
descriptors. Output from before the attach is in the log (``runtime/logs.py``).
"""

from __future__ import annotations

import os
import select
import struct

from minictr.errors import MinictrError, StartTimeout, StepFailed
from minictr.kernel import packets
from minictr.kernel.core import lib
from minictr.kernel.handles import Handle, shut
from minictr.kernel.monitor import CHUNK
from minictr.kernel.ops import OP, SIGNATURES, what_failed
from minictr.kernel.stub import HEADER_SIZE
from minictr.runtime.program import Outcome
from minictr.runtime.terminal import DETACH_KEYS, Detached, Peer, parse_detach_keys, tie, window_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable

    from minictr.spec import Spec
else:
    import _signal

TIMEOUT = 10.0
LAST_WORDS = 0.5  # seconds for what a monitor that has left can have said
STDIN, TERMINAL, HELD = int(lib.MC_ATTACH_STDIN), int(lib.MC_ATTACH_TERMINAL), int(lib.MC_ATTACH_HELD)
PROXIED = (_signal.SIGHUP, _signal.SIGINT, _signal.SIGQUIT, _signal.SIGTERM, _signal.SIGUSR1, _signal.SIGUSR2)
ECONNRESET, EPROTO = 104, 71
_NUMBER = struct.Struct("=i")
_STREAMS = {b"o": "stdout", b"r": "stderr"}
_ERRORS = {16: "the monitor serves 16 clients already", 114: "it has been started already"}


class Client(Handle):
    """A connection to the monitor of the container whose state is in DIRECTORY (a path or a descriptor).

    ``status``: the raw wait status once the container is over, else None. Raises StepFailed: ENOENT or ECONNREFUSED
    when no monitor listens, so the container is not running.
    """

    def __init__(self, directory: str | int, *, timeout: float = TIMEOUT) -> None:
        self.timeout, self.flags = timeout, 0
        self.status: int | None = None
        own = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) if isinstance(directory, str) else -1
        self._socket = packets.unbound()
        try:
            self._socket.settimeout(timeout)
            # by descriptor: a path in sockaddr_un may not be longer than 107 bytes
            self._socket.connect(f"/proc/self/fd/{directory if own < 0 else own}/attach")
        except OSError as err:
            self._socket.close()
            number = err.errno or ECONNRESET
            raise StepFailed("connect to the monitor", number, cure="the container is not running") from err
        finally:
            if own >= 0:
                shut(own)
        self._open = True

    def fileno(self) -> int:
        return self._socket.fileno()

    def _close(self) -> None:
        self._socket.close()

    def attach(self, *, stdin: bool = False) -> int:
        """Get the output from now on, and with ``stdin`` give input: flags TERMINAL (it has one), STDIN (its input is
        open), HELD (created and not started)."""
        answer = self._ask(bytes((ord("a"), STDIN if stdin else 0)), b"k")[0]
        self.flags = answer[1]
        return self.flags

    def take_hold(self) -> tuple[int, int, int]:
        """What starting a held container needs: report, region, hold; the caller closes them. Raises StepFailed:
        EALREADY when it has been started."""
        _, fds = self._ask(b"s", b"s")
        if len(fds) != 3:
            for fd in fds:
                shut(fd)
            raise StepFailed("take the held start", EPROTO)
        return fds[0], fds[1], fds[2]

    def signal(self, number: int) -> None:
        """Signal NUMBER to the container's first process, by the monitor: it can be no other process."""
        self._tell(b"g" + _NUMBER.pack(number))

    def resize(self, rows: int, columns: int) -> None:
        """The terminal's window size; programs inside get SIGWINCH."""
        self._tell(b"w" + struct.pack("=HH", min(rows, 65535), min(columns, 65535)))

    def send(self, data: bytes | memoryview) -> int:
        """Input, at most CHUNK bytes at once: how many were taken, 0 when it would wait."""
        part = bytes(data[:CHUNK])
        try:
            self._socket.send(b"i" + part, packets.DONTWAIT)
        except BlockingIOError:
            return 0
        except OSError:
            pass  # the monitor is gone: that is said where its output is read
        return len(part)

    def end_of_input(self) -> bool:
        """A pipe is closed for good; a terminal gets its end-of-file character. False when it would wait."""
        try:
            self._socket.send(b"e", packets.DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            pass
        return True

    def receive(self, timeout: float | None = None) -> tuple[str, bytes] | None:
        """("stdout" or "stderr", data), or None when the container is over: ``status`` then says how.

        Raises TimeoutError, and StepFailed when the monitor is gone without a word.
        """
        self._socket.settimeout(timeout)
        data, _ = self._packet(0)
        if data[:1] == b"x":
            self.status = int(_NUMBER.unpack_from(data, 1)[0])
            return None
        return _STREAMS.get(data[:1], ""), data[1:]

    def wait(self, timeout: float | None = None) -> int:
        """The raw wait status, once it is over; output that comes meanwhile is dropped. Raises as :meth:`receive`."""
        while self.status is None:
            self.receive(timeout)
        return self.status

    def _tell(self, packet: bytes) -> None:
        self._socket.settimeout(self.timeout)
        try:
            self._socket.send(packet)
        except OSError as err:
            raise self._gone(err.errno or ECONNRESET) from err

    def _ask(self, packet: bytes, kind: bytes) -> tuple[bytes, list[int]]:
        """The answer of that KIND."""
        self._socket.settimeout(self.timeout)
        left = 0
        try:
            self._socket.send(packet)
        except ConnectionError as err:
            left = err.errno or ECONNRESET  # it left a moment ago: why is in what it said last, and that is here
            self._socket.settimeout(min(self.timeout, LAST_WORDS))
        except OSError as err:
            raise self._gone(err.errno or ECONNRESET) from err
        try:
            data, fds = self._packet(3)
        except TimeoutError:
            if left:
                raise self._gone(left) from None
            raise StartTimeout("the monitor's answer", self.timeout) from None
        if data[:1] == b"f":
            number = _NUMBER.unpack_from(data, 1)[0]
            raise StepFailed("ask the monitor", number, cure=_ERRORS.get(number, ""))
        if data[:1] == b"x":
            self.status = int(_NUMBER.unpack_from(data, 1)[0])
            raise StepFailed("ask the monitor", ECONNRESET, cure="the container has ended this moment")
        if data[:1] != kind:
            raise StepFailed("ask the monitor", EPROTO, cure=f"answered with {data[:1]!r}")
        return data, fds

    def _packet(self, n_fds: int) -> tuple[bytes, list[int]]:
        for is_last in (False, True):
            try:
                data, fds = packets.receive(self._socket, CHUNK + 1, n_fds)
            except TimeoutError:
                raise
            except ConnectionResetError as err:
                # told once, of an end that had not read all of ours; its last words come after that
                if is_last:
                    raise self._gone(ECONNRESET) from err
            except OSError as err:
                raise self._gone(err.errno or ECONNRESET) from err
            else:
                break
        if not data:
            raise self._gone(ECONNRESET)
        return data, fds

    @staticmethod
    def _gone(number: int) -> StepFailed:
        cure = "it was killed, or dropped a client that did not read for 10 seconds"
        return StepFailed("the monitor closed the connection", number, cure=cure)


class _Attached(Peer):
    """The monitor at the other end."""

    def __init__(self, client: Client, proxy: bool) -> None:
        self.client, self.proxy, self.input = client, proxy, client.fileno()

    def waits(self) -> tuple[int, ...]:
        return (self.input,)

    def take(self, fd: int, show: Callable[[str, bytes], None]) -> bool:
        packet = self.client.receive()
        if packet is None:
            return False
        if packet[0]:
            show(*packet)
        return True

    def send(self, data: memoryview) -> int:
        return self.client.send(data)

    def end_of_input(self) -> bool:
        return self.client.end_of_input()

    def resize(self, terminal: int, *, redraw: bool = False) -> None:
        size = window_size(terminal)
        if size is None:
            return
        rows, columns = struct.unpack_from("HH", size)
        if redraw:  # a change that is none tells nobody: as docker does
            self.client.resize(rows + 1, columns)
        self.client.resize(rows, columns)

    def signal(self, number: int) -> None:
        if not self.proxy:
            raise Detached
        self.client.signal(number)


def attach(
    client: Client,
    stdin: int = 0,
    stdout: int = 1,
    stderr: int = 2,
    *,
    keys: str = DETACH_KEYS,
    sig_proxy: bool = True,
    begin: Callable[[], None] | None = None,
) -> int | None:
    """Tie the caller's streams to a container: its raw wait status when it is over, None when KEYS were typed.

    STDIN -1: output only. A terminal at STDIN is in raw mode meanwhile if the container has one too; then KEYS detach.
    ``sig_proxy``: SIGHUP, INT, QUIT, TERM, USR1 and USR2 to this process go on to the container; without it they
    detach. Input that ends closes the container's. BEGIN is called once nothing of its output can be missed.

    Raises SpecError for KEYS; StepFailed when the monitor is gone.
    """
    sequence = parse_detach_keys(keys)
    flags = client.attach(stdin=stdin >= 0)
    if begin is not None:
        begin()
    is_terminal = bool(flags & TERMINAL)
    typed = stdin if flags & STDIN else -1
    over = tie(
        _Attached(client, sig_proxy),
        typed,
        stdout,
        stderr,
        raw=is_terminal,
        keys=sequence if is_terminal and typed >= 0 and os.isatty(typed) else b"",
        signals=PROXIED,
        redraw=True,
    )
    return client.status if over else None


def start(
    client: Client, *, spec: Spec | None = None, timeout: float = TIMEOUT, before: Callable[[], None] | None = None
) -> None:
    """The second half of a two-phase start: returns when the program runs.

    BEFORE is called when nothing is left to do but to let the program run. SPEC makes a program that cannot run a
    CommandNotFound or CommandNotExecutable with its reason. Raises StepFailed (EALREADY when it has been started),
    StartTimeout.
    """
    report, region, hold = client.take_hold()
    try:
        if before is not None:
            before()
        try:
            os.write(hold, b"g")
        except BrokenPipeError:
            pass  # it is dead already: the region tells of what
        poll = select.poll()
        poll.register(report, 0)  # its end: execve closed it, or the child died
        if not poll.poll(max(timeout, 0) * 1000):
            raise StartTimeout("hold", timeout)
        size = os.fstat(region).st_size
        _judge(os.pread(region, size, 0), spec)
    finally:
        for fd in (report, region, hold):
            shut(fd)


def _judge(data: bytes, spec: Spec | None) -> None:
    """What the REGION of a start says of its end."""
    outcome = Outcome(data)
    if outcome.state == lib.MC_STATE_EXEC:
        return
    (
        kind,
        *_,
    ) = OP.unpack_from(data, HEADER_SIZE + outcome.current * OP.size)
    call = tuple(SIGNATURES)[kind]
    if outcome.state == lib.MC_STATE_RUNNING:
        raise StepFailed(f"{call}: killed", 0, cure="out of memory, or killed from outside")
    if call == "exec" and spec is not None:
        raise _not_executed(data, outcome, spec)
    from minictr.runtime.diagnose import CURES

    cure = CURES.get((call, outcome.error), "")
    raise StepFailed(what_failed(call, outcome.failed_nr, ""), outcome.error, cure=cure)


def _not_executed(data: bytes, outcome: Outcome, spec: Spec) -> MinictrError:
    from minictr.kernel.core import ffi
    from minictr.runtime.diagnose import exec_failed

    fields = OP.unpack_from(data, HEADER_SIZE + outcome.current * OP.size)
    numbers, texts = fields[5:11], fields[11:15]
    blob = ffi.from_buffer("struct mc_region *", data).blob_offset
    packed = data[blob + texts[2] :].split(b"\0", numbers[2])[: numbers[2]]
    return exec_failed(spec, tuple(map(os.fsdecode, packed)), outcome.error, 0, 0)
