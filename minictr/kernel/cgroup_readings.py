"""Which files tell what a group used, and their text as it is: taken in one go, understood when somebody asks.

A group must be read before it is removed, so every end of a container pays for the reading; few ask what it says.
``cgroup_usage`` understands it, and takes 2 ms to import.
"""

from __future__ import annotations

import os
import sys

from minictr.kernel.cgroup_places import Place
from minictr.kernel.core import ffi, lib
from minictr.kernel.handles import shut

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from minictr.kernel.cgroup_usage import Usage

__all__ = ["PRESSURES", "Readings", "final_files", "page_sizes", "take"]

ROOM, ROOM_MAX = 16 << 10, 4 << 20  # bytes for the text of one group's files
ENOSPC = 28
# (version, controller) -> the files its reader opens (cgroup_usage.READERS); {} stands for each page size
FINAL: dict[tuple[int, str], str] = {
    (1, "memory"): (
        "memory.usage_in_bytes memory.max_usage_in_bytes memory.limit_in_bytes"
        " memory.failcnt memory.memsw.failcnt memory.oom_control memory.stat"
    ),
    (2, "memory"): (
        "memory.current memory.peak memory.swap.current memory.swap.peak memory.max memory.events memory.stat"
    ),
    (1, "cpu"): "cpu.stat",
    (1, "cpuacct"): "cpuacct.usage cpuacct.usage_user cpuacct.usage_sys cpuacct.stat",
    (2, "cpu"): "cpu.stat",
    (1, "pids"): "pids.current pids.peak pids.events pids.max",
    (1, "io"): "blkio.throttle.io_service_bytes_recursive blkio.throttle.io_serviced_recursive",
    (2, "io"): "io.stat",
    (1, "hugetlb"): (
        "hugetlb.{}.usage_in_bytes hugetlb.{}.max_usage_in_bytes hugetlb.{}.failcnt hugetlb.{}.rsvd.failcnt"
    ),
    (2, "hugetlb"): "hugetlb.{}.current hugetlb.{}.events",
    (1, "rdma"): "rdma.current",
    (1, "misc"): "misc.current",
}
PRESSURES = ("cpu", "memory", "io", "irq")


# file -> the keys in it that say that a limit killed or bit
BITES: dict[str, tuple[bytes, ...]] = {
    "memory.oom_control": (b"oom_kill",),
    "memory.events": (b"oom_kill",),
    "pids.events": (b"max",),
    "cpu.stat": (b"throttled_time", b"throttled_usec"),
}
_wanted: dict[tuple[int, str], tuple[str, ...]] = {}  # once known: the kernel's, for as long as it runs


class Readings:
    """The text of the files of one container's groups, by directory, at one moment."""

    def __init__(self, places: Iterable[Place], texts: Mapping[str, Mapping[str, bytes]]) -> None:
        self.places, self.texts = tuple(places), texts
        self._usage: Usage | None = None

    def usage(self) -> Usage:
        """What they say."""
        if self._usage is None:
            from minictr.kernel.cgroup_usage import Copies, usage

            self._usage = usage(self.places, lambda place: Copies(place.directory, self.texts[place.directory]))
        return self._usage

    @property
    def bitten(self) -> bool:
        """Whether a limit killed, refused or slowed something: only then is there anything to be said."""
        for files in self.texts.values():
            for file, keys in BITES.items():
                for line in files.get(file, b"").splitlines():
                    key, _, value = line.partition(b" ")
                    if key in keys and value != b"0":
                        return True
        return False


def take(places: Iterable[Place]) -> Readings:
    """Read the files of PLACES; what is not there, or cannot be read, is left out."""
    places = tuple(places)
    texts: dict[str, dict[str, bytes]] = {}
    for place in places:
        files = texts.setdefault(place.directory, {})
        names = [name for name in wanted(place) if name not in files]  # all controllers of v2 share one directory
        if names:
            files.update(_read(place.directory, names))
    return Readings(places, texts)


def _read(directory: str, names: list[str]) -> Iterable[tuple[str, bytes]]:
    """The text of the files NAMES that can be read: in one call, for a container's end waits for it."""
    try:
        fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return
    words, size = "\0".join([*names, ""]).encode(), ROOM
    try:
        while True:
            out = bytearray(size)
            used = lib.mc_read_files(fd, words, ffi.from_buffer(out), size)
            if used != -ENOSPC or size >= ROOM_MAX:
                break
            size *= 4
    finally:
        shut(fd)
    at = 0
    for name in names if used > 0 else ():
        length = int.from_bytes(out[at : at + 4], sys.byteorder, signed=True)
        at += 4
        if length >= 0:
            yield name, bytes(out[at : at + length])
            at += length


def wanted(place: Place) -> tuple[str, ...]:
    """The files of PLACE that ``cgroup_usage`` reads, there or not."""
    key = place.version, place.controller
    if key in _wanted:
        return _wanted[key]
    names = FINAL.get(key, FINAL.get((1, place.controller), "")).split()
    if place.version == 2:
        names += ["cpu.stat"] * ("cpu.stat" not in names) + [f"{name}.pressure" for name in PRESSURES]
    if place.controller == "hugetlb":
        try:
            sizes = page_sizes(os.listdir(place.directory), "usage_in_bytes" if place.version == 1 else "current")
        except OSError:
            return ()
        names = [name.format(size) for name in names for size in (sizes if "{}" in name else ("",))]
        if not sizes:
            return tuple(names)  # looked for again
    _wanted[key] = tuple(names)
    return _wanted[key]


def page_sizes(names: Iterable[str], suffix: str) -> list[str]:
    """The page sizes that there are files hugetlb.SIZE.SUFFIX for among NAMES."""
    ends = [name.split(".") for name in names if name.startswith("hugetlb.") and name.endswith("." + suffix)]
    return sorted(parts[1] for parts in ends if len(parts) == 3)


def final_files(place: Place) -> tuple[str, ...]:
    """The files of PLACE that say what it used and that are there: copied elsewhere, they tell the same."""
    try:
        there = set(os.listdir(place.directory))
    except OSError:
        there = set()
    return tuple(name for name in wanted(place) if name in there)
