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


def rows(columns: list[Column], only_open: bool = False) -> list[list[str]]:
    """A row a class, the head first and the count last. ONLY_OPEN: those that are open in some column."""
    tried = [one for one in columns if one.verdicts]
    cells = {kind: [column.cell(kind.name) for column in tried] for kind in CLASSES}
    shown = [kind for kind in CLASSES if not only_open or OPEN in cells[kind]]
    table = [["class", "if it succeeds", *(one.name for one in tried)]]
    table += [[kind.title, kind.severity, *cells[kind]] for kind in shown]
    counts = [sum(row[i] == OPEN for row in cells.values()) for i in range(len(tried))]
    return [*table, [f"open, of {len(CLASSES)}", "", *map(str, counts)]]


def aligned(table: list[list[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in table]
    rule = "  ".join("-" * width for width in widths)
    return [lines[0], rule, *lines[1:-1], rule, lines[-1]]


def piped(table: list[list[str]]) -> list[str]:
    lines = ["| " + " | ".join(row) + " |" for row in table]
    return [lines[0], "|" + "---|" * len(table[0]), *lines[1:]]


def details(columns: list[Column]) -> list[str]:
    """What stands behind each OPEN and each n/e."""
    found = [(one, kind, one.verdicts.get(kind.name)) for one in columns for kind in CLASSES]
    return [
        f"{one.name}: {kind.title}: {one.cell(kind.name)}: {verdict.how}"
        for one, kind, verdict in found
        if verdict is not None and verdict.result != compiled.BLOCKED
    ]


def notes(columns: list[Column]) -> list[str]:
    told = [f"{one.name}: {one.about} ({one.version})" for one in columns if one.verdicts]
    return told + [f"{one.name}: not tried: {' '.join(one.trouble.split())}" for one in columns if not one.verdicts]


def where(machine: dict[str, Any]) -> str:
    names = ("date", "kernel", "machine", "cgroups", "lsm")
    return ", ".join(f"{name} {machine[name]}" for name in names if name in machine)


def plain(peers: list[Column], points: list[Column], machine: dict[str, Any], everything: bool) -> str:
    lines: list[str] = []
    if peers:
        lines += [*aligned(rows(peers)), ""]
    if points:
        lines += ["minictr's default, by what the attacker begins with:", *aligned(rows(points, True)), ""]
    lines += [LEGEND, "", *notes([*peers, *points]), "", where(machine)]
    behind = details([*peers, *points] if everything else peers[:1])
    return "\n".join([*lines, *(["", *behind] if behind else [])])


def markdown(peers: list[Column], points: list[Column], machine: dict[str, Any]) -> str:
    lines = [*piped(rows(peers)), ""] if peers else []
    lines += [*piped(rows(points, True)), ""] if points else []
    return "\n".join([*lines, LEGEND, "", *(f"- {line}" for line in notes([*peers, *points])), "", where(machine)])


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
