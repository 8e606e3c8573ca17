"""Joining a container that runs: what ``exec`` does instead of making namespaces, mounts and cgroups.

A start makes its world in PREPARE to SETUP, and confines its program in LOCK to EXEC. Who joins enters that world, and
then does the same LOCK to EXEC again, from the same wishes. So :class:`Join` stands for all that was made, and the
classes below for the few wishes that do both.

Not in the registry: nobody can wish them for a container.
"""

from __future__ import annotations

from minictr.errors import SpecError
from minictr.features.namespaces import Namespace, UserNamespace
from minictr.features.process import Cwd, Tty
from minictr.steps import LOCK, PREPARE, SETUP, VERIFY, Context, Feature, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

EPERM = 1
SIBLING, ORPHAN = 1, 2  # enum mc_fork_flag of the core
PROCESS, ROOT, CLOCKS = "process", "root", "ns:time"  # words for descriptors


def enter_groups(groups: tuple[tuple[str, int, str], ...]) -> Iterator[Step]:
    """The steps into cgroups that are there: rows of (controller, version, directory)."""
    for controller, version, directory in groups:
        place = {"controller": controller, "version": version, "directory": directory}
        yield Step("open_cgroup", PREPARE, place, controller, directory)
        yield Step("cgroup_enter", SETUP, {"fd": f"cgroup:{controller}"}, controller, directory)


class Groups(Feature):
    """Cgroups of the caller's (:class:`minictr.Cgroup`) that the container is started in; they stay when it is over.

    ``groups``: rows of (controller, version, directory, the same as a path below the mounted hierarchy). Where the
    container has a group of its own for a controller, that one is made below the caller's: both limits hold.
    """

    NAME = "cgroup"
    SUMMARY = "started in cgroups of the caller's"

    groups: tuple[tuple[str, int, str, str], ...] = ()

    def check(self) -> None:
        if not self.groups:
            raise SpecError("cgroup: it has no group of any controller")

    def parent_of(self, controller: str) -> str:
        """Where the container's own group for CONTROLLER is made; "" where the caller has none."""
        return next((path for name, _, _, path in self.groups if name == controller), "")

    def steps(self, ctx: Context) -> Iterator[Step]:
        if ctx.has("cgroup_parent"):
            raise SpecError("cgroup and cgroup_parent both say where the groups are made: leave one of them out")
        own = {controller for feature in ctx.features for controller in getattr(feature, "controllers", tuple)()}
        # on v2 one directory is for all controllers: born in a group of its own below, it is in the caller's as well
        below = any(version == 2 and name in own for name, version, _, _ in self.groups)
        rows = (row[:3] for row in self.groups if row[0] not in own and not (row[1] == 2 and below))
        yield from enter_groups(tuple(rows))


class Join(Feature):
    """The namespaces, the root and the cgroups of a running process are entered.

    ``pid``: of that process; its pidfd is the descriptor "process". ``kinds``: the namespaces, as features.
    ``at_once``: by one setns(2) on the pidfd (Linux 5.8); otherwise one after another by their files. ``root``: whether
    its root directory must be entered, as no mount namespace brings it. ``pivoted``: that root is a mount.
    ``groups``: rows of (controller, version, directory). ``detached``: nobody outside is the program's parent.
    """

    NAME = "join"
    SUMMARY = "the namespaces, root and cgroups of a running container"

    pid: int
    kinds: tuple[Namespace, ...] = ()
    at_once: bool = True
    root: bool = False
    pivoted: bool = False
    groups: tuple[tuple[str, int, str], ...] = ()
    detached: bool = False

    def steps(self, ctx: Context) -> Iterator[Step]:
        yield self.step("open_process", PREPARE, f"{self.pid}, still running", pid=self.pid, root=self.root)
        yield from enter_groups(self.groups)
        if any(kind.name == "userns" for kind in self.kinds):
            # an ordinary user may not, and brings only groups that are his own
            yield self.step("setgroups", SETUP, "none of the caller's", tolerate=(EPERM,), groups=b"")
        yield from self._namespaces()
        if self.root:
            yield self.step("enter_root", SETUP, f"/proc/{self.pid}/root", fd=ROOT)
        if self.pivoted:
            yield self.step("verify_root", VERIFY, "/")
        if any(kind.name == "pid" for kind in self.kinds):
            yield self.step("fork", LOCK, "born in its pid namespace", flags=SIBLING)
        if self.detached:
            yield self.step("fork", LOCK, "left to the first process there", flags=ORPHAN)

    def _namespaces(self) -> Iterator[Step]:
        together = [kind for kind in self.kinds if self.at_once and kind.name != "timens"]
        if together:
            flags = sum(kind.FLAG for kind in together)
            yield self.step("setns", SETUP, " ".join(kind.name for kind in together), fd=PROCESS, flags=flags)
        for kind in self.kinds:
            if kind in together:
                continue
            # an init stays in the time namespace it was born in: what it made is for its children (time_namespaces(7))
            word = "time_for_children" if kind.name == "timens" else kind.KIND
            path, into = f"/proc/{self.pid}/ns/{word}", f"ns:{kind.KIND}"
            yield kind.step("open_namespace", PREPARE, f"{kind.KIND} {path}", into=into, path=path, kind=kind.KIND)
            yield kind.step("setns", SETUP, f"{kind.KIND} {path}", fd=into, flags=kind.FLAG)


class JoinedUserNamespace(UserNamespace):
    """What is left to do in a user namespace that somebody else made and mapped, and :class:`Join` enters."""

    NAME = "userns"

    def steps(self, ctx: Context) -> Iterator[Step]:
        # The joining process often is nobody in there: root inside it must be, where there is one.
        if self.setgroups and not self.join:
            yield self.step("setgroups", SETUP, "none", groups=b"")
        if self.maps_gid(0):
            yield self.step("setresgid", SETUP, "0", gid=0)
        if self.maps_uid(0):
            yield self.step("setresuid", SETUP, "0", uid=0)


class JoinedCwd(Cwd):
    """The working directory, which must be there: only its start makes a container's directories."""

    NAME = "cwd"

    def steps(self, ctx: Context) -> Iterator[Step]:
        return (step for step in super().steps(ctx) if step.phase == LOCK)


class JoinedTty(Tty):
    """A terminal of the devpts that is there; /dev/console stays as it is."""

    NAME = "tty"
    NEEDS = Tty.NEEDS[1:]  # whether there is a devpts, the container will say

    def steps(self, ctx: Context) -> Iterator[Step]:
        return (step.replace(args={**step.args, "flags": 0}) for step in super().steps(ctx))
