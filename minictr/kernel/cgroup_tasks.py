"""The processes of a group: moved in, frozen, killed; and who may do so. cgroups(7).

=============  ==================================  ===============================================================
               v2                                  v1
=============  ==================================  ===============================================================
freeze         cgroup.freeze, Linux 5.2            freezer.state
kill           cgroup.kill, Linux 5.14             freeze, SIGKILL each, thaw, until nobody is left
threads        cgroup.threads in a threaded group  tasks, anywhere
=============  ==================================  ===============================================================
"""

from __future__ import annotations

import os
import select
from time import monotonic, sleep

from minictr.errors import StepFailed
from minictr.kernel.cgroup_files import get, put, read, refused, write
from minictr.kernel.cgroup_places import ASIDE, Hierarchy, Place, home
from minictr.kernel.cgroups import processes, refuse_own, tree
from minictr.kernel.core import lib
from minictr.kernel.handles import shut

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["add", "add_thread", "delegate", "freeze", "kill", "set_threaded", "step_aside", "thaw"]

SIGKILL = 9
ENOENT, ESRCH, ENODEV, ETIMEDOUT = 2, 3, 19, 110
PAUSES = (0.0002, 0.02)  # the first and the longest wait between two looks, in seconds
DELEGATED1 = ("tasks", "cgroup.procs")
DELEGATED2 = ("cgroup.procs", "cgroup.threads", "cgroup.subtree_control", "memory.oom.group")


# --- in ---


def add(place: Place, pid: int = 0) -> None:
    """Move a process with all its threads into the group; 0 is this process. cgroup.procs.

    Raises StepFailed naming the rule: a v2 group that gives controllers to groups below it takes no process, a cpuset
    without cpus takes nobody, and who moves must be able to write cgroup.procs of the common ancestor as well.
    """
    if place.version == 1 and pid in (0, os.getpid()) and len(os.listdir("/proc/self/task")) == 1:
        # the only thread moves itself: the kernel need not wait for all processors (7 to 20 ms)
        write(place.directory, "tasks", "0")
    else:
        write(place.directory, "cgroup.procs", str(pid))


def add_thread(place: Place, tid: int) -> None:
    """Move one thread. On v2 only into a threaded group of the same domain (:func:`set_threaded`). StepFailed."""
    write(place.directory, "tasks" if place.version == 1 else "cgroup.threads", str(tid))


def set_threaded(place: Place) -> None:
    """Let a v2 group hold single threads of processes that are in the group above: cgroup.type, Linux 4.14.

    Only cpu, cpuset, pids and perf_event work in it. v1 groups hold threads as they are. Raises StepFailed.
    """
    if place.version == 2:
        write(place.directory, "cgroup.type", "threaded")


def delegate(place: Place, uid: int, gid: int) -> None:
    """Give a group to a user, who may then make groups below it and move processes there. cgroups(7), "Delegation".

    Its limits stay ours: their files are not given. Raises StepFailed.
    """
    for file in ("", *(DELEGATED1 if place.version == 1 else DELEGATED2)):
        path = f"{place.directory}/{file}" if file else place.directory
        try:
            os.chown(path, uid, gid)
        except OSError as err:
            if err.errno != ENOENT or file in ("", "cgroup.procs"):
                raise StepFailed(f"chown {path} to {uid}:{gid}", err.errno or 0, cure="this needs CAP_CHOWN") from err


def step_aside(hierarchy: Hierarchy, name: str = ASIDE) -> str:
    """Move this process, and nothing else, from its v2 group into a new one below it; the new directory.

    A v2 group with processes cannot give controllers to groups below it (no internal processes). Where this process is
    the only one there, as under ``systemd-run --scope -p Delegate=yes``, this makes room. Raises StepFailed.
    """
    directory = f"{hierarchy.own}/{name}"
    try:
        os.mkdir(directory)
    except FileExistsError:
        pass
    except OSError as err:
        raise refused(directory, "", "", err.errno or 0) from err
    write(directory, "cgroup.procs", "0")
    return directory


def make_room(place: Place) -> bool:
    """Step aside, where PLACE's group cannot be made because this process, and no other, is in the v2 group above it.

    Whether that was so: what was refused may be tried again then. Raises StepFailed."""
    above = place.directory.rpartition("/")[0]
    if place.version != 2 or above == place.mount or not place.direct:
        return False
    if get(above, "cgroup.procs").split() != [str(os.getpid())]:
        return False
    step_aside(home(place.controller))
    return True


# --- stand still ---


def freeze(place: Place, timeout: float = 5) -> None:
    """Stop every process in the group and below it, and wait until all stand still.

    PLACE: of the controller "freezer", or any on v2. Raises StepFailed with ETIMEDOUT after ``timeout`` seconds, with
    the group thawed again, naming who did not stop: on v1 a process in an uninterruptible sleep (vfork, a dead disk).
    """
    if place.version == 2:
        _freeze2(place.directory, timeout)
    elif not _freeze1(place.directory, monotonic() + timeout):
        write(place.directory, "freezer.state", "THAWED")
        raise StepFailed(f"freeze {place.directory}", ETIMEDOUT, cure=f"{_asleep(place.directory)} cannot be stopped")


def thaw(place: Place, timeout: float = 5) -> None:
    """Let all go on. Raises StepFailed: ETIMEDOUT while a group above is frozen."""
    if place.version == 2:
        _settled2(place.directory, "0", timeout)
        return
    write(place.directory, "freezer.state", "THAWED")
    if read(place.directory, "freezer.state").strip() != "THAWED":
        above = place.directory.rpartition("/")[0]
        raise StepFailed(f"thaw {place.directory}", ETIMEDOUT, cure=f"a group above is frozen: {above}")


def _freeze1(directory: str, deadline: float) -> bool:
    """Whether all stand still. A fork at the wrong moment leaves FREEZING for good: writing again goes on."""
    pause = PAUSES[0]
    while True:
        write(directory, "freezer.state", "FROZEN")
        if read(directory, "freezer.state").strip() == "FROZEN":
            return True
        if monotonic() > deadline:
            return False
        sleep(pause)
        pause = min(pause * 2, PAUSES[1])


def _freeze2(directory: str, timeout: float) -> None:
    if not _settled2(directory, "1", timeout):
        put(directory, "cgroup.freeze", "0")
        raise StepFailed(f"freeze {directory}", ETIMEDOUT, cure=f"{_asleep(directory)} cannot be stopped")


def _settled2(directory: str, wanted: str, timeout: float) -> bool:
    """Write cgroup.freeze, then wait for ``frozen`` in cgroup.events: the kernel tells changes by POLLPRI."""
    write(directory, "cgroup.freeze", wanted)
    deadline = monotonic() + timeout
    with open(f"{directory}/cgroup.events", encoding="utf-8") as file:
        poll = select.poll()
        poll.register(file, select.POLLPRI)
        while True:
            file.seek(0)
            if f"frozen {wanted}" in file.read():
                return True
            left = deadline - monotonic()
            if left <= 0:
                return False
            poll.poll(left * 1000)


def _asleep(directory: str) -> str:
    """The processes of a group in state D, for a message."""
    found = []
    for pid in processes(directory):
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                if b") D " in file.read():
                    found.append(str(pid))
        except OSError:
            continue
    return f"process {', '.join(found)}" if found else "something"


# --- end ---


def kill(places: Iterable[Place], timeout: float = 5) -> None:
    """SIGKILL to all processes in the groups of one container, until the groups are empty.

    v2: cgroup.kill, which no fork escapes. v1: with a "freezer" place all are frozen, killed and thawed, so none can
    fork meanwhile; else pids.max of a "pids" place is set to 0 first. Frozen groups are thawed. Raises SpecError where
    this very process is in one of them; StepFailed with ETIMEDOUT naming who is left after ``timeout`` seconds.
    """
    waiting = {place.directory: place for place in places if os.path.isdir(place.directory)}
    for directory in waiting:
        refuse_own(directory, "kill")
    freezer, closed = "", ""
    for directory, place in waiting.items():
        if place.version == 2:
            _kill2(directory)
        elif place.controller == "freezer":
            freezer = directory
        elif place.controller == "pids":
            closed = directory
    limit = _shut(closed) if closed and not freezer else ""
    try:
        _kill_until_empty(tuple(waiting), freezer, monotonic() + timeout)
    finally:
        if limit:
            _try_put(closed, "pids.max", limit)


def _kill_until_empty(directories: tuple[str, ...], freezer: str, deadline: float) -> None:
    pause = PAUSES[0]
    while True:
        if freezer:
            _kill_frozen(freezer, deadline)
        left = {pid: directory for directory in directories for pid in processes(directory)}
        if not left:
            return
        for pid, directory in left.items():
            _kill_one(pid, directory)
        if monotonic() > deadline:
            who = ", ".join(str(pid) if pid else "one of another pid namespace" for pid in left)
            cure = f"still there: {who}; a process in an uninterruptible sleep ends when what it waits for is there"
            raise StepFailed(f"kill all in {', '.join(directories)}", ETIMEDOUT, cure=cure)
        sleep(pause)
        pause = min(pause * 2, PAUSES[1])


def _shut(directory: str) -> str:
    """Let nobody fork in a pids group; what its limit was."""
    try:
        limit = get(directory, "pids.max").strip()
    except OSError:
        return ""
    return limit if _try_put(directory, "pids.max", "0") else ""


def _kill2(directory: str) -> None:
    """cgroup.kill, which works on a frozen group as well; without it (before Linux 5.14) they are killed one by one."""
    _try_put(directory, "cgroup.kill", "1")
    _try_put(directory, "cgroup.freeze", "0")


def _kill_frozen(directory: str, deadline: float) -> None:
    """Freeze, SIGKILL each, thaw (v1 delivers signals after the thaw). Without effect where they do not stand still."""
    for path in tree(directory):  # a frozen group below would not thaw with this one
        _try_put(path, "freezer.state", "THAWED")
    if not processes(directory):
        return
    try:
        if _freeze1(directory, min(deadline, monotonic() + 0.5)):
            for pid in filter(None, processes(directory)):
                # frozen, it can neither end nor give its number to another: the pid alone will do
                os.kill(pid, SIGKILL)
    except StepFailed as err:
        if err.errno not in (ENOENT, ENODEV):
            raise
    finally:
        _try_put(directory, "freezer.state", "THAWED")


def _kill_one(pid: int, directory: str) -> None:
    """By pidfd, and only when that process is still in the group once the pidfd holds it."""
    if not pid:
        return
    pidfd = int(lib.mc_pidfd_open(pid, 0))
    if pidfd < 0:
        return
    try:
        if pid in processes(directory):
            lib.mc_pidfd_send_signal(pidfd, SIGKILL, 0)
    finally:
        shut(pidfd)


def _try_put(directory: str, file: str, text: str) -> bool:
    try:
        put(directory, file, text)
    except OSError:
        return False
    return True


def frozen(place: Place) -> bool:
    """Whether all of the group stand still, by a freeze of its own or of a group above."""
    if place.version == 2:
        return "frozen 1" in read(place.directory, "cgroup.events")
    return get(place.directory, "freezer.state").strip() == "FROZEN"
