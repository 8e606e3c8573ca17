"""Which file systems can be id-mapped here: tried on clones that hang nowhere. mount_setattr(2), Linux 5.12.

The mapping itself: :func:`minictr.kernel.mounts.idmapped_tree`.
"""

from __future__ import annotations

import os

from minictr.errors import MinictrError
from minictr.kernel.mountinfo import mountinfo
from minictr.steps import Support

__all__ = ["file_system_of", "kinds", "probe"]

KNOWN = "ext4, XFS, btrfs and f2fs can, tmpfs since Linux 6.3"
TRIED = frozenset("ext4 ext3 ext2 xfs btrfs f2fs tmpfs overlay squashfs erofs vfat ceph nfs fuse bcachefs zfs".split())
MAP = "0 1 1\n"


def file_system_of(path: str) -> str:
    """The type of the file system that PATH is on, and where that is mounted, for messages."""
    try:
        device = os.stat(path).st_dev
        name = f"{os.major(device)}:{os.minor(device)}"
        found = [mount for mount in mountinfo() if mount.device == name]
    except (OSError, MinictrError):
        return "its file system"
    whole = path.rstrip("/") + "/"
    above = [mount for mount in found if whole.startswith(mount.target.rstrip("/") + "/")] or found
    best = max(above, key=lambda mount: len(mount.target), default=None)
    return "its file system" if best is None else f"{best.fstype} (on {best.target})"


def kinds() -> dict[str, bool]:
    """File system type -> whether one that is mounted here can be id-mapped. Nothing is mounted. Raises StepFailed,
    Unsupported where no user namespace can be had for it."""
    from minictr.kernel.mounts import idmapped_tree
    from minictr.kernel.users import user_namespace

    found: dict[str, bool] = {}
    with user_namespace(uid_map=MAP, gid_map=MAP) as made:
        for mount in mountinfo():
            if mount.fstype not in TRIED or found.get(mount.fstype):
                continue
            try:
                os.close(idmapped_tree(mount.target, recursive=False, userns=made.fileno()))
                found[mount.fstype] = True
            except MinictrError:
                found[mount.fstype] = False
    return found


def probe() -> dict[str, Support]:
    """Whether the feature ``idmap`` can be had: for which of the file systems that are mounted."""
    if os.geteuid():
        return {"idmap": Support(False, "it needs privilege over the file system", "be root", 1)}
    try:
        found = kinds()
    except MinictrError as err:
        return {"idmap": Support(False, str(err), errno=getattr(err, "errno", 0) or 0)}
    able, unable = (sorted(name for name, can in found.items() if can is wanted) for wanted in (True, False))
    if not able:
        return {"idmap": Support(False, f"none of {', '.join(unable) or 'what is mounted here'} can be mapped", KNOWN)}
    return {"idmap": Support(True, ", ".join([*able, *(f"not {name}" for name in unable)]))}
