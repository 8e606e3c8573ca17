"""Ids of the host that nobody has: for root, who may map any, a range that is no user's and no container's.

subuid(5), user_namespaces(7). Ids are the whole machine's and no program asks another before it maps one, so what is
taken is asked of all who know: /etc/subuid and /etc/subgid, /etc/passwd and /etc/group, and the maps of every process.
"""

from __future__ import annotations

import os

from minictr.errors import SpecError, StepFailed
from minictr.kernel.users import delegations, read_map, subordinate_ids

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    Range = tuple[int, int]  # first, count

__all__ = ["DEFAULT", "OWNER", "configured", "free_range", "less", "live_maps", "taken"]

OWNER = "containers"  # whose rows of subuid(5) they are: podman's name for it
# Where OWNER has no row: what systemd's list of ids (UIDS-GIDS.md) leaves unused, 0x70000000 to 0x7FFDFFFF: above what
# useradd gives away (SUB_UID_MAX of login.defs is 600100000) and nspawn takes (to 0x6FFFFFFF), below its foreign ids
DEFAULT: Range = (0x70000000, 0x7FFE0000 - 0x70000000)
DATABASES = {"uid": "/etc/passwd", "gid": "/etc/group"}
ID_COUNT = 1 << 32
EVERY = b"         0          0 4294967295\n"  # the map of the host's own user namespace


def configured(kind: str) -> tuple[Range, ...]:
    """The ranges that containers may have: what /etc/subuid or /etc/subgid (KIND "uid", "gid") gives to the user
    "containers", else :data:`DEFAULT`. Raises SpecError for a damaged row of that user."""
    return subordinate_ids(f"/etc/sub{kind}", user=OWNER) or (DEFAULT,)


def taken() -> dict[str, list[Range]]:
    """What is somebody's already, by kind: delegated to other users, a user or group of the host, or mapped by a
    process; and what this process could not map, being in a user namespace itself. Raises StepFailed for a file that
    cannot be read.
    """
    found = live_maps()
    for kind, busy in found.items():
        busy += (row[1:] for row in delegations(f"/etc/sub{kind}") if row[0] != OWNER)
        busy += ((number, 1) for number in _numbers(DATABASES[kind]))
        own = [(first, count) for first, _, count in read_map("self", kind=kind)]
        busy += less(((0, ID_COUNT),), own)
    return found


def _numbers(path: str) -> Iterator[int]:
    """The third field of each row of a passwd(5) or group(5) file."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            rows = [line.split(":") for line in file]
    except FileNotFoundError:
        return
    except OSError as err:
        raise StepFailed(f"read {path}", err.errno or 0) from err
    for row in rows:
        if len(row) > 2 and row[2].isascii() and row[2].isdigit():
            yield int(row[2])


def live_maps() -> dict[str, list[Range]]:
    """The ids, as this process counts, that the user namespace of any process maps to, by kind; but for its own
    namespace, and those in which every user is the host's."""
    known = {EVERY, _map_of("self", "uid")}
    found: dict[str, set[bytes]] = {"uid": set(), "gid": set()}
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        text = _map_of(pid, "uid")
        if text and text not in known:  # one file of most processes, not two: 10 us each
            found["uid"].add(text)
            found["gid"].add(_map_of(pid, "gid"))
    return {kind: [row for text in texts for row in _outside(text)] for kind, texts in found.items()}


def _map_of(pid: str, kind: str) -> bytes:
    """A map as the kernel writes it; nothing of a process that has ended."""
    try:
        fd = os.open(f"/proc/{pid}/{kind}_map", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(fd, 1 << 16)
    except OSError:
        return b""
    finally:
        os.close(fd)


def _outside(text: bytes) -> Iterator[Range]:
    for line in text.splitlines():
        _, outside, count = line.split()
        yield int(outside), int(count)


def less(ranges: Iterable[Range], busy: Iterable[Range]) -> list[Range]:
    """RANGES without all that is in BUSY, ascending.

    >>> less([(0, 10)], [(2, 3), (9, 5)])
    [(0, 2), (5, 4)]
    """
    found = []
    gone = sorted(busy)
    for first, count in sorted(ranges):
        end = first + count
        for start, length in gone:
            if start + length <= first or start >= end:
                continue
            if start > first:
                found.append((first, start - first))
            first = max(first, start + length)
        if first < end:
            found.append((first, end - first))
    return found


def free_range(ranges: Iterable[Range], busy: Iterable[Range], count: int, seed: int = 0) -> int:
    """The first of COUNT ids in a row within RANGES and not in BUSY; -1 where there are none.

    ``seed`` chooses among them: ids that have just become free should not be the very next container's, whose files of
    the last one may lie in a volume still.
    """
    if count < 1:
        raise SpecError(f"ids: {count} is not a number of ids")
    gaps = [(first, length // count) for first, length in less(ranges, busy) if length >= count]
    places = sum(number for _, number in gaps)
    if not places:
        return -1
    place = seed % places
    for first, number in gaps:
        if place < number:
            return first + place * count
        place -= number
    return -1
