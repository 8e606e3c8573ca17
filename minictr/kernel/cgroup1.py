"""cgroup v1: which file takes which setting, and what is special about some. Documentation/admin-guide/cgroup-v1.

Canonical settings (see ``cgroups``) become rows of files, and rows are written; everything takes a directory.
"""

from __future__ import annotations

from minictr.errors import SpecError, Unsupported
from minictr.kernel.cgroup_files import (
    ENOENT,
    device_limits,
    get,
    maximum,
    one,
    put,
    read,
    resource,
    rows_of,
    write,
    write_rows,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from minictr.kernel.cgroup_files import Row, Table

    Rule = tuple[bool, str, int, int, str]

__all__ = ["FILES", "LACKS", "UNLIMITED", "device_list", "inherit_cpuset", "rows", "write_settings"]

UNLIMITED = 0x7FFFFFFFFFFFF000  # LONG_MAX in whole pages: what "no limit" reads back as
KINDS = ("b", "c")


# --- formats: (files, value) -> rows ---


def weight(files: Sequence[str], value: int) -> Iterable[Row]:
    from minictr.kernel.cgroup_weights import io_to_blkio

    yield tuple((file, str(io_to_blkio(value))) for file in files)


def weight_device(files: Sequence[str], value: Any) -> Iterable[Row]:
    from minictr.kernel.cgroup_weights import io_to_blkio

    for device, number in device_limits(value):
        yield tuple((file, f"{device} {io_to_blkio(number)}") for file in files)


def shares(files: Sequence[str], value: int) -> Iterable[Row]:
    from minictr.kernel.cgroup_weights import weight_to_shares

    return one(files, weight_to_shares(value))


def throttle(files: Sequence[str], value: Any) -> Iterable[Row]:
    for device, number in device_limits(value):
        yield tuple((file, f"{device} {max(number, 0)}") for file in files)  # 0 takes a limit away


def pages(files: Sequence[str], value: Any) -> Iterable[Row]:
    for size, number in value:
        yield tuple((file.format(size), str(number)) for file in files)


# controller -> setting -> (format, files). All files of a row that are there are written; one must be.
FILES: Table = {
    "memory": {
        "max": (one, ("memory.limit_in_bytes",)),
        "memsw": (one, ("memory.memsw.limit_in_bytes",)),  # made of max and swap
        "low": (one, ("memory.soft_limit_in_bytes",)),
        "swappiness": (one, ("memory.swappiness",)),
        "oom_kill_disable": (one, ("memory.oom_control",)),  # 1: processes wait at the limit
    },
    "cpu": {
        "period": (one, ("cpu.cfs_period_us",)),
        "quota": (one, ("cpu.cfs_quota_us",)),
        "burst": (one, ("cpu.cfs_burst_us",)),  # Linux 5.14
        "idle": (one, ("cpu.idle",)),  # Linux 5.15
        "shares": (one, ("cpu.shares",)),
        "weight": (shares, ("cpu.shares",)),
    },
    "cpuset": {"cpus": (one, ("cpuset.cpus",)), "mems": (one, ("cpuset.mems",))},
    "pids": {"max": (maximum, ("pids.max",))},
    "io": {
        "weight": (weight, ("blkio.weight", "blkio.bfq.weight")),  # CFQ before Linux 5.0, BFQ
        "weight_device": (weight_device, ("blkio.weight_device", "blkio.bfq.weight_device")),
        "read_bps": (throttle, ("blkio.throttle.read_bps_device",)),
        "write_bps": (throttle, ("blkio.throttle.write_bps_device",)),
        "read_iops": (throttle, ("blkio.throttle.read_iops_device",)),
        "write_iops": (throttle, ("blkio.throttle.write_iops_device",)),
    },
    # pages reserved (mmap) as well as pages in use; the first since Linux 5.7
    "hugetlb": {"limits": (pages, ("hugetlb.{}.limit_in_bytes", "hugetlb.{}.rsvd.limit_in_bytes"))},
    "rdma": {"limits": (resource, ("rdma.max",))},
    "misc": {"limits": (resource, ("misc.max",))},
}
# What v1 cannot do -> what comes near
LACKS = {
    ("memory", "high"): "max kills where high would slow down",
    ("memory", "min"): "low is a soft limit here",
    ("memory", "oom_group"): "the process with the highest score is killed alone",
    ("cpuset", "partition"): "",
}


def rows(controller: str, settings: dict[str, Any]) -> list[Row]:
    """What SETTINGS of CONTROLLER write, in the table's order. Pure. Raises SpecError, Unsupported."""
    return rows_of(FILES, LACKS, 1, controller, settings)


def write_settings(directory: str, controller: str, settings: dict[str, Any]) -> None:
    """Write the limits of one controller. Raises SpecError, Unsupported, StepFailed."""
    if controller == "devices":
        if "rules" in settings:  # else what the group above allows
            write_devices(directory, settings["rules"])
        return
    if controller == "memory" and not settings.keys().isdisjoint(("max", "swap")):
        settings = with_memsw(directory, settings)
    write_rows(directory, rows(controller, settings))


def with_memsw(directory: str, settings: dict[str, Any]) -> dict[str, Any]:
    """SETTINGS with memsw (memory and swap together) in place of swap (swap alone).

    Where only one of the two is set, the other stays what it was. Without swap accounting (swapaccount=0) asking for a
    swap limit fails when it is written.
    """
    settings = dict(settings)
    swap = settings.pop("swap", None)
    try:
        memsw = int(get(directory, "memory.memsw.limit_in_bytes"))
    except OSError as err:
        if err.errno != ENOENT or swap is not None:
            read(directory, "memory.memsw.limit_in_bytes")
        return settings
    if swap is None and memsw >= UNLIMITED:
        return settings
    old = int(read(directory, "memory.limit_in_bytes"))
    new = settings.get("max")
    if new is None:
        new = -1 if old >= UNLIMITED else old
    if swap is None:
        swap = memsw - old if new >= 0 else -1
    elif swap >= 0 and new < 0:
        raise SpecError("cgroup memory: cgroup v1 limits memory and swap together: a swap limit needs a memory limit")
    settings["memsw"] = -1 if swap < 0 else new + swap
    return settings


def inherit_cpuset(directory: str) -> None:
    """Give a new cpuset its parent's cpus and mems: it is born with none, and nobody can enter (ENOSPC).

    cpusets(7). Files that hold something already stay. Raises StepFailed where the parent has none either.
    """
    parent = directory.rpartition("/")[0]
    for file in ("cpuset.mems", "cpuset.cpus"):
        if not read(directory, file).strip():
            write(directory, file, read(parent, file).strip())


# --- devices ---


def device_list(rules: Sequence[Rule]) -> tuple[bool, dict[tuple[str, int, int], str]]:
    """(what is allowed by default, exceptions) of RULES, of which the last that matches decides.

    The kernel's list knows one default and exceptions from it, each taken back only as a whole
    (Documentation/admin-guide/cgroup-v1/devices.rst). What no rule matches is denied. Raises Unsupported for a hole
    in an exception: written as it is, the kernel would ignore it and leave the device open.
    """
    default = False
    exceptions: dict[tuple[str, int, int], str] = {}
    for allow, kind, major, minor, access in rules:
        if kind == "a" and (major, minor) == (-1, -1) and len(set(access)) == 3:
            default, exceptions = allow, {}
            continue
        for key in ((each, major, minor) for each in (KINDS if kind == "a" else (kind,))):
            if allow != default:
                have = set(exceptions.get(key, "")) | set(access)
                exceptions[key] = "".join(letter for letter in "rwm" if letter in have)
            else:
                _take_back(exceptions, key, access)
    return default, exceptions


def _take_back(exceptions: dict[tuple[str, int, int], str], key: tuple[str, int, int], access: str) -> None:
    for other, have in list(exceptions.items()):
        pairs = tuple(zip(key[1:], other[1:]))
        if (
            other[0] != key[0]
            or set(have).isdisjoint(access)
            or any(-1 not in pair and pair[0] != pair[1] for pair in pairs)
        ):
            continue
        if any(mine not in (-1, theirs) for mine, theirs in pairs):
            words = " and ".join(f"{kind} {major}:{minor}".replace("-1", "*") for kind, major, minor in (other, key))
            raise Unsupported("devices", f"cgroup v1 cannot keep both rules: {words}", "list the devices one by one")
        left = "".join(letter for letter in have if letter not in access)
        exceptions[other] = left
        if not left:
            del exceptions[other]


def write_devices(directory: str, rules: Sequence[Rule]) -> None:
    """Replace the whole list of devices. Raises Unsupported before anything is written, StepFailed."""
    default, exceptions = device_list(rules)
    write(directory, "devices.allow" if default else "devices.deny", "a")
    file = "devices.deny" if default else "devices.allow"
    lines = [
        f"{kind} {major}:{minor} {access}".replace("-1", "*") for (kind, major, minor), access in exceptions.items()
    ]
    try:
        put(directory, file, *lines)
    except OSError:
        for line in lines:  # which of them, and why; the others once more change nothing
            write(directory, file, line)
