"""The caller's terminal, tied to a container: raw mode, window size, signals, detach keys, and the loop that copies.

Who is at the other end is a :class:`Peer`: the pty of a container that this process started (``runtime/console.py``),
or the monitor of a detached one (``runtime/attach.py``).
"""

from __future__ import annotations

import fcntl
import os
import select
import termios

from minictr.errors import SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable, Iterable
    from typing import Any
else:
    import _signal  # the C half of signal, whose Python half imports enum

CHUNK = 16384
DETACH_KEYS = "ctrl-p,ctrl-q"  # docker's
_CONTROL = "@abcdefghijklmnopqrstuvwxyz[\\]^_"  # ctrl-X is the place of X


class Peer:
    """The container's end, as the loop sees it. ``input``: the descriptor that becomes writable for more input."""

    input = -1

    def waits(self) -> Iterable[int]:
        """Descriptors that become readable when :meth:`take` has something to do."""
        raise NotImplementedError

    def take(self, fd: int, show: Callable[[str, bytes], None]) -> bool:
        """FD is readable: ``show("stdout", data)`` what there is. False when the container is over."""
        raise NotImplementedError

    def send(self, data: memoryview) -> int:
        """How many bytes of DATA were taken; never waits."""
        raise NotImplementedError

    def end_of_input(self) -> bool:
        """There will be no more. False when that could not be told yet."""
        raise NotImplementedError

    def resize(self, terminal: int, *, redraw: bool = False) -> None:
        """The window size of TERMINAL, a descriptor, becomes the container's. ``redraw``: though it is the same."""

    def signal(self, number: int) -> None:
        """Signal NUMBER came to this process."""


class DetachKeys:
    """Finds a sequence of keys in what is typed; its beginning is held back until it is clear what it is."""

    def __init__(self, keys: bytes) -> None:
        self.keys, self._held = keys, 0

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """(what is to be passed on, whether the sequence was typed): what follows the sequence is dropped."""
        if not self.keys:
            return data, False
        passed = bytearray()
        for byte in data:
            if byte != self.keys[self._held]:
                passed += self.keys[: self._held]
                self._held = 0
            if byte != self.keys[self._held]:
                passed.append(byte)
                continue
            self._held += 1
            if self._held == len(self.keys):
                self._held = 0
                return bytes(passed), True
        return bytes(passed), False


def parse_detach_keys(text: str) -> bytes:
    """``ctrl-p,ctrl-q``, ``a``, ``ctrl-]`` and so on, as docker writes them; "" is none. Raises SpecError.

    Each key is one character, ``ctrl-`` and one of ``a`` to ``z``, ``@``, ``[``, ``\\``, ``]``, ``^``, ``_``, or
    ``DEL``.
    """
    keys = bytearray()
    for key in text.split(",") if text else ():
        if len(key) == 1 and key.isascii():
            keys += key.encode()
        elif len(key) == 6 and key.startswith("ctrl-") and key[5] in _CONTROL:
            keys.append(_CONTROL.index(key[5]))
        elif key == "DEL":
            keys.append(127)
        else:
            raise SpecError(f"detach keys: {key!r} is not a character, ctrl- and a letter or one of @[\\]^_, or DEL")
    return bytes(keys)


def make_raw(terminal: int) -> list[Any]:
    """Put TERMINAL into raw mode as cfmakeraw(3) does; the attributes it had."""
    before = termios.tcgetattr(terminal)
    mode = [*before[:6], list(before[6])]
    mode[0] &= ~(
        termios.IGNBRK
        | termios.BRKINT
        | termios.PARMRK
        | termios.ISTRIP
        | termios.INLCR
        | termios.IGNCR
        | termios.ICRNL
        | termios.IXON
    )
    mode[1] &= ~termios.OPOST
    mode[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
    mode[2] = mode[2] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
    termios.tcsetattr(terminal, termios.TCSANOW, mode)
    return before


def window_size(terminal: int) -> bytes | None:
    """``struct winsize`` of TERMINAL, or None where it has none."""
    try:
        return fcntl.ioctl(terminal, termios.TIOCGWINSZ, bytes(8))
    except OSError:
        return None


class Bell:
    """A pipe that tells of signals. Only the main thread may handle them: elsewhere it stays silent."""

    def __init__(self, numbers: Iterable[int]) -> None:
        self.fd, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._before: list[tuple[int, Any]] = []
        try:
            self._before += ((number, _signal.signal(number, self._ring)) for number in numbers)
        except ValueError:
            pass

    def _ring(self, number: int, _frame: object) -> None:
        try:
            os.write(self._write, bytes([number]))
        except BlockingIOError:
            pass  # nobody has listened for thousands of signals

    def rung(self) -> bytes:
        """The signals that came, one byte each."""
        return os.read(self.fd, CHUNK)

    def close(self) -> None:
        for number, handler in self._before:
            if handler is not None:
                _signal.signal(number, handler)
        os.close(self.fd)
        os.close(self._write)


def tie(
    peer: Peer,
    stdin: int = 0,
    stdout: int = 1,
    stderr: int = 2,
    *,
    raw: bool = True,
    keys: bytes = b"",
    signals: Iterable[int] = (),
    redraw: bool = False,
) -> bool:
    """Copy between the caller's streams and PEER until the container is over: True; or KEYS were typed: False.

    STDIN may be -1: nothing is typed. ``raw``: a terminal at STDIN is in raw mode meanwhile, and is put back whatever
    happens. SIGNALS that come are handed to the peer, which may raise :class:`Detached`. The window size is followed.
    """
    terminal = next((fd for fd in (stdin, stdout) if raw and fd >= 0 and os.isatty(fd)), -1)
    before = make_raw(stdin) if terminal >= 0 and terminal == stdin else None
    bell = Bell((*signals, *((_signal.SIGWINCH,) if terminal >= 0 else ())))
    try:
        if terminal >= 0:
            peer.resize(terminal, redraw=redraw)
        return _copy(peer, stdin, {"stdout": stdout, "stderr": stderr}, terminal, bell, DetachKeys(keys))
    except Detached:
        return False
    finally:
        bell.close()
        if before is not None:
            termios.tcsetattr(stdin, termios.TCSAFLUSH, before)


class Detached(Exception):
    """The caller's end is to be left, and the container to go on."""


def _copy(peer: Peer, stdin: int, outputs: dict[str, int], terminal: int, bell: Bell, keys: DetachKeys) -> bool:
    def show(stream: str, data: bytes) -> None:
        write_all(outputs[stream], data)

    unsent, typing, ending = memoryview(b""), stdin >= 0, False
    while True:
        poll = select.poll()
        waits = {bell.fd: select.POLLIN, **dict.fromkeys(peer.waits(), select.POLLIN)}
        if unsent or ending:  # no more is read before that is taken: the container decides how fast
            waits[peer.input] = waits.get(peer.input, 0) | select.POLLOUT
        elif typing:
            waits[stdin] = select.POLLIN
        for fd, events in waits.items():
            poll.register(fd, events)
        ready = dict(poll.poll())
        if bell.fd in ready:
            _rung(peer, terminal, bell.rung())
        for fd in tuple(peer.waits()):
            if ready.get(fd, 0) & ~select.POLLOUT and not peer.take(fd, show):
                return True
        if not unsent and typing and stdin in ready:
            data = _typed(stdin)
            passed, is_detached = keys.feed(data)
            unsent, typing, ending = memoryview(passed), bool(data), not data
            if is_detached:
                peer.send(unsent)
                return False
        if unsent:
            unsent = unsent[peer.send(unsent) :]
        elif ending:
            ending = not peer.end_of_input()


def _rung(peer: Peer, terminal: int, numbers: bytes) -> None:
    for number in numbers:
        if number == _signal.SIGWINCH:
            peer.resize(terminal)
        else:
            peer.signal(number)


def _typed(stdin: int) -> bytes:
    try:
        return os.read(stdin, CHUNK)
    except OSError:  # EIO: the terminal is gone
        return b""


def write_all(fd: int, data: bytes) -> None:
    """All of DATA to FD, or as much as somebody takes: a reader that went away is the end of the output."""
    view = memoryview(data)
    while view and fd >= 0:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:  # standard streams may be shared with somebody who made them non-blocking
            select.select([], [fd], [])
        except OSError:
            return
