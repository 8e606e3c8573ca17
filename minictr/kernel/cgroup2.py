"""cgroup v2: which file takes which setting, and subtree_control. Documentation/admin-guide/cgroup-v2.rst.

Canonical settings (see ``cgroups``) become rows of files, and rows are written; everything takes a directory.
"""

from __future__ import annotations

from os import F_OK, access

from minictr.errors import SpecError, StepFailed
from minictr.kernel.cgroup_files import (
    device_limits,
    get,
    limit,
    maximum,
    one,
    read,
    refused,
    resource,
    rows_of,
    write,
    write_rows,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from minictr.kernel.cgroup_files import Form, Row, Table

__all__ = ["CONTROLLED", "FILES", "LACKS", "enable", "raw_controllers", "refuse_invalid", "rows", "write_settings"]

# controllers that must be in the parent's cgroup.subtree_control; the others' files are in every group
EBUSY, EOPNOTSUPP = 16, 95
THREADED = frozenset({"cpu", "cpuset", "pids", "perf_event"})
CONTROLLED = frozenset({"cpu", "cpuset", "memory", "pids", "io", "hugetlb", "rdma", "misc"})


# --- formats: (files, value) -> rows ---


def shares(files: Sequence[str], value: int) -> Iterable[Row]:
    from minictr.kernel.cgroup_weights import shares_to_weight

    return one(files, shares_to_weight(value))


def weight(files: Sequence[str], value: int) -> Iterable[Row]:
    from minictr.kernel.cgroup_weights import io_to_blkio

    cost, bfq = files
    yield (cost, f"default {value}"), (bfq, f"default {io_to_blkio(value)}")


def weight_device(files: Sequence[str], value: Any) -> Iterable[Row]:
    from minictr.kernel.cgroup_weights import io_to_blkio

    cost, bfq = files
    for device, number in device_limits(value):
        yield (cost, f"{device} {number}"), (bfq, f"{device} {io_to_blkio(number)}")


def keyed(key: str) -> Form:
    """io.max rows: ``8:0 rbps=1048576``."""

    def rows_of(files: Sequence[str], value: Any) -> Iterable[Row]:
        for device, number in device_limits(value):
            yield tuple((file, f"{device} {key}={limit(number if number > 0 else -1)}") for file in files)

    return rows_of


def pages(files: Sequence[str], value: Any) -> Iterable[Row]:
    for size, number in value:
        yield tuple((file.format(size), limit(number)) for file in files)


def raw(_files: Sequence[str], value: Any) -> Iterable[Row]:
    raw_controllers(value)
    for file, text in value:
        yield ((file, str(text)),)


# controller -> setting -> (format, files). All files of a row that are there are written; one must be.
FILES: Table = {
    "memory": {
        "max": (maximum, ("memory.max",)),
        "high": (maximum, ("memory.high",)),
        "low": (maximum, ("memory.low",)),
        "min": (maximum, ("memory.min",)),
        "swap": (maximum, ("memory.swap.max",)),
        "oom_group": (one, ("memory.oom.group",)),  # Linux 4.19
    },
    "cpu": {
        "quota_period": (one, ("cpu.max",)),  # made of quota and period
        "burst": (one, ("cpu.max.burst",)),  # Linux 5.14
        "idle": (one, ("cpu.idle",)),  # Linux 5.15
        "weight": (one, ("cpu.weight",)),
        "shares": (shares, ("cpu.weight",)),
    },
    "cpuset": {
        "cpus": (one, ("cpuset.cpus",)),
        "mems": (one, ("cpuset.mems",)),
        "partition": (one, ("cpuset.cpus.partition",)),
    },
    "pids": {"max": (maximum, ("pids.max",))},
    "io": {
        "weight": (weight, ("io.weight", "io.bfq.weight")),
        "weight_device": (weight_device, ("io.weight", "io.bfq.weight")),
        "read_bps": (keyed("rbps"), ("io.max",)),
        "write_bps": (keyed("wbps"), ("io.max",)),
        "read_iops": (keyed("riops"), ("io.max",)),
        "write_iops": (keyed("wiops"), ("io.max",)),
    },
    # pages reserved (mmap) as well as pages in use; the first since Linux 5.7
    "hugetlb": {"limits": (pages, ("hugetlb.{}.max", "hugetlb.{}.rsvd.max"))},
    "rdma": {"limits": (resource, ("rdma.max",))},
    "misc": {"limits": (resource, ("misc.max",))},
    "raw": {"files": (raw, ())},
}
# What v2 cannot do -> what comes near
LACKS = {
    ("memory", "swappiness"): "it is the host's vm.swappiness; limit swap instead",
    ("memory", "oom_kill_disable"): "at the limit something is always killed; high slows down before",
}


def rows(controller: str, settings: dict[str, Any]) -> list[Row]:
    """What SETTINGS of CONTROLLER write, in the table's order. Pure. Raises SpecError, Unsupported."""
    return rows_of(FILES, LACKS, 2, controller, settings)


def write_settings(directory: str, controller: str, settings: dict[str, Any]) -> None:
    """Write the limits of one controller. Raises SpecError, Unsupported, StepFailed."""
    if controller == "devices":
        if "rules" in settings:  # else what the groups above allow
            from minictr.kernel.device_program import replace

            replace(directory, settings["rules"])
        return
    if controller == "cpu":
        settings = with_cpu_max(directory, settings)
    write_rows(directory, rows(controller, settings))


def with_cpu_max(directory: str, settings: dict[str, Any]) -> dict[str, Any]:
    """SETTINGS with one text for cpu.max in place of quota and period; what is not given stays what it was."""
    settings = dict(settings)
    quota, period = settings.pop("quota", None), settings.pop("period", None)
    if quota is not None or period is not None:
        first = read(directory, "cpu.max").split()[0] if quota is None else limit(quota)
        settings["quota_period"] = first if period is None else f"{first} {period}"
    return settings


def raw_controllers(files: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """The controllers that raw FILES ((name, text), ...) need: what stands before the first dot.

    Raises SpecError for a name that is no file of a controller: those of ``cgroup.`` move processes or kill.
    """
    found = []
    for file, _ in files:
        controller, dot, rest = file.partition(".")
        if not (dot and controller and rest) or "/" in file or "\0" in file:
            raise SpecError(f"cgroup raw: {file!r} is not CONTROLLER.KEY, such as memory.high")
        if controller == "cgroup" and rest not in ("max.depth", "max.descendants", "pressure"):
            raise SpecError(f"cgroup raw: {file} is no limit")
        if controller in CONTROLLED and controller not in found:
            found.append(controller)
    return tuple(found)


# --- subtree_control ---


def enable(directory: str, controller: str) -> None:
    """Let the children of DIRECTORY have CONTROLLER: ``+controller`` in cgroup.subtree_control, from above down to it.

    These are the only files of groups that are not ours which are ever written. Raises StepFailed naming the ancestor
    whose file refused and why: not writable, processes in an inner node, or no such controller.
    """
    waiting: list[str] = []
    while controller not in read(directory, "cgroup.subtree_control").split():
        waiting.append(directory)
        parent = directory.rpartition("/")[0]
        if not access(f"{parent}/cgroup.subtree_control", F_OK):
            break  # the top of what is mounted
        directory = parent
    for inner in reversed(waiting):
        if controller in THREADED and _has_processes(inner):
            # the kernel would do it, and by that make of a group that is not ours a threaded domain, below which no
            # group of processes can be; memory and io it refuses by itself
            raise refused(inner, "cgroup.subtree_control", f"+{controller}", EBUSY)
        write(inner, "cgroup.subtree_control", f"+{controller}")


def _has_processes(directory: str) -> bool:
    """Whether an ordinary group has processes: not the root, which may, nor a threaded one, which is meant so."""
    try:
        return get(directory, "cgroup.type").strip() == "domain" and bool(get(directory, "cgroup.procs").strip())
    except OSError:
        return False


def refuse_invalid(directory: str) -> None:
    """Raise StepFailed for a group that takes no process: one below a group that has processes and gives controllers.

    The kernel lets a group with processes give cpu and pids, by which it becomes a threaded domain and the groups below
    it "domain invalid". Somebody did so: without this look the first who enters would be refused (EOPNOTSUPP).
    """
    if "invalid" in read(directory, "cgroup.type"):
        from minictr.kernel.cgroup_cures import inner_processes

        parent = directory.rpartition("/")[0]
        words = inner_processes(parent, "", "controllers").replace("{{", "{").replace("}}", "}")
        raise StepFailed(f"use {directory}, whose cgroup.type is 'domain invalid'", EOPNOTSUPP, cure=words)
