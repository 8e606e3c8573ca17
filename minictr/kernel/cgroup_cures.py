"""What a cgroup file's errno means, and what helps: imported only when something failed.

One table: (file, errno) -> words, in which {directory}, {parent}, {text} and {file} are filled in, or a function that
looks at the host to name the very ancestor, process or value.
"""

from __future__ import annotations

import os

from minictr.kernel.cgroup_files import get

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["cure", "named", "remove_cure"]

EPERM, ENOENT, ESRCH, EAGAIN, EACCES, EBUSY, ENODEV, EINVAL, ENOSPC, EROFS = 1, 2, 3, 11, 13, 16, 19, 22, 28, 30
EOPNOTSUPP, ERANGE = 95, 34
SHOWN = 5  # processes named in a message
OTHER_PARENT = "or give another parent (--cgroup-parent)"

# file -> since which Linux it is there, or what else it needs
SINCE = {
    "cpu.cfs_burst_us": "5.14",
    "cpu.max.burst": "5.14",
    "cpu.idle": "5.15",
    "cgroup.kill": "5.14",
    "cgroup.freeze": "5.2",
    "memory.oom.group": "4.19",
    "memory.peak": "5.19",
    "pids.peak": "6.6",
    "cpuset.cpus.partition": "6.1",
    "memory.memsw.limit_in_bytes": "with swap accounting (swapaccount=1 on its command line); or leave swap out",
    "memory.swap.max": "with CONFIG_SWAP and swap accounting; or leave swap out",
    "blkio.bfq.weight": "with the BFQ scheduler's CONFIG_BFQ_GROUP_IOSCHED",
    "blkio.bfq.weight_device": "with the BFQ scheduler's CONFIG_BFQ_GROUP_IOSCHED; 5.4",
    "io.bfq.weight": "with CONFIG_BLK_CGROUP_IOCOST or CONFIG_BFQ_GROUP_IOSCHED",
    "devices.allow": "with CONFIG_CGROUP_DEVICE",
}


def cure(directory: str, file: str, text: str | None, number: int) -> str:
    """The rule that refused, and what helps; "" where nothing is known. TEXT: what was written, None for reading."""
    found = CURES.get((file, number)) or CURES.get((_family(file), number)) or CURES.get(("", number), "")
    if callable(found):
        found = found(directory, file, text or "")
    parent = directory.rpartition("/")[0]
    return found.format(directory=directory, parent=parent, file=file, text=(text or "").strip())


def _family(file: str) -> str:
    """``cpu.`` for the files of the cpu controller: the second thing looked for."""
    return file.partition(".")[0] + "."


def named(directory: str) -> str:
    """The first few processes in a group by pid and name; "" when there are none."""
    try:
        pids = get(directory, "cgroup.procs").split()
    except OSError:
        return ""
    words = []
    for pid in pids[:SHOWN]:
        try:
            with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
                words.append(f"{pid} ({file.read().strip()})")
        except OSError:
            words.append(f"{pid} (of another pid namespace)" if pid == "0" else pid)
    more = len(pids) - len(words)
    return ", ".join(words) + (f" and {more} more" if more else "")


# --- looked up on the host; braces in what they found are doubled, as the answer is a format ---


def _plain(words: str) -> str:
    return words.replace("{", "{{").replace("}", "}}")


def not_writable(directory: str, file: str, _text: str) -> str:
    path = f"{directory}/{file}" if file else directory.rpartition("/")[0]
    try:
        owner = os.stat(path).st_uid
    except OSError:
        return "no permission to look at it"
    if os.geteuid() == owner == 0:
        return _plain(f"{path} is root's, but an outer container or a security module refuses it")
    return _plain(
        f"{path} belongs to user {owner}, this is user {os.geteuid()}: be root, or have the group delegated"
        f" (systemd-run --user --scope -p Delegate=yes, or chown by kernel.cgroup_tasks.delegate), {OTHER_PARENT}"
    )


def absent(directory: str, file: str, _text: str) -> str:
    if not file or not os.path.isdir(directory):
        return _plain(f"{directory if file else directory.rpartition('/')[0]} is not there: removed meanwhile?")
    controller = file.partition(".")[0]
    parent = directory.rpartition("/")[0]
    try:
        here = get(directory, "cgroup.controllers").split()
    except OSError:
        here = [controller]  # v1
    if controller not in (*here, "cgroup"):
        return _plain(f"controller {controller} is not in {directory}/cgroup.controllers: enable it in {parent} first")
    needs = SINCE.get(file, "")
    return f"this kernel does not have it: it needs Linux {needs}" if needs else "this kernel does not have it"


def inner_processes(directory: str, _file: str, text: str) -> str:
    who = named(directory)
    return _plain(
        f"no internal processes: a group other than the root either has processes or gives {text.strip('+ ')} to groups"
        f" below it. In {directory} itself: {who or 'nobody any more, try again'}."
        f" Move them into a group below it (kernel.cgroup_tasks.step_aside moves this process), {OTHER_PARENT}"
    )


def no_controller(directory: str, _file: str, text: str) -> str:
    controller = text.strip("+ ")
    try:
        here = get(directory, "cgroup.controllers").split()
    except OSError:
        here = []
    if controller in here:
        return _plain(
            f"{directory}/cgroup.type says {_type(directory)}: a threaded group has threaded controllers only"
        )
    return _plain(
        f"{directory}/cgroup.controllers has only: {' '.join(here) or 'nothing'}; its parent does not give it"
    )


def _type(directory: str) -> str:
    try:
        return get(directory, "cgroup.type").strip()
    except OSError:
        return "root"


def wrong_type(directory: str, _file: str, _text: str) -> str:
    return _plain(
        f"{directory}/cgroup.type says {_type(directory)}: processes go into a domain, threads into a threaded group;"
        " a domain below a threaded one is invalid until 'threaded' is written to its cgroup.type"
    )


def occupied_parent(directory: str, _file: str, _text: str) -> str:
    try:
        given = get(directory, "cgroup.subtree_control").split()
    except OSError:
        given = []
    return _plain(
        f"no internal processes: {directory} gives {' '.join(given)} to the groups below it, so processes go into"
        " one of those"
    )


def memory_in_use(directory: str, _file: str, _text: str) -> str:
    try:
        used = int(get(directory, "memory.usage_in_bytes"))
    except (OSError, ValueError):
        return "more is in use than that"
    return _plain(f"{used} bytes are in use and cannot be given back: ask for more, or end {named(directory)}")


def cpu_share(directory: str, _file: str, _text: str) -> str:
    parent = directory.rpartition("/")[0]
    try:
        above = f"{get(parent, 'cpu.cfs_quota_us').strip()} of {get(parent, 'cpu.cfs_period_us').strip()} us"
    except OSError:
        above = "no limit"
    return _plain(
        "quota 1000 us at least, period 1000 to 1000000 us, burst no more than quota, shares only where idle is 0;"
        f" and no larger part of time than the parent's, {above}"
    )


def outside_parent(directory: str, file: str, _text: str) -> str:
    parent = directory.rpartition("/")[0]
    try:
        return _plain(f"only what the parent has: {parent}/{file} says {get(parent, file).strip() or 'nothing'}")
    except OSError:
        return "only what the parent has"


def too_many(directory: str, _file: str, _text: str) -> str:
    above = directory.rpartition("/")[0]
    while "/" in above:
        for file in ("cgroup.max.descendants", "cgroup.max.depth"):
            try:
                if get(above, file).strip() != "max":
                    return _plain(f"{above}/{file} says {get(above, file).strip()}: raise it, or remove groups")
            except OSError:
                continue
        above = above.rpartition("/")[0]
    return "a limit of groups is reached"


CURES: dict[tuple[str, int], str | Callable[[str, str, str], str]] = {
    ("", EACCES): not_writable,
    ("", EPERM): not_writable,
    ("", ENOENT): absent,
    ("", ENODEV): "the group {directory} was removed meanwhile",
    ("", EROFS): "cgroups are mounted read-only here: an outer container has to mount them writable",
    ("", EAGAIN): too_many,
    ("", ERANGE): "{text} is out of range",
    ("", EINVAL): "{file} does not take {text}",
    ("", ENOSPC): "the parent {parent} has no room for it",
    ("cgroup.subtree_control", EBUSY): inner_processes,
    ("cgroup.subtree_control", ENOENT): no_controller,
    ("cgroup.subtree_control", EINVAL): no_controller,
    ("cgroup.subtree_control", EOPNOTSUPP): wrong_type,
    ("cgroup.procs", EBUSY): occupied_parent,
    ("cgroup.procs", EOPNOTSUPP): wrong_type,
    ("cgroup.threads", EOPNOTSUPP): wrong_type,
    ("cgroup.type", EOPNOTSUPP): wrong_type,
    ("cgroup.procs", ESRCH): "process {text} is gone",
    ("cgroup.procs", EAGAIN): "pids.max of a group is reached, or the process is just being made: try again",
    ("cgroup.procs", ENOSPC): "a cpuset without cpus or mems takes nobody: write both first",
    ("tasks", ENOSPC): "a cpuset without cpus or mems takes nobody: write both first",
    ("cgroup.procs", EINVAL): "a kernel thread, or a realtime process without cpu.rt_runtime_us in the group",
    ("memory.limit_in_bytes", EBUSY): memory_in_use,
    ("memory.memsw.limit_in_bytes", EBUSY): memory_in_use,
    (
        "memory.limit_in_bytes",
        EINVAL,
    ): "never more than memory and swap together: {directory}/memory.memsw.limit_in_bytes",
    ("memory.memsw.limit_in_bytes", EINVAL): "never less than {directory}/memory.limit_in_bytes",
    ("memory.swappiness", EINVAL): "0 to 200 (100 before Linux 5.8)",
    ("cpu.", EINVAL): cpu_share,
    ("cpu.weight", ERANGE): "1 to 10000",
    ("cpuset.cpus", EACCES): outside_parent,
    ("cpuset.mems", EACCES): outside_parent,
    ("cpuset.cpus", EINVAL): outside_parent,
    ("cpuset.mems", EINVAL): outside_parent,
    ("cpuset.cpus", ERANGE): outside_parent,
    ("cpuset.mems", ERANGE): outside_parent,
    ("cpuset.cpus", ENOSPC): "processes are in the group: it cannot have none",
    ("cpuset.cpus", EBUSY): "groups below use more than that, or it would leave a deadline task without bandwidth",
    (
        "devices.allow",
        EPERM,
    ): "never more than the parent {parent}/devices.list allows; and writing needs CAP_SYS_ADMIN",
    ("devices.deny", EINVAL): "'a' only while no group is below {directory}",
    ("devices.allow", EINVAL): "'a' only while no group is below {directory}, and only where the parent allows all",
    ("blkio.", ENODEV): "no such disk: give the whole disk's MAJOR:MINOR (lsblk -d), not a partition's",
    ("io.", ENODEV): "no such disk: give the whole disk's MAJOR:MINOR (lsblk -d), not a partition's",
    ("io.", EOPNOTSUPP): "the disk's scheduler takes no weights: echo bfq > /sys/block/DISK/queue/scheduler",
    ("blkio.", EOPNOTSUPP): "the disk's scheduler takes no weights: echo bfq > /sys/block/DISK/queue/scheduler",
    ("blkio.bfq.weight", ERANGE): "1 to 1000",
    ("hugetlb.", EINVAL): "bytes, in whole pages",
    ("freezer.state", EBUSY): "a group above is frozen",
}


def remove_cure(directory: str) -> str:
    """Who keeps a group from being removed."""
    from minictr.kernel.cgroups import tree

    for path in tree(directory):
        if who := named(path):
            return f"in {path}: {who}; end them (kernel.cgroups.kill) or move them out"
    return "" if os.access(directory.rpartition("/")[0], os.W_OK) else not_writable(directory, "", "")
