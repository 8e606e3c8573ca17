"""What confines a process, any process, as the kernel tells it: read, never inferred. docs/features/isolation.md.

Everything is read through one descriptor of /proc/PID (:mod:`.isolation_target`), and the rows that confine it once
more at the end: what changed meanwhile (an execve, a program that drops its capabilities) is read again.
"""

from __future__ import annotations

import os
from functools import partial

from minictr.errors import StepFailed
from minictr.kernel import procfs
from minictr.kernel.capabilities import Sets, names
from minictr.kernel.isolation_cgroups import Groups
from minictr.kernel.isolation_mounts import Files
from minictr.kernel.isolation_target import PARENT, SESSION, TERMINAL, Target, Unreadable
from minictr.kernel.isolation_values import Fixed, Init, Namespace, Seccomp, Session, Speculation, User
from minictr.kernel.namespaces import KINDS
from minictr.kernel.process import LIMITS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

__all__ = ["read_isolation"]

ENOENT, EAGAIN, EINVAL = 2, 11, 22
TRIES = 5
MODES = ("none", "strict", "filter")  # SECCOMP_MODE_*, linux/seccomp.h
# the numbers that the first namespaces have on every machine: PROC_*_INIT_INO, linux/proc_ns.h
FIRST = {"ipc": 0xEFFFFFFF, "uts": 0xEFFFFFFE, "userns": 0xEFFFFFFD, "pid": 0xEFFFFFFC, "cgroupns": 0xEFFFFFFB}
FIRST |= {"timens": 0xEFFFFFFA}
FIRST_LATER = {"net": 0xEFFFFFF9, "mnt": 0xEFFFFFF8}  # Linux 6.18; some other number before
# rows of /proc/PID/status that belong to each thread, proc_pid_status(5)
CONFINING = (
    *"Uid Gid Groups CapInh CapPrm CapEff CapBnd CapAmb NoNewPrivs Seccomp Seccomp_filters".split(),
    *"Speculation_Store_Bypass SpeculationIndirectBranch Cpus_allowed_list Mems_allowed_list".split(),
)
OTHERS_KEYS = "the keyrings of another process are seen by itself only (keyrings(7))"
OWN_BITS = "a process is told its own securebits only (PR_GET_SECUREBITS): /proc does not have them"
NO_LANDLOCK = "the kernel shows the Landlock domain of a process nowhere (landlock(7))"


def read_isolation(pid: int = 0, *, start: int = 0, paths: Sequence[str] = ()) -> dict[str, Any]:
    """The fields of a :class:`~minictr.kernel.isolation_values.Reading` of process PID; 0 is this process.

    ``start``: the process began at that clock tick, or is not the one meant. ``paths``: looked at besides KERNEL_FILES.
    Raises SpecError for a kernel thread, StepFailed: ESRCH for a process that is gone or a zombie, EAGAIN for one that
    does not stop changing.

    >>> Reading(**read_isolation(os.getpid())).capabilities.effective
    """
    for _ in range(TRIES):
        with Target(pid, start) as target:
            before = _signature(target)
            fields = _fields(target, before[0], paths)
            target.check()
            if _signature(target) == before:
                return {**fields, "unknown": Fixed(sorted(target.unknown.items()))}
    raise StepFailed(f"isolation of process {pid}", EAGAIN, cure="it changes while it is read: try again")


def _signature(target: Target) -> tuple[dict[str, str], str]:
    """What tells an execve, a dropped privilege, another namespace."""
    rows = target.status()
    links = "".join(_link(target, f"ns/{word}") for _, word in KINDS.values())
    return {name: rows.get(name, "") for name in ("Name", "NSpid", "Umask", "Threads", *CONFINING)}, links + _link(
        target, "exe"
    ) + _link(target, "root")


def _link(target: Target, name: str) -> str:
    try:
        return target.link(name)
    except OSError as err:
        if isinstance(err, StepFailed):
            raise
        return f"errno {err.errno}"


def _fields(target: Target, rows: dict[str, str], paths: Sequence[str]) -> dict[str, Any]:
    files, groups, user = Files(target, paths), Groups(target), _user(target, rows)
    attempt = target.attempt
    target.unknown |= {"securebits": OWN_BITS, "landlock": NO_LANDLOCK, "keyring": OTHERS_KEYS}
    namespaces = Fixed({kind: attempt(f"namespaces.{kind}", partial(_namespace, target, kind)) for kind in KINDS})
    fields = target.stat()
    return {
        "pid": target.pid,
        "start": target.start,
        "command": target.text("comm").removesuffix("\n"),
        "threads": int(rows["Threads"]),
        "thread_differences": tuple(sorted(set(_differences(target, rows)))),
        "namespaces": namespaces,
        "user": user,
        "capabilities": Sets(*(names(int(rows[f"Cap{word}"] or "0", 16)) for word in "Eff Prm Inh Bnd Amb".split())),
        "securebits": None,
        "no_new_privs": rows["NoNewPrivs"] == "1",
        "seccomp": _seccomp(target, rows),
        "landlock": None,
        "lsm_label": attempt("lsm_label", lambda: _label(target)),
        "dumpable": attempt("dumpable", lambda: _dumpable(target, user)),
        "speculation": Speculation(*(_said(target, rows, *row) for row in SPECULATION)),
        "root": files.root,
        "kernel_files": files.kernel_files,
        "masked": files.masked,
        "readonly": files.readonly,
        "mounts": files.mounts(),
        "links": attempt("links", lambda: _links(target)),
        "cgroups": groups.memberships,
        "limits": groups.limits,
        "devices": groups.devices,
        "rlimits": _rlimits(target.text("limits")),
        "oom_score_adj": int(target.text("oom_score_adj")),
        "umask": int(rows["Umask"], 8) if rows["Umask"] else None,
        "personality": attempt("personality", lambda: int(target.text("personality"), 16)),
        "cpus": _said(target, rows, "cpus", "Cpus_allowed_list"),
        "mems": _said(target, rows, "mems", "Mems_allowed_list"),
        "session": Session(int(fields[SESSION]) != os.getsid(0), int(fields[TERMINAL]) != 0),
        "init": _init(target, rows, namespaces["pid"]),
        "keyring": None,
    }


SPECULATION = (
    ("speculation.store_bypass", "Speculation_Store_Bypass"),
    ("speculation.indirect_branch", "SpeculationIndirectBranch"),
)


def _said(target: Target, rows: dict[str, str], name: str, row: str) -> str | None:
    """A row of status; this kernel, or this architecture, may not have it."""
    if not rows[row]:
        target.unknown[name] = f"this kernel has no {row} in /proc/PID/status"
    return rows[row] or None


def _namespace(target: Target, kind: str) -> Namespace:
    word = KINDS[kind][1]
    number, mine = _inode(target.link(f"ns/{word}")), _inode(os.readlink(f"/proc/thread-self/ns/{word}"))
    host = target.attempt(f"namespaces.{kind}.host", partial(_is_first, kind, number, mine))
    return Namespace(number, number != mine, host)


def _is_first(kind: str, number: int, mine: int) -> bool:
    """Whether NUMBER is the host's: that of the first namespace, or where it has no number of its own, process 1's."""
    if kind in FIRST or FIRST_LATER[kind] in (number, mine):
        return number == (FIRST | FIRST_LATER)[kind]
    if _inode(os.readlink("/proc/thread-self/ns/pid")) != FIRST["pid"]:
        raise Unreadable("process 1 is not the host's: this reader is in a pid namespace itself")
    return number == _inode(os.readlink(f"/proc/1/ns/{KINDS[kind][1]}"))


def _inode(link: str) -> int:
    """``net:[4026531833]``."""
    return int(link.partition("[")[2].rstrip("]"))


def _user(target: Target, rows: dict[str, str]) -> User:
    uids, gids = (tuple(map(int, rows[name].split())) for name in ("Uid", "Gid"))
    maps = {kind: target.attempt(f"user.{kind}", partial(_map, target, kind)) for kind in ("uid_map", "gid_map")}
    outside = None if maps["uid_map"] is None else _outside(maps["uid_map"])
    return User(
        uid=uids[1],
        gid=gids[1],
        uids=uids,
        gids=gids,
        groups=tuple(sorted(map(int, rows["Groups"].split()))),
        uid_map=maps["uid_map"],
        gid_map=maps["gid_map"],
        root_mapped=None if maps["uid_map"] is None else outside is not None,
        root_is_root=None if maps["uid_map"] is None else outside == 0,
        setgroups=target.attempt("user.setgroups", lambda: target.text("setgroups").strip()),
    )


def _map(target: Target, kind: str) -> tuple[tuple[int, int, int], ...]:
    rows = (line.split() for line in target.text(kind).splitlines())
    return tuple((int(inside), int(outside), int(count)) for inside, outside, count in rows)


def _outside(rows: tuple[tuple[int, int, int], ...]) -> int | None:
    """What user 0 of the namespace is outside; None for nobody."""
    return next((outside for inside, outside, count in rows if inside == 0 and count), None)


def _seccomp(target: Target, rows: dict[str, str]) -> Seccomp:
    number = rows["Seccomp"]
    mode = MODES[int(number)] if number.isdigit() and int(number) < len(MODES) else f"mode {number}"
    filters = _said(target, rows, "seccomp.filters", "Seccomp_filters")
    return Seccomp(mode, None if filters is None else int(filters))


def _label(target: Target) -> str:
    """The label, or nothing where no security module gives one: attr/current has nothing to say then (EINVAL)."""
    for name in ("attr/apparmor/current", "attr/current"):  # the second is the first module's that has one
        try:
            return target.text(name).strip("\0\n ")
        except OSError as err:
            if err.errno not in (ENOENT, EINVAL):
                raise
    return ""


def _dumpable(target: Target, user: User) -> bool:
    """Files of a process that is not dumpable belong to root, not to its user. proc(5), PR_SET_DUMPABLE of prctl(2)."""
    owner = os.stat("status", dir_fd=target.fd).st_uid
    if user.uid_map is None:
        raise Unreadable(target.unknown["user.uid_map"])
    roots = {0, _outside(user.uid_map)}
    if user.uid in roots:
        raise Unreadable("its files are root's either way: it runs as root")
    if owner not in {user.uid, *roots}:
        raise Unreadable(f"its files are user {owner}'s, which is neither its own nor root's")
    return owner == user.uid


def _links(target: Target) -> tuple[str, ...]:
    """The network interfaces it sees."""
    return tuple(sorted(line.partition(":")[0].strip() for line in target.text("net/dev").splitlines()[2:]))


def _rlimits(text: str) -> Fixed:
    """/proc/PID/limits, whose rows are in the order of the limits' numbers. -1 is no limit. proc_pid_limits(5)."""
    found = {}
    for name, line in zip(LIMITS, text.splitlines()[1:]):
        soft, hard = line[26:].split()[:2]
        found[name] = tuple(-1 if word == "unlimited" else int(word) for word in (soft, hard))
    return Fixed(found)


def _differences(target: Target, rows: dict[str, str]) -> Iterator[str]:
    """The rows in which a thread is not as the first."""
    for task in os.listdir(f"/proc/thread-self/fd/{target.fd}/task") if rows["Threads"] != "1" else ():
        try:
            other = target.status(task)
        except OSError:
            continue  # that thread has just ended, or the process: which is looked at last
        yield from (name for name in CONFINING if other.get(name, "") != rows[name])


def _init(target: Target, rows: dict[str, str], own: Namespace | None) -> Init:
    inside = int(rows["NSpid"].split()[-1])
    if inside == 1:
        return Init(1, target.text("comm").removesuffix("\n"), False)
    name = target.attempt("init.name", lambda: _init_name(target, len(rows["NSpid"].split()), own))
    return Init(inside, name, True)


def _init_name(target: Target, depth: int, own: Namespace | None) -> str:
    """The name of process 1 of its pid namespace: one of those above it, or where it joined, any."""
    if own is None:
        raise Unreadable(target.unknown["namespaces.pid"])
    if not own.own:  # ours: whose /proc this is
        return procfs.read(1, "comm").removesuffix("\n")
    for pid in _relatives(target):
        try:
            with Target(pid) as other:
                inside = other.status()["NSpid"].split()
                if inside[-1] == "1" and len(inside) == depth and _inode(other.link("ns/pid")) == own.id:
                    return other.text("comm").removesuffix("\n")
        except (OSError, ValueError):
            continue  # it ended, is a kernel thread, or not ours to look at
    raise Unreadable("process 1 of its pid namespace is not to be seen from here")


def _relatives(target: Target) -> Iterator[int]:
    """Those above TARGET, who are most likely asked for, then everybody."""
    pid = int(target.stat()[PARENT])
    for _ in range(64):
        if pid <= 0:
            break
        yield pid
        try:
            pid = int(procfs.status(pid).get("PPid", "0"))
        except StepFailed:
            break
    yield from sorted(int(name) for name in os.listdir("/proc") if name.isdecimal())
