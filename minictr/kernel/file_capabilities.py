"""What files give to whoever executes them: file capabilities, set-user-ID and set-group-ID bits. capabilities(7).

:func:`parse` reads an attribute, :func:`get` that of one file, :func:`privileged_files` those of a whole tree. That may
be hostile, and change meanwhile: each name is opened by itself, from the descriptor of its directory, with
RESOLVE_NO_XDEV and RESOLVE_NO_SYMLINKS (openat2(2), Linux 5.6). No link is followed, no mount is entered, nothing that
is neither a directory nor a regular file is touched.
"""

from __future__ import annotations

import os
import stat
import struct
import time

from minictr.errors import SpecError, StepFailed
from minictr.kernel.capabilities import names
from minictr.kernel.core import lib
from minictr.kernel.handles import shut
from minictr.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from os import _ScandirIterator

    Entries = _ScandirIterator[str]

__all__ = ["FileCapabilities", "Listing", "PrivilegedFile", "get", "parse", "privileged_files"]

ATTRIBUTE = "security.capability"
# linux/capability.h: VFS_CAP_REVISION_MASK, VFS_CAP_REVISION_*, VFS_CAP_FLAGS_EFFECTIVE
REVISION_MASK, EFFECTIVE = 0xFF000000, 0x1
REVISION_2, REVISION_3 = 0x02000000, 0x03000000
REVISIONS = {0x01000000: 1, REVISION_2: 2, REVISION_3: 3}
SIZES = {1: 12, 2: 20, 3: 24}  # XATTR_CAPS_SZ_*
RESOLVE = 0x01 | 0x02 | 0x04  # RESOLVE_NO_XDEV | NO_MAGICLINKS | NO_SYMLINKS, linux/openat2.h
PINNED = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
ENOENT, EXDEV, ENOTDIR, EINVAL, ELOOP, ENODATA, ENOTSUP = 2, 18, 20, 22, 40, 61, 95
MAX_DEPTH = 256  # each directory on the way is a descriptor
MOUNT = "something is mounted there"
PATIENCE = 60.0  # seconds


class FileCapabilities(Value):
    """A security.capability attribute, struct vfs_ns_cap_data of linux/capability.h.

    ``permitted``, ``inheritable``: names in the kernel's order; ``effective``: whether they are effective at once.
    ``rootid`` (revision 3, Linux 4.14): the user who must be 0 in the user namespace of who executes the file, or in
    one above it, counted as the reader counts; 0 for older revisions.
    """

    permitted: tuple[str, ...]
    inheritable: tuple[str, ...] = ()
    effective: bool = False
    revision: int = 2
    rootid: int = 0

    def __str__(self) -> str:
        """As ``getcap -n`` has it: ``cap_net_raw=ep``, ``cap_kill=ei [rootid=1000]``."""
        groups: dict[str, list[str]] = {}
        for name in dict.fromkeys((*self.permitted, *self.inheritable)):
            letters = ("e", self.effective), ("i", name in self.inheritable), ("p", name in self.permitted)
            word = name.lower() if name.startswith("cap_") else f"cap_{name.lower()}"
            groups.setdefault("".join(letter for letter, has in letters if has), []).append(word)
        text = " ".join(f"{','.join(words)}={flags}" for flags, words in groups.items()) or "="
        return text + (f" [rootid={self.rootid}]" if self.rootid else "")


def parse(data: bytes) -> FileCapabilities:
    """The attribute's content as the kernel reads it at execve. SpecError for what it refuses there with EINVAL.

    >>> str(parse(bytes.fromhex("0100000200200000000000000000000000000000")))
    'cap_net_raw=ep'
    """
    if len(data) < 4:
        raise SpecError(f"file capabilities: {len(data)} bytes are too few for a revision")
    (magic,) = struct.unpack_from("<I", data)
    revision = REVISIONS.get(magic & REVISION_MASK)
    if revision is None:
        raise SpecError(f"file capabilities: revision {magic & REVISION_MASK:#x} is not known to linux/capability.h")
    if len(data) != SIZES[revision]:
        raise SpecError(f"file capabilities: revision {revision} has {SIZES[revision]} bytes, not {len(data)}")
    pairs = 1 if revision == 1 else 2
    words = struct.unpack_from(f"<{2 * pairs}I", data, 4)
    permitted, inheritable = (sum(word << 32 * place for place, word in enumerate(words[first::2])) for first in (0, 1))
    (rootid,) = struct.unpack_from("<I", data, 20) if revision == 3 else (0,)
    return FileCapabilities(names(permitted), names(inheritable), bool(magic & EFFECTIVE), revision, rootid)


def get(file: str | int) -> FileCapabilities | None:
    """Those of FILE, a path whose last link is not followed, or any descriptor. None: it has none.

    Raises StepFailed, SpecError for a malformed attribute.
    """
    data = _attribute(file)
    return None if data is None else parse(data)


def _attribute(file: str | int) -> bytes | None:
    # the *xattr calls refuse O_PATH descriptors (EBADF)
    path = f"/proc/self/fd/{file}" if isinstance(file, int) else file
    try:
        return os.getxattr(path, ATTRIBUTE, follow_symlinks=isinstance(file, int))
    except OSError as err:
        if err.errno in (ENODATA, ENOTSUP):
            return None
        if err.errno == EINVAL:  # what execve then says too; an empty one can be written
            raise SpecError("file capabilities: the kernel cannot make sense of the attribute") from err
        raise StepFailed(f"read {ATTRIBUTE} of {path}", err.errno or 0) from err


class PrivilegedFile(Value):
    """A regular file that gives something. ``path``: absolute in its root. ``uid``, ``gid``: whose it is, as the reader
    counts.

    ``capabilities``: None without. ``setuid``, ``setgid``: whether it has that bit; that of the group counts where the
    group may execute. ``malformed``: why its attribute is none.
    """

    path: str
    uid: int
    gid: int
    capabilities: FileCapabilities | None = None
    setuid: bool = False
    setgid: bool = False
    malformed: str = ""


class Listing(Value):
    """``files``: sorted by path; a file of several names is there under each. ``left_out``: (path, why) of what was not
    looked at. ``complete``: these are mounts only. ``looked_at``: how many names were."""

    files: tuple[PrivilegedFile, ...]
    left_out: tuple[tuple[str, str], ...]
    looked_at: int

    @property
    def complete(self) -> bool:
        return all(why == MOUNT for _, why in self.left_out)


def privileged_files(
    root: str | int, *, timeout: float = PATIENCE, progress: Callable[[int, str], None] | None = None
) -> Listing:
    """Every file below ROOT (a directory's path, or a descriptor, which stays the caller's) that gives privilege.

    What is mounted below is left out, and so is what is deeper than 256 directories, cannot be read, or would come
    after TIMEOUT seconds: ``left_out`` names it. ``progress`` is called with (names so far, directory). Raises
    StepFailed for ROOT itself. Linux 5.6.

    >>> for file in privileged_files("/srv/debian").files: print(file.path, file.capabilities)
    """
    try:
        top = os.open(".", DIRECTORY, dir_fd=root) if isinstance(root, int) else os.open(root, DIRECTORY)
    except OSError as err:
        raise StepFailed(f"open the root {root}", err.errno or 0) from err
    search = _Search(time.monotonic() + timeout, progress)
    search.tree(top)
    return Listing(
        tuple(sorted(search.files, key=lambda file: file.path)), tuple(sorted(search.left_out)), search.looked_at
    )


class _Search:
    def __init__(self, deadline: float, progress: Callable[[int, str], None] | None) -> None:
        self._deadline, self._progress = deadline, progress
        self._way: list[tuple[int, str, Entries]] = []
        self.files: list[PrivilegedFile] = []
        self.left_out: list[tuple[str, str]] = []
        self.looked_at = 0

    def tree(self, top: int) -> None:
        """All below TOP, which is closed. Not by calling itself: the depth is the tree's, and that is a stranger's."""
        try:
            self._enter(top, "")
            while self._way:
                fd, above, entries = self._way[-1]
                entry = self._next(entries, above)
                if entry is None:
                    self._leave()
                    continue
                self.looked_at += 1
                path = f"{above}/{entry.name}"
                if time.monotonic() > self._deadline:
                    self.left_out.append((path, "time was over: neither this nor what comes after it"))
                    return
                self._one(fd, entry, path)
        finally:
            while self._way:
                self._leave()

    def _enter(self, fd: int, path: str) -> None:
        if self._progress is not None:
            self._progress(self.looked_at, path or "/")
        try:
            entries = os.scandir(fd)
        except OSError as err:
            shut(fd)
            self._left_out(path or "/", err)
        else:
            self._way.append((fd, path, entries))

    def _leave(self) -> None:
        fd, _, entries = self._way.pop()
        entries.close()
        shut(fd)

    def _next(self, entries: Entries, path: str) -> os.DirEntry[str] | None:
        try:
            return next(entries, None)
        except OSError as err:
            self._left_out(path or "/", err)
            return None

    def _left_out(self, path: str, err: OSError) -> None:
        self.left_out.append((path, os.strerror(err.errno or 0)))

    def _one(self, fd: int, entry: os.DirEntry[str], path: str) -> None:
        """One name. Its kind as the directory tells it (d_type) spares opening links, devices and sockets."""
        directory = entry.is_dir(follow_symlinks=False)
        if not directory and not entry.is_file(follow_symlinks=False):
            return
        if directory and len(self._way) >= MAX_DEPTH:
            self.left_out.append((path, f"deeper than {MAX_DEPTH} directories"))
            return
        flags = DIRECTORY if directory else PINNED
        found = int(lib.mc_openat2(fd, os.fsencode(entry.name), flags, 0, RESOLVE))
        if found < 0:
            if found not in (-ENOENT, -ENOTDIR, -ELOOP):  # another thing has its name by now, or nothing
                self.left_out.append((path, MOUNT if found == -EXDEV else os.strerror(-found)))
        elif directory:
            self._enter(found, path)
        else:
            try:
                self._file(found, path)
            except OSError as err:
                self._left_out(path, err)
            finally:
                shut(found)

    def _file(self, fd: int, path: str) -> None:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            return
        capabilities, malformed = None, ""
        try:
            capabilities = get(fd)
        except SpecError as err:
            malformed = str(err)
        setuid = bool(status.st_mode & stat.S_ISUID)
        both = stat.S_ISGID | stat.S_IXGRP  # without the second it was once mandatory locking, and gives nothing
        setgid = status.st_mode & both == both
        if capabilities is None and not malformed and not setuid and not setgid:
            return
        self.files.append(PrivilegedFile(path, status.st_uid, status.st_gid, capabilities, setuid, setgid, malformed))
