"""Control groups: what a container may use of memory, processors and process numbers, and where its groups stand.

Every controller is a feature of its own, with the same settings on v1, v2 and hybrid hosts: which file that is, and in
which hierarchy, is the hand's matter (:mod:`minictr.kernel.cgroups`). A controller asked for without settings is a
group without limits: it counts, and can be limited later. None stands for "not written", -1 for "no limit".
cgroups(7), Documentation/admin-guide/cgroup-v2.rst. What works on devices is in :mod:`minictr.features.cgroup_devices`.
"""

from __future__ import annotations

from minictr.errors import SpecError
from minictr.features.check import choice, decimal, frozen, integer, sequence, shown, size, word
from minictr.features.namespaces import LEASED
from minictr.steps import PREPARE, SETUP, Context, Feature, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any, ClassVar

    Settings = tuple[tuple[str, Any], ...]

UNLIMITED = -1
PAGE = 4096  # bytes: less is none to the kernel, which counts pages
PERIOD = 100_000  # microseconds: the kernel's default, default_cfs_period of kernel/sched/fair.c
QUOTA_MIN, PERIOD_MAX = (
    1000,
    1_000_000,
)  # microseconds: min_cfs_quota_period, max_cfs_quota_period of kernel/sched/core.c
QUOTA_MAX = (1 << 44) - 1  # microseconds: max_bw_cap of kernel/sched/core.c
CPU_MAX = 8191  # CONFIG_NR_CPUS may be up to 8192
NAME_MAX = 64  # MAX_CGROUP_ROOT_NAMELEN, kernel/cgroup/cgroup-internal.h


def limit(value: object, what: str, *, low: int = 0) -> int | None:
    """Bytes from a size, -1 from ``"max"``, ``"unlimited"`` or -1, None as it is."""
    if value is None:
        return None
    if value in ("max", "unlimited", "-1") or (value == UNLIMITED and not isinstance(value, (bool, float))):
        return UNLIMITED
    return size(value, what, low=low)


def count(value: object, what: str, low: int, high: int) -> int | None:
    """A whole number between LOW and HIGH, None as it is."""
    return None if value is None else integer(value, what, low, high)


def truth(value: object, what: str) -> bool | None:
    """True, False, None as it is."""
    if value is not None and not isinstance(value, bool):
        raise SpecError(f"{what}: {shown(value)} is not True or False")
    return value


def pairs(value: object, what: str) -> tuple[tuple[Any, Any], ...]:
    """Rows of two from a mapping, or from a tuple of such rows; no first half twice."""
    listed = value.items() if isinstance(value, dict) else sequence(value, what)
    rows = tuple(sequence(row, f"{what} row") for row in listed)
    for row in rows:
        if len(row) != 2:
            raise SpecError(f"{what}: {shown(row)} is not two things, a name and its value")
        if sum(other[0] == row[0] for other in rows) > 1:
            raise SpecError(f"{what}: {shown(row[0])} is given twice")
    return rows


def said(**settings: Any) -> Settings:
    """The settings that are not None, as the hand takes them; truth as 1 and 0."""
    return tuple(
        (name, int(value) if isinstance(value, bool) else value)
        for name, value in settings.items()
        if value is not None
    )


def told(value: object) -> str:
    """A setting in words, for the plan."""
    if value == UNLIMITED:
        return "unlimited"
    if isinstance(value, tuple):
        return "+".join(":".join(map(str, item)) if isinstance(item, tuple) else str(item) for item in value)
    return str(value)


def owner_of_groups(ctx: Context) -> tuple[int, ...]:
    """Root of a user namespace of the container's own, as (uid, gid) outside, where it may make groups below
    (cgroupfs "rw"); () for who makes them."""
    user, shown = ctx.get("userns"), ctx.get("cgroupfs")
    if user is None or user.join or shown is None or shown.mode != "rw":
        return ()
    if user.auto:
        return LEASED
    ids = tuple(outside for rows in (user.uid_map, user.gid_map) for inside, outside, _ in rows if inside == 0)
    return ids if len(ids) == 2 else ()


class Controller(Feature):
    """What all controllers have in common: a group of the container's own, made before it and entered first of all.

    The child enters by writing to a descriptor that the parent opened (v1), or is born inside (v2): nothing the
    container does is ever counted elsewhere.
    """

    CONTROLLERS: ClassVar[tuple[str, ...]] = ()  # the kernel's words; NAME where it is empty

    def settings(self) -> Settings:
        """What is written into the group: (name, value), names as in ``minictr.kernel.cgroups``."""
        return ()

    def controllers(self) -> tuple[str, ...]:
        """The controllers this wish needs a group of."""
        return self.CONTROLLERS or (self.NAME,)

    def steps(self, ctx: Context) -> Iterator[Step]:
        where, callers, owner = ctx.get("cgroup_parent"), ctx.get("cgroup"), owner_of_groups(ctx)
        for position, controller in enumerate(self.controllers()):
            settings = () if position else self.settings()
            about = ", ".join((controller, *(f"{name} {told(value)}" for name, value in settings)))
            parent = where.path if where is not None else callers.parent_of(controller) if callers else ""
            args: dict[str, Any] = {"controller": controller, "parent": parent, "settings": settings, "owner": owner}
            yield self.step("cgroup", PREPARE, about, undo="rmdir", **args)
            yield self.step("cgroup_enter", SETUP, controller, fd=f"cgroup:{controller}")


class Memory(Controller):
    """Memory, in bytes or "256M". Linux 2.6.29 (v1), 4.5 (v2); memory.max, memory.swap.max.

    ``max``: above it the kernel reclaims, then kills. ``swap``: bytes of swap on top of ``max``, 0 for none. ``high``:
    above it the kernel slows down and reclaims (v2). ``low``: what is kept while others have some to give (v1: the
    soft limit). ``min``: what is kept whatever happens (v2). ``swappiness``: 0 to 200 (v1). ``oom_group``: all are
    killed together (v2, Linux 4.19). ``oom_kill`` False: at the limit processes wait instead of being killed (v1).
    """

    NAME = "memory"
    SUMMARY = "how much memory and swap it may use"

    max: str | int | None = None
    swap: str | int | None = None
    high: str | int | None = None
    low: str | int | None = None
    min: str | int | None = None
    swappiness: int | None = None
    oom_group: bool | None = None
    oom_kill: bool = True

    def check(self) -> None:
        for field in ("max", "swap", "high", "low", "min"):
            frozen(self, field, limit(getattr(self, field), f"memory {field}", low=PAGE if field == "max" else 0))
        count(self.swappiness, "memory swappiness", 0, 200)
        truth(self.oom_group, "memory oom_group")
        truth(self.oom_kill, "memory oom_kill")
        most: Any = self.max
        if self.swap not in (None, UNLIMITED) and most in (None, UNLIMITED):
            raise SpecError("memory: swap is counted on top of max: give max as well, or leave swap out")
        for field in ("high", "low", "min"):
            value: Any = getattr(self, field)
            if most not in (None, UNLIMITED) and value is not None and value > most:
                raise SpecError(f"memory: {field} {value} is above max {most}, and would never be met: give less")
        if not self.oom_kill and (most in (None, UNLIMITED) or self.oom_group):
            raise SpecError("memory: without oom_kill processes wait at max: give max, and no oom_group")

    def settings(self) -> Settings:
        fields = ("max", "swap", "high", "low", "min", "swappiness", "oom_group")
        return said(**{name: getattr(self, name) for name in fields}, oom_kill_disable=None if self.oom_kill else True)


class Cpu(Controller):
    """Processor time. Linux 2.6.24 (v1 shares), 3.2 (quota), 4.15 (v2), 5.14 (burst), 5.15 (idle).

    ``cpus``: so many processors' time at most, as 1.5. Instead of it ``quota`` microseconds in each ``period`` (-1 for
    no limit); ``burst`` may be saved up. ``weight``: 1 to 10000, the share where others want time as well, 100 is
    everybody's; ``shares`` is the same in the measure of v1, 1024 is everybody's. ``idle``: only what nobody wants.
    """

    NAME = "cpu"
    SUMMARY = "how much processor time it may use, and its share of it"
    CONTROLLERS = ("cpu", "cpuacct")  # v1 counts the time in a hierarchy of its own

    cpus: float | None = None
    weight: int | None = None
    quota: int | None = None
    period: int | None = None
    burst: int | None = None
    shares: int | None = None
    idle: bool | None = None

    def check(self) -> None:
        if self.cpus is not None:
            if not isinstance(self.cpus, (int, float)) or isinstance(self.cpus, bool) or not 0 < self.cpus <= CPU_MAX:
                raise SpecError(f"cpu cpus: {shown(self.cpus)} is not a number of processors, as 1.5")
            if self.quota is not None:
                raise SpecError("cpu: cpus and quota say the same thing: give one of them")
        count(self.weight, "cpu weight", 1, 10_000)
        count(self.shares, "cpu shares", 2, 262_144)
        count(self.period, "cpu period", QUOTA_MIN, PERIOD_MAX)
        if self.quota != UNLIMITED:
            count(self.quota, "cpu quota", QUOTA_MIN, QUOTA_MAX)
        count(self.burst, "cpu burst", 0, QUOTA_MAX)
        truth(self.idle, "cpu idle")
        if self.weight is not None and self.shares is not None:
            raise SpecError("cpu: weight and shares say the same thing: give one of them")
        if self.idle and (self.weight is not None or self.shares is not None):
            raise SpecError("cpu: idle has no share of the time: give idle, or weight, not both")
        quota = self.microseconds
        if quota is not None and quota != UNLIMITED and quota < QUOTA_MIN:
            raise SpecError(f"cpu cpus: {self.cpus} is less than the kernel gives, {QUOTA_MIN} us in each period")
        if self.burst and (quota is None or quota == UNLIMITED or self.burst > quota):
            raise SpecError("cpu: burst is saved up from quota, and at most as much: give cpus or quota, or less burst")

    @property
    def microseconds(self) -> int | None:
        """What may be used in each period: ``quota``, or what ``cpus`` makes of it."""
        return self.quota if self.cpus is None else round(self.cpus * (self.period or PERIOD))

    def settings(self) -> Settings:
        period = self.period if self.cpus is None else self.period or PERIOD
        kept = {name: getattr(self, name) for name in ("burst", "weight", "shares", "idle")}
        return said(quota=self.microseconds, period=period, **kept)


class Cpuset(Controller):
    """The processors and memory nodes it may use, as "0-3,5". Linux 2.6.12 (v1), 5.0 (v2); cpuset(7).

    ``partition`` (v2): member, root, isolated. What is "" is as the parent has it.
    """

    NAME = "cpuset"
    SUMMARY = "which processors and memory nodes it may use"

    cpus: str = ""
    mems: str = ""
    partition: str = ""

    def check(self) -> None:
        for field in ("cpus", "mems"):
            checked_list(getattr(self, field), f"cpuset {field}")
        choice(self.partition, "cpuset partition", ("", "member", "root", "isolated"))

    def settings(self) -> Settings:
        return said(**{name: getattr(self, name) or None for name in ("cpus", "mems", "partition")})


def checked_list(text: object, what: str) -> None:
    """cpuset(7), "List format": numbers and ranges with commas between them; "" is no list."""
    listed = word(text, what, limit=4095, empty=True)
    for part in listed.split(",") if listed else ():
        first, dash, last = part.partition("-")
        numbers = (first, last) if dash else (first,)
        if not all(map(decimal, numbers)):
            raise SpecError(f"{what}: {shown(text)} is not a list such as 0-3,5")
        if int(numbers[0]) > int(numbers[-1]) or int(numbers[-1]) > CPU_MAX:
            raise SpecError(f"{what}: {part} is not a range that goes up, to {CPU_MAX} at most")


class Pids(Controller):
    """How many processes and threads there may be at once, -1 for no limit. Linux 4.3 (v1), 4.5 (v2); pids.max."""

    NAME = "pids"
    SUMMARY = "how many processes and threads there may be at once"

    max: int | str | None = None

    def check(self) -> None:
        frozen(self, "max", UNLIMITED if self.max in ("max", "unlimited") else self.max)
        if self.max != UNLIMITED:
            count(self.max, "pids max", 1, 1 << 22)  # PID_MAX_LIMIT, linux/threads.h

    def settings(self) -> Settings:
        return said(max=self.max)


class Freezer(Controller):
    """A group that can be frozen as a whole: pause. Linux 2.6.28 (v1), 5.2 (v2: every group can)."""

    NAME = "freezer"
    SUMMARY = "can be frozen and thawed as a whole"


class NamedCgroup(Controller):
    """A group in a hierarchy without controllers: a named one of v1, or "unified", the v2 hierarchy. Linux 2.6.32.

    systemd in a container needs one in "systemd" and, on a hybrid host, one in "unified". With ``required`` false it
    is made where the host has such a hierarchy, and no wish where it has none.
    """

    NAME = "named_cgroup"
    SUMMARY = "a group in a named hierarchy, as systemd's own"
    MANY = True

    hierarchy: str = "systemd"
    required: bool = True

    def check(self) -> None:
        letters = word(self.hierarchy, "named_cgroup", limit=NAME_MAX - 1)
        for mark in "._-+":
            letters = letters.replace(mark, "")
        if not (letters.isascii() and letters.isalnum()):
            raise SpecError(f"named_cgroup: {shown(self.hierarchy)} is not the name of a hierarchy, as systemd")
        truth(self.required, "named_cgroup required")

    @property
    def label(self) -> str:
        return f"named_cgroup:{self.hierarchy}"

    def controllers(self) -> tuple[str, ...]:
        return ("unified" if self.hierarchy == "unified" else f"named:{self.hierarchy}",)


class CgroupConf(Controller):
    """Files of the v2 group written as they are: (("memory.high", "200M"),) or {"memory.high": "200M"}. Linux 4.5."""

    NAME = "cgroup_conf"
    SUMMARY = "any file of its v2 group, written as given"
    CONTROLLERS = ("raw",)
    # What is written there moves, kills or stops processes, or changes who may: no limit of this container's.
    REFUSED: ClassVar[tuple[str, ...]] = ("procs", "threads", "kill", "freeze", "type", "subtree_control")

    files: tuple[tuple[str, str], ...] | Mapping[str, str]

    def check(self) -> None:
        rows = pairs(self.files, "cgroup_conf")
        for file, text in rows:
            controller, dot, rest = word(file, "cgroup_conf", limit=255).partition(".")
            letters = file.replace(".", "").replace("_", "").replace("-", "")
            if not (controller and dot and rest and letters.isascii() and letters.isalnum()):
                raise SpecError(f"cgroup_conf: {shown(file)} is not a file of a group, as memory.high")
            if controller == "cgroup" and rest in self.REFUSED:
                raise SpecError(f"cgroup_conf: {file} is no limit: it moves, stops or kills processes")
            word(text, f"cgroup_conf {file}", limit=4095)
        if not rows:
            raise SpecError("cgroup_conf: empty: give a file and its text, or leave cgroup_conf out")
        frozen(self, "files", rows)

    def settings(self) -> Settings:
        return (("files", self.files),)


class CgroupParent(Feature):
    """Where the container's groups are made: below the caller's own in each hierarchy, at PATH.

    A PATH that begins with "/" is looked for below the root of the hierarchy. Nothing there is changed but that the
    container's group is made, and missing groups on the way.
    """

    NAME = "cgroup_parent"
    SUMMARY = "the group that its groups are made below"

    path: str

    def check(self) -> None:
        parts = word(self.path, "cgroup_parent").split("/")
        if ".." in parts:
            raise SpecError(f"cgroup_parent: {shown(self.path)} holds '..': write the path it means")
        kept = [part for part in parts if part not in ("", ".")]
        if any(len(part.encode("utf-8", "surrogateescape")) > 255 for part in kept):
            raise SpecError(f"cgroup_parent: {shown(self.path)} holds a name of more than 255 bytes")
        frozen(self, "path", ("/" if self.path.startswith("/") else "") + "/".join(kept))
        if not self.path:
            raise SpecError("cgroup_parent: names no group: leave it out for the caller's own")

    def steps(self, ctx: Context) -> Iterator[Step]:
        return iter(())


def wanted_controllers(ctx: Context) -> tuple[str, ...]:
    """Every controller that some feature of the spec needs a group of, in order."""
    return tuple(
        controller
        for feature in ctx.features
        if isinstance(feature, Controller)
        for controller in feature.controllers()
    )
