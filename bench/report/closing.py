"""Closure: for each workload, what the counted operations at their costs explain of the loss, and what is left."""

from __future__ import annotations

from bench import attribution
from bench.attribution import Closure
from bench.micro import closing
from bench.report.forest import Line, forest
from bench.report.page import Figure, Item, Note, Section
from bench.report.table import Cell, Table
from bench.report.workloads import short
from bench.results import Results

SUMS = (attribution.SUM, attribution.TOGETHER, attribution.INTERACTION, attribution.MEASURED, attribution.UNEXPLAINED)
WORDS = {"closed": "no-cost", "open": "slower", "unresolved": "unresolved"}


def section(found: Results, place: str) -> Section | None:
    """The chapter; None without a workload whose arms have parts."""
    items: list[Item] = []
    refused = []
    for experiment, arm, closed in closing.closures(found.records_of(place)):
        if isinstance(closed, Closure):
            items += _one(experiment, arm, closed)
        else:
            refused.append(f"{short(experiment)}, {arm}: {closed}")
    if refused:
        items.append(Note("Without a table:", tuple(refused)))
    if not items:
        return None
    lead = (
        "How often a workload does what (from a separate counting run), times what that costs more under each "
        "feature (from the micro tier), summed. What the measured loss has beyond that is unexplained."
    )
    return Section("closure", "Where the loss comes from", "Closure", lead, tuple(items))


def _one(experiment: str, arm: str, closed: Closure) -> list[Item]:
    title = f"{short(experiment)}, {arm} against bare"
    rows = []
    lines = []
    for line in closed.lines:
        value = line.seconds
        mostly = ", ".join(f"{name} {seconds:+.3g} s" for name, seconds in line.by_operation)
        words = f"{value.estimate:+.4f} [{value.low:+.4f}, {value.high:+.4f}]"
        rows.append((Cell(line.name), words, mostly))
        if line.name == attribution.SUM:
            lines.append(Line("Altogether", heading=True))
        colour = "total" if line.name in SUMS else "up" if value.estimate > 0 else "down"
        lines.append(Line(line.name, value, f"{words} s", colour, "", 0.0 not in value))
    table = Table.of(("feature", ">seconds, 95 % interval", "mostly"), rows)
    about = f"{closed.verdict.capitalize()}: {closed.why}."
    name = f"{experiment.replace('/', '-')}-{arm}-closure"
    notes: list[Item] = []
    if closed.uncosted:
        told = ", ".join(f"{operation} {times:,.0f}" for operation, times in closed.uncosted[:8])
        notes.append(Note(f"Counted, and measured by nobody, so a part of what is unexplained: {told}."))
    if closed.missing:
        notes.append(Note(f"Not measured in the micro tier: {', '.join(closed.missing)}."))
    return [Figure(name, title, about, forest(lines, unit="seconds more than bare"), table, open=True), *notes]
