"""Reading and writing the files of one cgroup directory: what cgroup v1 and v2 have in common. cgroups(7).

Everything here takes a path, so it works on a plain directory as well as on the kernel's.
"""

from __future__ import annotations

import os

from minictr.errors import SpecError, StepFailed, Unsupported
from minictr.kernel.handles import shut

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    Row = tuple[tuple[str, str], ...]  # (file, text), each written where the file exists; one of them must
    Form = Callable[[Sequence[str], Any], Iterable[Row]]  # (files, value) -> rows
    Table = dict[str, dict[str, tuple[Form, tuple[str, ...]]]]  # controller -> setting -> form and files

__all__ = ["content", "entrance", "get", "numbers", "put", "read", "rows_of", "words", "write", "write_rows"]

ENOENT, EINVAL = 2, 22
BLOCK = 4096  # a page, as the kernel fills it; a larger buffer is memory asked for and given back each time


def content(path: str) -> bytes:
    """What is in a file of the kernel's. Raises OSError as it comes."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        found = b""
        while block := os.read(fd, BLOCK):
            found += block
        return found
    finally:
        shut(fd)


def get(directory: str, file: str) -> str:
    """The text of a file. Raises OSError as it comes: for readers that know what a missing file means."""
    return content(f"{directory}/{file}").decode("utf-8", "surrogateescape")


def put(directory: str, file: str, *texts: str) -> None:
    """Write each of TEXTS in one write(2), which is how cgroup files want it. Raises OSError as it comes."""
    fd = os.open(f"{directory}/{file}", os.O_WRONLY | os.O_CLOEXEC | os.O_TRUNC)
    try:
        for text in texts:
            os.write(fd, text.encode())
    finally:
        shut(fd)


def entrance(directory: str, version: int) -> int:
    """A descriptor to enter the group by; the caller closes it.

    v1: ``tasks``, to which a thread writes "0" to move itself. Only this spares the kernel a wait for all processors
    (cgroup_threadgroup_rwsem: 7 to 20 ms for cgroup.procs). Permission was checked here, at open.
    v2: the directory, for CLONE_INTO_CGROUP. Raises StepFailed.
    """
    path, flags = (f"{directory}/tasks", os.O_WRONLY) if version == 1 else (directory, os.O_PATH | os.O_DIRECTORY)
    try:
        return os.open(path, flags | os.O_CLOEXEC)
    except OSError as err:
        raise refused(directory, "tasks" if version == 1 else "", None, err.errno or 0) from err


def read(directory: str, file: str) -> str:
    """The text of a file. Raises StepFailed naming the file, the rule and the cure."""
    try:
        return get(directory, file)
    except OSError as err:
        raise refused(directory, file, None, err.errno or 0) from err


def write(directory: str, file: str, text: str) -> None:
    """Write TEXT to a file. Raises StepFailed naming the file, the rule and the cure."""
    try:
        put(directory, file, text)
    except OSError as err:
        raise refused(directory, file, text, err.errno or 0) from err


def write_rows(directory: str, rows: Iterable[Row]) -> None:
    """Write all ROWS, in an order the kernel accepts.

    Files of one controller bound each other (limit <= memsw, burst <= quota), so which goes first depends on what is
    there already. A row refused with EINVAL is tried again after the others, as long as one more of them is accepted.
    Raises StepFailed for the first row that stays refused; rows before it are written by then.
    """
    waiting = list(rows)
    while waiting:
        failed: list[tuple[Row, StepFailed]] = []
        for row in waiting:
            error = _written(directory, row)
            if error is not None and error.errno != EINVAL:
                raise error
            if error is not None:
                failed.append((row, error))
        if len(failed) == len(waiting):
            raise failed[0][1]
        waiting = [row for row, _ in failed]


def _written(directory: str, row: Row) -> StepFailed | None:
    """Write to each file of ROW that is there. None, or what is wrong."""
    missing = 0
    for file, text in row:
        try:
            put(directory, file, text)
        except OSError as err:
            if err.errno != ENOENT or missing + 1 == len(row):
                return refused(directory, file, text, err.errno or 0)
            missing += 1
    return None


def refused(directory: str, file: str, text: str | None, number: int) -> StepFailed:
    """The error for an access to FILE that failed with errno NUMBER; TEXT None for reading; FILE "" for mkdir."""
    from minictr.kernel.cgroup_cures import cure  # only when something failed

    path = f"{directory}/{file}" if file else directory
    what = f"open {path}" if text is None else f"write {text.strip()!r} to {path}" if file else f"mkdir {path}"
    return StepFailed(what, number, cure=cure(directory, file, text, number))


# --- settings -> rows, by a table ---


def rows_of(
    table: Table, lacks: dict[tuple[str, str], str], version: int, controller: str, settings: dict[str, Any]
) -> list[Row]:
    """What SETTINGS of CONTROLLER write, in the table's order; None is not written. Pure.

    Raises Unsupported for a setting that LACKS lists (setting -> what comes near), SpecError for an unknown one.
    """
    known = table.get(controller, {})
    for name in settings:
        if (controller, name) in lacks:
            raise Unsupported(controller, f"cgroup v{version} has no {name}", lacks[controller, name])
        if name not in known:
            raise SpecError(f"cgroup {controller}: {name!r} is no setting; there are: {', '.join(known) or 'none'}")
    found: list[Row] = []
    for name, (form, files) in known.items():
        if settings.get(name) is not None:
            found += form(files, settings[name])
    return found


def limit(number: int) -> str:
    """A number as most files take it; below zero is no limit."""
    return "max" if number < 0 else str(number)


def one(files: Sequence[str], value: object) -> Iterable[Row]:
    """The value as it is."""
    yield tuple((file, str(value)) for file in files)


def maximum(files: Sequence[str], value: int) -> Iterable[Row]:
    """A number, below zero "max"."""
    yield tuple((file, limit(value)) for file in files)


def resource(files: Sequence[str], value: Any) -> Iterable[Row]:
    """``name number`` or ``name key=number`` rows, one a write."""
    for name, number in value:
        yield tuple((file, f"{name} {limit(number) if isinstance(number, int) else number}") for file in files)


def device_limits(rows: Sequence[tuple[tuple[int, int], int]]) -> Iterable[tuple[str, int]]:
    """("MAJOR:MINOR", number) of canonical rows."""
    return ((f"{major}:{minor}", number) for (major, minor), number in rows)


# --- readers ---


def numbers(text: str) -> dict[str, int]:
    """``name number`` lines, as in memory.stat and *.events. "max" is -1; other lines are left out."""
    found = {}
    for line in text.splitlines():
        name, _, value = line.rpartition(" ")
        if value.isdigit() or value == "max":
            found[name] = -1 if value == "max" else int(value)
    return found


def words(text: str) -> list[tuple[str, dict[str, int]]]:
    """``key name=number name=number`` lines, as in io.stat and rdma.current."""
    found = []
    for line in text.splitlines():
        key, *pairs = line.split()
        row = {}
        for pair in pairs:
            name, _, value = pair.partition("=")
            if value.isdigit() or value == "max":
                row[name] = -1 if value == "max" else int(value)
        found.append((key, row))
    return found
