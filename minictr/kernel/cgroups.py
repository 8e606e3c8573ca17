"""Cgroups: groups of processes with limits and accounts, on v1, v2 and hybrid hosts alike. cgroups(7).

A :class:`Place` says where a group of one controller is; ``create``, ``write``, ``entrance``, ``kill`` and ``remove``
are its life. Settings have the same names and units on both versions (``cgroup1`` and ``cgroup2`` hold the tables):

===========  =========================================================================================================
memory       max, high, low, min, swap in bytes (swap alone, on top of max; -1 no limit)
             v1: swappiness, oom_kill_disable; v2: oom_group
cpu          quota (-1 none), period, burst in us; weight 1..10000 or shares 2..262144; idle 0 or 1
cpuset       cpus, mems ("0-3,7"), partition (v2)
pids         max (-1 no limit)
io           weight 1..10000; weight_device, read_bps, write_bps, read_iops, write_iops: ((major, minor), number) rows
devices      rules: (allow, "a" "b" or "c", major or -1, minor or -1, of "rwm") rows; the last match decides, or denied
hugetlb      limits: ("2MB", bytes) rows           rdma, misc      limits: (resource, number or "key=number ...") rows
raw          files: ("memory.high", "200M") rows, v2 only
===========  =========================================================================================================
"""

from __future__ import annotations

import os
from time import monotonic, sleep

from minictr.errors import SpecError, StepFailed, Unsupported
from minictr.kernel.cgroup_files import entrance as open_entrance
from minictr.kernel.cgroup_files import refused
from minictr.kernel.cgroup_places import Hierarchy, Place, has, hierarchies, home, locate, own_groups
from minictr.kernel.core import lib
from minictr.kernel.handles import shut

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from minictr.kernel.cgroup_readings import Readings
    from minictr.kernel.cgroup_usage import Usage as Usage
    from minictr.steps import Support

__all__ = [
    "Hierarchy",
    "Place",
    "create",
    "entrance",
    "final_files",
    "freeze",
    "frozen",
    "has",
    "hierarchies",
    "home",
    "kill",
    "locate",
    "marked",
    "own_groups",
    "probe",
    "processes",
    "remove",
    "remove_way",
    "take",
    "thaw",
    "usage",
    "write",
]

MAGICS = frozenset({0x0027E0EB, 0x63677270})  # CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC: linux/magic.h
ENOENT, EPERM, EBUSY, EEXIST, ENOTDIR, EINVAL, ENOTEMPTY, EOPNOTSUPP = 2, 1, 16, 17, 20, 22, 39, 95
# /sys/kernel/cgroup/delegate, and what it would say of v1
DELEGATED_1, DELEGATED_2 = ("tasks", "cgroup.procs"), ("cgroup.procs", "cgroup.threads", "cgroup.subtree_control")
# user.* on cgroups since Linux 5.7; trusted.* before, for who has CAP_SYS_ADMIN
MARKS = ("user.minictr", "trusted.minictr")
WANTED, WAY = b"1", b"way"  # a mark says: a group that was asked for, or one that had to be there above it


# --- make and enter ---


def create(place: Place) -> bool:
    """Make the group; True when it was not there. Missing parents are made too; whatever is made gets a mark.

    On v2 the controller is enabled in cgroup.subtree_control of the ancestors that lack it. A new v1 cpuset gets its
    parent's cpus and mems. Raises StepFailed naming the file or directory that refused, the rule and the cure.

    >>> create(locate("pids", "lab"))
    """
    made: list[str] = []
    try:
        _make(place.directory, place.version == 1 and place.controller == "cpuset", made)
        if place.version == 2:
            from minictr.kernel.cgroup2 import CONTROLLED, enable, refuse_invalid

            if place.controller in CONTROLLED:
                enable(place.directory.rpartition("/")[0], place.controller)
            refuse_invalid(place.directory)
    except BaseException:
        for directory in reversed(made):
            _gone(directory, None, directory)
        raise
    return place.directory in made


def _make(directory: str, cpuset: bool, made: list[str], value: bytes = WANTED) -> None:
    """Make one directory, parents first where they are missing, and mark it; MADE collects what was not there."""
    for _ in range(10):  # somebody else may remove a parent that is empty between our two calls
        try:
            os.mkdir(directory, 0o755)
            break
        except FileExistsError:
            return
        except FileNotFoundError as err:
            parent = directory.rpartition("/")[0]
            if not parent.strip("/"):
                raise refused(directory, "", "", ENOENT) from err
            _make(parent, cpuset, made, WAY)
        except OSError as err:
            raise refused(directory, "", "", err.errno or 0) from err
    made.append(directory)
    for mark in MARKS:
        try:
            os.setxattr(directory, mark, value)
            break
        except OSError:
            continue  # an old kernel; remove() then wants to be told
    if cpuset:
        from minictr.kernel.cgroup1 import inherit_cpuset

        inherit_cpuset(directory)


def marked(directory: str) -> bool:
    """Whether :func:`create` made this group."""
    return bool(_mark(directory))


def _mark(directory: str) -> bytes:
    for mark in MARKS:
        try:
            return os.getxattr(directory, mark, follow_symlinks=False)
        except OSError:
            continue
    return b""


def delegate(place: Place, uid: int, gid: int) -> None:
    """Give the group to a user: to make groups below and to move processes among them, not to lift its limits.

    cgroups(7), "Delegation": the directory and the files of processes; the limits' files stay the owner's. Raises
    StepFailed.

    >>> delegate(locate("pids", "lab"), 100000, 100000)
    """
    for name in ("", *(DELEGATED_1 if place.version == 1 else DELEGATED_2)):
        path = f"{place.directory}/{name}" if name else place.directory
        try:
            os.chown(path, uid, gid, follow_symlinks=False)
        except FileNotFoundError:
            continue  # a later kernel's
        except OSError as err:
            raise StepFailed(f"chown {path} to {uid}:{gid}", err.errno or 0) from err


def write(place: Place, **settings: Any) -> None:
    """Write limits; None is left as it is. The settings of each controller: see the module.

    Raises SpecError for what is no setting, Unsupported for what this version of cgroups does not have, StepFailed
    naming the file, the rule and the cure.

    >>> write(locate("memory", "lab"), max=256 << 20, swap=0)
    """
    if place.version == 1:
        from minictr.kernel.cgroup1 import write_settings
    else:
        from minictr.kernel.cgroup2 import enable, raw_controllers, write_settings

        if place.controller == "raw":
            for controller in raw_controllers(settings.get("files", ())):
                if home(controller).version == 1:
                    raise Unsupported("raw", f"{controller} is on cgroup v1 here", "give its limit by name instead")
                enable(place.directory.rpartition("/")[0], controller)
    try:
        write_settings(place.directory, place.controller, settings)
    except SpecError:
        raise
    except (KeyError, TypeError, ValueError) as err:
        told = ", ".join(f"{name}={value!r}" for name, value in settings.items())
        raise SpecError(
            f"cgroup {place.controller}: {told}: not as the table of minictr.kernel.cgroups has it"
        ) from err


def entrance(place: Place) -> int:
    """A descriptor to enter by; the caller closes it. See :func:`minictr.kernel.cgroup_files.entrance`. StepFailed."""
    return open_entrance(place.directory, place.version)


# --- look in ---


def processes(directory: str) -> tuple[int, ...]:
    """The processes in a group and all groups below it; empty when it is gone. 0: one of another pid namespace.

    Raises StepFailed. A process may be told twice when it moves meanwhile.
    """
    found: dict[int, None] = {}
    for path in tree(directory):
        try:
            with open(f"{path}/cgroup.procs", "rb") as file:
                found.update(dict.fromkeys(map(int, file.read().split())))
        except OSError as err:
            # a threaded group has threads only: their process is told by the domain above (EOPNOTSUPP)
            if err.errno not in (ENOENT, EOPNOTSUPP, 19):
                raise StepFailed(f"read {path}/cgroup.procs", err.errno or 0) from err
    return tuple(found)


def tree(directory: str) -> Iterable[str]:
    """DIRECTORY and all groups below it, parents first."""
    waiting = [directory]
    while waiting:
        path = waiting.pop()
        yield path
        try:
            with os.scandir(path) as entries:
                waiting += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError:
            continue  # gone


def usage(places: Iterable[Place]) -> Usage:
    """What the groups of one container used, from all their places; see ``cgroup_usage``."""
    from minictr.kernel.cgroup_usage import usage as read_usage

    return read_usage(places)


def take(places: Iterable[Place]) -> Readings:
    """The text of the files that say what PLACES used, to be understood when they are gone; see ``cgroup_readings``."""
    from minictr.kernel.cgroup_readings import take as take_readings

    return take_readings(places)


def final_files(place: Place) -> tuple[str, ...]:
    """The files that :func:`usage` reads of PLACE: copied before it is removed, they tell the same."""
    from minictr.kernel.cgroup_readings import final_files as files_of

    return files_of(place)


# --- stop and end: see cgroup_tasks ---


def freeze(place: Place, timeout: float = 5) -> None:
    """Stop all processes of the group and those below, and wait until they stand. See ``cgroup_tasks``."""
    from minictr.kernel.cgroup_tasks import freeze as freeze_group

    freeze_group(place, timeout)


def thaw(place: Place, timeout: float = 5) -> None:
    """Let them go on."""
    from minictr.kernel.cgroup_tasks import thaw as thaw_group

    thaw_group(place, timeout)


def frozen(place: Place) -> bool:
    """Whether all of the group stand still."""
    from minictr.kernel.cgroup_tasks import frozen as is_frozen

    return is_frozen(place)


def kill(places: Iterable[Place], timeout: float = 5) -> None:
    """SIGKILL to everything in the groups of one container, until they are empty. See ``cgroup_tasks``."""
    from minictr.kernel.cgroup_tasks import kill as kill_groups

    kill_groups(places, timeout)


# --- remove ---


def remove(directory: str, timeout: float = 5, *, recorded: bool = False) -> None:
    """Remove a group that :func:`create` made, and those below it; one that is gone is done.

    Parents that were made on the way to it go with the last group below them. Retried while the kernel says EBUSY
    (processes that are about to end), for ``timeout`` seconds. Refused with SpecError: what is not on a cgroup file
    system; a group without our mark, unless the caller has a record of having made it (``recorded``); the group this
    process is in, and those above it. Raises StepFailed naming who is in it.
    """
    parent, _, name = directory.rstrip("/").rpartition("/")
    try:
        fd = os.open(parent or "/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError as err:
        if os.path.lexists(directory):  # a second look: what is said to be gone is forgotten
            raise refused(directory, "", None, ENOENT) from err
        return
    except OSError as err:
        raise refused(directory, "", None, err.errno or 0) from err
    try:
        kind = lib.mc_fstatfs_type(fd)
        if kind < 0:
            raise StepFailed(f"look at the file system of {parent}", -kind)
        if kind not in MAGICS or name in ("", ".", ".."):
            raise SpecError(f"remove cgroup {directory}: this is no group below another")
        if not recorded and not marked(directory):
            if not os.path.lexists(directory):
                return
            raise SpecError(f"remove cgroup {directory}: not made by minictr, so not ours to remove")
        gone = _gone(name, fd, directory)
        if not gone:
            refuse_own(f"{os.readlink(f'/proc/self/fd/{fd}').rstrip('/')}/{name}", "remove")
    finally:
        shut(fd)
    if not gone:
        _remove_tree(directory, monotonic() + timeout)
    remove_way(directory)


def remove_way(directory: str) -> None:
    """Remove the groups above one that is gone, as far as :func:`create` made them on its way and nobody is in them."""
    while _mark(directory := directory.rpartition("/")[0]) == WAY and _gone(directory, None, directory):
        pass


def _gone(name: str, fd: int | None, directory: str) -> bool:
    try:
        os.rmdir(name, dir_fd=fd)
    except OSError as err:
        if err.errno in (EBUSY, ENOTEMPTY):
            return False
        if err.errno not in (ENOENT, 19):
            raise StepFailed(f"rmdir {directory}", err.errno or 0, cure=_remove_cure(directory)) from err
    return True


def _remove_cure(directory: str) -> str:
    from minictr.kernel.cgroup_cures import remove_cure

    return remove_cure(directory)


def _remove_tree(directory: str, deadline: float) -> None:
    pause = 0.0001
    while True:
        for path in reversed([*tree(directory)][1:]):
            _gone(path, None, path)
        if _gone(directory, None, directory):
            return
        if monotonic() > deadline:
            raise StepFailed(f"rmdir {directory}", EBUSY, cure=_remove_cure(directory))
        sleep(pause)
        pause = min(pause * 2, 0.02)


def refuse_own(directory: str, verb: str) -> None:
    """SpecError when this process is in DIRECTORY or below it."""
    for own in own_groups():
        if own == directory or own.startswith(directory + "/"):
            raise SpecError(f"{verb} cgroup {directory}: this very process is in {own}")


def probe() -> dict[str, Support]:
    """Whether a group of each controller can be made here: one is made below the own group, and removed."""
    from minictr.kernel.cgroup_probes import probe as probe_all

    return probe_all()
