"""Which ids of the host a container of ``--userns auto`` has: leased at its start, given back when it is over.

::

    ROOT/ids/UID-GID-COUNT    symbolic link to the ID of the container that has COUNT ids from UID and GID on

One process at a time chooses (flock of the directory). The container's journal has a row before the link is made, so
a sweep gives back what a dead owner had. Whoever has another state directory is heard as well, by the maps of his
processes (:func:`minictr.kernel.subids.live_maps`), unless both choose in the very same moment.
"""

from __future__ import annotations

import fcntl
import os

from minictr.errors import StateError, StepFailed, Unsupported
from minictr.kernel import subids
from minictr.kernel.handles import shut

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minictr.runtime.record import Record

__all__ = ["Lease", "drop", "take"]

ENOSPC = 28
TOLD = 4  # ranges that an error names


class Lease:
    """COUNT user ids from ``uid`` on and group ids from ``gid`` on. ``path``, ``owner``: its link, and what it says."""

    def __init__(self, directory: str, owner: str, uid: int, gid: int, count: int) -> None:
        self.uid, self.gid, self.count, self.owner = uid, gid, count, owner
        self.path = os.path.join(directory, f"{uid}-{gid}-{count}")

    def row(self, kind: str) -> str:
        """The row of uid_map (KIND "uid") or gid_map."""
        return f"0 {self.uid if kind == 'uid' else self.gid} {self.count}\n"

    def give_back(self) -> None:
        """It is free again. Once more when it fails: nobody comes after it but the next sweep."""
        try:
            drop(self.path, self.owner)
        except StateError:
            drop(self.path, self.owner)


def take(journal: Record, count: int) -> Lease:
    """COUNT user ids and group ids in a row that nobody has, for the container of JOURNAL.

    Raises Unsupported for an ordinary user, StepFailed (ENOSPC) where there are none, SpecError for a damaged
    /etc/subuid, StateError.
    """
    if os.geteuid():
        cure = "give maps of what /etc/subuid delegates to you, or none: 0 inside is then you"
        raise Unsupported("userns", "only root may take ids that are nobody's", cure)
    directory = os.path.join(journal.store.path, "ids")
    lock = _locked(directory)
    try:
        found = _choose(directory, journal.id, count)
        if not all(first >= 0 for first in found):
            from minictr.runtime.sweep import sweep

            sweep(journal.store)  # what was just left behind
            found = _choose(directory, journal.id, count)
        uid, gid = (_some(first, kind, count) for first, kind in zip(found, KINDS, strict=True))
        lease = Lease(directory, journal.id, uid, gid, count)
        journal.write_ahead(("ids", lease.owner, lease.path))
        os.symlink(lease.owner, lease.path)
        return lease
    except OSError as err:
        if isinstance(err, StepFailed):
            raise
        raise StateError(f"write {directory}: {os.strerror(err.errno or 0)}") from err
    finally:
        shut(lock)


KINDS = ("uid", "gid")


def _choose(directory: str, owner: str, count: int) -> list[int]:
    """The first user id and the first group id: one number where that is free as both; -1 where there is none."""
    leased = _leased(directory)
    taken = subids.taken()
    free = []
    for place, kind in enumerate(KINDS):
        busy = [*taken[kind], *((row[place], row[2]) for row in leased)]
        free.append(subids.less(subids.configured(kind), busy))
    seed = int(owner[:16], 16)
    both = subids.less(free[0], subids.less(((0, subids.ID_COUNT),), free[1]))
    same = subids.free_range(both, (), count, seed)
    return [same, same] if same >= 0 else [subids.free_range(one, (), count, seed) for one in free]


def _some(first: int, kind: str, count: int) -> int:
    """FIRST, if there is one. Raises StepFailed."""
    if first >= 0:
        return first
    ranges = [f"{start}-{start + length - 1}" for start, length in subids.configured(kind)]
    named = ", ".join(ranges[:TOLD])
    cure = f"more of them: a row of {subids.OWNER} in /etc/sub{kind}; fewer: auto:size=N; or end a container"
    raise StepFailed(f"find {count} free {kind}s in a row within {named}", ENOSPC, cure=cure)


def _leased(directory: str) -> list[tuple[int, int, int]]:
    """(first uid, first gid, count) of every lease."""
    rows = [name.split("-") for name in os.listdir(directory)]
    return [(int(row[0]), int(row[1]), int(row[2])) for row in rows if len(row) == 3 and all(map(str.isdigit, row))]


def _locked(directory: str) -> int:
    """The lock of who chooses: a descriptor of DIRECTORY, made if missing. It waits for the other. StateError."""
    try:
        try:
            os.mkdir(directory, 0o700)
        except FileExistsError:
            pass
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
        except BaseException:
            shut(fd)
            raise
    except OSError as err:
        raise StateError(f"lock {directory}: {os.strerror(err.errno or 0)}") from err
    return fd


def drop(path: str, owner: str) -> bool:
    """The lease PATH is free again, if it was OWNER's; whether it was. Raises StateError."""
    try:
        if os.readlink(path) != owner:
            return False
        os.unlink(path)
    except FileNotFoundError:
        return False
    except OSError as err:
        raise StateError(f"remove {path}: {os.strerror(err.errno or 0)}") from err
    return True
