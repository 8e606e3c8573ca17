"""Standard streams: what a caller asked for, and feeding and reading pipes until they end."""

from __future__ import annotations

import os
import select
import time

from minictr.errors import SpecError, StepFailed, TimeoutExpired
from minictr.runtime.process import DEVNULL, PIPE, STDOUT, descriptors_cure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minictr.runtime.process import Process
    from minictr.runtime.undo import Undo

CHUNK = 65536


class Streams:
    """Descriptors for the program (``fds``) and our ends of the pipes (``ours``).

    STDIN, STDOUT and STDERR are None (inherit), a descriptor, a file object, PIPE, DEVNULL, or for stderr STDOUT.
    """

    def __init__(self, stdin: Any, stdout: Any, stderr: Any, closing: Undo) -> None:
        self.fds: dict[str, int] = {}
        self.ours: dict[str, int] = {}
        try:
            for number, (name, wanted) in enumerate((("stdin", stdin), ("stdout", stdout), ("stderr", stderr))):
                self.fds[name] = self._descriptor(number, name, wanted, closing)
        except OSError as err:
            self.close()
            raise StepFailed("open the standard streams", err.errno or 0, cure=descriptors_cure(err)) from err
        except BaseException:
            self.close()
            raise

    def _descriptor(self, number: int, name: str, wanted: Any, closing: Undo) -> int:
        if wanted is None:
            return number
        if wanted == PIPE:
            read, write = os.pipe()
            theirs, self.ours[name] = (read, write) if name == "stdin" else (write, read)
            closing.push(os.close, theirs)
            return theirs
        if wanted == DEVNULL:
            fd = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            closing.push(os.close, fd)
            return fd
        if wanted == STDOUT and name == "stderr":
            return self.fds["stdout"]
        if isinstance(wanted, int):
            return wanted
        if not hasattr(wanted, "fileno"):
            raise SpecError(f"{name}: {wanted!r} is not PIPE, DEVNULL, STDOUT (stderr alone), a descriptor or a file")
        return int(wanted.fileno())

    def hand_over(self, process: Process, text: bool, encoding: str | None, errors: str | None) -> None:
        """Our ends become the process's file objects."""
        if text:
            process.text = encoding or "utf-8", errors or "strict"
        for name in tuple(self.ours):
            fd, mode = self.ours.pop(name), "w" if name == "stdin" else "r"
            # the process owns the file objects, and open() closes the descriptor when it fails
            if process.text is not None:
                setattr(process, name, open(fd, mode, encoding=process.text[0], errors=process.text[1]))  # noqa: SIM115
            else:
                setattr(process, name, open(fd, mode + "b", -1 if name == "stdin" else 0))  # noqa: SIM115

    def close(self) -> None:
        """Nobody took our ends: the start failed."""
        for fd in self.ours.values():
            os.close(fd)
        self.ours = {}


def communicate(process: Process, data: bytes | None, timeout: float | None) -> tuple[bytes | None, bytes | None]:
    """See :meth:`Process.communicate`. Works on descriptors: text is the caller's matter."""
    deadline = None if timeout is None else time.monotonic() + timeout
    poll = select.poll()
    # a second call after a timeout goes on where the first one stopped
    rest, output = process.unsent or memoryview(data or b""), process.partial
    feeding = -1
    if process.stdin is not None and rest:
        feeding = process.stdin.fileno()
        os.set_blocking(feeding, False)
        poll.register(feeding, select.POLLOUT)
    elif process.stdin is not None:
        _close(process.stdin)
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            output.setdefault(stream.fileno(), [])
            poll.register(stream.fileno(), select.POLLIN)
    open_fds = set(output)
    while open_fds or feeding >= 0:
        left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
        ready = poll.poll(left)
        if not ready:
            process.unsent = rest
            raise TimeoutExpired(process.args, timeout or 0, *_so_far(process))
        for fd, _event in ready:
            if fd == feeding:
                rest, done = _feed(fd, rest)
                if done:
                    poll.unregister(fd)
                    _close(process.stdin)
                    feeding = -1
            elif not _drain(fd, output[fd]):
                poll.unregister(fd)
                open_fds.discard(fd)
    try:
        process.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
    except TimeoutExpired:
        raise TimeoutExpired(process.args, timeout or 0, *_so_far(process)) from None
    return _joined(process.stdout, output), _joined(process.stderr, output)


def remains(process: Process) -> tuple[bytes | None, bytes | None]:
    """What is in the pipes of a process that is gone. Not to their end: without a pid namespace a descendant may live
    on and hold them, and nobody knows for how long."""
    for stream in (process.stdout, process.stderr):
        if stream is None or stream.closed:
            continue
        fd = stream.fileno()
        os.set_blocking(fd, False)
        try:
            while _drain(fd, process.partial.setdefault(fd, [])):
                pass
        except BlockingIOError:
            pass  # empty, and held open by somebody
    if process.stdin is not None:
        _close(process.stdin)
    return _joined(process.stdout, process.partial), _joined(process.stderr, process.partial)


def _so_far(process: Process) -> tuple[bytes | None, bytes | None]:
    def joined(stream: Any) -> bytes | None:
        return None if stream is None else b"".join(process.partial.get(stream.fileno(), []))

    return joined(process.stdout), joined(process.stderr)


def _feed(fd: int, rest: memoryview) -> tuple[memoryview, bool]:
    try:
        rest = rest[os.write(fd, rest[:CHUNK]) :]
    except BlockingIOError:
        return rest, False
    except BrokenPipeError:
        return rest, True  # the program does not want the rest
    return rest, not rest


def _drain(fd: int, chunks: list[bytes]) -> bool:
    chunk = os.read(fd, CHUNK)
    chunks.append(chunk)
    return bool(chunk)


def _close(stream: Any) -> None:
    try:
        stream.close()
    except BrokenPipeError:
        pass


def _joined(stream: Any, output: dict[int, list[bytes]]) -> bytes | None:
    if stream is None:
        return None
    data = b"".join(output.get(stream.fileno(), []))
    stream.close()
    return data
