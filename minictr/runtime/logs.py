"""The log of a detached container, across rotations: what ``_core/monitor_log.c`` writes.

A log is pieces of output in the order they came: ``(time_ns, stream, data)``, CLOCK_REALTIME. A piece that ends a line
ends with a newline; one that does not was all there was of the line then, and the rest of it follows as the stream's
next piece. So the data of a stream, one after another, is what the program wrote, byte by byte. The stream "minictr"
is the monitor's own: how much could not be logged.
"""

from __future__ import annotations

import fcntl
import os
import select

from minictr.errors import StepFailed
from minictr.kernel.core import check, lib
from minictr.kernel.monitor import EXIT_SIZE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    Piece = tuple[int, str, bytes]

__all__ = ["read"]

BLOCK = 65536
STAMP = 30  # bytes of "2026-11-24T07:55:28.123456789Z"
# linux/inotify.h: modified, moved to, created, deleted; and of the directory itself
_CHANGES = 0x2 | 0x80 | 0x100 | 0x200 | 0x400
LOOK_AGAIN = 1000  # ms: a monitor that was killed changes no file


def read(
    directory: str,
    *,
    since: int | None = None,
    until: int | None = None,
    tail: int | None = None,
    follow: bool = False,
) -> Iterator[Piece]:
    """Pieces of the log of the container whose state is in DIRECTORY.

    ``since``, ``until``: CLOCK_REALTIME in ns, both included. ``tail``: the last so many lines. ``follow``: go on until
    the container has ended. Raises StepFailed: ENOENT when there is no such container, or it has no log.
    """
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as err:
        raise StepFailed(f"open {directory}", err.errno or 0) from err
    log = _Log(fd)
    try:
        for piece in log.pieces(tail, follow):
            if until is not None and piece[0] > until:
                if piece[1] != "minictr":
                    return
            elif since is None or piece[0] >= since:
                yield piece
    finally:
        log.close()


class _Log:
    """The files of one log, from the oldest; each is open while it is read, so that a rotation takes none away."""

    def __init__(self, directory: int) -> None:
        self.directory, self._inotify = directory, -1
        self._files: list[_File] = []

    def close(self) -> None:
        for fd in (*(file.fd for file in self._files), self.directory, self._inotify):
            if fd >= 0:
                os.close(fd)
        self._files = []

    def pieces(self, tail: int | None, follow: bool) -> Iterator[Piece]:
        if follow:
            self._watch()
        self._files = self._all()
        if not self._files:
            raise StepFailed("open log", 2, cure="the container has no log")
        if tail is not None:
            self._go_to_tail(tail)
        while True:
            over = not follow or self._is_over()  # first: what is read afterwards is all there is
            yield from self._rest()
            if over:
                break
            self._sleep()
        yield from self._files[-1].remainder()

    def _rest(self) -> Iterator[Piece]:
        """All pieces from where we are to the end of the newest file."""
        while True:
            yield from self._files[0].pieces()
            self._files += self._newer(self._files[-1])
            if len(self._files) == 1:
                return
            # it was renamed, and is written no more: once again to its end
            done = self._files.pop(0)
            try:
                yield from done.pieces()
                yield from done.remainder()
            finally:
                os.close(done.fd)

    def _all(self) -> list[_File]:
        """Every file, the oldest first. Opened from the newest on: one that a rotation moves meanwhile is seen twice,
        and known by its inode."""
        found: list[_File] = []
        number = missing = 0
        while missing < 2:  # between two renames of a rotation one number is free for a moment
            try:
                fd = os.open(f"log.{number}" if number else "log", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.directory)
            except FileNotFoundError:
                missing += 1
            else:
                missing, file = 0, _File(fd)
                if any(other.inode == file.inode for other in found):
                    os.close(fd)
                else:
                    found.append(file)
            number += 1
        return found[::-1]

    def _newer(self, last: _File) -> list[_File]:
        """The files after LAST; all, where it is gone. None while it is the newest."""
        try:
            stat = os.stat("log", dir_fd=self.directory)
            if (stat.st_dev, stat.st_ino) == last.inode:
                return []
        except FileNotFoundError:
            return []
        found = self._all()
        place = next((place for place, file in enumerate(found) if file.inode == last.inode), -1)
        for file in found[: place + 1]:
            os.close(file.fd)
        return found[place + 1 :]

    def _go_to_tail(self, lines: int) -> None:
        """Forget what is before the last LINES lines; what follows the last whole one counts as one."""
        left, is_last = lines, True
        for place in range(len(self._files) - 1, -1, -1):
            file = self._files[place]
            for end, ends_line in file.backwards():
                if left <= 0 and (ends_line or lines <= 0):
                    os.lseek(file.fd, end, os.SEEK_SET)
                    for older in self._files[:place]:
                        os.close(older.fd)
                    del self._files[:place]
                    return
                left -= ends_line or is_last
                is_last = False

    def _is_over(self) -> bool:
        """Whether nothing more is written: there is an exit record, or nobody holds the container's locks."""
        try:
            fd = os.open("exit", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.directory)
        except FileNotFoundError:
            return True  # removed
        try:
            if os.read(fd, EXIT_SIZE).strip():
                return True
        finally:
            os.close(fd)
        return not any(self._is_held(name) for name in (".", "lock"))

    def _is_held(self, name: str) -> bool:
        """Whether somebody has the lock of NAME: "." is the owner's, "lock" that of who changes the container."""
        try:
            fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.directory)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    def _watch(self) -> None:
        """One watch for all: inotify(7) of a directory tells of what is in it."""
        flags = os.O_NONBLOCK | os.O_CLOEXEC  # IN_NONBLOCK, IN_CLOEXEC
        self._inotify = check(lib.mc_inotify_init1(flags), "inotify_init1", "raise fs.inotify.max_user_instances")
        path = f"/proc/self/fd/{self.directory}".encode()
        check(lib.mc_inotify_add_watch(self._inotify, path, _CHANGES), "inotify_add_watch of the state directory")

    def _sleep(self) -> None:
        poll = select.poll()
        poll.register(self._inotify, select.POLLIN)
        poll.poll(LOOK_AGAIN)
        try:
            os.read(self._inotify, BLOCK)
        except BlockingIOError:
            pass


class _File:
    """One file, read once from where it is. Entries that are none are passed over."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        stat = os.fstat(fd)
        self.inode = stat.st_dev, stat.st_ino
        self._size, self._rest = stat.st_size, b""
        self._second = b"", 0  # the last one seen, and its nanoseconds

    def pieces(self) -> Iterator[Piece]:
        """What is there by now, to the last whole entry."""
        while block := os.read(self.fd, BLOCK):
            *entries, self._rest = (self._rest + block).split(b"\n")
            for entry in entries:
                piece = self._piece(entry, b"\n")
                if piece is not None:
                    yield piece

    def remainder(self) -> Iterator[Piece]:
        """The last entry, where its end is missing: a monitor was killed, or is just writing it."""
        piece, self._rest = self._piece(self._rest, b""), b""
        if piece is not None and piece[2]:
            yield piece

    def _piece(self, entry: bytes, end: bytes) -> Piece | None:
        words = entry[STAMP:].split(b" ", 3)
        if len(words) != 4 or words[0] or words[2] not in (b"F", b"P"):
            return None
        try:
            time = self._time(entry)
        except ValueError:
            return None
        data = words[3]
        return time, words[1].decode("ascii", "replace"), data + end if words[2] == b"F" else data

    def _time(self, entry: bytes) -> int:
        second = entry[:19]
        if second != self._second[0]:
            self._second = second, _seconds(second) * 1_000_000_000
        return self._second[1] + int(entry[20:29])

    def backwards(self) -> Iterator[tuple[int, bool]]:
        """(where it ends, whether a line ends with it) of each entry, the last one first."""
        start, end, rest = self._size, self._size, b""
        while start > 0:
            before, start = start, max(0, start - BLOCK)
            entries = (os.pread(self.fd, before - start, start) + rest).split(b"\n")
            for place in range(len(entries) - 1, 0 if start else -1, -1):
                entry, has_end = entries[place], place < len(entries) - 1
                if entry or has_end:
                    yield end, has_end and entry[STAMP:].split(b" ", 3)[2:3] == [b"F"]
                end -= len(entry) + has_end
            rest = entries[0] + b"\n" if len(entries) > 1 else entries[0]


def _seconds(text: bytes) -> int:
    """Of the epoch, for ``2026-11-24T07:55:28`` in UTC: calendar.timegm without its imports."""
    year, month, day = int(text[:4]), int(text[5:7]), int(text[8:10])
    year -= month <= 2
    of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    days = 365 * year + year // 4 - year // 100 + year // 400 + of_year - 719468
    return ((days * 24 + int(text[11:13])) * 60 + int(text[14:16])) * 60 + int(text[17:19])
