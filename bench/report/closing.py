"""Closure: for each workload, what the counted operations at their costs explain of the loss, and what is left."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from bench import attribution
from bench.attribution import Closure
from bench.micro import closing
from bench.report.forest import Line, forest
from bench.report.page import Figure, Item, Note, Section
from bench.report.table import NOTHING, Cell, Table
from bench.report.workloads import short
from bench.results import Results
from bench.stats import Interval

SUMS = (attribution.SUM, attribution.TOGETHER, attribution.INTERACTION, attribution.MEASURED, attribution.UNEXPLAINED)
WORDS = {"closed": "no-cost", "open": "slower", "unresolved": "unresolved"}


def section(found: Results, place: str) -> Section | None:
    """The chapter; None without a workload whose arms have parts."""
    by_workload: dict[str, dict[str, Closure]] = {}
    refused = []
    for experiment, arm, closed in closing.closures(found.records_of(place)):
        if isinstance(closed, Closure):
            by_workload.setdefault(experiment, {})[arm] = closed
        else:
            refused.append(f"{short(experiment)}, {arm}: {closed}")
    items: list[Item] = []
    for experiment, closures in by_workload.items():
        items.append(together(experiment, closures))
        items += [item for arm, closed in closures.items() for item in _one(experiment, arm, closed)]
    if refused and (by_workload or found.counts(place)):
        items.append(Note("Without a table:", tuple(refused)))
    if not items:
        return None
    lead = (
        "How often a workload does what (from a separate counting run), times what that costs more under each "
        "feature (from the micro tier), summed. What the measured loss has beyond that is unexplained."
    )
    return Section("closure", "Where the loss comes from", "Closure", lead, tuple(items))


def together(experiment: str, closures: Mapping[str, Closure]) -> Table:
    """One workload: features in rows, containers in columns, what is unexplained below."""
    names = [line.name for closed in closures.values() for line in closed.lines]
    order = [name for name in dict.fromkeys(names) if name not in SUMS] + [name for name in SUMS if name in names]
    unit = unit_of(closures.values())
    rows: list[tuple[Cell | str, ...]] = []
    for name in order:
        lines = ({line.name: line for line in closed.lines}.get(name) for closed in closures.values())
        rows.append((name, *(figure_of(line.seconds, unit) if line else NOTHING for line in lines)))
    verdicts = (Cell(closed.verdict, WORDS[closed.verdict], closed.why) for closed in closures.values())
    rows.append(("verdict", *verdicts))
    caption = f"{short(experiment)}: {unit[0]} more than bare, by feature, with 95 % intervals"
    return Table.of(("feature", *(f">{arm}" for arm in closures)), rows, caption, mark="answer")


def unit_of(closures: Iterable[Closure]) -> tuple[str, float]:
    """The unit that fits all of them, and how many there are in a second."""
    largest = max(abs(line.seconds.estimate) for closed in closures for line in closed.lines)
    return ("s", 1.0) if largest >= 1 else ("ms", 1e3)


def figure_of(value: Interval, unit: tuple[str, float]) -> str:
    digits = 2 if unit[0] == "ms" else 3
    return "{:+.{d}f} [{:+.{d}f}, {:+.{d}f}]".format(*scaled(value, unit), d=digits)


def scaled(value: Interval, unit: tuple[str, float]) -> tuple[float, float, float]:
    return value.estimate * unit[1], value.low * unit[1], value.high * unit[1]


def _one(experiment: str, arm: str, closed: Closure) -> list[Item]:
    """One container in one workload: the same as a picture, with what each feature's seconds are made of."""
    rows, lines, unit = [], [], unit_of([closed])
    for line in closed.lines:
        value, words = Interval(*scaled(line.seconds, unit)), figure_of(line.seconds, unit)
        mostly = (f"{name} {took * unit[1]:+.2f} {unit[0]}" for name, took in line.by_operation)
        rows.append((line.name, words, ", ".join(mostly)))
        if line.name == attribution.SUM:
            lines.append(Line("Altogether", heading=True))
        colour = "total" if line.name in SUMS else "up" if value.estimate > 0 else "down"
        lines.append(Line(line.name, value, f"{words} {unit[0]}", colour, "", 0.0 not in value))
    table = Table.of(("feature", f">{unit[0]}, 95 % interval", "mostly"), rows)
    about = f"{closed.verdict.capitalize()}: {closed.why}."
    name = f"{experiment.replace('/', '-')}-{arm}-closure"
    title = f"{short(experiment)}, {arm}: the loss by feature"
    notes: list[Item] = []
    if closed.uncosted:
        told = ", ".join(f"{operation} {times:,.0f}" for operation, times in closed.uncosted[:8])
        notes.append(Note(f"Counted, and measured by nobody, so a part of what is unexplained: {told}."))
    if closed.missing:
        notes.append(Note(f"Not measured in the micro tier: {', '.join(closed.missing)}."))
    return [Figure(name, title, about, forest(lines, unit=f"{unit[0]} more than bare"), table), *notes]
