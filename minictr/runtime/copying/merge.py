"""Writing into a tree that is there already and may be somebody else's: a container's, while it runs.

:class:`minictr.images.tree.Tree` follows no link; this adds what a living tree needs. A file is written without a name
and gets its own when it is whole, so that nobody ever sees half of it and a failure leaves what was there. What is a
directory already keeps its owner and its mode.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat

from minictr.errors import SpecError, StepFailed, Unsupported
from minictr.images.staging import DIRECTORY, MARK, explain
from minictr.images.tree import Meta, Tree, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from minictr.images.tree import Parts
    from minictr.runtime.copying.walk import Notes

# open(2): O_TMPFILE is refused by file systems without it (EOPNOTSUPP), and by kernels of long ago (EISDIR)
NO_TMPFILE = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT)


class Merge(Tree):
    """The tree under ``fd`` (the caller's), into which something is copied.

    ``rule`` turns the metadata that is asked for into what is applied. ``root``: owner of directories that an archive
    needs and does not name. ``notes`` takes what could not be kept.
    """

    OWNER_CURE = "only root gives files away"

    def __init__(
        self, fd: int, *, notes: Notes, root: tuple[int, int], rule: Callable[[Meta], Meta] = lambda meta: meta
    ) -> None:
        super().__init__(fd, owners=True)
        self._notes, self._rule, self._ids = notes, rule, root
        self._nameless = -1

    # --- directories ---

    def directory(self, parts: Parts, meta: Meta) -> None:
        if not parts:
            return
        fd = self._walk(parts[:-1], make=True)
        try:
            kind = stat.S_IFMT(os.stat(parts[-1], dir_fd=fd, follow_symlinks=False).st_mode)
        except FileNotFoundError:
            os.close(self._mkdir(fd, parts))
            self._directories[parts] = self._rule(meta)
            return
        except OSError as err:
            raise explain(err, f"look at {show(parts)}") from err
        if kind != stat.S_IFDIR:
            raise SpecError(f"{show(parts)} is there and is no directory: it is not replaced by one")
        if parts in self._directories:  # made by this very copy
            self._directories[parts] = self._rule(meta)

    def _mkdir(self, fd: int, parts: Parts) -> int:
        """0700 until everything is in it: its files may count on it."""
        try:
            os.mkdir(parts[-1], 0o700, dir_fd=fd)
            return os.open(parts[-1], DIRECTORY, dir_fd=fd)
        except OSError as err:
            raise explain(err, f"make directory {show(parts)}") from err

    def _made(self, parts: Parts) -> None:
        self._directories[parts] = Meta(0o755, *self._ids)

    def _set_xattr(self, inode: int | str, parts: Parts, name: str, value: bytes) -> None:
        """What the file system, or an ordinary user, cannot keep is told at the end: the copy is no less useful."""
        try:
            super()._set_xattr(inode, parts, name, value)
        except Unsupported:
            self._notes.add(f"attribute {name} left out, which cannot be kept there", parts)
        except StepFailed as err:
            if err.errno != errno.EPERM:
                raise
            self._notes.add(f"attribute {name} left out, which only root can set", parts)

    # --- everything else is made under another name ---

    def file(self, parts: Parts, meta: Meta, write: Callable[[int], None]) -> None:
        super().file(parts, self._rule(meta), write)

    def symlink(self, parts: Parts, target: str, meta: Meta) -> None:
        super().symlink(parts, target, self._rule(meta))

    def hardlink(self, parts: Parts, source: Parts, _meta: Meta | None = None) -> None:
        super().hardlink(parts, source)

    def node(self, parts: Parts, kind: int, device: int, meta: Meta) -> None:
        super().node(parts, kind, device, self._rule(meta))

    def _place(self, parts: Parts) -> tuple[int, str]:
        if not parts:
            raise SpecError("only a directory can be put in the place of a directory")
        return self._walk(parts[:-1], make=True), f"{MARK}{secrets.token_hex(8)}"

    def _create(self, parent: int, name: str) -> int:
        self._nameless = -1
        try:
            self._nameless = os.open(".", os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600, dir_fd=parent)
        except OSError as err:
            if err.errno not in NO_TMPFILE:
                raise
            return super()._create(parent, name)
        return self._nameless

    def _publish(self, parent: int, name: str, parts: Parts, fd: int = -1) -> None:
        try:
            if fd >= 0 and fd == self._nameless:
                try:
                    os.link(f"/proc/self/fd/{fd}", parts[-1], dst_dir_fd=parent)
                    return
                except FileExistsError:
                    os.link(f"/proc/self/fd/{fd}", name, dst_dir_fd=parent)
            os.rename(name, parts[-1], src_dir_fd=parent, dst_dir_fd=parent)
            if fd < 0:  # renaming one name of an inode to another of the same does nothing: rename(2)
                self._discard(parent, name)
        except OSError as err:
            if err.errno in (errno.EISDIR, errno.ENOTEMPTY, errno.EEXIST):
                raise SpecError(f"{show(parts)} is a directory: it is not replaced by a file") from err
            cure = "a file is mounted there: write to that one" if err.errno == errno.EBUSY else ""
            raise explain(err, f"put {show(parts)} in its place", cure) from err

    def _discard(self, parent: int, name: str) -> None:
        try:
            os.unlink(name, dir_fd=parent)
        except OSError:
            pass
