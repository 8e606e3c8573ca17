"""A descriptor of a container's root: of one that runs, of one that does not, and of what its layers add up to.

Whoever asks closes it. Nothing is ever mounted anywhere: an overlay that hangs nowhere goes with its descriptor.
"""

from __future__ import annotations

import os

from minictr.errors import StepFailed
from minictr.kernel import trees
from minictr.kernel.layers import Layers, overlay_of_user

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["live_root", "merged_root", "stopped_root"]

O_ROOT = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
ENOENT, EACCES, EPERM = 2, 13, 1
HARMLESS = {"nosuid": True, "nodev": True, "noexec": True}


def live_root(pid: int) -> int:
    """The root of the running process PID, with everything that is mounted in it. proc_pid_root(5).

    A pid is used again: the caller looks *afterwards* whether it is still the process it means (by pidfd, or start
    time), and closes the descriptor if not. Raises StepFailed: ENOENT when it is gone, EACCES without ptrace access.
    """
    path = f"/proc/{pid}/root"
    try:
        return os.open(path, O_ROOT)
    except OSError as err:
        cures = {ENOENT: "the container ended", EACCES: "only root, or its owner, may", EPERM: "only root may"}
        raise StepFailed(f"open {path}", err.errno or 0, cure=cures.get(err.errno or 0, "")) from err


def stopped_root(
    rootfs: str,
    upper: str = "",
    lowers: Sequence[str] = (),
    *,
    work: str = "",
    readonly: bool = False,
    options: Sequence[str] = (),
) -> int:
    """The root of a container that does not run: ROOTFS, or with UPPER an overlay on it that hangs nowhere.

    ``lowers``: further layers below ROOTFS, nearest first. ``work``: UPPER.work unless given, made when missing.
    ``readonly``: writes fail with EROFS, for a container whose layer went with its last run. ``options``: of the
    overlay: userxattr for a layer that was written in a user namespace.

    Two overlays that write to one UPPER destroy it: never for a container that runs. Linux 5.2, fsmount(2). Raises
    StepFailed: EPERM without CAP_SYS_ADMIN where an overlay is needed.
    """
    if upper:
        work = work or upper.rstrip("/") + ".work"
        os.makedirs(work, mode=0o700, exist_ok=True)
        return _overlay([rootfs, *lowers], upper, work, options)
    return merged_root([rootfs, *lowers], readonly=readonly, options=options)


def merged_root(layers: Sequence[str], *, readonly: bool = True, options: Sequence[str] = ()) -> int:
    """What LAYERS (topmost first) add up to, an upper one included. Of several: an overlay that cannot be written.

    Of one: that directory; with ``readonly`` through a mount of its own that cannot be written. ``options``: of the
    overlay, where the kernel's default is not what is wanted.
    """
    if len(layers) > 1:
        return _overlay(layers, "", "", options)
    try:
        plain = os.open(layers[0], O_ROOT | os.O_NOFOLLOW)
    except OSError as err:
        raise StepFailed(f"open the root {layers[0]}", err.errno or 0) from err
    if not readonly:
        return plain
    try:
        tree = trees.clone(f"/proc/self/fd/{plain}", recursive=False)
    finally:
        os.close(plain)
    try:
        trees.set_attributes(tree, trees.attribute_bits({"readonly": True}), 0, recursive=False, what=layers[0])
    except BaseException:
        os.close(tree)
        raise
    return tree


def _overlay(lower: Sequence[str], upper: str, work: str, options: Sequence[str] = ()) -> int:
    what = f"overlay of {':'.join(filter(None, (upper, *lower)))}"
    flags = {**HARMLESS, "readonly": not upper}
    with Layers(lower, upper, work) as layers:
        words = layers.joined if layers.fits else layers.single
        try:
            return trees.create("overlay", ["source=overlay", *words, *options], trees.attribute_bits(flags), what)
        except StepFailed as err:
            if err.errno == EPERM and os.geteuid():
                bits = trees.attribute_bits(flags)
                return overlay_of_user(layers, os.path.abspath(lower[0]), [*words, *options], bits, what)
            cure = "only root can look into layers" if err.errno == EPERM else err.cure
            raise StepFailed(err.what, err.errno or 0, cure=cure) from err
