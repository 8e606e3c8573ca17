"""Namespace options, id maps, clock offsets."""

from __future__ import annotations

from minictr.errors import SpecError
from minictr.features.check import ID_MAX, number, shown
from minictr.features.namespaces import (
    AUTO_MAX,
    CgroupNamespace,
    IpcNamespace,
    NetNamespace,
    PidNamespace,
    TimeNamespace,
    UserNamespace,
    UtsNamespace,
    checked_map,
)
from minictr.parse.numbers import seconds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from minictr.features.namespaces import Namespace

AUTO_SIZE = 1 << 16  # ids that are mapped unless told: what systemd, Docker and useradd give, nobody (65534) included
PID_MAX = 1 << 22  # PID_MAX_LIMIT, linux/threads.h

KINDS: dict[str, tuple[Callable[..., Namespace], str]] = {
    "pid": (PidNamespace, "pid"),
    "net": (NetNamespace, "net"),
    "ipc": (IpcNamespace, "ipc"),
    "uts": (UtsNamespace, "uts"),
    "cgroupns": (CgroupNamespace, "cgroup"),
    "userns": (UserNamespace, "user"),
    "timens": (TimeNamespace, "time"),
}


def namespace(name: str, text: str) -> Namespace | None:
    """The feature NAME as ``host`` (None), ``private``, ``ns:PATH`` or ``pid:N`` say."""
    kind, word_in_proc = KINDS[name]
    if text == "host":
        return None
    if text == "private":
        return kind()
    how, colon, rest = text.partition(":")
    if name == "userns" and how == "auto":
        return automatic(rest) if colon else UserNamespace(auto=AUTO_SIZE)
    if name == "userns" and how in ("keep-id", "nomap"):
        raise SpecError(f"userns: {how} is not built: --uidmap and --gidmap write any map")
    if how == "ns" and colon and rest:
        return kind(join=rest)
    if how == "pid" and colon:
        return kind(join=f"/proc/{number(rest, f'{name} pid', 1, PID_MAX)}/ns/{word_in_proc}")
    more = ", auto[:size=N]" if name == "userns" else ""
    raise SpecError(f"{name}: {shown(text)} is not host, private{more}, ns:PATH or pid:N")


def automatic(text: str) -> UserNamespace:
    """What stands behind ``auto:``: podman's ``size=N``."""
    count = AUTO_SIZE
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if key in ("uidmapping", "gidmapping") and equals:
            raise SpecError(f"userns auto: {key} is not built: give all of the map with --uidmap and --gidmap")
        if key != "size" or not equals:
            raise SpecError(f"userns auto: {shown(part)} is not size=N")
        count = number(value, "userns auto size", 1, AUTO_MAX)
    return UserNamespace(auto=count)


def time_offset(text: str) -> dict[str, float]:
    """``monotonic=SECONDS,boottime=SECONDS``, either or both, as fields of TimeNamespace."""
    found: dict[str, float] = {}
    for part in text.split(","):
        clock, equals, value = part.partition("=")
        if clock not in ("monotonic", "boottime") or not equals:
            raise SpecError(f"time offset: {shown(part)} is not monotonic=SECONDS or boottime=SECONDS")
        if clock in found:
            raise SpecError(f"time offset: {shown(part)} says {clock} a second time")
        found[clock] = seconds(value, clock)
    TimeNamespace(found.get("monotonic", 0), found.get("boottime", 0))  # checks the bounds
    return found


def id_map(text: str) -> tuple[int, int, int]:
    """One row ``INSIDE:OUTSIDE:COUNT``; COUNT alone may be missing and is 1."""
    parts = text.split(":")
    if len(parts) not in (2, 3):
        raise SpecError(f"id map: {shown(text)} is not INSIDE:OUTSIDE:COUNT, as in 0:100000:65536")
    inside, outside = (number(part, "id map", 0, ID_MAX) for part in parts[:2])
    count = number(parts[2], "id map count", 1, ID_MAX + 1) if len(parts) == 3 else 1
    return checked_map(((inside, outside, count),), "id map")[0]


def id_maps(text: str) -> tuple[tuple[int, int, int], ...]:
    """Rows of :func:`id_map` with commas between them, none of them overlapping."""
    return checked_map(tuple(id_map(part) for part in text.split(",")), "id map")
