"""A selection of the host's files, with every symbolic link on the way to them."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from minictr.errors import SpecError
from minictr.images.tree import Meta, data_extents, split

if TYPE_CHECKING:
    from minictr.images.tree import Tree

KERNELS = ("/proc", "/sys", "/dev")
MAX_LINKS = 40  # MAXSYMLINKS, path_resolution(7)
COPIED_XATTRS = ("security.capability",)


class HostFiles:
    """Paths of this host to be copied: canonical path -> lstat. Directories on the way are in it, and so are links."""

    def __init__(self) -> None:
        self.entries: dict[str, os.stat_result] = {}
        self.notes: list[str] = []

    def __contains__(self, path: str) -> bool:
        """Whether PATH, followed up to its last component, is selected."""
        return os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path)) in self.entries

    def add(self, path: str) -> str:
        """Select PATH and all that leads to it; answers the real path.

        Walks as the kernel does, so that a chain of links is recreated link by link. Raises OSError (missing, a loop),
        SpecError for what cannot be copied.
        """
        todo, at, links = path.split("/")[::-1], "", 0
        while todo:
            name = todo.pop()
            if name in ("", "."):
                continue
            if name == "..":
                at = os.path.dirname(at).rstrip("/")
                continue
            here = f"{at}/{name}"
            if here in KERNELS:
                raise SpecError(f"{path}: what is in {here} belongs to the running kernel and is not copied")
            info = self.entries.get(here) or os.lstat(here)
            self.entries[here] = info
            if not stat.S_ISLNK(info.st_mode):
                at = here
                continue
            links += 1
            if links > MAX_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            target = os.readlink(here)
            todo += target.split("/")[::-1]
            if target.startswith("/"):
                at = ""
        if at:
            kind = self.entries[at].st_mode
            if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
                del self.entries[at]
                raise SpecError(f"{path} is neither a file nor a directory")
        return at or "/"

    def add_tree(self, path: str) -> list[str]:
        """Select PATH and everything below it on the same file system; answers its regular files.

        Links below are copied as they are and not followed. Sockets, fifos and devices are left out, with a note.
        """
        top = self.add(path)
        if not stat.S_ISDIR(self.entries[top].st_mode):
            return [top]
        files, todo, device = [], [top], self.entries[top].st_dev
        while todo:
            with os.scandir(todo.pop()) as entries:
                for entry in entries:
                    info = entry.stat(follow_symlinks=False)
                    if info.st_dev != device:
                        self.notes.append(f"{entry.path} is left out: another file system is mounted there")
                        continue
                    if stat.S_ISDIR(info.st_mode):
                        todo.append(entry.path)
                    elif stat.S_ISREG(info.st_mode):
                        files.append(entry.path)
                    elif not stat.S_ISLNK(info.st_mode):
                        self.notes.append(f"{entry.path} is left out: a socket, fifo or device")
                        continue
                    self.entries[entry.path] = info
        return files

    def copy(self, tree: Tree) -> tuple[int, int]:
        """Copy the selection; hard links among it stay hard links. Answers how many files, and their bytes."""
        files = size = 0
        inodes: dict[tuple[int, int], str] = {}
        for path in sorted(self.entries, key=lambda path: path.split("/")):
            info, parts = self.entries[path], split(path)
            if stat.S_ISDIR(info.st_mode):
                tree.directory(parts, _meta(info))
            elif stat.S_ISLNK(info.st_mode):
                tree.symlink(parts, os.readlink(path), _meta(info))
            elif (info.st_dev, info.st_ino) in inodes:
                tree.hardlink(parts, split(inodes[info.st_dev, info.st_ino]))
            else:
                if info.st_nlink > 1:
                    inodes[info.st_dev, info.st_ino] = path
                with open(path, "rb", buffering=0) as source:
                    tree.file(parts, _meta(info, path), lambda fd, source=source: copy_data(source.fileno(), fd))  # type: ignore[misc]
                files, size = files + 1, size + info.st_size
        return files, size


def _meta(info: os.stat_result, path: str = "") -> Meta:
    xattrs = []
    for name in COPIED_XATTRS if path else ():
        try:
            xattrs.append((name, os.getxattr(path, name)))
        except OSError:  # none, or a file system without any
            continue
    return Meta(stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid, info.st_mtime_ns, tuple(xattrs))


def copy_data(source: int, target: int) -> None:
    """Copy an open file, holes as holes, by copy_file_range(2) (a reflink where the file system can)."""
    size = os.fstat(source).st_size
    for start, length in data_extents(source, size):
        end = start + length
        while start < end:
            try:
                done = os.copy_file_range(source, target, end - start, start, start)
            except OSError as error:
                if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM):
                    raise
                done = os.pwrite(target, os.pread(source, min(end - start, 1 << 20), start), start)
            if done == 0:  # it was cut while we read it
                raise OSError(errno.EIO, "the file shrank while it was copied")
            start += done
    os.ftruncate(target, size)
