"""The matrix as text, as Markdown and as data."""

from __future__ import annotations

from typing import Any, NamedTuple

from catalogue import CLASSES
from world import compiled

OPEN, NOTHING, UNKNOWN = "OPEN", "n/e", "?"
LEGEND = (
    "An errno: the attempt ended with it. yes: blocked without one. OPEN: it succeeded. "
    "n/e: not exercisable here. ?: the runtime ended before."
)


class Column(NamedTuple):
    """A runtime: its verdicts by class, or why there are none."""

    name: str
    about: str
    version: str
    verdicts: dict[str, compiled.Verdict]
    trouble: str

    def cell(self, name: str) -> str:
        verdict = self.verdicts.get(name)
        if verdict is None:
            return UNKNOWN
        if verdict.result == compiled.BLOCKED:
            return verdict.errno or "yes"
        return OPEN if verdict.result == compiled.SUCCEEDED else NOTHING


def rows(columns: list[Column]) -> list[list[str]]:
    tried = [one for one in columns if one.verdicts]
    table = [["class", "if it succeeds", *(one.name for one in tried)]]
    table += [[one.title, one.severity, *(column.cell(one.name) for column in tried)] for one in CLASSES]
    counts = [[column.cell(one.name) for one in CLASSES].count(OPEN) for column in tried]
    table.append(["open, of " + str(len(CLASSES)), "", *map(str, counts)])
    return table


def details(columns: list[Column]) -> list[str]:
    """What stands behind each OPEN of the first column, and behind each n/e of any."""
    lines = []
    for one in columns:
        for kind in CLASSES:
            verdict = one.verdicts.get(kind.name)
            if verdict and (verdict.result == compiled.SUCCEEDED or verdict.result == compiled.NOT_EXERCISABLE):
                lines.append(f"{one.name}: {kind.title}: {one.cell(kind.name)}: {verdict.how}")
    return lines


def notes(columns: list[Column]) -> list[str]:
    told = [f"{one.name}: {one.about} ({one.version})" for one in columns if one.verdicts]
    return told + [f"{one.name}: not tried: {one.trouble}" for one in columns if not one.verdicts]


def where(machine: dict[str, Any]) -> str:
    names = ("date", "kernel", "machine", "cgroups", "lsm")
    return ", ".join(f"{name} {machine[name]}" for name in names if name in machine)


def plain(columns: list[Column], machine: dict[str, Any]) -> str:
    table = rows(columns)
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in table]
    lines.insert(1, "  ".join("-" * width for width in widths))
    lines.insert(len(lines) - 1, "  ".join("-" * width for width in widths))
    return "\n".join([*lines, "", LEGEND, "", *notes(columns), "", where(machine), "", *details(columns)])


def markdown(columns: list[Column], machine: dict[str, Any]) -> str:
    table = rows(columns)
    lines = ["| " + " | ".join(row) + " |" for row in table]
    lines.insert(1, "|" + "---|" * len(table[0]))
    return "\n".join([*lines, "", LEGEND, "", *(f"- {line}" for line in notes(columns)), "", where(machine)])


def as_data(columns: list[Column], machine: dict[str, Any]) -> dict[str, Any]:
    runtimes = [
        {
            "name": one.name,
            "about": one.about,
            "version": one.version,
            "not_tried": one.trouble,
            "classes": {name: verdict._asdict() for name, verdict in one.verdicts.items()},
        }
        for one in columns
    ]
    return {"machine": machine, "classes": [one._asdict() for one in CLASSES], "runtimes": runtimes}
