"""The cgroups of a process: which, the limits in force on it, and the devices they leave it. cgroups(7).

A limit counts with all those above it, so the smallest on the way up is the one in force: as far up as the reader's
mounts show the tree. Names of limits are the same on v1 and v2; -1 is no limit.
"""

from __future__ import annotations

import os

from minictr.errors import StepFailed
from minictr.kernel.cgroup_files import get
from minictr.kernel.cgroup_in_force import READERS, UNLIMITED, capped, read
from minictr.kernel.cgroup_places import hierarchy_of
from minictr.kernel.isolation_target import Unreadable, why
from minictr.kernel.isolation_values import Devices, Fixed, Membership
from minictr.kernel.mountinfo import parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from minictr.kernel.cgroup_places import Hierarchy
    from minictr.kernel.isolation_target import Target

__all__ = ["Groups", "smallest"]

# Limits proper, by controller: weights and soft limits take nothing from anybody who is alone
LIMITED = ("memory", "cpu", "cpuset", "pids", "io", "hugetlb")
NUMBERS = {"memory": ("max", "high", "swap", "memsw"), "pids": ("max",)}
RATES = ("read_bps", "write_bps", "read_iops", "write_iops")
V2_RATES = dict(zip(("rbps", "wbps", "riops", "wiops"), RATES))
EVERYTHING = "a *:* rwm"


class Groups:
    """``memberships``, ``limits`` and ``devices`` of TARGET, as the reader's mounts show them."""

    def __init__(self, target: Target) -> None:
        with open("/proc/self/mountinfo", "rb") as file:
            mounts = parse(b"\n".join(line for line in file.read().splitlines() if b" - cgroup" in line))
        with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as own_file:
            mine = dict(_split(own_file.read()))
        self.target = target
        rows = [*_split(target.text("cgroup"))]
        self.hierarchies = [(hierarchy_of(["", names, path], mounts), path) for names, path in rows]
        memberships: dict[str, Membership] = {}
        limits: dict[str, Any] = {}
        # v1 comes first: where a controller is on v1, v2 does not have it
        for (hierarchy, path), (names, _) in zip(self.hierarchies, rows):
            own = path != mine.get(names)
            also = ("unified", "freezer", "devices") if hierarchy.version == 2 else ()
            for name in (*hierarchy.controllers, *also):
                memberships.setdefault(name, Membership(path, own))
            limits.update(self._limits(hierarchy, path))
        self.memberships, self.limits = Fixed(sorted(memberships.items())), Fixed(sorted(limits.items()))
        self.devices = self._devices()

    def _limits(self, hierarchy: Hierarchy, path: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for controller in hierarchy.controllers:
            if controller not in LIMITED:
                continue
            if not hierarchy.own or path.startswith("/.."):
                self.target.unknown[f"limits.{controller}"] = (
                    f"group {path} is not in what of the hierarchy is mounted here"
                )
                continue
            levels = [_settings(controller, hierarchy.version, directory) for directory in _way_up(hierarchy)]
            if any(levels):
                found.update((f"{controller}.{name}", value) for name, value in smallest(controller, levels).items())
            elif not os.path.isdir(
                hierarchy.own
            ):  # one that is there has no limits: the root, or v2 without a controller
                self.target.unknown[f"limits.{controller}"] = f"{hierarchy.own}: it is not to be seen, or gone"
        return found

    # --- devices ---

    def _devices(self) -> Devices:
        listed = any(one.version == 1 and "devices" in one.controllers for one, _ in self.hierarchies)
        judged = any(one.version == 2 for one, _ in self.hierarchies)
        rules = self.target.attempt("devices.rules", self._rules)
        programs = self.target.attempt("devices.programs", self._programs)
        if (rules is not None and EVERYTHING not in rules) or programs:
            return Devices(rules, programs, True)
        if (listed or judged) and (rules is not None or not listed) and (programs == 0 or not judged):
            return Devices(rules, programs, False)
        self.target.unknown["devices.restricted"] = "devices.list, or the device programs, cannot be read"
        return Devices(rules, programs, None)

    def _rules(self) -> tuple[str, ...]:
        for hierarchy, _ in self.hierarchies:
            if hierarchy.version == 1 and "devices" in hierarchy.controllers:
                if not hierarchy.own:
                    raise Unreadable("its group is not in what of the hierarchy is mounted here")
                return tuple(get(hierarchy.own, "devices.list").split("\n")[:-1])
        raise Unreadable("cgroup v2 has programs instead of a list")

    def _programs(self) -> int:
        from minictr.kernel.device_program import attached

        for hierarchy, path in self.hierarchies:
            if hierarchy.version == 2:
                if not hierarchy.own or path.startswith("/.."):
                    raise Unreadable("its group is not in what of the hierarchy is mounted here")
                try:
                    return sum(len(attached(directory)) for directory in _way_up(hierarchy))
                except StepFailed as err:
                    raise Unreadable(f"device programs: {why(err.errno or 0)}; bpf(2) wants CAP_NET_ADMIN too") from err
        raise Unreadable("no cgroup v2 hierarchy")


def _split(text: str) -> Iterator[tuple[str, str]]:
    """(controllers, path) of the lines of /proc/PID/cgroup."""
    for line in text.splitlines():
        _, names, path = line.split(":", 2)
        yield names, path


def _way_up(hierarchy: Hierarchy) -> Iterator[str]:
    """The group's directory, then each above it, up to the mount."""
    directory, top = hierarchy.own, hierarchy.mount.rstrip("/")
    while directory.startswith(top) and len(directory) >= len(top):
        yield directory
        directory = directory.rpartition("/")[0]


def _settings(controller: str, version: int, directory: str) -> dict[str, Any]:
    """What the limit files of one group say, under the names of this module."""
    found: dict[str, Any] = {}
    for name, file, form in READERS.get((controller, version), ()):
        text = read(directory, file)
        if text is None:
            continue
        if name in NUMBERS.get(controller, ()) or (controller == "cpu" and name in ("quota", "period")):
            found[name] = form(text)
        elif controller == "cpuset":
            found[name] = text
        elif controller == "io" and (name in RATES or name == "max"):
            found.update(_rates(name, text))
    if controller == "cpu":
        quota, period = found.pop("quota", UNLIMITED), found.pop("period", 0)
        return {"cpus": quota / period if quota > 0 and period else UNLIMITED} if period else {}
    return found | dict(_pages(directory)) if controller == "hugetlb" else found


def _rates(name: str, text: str) -> Iterator[tuple[str, int]]:
    """``8:0 1048576`` (v1) or ``8:0 rbps=1048576 wbps=max`` (v2), a limit a row."""
    for line in text.splitlines():
        device, *words = line.split()
        for word in words:
            key, equals, value = word.rpartition("=")
            rate = V2_RATES.get(key, key) if equals else name
            if value.isdigit():
                yield f"{rate}.{device}", int(value)


def _pages(directory: str) -> Iterator[tuple[str, int]]:
    """hugetlb.2MB.max (v2) and hugetlb.2MB.limit_in_bytes (v1): a limit a size."""
    try:
        files = sorted(os.listdir(directory))
    except OSError:
        return
    for file in files:
        kind, size, *rest = (*file.split("."), "")
        if kind == "hugetlb" and rest[:-1] in (["max"], ["limit_in_bytes"]):
            number = capped(read(directory, file) or "max")
            if isinstance(number, int):
                yield size, number


def smallest(controller: str, levels: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Setting -> what is in force, of LEVELS from the group itself up. Pure.

    Sets of processors and nodes are in force as the group itself says them.
    """
    found: dict[str, Any] = {}
    for level in levels:
        for name, value in level.items():
            if name not in found:
                found[name] = value
            elif not isinstance(value, str) and value != UNLIMITED:
                found[name] = value if found[name] == UNLIMITED else min(found[name], value)
    return found
