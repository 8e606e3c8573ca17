"""A directory tree goes, whatever a container made of it: links to anywhere, ten thousand levels, odd modes."""

from __future__ import annotations

import os

from minictr.kernel.core import lib
from minictr.kernel.handles import shut

__all__ = ["remove", "remove_tree"]

CLONE_NEWUSER = 0x10000000  # linux/sched.h
ALL = 0o700


def remove_tree(name: str, dir_fd: int) -> None:
    """Remove directory NAME of DIR_FD and all below it. Raises OSError.

    shutil.rmtree goes down as deep as the tree is, and a program can make one that is deeper than Python's stack and
    its descriptors reach (shutil costs 9 ms to import as well). Here every directory found is moved up beside NAME
    first, so there is one level at a time. Nothing is opened through a link.
    """
    waiting, number = [name], 0
    while waiting:
        current = waiting.pop()
        try:
            fd = os.open(current, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
        except FileNotFoundError:
            continue
        try:
            if os.geteuid():
                os.fchmod(fd, ALL)  # root needs no leave
            with os.scandir(fd) as entries:
                found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
            for entry, is_directory in found:
                if not is_directory:
                    os.unlink(entry, dir_fd=fd)
                    continue
                moved = ""
                while not moved:
                    number += 1
                    moved = f"{name}.gone.{number}"
                    if _is_there(moved, dir_fd):
                        waiting.append(moved)  # of a removal that was interrupted
                        moved = ""
                if os.geteuid():
                    os.chmod(entry, ALL, dir_fd=fd)  # a directory that is moved is written to: its ".."
                os.rename(entry, moved, src_dir_fd=fd, dst_dir_fd=dir_fd)
                waiting.append(moved)
        finally:
            shut(fd)
        os.rmdir(current, dir_fd=dir_fd)


def remove(name: str, dir_fd: int) -> None:
    """:func:`remove_tree`; by an ordinary user who may not as root of a user namespace that has all the ids that are
    delegated to him, for in a container's layer they are owners too. Raises OSError; Unsupported without newuidmap."""
    try:
        remove_tree(name, dir_fd)
    except PermissionError:
        if not os.geteuid() or not _as_delegated(name, dir_fd):
            raise


def _as_delegated(name: str, dir_fd: int) -> bool:
    """Whether it is gone then."""
    from minictr.kernel.users import delegated_map, user_namespace

    maps = {f"{kind}_map": delegated_map(f"/etc/sub{kind}") for kind in ("uid", "gid")}
    with user_namespace(**maps) as made:
        pid = os.fork()  # setns(2) wants a process of one thread, which a fork is
        if not pid:
            try:
                if lib.mc_setns(made.fileno(), CLONE_NEWUSER) == 0:
                    remove_tree(name, dir_fd)
                    os._exit(0)
            finally:
                os._exit(1)
        return os.waitpid(pid, 0)[1] == 0


def _is_there(name: str, dir_fd: int) -> bool:
    try:
        os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
