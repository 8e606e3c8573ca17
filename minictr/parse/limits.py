"""Limits in docker's words: memory, processors, block devices. 0 is docker's word for "not given" in most of them."""

from __future__ import annotations

from minictr.errors import SpecError
from minictr.features.cgroup_devices import RATE_MAX, device, rule
from minictr.features.cgroups import PAGE, QUOTA_MAX
from minictr.features.check import SIZE_MAX, decimal, integer, number, shown, size
from minictr.features.controllers import UNLIMITED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minictr.features.cgroup_devices import Number, Rule

BLKIO_MIN, BLKIO_MAX = 10, 1000  # docker's and the OCI runtime specification's bounds of a blkio weight


def memory(limit: str = "", swap: str = "", reservation: str = "", swappiness: str = "") -> dict[str, Any]:
    """Fields of Memory from ``--memory``, ``--memory-swap`` (a sum with memory; -1 no limit), ``--memory-reservation``.

    Without ``swap`` there is as much of it as memory, as in docker.
    """
    found: dict[str, Any] = {}
    most = _bytes(limit, "--memory", low=PAGE) if limit else 0
    if most:
        found["max"] = most
    total = UNLIMITED if swap == "-1" else _bytes(swap, "--memory-swap") if swap else 0
    if total and not most:
        raise SpecError("--memory-swap is a sum of memory and swap: give --memory as well")
    if total == UNLIMITED:
        found["swap"] = UNLIMITED
    elif total:
        if total < most:
            raise SpecError(f"--memory-swap: {total} is less than --memory {most}, which it includes")
        found["swap"] = total - most
    elif most:
        found["swap"] = most
    low = _bytes(reservation, "--memory-reservation") if reservation else 0
    if low:
        found["low"] = low
    if swappiness and (value := number(swappiness, "--memory-swappiness", -1, 100)) >= 0:
        found["swappiness"] = value
    return found


def _bytes(text: str, option: str, low: int = 0) -> int:
    """A size; 0 is allowed whatever LOW says, and means that there is none."""
    value = size(text, option, low=0)
    return value if not value else integer(value, option, low, SIZE_MAX)


def cpu(cpus: str = "", shares: str = "", quota: str = "", period: str = "") -> dict[str, Any]:
    """Fields of Cpu from ``--cpus``, ``--cpu-shares``, ``--cpu-quota``, ``--cpu-period``."""
    found: dict[str, Any] = {}
    if cpus:
        whole, point, part = cpus.partition(".")
        if not decimal(whole) or (point and not decimal(part)):
            raise SpecError(f"--cpus: {shown(cpus)} is not a number of processors, as 1.5")
        if float(cpus):
            found["cpus"] = float(cpus)
    for name, text, low, high in (
        ("shares", shares, 0, 262_144),
        ("quota", quota, UNLIMITED, QUOTA_MAX),
        ("period", period, 0, 1_000_000),
    ):
        if text and (value := number(text, f"--cpu-{name}", low, high)):
            found[name] = value
    if "cpus" in found and not found.keys().isdisjoint(("quota", "period")):
        raise SpecError("--cpus and --cpu-quota, --cpu-period say the same thing: give --cpus, or the other two")
    return found


def pids_limit(text: str) -> int:
    """``--pids-limit``: -1 and 0 are no limit."""
    return number(text, "--pids-limit", UNLIMITED, 1 << 22) or UNLIMITED


def io_weight(text: str, what: str = "--blkio-weight") -> int | None:
    """io.weight (1 to 10000) from a blkio weight (10 to 1000), as runc converts it; None for 0."""
    weight = number(text, what, 0, BLKIO_MAX)
    if not weight:
        return None
    if weight < BLKIO_MIN:
        raise SpecError(f"{what}: {weight} is not between {BLKIO_MIN} and {BLKIO_MAX}")
    return 1 + (weight - BLKIO_MIN) * 9999 // (BLKIO_MAX - BLKIO_MIN)


def device_weight(text: str) -> tuple[Number | str, int]:
    """``DEVICE:WEIGHT``."""
    name, weight = _device(text, "/dev/sda:500")
    value = io_weight(weight, shown(name))
    if value is None:
        raise SpecError(f"{shown(text)}: a weight of 0 is none: leave it out")
    return device(name, "device"), value


def device_bps(text: str) -> tuple[Number | str, int]:
    """``DEVICE:SIZE``, bytes a second."""
    name, rate = _device(text, "/dev/sda:1mb")
    return device(name, "device"), size(rate, shown(name))


def device_iops(text: str) -> tuple[Number | str, int]:
    """``DEVICE:NUMBER``, operations a second."""
    name, rate = _device(text, "/dev/sda:100")
    return device(name, "device"), number(rate, shown(name), 1, RATE_MAX)


def _device(text: str, example: str) -> tuple[str, str]:
    name, colon, value = text.rpartition(":")
    if not colon or not name or not value:
        raise SpecError(f"{shown(text)} is not a device and what it is given, as {example}")
    return name, value


def device_node(text: str) -> tuple[str, str, str]:
    """``HOST[:CONTAINER[:ACCESS]]`` or ``HOST:ACCESS``, ACCESS of r, w, m: (host path, path inside, access)."""
    parts = text.split(":")
    if len(parts) > 3 or "" in parts:
        raise SpecError(f"{shown(text)} is not HOST[:CONTAINER[:rwm]]")
    host, inside, access = parts[0], parts[0], "rwm"
    if len(parts) == 3:
        inside, access = parts[1:]
    elif len(parts) == 2:
        if parts[1].startswith("/"):
            inside = parts[1]
        else:
            access = parts[1]
    if not host.startswith("/"):
        raise SpecError(f"{shown(host)} is not the path of a device: it begins with /dev/")
    return host, inside, rule((True, "c", 0, 0, access), "access")[4]


def device_rule(text: str) -> Rule:
    """``--device-cgroup-rule``: ``c 10:* rw``."""
    return rule(text, "rule")


def cgroup_conf(text: str) -> tuple[str, str]:
    """``FILE=TEXT``."""
    file, equals, value = text.partition("=")
    if not equals:
        raise SpecError(f"{shown(text)} is not FILE=TEXT, as memory.high=1G")
    return file, value
