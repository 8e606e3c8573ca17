"""Reading a tree by descriptors: what is in it, in order, each entry pinned while it is looked at.

Each name is opened by itself with O_PATH|O_NOFOLLOW in the descriptor of its directory, and everything else (kind,
attributes, content) is asked of that descriptor. So whoever changes the tree meanwhile can make us read other files of
*his*, and nothing else: no link is followed, no fifo or device is opened, no name is looked up twice.
"""

from __future__ import annotations

import os
import stat

from minictr.errors import SpecError, StepFailed
from minictr.images.staging import DIRECTORY
from minictr.images.tarball import KEPT_XATTRS
from minictr.images.tree import MAX_DEPTH, data_extents, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from minictr.images.tree import Parts

CHUNK = 1 << 20
PINNED = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
ENOENT, EINVAL, ENXIO, ESTALE, ENODATA, ENOTSUP = 2, 22, 6, 116, 61, 95
UNTOLD_MAX = 16 << 20  # bytes read of a file that says it is empty: those of procfs do, and are not
SHOWN = 3


class Notes:
    """What was left out or changed, for one line each at the end."""

    def __init__(self) -> None:
        self._rows: dict[str, list[str]] = {}

    def add(self, what: str, parts: Parts) -> None:
        self._rows.setdefault(what, []).append(show(parts))

    def lines(self) -> tuple[str, ...]:
        return tuple(
            f"{what}: {len(paths)} ({', '.join(paths[:SHOWN])}{', ...' if len(paths) > SHOWN else ''})"
            for what, paths in self._rows.items()
        )


class Entry:
    """One thing of a tree. ``fd``: its O_PATH descriptor, open until the next entry is asked for.

    ``parts``: its path in the copy. ``first``: the path of an earlier entry that is the same inode (a hard link), or
    None.
    """

    def __init__(self, fd: int, parts: Parts, first: Parts | None, keep: Callable[[str], object]) -> None:
        self.fd, self.parts, self.first = fd, parts, first
        self.stat = os.fstat(fd)
        self._keep = keep
        self._xattrs: tuple[tuple[str, bytes], ...] | None = None

    @property
    def kind(self) -> int:
        return stat.S_IFMT(self.stat.st_mode)

    @property
    def target(self) -> str:
        """Where a symbolic link leads."""
        return os.readlink("", dir_fd=self.fd)

    @property
    def xattrs(self) -> tuple[tuple[str, bytes], ...]:
        """The attributes that are kept, of a file or a directory."""
        if self._xattrs is None:
            wanted = self.kind in (stat.S_IFREG, stat.S_IFDIR)
            self._xattrs = tuple(read_xattrs(self.fd, self._keep)) if wanted else ()
        return self._xattrs


def read_xattrs(fd: int, keep: Callable[[str], object]) -> Iterator[tuple[str, bytes]]:
    """(name, value) of the attributes of an O_PATH descriptor that KEEP says yes to."""
    path = f"/proc/self/fd/{fd}"  # the *xattr calls refuse O_PATH descriptors (EBADF)
    try:
        names = os.listxattr(path)
    except OSError as err:
        if err.errno == ENOTSUP:
            return
        raise
    for name in filter(keep, names):
        try:
            yield name, os.getxattr(path, name)
        except OSError as err:
            if err.errno != ENODATA:  # gone meanwhile
                raise


class Content:
    """The bytes of a regular file, as many as there were when it was opened: a file that grows never ends.

    Calling it with a descriptor writes them there, holes left out. ``size`` in bytes.
    """

    def __init__(self, entry: Entry, notes: Notes, progress: Callable[[int], None]) -> None:
        self._parts, self._notes, self._progress = entry.parts, notes, progress
        self._fd = os.open(f"/proc/self/fd/{entry.fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        self._untold = b""
        try:
            self.size = os.fstat(self._fd).st_size
            if self.size == 0:
                self._untold = self._read_untold()
                self.size = len(self._untold)
        except BaseException:
            os.close(self._fd)
            raise

    def __enter__(self) -> Content:
        return self

    def __exit__(self, *_exc: object) -> None:
        os.close(self._fd)

    def _read_untold(self) -> bytes:
        found = bytearray()
        while len(found) < UNTOLD_MAX:
            try:
                data = os.read(self._fd, min(CHUNK, UNTOLD_MAX - len(found)))
            except BlockingIOError:  # a stream, as kmsg: there is no more at the moment
                break
            if not data:
                break
            found += data
        return bytes(found)

    def extents(self) -> list[tuple[int, int]]:
        """(offset, length) of the parts that are no holes."""
        if self._untold:
            return [(0, self.size)]
        try:
            return list(data_extents(self._fd, self.size))
        except OSError as err:
            if err.errno not in (EINVAL, ENXIO, ENOTSUP):  # ENXIO: it shrank
                raise
            return [(0, self.size)] if self.size else []

    def read(self, offset: int, length: int) -> bytes:
        """LENGTH bytes at OFFSET; zeros for what is no longer there."""
        data = self._untold[offset : offset + length] if self._untold else os.pread(self._fd, length, offset)
        while len(data) < length:
            more = b"" if self._untold else os.pread(self._fd, length - len(data), offset + len(data))
            if not more:
                self._notes.add("shrank while they were copied, and are filled up with zeros", self._parts)
                data += bytes(length - len(data))
            data += more
        self._progress(length)
        return data

    def chunks(self) -> Iterator[tuple[int, bytes]]:
        """(offset, bytes) of all data."""
        for start, length in self.extents():
            for offset in range(start, start + length, CHUNK):
                yield offset, self.read(offset, min(CHUNK, start + length - offset))

    def __call__(self, fd: int) -> None:
        for offset, data in self.chunks():
            done = 0
            while done < len(data):
                done += os.pwrite(fd, data[done:], offset + done)
        os.ftruncate(fd, self.size)  # the hole at the end


class Walk:
    """Walks of trees that together make one copy: hard links are found across all of them.

    ``skip``: (device, inode) of directories that are not entered. ``stay``: leave out what is mounted in the tree.
    ``keep``: which extended attributes are of interest.
    """

    def __init__(
        self,
        notes: Notes,
        *,
        skip: frozenset[tuple[int, int]] = frozenset(),
        stay: bool = False,
        keep: Callable[[str], object] = KEPT_XATTRS.fullmatch,
    ) -> None:
        self._notes, self._skip, self._stay, self._keep = notes, skip, stay, keep
        self._seen: dict[tuple[int, int], Parts] = {}
        self._mount = -1

    def tree(self, fd: int, parts: Parts) -> Generator[Entry, None, None]:
        """What FD (O_PATH, the caller's) is and, of a directory, all below it; its path in the copy is PARTS."""
        if self._stay and self._mount < 0:
            self._mount = _mount_id(fd)
        entry = self._entry(fd, parts)
        yield entry
        if entry.kind == stat.S_IFDIR and (not self._stay or _mount_id(fd) == self._mount):
            yield from self._below(fd, parts, entry.stat.st_dev)

    def _entry(self, fd: int, parts: Parts) -> Entry:
        entry = Entry(fd, parts, None, self._keep)
        if entry.stat.st_nlink > 1 and entry.kind != stat.S_IFDIR:
            identity = (entry.stat.st_dev, entry.stat.st_ino)
            entry.first = self._seen.get(identity)
            if entry.first is None:
                self._seen[identity] = parts
        return entry

    def _below(self, fd: int, parts: Parts, device: int) -> Generator[Entry, None, None]:
        if len(parts) >= MAX_DEPTH:
            raise SpecError(f"{show(parts)[:60]}... is more than {MAX_DEPTH} directories deep")
        try:
            listing = os.open(".", DIRECTORY, dir_fd=fd)
        except OSError as err:
            raise StepFailed(f"read directory {show(parts)}", err.errno or 0) from err
        try:
            for name in sorted(os.listdir(listing)):
                try:
                    child = os.open(name, PINNED, dir_fd=listing)
                except FileNotFoundError:
                    self._notes.add("vanished while they were copied", (*parts, name))
                    continue
                except OSError as err:
                    raise StepFailed(f"open {show((*parts, name))}", err.errno or 0) from err
                try:
                    if not self._left_out(child, (*parts, name), device):
                        yield from self.tree(child, (*parts, name))
                finally:
                    os.close(child)
        finally:
            os.close(listing)

    def _left_out(self, fd: int, parts: Parts, device: int) -> bool:
        found = os.fstat(fd)
        if not stat.S_ISDIR(found.st_mode):
            other = self._stay and _mount_id(fd) != self._mount
            if other:
                self._notes.add("mounted files left out", parts)
            return other
        if (found.st_dev, found.st_ino) in self._skip:
            self._notes.add("left out, as the copy goes there", parts)
            return True
        # procfs, sysfs and their kin, where files have no end and no owner: their file systems have no blocks at all.
        if found.st_dev != device and not self._stay and os.fstatvfs(fd).f_blocks == 0:
            self._notes.add("file systems of the kernel left out", parts)
            return True
        return False


def _mount_id(fd: int) -> int:
    from minictr.kernel.trees import mount_id

    return mount_id(fd)
