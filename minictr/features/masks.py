"""Masked and read-only paths: what of /proc and /sys is hidden, or cannot be written. mount(2), mount_setattr(2)."""

from __future__ import annotations

from minictr.features.check import frozen, inside, sequence
from minictr.features.mounts import MOUNT_ATTR_RDONLY, NEEDS_MNT, NOFOLLOW
from minictr.features.namespaces import own
from minictr.steps import SETUP, Context, Feature, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, ClassVar

ABSENT = (2, 20)  # ENOENT, ENOTDIR


class Paths(Feature):
    """What masked and read-only paths have in common: a list, looked at once more when all is mounted."""

    CALL: ClassVar[str] = ""
    NEEDS = (NEEDS_MNT,)

    paths: tuple[str, ...]

    def check(self) -> None:
        listed = sequence(self.paths, f"{self.NAME} paths")
        frozen(self, "paths", tuple(inside(path, f"{self.NAME} path", root=False) for path in listed))

    def steps(self, ctx: Context) -> Iterator[Step]:
        for path in self.paths:
            yield self.step(self.CALL, SETUP, path, path=path)
        if self.paths:
            about = f"{len(self.paths)} {self.NAME.replace('_', ' ')}"
            yield self.step("verify_paths", SETUP, about, masked=int(self.CALL == "mask"), paths=list(self.paths))


class MaskedPaths(Paths):
    """Nothing is to be seen at these paths: an empty read-only file or directory lies over each. mount(2)."""

    NAME = "masked_paths"
    SUMMARY = "paths of /proc and /sys that tell about or reach the host, hidden"
    CALL = "mask"


class ReadonlyPaths(Paths):
    """These paths, and what is mounted below them, cannot be written. Linux 5.12, mount_setattr(2).

    ``writable``: what is left writable, in them or in another read-only mount, where the container has a network of its
    own: /proc/sys/net is that one's.
    """

    NAME = "readonly_paths"
    SUMMARY = "paths of /proc that set up the host, read-only"
    CALL = "readonly_path"

    writable: tuple[str, ...] = ()

    def check(self) -> None:
        super().check()
        listed = sequence(self.writable, f"{self.NAME} writable")
        frozen(self, "writable", tuple(inside(path, f"{self.NAME} writable", root=False) for path in listed))

    def steps(self, ctx: Context) -> Iterator[Step]:
        writable = self.writable if own(ctx, "net") else ()
        for path in writable:  # a mount of its own first, which the next ones take along
            yield self.step(self.CALL, SETUP, f"{path}, a mount of its own", path=path)
        yield from super().steps(ctx)
        for path in writable:
            args: dict[str, Any] = {"path": path, "set": 0, "clear": MOUNT_ATTR_RDONLY, "flags": NOFOLLOW}
            yield self.step("remount", SETUP, f"{path} rw", tolerate=ABSENT, **args)
