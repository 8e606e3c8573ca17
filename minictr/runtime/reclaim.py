"""What one dead owner left is taken back: read only where a sweep found some (:mod:`minictr.runtime.sweep`)."""

from __future__ import annotations

import os
import time

from minictr.errors import MinictrError, StateError
from minictr.kernel.core import lib
from minictr.kernel.handles import shut
from minictr.runtime.ended import ExitRecord
from minictr.runtime.identity import ProcessIdentity
from minictr.runtime.process import is_over
from minictr.runtime.record import Record
from minictr.runtime.store import SHORT, Store, is_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Row = tuple[str, ...]

__all__ = ["forget_names", "free", "kill", "processes", "settle", "sweep_one"]

SIGKILL = 9
KILL_TIMEOUT = 5.0


def forget_names(store: Store) -> list[str]:
    """Names whose container is gone, or has another."""
    told = []
    try:
        names = os.listdir(store.names)
    except OSError:
        return []
    for name in names:
        owner = store.named(name)
        if owner and not store.has(owner):
            store.drop_name(name, owner)
            told.append(f"name {name} of container {owner[:SHORT]}")
        elif owner and _is_second(store, name, owner):
            store.drop_name(name, owner)
            told.append(f"name {name} of container {owner[:SHORT]}: its renaming was never finished")
    return told


def _is_second(store: Store, name: str, owner: str) -> bool:
    """Whether NAME is one that a renaming of OWNER was to take or to give back, when it was killed."""
    try:
        with Record.at(store, owner) as record:
            if not record.is_written or record.load().get("spec", {}).get("name", name) == name:
                return False
            with record.editing():  # one who is just renaming it has come to an end
                return bool(record.load()["spec"]["name"] != name)
    except (MinictrError, LookupError, AttributeError, TypeError):
        return False  # damaged, or removed this moment


def sweep_one(record: Record) -> list[str]:
    """One container whose lock is ours now: nobody owned it. What was removed."""
    rows = record.rows()
    kept = ("committed",) in rows
    if not kept:
        told, written = free(record, rows), record.is_written
        name = next((row[1] for row in rows if row[0] == "name" and len(row) > 1), "")
        record.forget(name)
        what = "start" if rows or not written else "removal"
        return [*told, f"container {record.id[:SHORT]}{f' ({name})' if name else ''}: its {what} was never finished"]
    # who was started after the last of them was not handed over: a new start that was killed, and its monitor with it
    last = len(rows) - rows[::-1].index(("committed",))
    if any(identity.alive for identity in processes(rows[:last])):
        return []
    if len(rows) == 1 and record.exit_record() is not None:
        return []  # over, and nothing of it left but its directory
    return settle(record, rows)


def settle(record: Record, rows: Iterable[Row] | None = None) -> list[str]:
    """A kept container that is over: its host resources go; its directory stays, or goes where it was to."""
    from minictr.runtime.state import State

    told = free(record, record.rows() if rows is None else rows)
    if record.exit_record() is None:
        record.write_exit(ExitRecord(finished=time.time_ns()))
    state = State.of(record)
    if state.remove:
        record.forget(state.name)
        return [*told, f"container {record.id[:SHORT]}"]
    record.settled()
    return told


def processes(rows: Iterable[Row]) -> list[ProcessIdentity]:
    """The first processes that a journal names."""
    found = []
    for row in rows:
        if row[0] == "process" and len(row) == 4 and row[1].isdecimal() and row[2].isdecimal():
            found.append(ProcessIdentity(int(row[1]), int(row[2]), row[3]))
    return found


def free(record: Record, rows: Iterable[Row]) -> list[str]:
    """End the processes and remove the host resources that ROWS announce, last ones first; one line each.

    Raises StateError for a row that this minictr does not know, before anything is done.
    """
    rows = tuple(rows)
    for row in rows:
        if row[0] not in RESOURCES:
            cure = "a newer minictr wrote it: use that one to remove it"
            raise StateError(f"{record.directory}/journal: {row[0]!r} is not known; {cure}")
    told: list[str] = []
    for identity in processes(rows):
        if kill(identity):
            told.append(f"process {identity.pid}")
    groups = [row for row in rows if row[0] == "cgroup"]
    if groups:
        _end_groups(groups)
    network = [row for row in rows if row[0] in NETWORK]
    if network:
        from minictr.runtime.network.attachment import release

        told += release(record, network)
    for row in reversed(rows):
        if RESOURCES[row[0]](row):
            told.append(f"{row[0]} {row[-1]}")
    return told


def kill(identity: ProcessIdentity) -> bool:
    """End that very process and wait until it is gone; whether there was one. StateError when it does not go."""
    try:
        pidfd = identity.pidfd()
    except ProcessLookupError:
        return False
    try:
        lib.mc_pidfd_send_signal(pidfd, SIGKILL, 0)
        if not is_over(pidfd, KILL_TIMEOUT) and identity.alive:
            raise StateError(f"process {identity.pid} does not end: the kernel holds it (an uninterruptible sleep)")
    finally:
        shut(pidfd)
    return True


def _end_groups(groups: list[Row]) -> None:
    """Nobody lives on in a cgroup of ours: without a pid namespace descendants do."""
    from minictr.kernel import cgroups

    places = [cgroups.Place(int(version), controller, directory) for _, version, controller, directory in groups]
    living = [place for place in places if is_directory(place.directory)]
    if any(cgroups.processes(place.directory) for place in living):
        cgroups.kill(living, timeout=KILL_TIMEOUT)


def remove_cgroup(row: Row) -> bool:
    """A cgroup directory, with what the container made below; whether it was there."""
    from minictr.kernel import cgroups

    if not is_directory(row[3]):
        cgroups.remove_way(row[3])  # a start that was killed between the two
        return False
    cgroups.remove(row[3], recorded=True)
    return True


def remove_directory(row: Row) -> bool:
    """An empty directory that a start made."""
    try:
        os.rmdir(row[1])
    except OSError:
        return False  # not empty any more: it is the user's now
    return True


def give_back_ids(row: Row) -> bool:
    """A lease of ids; whether it was the container's."""
    from minictr.runtime.leases import drop

    return drop(row[2], row[1])


def _nothing(row: Row) -> bool:
    return False


def end_pasta(row: Row) -> bool:
    """The process that carried its network; whether there was one."""
    from minictr.kernel.pasta import end

    return end(row[1])


NETWORK = frozenset({"lease", "port", "link", "element", "proxy"})  # rows that are taken back together
# kind of a journal row -> what takes it back
RESOURCES: dict[str, Callable[[Row], bool]] = {
    "name": _nothing,
    "process": _nothing,  # ended first of all
    "committed": _nothing,
    "cgroup": remove_cgroup,
    "directory": remove_directory,
    **dict.fromkeys(NETWORK, _nothing),
    "ids": give_back_ids,
    "pasta": end_pasta,
}
