"""Control groups: what a container may use of memory, processors and process numbers, and where its groups stand.

Every controller is a feature of its own, with the same settings on v1, v2 and hybrid hosts: which file that is, and in
which hierarchy, is the hand's matter (:mod:`minictr.kernel.cgroups`). A controller asked for without settings is a
group without limits: it counts, and can be limited later. None stands for "not written", -1 for "no limit".
cgroups(7), Documentation/admin-guide/cgroup-v2.rst. What works on devices is in :mod:`minictr.features.cgroup_devices`,
``pids``, ``freezer`` and what all have in common in :mod:`minictr.features.controllers`.
"""

from __future__ import annotations

from minictr.errors import SpecError
from minictr.features.check import choice, decimal, frozen, shown, word
from minictr.features.controllers import UNLIMITED, Controller, count, limit, pairs, said, truth
from minictr.steps import Context, Feature, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any, ClassVar

    from minictr.features.controllers import Settings

PAGE = 4096  # bytes: less is none to the kernel, which counts pages
PERIOD = 100_000  # microseconds: the kernel's default, default_cfs_period of kernel/sched/fair.c
QUOTA_MIN, PERIOD_MAX = (
    1000,
    1_000_000,
)  # microseconds: min_cfs_quota_period, max_cfs_quota_period of kernel/sched/core.c
QUOTA_MAX = (1 << 44) - 1  # microseconds: max_bw_cap of kernel/sched/core.c
CPU_MAX = 8191  # CONFIG_NR_CPUS may be up to 8192
NAME_MAX = 64  # MAX_CGROUP_ROOT_NAMELEN, kernel/cgroup/cgroup-internal.h


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
