"""``minictr inspect --file-capabilities``: files of a root that give privilege, and what the container leaves of it."""

from __future__ import annotations

from minictr.cli.entry import FAILED, complain
from minictr.cli.inspect import indented
from minictr.cli.lasting import Meter
from minictr.cli.show import complain_of, table, write
from minictr.errors import MinictrError
from minictr.kernel.file_capabilities import MOUNT
from minictr.runtime.privilege import privilege_of, privilege_of_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from minictr.kernel.file_capabilities import PrivilegedFile
    from minictr.runtime.privilege import Report

SHOWN = 8  # mounts that are named
WIDTH = 40  # of a directory in the progress line


def privilege(shape: str, words: Sequence[str]) -> int:
    """Each root named: a table, or with ``--format json`` a list of objects. 125 where not all could be looked at."""
    found, code = [], 0
    for word in words:
        try:
            found.append((word, _looked_at(word)))
        except (MinictrError, OSError) as err:
            code = complain_of("inspect", err, word)
    if shape == "json":
        write("[" + ",".join(f"\n{indented(_plain(word, one))}" for word, one in found) + ("\n]" if found else "]"))
    for place, (word, one) in enumerate(found):
        if shape == "table":
            _told(word, one, alone=len(words) == 1, first=not place)
        if not one.complete:
            code = FAILED
            for path, why in one.left_out:
                if why != MOUNT:
                    complain("inspect", f"{word}: not looked at: {path}: {why}")
    return code


def _looked_at(word: str) -> Report:
    meter = Meter(quiet=False)

    def progress(names: int, directory: str) -> None:
        if meter.due():
            meter.say(f"{word}: {names} names, {directory if len(directory) <= WIDTH else directory[:WIDTH] + '...'}")

    try:
        if "/" in word:  # no container has that in its name
            return privilege_of_root(word, progress=progress)
        from minictr.runtime.instance import find

        return privilege_of(find(word), progress=progress)
    finally:
        meter.clear()


def _told(word: str, one: Report, *, alone: bool, first: bool) -> None:
    if not alone:
        write(f"{word}:" if first else f"\n{word}:")
    if not one.files:
        write("no file gives privilege")
    elif one.terms is None:
        write(table(("PATH", "HAS"), ((row.file.path, _has(row.file)) for row in one.files)))
    else:
        rows = ((row.file.path, _has(row.file), row.effect) for row in one.files)
        write(table(("PATH", "HAS", "EXECUTED HERE"), rows))
    mounts = [path for path, why in one.left_out if why == MOUNT]
    if mounts:
        more = f" and {len(mounts) - SHOWN} more" if len(mounts) > SHOWN else ""
        complain("inspect", f"{word}: note: what is mounted there is not looked at: {', '.join(mounts[:SHOWN])}{more}")


def _has(file: PrivilegedFile) -> str:
    return ", ".join(_words(file))


def _words(file: PrivilegedFile) -> Iterator[str]:
    if file.capabilities is not None:
        yield str(file.capabilities)
    if file.malformed:
        yield file.malformed.replace("file capabilities: ", "malformed capabilities: ")
    if file.setuid:
        yield f"set-user-ID {file.uid}"
    if file.setgid:
        yield f"set-group-ID {file.gid}"


def _plain(word: str, one: Report) -> dict[str, Any]:
    from minictr.runtime.inspect import plain

    rows = [{**plain(row.file), "effect": row.effect} for row in one.files]
    left_out = [{"path": path, "reason": why} for path, why in one.left_out]
    terms = None if one.terms is None else plain(one.terms)
    return {"name": word, "terms": terms, "files": rows, "left_out": left_out, "complete": one.complete}
