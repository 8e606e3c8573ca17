"""Start-up: how long an arm takes, in which phases, and how that grows with the number of containers."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from bench import stats
from bench.analysis import TIMES, UNRESOLVED, Comparison, Experiment
from bench.report.bars import phases
from bench.report.curves import Curve, curves
from bench.report.forest import Line, forest
from bench.report.page import Figure, Item, Section
from bench.report.svg import family, number, seconds
from bench.report.table import NOTHING, Table
from bench.report.workloads import brief, comparison_table, mark_of
from bench.samples import Sample

PREFIX, PHASE = "lifecycle/", "phase_"
TOGETHER = "together_per_s"  # starts a second by all callers
ACROSS = {"alive": "containers alive", "at-once": "callers at once"}
UNITS = {"_s": 1.0, "_ms": 1e-3, "_us": 1e-6, "_ns": 1e-9}


def in_seconds(name: str, value: float) -> float:
    """VALUE in seconds, by the unit in its NAME."""
    suffix = next(unit for unit in TIMES if name.endswith(unit))
    return value * UNITS[suffix]


def phase_table(found: Sequence[Sample]) -> dict[str, dict[str, float]]:
    """arm -> phase -> median seconds, of the values named ``phase_NAME_s`` (or _us, ...)."""
    raw: dict[str, dict[str, list[float]]] = {}
    for sample in found:
        for name, value in sample.values.items():
            if name.startswith(PHASE) and name.endswith(TIMES):
                phase = name[len(PHASE) :].rpartition("_")[0].replace("_", " ")
                raw.setdefault(sample.arm, {}).setdefault(phase, []).append(in_seconds(name, value))
    return {arm: {name: statistics.median(values) for name, values in parts.items()} for arm, parts in raw.items()}


def scales(found: Sequence[Experiment]) -> dict[str, list[tuple[float, Experiment]]]:
    """Experiments that differ in a number at the end of their name, by what stands before it."""
    groups: dict[str, list[tuple[float, Experiment]]] = {}
    for one in found:
        before, _, last = one.name.rpartition("/")
        if before and last.isdigit():
            groups.setdefault(before, []).append((float(last), one))
    return {name: sorted(each, key=lambda pair: pair[0]) for name, each in groups.items() if len(each) > 1}


def section(found: Sequence[Experiment], samples: Sequence[Sample]) -> Section | None:
    """The chapter; None when nothing of it was measured."""
    mine = [one for one in found if one.name.startswith(PREFIX)]
    if not mine:
        return None
    growing = scales(mine)
    numbered = {one.name for each in growing.values() for _, one in each}
    items: list[Item] = []
    for one in mine:
        if one.name not in numbered:
            items += _one(one, [sample for sample in samples if sample.experiment == one.name])
    for name, each in growing.items():
        items.append(curve(name, each))
        items += throughput(name, [sample for sample in samples if sample.experiment.startswith(f"{name}/")])
    lead = "From asking for a container to its end or its readiness, side by side in shuffled rounds."
    return Section("lifecycle", "Start, stop, and many at once", "Start-up", lead, tuple(items))


def _one(one: Experiment, samples: Sequence[Sample]) -> list[Item]:
    title = one.name.removeprefix(PREFIX).replace("/", " ")
    name = one.name.replace("/", "-")
    told = phase_table(samples)
    parts = {arm: told[arm] for arm in one.columns if arm in told}
    if one.value.startswith(PHASE):  # nothing but phases: they are compared by themselves
        return [_phases(name, title, parts)]
    items: list[Item] = [_times(one, name, title)]
    if one.comparisons:
        about = f"How many times {one.base}, paired within rounds; logarithmic. Filled: resolved. Hollow: not."
        lines = [times_line(each) for each in one.comparisons]
        drawing = forest(lines, unit=f"times {one.base}", zero=1.0, logarithmic=True)
        items.append(
            Figure(f"{name}-ratio", f"{title}: against {one.base}", about, drawing, comparison_table(one.comparisons))
        )
    if parts:
        items.append(_phases(name, title, parts))
    return items


def times_line(one: Comparison) -> Line:
    """A comparison as so many times its base: what starts differ by is no matter of percent."""
    if one.ratio is None:
        return Line(one.arm, None, one.words, family(one.arm), mark_of(one), False)
    found = one.ratio
    words = f"{found.estimate:.3g} x [{found.low:.3g}, {found.high:.3g}]  {brief(one)}"
    return Line(one.arm, found, words, family(one.arm), mark_of(one), one.verdict != UNRESOLVED)


def _times(one: Experiment, name: str, title: str) -> Figure:
    """Median and quartiles of every arm, in its own unit of time."""
    lines, rows = [], []
    for arm, values in one.columns.items():
        middle = stats.quartiles([in_seconds(one.value, value) for value in values.values()])
        words = f"{seconds(middle.median)} ({seconds(middle.q1)} to {seconds(middle.q3)})"
        interval = stats.Interval(middle.median * 1e3, middle.q1 * 1e3, middle.q3 * 1e3)
        lines.append(Line(arm, interval, words, family(arm)))
        rows.append((arm, str(len(values)), seconds(middle.median), seconds(middle.q1), seconds(middle.q3)))
    table = Table.of(("arm", ">rounds", ">median", ">lower quartile", ">upper quartile"), rows)
    about = "Median, and the quartiles between which half of the rounds lie; logarithmic."
    drawing = forest(lines, unit="milliseconds", logarithmic=True)
    return Figure(f"{name}-time", f"{title}: time", about, drawing, table)


def _phases(name: str, title: str, parts: Mapping[str, Mapping[str, float]]) -> Figure:
    names = list(dict.fromkeys(phase for each in parts.values() for phase in each))
    rows = [
        (arm, *(seconds(each[phase]) if phase in each else NOTHING for phase in names)) for arm, each in parts.items()
    ]
    table = Table.of(("arm", *(f">{phase}" for phase in names)), rows)
    about = "Medians of each phase, as the arm itself stamps them; arms that tell nothing of themselves are not here."
    return Figure(f"{name}-phases", f"{title}: by phase", about, phases(parts), table)


def curve(name: str, each: Sequence[tuple[float, Experiment]]) -> Figure:
    """How a time grows along the numbers of EACH."""
    arms = list(dict.fromkeys(arm for _, one in each for arm in one.columns))
    found, rows = [], []
    for arm in arms:
        points = []
        for count, one in each:
            values = [in_seconds(one.value, value) for value in one.columns.get(arm, {}).values()]
            if values:
                middle = stats.quartiles(values)
                points.append((count, middle.q1, middle.median, middle.q3))
                rows.append(
                    (
                        arm,
                        number(count),
                        str(len(values)),
                        seconds(middle.median),
                        seconds(middle.q1),
                        seconds(middle.q3),
                    )
                )
        if points:
            found.append(Curve(arm, family(arm), tuple(points)))
    title, across = titled(name)
    table = Table.of(("arm", ">number", ">samples", ">median", ">lower quartile", ">upper quartile"), rows)
    about = "Medians with quartiles, both axes logarithmic."
    return Figure(
        f"{name.replace('/', '-')}-scale", f"{title}: how it grows", about, curves(found, across=across), table
    )


def titled(name: str) -> tuple[str, str]:
    """The title of a curve, and what its number counts."""
    what = name.removeprefix(PREFIX)
    return what.replace("/", " ").replace("-", " "), ACROSS.get(what, what.replace("-", " "))


def throughput(name: str, samples: Sequence[Sample]) -> list[Figure]:
    """How many starts a second all callers together come to, along their number; none where nobody counted."""
    raw: dict[str, dict[int, list[float]]] = {}
    for sample in samples:
        callers = sample.experiment.rpartition("/")[2]
        if TOGETHER in sample.values and callers.isdigit() and not sample.discarded:
            raw.setdefault(sample.arm, {}).setdefault(int(callers), []).append(sample.values[TOGETHER])
    if not raw:
        return []
    middles = {arm: {n: stats.quartiles(each[n]) for n in sorted(each)} for arm, each in raw.items()}
    found = [
        Curve(arm, family(arm), tuple((float(n), it.q1, it.median, it.q3) for n, it in each.items()))
        for arm, each in middles.items()
    ]
    rows = [
        (arm, number(n), str(len(raw[arm][n])), *(number(float(f"{value:.3g}")) for value in (it.median, it.q1, it.q3)))
        for arm, each in middles.items()
        for n, it in each.items()
    ]
    title, across = titled(name)
    table = Table.of(("arm", ">number", ">samples", ">median", ">lower quartile", ">upper quartile"), rows)
    about = "Starts a second by all together: medians with quartiles, both axes logarithmic."
    drawing = curves(found, across=across, unit="/s")
    return [Figure(f"{name.replace('/', '-')}-throughput", f"{title}: throughput", about, drawing, table)]
