"""What a group used, and what its limits did to it: typed, in bytes, seconds and counts. v1 and v2.

Readers take the directory of a :class:`Place`, which may as well be a directory of copies: ``cgroup_readings`` says
which files to copy before a group is removed. What this kernel does not count is None.
"""

from __future__ import annotations

import os

from minictr.errors import StepFailed
from minictr.kernel.cgroup1 import UNLIMITED
from minictr.kernel.cgroup_files import get, numbers, words
from minictr.kernel.cgroup_places import Place
from minictr.kernel.cgroup_readings import PRESSURES, page_sizes
from minictr.kernel.pressure import Pressure, parse
from minictr.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = [
    "CpuUsage",
    "DeviceIo",
    "HugetlbUsage",
    "IoUsage",
    "MemoryUsage",
    "PidsUsage",
    "Usage",
    "usage",
]

ENOENT, EOPNOTSUPP, ENODEV = 2, 95, 19
USEC_PER_SEC, NSEC_PER_SEC = 1_000_000, 1_000_000_000
TICKS_PER_SEC = 100  # USER_HZ, in which cpuacct.stat counts on every architecture we know


class MemoryUsage(Value):
    """Bytes. ``limit`` -1: none. ``limit_hits``: how often it was reached; ``oom_kills``: processes killed in it.

    ``events``: memory.events of v2, or what v1 has of it. ``stat``: memory.stat as it is (v1: mostly bytes).
    """

    current: int | None = None
    peak: int | None = None  # v1; v2 Linux 5.19
    swap: int | None = None
    swap_peak: int | None = None  # v2, Linux 6.5
    limit: int | None = None
    limit_hits: int | None = None
    high_hits: int | None = None  # v2
    oom_kills: int | None = None  # v1 Linux 4.13
    events: Mapping[str, int] = {}
    stat: Mapping[str, int] = {}


class CpuUsage(Value):
    """Seconds. ``periods``, ``throttled_periods``: of the quota; ``throttled``: how long the group waited in all."""

    usage: float | None = None
    user: float | None = None
    system: float | None = None
    periods: int | None = None
    throttled_periods: int | None = None
    throttled: float | None = None
    bursts: int | None = None  # Linux 5.14
    burst: float | None = None


class PidsUsage(Value):
    """Processes and threads. ``hits``: how often a fork failed for the limit. ``limit`` -1: none."""

    current: int | None = None
    peak: int | None = None  # Linux 6.6
    hits: int | None = None  # Linux 4.8
    limit: int | None = None


class DeviceIo(Value):
    """What went to and from one block device: bytes, and requests. ``discarded`` in bytes."""

    major: int
    minor: int
    read_bytes: int = 0
    write_bytes: int = 0
    reads: int = 0
    writes: int = 0
    discarded: int = 0


class IoUsage(Value):
    """By device; the sums over all."""

    devices: tuple[DeviceIo, ...] = ()

    @property
    def read_bytes(self) -> int:
        return sum(device.read_bytes for device in self.devices)

    @property
    def write_bytes(self) -> int:
        return sum(device.write_bytes for device in self.devices)


class HugetlbUsage(Value):
    """Bytes in pages of one size ("2MB"). ``limit_hits``: how often the limit refused."""

    page_size: str
    current: int | None = None
    peak: int | None = None  # v1
    limit_hits: int | None = None


class Usage(Value):
    """All that the places of one container tell; a controller it does not have is None."""

    memory: MemoryUsage | None = None
    cpu: CpuUsage | None = None
    pids: PidsUsage | None = None
    io: IoUsage | None = None
    hugetlb: tuple[HugetlbUsage, ...] | None = None
    rdma: Mapping[str, Mapping[str, int]] | None = None
    misc: Mapping[str, int] | None = None
    pressure: Mapping[str, Pressure] = {}

    @property
    def oom_kills(self) -> int:
        """Processes that the kernel killed for the memory limit."""
        return (self.memory and self.memory.oom_kills) or 0


# --- reading ---


class Files:
    """The files of one directory: text, numbers; None for one that is not there."""

    def __init__(self, directory: str) -> None:
        self.directory = directory

    def text(self, file: str) -> str | None:
        try:
            return get(self.directory, file)
        except OSError as err:
            if err.errno in (ENOENT, EOPNOTSUPP, ENODEV):  # EOPNOTSUPP: PSI is switched off
                return None
            raise StepFailed(f"read {self.directory}/{file}", err.errno or 0) from err

    def number(self, file: str) -> int | None:
        """One number; "max" and v1's largest are -1."""
        text = (self.text(file) or "").strip()
        if not text.lstrip("-").isdigit():
            return -1 if text == "max" else None
        return -1 if int(text) >= UNLIMITED else int(text)

    def numbers(self, file: str) -> dict[str, int]:
        return numbers(self.text(file) or "")

    def pages(self, suffix: str) -> list[str]:
        """The page sizes there are files hugetlb.SIZE.SUFFIX for."""
        return page_sizes(self.names(), suffix)

    def names(self) -> Iterable[str]:
        """The files there are."""
        try:
            return os.listdir(self.directory)
        except OSError:
            return ()


class Copies(Files):
    """The text of one directory's files as it was read before: see ``cgroup_readings``."""

    def __init__(self, directory: str, texts: Mapping[str, bytes]) -> None:
        super().__init__(directory)
        self.texts = texts

    def text(self, file: str) -> str | None:
        found = self.texts.get(file)
        return None if found is None else found.decode("utf-8", "surrogateescape")

    def names(self) -> Iterable[str]:
        return self.texts


def memory1(files: Files) -> MemoryUsage:
    control, stat = files.numbers("memory.oom_control"), files.numbers("memory.stat")
    memsw, current = files.number("memory.memsw.usage_in_bytes"), files.number("memory.usage_in_bytes")
    swap = stat.get("total_swap", None if memsw is None else max(memsw - (current or 0), 0))
    # where swap is none, memory and swap together are limited to the same, and it is that limit that fails
    failures = [files.number(file) for file in ("memory.failcnt", "memory.memsw.failcnt")]
    hits, kills = sum(number or 0 for number in failures), control.get("oom_kill")
    return MemoryUsage(
        current=current,
        peak=files.number("memory.max_usage_in_bytes"),
        swap=swap,
        limit=files.number("memory.limit_in_bytes"),
        limit_hits=hits,
        oom_kills=kills,
        events={name: value for name, value in (("max", hits), ("oom_kill", kills)) if value is not None},
        stat=stat,
    )


def memory2(files: Files) -> MemoryUsage:
    events = files.numbers("memory.events")
    return MemoryUsage(
        current=files.number("memory.current"),
        peak=files.number("memory.peak"),
        swap=files.number("memory.swap.current"),
        swap_peak=files.number("memory.swap.peak"),
        limit=files.number("memory.max"),
        limit_hits=events.get("max"),
        high_hits=events.get("high"),
        oom_kills=events.get("oom_kill"),
        events=events,
        stat=files.numbers("memory.stat"),
    )


def _seconds(number: int | None, per_second: int) -> float | None:
    return None if number is None else number / per_second


def cpuacct1(files: Files) -> CpuUsage:
    stat = files.numbers("cpuacct.stat")  # before Linux 4.9 there is no cpuacct.usage_user
    user, system = files.number("cpuacct.usage_user"), files.number("cpuacct.usage_sys")
    return CpuUsage(
        usage=_seconds(files.number("cpuacct.usage"), NSEC_PER_SEC),
        user=_seconds(stat.get("user"), TICKS_PER_SEC) if user is None else user / NSEC_PER_SEC,
        system=_seconds(stat.get("system"), TICKS_PER_SEC) if system is None else system / NSEC_PER_SEC,
    )


def cpu1(files: Files) -> CpuUsage:
    stat = files.numbers("cpu.stat")
    return CpuUsage(
        periods=stat.get("nr_periods"),
        throttled_periods=stat.get("nr_throttled"),
        throttled=_seconds(stat.get("throttled_time"), NSEC_PER_SEC),
        bursts=stat.get("nr_bursts"),
        burst=_seconds(stat.get("burst_time"), NSEC_PER_SEC),
    )


def cpu2(files: Files) -> CpuUsage:
    stat = files.numbers("cpu.stat")
    return CpuUsage(
        usage=_seconds(stat.get("usage_usec"), USEC_PER_SEC),
        user=_seconds(stat.get("user_usec"), USEC_PER_SEC),
        system=_seconds(stat.get("system_usec"), USEC_PER_SEC),
        periods=stat.get("nr_periods"),
        throttled_periods=stat.get("nr_throttled"),
        throttled=_seconds(stat.get("throttled_usec"), USEC_PER_SEC),
        bursts=stat.get("nr_bursts"),
        burst=_seconds(stat.get("burst_usec"), USEC_PER_SEC),
    )


def pids(files: Files) -> PidsUsage:
    current, peak = files.number("pids.current"), files.number("pids.peak")
    return PidsUsage(current, peak, files.numbers("pids.events").get("max"), files.number("pids.max"))


def io1(files: Files) -> IoUsage:
    """Of the throttling layer: what was asked of the disk. "_recursive" since Linux 4.12."""
    found: dict[str, dict[str, int]] = {}
    for file, names in (
        ("io_service_bytes", {"Read": "read_bytes", "Write": "write_bytes", "Discard": "discarded"}),
        ("io_serviced", {"Read": "reads", "Write": "writes"}),
    ):
        text = files.text(f"blkio.throttle.{file}_recursive")
        for line in (files.text(f"blkio.throttle.{file}") or "" if text is None else text).splitlines():
            device, *rest = line.split()
            if len(rest) == 2 and rest[0] in names:
                found.setdefault(device, {})[names[rest[0]]] = int(rest[1])
    return _devices(found.items())


def io2(files: Files) -> IoUsage:
    names = {"rbytes": "read_bytes", "wbytes": "write_bytes", "rios": "reads", "wios": "writes", "dbytes": "discarded"}
    rows = words(files.text("io.stat") or "")
    return _devices((device, {names[k]: v for k, v in row.items() if k in names}) for device, row in rows)


def _devices(rows: Iterable[tuple[str, Mapping[str, int]]]) -> IoUsage:
    found = []
    for device, row in rows:
        major, _, minor = device.partition(":")
        if major.isdigit() and minor.isdigit():
            found.append(DeviceIo(int(major), int(minor), **row))
    return IoUsage(tuple(found))


def hugetlb1(files: Files) -> tuple[HugetlbUsage, ...]:
    def one(size: str) -> HugetlbUsage:
        names = ("usage_in_bytes", "max_usage_in_bytes", "failcnt", "rsvd.failcnt")
        current, peak, *failures = (files.number(f"hugetlb.{size}.{name}") for name in names)
        # reservations are limited to the same, and theirs is the limit that an mmap(2) meets first (Linux 5.7)
        counts = [count for count in failures if count is not None]
        return HugetlbUsage(size, current, peak, sum(counts) if counts else None)

    return tuple(map(one, files.pages("usage_in_bytes")))


def hugetlb2(files: Files) -> tuple[HugetlbUsage, ...]:
    def one(size: str) -> HugetlbUsage:
        hits = files.numbers(f"hugetlb.{size}.events").get("max")
        return HugetlbUsage(size, files.number(f"hugetlb.{size}.current"), limit_hits=hits)

    return tuple(map(one, files.pages("current")))


def rdma(files: Files) -> dict[str, dict[str, int]]:
    return dict(words(files.text("rdma.current") or ""))


def misc(files: Files) -> dict[str, int]:
    return files.numbers("misc.current")


# (version, controller) -> field of Usage, reader
READERS: dict[tuple[int, str], tuple[str, Callable[[Files], object]]] = {
    (1, "memory"): ("memory", memory1),
    (2, "memory"): ("memory", memory2),
    (1, "cpu"): ("cpu", cpu1),
    (1, "cpuacct"): ("cpu", cpuacct1),
    (2, "cpu"): ("cpu", cpu2),
    (1, "pids"): ("pids", pids),
    (2, "pids"): ("pids", pids),
    (1, "io"): ("io", io1),
    (2, "io"): ("io", io2),
    (1, "hugetlb"): ("hugetlb", hugetlb1),
    (2, "hugetlb"): ("hugetlb", hugetlb2),
    (1, "rdma"): ("rdma", rdma),
    (2, "rdma"): ("rdma", rdma),
    (1, "misc"): ("misc", misc),
    (2, "misc"): ("misc", misc),
}


def usage(places: Iterable[Place], files_of: Callable[[Place], Files] | None = None) -> Usage:
    """What the groups of one container used; PLACES may be live or directories of copies. Raises StepFailed.

    On v2 every group counts processor time and pressure, whichever controllers it has. FILES_OF: where the text of a
    place's files is, if not in its directory.
    """
    fields: dict[str, object] = {}
    pressure: dict[str, Pressure] = {}
    for place in places:
        files = Files(place.directory) if files_of is None else files_of(place)
        keys = {(place.version, place.controller), *([(2, "cpu")] if place.version == 2 else [])}
        for field, reader in (READERS[key] for key in keys if key in READERS):
            found, before = reader(files), fields.get(field)
            if isinstance(found, CpuUsage) and isinstance(before, CpuUsage):  # v1: cpu and cpuacct each know a half
                found = before.replace(**{k: v for k, v in found.__dict__.items() if v is not None})
            fields[field] = found
        for name in PRESSURES if place.version == 2 else ():
            text = files.text(f"{name}.pressure")
            if text:
                pressure[name] = parse(text)
    return Usage(**fields, pressure=pressure)  # type: ignore[arg-type]
