"""mount(2): what ``minictr.kernel.mounts`` falls back to before Linux 5.2, and before 5.12 for attributes.

What the new API does at once takes several calls here: a bind is writable for a moment before it is made read-only.
"""

from __future__ import annotations

import os

from minictr.errors import Unsupported
from minictr.kernel.core import check, ffi, lib
from minictr.kernel.mountinfo import mountinfo
from minictr.kernel.trees import ATTRIBUTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

MS_REMOUNT, MS_BIND, MS_REC = 0x20, 0x1000, 0x4000  # linux/mount.h
# MOUNT_ATTR_* name -> MS_*, linux/mount.h
_FLAGS = {"readonly": 0x1, "nosuid": 0x2, "nodev": 0x4, "noexec": 0x8, "noatime": 0x400, "nosymfollow": 0x100}
# word in mountinfo -> MS_*: what a remount must repeat, or it is lost
_OPTIONS = {**_FLAGS, "ro": 0x1, "nodiratime": 0x800, "relatime": 1 << 21}
MNT_DETACH = 0x2  # linux/fs.h


def _flags(attributes: int) -> int:
    return sum(flag for name, flag in _FLAGS.items() if attributes & ATTRIBUTES[name])


def mount(source: str, target: str, fstype: str, attributes: int, options: Sequence[str]) -> None:
    """A new file system on TARGET."""
    data = os.fsencode(",".join(options))
    what = f"mount {fstype} on {target}"
    check(lib.mc_mount(os.fsencode(source), os.fsencode(target), fstype.encode(), _flags(attributes), data), what)


def bind(source: str, target: str, *, recursive: bool, attributes: int, deep: bool, mapped: bool) -> None:
    """SOURCE on TARGET; on failure nothing stays. DEEP: ATTRIBUTES of everything below as well."""
    if mapped:
        raise Unsupported("idmap", "mount(2) cannot map ids", "needs Linux 5.12")
    flags, what = MS_BIND | (MS_REC if recursive else 0), f"bind {source} on {target}"
    check(lib.mc_mount(os.fsencode(source), os.fsencode(target), ffi.NULL, flags, ffi.NULL), what)
    try:
        if attributes:
            set_attributes(target, attributes, 0, deep=deep)
    except BaseException:
        lib.mc_umount2(os.fsencode(target), MNT_DETACH)
        raise


def set_attributes(target: str, on: int, off: int, *, deep: bool) -> None:
    """Set and clear attributes of the topmost mount on TARGET, and with DEEP of all below, one after another."""
    place = os.path.realpath(target)
    table = mountinfo()
    # mountinfo lists a mount after the one it covers: the last of a target is the one that is seen
    seen = {mount.target: mount for mount in table}
    below = [path for path in seen if deep and path.startswith(place.rstrip("/") + "/")]
    for path in (place, *below):
        options = seen[path].options if path in seen else ()
        flags = sum(flag for word, flag in _OPTIONS.items() if word in options)
        flags = flags & ~_flags(off) | _flags(on)
        result = lib.mc_mount(ffi.NULL, os.fsencode(path), ffi.NULL, MS_REMOUNT | MS_BIND | flags, ffi.NULL)
        check(result, f"set attributes of {path}", "no mount point" if result == -22 else "")
