"""Landlock's ruleset, asked once more: which right a call needed, and whether a rule allows it there. landlock(7)."""

from __future__ import annotations

from minictr.rights import READ
from minictr.runtime.observed.calls import rights_of
from minictr.runtime.observed.case import Case, Found

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["MOUNTS", "allowed_at", "of_files", "of_mounts", "of_network", "of_scopes"]

EPERM, EACCES = 1, 13
MOUNTS = frozenset(("mount", "umount", "umount2", "move_mount", "pivot_root"))
AF_UNIX, AF_INET, AF_INET6 = 1, 2, 10


def of_mounts(case: Case, feature: Any) -> Found | None:
    """In a domain that judges files no mount is changed, whatever capability is there. hook_sb_mount and its kin."""
    if case.errno != EPERM or case.call not in MOUNTS or not feature.denied:
        return None
    return Found("landlock", "no mount may be changed in a domain that judges files", "--without landlock")


def of_files(case: Case, feature: Any) -> Found | None:
    if case.errno != EACCES:
        return None
    for place in case.places[-1:] if case.call.startswith("symlink") else case.places:
        there = bool(place.get("there"))
        where, rights = rights_of(case.call, tuple(case.row["args"]), case.flags, place.get("kind") == "dir", there)
        path = place.get("real") if where == "self" and there else parent_of(place)
        if not rights or path is None:
            continue
        lacking = [name for name in rights if name in feature.denied and name not in allowed_at(case, feature, path)]
        if lacking:
            option = "--ro" if set(lacking) <= set(READ) else "--rw"
            if place.get("mount", {}).get("fstype") == "proc":
                path = place["mount"]["target"]  # a process's directory is another one the next time
            return Found("landlock", f"no rule allows {' '.join(lacking)} at {path}", f"{option} {path}")
    return None


def parent_of(place: dict[str, Any]) -> str | None:
    return str(place["dirs"][-1]["real"]) if place.get("dirs") else None


def allowed_at(case: Case, feature: Any, path: str) -> set[str]:
    """The rights that rules give at PATH: each holds for all below it."""
    found: set[str] = set()
    for top, rights, _ in feature.path_rows():
        real = (case.real or {}).get(top, top)
        if real == "/" or path == real or path.startswith(real + "/"):
            found.update(rights)
    return found


def of_network(case: Case, feature: Any) -> Found | None:
    """TCP ports. That the socket is one of TCP is not looked at: others are not judged, and do not fail so."""
    port = case.row["extra"].get("port")
    if case.errno != EACCES or port is None or case.call not in ("bind", "connect"):
        return None
    ports = getattr(feature, case.call)
    if ports is None or port in ports:
        return None
    return Found("landlock", f"{case.call}_tcp is not allowed at port {port}", f"--landlock-{case.call} {port}")


def of_scopes(case: Case, feature: Any) -> Found | None:
    """What reaches no process outside. A signal that owners would allow can be refused by nothing else."""
    if case.errno != EPERM:
        return None
    if case.call in ("kill", "tkill", "tgkill", "pidfd_send_signal") and "signal" in feature.scopes:
        return Found("landlock", "signals to processes outside are out of scope", "--without landlock:signal")
    abstract = case.row["extra"].get("family") == AF_UNIX and not case.places
    if abstract and "abstract_unix_socket" in feature.scopes:
        why = "abstract unix sockets outside are out of scope"
        return Found("landlock", why, "--without landlock:abstract_unix_socket")
    return None
