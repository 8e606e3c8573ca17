"""/sys/fs/cgroup inside the container: its own groups, seen as the roots of their hierarchies. cgroup_namespaces(7)."""

from __future__ import annotations

from minictr.errors import SpecError
from minictr.features.check import choice, frozen, sequence, shown, word
from minictr.features.controllers import wanted_controllers
from minictr.features.mounts import MOUNT_ATTR_RDONLY, NEEDS_MNT, NOFOLLOW, PLAIN, fresh
from minictr.steps import SETUP, Context, Feature, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    Hierarchy = tuple[int, str, tuple[str, ...]]

TOP = "/sys/fs/cgroup"


class Cgroupfs(Feature):
    """The container's groups as files on /sys/fs/cgroup: v2's one tree, or a directory a hierarchy as on v1 and hybrid
    hosts. Linux 4.6 (cgroup namespaces).

    ``mode`` "ro", or "rw" for an init that makes groups of its own below. Only hierarchies in which the container has
    a group of its own are there. ``hierarchies``: those of the host as (version, directory, controllers), found by the
    runtime (``runtime.resolve``); one v2 tree where nobody has looked.
    """

    NAME = "cgroupfs"
    SUMMARY = "its own cgroups as files on /sys/fs/cgroup"
    NEEDS = (
        NEEDS_MNT,
        ("sysfs", "/sys/fs/cgroup would be made in the image"),
        ("cgroupns", "it would show, and with rw give away, groups that are not its own"),
    )

    mode: str = "ro"
    hierarchies: tuple[Hierarchy, ...] = ()

    def check(self) -> None:
        choice(self.mode, "cgroupfs mode", ("ro", "rw"))
        rows = tuple(sequence(row, "cgroupfs hierarchy") for row in sequence(self.hierarchies, "cgroupfs hierarchies"))
        for row in rows:
            if len(row) != 3 or row[0] not in (1, 2) or "/" in word(row[1], "cgroupfs directory", empty=True):
                raise SpecError(f"cgroupfs: {shown(row)} is not (version, directory, controllers)")
        found = tuple((row[0], row[1], tuple(sequence(row[2], "cgroupfs controllers"))) for row in rows)
        frozen(self, "hierarchies", found)

    def own(self, ctx: Context) -> tuple[Hierarchy, ...]:
        """The hierarchies in which the container has a group: each controller is in the v1 hierarchy that names it,
        else in v2."""
        known = self.hierarchies or ((2, "", ()),)
        wanted = set(wanted_controllers(ctx))
        legacy = tuple(row for row in known if row[0] == 1 and not wanted.isdisjoint(row[2]))
        left = wanted.difference(*(row[2] for row in known if row[0] == 1), {"cpuacct"})
        return legacy + tuple(row for row in known if row[0] == 2 and left)

    def steps(self, ctx: Context) -> Iterator[Step]:
        own = self.own(ctx)
        attr = PLAIN | (MOUNT_ATTR_RDONLY if self.mode == "ro" else 0)
        base = not any(row[0] == 2 and not row[1] for row in own)  # else v2 is the top itself
        if base:
            yield fresh(self, "tmpfs", TOP, options=["mode=755", "size=64k"])
        for version, directory, controllers in own:
            path = f"{TOP}/{directory}" if directory else TOP
            options = [] if version == 2 else [mount_option(name) for name in controllers]
            fstype = "cgroup2" if version == 2 else "cgroup"
            yield fresh(self, fstype, path, f"{fstype} on {path} {self.mode}", options=options, attr=attr)
            for name in controllers if version == 1 and len(controllers) > 1 else ():
                link = f"{TOP}/{name}"
                yield self.step("symlink", SETUP, f"{link} -> {directory}", target=directory, path=link)
        if base and self.mode == "ro":
            yield self.step("remount", SETUP, f"{TOP} ro", path=TOP, set=MOUNT_ATTR_RDONLY, clear=0, flags=NOFOLLOW)


def mount_option(controller: str) -> str:
    """What mount(8) of v1 calls a controller: "blkio" for io, "name=systemd" for named:systemd."""
    return {"io": "blkio"}.get(controller, controller).replace("named:", "name=")
