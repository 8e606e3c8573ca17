"""A cgroup as a handle: one name for what is several directories on v1, one on v2, and both on a hybrid host."""

from __future__ import annotations

import os

from minictr.errors import MinictrError, SpecError, StepFailed, Unsupported
from minictr.features.cgroup_devices import Devices, Hugetlb, Io, Misc, Rdma
from minictr.features.cgroups import CgroupConf, Cpu, Cpuset, Memory
from minictr.features.controllers import Pids
from minictr.kernel import cgroups
from minictr.kernel.handles import Handle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from minictr.features.controllers import Controller
    from minictr.kernel.cgroup_events import Events
    from minictr.kernel.cgroup_usage import CpuUsage, HugetlbUsage, IoUsage, MemoryUsage, PidsUsage, Usage
    from minictr.kernel.cgroups import Place
    from minictr.kernel.pressure import Pressure, Trigger

__all__ = ["Cgroup"]

EEXIST = 17
# counted without being asked for, where the host has it
ACCOUNTS = ("memory", "cpu", "pids", "freezer")
# keyword -> wish, field of it; "*" for a mapping of its fields
KEYWORDS: dict[str, tuple[type[Controller], str]] = {
    "memory": (Memory, "max"),
    "swap": (Memory, "swap"),
    "memory_high": (Memory, "high"),
    "memory_low": (Memory, "low"),
    "memory_min": (Memory, "min"),
    "swappiness": (Memory, "swappiness"),
    "oom_group": (Memory, "oom_group"),
    "oom_kill": (Memory, "oom_kill"),
    "cpus": (Cpu, "cpus"),
    "cpu_quota": (Cpu, "quota"),
    "cpu_period": (Cpu, "period"),
    "cpu_burst": (Cpu, "burst"),
    "cpu_weight": (Cpu, "weight"),
    "cpu_shares": (Cpu, "shares"),
    "cpu_idle": (Cpu, "idle"),
    "cpuset": (Cpuset, "cpus"),
    "mems": (Cpuset, "mems"),
    "partition": (Cpuset, "partition"),
    "pids": (Pids, "max"),
    "io": (Io, "*"),
    "devices": (Devices, "rules"),
    "hugetlb": (Hugetlb, "limits"),
    "rdma": (Rdma, "limits"),
    "misc": (Misc, "limits"),
    "raw": (CgroupConf, "files"),
}


def wishes(limits: dict[str, Any]) -> list[Controller]:
    """The features that LIMITS, by keyword, ask for. Pure but for the numbers of devices given by path. SpecError."""
    fields: dict[type[Controller], dict[str, Any]] = {}
    for keyword, value in limits.items():
        if keyword not in KEYWORDS:
            raise SpecError(f"cgroup: {keyword!r} is no limit; there are: {', '.join(KEYWORDS)}")
        if value is None:
            continue
        wish, field = KEYWORDS[keyword]
        if field == "*":
            if not isinstance(value, dict) or not value.keys() <= set(wish._fields):
                raise SpecError(
                    f"cgroup {keyword}: {value!r} is not a dictionary with some of {', '.join(wish._fields)}"
                )
            fields.setdefault(wish, {}).update(value)
        else:
            fields.setdefault(wish, {})[field] = value
    made = [wish(**chosen) for wish, chosen in fields.items()]
    return [wish.resolved(_numbers(wish.paths)) if isinstance(wish, Io) else wish for wish in made]


def _numbers(paths: Iterable[str]) -> dict[str, tuple[int, int]]:
    found = {}
    for path in paths:
        try:
            stat = os.stat(path)
        except OSError as err:
            raise StepFailed(f"look at device {path}", err.errno or 0) from err
        if stat.st_mode & 0o170000 != 0o060000:  # S_IFBLK
            raise SpecError(f"cgroup io: {path} is no block device")
        found[path] = (os.major(stat.st_rdev), os.minor(stat.st_rdev))
    return found


class Cgroup(Handle):
    """``with Cgroup("lab", memory="256M", pids=64) as cg:`` a group with limits and accounts; v1, v2 and hybrid hosts.

    Made below this process's own group in each hierarchy, or below ``parent`` (a path below that, or with a slash in
    front below the top of the hierarchy). The end of the block kills what is still in it, and removes it.

    Limits: ``memory``, ``swap`` (on top of memory), ``memory_high``, ``memory_low``, ``memory_min``, ``swappiness``,
    ``oom_group``, ``oom_kill``; ``cpus``, ``cpu_quota``, ``cpu_period``, ``cpu_burst``, ``cpu_weight``,
    ``cpu_shares``, ``cpu_idle``; ``cpuset``, ``mems``, ``partition``; ``pids``; ``io`` (``{"weight": 200, "read_bps":
    {"/dev/vda": "1M"}}``); ``devices`` (``["c 1:3 rwm"]``: all else is denied); ``hugetlb`` (``{"2MB": "64M"}``);
    ``rdma``, ``misc``; ``raw`` (``{"memory.high": "200M"}``, v2 only). Sizes are bytes or "256M", times are us.

    ``accounts``: controllers that get a group without a limit, where the host has them, so that their readings are
    there. Controllers with a limit must be there. ``places``: the directory of each controller.

    Raises SpecError before anything is touched; Unsupported and StepFailed with all that was made removed.
    """

    def __init__(self, name: str, *, parent: str = "", accounts: Iterable[str] = ACCOUNTS, **limits: Any) -> None:
        self.name, self.parent = name, parent
        self.places: dict[str, Place] = {}
        self._made: list[Place] = []
        self._limits = limits
        asked = wishes(limits)
        try:
            for wish in asked:
                for controller in wish.controllers():
                    # v1 counts processor time in a hierarchy of its own, v2 beside the limit
                    if controller != "cpuacct" or cgroups.has("cpuacct"):
                        self._make(controller)
            for controller in accounts:
                for each in (controller, "cpuacct") if controller == "cpu" else (controller,):
                    self._account(each)
            for wish in asked:
                self._write(wish)
        except BaseException:
            self._remove()
            raise
        self._open = True

    def __repr__(self) -> str:
        return f"<cgroup {self.name}: {', '.join(self.places)}>"

    def _make(self, controller: str) -> None:
        if controller in self.places:
            return
        place = cgroups.locate(controller, self.name, self.parent)
        ours = any(place.directory == other.directory for other in self._made)
        if cgroups.create(place):
            self._made.append(place)
        elif not ours:
            cure = "choose another name; if it was left over: minictr.kernel.cgroups.remove"
            raise StepFailed(f"mkdir {place.directory}", EEXIST, cure=cure)
        self.places[controller] = place

    def _account(self, controller: str) -> None:
        """A group without a limit, where the host lets us have one."""
        try:
            if cgroups.has(controller):
                self._make(controller)
        except Unsupported:
            return
        except StepFailed as err:
            if err.errno == EEXIST:
                raise

    def _write(self, wish: Controller) -> None:
        settings = dict(wish.settings())
        place = self.places.get(wish.controllers()[0])
        if place is None:
            raise SpecError(f"{self!r} was made without {wish.controllers()[0]}: name it in accounts")
        if settings:
            cgroups.write(place, **settings)

    def update(self, **limits: Any) -> None:
        """Change limits, by the same names; what is not given stays. Raises as the class does."""
        wishes(dict.fromkeys(limits))  # unknown names
        changed = {KEYWORDS[keyword][0] for keyword in limits}
        together = {**self._limits, **limits}  # swap means nothing without memory, burst without quota
        for wish in wishes(together):
            if type(wish) in changed:
                self._write(wish)
        self._limits = together

    # --- processes ---

    def add(self, pid: int = 0) -> None:
        """Move a process, with all its threads, into the group; 0 is this one. Raises StepFailed."""
        from minictr.kernel.cgroup_tasks import add

        for place in self._directories():
            add(place, pid)

    def processes(self) -> tuple[int, ...]:
        """Who is in it, and in the groups below it. Raises StepFailed."""
        return tuple(dict.fromkeys(pid for place in self._directories() for pid in cgroups.processes(place.directory)))

    def freeze(self, timeout: float = 5) -> None:
        """Stop all, and wait until they stand still. Raises Unsupported without the freezer, StepFailed."""
        cgroups.freeze(self._place("freezer"), timeout)

    def thaw(self, timeout: float = 5) -> None:
        """Let all go on. Raises as :meth:`freeze`."""
        cgroups.thaw(self._place("freezer"), timeout)

    def kill(self, timeout: float = 5) -> None:
        """SIGKILL to all, until the group is empty. Raises StepFailed naming who is left."""
        cgroups.kill(self.places.values(), timeout)

    def _directories(self) -> list[Place]:
        """One place for each directory: on v2 all controllers share it."""
        return list({place.directory: place for place in self.places.values()}.values())

    def _place(self, controller: str) -> Place:
        place = self.places.get(controller)
        if place is None:
            raise Unsupported(controller, f"{self!r} was made without it", "name it in accounts, or give a limit")
        return place

    # --- readings ---

    def usage(self) -> Usage:
        """All readings at once."""
        return cgroups.usage(self.places.values())

    def _reading(self, controller: str) -> Any:
        self._place(controller)
        names = ("cpu", "cpuacct") if controller == "cpu" else (controller,)
        return getattr(cgroups.usage(self.places[name] for name in names if name in self.places), controller)

    @property
    def memory(self) -> MemoryUsage:
        """Bytes: current, peak, swap, limit; limit_hits, oom_kills; events and stat as the kernel has them."""
        found: MemoryUsage = self._reading("memory")
        return found

    @property
    def cpu(self) -> CpuUsage:
        """Seconds: usage, user, system, throttled; and counts of periods."""
        found: CpuUsage = self._reading("cpu")
        return found

    @property
    def pids(self) -> PidsUsage:
        """Processes and threads: current, peak, limit, and hits of the limit."""
        found: PidsUsage = self._reading("pids")
        return found

    @property
    def io(self) -> IoUsage:
        """Bytes and requests, by device."""
        found: IoUsage = self._reading("io")
        return found

    @property
    def hugetlb(self) -> tuple[HugetlbUsage, ...]:
        """Bytes, by page size."""
        found: tuple[HugetlbUsage, ...] = self._reading("hugetlb")
        return found

    @property
    def pressure(self) -> dict[str, Pressure]:
        """Time lost by waiting, by "cpu", "memory", "io": v2 groups only. On a hybrid host: accounts=["unified"]."""
        return dict(self.usage().pressure)

    @property
    def oom_kills(self) -> int:
        """Processes killed for the memory limit."""
        return self.memory.oom_kills or 0

    def events(self, *, high: int = -1) -> Events:
        """Be told when memory or pids limits bite from now on; close it. ``high``: see ``cgroup_events.Events``."""
        from minictr.kernel.cgroup_events import Events

        return Events(self.places.values(), high=high)

    def psi_trigger(self, resource: str, *, stall: float, window: float = 2, full: bool = False) -> Trigger:
        """Wait for pressure in this group; close it. v2 groups only. See ``pressure.Trigger``."""
        from minictr.kernel.pressure import Trigger

        for place in self.places.values():
            if place.version == 2:
                return Trigger(resource, stall=stall, window=window, full=full, directory=place.directory)
        raise Unsupported("pressure", "cgroup v1 tells none of a group", 'name "unified" in accounts on a hybrid host')

    # --- end ---

    def keep(self) -> None:
        """Leave the group as it is: close() does nothing any more."""
        self._open = False

    def _close(self) -> None:
        own = set(cgroups.own_groups())
        for place in self._directories():
            if place.directory in own:  # add() without a pid: this process goes back to where it was
                from minictr.kernel.cgroup_tasks import add

                add(place.replace(directory=place.base))
        self.kill()
        self._remove()

    def _remove(self) -> None:
        """All that was made, whatever fails; the first failure is raised."""
        failed: MinictrError | None = None
        while self._made:
            try:
                cgroups.remove(self._made.pop().directory, recorded=True)
            except MinictrError as err:
                failed = failed or err
        if failed is not None:
            raise failed

    def _drop(self) -> None:
        self._open = False
        for place in self._made:  # what has processes in it stays: nobody asked to kill them
            try:
                cgroups.remove(place.directory, 0, recorded=True)
            except MinictrError:
                continue
