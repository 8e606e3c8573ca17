"""Which feature costs what: waterfalls from bare to the whole container, ladders, and the micro tier."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

from bench import steps
from bench.analysis import UNRESOLVED, Comparison, Experiment, percent
from bench.report.bars import Bar, waterfall
from bench.report.forest import Line, forest
from bench.report.heat import Square, heat
from bench.report.page import Figure, Item, Note, Section
from bench.report.svg import seconds
from bench.report.table import NOTHING, Cell, Table
from bench.report.workloads import as_percent, comparison_table, figure_of, line_of, mark_of, short_words
from bench.samples import Arm
from bench.stats import Interval
from bench.steps import Shares

PREFIX, MICRO = "ablate/", "micro/"
LOGS = "hundredths of the logarithm of the time: about percent, and they add up"


def section(found: Sequence[Experiment], arms: Mapping[tuple[str, str], Arm]) -> Section | None:
    """The chapter; None without an ablation."""
    mine = [one for one in found if one.name.startswith(PREFIX)]
    items: list[Item] = []
    for one in mine:
        title = one.name.removeprefix(PREFIX).replace("/", " ")
        items.append(Note(heading=title.capitalize()))
        shared = None if steps.is_ladder(one) else steps.shares(one, arms)
        if steps.is_ladder(one):
            items.append(ladder(one, title))
        elif shared:
            items += [falling(shared, title), each_way(shared, title)]
        elif one.comparisons:
            items.append(plain(one, title))
    if not items:
        return None
    lead = (
        "The same workload with features put in and left out, all in the same shuffled blocks. A share is "
        "the mean of what a feature adds alone and of what it adds to all the others."
    )
    return Section("ablation", "Which feature costs what", "Features", lead, tuple(items))


def hundredths(one: Comparison) -> Interval | None:
    """A comparison on the scale on which shares add up."""
    if one.ratio is None:
        return None
    return Interval(*(100 * math.log(value) for value in (one.ratio.estimate, one.ratio.low, one.ratio.high)))


def _bar(one: Comparison, *, total: bool = False) -> Bar:
    found = hundredths(one)
    value = found.estimate if found else 0.0
    colour = "total" if total else "up" if value > 0 else "down"
    text = f"{figure_of(one)}  {'' if one.verdict == UNRESOLVED else one.verdict}".rstrip()
    return Bar(one.arm, value, colour, text, (), found, None, one.verdict != UNRESOLVED)


def falling(found: Shares, title: str) -> Figure:
    """From bare to the whole container by feature."""
    parts = [*found.features, *([found.interaction] if found.interaction else [])]
    drawing = waterfall([_bar(one) for one in parts], _bar(found.whole, total=True), unit=LOGS, start="bare")
    table = Table.of(
        ("feature", "how it was measured", ">share, 95 % interval", "verdict"),
        [(one.arm, one.base, figure_of(one), Cell(one.words, mark_of(one))) for one in (*parts, found.whole)],
    )
    about = "Each bar begins where the one above ended; whiskers are 95 % intervals of that step alone."
    return Figure(f"{_name(found.experiment)}-waterfall", f"{title}: from bare to all of it", about, drawing, table)


def each_way(found: Shares, title: str) -> Figure:
    """Put in alone, and left out: the two ends of what a feature can be said to cost."""
    lines = []
    for heading, ones in (("put in alone", found.alone), ("left out of the whole", found.last)):
        if ones:
            lines.append(Line(heading, heading=True))
            lines += [line_of(one) for one in ones]
    about = "Percent more time that a feature adds to nothing, and to all others: where they differ, features interact."
    table = comparison_table([*found.alone, *found.last])
    return Figure(
        f"{_name(found.experiment)}-ways",
        f"{title}: alone and among the others",
        about,
        forest(lines, unit="% more time"),
        table,
    )


def ladder(one: Experiment, title: str) -> Figure:
    """Rung after rung, each with the step from the one below."""
    lines, rows = [], []
    for name, against, step in steps.rungs(one):
        step_words = f"step {figure_of(step)}  {short_words(step)}" if step else ""
        if against is None:
            continue
        ratio = as_percent(against.ratio) if against.ratio else None
        resolved = step is not None and step.verdict != UNRESOLVED
        lines.append(Line(name, ratio, step_words, "c-minictr", mark_of(step) if step else "", resolved))
        rows.append(
            (
                name,
                figure_of(against),
                figure_of(step) if step else NOTHING,
                Cell(step.words, mark_of(step)) if step else "",
            )
        )
    about = f"The point is the rung against {one.base}; the words are its step from the rung above it in the list."
    table = Table.of(("rung", f">against {one.base}", ">step", "verdict of the step"), rows)
    return Figure(
        f"{_name(one)}-ladder",
        f"{title}: rung by rung",
        about,
        forest(lines, unit=f"% more time than {one.base}"),
        table,
    )


def plain(one: Experiment, title: str) -> Figure:
    """Arms that are no set of features: as any other."""
    drawing = forest([line_of(each) for each in one.comparisons], unit=f"% more time than {one.base}")
    return Figure(
        f"{_name(one)}-arms", title, "Filled: resolved. Hollow: not.", drawing, comparison_table(one.comparisons)
    )


def _name(one: Experiment) -> str:
    return one.name.replace("/", "-")


def micro(found: Sequence[Experiment]) -> Section | None:
    """The micro tier: one operation a row, one arm a column."""
    mine = [one for one in found if one.name.startswith(MICRO) and one.comparisons]
    if not mine:
        return None
    arms = list(dict.fromkeys(each.arm for one in mine for each in one.comparisons))
    squares: dict[str, list[Square | None]] = {}
    rows = []
    for one in mine:
        by_arm = {each.arm: each for each in one.comparisons}
        base = statistics.median(one.columns[one.base].values())
        name = one.name.removeprefix(MICRO)
        squares[name] = [_square(by_arm.get(arm), base) for arm in arms]
        there = [by_arm.get(arm) for arm in arms]
        cells = [Cell(_cost(each, base), mark_of(each)) if each else Cell(NOTHING) for each in there]
        rows.append((name, nanoseconds(base), *cells))
    table = Table.of(("operation", ">bare", *arms), rows)
    about = (
        "Percent more time for one operation than bare; pale and in brackets: unresolved. Nanoseconds are in the table."
    )
    lead = "One static program, unchanged in every arm, in short shuffled bursts: the median of each burst."
    figure = Figure("micro-heat", "Cost of one operation", about, heat(arms, squares), table)
    return Section("micro", "What one operation costs", "Operations", lead, (figure,))


def nanoseconds(value: float) -> str:
    return seconds(value * 1e-9)


def _square(one: Comparison | None, base: float) -> Square | None:
    if one is None or one.ratio is None:
        return None
    more = percent(one.ratio.estimate)
    resolved = one.verdict != UNRESOLVED
    digits = 0 if abs(more) >= 10 else 1
    return Square(more, f"{more:+.{digits}f}" if resolved else f"({more:+.{digits}f})", resolved, _cost(one, base))


def _cost(one: Comparison, base: float) -> str:
    """What an operation takes more, in time, by the geometric mean ratio; with its interval and verdict."""
    if one.ratio is None:
        return one.words
    values = (one.ratio.estimate, one.ratio.low, one.ratio.high)
    extra, low, high = (nanoseconds(base * (value - 1)) for value in values)
    return f"{extra} [{low}, {high}], {figure_of(one)} {one.words}"
