"""Mounts: binds, file systems, overlays, id-mapped mounts, attributes, propagation. mount(8), mount_namespaces(7).

Every mount is a :class:`Mounted`: ``close()`` or the end of ``with`` unmounts it, ``keep()`` leaves it. All act in the
calling thread's mount namespace, so on the *host* unless it has one of its own (``namespaces.unshare("mnt")``).

The mount API of Linux 5.2 is used (open_tree, fsopen, fsconfig, fsmount, move_mount; mount_setattr of 5.12): it works
on descriptors and tells what it does not like. ``api="auto"`` falls back to mount(2) where the kernel answers ENOSYS;
"new" and "old" ask for one of the two.
"""

from __future__ import annotations

import os

from minictr.errors import SpecError, StepFailed
from minictr.kernel import oldmount, trees
from minictr.kernel.core import check, lib
from minictr.kernel.handles import Handle, shut
from minictr.kernel.mountinfo import MountInfo, mountinfo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import TypeVar

    from minictr.steps import Support

    T = TypeVar("T")

__all__ = [
    "MountInfo",
    "Mounted",
    "bind",
    "devpts",
    "file_system",
    "idmapped_tree",
    "mountinfo",
    "mqueue",
    "overlay",
    "probe",
    "proc",
    "propagation",
    "set_attributes",
    "sysfs",
    "tmpfs",
    "unmount",
]

MNT_DETACH, UMOUNT_NOFOLLOW = 0x2, 0x8  # linux/fs.h
EINVAL, EBUSY, ENOSYS = 22, 16, 38
PLAIN = {"nosuid": True, "nodev": True, "noexec": True}


class Mounted(Handle):
    """A mount of ours on ``target``. ``close()`` takes it away at once; its last user keeps it alive (MNT_DETACH)."""

    def __init__(self, target: str, mount_id: int) -> None:
        self.target, self.id = target, mount_id
        self._open = True

    def __repr__(self) -> str:
        return f"<mounted on {self.target}>"

    def keep(self) -> str:
        """Leave it mounted: no longer ours. The target."""
        self._open = False
        return self.target

    def _close(self) -> None:
        # mounted over or unmounted meanwhile: never take away what somebody else put there
        if trees.mount_id_at(self.target) == self.id:
            check(lib.mc_umount2(os.fsencode(self.target), MNT_DETACH | UMOUNT_NOFOLLOW), f"unmount {self.target}")
        elif any(mount.id == self.id for mount in mountinfo()):
            raise StepFailed(f"unmount {self.target}", EBUSY, cure="another mount lies over it: unmount that first")


# --- binds ---


def bind(
    source: str,
    target: str,
    *,
    recursive: bool = True,
    readonly: str = "",
    propagation: str = "",
    userns: int = -1,
    uid_map: str = "",
    gid_map: str = "",
    api: str = "auto",
    **flags: bool,
) -> Mounted:
    """SOURCE, a file or a directory, on TARGET, which exists and is of its kind. Linux 2.4, open_tree(2).

    ``recursive``: with what is mounted below. ``readonly``: "ro" this mount, "rro" those below as well. FLAGS: nosuid,
    nodev, noexec, noatime, nosymfollow (Linux 5.10). ``propagation``: see :func:`propagation`. ``userns`` or
    ``uid_map`` and ``gid_map``: see :func:`idmapped_tree`.

    Raises SpecError, StepFailed; Unsupported for an id map with mount(2).

    >>> with bind("/etc", "/mnt", readonly="rro", nosuid=True): ...
    """
    if readonly not in ("", "ro", "rro"):
        raise SpecError(f"bind {target} readonly: {readonly!r} is not ro or rro")
    attributes = trees.attribute_bits({**flags, "readonly": bool(readonly)})
    mapped = userns >= 0 or bool(uid_map or gid_map)

    def new() -> Mounted:
        if mapped:
            tree = idmapped_tree(source, recursive=recursive, userns=userns, uid_map=uid_map, gid_map=gid_map)
        else:
            tree = trees.clone(source, recursive=recursive)
        try:
            trees.set_attributes(tree, attributes, 0, recursive=readonly == "rro", what=target)
            return hang(tree, target, f"{source} on {target}")
        finally:
            os.close(tree)

    def old() -> Mounted:
        oldmount.bind(source, target, recursive=recursive, attributes=attributes, deep=readonly == "rro", mapped=mapped)
        return _mounted(target)

    mounted = _either(api, new, old)
    try:
        if propagation:
            trees.set_propagation(mounted.target, propagation)
    except BaseException:
        mounted.close()
        raise
    return mounted


def idmapped_tree(path: str, *, recursive: bool = True, userns: int = -1, uid_map: str = "", gid_map: str = "") -> int:
    """A descriptor of a clone of PATH's mount, attached nowhere, on which owners are shown through an id map.

    ``userns``: descriptor of the user namespace whose map it is; or ``uid_map`` and ``gid_map`` in the words of
    /proc/PID/uid_map, for which one is made and given up again. A file of *inside* id on disk shows as *outside* id.
    The caller closes the descriptor. Linux 5.12, mount_setattr(2); by file system: ext4, FAT 5.12, XFS 5.12, btrfs
    5.15, tmpfs 6.3. Raises StepFailed: EINVAL for a file system that cannot, EPERM without CAP_SYS_ADMIN over it.
    """
    from minictr.kernel.users import user_namespace

    tree = trees.clone(path, recursive=recursive)
    try:
        if userns >= 0:
            trees.set_idmap(tree, userns, recursive=recursive, what=path)
        else:
            with user_namespace(uid_map=uid_map, gid_map=gid_map) as made:
                trees.set_idmap(tree, made.fileno(), recursive=recursive, what=path)
    except BaseException:
        shut(tree)
        raise
    return tree


# --- file systems ---


def file_system(
    fstype: str, target: str, *, options: Sequence[str] = (), source: str = "", api: str = "auto", **flags: bool
) -> Mounted:
    """A new file system FSTYPE on TARGET. fsopen(2), Linux 5.2; mount(2).

    ``options``: "key=value" or "key", the file system's own. ``source``: a device, or any word (default: FSTYPE).
    FLAGS: readonly, nosuid, nodev, noexec, noatime, nosymfollow. Raises StepFailed with what the kernel said: ENODEV
    for a type it does not have, EPERM where a user namespace may not mount it.

    >>> with file_system("tmpfs", "/mnt", options=["size=1M"], nodev=True): ...
    """
    return _file_system(fstype, target, options, api, flags, source)


def tmpfs(
    target: str, *, size: int | str = "", mode: int = 0o1777, inodes: int = 0, api: str = "auto", **flags: bool
) -> Mounted:
    """Files in memory. tmpfs(5). ``size``: bytes, or "64M", or "10%" of memory ("": half of it); ``inodes``: 0 for
    as many as the kernel likes; ``mode`` of its root directory. FLAGS as :func:`file_system`.

    >>> with tmpfs("/mnt", size="64M", mode=0o700, nosuid=True): ...
    """
    options = [f"mode={mode:o}"]
    options += [f"size={size}"] if size else []
    options += [f"nr_inodes={inodes}"] if inodes else []
    return _file_system("tmpfs", target, options, api, flags)


def proc(target: str = "/proc", *, hidepid: str = "", subset: str = "", api: str = "auto", **flags: bool) -> Mounted:
    """procfs of the calling process's pid namespace; nosuid, nodev and noexec unless FLAGS say otherwise. proc(5).

    ``hidepid``: off, noaccess, invisible, ptraceable (Linux 5.8; numbers before); ``subset``: "pid" (Linux 5.8).
    """
    options = [f"{key}={value}" for key, value in (("hidepid", hidepid), ("subset", subset)) if value]
    return _file_system("proc", target, options, api, {**PLAIN, **flags})


def sysfs(target: str = "/sys", *, api: str = "auto", **flags: bool) -> Mounted:
    """sysfs, whose devices are those of the network namespace at mount time; nosuid, nodev, noexec. sysfs(5)."""
    return _file_system("sysfs", target, [], api, {**PLAIN, **flags})


def devpts(
    target: str = "/dev/pts",
    *,
    mode: int = 0o620,
    ptmxmode: int = 0o666,
    gid: int = -1,
    max: int = 0,
    api: str = "auto",
) -> Mounted:
    """Pseudo terminals of their own, nosuid and noexec. Linux 2.6.29 (4.7: always of their own), pts(4).

    ``gid``: group of the terminals (5 is tty in Debian), -1 for their opener's. ``ptmxmode``: mode of TARGET/ptmx.
    ``max``: how many there may be at once (Linux 3.4), 0 for what kernel.pty.max leaves.
    """
    options = ["newinstance", f"mode={mode:o}", f"ptmxmode={ptmxmode:o}", *([f"gid={gid}"] if gid >= 0 else [])]
    options += [f"max={max}"] if max else []
    return _file_system("devpts", target, options, api, {"nosuid": True, "noexec": True})


def mqueue(target: str = "/dev/mqueue", *, api: str = "auto", **flags: bool) -> Mounted:
    """The message queues of the ipc namespace as files; nosuid, nodev, noexec. mq_overview(7), Linux 2.6.6."""
    return _file_system("mqueue", target, [], api, {**PLAIN, **flags})


def overlay(
    target: str,
    *,
    lower: Sequence[str],
    upper: str = "",
    work: str = "",
    options: Sequence[str] = (),
    api: str = "auto",
    **flags: bool,
) -> Mounted:
    """Layers shown as one tree; only UPPER is written. Linux 3.18 (in user namespaces 5.11), overlayfs.rst.

    ``lower``: directories, topmost first. ``upper`` and ``work``: directories of one file system; both empty:
    read-only, of at least two lowers. Layers may have any name, up to 500 (some 200 before 6.5).
    Raises StepFailed with what the kernel said.

    >>> with overlay("/mnt", lower=["/image"], upper="/run/box/upper", work="/run/box/work"): ...
    """
    if not lower or bool(upper) != bool(work):
        raise SpecError(f"overlay {target}: lower is needed, and both of upper and work or none")
    from minictr.kernel.layers import Layers

    with Layers(lower, upper, work) as layers:
        if layers.fits or api == "old":
            return _file_system("overlay", target, [*layers.joined, *options], api, flags)
        try:
            return _file_system("overlay", target, [*layers.single, *options], api, flags)
        except StepFailed as err:  # no "lowerdir+" before Linux 6.5: a page of options is mount(2)'s limit
            if api == "new" or err.errno != EINVAL or "lowerdir+" not in err.what:
                raise
            return _file_system("overlay", target, [*layers.joined, *options], "old", flags)


def _file_system(
    fstype: str, target: str, options: Sequence[str], api: str, flags: Mapping[str, bool], source: str = ""
) -> Mounted:
    attributes, words, source = trees.attribute_bits(flags), f"{fstype} on {target}", source or fstype

    def new() -> Mounted:
        tree = trees.create(fstype, [f"source={source}", *options], attributes, words)
        try:
            return hang(tree, target, words)
        finally:
            os.close(tree)

    def old() -> Mounted:
        oldmount.mount(source, target, fstype, attributes, options)
        return _mounted(target)

    return _either(api, new, old)


# --- what is mounted already ---


def set_attributes(target: str, *, recursive: bool = False, api: str = "auto", **flags: bool) -> None:
    """Change what is mounted on TARGET: FLAGS (as :func:`file_system`) True sets, False clears. mount_setattr(2), 5.12.

    ``recursive``: everything mounted below too; all or nothing with the new API. Raises StepFailed: EINVAL where
    TARGET is no mount point, EPERM for what a more privileged mount namespace has locked.

    >>> set_attributes("/", readonly=True, recursive=True)
    """
    on, off = trees.attribute_bits(flags), trees.attribute_bits({name: not value for name, value in flags.items()})

    def new() -> None:
        fd = trees.open_target(target)
        try:
            trees.set_attributes(fd, on, off, recursive=recursive, what=target)
        finally:
            os.close(fd)

    _either(api, new, lambda: oldmount.set_attributes(target, on, off, deep=recursive))


def propagation(target: str, kind: str) -> None:
    """How mounts made below TARGET reach other mount namespaces, and theirs this one. Linux 2.6.15.

    See mount_namespaces(7).
    KIND: private (neither way), slave (only theirs to here), shared (both), unbindable (private, and never bound); with
    an ``r`` in front for everything mounted below. Raises SpecError, StepFailed: EINVAL where it is no mount point.
    """
    trees.set_propagation(target, kind)


def unmount(target: str, *, detach: bool = False) -> None:
    """Take the topmost mount on TARGET away. umount2(2). ``detach``: from the tree at once, the rest when its last user
    is gone (MNT_DETACH). A link at TARGET is not followed. Raises StepFailed: EBUSY in use, EINVAL no mount point."""
    cure = "in use: close what is open there, or detach" if not detach else ""
    result = lib.mc_umount2(os.fsencode(target), UMOUNT_NOFOLLOW | (MNT_DETACH if detach else 0))
    check(result, f"unmount {target}", cure if result == -16 else "")


def _either(api: str, new: Callable[[], T], old: Callable[[], T]) -> T:
    """The new way, or the old one where the kernel has no new one."""
    if api not in ("auto", "new", "old"):
        raise SpecError(f"mount api: {api!r} is not auto, new or old")
    if api != "old":
        try:
            return new()
        except StepFailed as err:
            if api == "new" or err.errno != ENOSYS:
                raise
    return old()


def hang(tree: int, target: str, what: str) -> Mounted:
    """The mount at descriptor TREE on TARGET, as a handle; TREE stays the caller's. WHAT: for messages."""
    place = os.path.realpath(target)
    trees.attach(tree, place, what)
    return Mounted(place, trees.mount_id(tree))


def _mounted(target: str) -> Mounted:
    """What mount(2) has just put on TARGET, as a handle."""
    place = os.path.realpath(target)
    return Mounted(place, trees.mount_id_at(place))


def probe() -> dict[str, Support]:
    """Whether each mount feature can be had: done in the mount namespace of a child that ends at once."""
    from minictr.kernel.probing import tried

    return tried("mounts")
