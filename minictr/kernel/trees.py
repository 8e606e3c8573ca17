"""The mount API of Linux 5.2 on descriptors: make a mount that hangs nowhere, change it, hang it somewhere.

open_tree(2), fsopen(2), fsconfig(2), fsmount(2), move_mount(2), mount_setattr(2). ``minictr.kernel.mounts`` is what
callers use.
"""

from __future__ import annotations

import os

from minictr.errors import SpecError, StepFailed
from minictr.kernel.core import check, ffi, lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

EINVAL = 22
AT_FDCWD, AT_EMPTY_PATH, AT_RECURSIVE = -100, 0x1000, 0x8000  # linux/fcntl.h
OPEN_TREE_CLONE = 0x1  # linux/mount.h
FSOPEN_CLOEXEC = FSMOUNT_CLOEXEC = 0x1  # linux/mount.h
FSCONFIG_SET_FLAG, FSCONFIG_SET_STRING, FSCONFIG_CMD_CREATE = 0, 1, 6  # linux/mount.h
EMPTY_PATHS = 0x4 | 0x40  # MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH, linux/mount.h
MOUNT_ATTR_ATIME = 0x70  # MOUNT_ATTR__ATIME, linux/mount.h: a number of three bits, not flags
MOUNT_ATTR_NOATIME = 0x10  # linux/mount.h
MOUNT_ATTR_IDMAP = 0x100000  # linux/mount.h
ATTRIBUTES = {  # linux/mount.h
    "readonly": 0x1,
    "nosuid": 0x2,
    "nodev": 0x4,
    "noexec": 0x8,
    "noatime": MOUNT_ATTR_NOATIME,
    "nosymfollow": 0x200000,
}
PROPAGATION = {"private": 1 << 18, "slave": 1 << 19, "shared": 1 << 20, "unbindable": 1 << 17}  # linux/mount.h
MS_REC = 0x4000  # linux/mount.h


def attribute_bits(flags: Mapping[str, bool]) -> int:
    """MOUNT_ATTR_* of the FLAGS that are true. Raises TypeError for a word that is none."""
    unknown = set(flags) - set(ATTRIBUTES)
    if unknown:
        raise TypeError(f"unexpected {', '.join(sorted(unknown))}: a mount's flags are {', '.join(ATTRIBUTES)}")
    return sum(ATTRIBUTES[name] for name, value in flags.items() if value)


def clone(path: str, *, recursive: bool) -> int:
    """A descriptor of a copy of the mount tree at PATH. Linux 5.2, open_tree(2)."""
    flags = OPEN_TREE_CLONE | os.O_CLOEXEC | (AT_RECURSIVE if recursive else 0)
    return check(lib.mc_open_tree(AT_FDCWD, os.fsencode(path), flags), f"open tree {path}")


def create(fstype: str, options: Iterable[str], attributes: int, what: str) -> int:
    """A descriptor of a new mount of a file system FSTYPE with its OPTIONS ("key=value", "key")."""
    fs = lib.mc_fsopen(fstype.encode(), FSOPEN_CLOEXEC)
    check(fs, f"mount {what}: fsopen", "this kernel has no such file system" if fs == -19 else "")
    try:
        for option in options:
            key, given, value = option.partition("=")
            kind = FSCONFIG_SET_STRING if given else FSCONFIG_SET_FLAG
            text = os.fsencode(value) if given else ffi.NULL
            result = lib.mc_fsconfig(fs, kind, os.fsencode(key), text, 0)
            if result < 0:
                raise StepFailed(f"mount {what}: option {option}", -result, cure=_said(fs))
        result = lib.mc_fsconfig(fs, FSCONFIG_CMD_CREATE, ffi.NULL, ffi.NULL, 0)
        if result < 0:
            raise StepFailed(f"mount {what}", -result, cure=_said(fs))
        return check(lib.mc_fsmount(fs, FSMOUNT_CLOEXEC, attributes), f"mount {what}: fsmount", _said(fs))
    finally:
        os.close(fs)


def _said(fs: int) -> str:
    """The kernel's own words about a failure: one message a read, "e TYPE: TEXT". fsopen(2)."""
    words: list[str] = []
    while True:
        try:
            message = os.read(fs, 4096).decode(errors="replace").strip()
        except OSError:  # ENODATA: no more
            return "; ".join(words)
        words.append(message[2:] if message[:2] in ("e ", "w ", "i ") else message)


def set_attributes(tree: int, on: int, off: int, *, recursive: bool, what: str) -> None:
    """Set and clear MOUNT_ATTR_* of the mount at descriptor TREE. Linux 5.12, mount_setattr(2)."""
    if not on | off:
        return
    off = off & ~MOUNT_ATTR_NOATIME | (MOUNT_ATTR_ATIME if (on | off) & MOUNT_ATTR_NOATIME else 0)
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    cure = {-1: "locked by a more privileged mount namespace, or no CAP_SYS_ADMIN", -22: "no mount point"}
    result = lib.mc_mount_setattr(tree, b"", flags, on, off, 0, -1)
    check(result, f"set attributes of {what}", cure.get(result, ""))


def make_private(tree: int, on: int, *, what: str) -> None:
    """As :func:`set_attributes` sets ON, and nothing that is mounted on the mount at TREE reaches another."""
    result = lib.mc_mount_setattr(tree, b"", AT_EMPTY_PATH, on, 0, PROPAGATION["private"], -1)
    check(result, f"make {what} private")


def set_idmap(tree: int, userns: int, *, recursive: bool, what: str) -> None:
    """Show owners on the mount TREE through the map of USERNS. Linux 5.12, mount_setattr(2)."""
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    result = lib.mc_mount_setattr(tree, b"", flags, MOUNT_ATTR_IDMAP, 0, 0, userns)
    if result == -EINVAL:
        from minictr.kernel.idmap import KNOWN, file_system_of

        cure = f"{file_system_of(what)} cannot be id-mapped by this kernel; {KNOWN}"
    else:
        cure = "needs Linux 5.12, privilege over the file system, and a mount that is not id-mapped already"
    check(result, f"idmap {what}", cure)


def open_target(target: str) -> int:
    """A descriptor of what a mount goes onto, or of the mount that is there. The caller closes it."""
    try:
        return os.open(target, os.O_PATH | os.O_CLOEXEC)
    except OSError as err:
        cure = "the mount point must exist" if err.errno == 2 else ""
        raise StepFailed(f"open mount point {target}", err.errno or 0, cure=cure) from err


def attach(tree: int, target: str, what: str) -> None:
    """Hang TREE on TARGET; links there are followed. move_mount(2)."""
    onto = open_target(target)
    try:
        cure = "a directory goes on a directory, a file on a file"
        result = lib.mc_move_mount(tree, b"", onto, b"", EMPTY_PATHS)
        check(result, f"mount {what}", cure if result in (-20, -22) else "")
    finally:
        os.close(onto)


def set_propagation(target: str, kind: str) -> None:
    """mount(2) with MS_PRIVATE and so on, MS_REC for an ``r`` in front. Raises SpecError for another word."""
    flag = PROPAGATION.get(kind) or PROPAGATION.get(kind.removeprefix("r"))
    if not flag:
        words = ", ".join(PROPAGATION)
        raise SpecError(f"propagation of {target}: {kind!r} is not one of {words}, or those with r in front")
    flags = flag | (0 if kind in PROPAGATION else MS_REC)
    result = lib.mc_mount(ffi.NULL, os.fsencode(target), ffi.NULL, flags, ffi.NULL)
    check(result, f"make {target} {kind}", "no mount point" if result == -22 else "")


def mount_id(fd: int) -> int:
    """The id, as in mountinfo, of the mount that FD is on. proc_pid_fdinfo(5), Linux 3.15."""
    with open(f"/proc/thread-self/fdinfo/{fd}", "rb") as file:
        rows = (line.split() for line in file)
        return next(int(row[1]) for row in rows if row[:1] == [b"mnt_id:"])


def mount_id_at(target: str) -> int:
    """The id of the topmost mount at TARGET; -1 when there is no such path any more."""
    try:
        fd = os.open(target, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return -1
    try:
        return mount_id(fd)
    finally:
        os.close(fd)
