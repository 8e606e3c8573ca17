"""What SRC_PATH and DEST_PATH of a copy mean: the rules of ``docker container cp``, on descriptors.

https://docs.docker.com/reference/cli/docker/container/cp/ has the rules. A *side* is the host or the inside of a
container; each opens paths its own way, and from then on only descriptors are used.
"""

from __future__ import annotations

import errno
import os
import stat

from minictr.errors import SpecError, StepFailed
from minictr.kernel.core import lib
from minictr.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minictr.images.tree import Parts

RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS = 0x10, 0x02  # linux/openat2.h
MAX_LINKS = 40  # MAXSYMLINKS of the kernel
CURES = {
    errno.ENOENT: "it must be there",
    errno.EACCES: "only root, or the owner, may",
    errno.ELOOP: "a chain of links without end, or one of procfs, which are not followed",
}


class Host:
    """The host's own files, links followed as for any program."""

    def label(self, path: str) -> str:
        return path

    def open(self, path: str, flags: int) -> int:
        """A descriptor of PATH. Raises OSError."""
        return os.open(path, flags | os.O_CLOEXEC)

    def name(self, path: str) -> str:
        """The base name that PATH has: of a link its own, of ``..`` that of the directory."""
        return os.path.basename(os.path.abspath(path))


class Inside:
    """The files of a container whose root is ``fd``: links lead to places inside, magic links of procfs nowhere.

    ``name`` is the container's, for messages. Linux 5.6, openat2(2).
    """

    def __init__(self, fd: int, name: str) -> None:
        self.fd, self._container = fd, name

    def label(self, path: str) -> str:
        return f"{self._container}:{path}"

    def open(self, path: str, flags: int) -> int:
        resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
        fd = int(lib.mc_openat2(self.fd, os.fsencode(path or "/"), flags | os.O_CLOEXEC, 0, resolve))
        if fd < 0:
            raise OSError(-fd, os.strerror(-fd), path)
        return fd

    def name(self, path: str) -> str:
        return os.path.basename(os.path.normpath("/" + path))


Side = Host | Inside


class Source(Value):
    """What is copied. ``fd``: its O_PATH descriptor. ``name``: what it is called. ``contents``: only what is in it."""

    fd: int
    name: str
    contents: bool
    directory: bool


class Destination(Value):
    """Where it goes: below the directory ``fd``, as ``parts``; () means the directory itself is filled."""

    fd: int
    parts: Parts


def checked(path: str, what: str) -> str:
    """PATH, which has no NUL byte in it."""
    if "\0" in path:
        raise SpecError(f"{what}: {path!r} has a NUL byte in it")
    return path


def refused(err: OSError, what: str) -> StepFailed:
    return StepFailed(what, err.errno or 0, cure=CURES.get(err.errno or 0, ""))


def source(side: Side, path: str, follow_link: bool) -> Source:
    """Open what SRC_PATH names. A link there is itself copied, unless FOLLOW_LINK, or a slash after it, says otherwise.

    The caller closes ``fd``.
    """
    checked(path, "source")
    try:
        fd = side.open(path, os.O_PATH | (0 if follow_link else os.O_NOFOLLOW))
    except OSError as err:
        raise refused(err, f"open {side.label(path)}") from err
    name = side.name(path)
    directory = stat.S_ISDIR(os.fstat(fd).st_mode)
    contents = directory and (os.path.basename(path) == "." or not name)
    return Source(fd, name, contents, directory)


def destination(side: Side, path: str, what: Source) -> Destination:
    """Open the directory that WHAT goes into. Raises SpecError where the rules forbid it. The caller closes it."""
    checked(path, "destination")
    try:
        fd = side.open(path, os.O_PATH)
    except FileNotFoundError:
        if not what.directory and os.path.basename(path) in ("", "."):
            raise SpecError("there is no such directory: make it first") from None
        return _leaf(side, path)
    except OSError as err:
        if err.errno == errno.ENOTDIR:
            raise SpecError("the destination, or the way to it, is not a directory") from None
        raise refused(err, f"open {side.label(path)}") from err
    kind = stat.S_IFMT(os.fstat(fd).st_mode)
    if kind == stat.S_IFDIR:
        return Destination(fd, () if what.contents else (what.name,))
    os.close(fd)
    if what.directory:
        raise SpecError("cannot copy a directory onto a file")
    if kind != stat.S_IFREG:
        raise SpecError("the destination is neither a directory nor a regular file")
    return _leaf(side, path)


def directory(side: Side, path: str) -> int:
    """A descriptor of the directory PATH, which is there."""
    checked(path, "destination")
    try:
        return side.open(path, os.O_PATH | os.O_DIRECTORY)
    except OSError as err:
        if err.errno in (errno.ENOENT, errno.ENOTDIR):
            raise SpecError("the destination must be a directory that is there") from None
        raise refused(err, f"open {side.label(path)}") from err


def _leaf(side: Side, path: str) -> Destination:
    """The directory and the name of what PATH names or would name, links at its end followed."""
    at = path
    for _ in range(MAX_LINKS):
        head, leaf = os.path.split(at.removesuffix("/.").rstrip("/"))
        if leaf in ("", ".", ".."):
            break
        try:
            fd = side.open(head or ("/" if at.startswith("/") else "."), os.O_PATH | os.O_DIRECTORY)
        except OSError as err:
            if err.errno in (errno.ENOENT, errno.ENOTDIR):
                raise SpecError(f"there is no directory {head or '/'}: make it first") from None
            raise refused(err, f"open {side.label(head)}") from err
        try:
            target = os.readlink(leaf, dir_fd=fd)
        except OSError:  # ENOENT: to be made; EINVAL: no link
            return Destination(fd, (leaf,))
        os.close(fd)
        at = target if target.startswith("/") else f"{head}/{target}" if head or at.startswith("/") else target
    raise SpecError("the destination is a name without an end")
