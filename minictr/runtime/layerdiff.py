"""What changed in a container's layer, read off the upper directory of its overlay. overlayfs.rst, "whiteouts".

The kernel keeps: a whole copy of every file that was written to; a whiteout (character device 0:0, or since Linux 6.7
an empty file with the attribute ``whiteout``) for a name that was removed; the attribute ``opaque`` on a directory
under which nothing of the layers below is seen; with redirect_dir, ``redirect`` on a directory that was renamed.
"""

from __future__ import annotations

import os
import stat

from minictr.errors import SpecError, StepFailed
from minictr.features.names import PLACES
from minictr.images.staging import DIRECTORY
from minictr.images.tree import MAX_DEPTH, show, split
from minictr.runtime.copying.roots import merged_root
from minictr.runtime.copying.walk import PINNED, read_xattrs
from minictr.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from minictr.images.tree import Parts

__all__ = ["ADDED", "CHANGED", "DELETED", "Change", "Marks", "changes"]

ADDED, CHANGED, DELETED = "A", "C", "D"
NO_DIRECTORY = -1
USER_MARKS = "user.overlay."


class Change(Value):
    """``kind``: "A" added, "C" changed, "D" deleted, as ``docker diff`` says it. ``path``: absolute, inside."""

    kind: str
    path: str

    def __str__(self) -> str:
        return f"{self.kind} {self.path}"


def is_place(parts: Parts, found: os.stat_result) -> bool:
    """Whether that may be the empty file that a start made for one of its own to lie over: no change of the program's,
    if no layer below has it."""
    return parts in PLACES and stat.S_ISREG(found.st_mode) and not found.st_size


class Marks:
    """The attributes of overlayfs: ``trusted.overlay.*``, or ``user.overlay.*`` where it was mounted in a user
    namespace (``userxattr``, Linux 5.11).

    Only one of the two counts, as the other may be written by any program of the container. "" is what this process
    would have mounted with.
    """

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix or ("trusted.overlay." if os.geteuid() == 0 else USER_MARKS)

    def get(self, fd: int, name: str) -> bytes | None:
        """The value of one, of an O_PATH descriptor; None without it."""
        full = self.prefix + name
        return next((value for _, value in read_xattrs(fd, full.__eq__)), None)

    def whiteout(self, fd: int, found: os.stat_result) -> bool:
        """Whether it says that a name was removed."""
        if stat.S_ISCHR(found.st_mode):
            return found.st_rdev == 0
        return stat.S_ISREG(found.st_mode) and found.st_size == 0 and self.get(fd, "whiteout") is not None

    def opaque(self, fd: int) -> bool:
        """Whether nothing of the layers below is seen in a directory. "x" says only that it has whiteouts of files."""
        return self.get(fd, "opaque") == b"y"

    def redirect(self, fd: int) -> str:
        """Where in the layers below a renamed directory was: absolute, or another name in the same directory; ""."""
        return os.fsdecode(self.get(fd, "redirect") or b"")


def changes(upper: int | str, lowers: Sequence[str], *, prefix: str = "") -> Iterator[Change]:
    """What UPPER (a path, or a descriptor that stays the caller's) changed of LOWERS, topmost first; sorted by path.

    A directory that has changes in it is "C", as docker says it. ``prefix``: see :class:`Marks`. Raises StepFailed;
    EPERM for an ordinary user with more than one lower layer.
    """
    top = upper if isinstance(upper, int) else merged_root([upper], readonly=False)
    try:
        below = merged_root(lowers, readonly=False)
        try:
            difference = _Difference(Marks(prefix), below)
            difference.directory(top, below, (), hidden=False)
        finally:
            os.close(below)
    finally:
        if top != upper:
            os.close(top)
    yield from sorted(difference.rows, key=lambda change: change.path)


class _Difference:
    """Descends both trees at once. A directory that is not there is NO_DIRECTORY."""

    def __init__(self, marks: Marks, below: int) -> None:
        self._marks, self._below = marks, below
        self.rows: list[Change] = []

    def _add(self, kind: str, parts: Parts) -> None:
        self.rows.append(Change(kind, "/" + "/".join(parts)))

    def directory(self, upper: int, lower: int, parts: Parts, *, hidden: bool) -> None:
        """UPPER over LOWER; HIDDEN: what is only in LOWER is not seen any more."""
        for name, fd in _children(upper, parts):
            self._child(fd, lower, (*parts, name), hidden)
        if hidden and lower >= 0:
            for name, fd in _children(lower, parts):
                if not _exists(upper, name) and not self._marks.whiteout(fd, os.fstat(fd)):
                    self._add(DELETED, (*parts, name))

    def _child(self, fd: int, lower: int, parts: Parts, hidden: bool) -> None:
        found = os.fstat(fd)
        old = _open(lower, parts[-1])
        try:
            was = os.fstat(old) if old >= 0 else None
            if self._marks.whiteout(fd, found):
                if was is not None:
                    self._add(DELETED, parts)
            elif not stat.S_ISDIR(found.st_mode):
                if was is None and is_place(parts, found):
                    return
                self._add(ADDED if was is None else CHANGED, parts)
            elif redirect := self._marks.redirect(fd):
                self._add(ADDED, parts)
                self._renamed(fd, lower, redirect, parts)
            elif was is None or not stat.S_ISDIR(was.st_mode):
                self._add(ADDED if was is None else CHANGED, parts)
                self.directory(fd, NO_DIRECTORY, parts, hidden=False)
            else:
                before = len(self.rows)
                self.directory(fd, old, parts, hidden=hidden or self._marks.opaque(fd))
                if len(self.rows) > before or _told(found) != _told(was):
                    self._add(CHANGED, parts)
        finally:
            if old >= 0:
                os.close(old)

    def _renamed(self, fd: int, lower: int, redirect: str, parts: Parts) -> None:
        source = _descend(self._below, split(redirect)) if redirect.startswith("/") else _open(lower, redirect)
        try:
            self._added(fd, source, parts)
        finally:
            if source >= 0:
                os.close(source)

    def _added(self, upper: int, lower: int, parts: Parts) -> None:
        """All of two directories under one new name."""
        for name, fd in _children(upper, parts):
            found = os.fstat(fd)
            if self._marks.whiteout(fd, found):
                continue
            self._add(ADDED, (*parts, name))
            if stat.S_ISDIR(found.st_mode):
                seen = not self._marks.opaque(fd)
                old = _open(lower, self._marks.redirect(fd) or name) if seen else NO_DIRECTORY
                try:
                    self._added(fd, old, (*parts, name))
                finally:
                    if old >= 0:
                        os.close(old)
        for name, fd in _children(lower, parts):
            if not _exists(upper, name):
                self._add(ADDED, (*parts, name))
                self._added(NO_DIRECTORY, fd, (*parts, name))


def _told(found: os.stat_result) -> tuple[int, ...]:
    """What of a directory counts as a change. Its size is another one on another file system."""
    return found.st_mode, found.st_uid, found.st_gid, found.st_mtime_ns


def _children(directory: int, parts: Parts) -> Iterator[tuple[str, int]]:
    """(name, O_PATH descriptor) of what is in a directory, one at a time; nothing of what is none."""
    if directory < 0 or not stat.S_ISDIR(os.fstat(directory).st_mode):
        return
    if len(parts) >= MAX_DEPTH:
        raise SpecError(f"{show(parts)[:60]}... is more than {MAX_DEPTH} directories deep")
    try:
        listing = os.open(".", DIRECTORY, dir_fd=directory)
    except OSError as err:
        raise StepFailed(f"read directory {show(parts)} of a layer", err.errno or 0) from err
    try:
        for name in sorted(os.listdir(listing)):
            fd = _open(listing, name)
            if fd < 0:  # it was removed meanwhile
                continue
            try:
                yield name, fd
            finally:
                os.close(fd)
    finally:
        os.close(listing)


def _open(directory: int, name: str) -> int:
    """An O_PATH descriptor of NAME, links not followed; NO_DIRECTORY when there is none."""
    if directory < 0:
        return NO_DIRECTORY
    try:
        return os.open(name, PINNED, dir_fd=directory)
    except (FileNotFoundError, NotADirectoryError):
        return NO_DIRECTORY


def _exists(directory: int, name: str) -> bool:
    fd = _open(directory, name)
    if fd >= 0:
        os.close(fd)
    return fd >= 0


def _descend(directory: int, parts: Parts) -> int:
    fd = os.open(".", PINNED, dir_fd=directory)
    for name in parts:
        below = _open(fd, name)
        os.close(fd)
        fd = below
    return fd
