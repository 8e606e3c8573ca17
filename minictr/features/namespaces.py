"""Namespaces: a world of one's own, one kind each. namespaces(7), clone(2), setns(2).

Every class makes a new namespace, or with ``join`` enters the one whose file (``/proc/PID/ns/KIND``, or a bind of it)
is given. New ones are flags of the one clone3 call that makes the child; inside a *joined* user namespace they are
made afterwards, with unshare(2), so that the joined one owns them.
"""

from __future__ import annotations

from minictr.errors import SpecError
from minictr.features.check import ID_MAX, choice, frozen, integer, sequence, word
from minictr.steps import ATTACH, CLONE, LOCK, PREPARE, SETUP, Context, Feature, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import ClassVar

CLONE_NEWTIME = 0x00000080  # linux/sched.h
CLONE_NEWNS = 0x00020000  # linux/sched.h
CLONE_NEWCGROUP = 0x02000000  # linux/sched.h
CLONE_NEWUTS = 0x04000000  # linux/sched.h
CLONE_NEWIPC = 0x08000000  # linux/sched.h
CLONE_NEWUSER = 0x10000000  # linux/sched.h
CLONE_NEWPID = 0x20000000  # linux/sched.h
CLONE_NEWNET = 0x40000000  # linux/sched.h
MS_REC = 0x4000  # linux/mount.h
MS_PRIVATE = 1 << 18  # linux/mount.h
MS_SLAVE = 1 << 19  # linux/mount.h
MS_SHARED = 1 << 20  # linux/mount.h
PROC_SUPER_MAGIC = 0x9FA0  # linux/magic.h
OFFSET_MAX = (1 << 32) - 1  # kernel/time/namespace.c refuses what comes near KTIME_SEC_MAX / 2
AUTO = "auto"  # a map that is decided at the start
LEASED = (-1, -1)  # as (uid, gid): root of a user namespace with such maps
AUTO_MAX = 1 << 24  # ids of an automatic range: 256 times what a distribution gives a user
ID_MAP_ROWS = 340  # UID_GID_MAP_MAX_EXTENTS, linux/user_namespace.h; Linux 4.15
# The features that give the container a group of its own: classes of features/controllers, cgroups, cgroup_devices
GROUPED = frozenset(
    "memory cpu cpuset pids io devices hugetlb rdma misc freezer named_cgroup cgroup_conf cgroup".split()
)
OF_GROUPS = frozenset({"cgroup_parent", "cgroupfs"})  # what needs one of them, whichever
PROPAGATIONS = {
    "private": MS_PRIVATE,
    "rprivate": MS_PRIVATE,
    "slave": MS_SLAVE,
    "rslave": MS_SLAVE,
    "shared": MS_SHARED,
    "rshared": MS_SHARED,
}


def own(ctx: Context, name: str) -> bool:
    """Whether the container has a NAME namespace made for it alone: present, and not joined."""
    found = ctx.get(name)
    return found is not None and not found.join


class Namespace(Feature):
    """What the eight kinds have in common: a clone flag, and the word under /proc/PID/ns."""

    FLAG: ClassVar[int] = 0
    KIND: ClassVar[str] = ""

    def enter(self, ctx: Context, join: str) -> Iterator[Step]:
        """The steps that make the namespace, or join the one at JOIN."""
        user = ctx.get("userns")
        if join:
            into = f"ns:{self.KIND}"
            yield self.step("open_namespace", PREPARE, f"{self.KIND} {join}", into=into, path=join, kind=self.KIND)
            yield self.step("setns", SETUP, f"{self.KIND} {join}", fd=into, flags=self.FLAG)
        elif user is not None and user.join and user is not self:
            yield self.step("unshare", SETUP, f"new {self.KIND} namespace", flags=self.FLAG)
        else:
            yield self.step("clone", CLONE, f"new {self.KIND} namespace", flags=self.FLAG)


class MountNamespace(Namespace):
    """A mount table of its own. Linux 2.4.19, mount_namespaces(7).

    ``propagation`` is what mounts mean across its border, always for the whole tree: ``private`` nothing crosses,
    ``slave`` the host's later mounts come in, ``shared`` mounts are shared among namespaces made *inside* the
    container. No choice lets a mount made inside reach the host. The r-words of docker mean the same.
    """

    NAME = "mnt"
    SUMMARY = "its own mount table; nothing mounted inside is seen outside"
    FLAG = CLONE_NEWNS
    KIND = "mnt"

    propagation: str = "private"
    join: str = ""

    def check(self) -> None:
        choice(self.propagation, "mnt propagation", PROPAGATIONS)
        word(self.join, "mnt join", empty=True)

    def steps(self, ctx: Context) -> Iterator[Step]:
        yield from self.enter(ctx, self.join)
        if self.join:
            return
        wanted = PROPAGATIONS[self.propagation]
        # Shared mounts of the copied table still lead to the host: cut them first, share anew when all is mounted.
        first = MS_PRIVATE if wanted == MS_SHARED else wanted
        words = "slave" if first == MS_SLAVE else "private"
        yield self.step("propagation", SETUP, f"{words} /", path="/", flags=MS_REC | first)
        if wanted == MS_SHARED:
            yield self.step("propagation", LOCK, "shared /", path="/", flags=MS_REC | MS_SHARED)


class UtsNamespace(Namespace):
    """A host name and NIS domain name of its own. Linux 2.6.19, uts_namespaces(7)."""

    NAME = "uts"
    SUMMARY = "its own host name and NIS domain name"
    FLAG = CLONE_NEWUTS
    KIND = "uts"

    join: str = ""

    def check(self) -> None:
        word(self.join, "uts join", empty=True)

    def steps(self, ctx: Context) -> Iterator[Step]:
        yield from self.enter(ctx, self.join)


class IpcNamespace(Namespace):
    """System V IPC objects and POSIX message queues of its own. Linux 2.6.19, ipc_namespaces(7)."""

    NAME = "ipc"
    SUMMARY = "its own System V IPC objects and POSIX message queues"
    FLAG = CLONE_NEWIPC
    KIND = "ipc"

    join: str = ""

    def check(self) -> None:
        word(self.join, "ipc join", empty=True)

    def steps(self, ctx: Context) -> Iterator[Step]:
        yield from self.enter(ctx, self.join)


class PidNamespace(Namespace):
    """Process ids of its own, from 1. Linux 2.6.24, pid_namespaces(7).

    Joining decides where *children* go, so the parent enters it around the clone and leaves again.
    """

    NAME = "pid"
    SUMMARY = "its own process ids; the first process is number 1"
    FLAG = CLONE_NEWPID
    KIND = "pid"

    join: str = ""

    def check(self) -> None:
        word(self.join, "pid join", empty=True)

    def steps(self, ctx: Context) -> Iterator[Step]:
        if not self.join:
            yield from self.enter(ctx, "")
            return
        yield self.step("open_namespace", PREPARE, f"pid {self.join}", into="ns:pid", path=self.join, kind="pid")
        yield self.step("enter_pidns", CLONE, f"pid {self.join}", undo="the parent's own is set again", fd="ns:pid")


class NetNamespace(Namespace):
    """Network devices, addresses, routes and ports of its own. Linux 2.6.29, network_namespaces(7).

    The dearest of the eight: its making and its end cost more than those of all the others together.
    """

    NAME = "net"
    SUMMARY = "its own network devices, addresses, routes and ports"
    FLAG = CLONE_NEWNET
    KIND = "net"

    join: str = ""

    def check(self) -> None:
        word(self.join, "net join", empty=True)

    def steps(self, ctx: Context) -> Iterator[Step]:
        yield from self.enter(ctx, self.join)


class CgroupNamespace(Namespace):
    """Its own cgroup shown as the root of the hierarchy. Linux 4.6, cgroup_namespaces(7).

    Without a group of the container's own, the group it is started from.
    """

    NAME = "cgroupns"
    SUMMARY = "its own cgroup is shown to it as the root of all cgroups"
    FLAG = CLONE_NEWCGROUP
    KIND = "cgroup"

    join: str = ""

    def check(self) -> None:
        word(self.join, "cgroupns join", empty=True)

    def steps(self, ctx: Context) -> Iterator[Step]:
        if self.join or GROUPED.isdisjoint(ctx.names):
            yield from self.enter(ctx, self.join)
        else:
            # the group one is in when it is made becomes its root: not before the container's own was entered
            yield self.step("unshare", SETUP, "new cgroup namespace", flags=self.FLAG)


class TimeNamespace(Namespace):
    """The monotonic and boot clocks moved by an offset. Linux 5.6, time_namespaces(7).

    ``monotonic`` and ``boottime`` are seconds, whole or not, added to what the host shows. The offsets must be written
    before any process is inside, so the child unshares, writes, and goes in by setns(2).
    """

    NAME = "timens"
    SUMMARY = "its own monotonic and boot clocks, moved by an offset"
    FLAG = CLONE_NEWTIME
    KIND = "time"

    monotonic: float = 0
    boottime: float = 0
    join: str = ""

    def check(self) -> None:
        word(self.join, "timens join", empty=True)
        for clock in ("monotonic", "boottime"):
            value = getattr(self, clock)
            if not isinstance(value, (int, float)) or isinstance(value, bool) or not -OFFSET_MAX <= value <= OFFSET_MAX:
                raise SpecError(f"timens {clock}: {value!r} is not a number of seconds within {OFFSET_MAX} of zero")
        if self.join and (self.monotonic or self.boottime):
            raise SpecError("timens: offsets of a joined time namespace are fixed: give offsets or join, not both")

    def steps(self, ctx: Context) -> Iterator[Step]:
        if self.join:
            yield from self.enter(ctx, self.join)
            return
        yield self.step("unshare", SETUP, "new time namespace", flags=self.FLAG)
        if self.monotonic or self.boottime:
            data = offset_row("monotonic", self.monotonic) + offset_row("boottime", self.boottime)
            about = f"monotonic {self.monotonic:+g} s, boottime {self.boottime:+g} s"
            path = "/proc/self/timens_offsets"
            yield self.step("write_file", SETUP, about, path=path, data=data.encode(), magic=PROC_SUPER_MAGIC)
        yield self.step("setns_time", SETUP, "in: unshare(2) moves children only")


def offset_row(clock: str, seconds: float) -> str:
    """A row of /proc/PID/timens_offsets; nanoseconds count upwards from the second below, also for negative offsets."""
    nanoseconds = seconds * 1_000_000_000 if isinstance(seconds, int) else round(seconds * 1_000_000_000)
    whole, part = divmod(nanoseconds, 1_000_000_000)
    return f"{clock} {whole} {part}\n"


class UserNamespace(Namespace):
    """User ids, group ids and capabilities of its own. Linux 3.8, user_namespaces(7).

    A map is rows of (first id inside, first id outside, how many). Empty maps: 0 inside is the caller outside, and no
    other id; that is all an ordinary user can have without newuidmap. Group maps of a single id go with setgroups
    denied, as the kernel demands of ordinary users (CVE-2014-8989).

    ``auto``: so many ids from 0 on, mapped to ids that no user of the host and no other container has; which, is
    decided at the start, and they are given back with the container's end.
    """

    NAME = "userns"
    SUMMARY = "its own user and group ids; root inside is nobody special outside"
    FLAG = CLONE_NEWUSER
    KIND = "user"

    uid_map: tuple[tuple[int, int, int], ...] = ()
    gid_map: tuple[tuple[int, int, int], ...] = ()
    join: str = ""
    auto: int = 0

    def check(self) -> None:
        word(self.join, "userns join", empty=True)
        frozen(self, "uid_map", checked_map(self.uid_map, "userns uid_map"))
        frozen(self, "gid_map", checked_map(self.gid_map, "userns gid_map"))
        if self.join and (self.uid_map or self.gid_map):
            raise SpecError("userns: the maps of a joined user namespace are fixed: give maps or join, not both")
        if bool(self.uid_map) != bool(self.gid_map):
            raise SpecError("userns: one of uid_map and gid_map is empty: give both, or neither for the caller alone")
        integer(self.auto, "userns auto", 0, AUTO_MAX)
        if self.auto and (self.join or self.uid_map):
            raise SpecError("userns: auto chooses the maps: give auto, maps or join, one of them")

    @property
    def uids(self) -> tuple[tuple[int, int], ...]:
        """The user ids that exist inside, as (first, count). Of a joined namespace nothing is known."""
        return inside_ids(self.uid_map, self.auto)

    @property
    def gids(self) -> tuple[tuple[int, int], ...]:
        """The group ids that exist inside."""
        return inside_ids(self.gid_map, self.auto)

    @property
    def texts(self) -> tuple[str, str]:
        """uid_map and gid_map as steps have them: rows of /proc/PID/uid_map, "" for the caller alone, or AUTO."""
        return (AUTO, AUTO) if self.auto else (map_text(self.uid_map), map_text(self.gid_map))

    @property
    def changes_ids(self) -> bool:
        """Whether it has maps to show owners through: more than the caller alone."""
        return bool(self.auto or self.uid_map)

    @property
    def setgroups(self) -> bool:
        """Whether processes inside may set supplementary groups."""
        return bool(self.join) or sum(count for _, count in self.gids) > 1

    def maps_uid(self, uid: int) -> bool:
        """Whether UID exists inside. A joined namespace is not known: the kernel will say."""
        return bool(self.join) or mapped(self.uids, uid)

    def maps_gid(self, gid: int) -> bool:
        """Whether GID exists inside."""
        return bool(self.join) or mapped(self.gids, gid)

    def steps(self, ctx: Context) -> Iterator[Step]:
        yield from self.enter(ctx, self.join)
        if self.auto:
            yield self.step("lease_ids", PREPARE, f"{self.auto} free ones", undo="given back", count=self.auto)
        if not self.join:
            uids, gids = self.texts
            told = [f"0+{self.auto} -> those"] * 2 if self.auto else [told_map(self.uid_map), told_map(self.gid_map)]
            yield self.step("uid_map", ATTACH, told[0], map=uids)
            allow = "allow" if self.setgroups else "deny"
            yield self.step("gid_map", ATTACH, f"{told[1]}, setgroups {allow}", map=gids, setgroups=allow)
        # The child still is its old self, which often is nobody in the new map: what it makes belongs to root inside.
        if self.changes_ids or self.join:
            if self.setgroups and not self.join:
                yield self.step("setgroups", SETUP, "none", groups=b"")
            if self.maps_gid(0):
                yield self.step("setresgid", SETUP, "0", gid=0)
            if self.maps_uid(0):
                yield self.step("setresuid", SETUP, "0", uid=0)
        if not self.join and not ctx.has("capabilities"):
            # the core raises all of them to carry them across the exec of an unmapped user
            yield self.step("ambient", LOCK, "none", ambient=0)


def checked_map(rows: object, what: str) -> tuple[tuple[int, int, int], ...]:
    """ROWS as tuples of three numbers, within bounds and not overlapping on either side."""
    found: list[tuple[int, int, int]] = []
    for row in sequence(rows, what):
        three = sequence(row, f"{what} row")
        if len(three) != 3:
            raise SpecError(f"{what}: {three!r} is not (inside, outside, count)")
        first, outside = integer(three[0], what, 0, ID_MAX), integer(three[1], what, 0, ID_MAX)
        count = integer(three[2], f"{what} count", 1, ID_MAX + 1 - max(first, outside))
        found.append((first, outside, count))
    if len(found) > ID_MAP_ROWS:
        raise SpecError(f"{what}: {len(found)} rows, the kernel takes {ID_MAP_ROWS}")
    for side, words in ((0, "inside"), (1, "outside")):
        ranges = sorted((row[side], row[side] + row[2]) for row in found)
        for (_, end), (start, _) in zip(ranges, ranges[1:], strict=False):
            if start < end:
                raise SpecError(f"{what}: id {start} {words} is mapped twice")
    return tuple(found)


def inside_ids(rows: tuple[tuple[int, int, int], ...], auto: int) -> tuple[tuple[int, int], ...]:
    """(first, count) of what ROWS map, or AUTO from 0 on; without either 0 alone."""
    return tuple((first, count) for first, _, count in rows) or ((0, auto or 1),)


def mapped(ids: tuple[tuple[int, int], ...], number: int) -> bool:
    """Whether NUMBER is among IDS, rows of (first, count)."""
    return any(first <= number < first + count for first, count in ids)


def map_text(rows: tuple[tuple[int, int, int], ...]) -> str:
    """The content of /proc/PID/uid_map; "" for empty ROWS: the executor puts the caller's own id in."""
    return "".join(f"{first} {outside} {count}\n" for first, outside, count in rows)


def told_map(rows: tuple[tuple[int, int, int], ...]) -> str:
    """ROWS in words, for the plan."""
    return ", ".join(f"{first}+{count} -> {outside}" for first, outside, count in rows) or "0 -> the caller"
