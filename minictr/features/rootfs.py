"""The root: another directory as /, kept from being written, or with a layer of its own on top.

pivot_root(2), chroot(2), overlayfs (Documentation/filesystems/overlayfs.rst).
"""

from __future__ import annotations

from minictr.errors import SpecError
from minictr.features.check import frozen, sequence, size, word
from minictr.features.mounts import MOUNT_ATTR_NODEV, MOUNT_ATTR_RDONLY, RECURSIVE, attributes, mount_options
from minictr.features.namespaces import own
from minictr.steps import PREPARE, SETUP, VERIFY, Context, Feature, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

AT_RECURSIVE = 0x8000  # linux/fcntl.h
LAYERS_JOINED = 13  # fsconfig(2) takes 255 characters of lowerdir=: MC_LAYERS_JOINED of _core/ops_overlay.c
OVERLAY_LAYERS = 500  # OVL_MAX_STACK of fs/overlayfs/params.h

# what overlay_trees wants of an upper layer: one mount that holds both, the layer in it, and its work directory
UPPER = ("upper:mount", "upper:layer", "upper:work")
ROOT = "root"  # the handle of the tree that becomes /


def root_tree(feature: Feature, ctx: Context) -> Iterator[Step]:
    """The steps that make the root a mount of its own, over its own path, and enter it."""
    if not ctx.has("overlay") and not ctx.has("idmap"):
        yield feature.step("open_tree", SETUP, ctx.rootfs, into=ROOT, path=ctx.rootfs, flags=AT_RECURSIVE)
    # over "/", not over its own path: a mapped root user may not be allowed along that path (0700 directories)
    yield feature.step("root_attach", SETUP, ctx.rootfs, tree=ROOT, path="/")


class PivotRoot(Feature):
    """The root file system takes the place of the host's, which is detached. Linux 2.3.41, pivot_root(2).

    Unlike chroot there is no way back: the old root is no longer mounted in this namespace.
    """

    NAME = "pivot_root"
    SUMMARY = "the root file system as /, the host's root detached"
    NEEDS = (("mnt", "it would move the root of the whole host"),)

    def steps(self, ctx: Context) -> Iterator[Step]:
        yield from root_tree(self, ctx)
        yield self.step("pivot_root", SETUP, ctx.rootfs)
        yield self.step("verify_root", VERIFY, "/")


class Chroot(Feature):
    """The root file system as /, by name only. chroot(2).

    A privileged process inside can leave again (chroot(2) says how): this is no wall, and is here to be measured and
    for hosts where pivot_root cannot be had (an initramfs as root).
    """

    NAME = "chroot"
    SUMMARY = "the root file system as /, which root can leave again"

    def steps(self, ctx: Context) -> Iterator[Step]:
        own_mount = own(ctx, "mnt")  # then the root can be a mount, and read-only be said of it
        if own_mount:
            yield from root_tree(self, ctx)
        # by the working directory that root_attach entered: ROOTFS may be "/", whose name means what lies below
        yield self.step("chroot", SETUP, ctx.rootfs, path="." if own_mount else ctx.rootfs)


class Overlay(Feature):
    """A layer on top of the root file system takes all writes. Linux 3.18, in a user namespace 5.11; overlayfs.rst.

    ``lower``: further read-only layers *below* the root file system, nearest first: up to 499, more than 12 of them by
    Linux 6.5. ``upper``: a host directory that
    keeps the changes, made when missing; "" throws them away: they live in a tmpfs of the container (``size``, bytes
    or "64M"; "" is half the memory). ``work`` must be on the file system of ``upper``; "" is ``UPPER.work``.
    """

    NAME = "overlay"
    SUMMARY = "writes go to a layer on top; the root file system is never changed"
    NEEDS = (("mnt", "the layer would be mounted on the host"),)

    lower: tuple[str, ...] = ()
    upper: str = ""
    work: str = ""
    size: str | int = ""

    def check(self) -> None:
        frozen(self, "lower", sequence(self.lower, "overlay lower"))
        for path in (*self.lower, *filter(None, (self.upper, self.work))):
            word(path, "overlay")
        if len(self.lower) >= OVERLAY_LAYERS:
            raise SpecError(f"overlay lower: {len(self.lower)} layers, at most {OVERLAY_LAYERS - 1} go below the root")
        if self.work and not self.upper:
            raise SpecError("overlay: a work directory without upper: give upper too, or neither")
        if self.size != "" and self.upper:
            raise SpecError("overlay: size is of the tmpfs that is thrown away, and upper keeps: give one of them")
        if self.upper and self.upper.rstrip("/") == self.work.rstrip("/"):
            raise SpecError(f"overlay: upper and work are both {self.upper}: give two directories of one file system")
        if self.size != "":
            size(self.size, "overlay size")

    @property
    def many(self) -> bool:
        """Whether each layer is an option of its own: more than one option names. Linux 6.5."""
        return 1 + len(self.lower) > LAYERS_JOINED

    @property
    def work_path(self) -> str:
        return self.work or (self.upper.rstrip("/") + ".work" if self.upper else "")

    def steps(self, ctx: Context) -> Iterator[Step]:
        for path, mode in ((self.upper, 0o755), (self.work_path, 0o700)):
            if path:
                undo = "a failed start removes it"
                yield self.step("make_directory", PREPARE, path, undo=undo, path=path, mode=mode)
        options = ([f"size={size(self.size)}"] if self.size != "" else []) + mount_options(ctx)
        lower = [ctx.rootfs, *self.lower]
        about = f"{':'.join(lower)} under {self.upper or 'a layer that is thrown away'}"
        if ctx.has("userns"):  # trusted.* attributes are the host's root's alone; Linux 5.11
            options.append("userxattr")
        if ctx.has("idmap"):
            trees: dict[str, Any] = {
                "lower": [layer(place) for place in range(len(lower))],
                "upper": UPPER if self.upper else [],
            }
            yield self.step("overlay_trees", SETUP, about, into=ROOT, **trees, options=options)
            return
        layers: dict[str, Any] = {"lower": lower, "upper": self.upper, "work": self.work_path}
        attr = MOUNT_ATTR_NODEV if ctx.has("nodev") else 0
        yield self.step("overlay", SETUP, about, into=ROOT, **layers, options=options, attr=attr)


def layer(place: int) -> str:
    """The handle of a read-only layer that is id-mapped, counted from the topmost."""
    return f"layer:{place}"


class Idmap(Feature):
    """Owners of files in the root are shown through the maps of ``userns``; nothing is chowned. Linux 5.12, with
    ``overlay`` 5.19; mount_setattr(2).

    A file of user 0 on disk is root's inside, and what root inside writes is user 0's on disk, whatever ids of the host
    the container has this time. Of the layers of an overlay each is mapped, the upper one as well. Ids on disk without
    a row are nobody's, and cannot be made. The file system must be able to: ext4, XFS, btrfs, tmpfs since 6.3.
    """

    NAME = "idmap"
    SUMMARY = "owners of files in the root shown through the maps of userns; no chown"
    NEEDS = (
        ("userns", "its maps are what files are shown through"),
        ("mnt", "the root would be mapped on the host"),
    )

    def steps(self, ctx: Context) -> Iterator[Step]:
        from minictr.features.mounts import idmapped

        overlay = ctx.get("overlay")
        if overlay is None:
            yield from idmapped(self, ctx, ctx.rootfs, ROOT, recursive=True)
            return
        for place, path in enumerate((ctx.rootfs, *overlay.lower)):
            yield from idmapped(self, ctx, path, layer(place), recursive=False)
        if overlay.upper:
            uids, gids = ctx.get("userns").texts
            args: dict[str, Any] = {"upper": overlay.upper, "work": overlay.work_path, "into": UPPER}
            yield self.step("idmap_upper", PREPARE, overlay.upper, undo="closed", uid_map=uids, gid_map=gids, **args)
            for word in UPPER:
                yield self.step("adopt", SETUP, f"{overlay.upper}, {word[6:]}", into=word, fd=word)


class ReadonlyRoot(Feature):
    """The root mount read-only; mounts on top of it stay as they are. Linux 5.12, mount_setattr(2)."""

    NAME = "readonly"
    SUMMARY = "the root mount cannot be written; mounts on top of it can"
    NEEDS = (("mnt", "the host's root would become read-only"),)

    def steps(self, ctx: Context) -> Iterator[Step]:
        yield self.step("remount", SETUP, "/ ro", path="/", set=MOUNT_ATTR_RDONLY, clear=0, flags=0)


class NoDev(Feature):
    """Device nodes in the root and in binds cannot be opened: only those of /dev, which the container's own tmpfs has.

    Without it a node that an image or a volume holds is the host's device, whatever the capabilities (who makes nodes
    needs CAP_MKNOD, who opens them needs permission only) and in user namespaces as well; docker leaves that to the
    ``devices`` group. Left as they are: binds of the host's /dev, and binds with ``dev``. mount(8), MOUNT_ATTR_NODEV,
    Linux 5.12.
    """

    NAME = "nodev"
    SUMMARY = "device nodes of the image and of volumes cannot be opened"
    NEEDS = (("mnt", "it would be said of the host's mounts"),)

    def steps(self, ctx: Context) -> Iterator[Step]:
        a_mount = ctx.has("pivot_root") or (ctx.has("chroot") and own(ctx, "mnt"))
        if a_mount and not ctx.has("overlay"):  # an overlay has it from its beginning
            yield attributes(self, ROOT, "/ nodev", set=MOUNT_ATTR_NODEV, flags=RECURSIVE)
