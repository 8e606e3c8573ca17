"""Rights over many paths become a few rules: what is read and written by a program is mostly below a few directories.

Pure. A merge may give more than was used: never more than reading of what lies beside it.
"""

from __future__ import annotations

import os

from minictr.rights import READ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["MANY", "Rules", "rules_of"]

MANY = 8  # so many read in one directory: the directory
# installed programs and libraries: below these the second level is named (/usr/lib), and read as a whole
INSTALLED = ("/usr", "/opt")
PROGRAMS = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
# never read as a whole because of many files in them
KEPT = frozenset(("/", "/etc", "/dev", "/var", "/home", "/root", "/tmp", "/run", "/srv", "/mnt", "/sys"))
CHANGING = ("/proc", "/dev/pts")  # what is in them has another name the next time

Rules = tuple[tuple[str, ...], tuple[str, ...], tuple[tuple[str, tuple[str, ...]], ...]]


def rules_of(rights: Mapping[str, Iterable[str]]) -> Rules:
    """(ro, rw, rules) for path -> RIGHTS: as the options ``--ro``, ``--rw`` and ``--landlock-rule`` have them."""
    read: set[str] = set()
    written: set[str] = set()
    listed: set[str] = set()
    for path, names in rights.items():
        wanted = set(names)
        if not wanted:
            continue
        if not wanted <= set(READ):
            written.add(stable(path))
        elif wanted == {"read_dir"}:
            listed.add(stable(path))
        else:
            read.add(installed(stable(path)))
    written = uncovered(written, ())
    read = uncovered(gathered(read), written)
    covering = (*read, *written)
    left = sorted(path for path in listed if not any(covers(top, path) for top in covering))
    rules = tuple((path, ("read_dir",)) for path in left)
    return tuple(sorted(read)), tuple(sorted(written)), rules


def stable(path: str) -> str:
    """PATH, or the directory whose entries come and go."""
    return next((top for top in CHANGING if covers(top, path)), path)


def installed(path: str) -> str:
    """The directory of installed files that PATH is in, else itself."""
    for top in INSTALLED:
        if path.startswith(top + "/"):
            return "/".join(path.split("/")[:3])
    return next((top for top in PROGRAMS if covers(top, path)), path)


def gathered(paths: set[str]) -> set[str]:
    """MANY files of one directory become the directory, and many such directories the one that they are in."""
    while True:
        beside: dict[str, list[str]] = {}
        for path in paths:
            beside.setdefault(os.path.dirname(path), []).append(path)
        crowded = [top for top, found in beside.items() if len(found) >= MANY and top not in KEPT]
        if not crowded:
            return paths
        for top in crowded:
            paths = {path for path in paths if not covers(top, path)} | {top}


def uncovered(paths: Iterable[str], others: Iterable[str]) -> set[str]:
    """PATHS without those below another one, or below one of OTHERS."""
    kept: set[str] = set()
    for path in sorted(paths):
        if not any(covers(top, path) for top in (*kept, *others)):
            kept.add(path)
    return kept


def covers(top: str, path: str) -> bool:
    """Whether a rule at TOP holds at PATH."""
    return top == "/" or path == top or path.startswith(top + "/")
