"""The limits that are in force on a container, read back from the kernel: what was asked for may be rounded, or changed
by somebody else since."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, Protocol

    class Group(Protocol):
        """A cgroup: a Place, or what is written down of one."""

        @property
        def controller(self) -> str: ...
        @property
        def version(self) -> int: ...
        @property
        def directory(self) -> str: ...


__all__ = ["READERS", "UNLIMITED", "capped", "in_force", "read"]

UNLIMITED = -1
V1_UNLIMITED = 1 << 62  # memory.limit_in_bytes without a limit: the largest long, cut to whole pages


def in_force(groups: Iterable[Group]) -> dict[str, dict[str, Any]]:
    """Controller -> setting -> value, as in :mod:`minictr.features.cgroups`: bytes, microseconds, -1 for no limit.

    A file that cannot be read, or that this kernel has not, is left out; {} for a container that is over.
    """
    found = {}
    for group in groups:
        rows = READERS.get((group.controller, 2 if group.version == 2 else 1))
        if rows is None:
            continue
        settings: dict[str, Any] = {}
        for name, file, form in rows:
            text = read(group.directory, file)
            if text is not None:
                settings[name] = form(text)
        if group.controller == "memory" and "memsw" in settings:
            total, most = settings.pop("memsw"), settings.get("max", UNLIMITED)
            settings["swap"] = UNLIMITED if UNLIMITED in (total, most) else max(0, total - most)
        if settings:
            found[group.controller] = settings
    return found


def read(directory: str, file: str) -> str | None:
    """The text of a file without its last newline, None when there is none to be had."""
    try:
        with open(os.path.join(directory, file), encoding="utf-8", errors="replace") as opened:
            return opened.read().strip()
    except OSError:
        return None


def number(text: str) -> Any:
    """An int; -1 for "max"; the text itself where it is neither."""
    if text == "max":
        return UNLIMITED
    digits = text.removeprefix("-")
    return int(text) if digits.isascii() and digits.isdecimal() else text


def capped(text: str) -> Any:
    """As v1 counts memory: no limit is a very large number."""
    found = number(text)
    return UNLIMITED if isinstance(found, int) and found >= V1_UNLIMITED else found


def quota(text: str) -> Any:
    """The first word of cpu.max."""
    return number(text.partition(" ")[0])


def period(text: str) -> Any:
    """The second word of cpu.max."""
    return number(text.partition(" ")[2])


def weight(text: str) -> Any:
    """io.weight: ``default 100``, then devices."""
    return number(text.split("\n")[0].removeprefix("default "))


def lines(text: str) -> list[str]:
    return text.split("\n") if text else []


# (controller, version) -> (setting, file, how its text is read)
READERS: dict[tuple[str, int], tuple[tuple[str, str, Callable[[str], Any]], ...]] = {
    ("memory", 1): (
        ("max", "memory.limit_in_bytes", capped),
        ("memsw", "memory.memsw.limit_in_bytes", capped),
        ("low", "memory.soft_limit_in_bytes", capped),
        ("swappiness", "memory.swappiness", number),
    ),
    ("memory", 2): (
        *((name, f"memory.{name}", number) for name in ("max", "high", "low", "min")),
        ("swap", "memory.swap.max", number),
        ("oom_group", "memory.oom.group", number),
    ),
    ("cpu", 1): (
        ("quota", "cpu.cfs_quota_us", number),
        ("period", "cpu.cfs_period_us", number),
        ("burst", "cpu.cfs_burst_us", number),
        ("shares", "cpu.shares", number),
        ("idle", "cpu.idle", number),
    ),
    ("cpu", 2): (
        ("quota", "cpu.max", quota),
        ("period", "cpu.max", period),
        ("burst", "cpu.max.burst", number),
        ("weight", "cpu.weight", number),
        ("idle", "cpu.idle", number),
    ),
    ("cpuset", 1): (("cpus", "cpuset.effective_cpus", str), ("mems", "cpuset.effective_mems", str)),
    ("cpuset", 2): (("cpus", "cpuset.cpus.effective", str), ("mems", "cpuset.mems.effective", str)),
    ("pids", 1): (("max", "pids.max", number),),
    ("pids", 2): (("max", "pids.max", number),),
    ("io", 1): (
        ("weight", "blkio.weight", number),
        ("weight", "blkio.bfq.weight", number),
        ("read_bps", "blkio.throttle.read_bps_device", lines),
        ("write_bps", "blkio.throttle.write_bps_device", lines),
        ("read_iops", "blkio.throttle.read_iops_device", lines),
        ("write_iops", "blkio.throttle.write_iops_device", lines),
    ),
    ("io", 2): (("weight", "io.weight", weight), ("max", "io.max", lines)),
    ("devices", 1): (("rules", "devices.list", lines),),
    ("freezer", 1): (("state", "freezer.state", str),),
}
