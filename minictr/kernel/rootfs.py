"""The root: pivot_root, chroot, and an image that is never written. pivot_root(2), chroot(2), overlayfs.rst.

The first two change what "/" is for the *calling process* (for every process of its mount namespace with
pivot_root), with no way back: they belong into a child process, as a container's start does them. Read-only:
``mounts.bind(root, root, readonly="ro")`` before, or ``mounts.set_attributes("/", readonly=True)`` after.
"""

from __future__ import annotations

import os

from minictr.errors import SpecError, StepFailed
from minictr.kernel import mounts, ops, trees
from minictr.kernel.layers import Layers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from minictr.steps import Support

__all__ = ["chroot", "many_layers", "overlay_root", "pivot_root", "probe"]

EBUSY, EINVAL = 16, 22


def pivot_root(new_root: str) -> None:
    """NEW_ROOT becomes /, the old root is detached, the working directory is /. Linux 2.3.41, pivot_root(2).

    Moves every process of the calling thread's mount namespace whose root is the old one: make a mount namespace first
    (``namespaces.unshare("mnt")``), and not in the process that goes on. NEW_ROOT must be a mount point
    (``mounts.bind(root, root)``). Raises StepFailed: EBUSY or EINVAL where it is none, where mounts are shared, or
    where the old root is an initramfs; EPERM without CAP_SYS_ADMIN.

    >>> with unshare("mnt"), bind("/image", "/image") as root:
    ...     pivot_root(root.keep())
    """
    cure = "a mount point is needed, private propagation, and a root that is no initramfs (there: chroot)"
    before = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _chdir(new_root)
        try:
            ops.execute("pivot_root", about=new_root)
        except StepFailed as err:
            os.fchdir(before)
            raise StepFailed(err.what, err.errno or 0, cure=cure if err.errno in (EBUSY, EINVAL) else "") from err
    finally:
        os.close(before)


def chroot(path: str) -> None:
    """PATH becomes /, by name only, and the working directory. chroot(2).

    It is no wall: with CAP_SYS_CHROOT one walks out again. Threads of a process share their root: all of them move,
    except one that has a root of its own (``namespaces.unshare("mnt")``). Raises StepFailed: EPERM without
    CAP_SYS_CHROOT.
    """
    ops.execute("chroot", about=path, path=path)


def _chdir(path: str) -> None:
    try:
        os.chdir(path)
    except OSError as err:
        raise StepFailed(f"enter the new root {path}", err.errno or 0) from err


def overlay_root(
    target: str,
    *,
    lower: Sequence[str],
    upper: str = "",
    work: str = "",
    size: int | str = "",
    inodes: int = 0,
    **flags: bool,
) -> mounts.Mounted:
    """The layers LOWER (topmost first) on TARGET with a layer on top that takes all writes. Linux 5.2, overlayfs.rst.

    ``upper``: a directory that keeps the changes, with ``work`` ("": UPPER.work, made when missing) on the same file
    system. Empty: they are thrown away with the mount; they live in a tmpfs of ``size`` (bytes, "64M"; "": half the
    memory) and ``inodes`` that no path leads to. TARGET may be one of the layers. FLAGS as ``mounts.file_system``.
    Raises StepFailed, SpecError.

    >>> with overlay_root("/image", lower=["/image"], size="64M") as root: ...
    """
    if not lower or (upper and (size or inodes)) or (work and not upper):
        raise SpecError(f"overlay {target}: lower is needed; size and inodes without upper; work with upper")
    if not upper:
        return _over_tmpfs(target, lower, size, inodes, flags)
    if not work:
        work = upper.rstrip("/") + ".work"
        os.makedirs(work, mode=0o700, exist_ok=True)
    return mounts.overlay(target, lower=lower, upper=upper, work=work, options=(), api="auto", **flags)


def _over_tmpfs(
    target: str, lower: Sequence[str], size: int | str, inodes: int, flags: Mapping[str, bool]
) -> mounts.Mounted:
    options = [*([f"size={size}"] if size else []), *([f"nr_inodes={inodes}"] if inodes else [])]
    attributes, what = trees.attribute_bits(flags), f"overlay on {target}"
    scratch = trees.create("tmpfs", ["source=tmpfs", "mode=700", *options], 0, f"tmpfs for {target}")
    try:
        for name in ("upper", "work"):
            os.mkdir(name, 0o755, dir_fd=scratch)
        inside = f"/proc/self/fd/{scratch}"
        layers = Layers(lower, f"{inside}/upper", f"{inside}/work", by_descriptor=True)
        # Until Linux 6.15 an overlay refuses layers of a mount that hangs nowhere (clone_private_mount() in
        # fs/namespace.c), so the tmpfs lies on TARGET until the overlay has its own copy.
        with layers, mounts.hang(scratch, target, f"tmpfs on {target}"):
            words = layers.joined if layers.fits else layers.single
            tree = trees.create("overlay", ["source=overlay", *words], attributes, what)
        try:
            return mounts.hang(tree, target, what)
        finally:
            os.close(tree)
    finally:
        os.close(scratch)


def many_layers() -> str:
    """Why an overlay has no more layers than one option names here, "" when it has: tried in a child. Linux 6.5.

    Each of so many is an option of its own, ``lowerdir+``, for fsconfig(2) takes 255 characters of a value.
    """
    from minictr.kernel.probing import attempt, reason
    from minictr.kernel.trials import MANY_LAYERS

    failed = attempt(MANY_LAYERS, own_user=os.geteuid() != 0)
    return reason(*failed) if failed is not None and failed[1] == EINVAL else ""


def probe() -> dict[str, Support]:
    """Whether pivot_root, chroot, overlay and a read-only root can be had: done in a child that ends at once."""
    from minictr.kernel.probing import tried

    return tried("rootfs")
