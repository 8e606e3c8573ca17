"""A tree being filled, reached by file descriptors only.

Every path is walked component by component with ``openat(O_NOFOLLOW|O_DIRECTORY)`` from the root's own fd, so that a
symbolic link, whoever put it there, is never followed and nothing outside the root can be named. This is what
openat2(2) with RESOLVE_BENEATH|RESOLVE_NO_SYMLINKS does, with an answer that tells which component was the link.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING

from minictr.errors import SpecError, StepFailed, Unsupported
from minictr.images.staging import DIRECTORY, explain
from minictr.values import Value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Self

    Parts = tuple[str, ...]

MAX_DEPTH = 256  # each open directory on the way is an fd; PATH_MAX allows 2,048 components, no root needs them
SETID = stat.S_ISUID | stat.S_ISGID
NO_CURES: Mapping[int, str] = {}


class Meta(Value):
    """What an inode has besides its content: numeric owner, permission bits, time in nanoseconds, attributes."""

    mode: int
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    xattrs: tuple[tuple[str, bytes], ...] = ()


def split(path: str) -> Parts:
    """The components of a path taken from the root of the tree. Raises SpecError for ``..``, NUL, too deep a path."""
    parts = tuple(part for part in path.split("/") if part not in ("", "."))
    if ".." in parts:
        raise SpecError(f"{path!r} leads upwards ('..')")
    if "\0" in path:
        raise SpecError(f"{path!r} has a NUL byte in it")
    if len(parts) > MAX_DEPTH:
        raise SpecError(f"{path[:60]!r}... is {len(parts)} directories deep, more than {MAX_DEPTH}")
    return parts


class Tree:
    """The tree under ``fd``, which stays the caller's. Use as a context manager: it keeps directories open.

    ``owners``: whether numeric owners are applied. Without, set-user-ID and set-group-ID bits are dropped as well: they
    would give the caller's rights away.

    Methods raise SpecError for a path that passes through something that is no directory, StepFailed for the kernel's
    refusals.
    """

    OWNER_CURE = "--no-same-owner leaves all files yours"

    def __init__(self, fd: int, *, owners: bool = True) -> None:
        self._root, self._owners = fd, owners
        self._open: list[tuple[str, int]] = []  # the way to the directory used last
        self._directories: dict[Parts, Meta] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._forget(0)

    def _forget(self, depth: int) -> None:
        while len(self._open) > depth:
            os.close(self._open.pop()[1])

    def _walk(self, parts: Parts, make: bool) -> int:
        """The fd of a directory. With ``make``, missing ones are made (0755, root's) as tar does."""
        common = 0
        while common < min(len(parts), len(self._open)) and self._open[common][0] == parts[common]:
            common += 1
        self._forget(common)
        fd = self._open[-1][1] if self._open else self._root
        for index in range(common, len(parts)):
            try:
                below = os.open(parts[index], DIRECTORY, dir_fd=fd)
            except OSError as error:
                if error.errno in (errno.ENOTDIR, errno.ELOOP):
                    raise self._in_the_way(fd, parts, index) from None
                if error.errno != errno.ENOENT or not make:
                    raise explain(error, f"open {show(parts[: index + 1])}") from error
                below = self._mkdir(fd, parts[: index + 1])
                self._made(parts[: index + 1])
            self._open.append((parts[index], below))
            fd = below
        return fd

    @staticmethod
    def _in_the_way(fd: int, parts: Parts, index: int) -> SpecError:
        kind = os.stat(parts[index], dir_fd=fd, follow_symlinks=False).st_mode
        what = "a symbolic link" if stat.S_ISLNK(kind) else "not a directory"
        return SpecError(f"{show(parts)}: the way to it leads through {show(parts[: index + 1])}, which is {what}")

    def _mkdir(self, fd: int, parts: Parts) -> int:
        try:
            os.mkdir(parts[-1], 0o700, dir_fd=fd)
            below = os.open(parts[-1], DIRECTORY, dir_fd=fd)
            os.fchmod(below, 0o755)  # fchmod: mkdir's mode is cut by the umask
        except OSError as error:
            raise explain(error, f"make directory {show(parts)}") from error
        return below

    def _made(self, parts: Parts) -> None:
        """A directory that nobody named was made on the way to one that somebody did."""

    def _place(self, parts: Parts) -> tuple[int, str]:
        """The fd of the directory that PARTS goes into, and the name to make it under, which is free: later wins."""
        if not parts:
            raise SpecError("the root itself can only be a directory")
        fd = self._walk(parts[:-1], make=True)
        try:
            if stat.S_ISDIR(os.stat(parts[-1], dir_fd=fd, follow_symlinks=False).st_mode):
                os.rmdir(parts[-1], dir_fd=fd)
                self._directories.pop(parts, None)
            else:
                os.unlink(parts[-1], dir_fd=fd)
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno == errno.ENOTEMPTY:
                raise SpecError(f"{show(parts)} would replace a directory that is not empty") from None
            raise explain(error, f"replace {show(parts)}") from error
        return fd, parts[-1]

    def _publish(self, parent: int, name: str, parts: Parts, fd: int = -1) -> None:
        """What was made as NAME (FD, if it is a regular file) gets its own name. Here it has it from the beginning."""

    def _discard(self, parent: int, name: str) -> None:
        """What was begun as NAME is given up. Here the whole tree is, by whoever fills it."""

    def exists(self, parts: Parts) -> bool:
        """Whether something is there, reached without a link."""
        try:
            fd = self._walk(parts[:-1], make=False)
            if parts:
                os.stat(parts[-1], dir_fd=fd, follow_symlinks=False)
        except (OSError, SpecError):
            return False
        return True

    def directory(self, parts: Parts, meta: Meta) -> None:
        """A directory; its metadata is applied by :meth:`finish`, when nothing is put into it any more."""
        if parts:
            fd = self._walk(parts[:-1], make=True)
            try:
                kind = os.stat(parts[-1], dir_fd=fd, follow_symlinks=False).st_mode
            except FileNotFoundError:
                kind = 0
            if not stat.S_ISDIR(kind):
                os.close(self._mkdir(self._place(parts)[0] if kind else fd, parts))
        self._directories[parts] = meta

    def file(self, parts: Parts, meta: Meta, write: Callable[[int], None]) -> None:
        """A regular file; ``write`` is given its fd to fill."""
        parent, name = self._place(parts)
        try:
            fd = self._create(parent, name)
        except OSError as error:
            raise explain(error, f"create {show(parts)}") from error
        with self._or_discard(parent, name, f"write {show(parts)}"):
            try:
                write(fd)
                self._apply(fd, parts, meta)
                os.utime(fd, ns=(meta.mtime_ns, meta.mtime_ns))
                self._publish(parent, name, parts, fd)
            finally:
                os.close(fd)

    def _create(self, parent: int, name: str) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(name, flags, 0o600, dir_fd=parent)

    @contextlib.contextmanager
    def _or_discard(self, parent: int, name: str, what: str, cures: Mapping[int, str] = NO_CURES) -> Iterator[None]:
        """What was begun as NAME is finished, or given up. The kernel's refusals become StepFailed of WHAT."""
        try:
            yield
        except BaseException as error:
            self._discard(parent, name)
            if isinstance(error, OSError) and not isinstance(error, StepFailed):
                raise explain(error, what, cures.get(error.errno or 0, "")) from error
            raise

    def symlink(self, parts: Parts, target: str, meta: Meta) -> None:
        """A symbolic link with any target: it is never followed while the tree is filled."""
        parent, name = self._place(parts)
        with self._or_discard(parent, name, f"link {show(parts)} to {target!r}"):
            os.symlink(target, name, dir_fd=parent)
            self._special(parent, name, parts, meta, stat.S_IFLNK)
            self._publish(parent, name, parts)

    def hardlink(self, parts: Parts, source: Parts) -> None:
        """One more name for what ``source`` names. Raises SpecError when there is no such file yet."""
        if parts == source:
            return
        what = f"hard link {show(parts)} to {show(source)}"
        if not self.exists(source):
            raise SpecError(f"{what}: there is no such file earlier in the archive")
        parent = self._walk(source[:-1], make=False)
        if not source or stat.S_ISDIR(os.stat(source[-1], dir_fd=parent, follow_symlinks=False).st_mode):
            raise SpecError(f"{what}: that is a directory")
        held = os.dup(parent)  # _place walks elsewhere
        try:
            place, name = self._place(parts)
            with self._or_discard(place, name, what):
                os.link(source[-1], name, src_dir_fd=held, dst_dir_fd=place, follow_symlinks=False)
                self._publish(place, name, parts)
        finally:
            os.close(held)

    def node(self, parts: Parts, kind: int, device: int, meta: Meta) -> None:
        """A fifo or a device node; ``kind`` is S_IFIFO, S_IFCHR or S_IFBLK (inode(7)), ``device`` as os.makedev."""
        parent, name = self._place(parts)
        cures = {errno.EPERM: "devices need root outside of any user namespace"}
        with self._or_discard(parent, name, f"make node {show(parts)}", cures):
            os.mknod(name, kind | 0o600, device, dir_fd=parent)
            self._special(parent, name, parts, meta, kind)
            self._publish(parent, name, parts)

    def _special(self, parent: int, name: str, parts: Parts, meta: Meta, kind: int) -> None:
        """Metadata of what cannot be opened without following it or waking a driver: through an O_PATH fd, which is
        looked at first, as in a directory of somebody else's something else may have taken the name."""
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            if stat.S_IFMT(os.fstat(fd).st_mode) != kind:
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
            path = f"/proc/self/fd/{fd}"
            if self._owners:
                os.chown(path, meta.uid, meta.gid)
            meta = meta.replace(mode=meta.mode & ~SETID)  # which mean nothing here
            self._apply(fd, parts, meta, path=path, chmod=kind != stat.S_IFLNK)
            os.utime(path, ns=(meta.mtime_ns, meta.mtime_ns))
        finally:
            os.close(fd)

    def _apply(self, fd: int, parts: Parts, meta: Meta, *, path: str = "", chmod: bool = True) -> None:
        """Owner first: chown(2) clears set-ID bits and security.capability. Then attributes, then the mode."""
        if self._owners and not path:
            try:
                os.fchown(fd, meta.uid, meta.gid)
            except OSError as error:
                what = f"give {show(parts)} to {meta.uid}:{meta.gid}"
                raise explain(error, what, self.OWNER_CURE) from error
        for name, value in meta.xattrs:
            self._set_xattr(path or fd, parts, name, value)
        if chmod:
            os.chmod(path or fd, meta.mode & (0o7777 if self._owners else 0o7777 & ~SETID))

    def _set_xattr(self, inode: int | str, parts: Parts, name: str, value: bytes) -> None:
        try:
            os.setxattr(inode, name, value)
        except OSError as error:
            if error.errno == errno.ENOTSUP:
                cure = "choose a target on another file system"
                raise Unsupported(
                    "xattrs", f"{name} of {show(parts)} cannot be kept on this file system", cure
                ) from error
            raise explain(error, f"set attribute {name} of {show(parts)}") from error

    def finish(self) -> None:
        """Apply the metadata of directories, deepest first; a later entry in the way of one has already removed it."""
        for parts in sorted(self._directories, key=len, reverse=True):
            meta = self._directories[parts]
            fd = self._walk(parts, make=False)
            try:
                self._apply(fd, parts, meta)
                os.utime(fd, ns=(meta.mtime_ns, meta.mtime_ns))
            except StepFailed:
                raise
            except OSError as error:
                raise explain(error, f"set mode and owner of {show(parts)}") from error
        self._directories.clear()


def show(parts: Parts) -> str:
    """A path of the tree for a message: quoted, control characters escaped, absolute inside the tree."""
    return repr("/" + "/".join(parts))


def data_extents(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """(offset, length) of the parts of an open file that hold data, by SEEK_DATA and SEEK_HOLE (lseek(2))."""
    at = 0
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole to the end
                return
            raise
        at = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        if start < at:
            yield start, at - start
