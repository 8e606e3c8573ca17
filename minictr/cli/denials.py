"""``--explain-denials``: what a program was denied and why, as a table on standard error, or as JSON in a file."""

from __future__ import annotations

import os
import sys

from minictr.cli.entry import printable
from minictr.errors import SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from minictr.runtime.observed.denials import Denial
    from minictr.runtime.observed.start import Observer
    from minictr.runtime.process import Process

__all__ = ["table", "tell"]

HEAD = ("n", "error", "layer", "operation, why, and what would allow it")


def tell(process: Process, path: str) -> None:
    """What PROCESS, which is over, was denied: to PATH as JSON, or with "" as a table to standard error.

    Raises SpecError for a file that cannot be written, StepFailed when the observer was killed.
    """
    observer = process.observer
    assert observer is not None
    denials = process.denials
    if not path:
        if sys.stderr is not None:
            sys.stderr.write(table(denials))
            for line in incomplete(observer):
                sys.stderr.write(f"minictr run: {line}\n")
        return
    from minictr.jsontext import dumps

    more, lost = observer.seen["more"], observer.seen["lost"]
    rows = [denial.json() for denial in denials]
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(dumps({"denials": rows, "not_told": more, "threads_not_seen": lost}) + "\n")
    except OSError as err:
        raise SpecError(f"--explain-denials={path}: {os.strerror(err.errno or 0)}") from err


def table(denials: Sequence[Denial]) -> str:
    """One row an operation; below it the evidence, and the option that would allow it."""
    if not denials:
        return "nothing was denied\n"
    rows = [(str(one.count), one.errno or "empty", one.layer, printable(one.operation)) for one in denials]
    widths = [max(len(cells[column]) for cells in (HEAD, *rows)) for column in range(3)]

    def line(cells: tuple[str, ...]) -> str:
        first = f"{cells[0]:>{widths[0]}}  {cells[1]:<{widths[1]}}  {cells[2]:<{widths[2]}}  {cells[3]}"
        return first.rstrip() + "\n"

    told = line(HEAD)
    for one, cells in zip(denials, rows):
        told += line(cells)
        told += line(("", "", "", printable(one.why)))
        if one.cure:
            told += line(("", "", "", f"=> {printable(one.cure)}"))
    return told


def incomplete(observer: Observer) -> list[str]:
    """What the table does not have, a line each."""
    lines = []
    if observer.seen["more"]:
        lines.append(f"{observer.seen['more']} more denials are not told: too many different ones")
    if observer.seen["lost"]:
        lines.append(f"too many threads at once: {observer.seen['lost']} times one was not looked at")
    return lines
