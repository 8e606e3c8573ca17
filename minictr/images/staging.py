"""A directory that appears all at once, or not at all.

:func:`staging` makes ``.NAME.minictr-XXXXXXXX`` beside the directory asked for, and renames it over when the block ends
well. The temporary directory is held by an flock(2) for as long as its maker lives, so what a ``kill -9`` left behind
is known by its free lock, and is removed by the next build of the same directory.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import stat
from typing import TYPE_CHECKING

from minictr.errors import MinictrError, SpecError, StepFailed
from minictr.values import Value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Progress = Callable[[str], None]

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
MARK = ".minictr-"


class Built(Value):
    """A finished root file system.

    ``directory``: its absolute path. ``files``: how many regular files it has, and ``bytes`` their sizes added up.
    ``notes``: what was left out or changed, one line each, worth telling the user.
    """

    directory: str
    files: int
    bytes: int
    notes: tuple[str, ...] = ()


class Stage(Value):
    """The directory being filled: ``fd`` refers to it, ``path`` is its temporary name, ``target`` what it becomes."""

    fd: int
    path: str
    target: str


def silent(_message: str) -> None:
    """The progress function of those who asked for none."""


def explain(error: OSError, what: str, cure: str = "") -> StepFailed:
    """The kernel's refusal as our error: ``what`` is the operation and its object."""
    return StepFailed(what, error.errno or 0, cure=cure)


def check_target(directory: str) -> tuple[str, str]:
    """The real path of the parent, and the name in it, of a directory to be built.

    Raises SpecError unless the directory is absent or empty, and its parent exists.
    """
    if not directory or "\0" in directory:
        raise SpecError(f"{directory!r} is not a directory name")
    path = os.path.abspath(directory)
    parent, name = os.path.realpath(os.path.dirname(path)), os.path.basename(path)
    if not os.path.isdir(parent):
        raise SpecError(f"{directory}: its parent {os.path.dirname(path)} is not a directory; make it first")
    if not name:
        raise SpecError(f"{directory}: this is the host's own root; name a new directory")
    path = os.path.join(parent, name)
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return parent, name
    except OSError as error:
        raise explain(error, f"look at {directory}") from error
    if stat.S_ISLNK(mode):
        raise SpecError(f"{directory} is a symbolic link; name the directory itself")
    if not stat.S_ISDIR(mode):
        raise SpecError(f"{directory} exists and is not a directory; name a new one")
    if os.path.ismount(path):
        raise SpecError(f"{directory} is a mount point; name a new directory inside it")
    if os.listdir(path):
        raise SpecError(f"{directory} is not empty; remove it, or name a new directory")
    return parent, name


@contextlib.contextmanager
def staging(directory: str, mode: int = 0o700) -> Iterator[Stage]:
    """Build DIRECTORY in a temporary neighbour, renamed to its name when the block ends without an exception.

    ``mode`` is that of the directory while it is built. Raises SpecError (see :func:`check_target`) and StepFailed.
    Any exception in the block, KeyboardInterrupt too, removes the temporary directory.
    """
    parent, name = check_target(directory)
    parent_fd = os.open(parent, DIRECTORY)
    try:
        _sweep(parent, parent_fd, name)
        temporary, fd = _make(parent, parent_fd, name, mode)
        try:
            yield Stage(fd, os.path.join(parent, temporary), os.path.join(parent, name))
            _commit(parent_fd, temporary, name, directory)
        except BaseException:
            remove_tree(parent, parent_fd, temporary)
            raise
        finally:
            os.close(fd)
    finally:
        os.close(parent_fd)


def _make(parent: str, parent_fd: int, name: str, mode: int) -> tuple[str, int]:
    """A new locked directory beside NAME: its name and its fd."""
    while True:
        temporary = f".{name[:200]}{MARK}{secrets.token_hex(4)}"
        try:
            os.mkdir(temporary, 0o700, dir_fd=parent_fd)
        except FileExistsError:
            continue
        except OSError as error:
            raise explain(error, f"make a directory in {parent}") from error
        fd = os.open(temporary, DIRECTORY, dir_fd=parent_fd)
        try:
            # Another build's sweep may have taken it between mkdir and flock: then it is gone, and we try again.
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(fd), os.stat(temporary, dir_fd=parent_fd, follow_symlinks=False)):
                os.fchmod(fd, mode)
                return temporary, fd
        except (BlockingIOError, FileNotFoundError):
            pass
        os.close(fd)


def _commit(parent_fd: int, temporary: str, name: str, directory: str) -> None:
    try:
        os.rename(temporary, name, src_dir_fd=parent_fd, dst_dir_fd=parent_fd)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR, errno.EBUSY):
            raise MinictrError(f"{directory} was made by someone else meanwhile; nothing was changed in it") from error
        raise explain(error, f"rename the finished root to {directory}") from error


def _sweep(parent: str, parent_fd: int, name: str) -> None:
    """Remove what killed builds of NAME left: temporary directories whose lock nobody holds."""
    prefix = f".{name[:200]}{MARK}"
    for entry in os.listdir(parent_fd):
        if not entry.startswith(prefix):
            continue
        try:
            fd = os.open(entry, DIRECTORY, dir_fd=parent_fd)
        except OSError:
            continue
        try:
            # Only our own: in a directory like /tmp the name alone proves nothing.
            if os.fstat(fd).st_uid == os.geteuid():
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove_tree(parent, parent_fd, entry)
        except BlockingIOError:
            pass  # its maker is alive
        finally:
            os.close(fd)


def mounts_below(path: str) -> list[str]:
    """The mount points at PATH and below, in this mount namespace (proc_pid_mountinfo(5))."""
    with open("/proc/self/mountinfo", "rb") as lines:
        found = [line.split(b" ", 5)[4].decode("unicode_escape").encode("latin-1") for line in lines]
    top = os.fsencode(path)
    return [os.fsdecode(point) for point in found if point == top or point.startswith(top + b"/")]


def remove_tree(parent: str, parent_fd: int, name: str) -> None:
    """Remove NAME in the directory PARENT (open as ``parent_fd``), without following a link or entering a mount.

    Raises MinictrError if something is mounted in it: what is behind a mount is not ours to delete.
    """
    mounted = mounts_below(os.path.join(parent, name))
    if mounted:
        raise MinictrError(
            f"{os.path.join(parent, name)} is left: {mounted[0]} is mounted in it; unmount and remove it"
        )
    try:
        _remove(parent_fd, name)
    except OSError as error:
        raise explain(error, f"remove {os.path.join(parent, name)}") from error


def _remove(parent_fd: int, name: str) -> None:
    try:
        fd = os.open(name, DIRECTORY, dir_fd=parent_fd)
    except PermissionError:  # an ordinary user's own directory without read permission
        os.chmod(name, 0o700, dir_fd=parent_fd)
        fd = os.open(name, DIRECTORY, dir_fd=parent_fd)
    try:
        if os.geteuid() != 0:
            os.fchmod(fd, 0o700)
        with os.scandir(fd) as entries:
            children = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        for child, is_directory in children:
            if is_directory:
                _remove(fd, child)
            else:
                os.unlink(child, dir_fd=fd)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=parent_fd)
