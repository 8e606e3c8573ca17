"""What the fault tests found, as one table at the end of the session: the last three columns have to be 0.

A test adds a row when it is done, and judges for itself; rows of other runtimes are told and not judged.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Row", "add", "text"]


@dataclass(frozen=True)
class Row:
    """One kind of fault. ``tried`` points; of them ``tolerated`` (it went as intended all the same), ``failed``
    clearly (an error that tells step, path and errno), ``leaked`` (something was left), ``hung`` (beyond its deadline)
    and ``fail_open`` (exit 0 without the program having run, or more privilege than asked). One point may be in
    several of the last three."""

    name: str
    tried: int
    tolerated: int
    failed: int
    leaked: int
    hung: int
    fail_open: int

    @property
    def sound(self) -> bool:
        """Whether nothing leaked, hung or opened."""
        return not (self.leaked or self.hung or self.fail_open)


HEADINGS = ("", "points tried", "tolerated", "failed clearly", "leaked", "hung", "fail-open")

_rows: list[Row] = []


def add(row: Row) -> None:
    """ROW is in the table of this session."""
    _rows.append(row)


def text() -> list[str]:
    """The table's lines; none when no test added a row."""
    if not _rows:
        return []
    cells = [HEADINGS, *(tuple(map(str, vars(row).values())) for row in _rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for name, *numbers in cells:
        rest = (number.rjust(width) for number, width in zip(numbers, widths[1:], strict=True))
        lines.append("  ".join((name.ljust(widths[0]), *rest)))
    return lines
