"""User namespaces and their id maps: written directly where that is allowed, by newuidmap where it is delegated.

user_namespaces(7), newuidmap(1), subuid(5). A map is rows of "FIRST-INSIDE FIRST-OUTSIDE COUNT".
"""

from __future__ import annotations

import os

from minictr.errors import SpecError, StepFailed
from minictr.kernel import ops, procfs
from minictr.kernel.core import check, lib
from minictr.kernel.handles import Handle, shut

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from minictr.steps import Support

__all__ = [
    "UserNamespace",
    "delegated_map",
    "delegations",
    "file_ids",
    "id_inside",
    "id_outside",
    "limit_user_namespaces",
    "probe",
    "read_map",
    "subordinate_ids",
    "user_namespace",
    "write_gid_map",
    "write_uid_map",
]

CLONE_NEWUSER = 0x10000000  # linux/sched.h
EPERM = 1


def write_uid_map(pid: int, text: str) -> None:
    """The user id map of PID's user namespace. Linux 3.8 (4.15: up to 340 rows), user_namespaces(7).

    TEXT holds rows of /proc/PID/uid_map; "" maps 0 to this thread's effective user, which every user may. Where the
    kernel refuses (EPERM) and more is asked than that, newuidmap(1) writes what /etc/subuid delegates.

    A map is written once. Raises StepFailed: EPERM with the cure, EINVAL for rows that overlap; Unsupported where
    newuidmap is needed and missing.

    >>> write_uid_map(child, "0 100000 65536")
    """
    own = f"0 {os.geteuid()} 1\n"
    _write(pid, "uid_map", text or own, own, "newuidmap")


def write_gid_map(pid: int, text: str, setgroups: str = "allow") -> None:
    """The group id map of PID's user namespace, as :func:`write_uid_map`; "" maps 0 to the effective group.

    ``setgroups``: "deny" writes that to /proc/PID/setgroups first. Without privilege the kernel demands it for a map
    of the own group (CVE-2014-8989: dropping a group could *give* access). Linux 3.19.
    """
    if setgroups not in ("allow", "deny"):
        raise SpecError(f"setgroups: {setgroups!r} is not allow or deny")
    own = f"0 {os.getegid()} 1\n"
    if setgroups == "deny":
        procfs.write(pid, "setgroups", "deny")
    _write(pid, "gid_map", text or own, own, "newgidmap")


def _write(pid: int, name: str, text: str, own: str, program: str) -> None:
    try:
        procfs.write(pid, name, text)
    except StepFailed as err:
        if err.errno != EPERM:
            raise
        if text.split() == own.split():
            cure = "the map is written already, or an LSM refuses" + ("; or deny setgroups first" * (name == "gid_map"))
            raise StepFailed(err.what, EPERM, cure=cure) from err
        from minictr.kernel.delegated import write_map

        write_map(program, pid, text)


def read_map(pid: int | str = "self", *, kind: str = "uid") -> tuple[tuple[int, int, int], ...]:
    """The rows (first inside, first outside, count) of PID's uid_map or gid_map, outside as this process sees it."""
    rows = (line.split() for line in procfs.read(pid, f"{kind}_map").splitlines())
    return tuple((int(inside), int(outside), int(count)) for inside, outside, count in rows)


# --- what /etc/subuid delegates ---


def id_inside(rows: Iterable[Sequence[int]], number: int) -> int | None:
    """The id inside that the map ROWS (first inside, first outside, count) gives NUMBER outside; None: no row."""
    return next((first + number - out for first, out, count in rows if out <= number < out + count), None)


def id_outside(rows: Iterable[Sequence[int]], number: int) -> int | None:
    """The id outside that the map ROWS gives NUMBER inside; None: no row has it."""
    return next((out + number - first for first, out, count in rows if first <= number < first + count), None)


def subordinate_ids(path: str = "/etc/subuid", *, user: str = "") -> tuple[tuple[int, int], ...]:
    """The ranges (first id, count) that PATH delegates to USER, in its order. subuid(5).

    ``user``: a name or a number; "" is this process's effective user, under its number or its name. No such file:
    nothing is delegated. Raises SpecError for a row that is not NAME:FIRST:COUNT.

    >>> subordinate_ids("/etc/subgid", user="alice")
    ((100000, 65536),)
    """
    names = {user} if user else _own_names()
    found = []
    for number, line in enumerate(_lines(path), 1):
        name, *numbers = line.split(":")
        if name not in names:
            continue
        if not _is_range(numbers):
            raise SpecError(f"{path}:{number}: {line!r} is not NAME:FIRST:COUNT")
        found.append((int(numbers[0]), int(numbers[1])))
    return tuple(found)


def delegations(path: str) -> list[tuple[str, int, int]]:
    """All that PATH delegates, as (name, first id, count). What is no such row delegates nothing. Raises StepFailed."""
    rows = [line.split(":") for line in _lines(path)]
    return [(name, int(numbers[0]), int(numbers[1])) for name, *numbers in rows if _is_range(numbers)]


def _is_range(numbers: list[str]) -> bool:
    return len(numbers) == 2 and all(text.isascii() and text.isdigit() for text in numbers)


def _lines(path: str) -> list[str]:
    """The lines of a subuid(5) file, comments emptied; none without the file."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return ["" if line.startswith("#") else line for line in file.read().splitlines()]
    except FileNotFoundError:
        return []
    except OSError as err:
        raise StepFailed(f"read {path}", err.errno or 0) from err


def _own_names() -> set[str]:
    import pwd

    uid = os.geteuid()
    try:
        return {str(uid), pwd.getpwuid(uid).pw_name}
    except KeyError:
        return {str(uid)}


def delegated_map(path: str = "/etc/subuid", *, user: str = "", own: int = -1) -> str:
    """A map text: 0 is the own id (``own``, -1 for the effective one), 1 and up what PATH delegates to ``user``.

    >>> write_uid_map(child, delegated_map("/etc/subuid")), write_gid_map(child, delegated_map("/etc/subgid"))
    """
    if own < 0:
        own = os.getegid() if path.endswith("gid") else os.geteuid()
    rows, inside = [f"0 {own} 1\n"], 1
    for first, count in subordinate_ids(path, user=user):
        rows.append(f"{inside} {first} {count}\n")
        inside += count
    return "".join(rows)


# --- a user namespace without a process ---


class UserNamespace(Handle):
    """A user namespace held by a descriptor. ``fileno()`` is it; ``close()`` gives it up."""

    def __init__(self, fd: int) -> None:
        self._fd, self._open = fd, True

    def __repr__(self) -> str:
        return f"<user namespace, descriptor {self._fd}>"

    def fileno(self) -> int:
        return self._fd

    def _close(self) -> None:
        shut(self._fd)


def user_namespace(*, uid_map: str = "", gid_map: str = "", setgroups: str = "") -> UserNamespace:
    """A new user namespace with these maps (as :func:`write_uid_map`) and nobody in it. Linux 3.8, user_namespaces(7).

    For id-mapped mounts, and for children that join it. ``setgroups``: "allow" or "deny"; "" denies it with an empty
    GID_MAP only. It is made by a child that has ended when this returns. Raises StepFailed, Unsupported.

    >>> with user_namespace(uid_map="0 100000 65536", gid_map="0 100000 65536") as userns: ...
    """
    from minictr.kernel.child import Child

    with Child(CLONE_NEWUSER) as child:
        write_uid_map(child.pid, uid_map)
        write_gid_map(child.pid, gid_map, setgroups or ("allow" if gid_map else "deny"))
        try:
            return UserNamespace(os.open(f"/proc/{child.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC))
        except OSError as err:
            raise StepFailed(f"open the user namespace of process {child.pid}", err.errno or 0) from err


def limit_user_namespaces(count: int) -> None:
    """At most COUNT user namespaces below the one of this process, the host's too. Linux 4.9, namespaces(7).

    For a child in a namespace of its own; who has CAP_SYS_RESOURCE in it may change it again. Raises StepFailed: EACCES
    without that capability.

    >>> limit_user_namespaces(0)
    """
    path, cure = "/proc/sys/user/max_user_namespaces", "needs CAP_SYS_RESOURCE in the user namespace"
    ops.execute("write_file", about=path, cure=cure, path=path, data=f"{count}\n", magic=procfs.MAGIC)


# --- whose what is made is ---


class file_ids(Handle):
    """``with file_ids(uid, gid):`` files that this thread makes are that user's and that group's. setfsuid(2).

    In a file system of a user namespace, or through an id-mapped mount, ids that it does not map can make nothing, not
    even the host's root (EOVERFLOW). The thread's capabilities stay as they are. Raises StepFailed: EPERM without
    CAP_SETUID and CAP_SETGID.
    """

    def __init__(self, uid: int, gid: int) -> None:
        self._before = os.geteuid(), os.getegid()
        check(lib.mc_setfsids(uid, gid), f"setfsuid {uid}, setfsgid {gid}")
        self._open = True

    def _close(self) -> None:
        check(lib.mc_setfsids(*self._before), "setfsuid, setfsgid: back")


def probe() -> dict[str, Support]:
    """Whether the identity can be changed (``user``); the user namespace itself: ``namespaces.probe()``."""
    from minictr.kernel.probing import tried

    return tried("users")
