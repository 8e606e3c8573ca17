"""From results to sections: one set of chapters for each machine."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence

from bench import analysis
from bench.report import ablation, closing, history, lifecycle, quality, workloads
from bench.report.page import Figure, Item, Pair, Section, Table, Warnings
from bench.results import Results

TITLE = "What containment costs, by kernel feature"


def sections(found: Results) -> list[Section]:
    """All chapters. Of several machines each has its own; nothing is pooled over machines."""
    places = found.places
    chapters: list[Section] = []
    for number, place in enumerate(places, 1):
        mine = chapters_of(found, place)
        chapters += mine if len(places) == 1 else [_numbered(one, number, place) for one in mine]
    return [*chapters, history.section()]


def chapters_of(found: Results, place: str) -> list[Section]:
    """The chapters of one machine; those of which nothing was measured are not there."""
    experiments = analysis.experiments(found, place)
    arms = found.arms(place)
    told = quality.warnings(found, place, experiments)
    chapters = [
        workloads.section(experiments, quality.absent(found, place)),
        closing.section(found, place),
        ablation.section(experiments, arms),
        ablation.micro(experiments),
        lifecycle.section(experiments, found.samples(place)),
        other(experiments),
        quality.section(found, place, experiments),
    ]
    there = [one for one in chapters if one]
    first = there[0]
    items: tuple[Item, ...] = (Warnings(told), *first.items) if told else first.items
    return [dataclasses.replace(first, items=items), *there[1:]]


def other(found: Sequence[analysis.Experiment]) -> Section | None:
    """Experiments that no chapter knows: shown as plain comparisons rather than not at all."""
    known = (workloads.PREFIX, ablation.PREFIX, ablation.MICRO, lifecycle.PREFIX)
    mine = [each for one in found if not one.name.startswith(known) for each in one.comparisons]
    if not mine:
        return None
    return Section("other", "Other experiments", "Other", "", (workloads.comparison_table(mine),))


def _numbered(one: Section, number: int, place: str) -> Section:
    """A chapter of one of several machines: names and titles of its own."""
    items = tuple(_renamed(item, number) for item in one.items)
    return dataclasses.replace(
        one, name=f"{one.name}-{number}", title=f"{place}: {one.title}", short=f"{one.short} {number}", items=items
    )


def _renamed(item: Item, number: int) -> Item:
    if isinstance(item, Pair):
        return Pair(_figure(item.left, number), _figure(item.right, number))
    return _figure(item, number) if isinstance(item, Figure) else item


def _figure(one: Figure, number: int) -> Figure:
    return dataclasses.replace(one, name=f"{one.name}-{number}")


def lead(found: Results) -> str:
    """One line: machines, runs, days."""
    days = sorted({time.strftime("%Y-%m-%d", time.gmtime(run.time)) for run in found.runs.values()})
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    machines = []
    for place in found.places:
        of = found.runs_of(place)[-1].facts
        machines.append(
            f"{place} (Linux {of.get('kernel', '?')}, {of.get('cpus', '?')} cpus, {of.get('cpu', 'unknown cpu')})"
        )
    runs = f"{len(found.runs)} run{'s' if len(found.runs) > 1 else ''}"
    return f"{runs}, {when}, on {'; '.join(machines)}."


__all__ = ["TITLE", "Table", "lead", "sections"]
