"""Which feature costs what: waterfalls from bare to the whole container, ladders, and the micro tier."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence

from bench import steps
from bench.ablate.rows import crossing
from bench.analysis import UNRESOLVED, Comparison, Experiment, percent
from bench.report.bars import Bar, waterfall
from bench.report.forest import Line, forest
from bench.report.heat import Square, heat
from bench.report.page import Figure, Item, Note, Section
from bench.report.svg import seconds
from bench.report.table import NOTHING, Cell, Table
from bench.report.workloads import as_percent, brief, comparison_table, figure_of, line_of, mark_of
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
        items += _one(one, arms, title)
    if not items:
        return None
    lead = (
        "The same workload with features put in and left out, all in the same shuffled blocks. A share is the "
        "mean of what a feature adds alone and of what it adds to all others; of a full factorial the Shapley value."
    )
    return Section("ablation", "Which feature costs what", "Features", lead, tuple(items))


def _one(one: Experiment, arms: Mapping[tuple[str, str], Arm], title: str) -> list[Item]:
    """The figures of one ablation: by what its arms are to each other."""
    if not one.comparisons:
        return []
    if steps.in_order(one):
        rebuilt = steps.rebuilt(one, arms)
        falls = rebuilt is not None and rebuilt.whole.ratio is not None
        return [*([falling(rebuilt, title)] if rebuilt and falls else []), *crossings(one), ladder(one, arms, title)]
    shared = steps.shares(one, arms)
    if shared is None or shared.whole.ratio is None:
        return [plain(one, title)]
    more = shared.alone or shared.last or shared.terms
    return [falling(shared, title), *([each_way(shared, title)] if more else [])]


def crossings(one: Experiment) -> list[Item]:
    """The web server's question: network path x overlay, in Docker and in minictr rebuilt as Docker."""
    rows = []
    for name, docker in (("Docker", True), ("minictr rebuilt as Docker", False)):
        found = steps.crossed(one, crossing(one.columns, docker=docker)[1])
        for each in found:
            rows.append((name, each.arm, each.base, figure_of(each), Cell(each.words, mark_of(each))))
    if not rows:
        return []
    caption = (
        "Network path (cable, bridge, wall, NAT, published port: all of it, or the machine's own network) x overlay: "
        "each alone, and what only both together cost. NAT by itself is a rung of the ladder."
    )
    return [Table.of(("in", "feature", "over", ">more time, 95 % interval", "verdict"), rows, caption, heading=2)]


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
    groups = (("put in alone", found.alone), ("left out of the whole", found.last), ("only together", found.terms))
    for heading, ones in groups:
        if ones:
            lines.append(Line(heading, heading=True))
            lines += [dataclasses.replace(line_of(one), colour="c-minictr") for one in ones]
    about = "Percent more time that a feature adds to nothing, and to all others: where they differ, features interact."
    table = comparison_table([*found.alone, *found.last, *found.terms])
    return Figure(
        f"{_name(found.experiment)}-ways",
        f"{title}: alone and among the others",
        about,
        forest(lines, unit="% more time"),
        table,
    )


def ladder(one: Experiment, arms: Mapping[tuple[str, str], Arm], title: str) -> Figure:
    """Rung after rung, each with the step from the one that it stands on."""
    lines, rows = [], []
    for name, against, step in steps.rungs(one, arms):
        step_words = f"over {step.base}: {figure_of(step)}  {brief(step)}" if step else ""
        if against is None:
            continue
        ratio = as_percent(against.ratio) if against.ratio else None
        resolved = step is not None and step.verdict != UNRESOLVED
        lines.append(Line(name, ratio, step_words, "c-minictr", mark_of(step) if step else "", resolved))
        rows.append(
            (
                name,
                figure_of(against),
                step.base if step else NOTHING,
                figure_of(step) if step else NOTHING,
                Cell(step.words, mark_of(step)) if step else "",
            )
        )
    about = f"The point is the rung against {one.base}; the words are its step over the rung that it stands on."
    table = Table.of(("rung", f">against {one.base}", "over", ">step", "verdict of the step"), rows)
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


# operations by the beginning of their names, in the order of the page; the others come first
KINDS = {
    "copyup_": "First writes",
    "clone_": "New namespaces",
    "lan/": "Over the cable",
    "tcp_": "Loopback",
    "udp_": "",
}
MOST = 12  # operations side by side


def kind_of(operation: str) -> str:
    """Which chart OPERATION is in."""
    for beginning, title in KINDS.items():
        if operation.startswith(beginning):
            return title or KINDS["tcp_"]
    return "Calls, files, memory, processes"


def micro(found: Sequence[Experiment]) -> Section | None:
    """The micro tier: one arm a row, one operation a column, a chart for each kind of operation."""
    by_kind: dict[str, list[Experiment]] = {}
    for one in found:
        if one.name.startswith(MICRO) and one.comparisons:
            by_kind.setdefault(kind_of(one.name.removeprefix(MICRO)), []).append(one)
    if not by_kind:
        return None
    items = [
        _operations(kind, mine[first : first + MOST], first // MOST)
        for kind, mine in sorted(by_kind.items(), key=lambda pair: pair[0] in KINDS.values())
        for first in range(0, len(mine), MOST)
    ]
    lead = "One static program, unchanged in every arm, in short shuffled bursts: the median of each burst."
    return Section("micro", "What one operation costs", "Operations", lead, tuple(items))


def _operations(kind: str, mine: Sequence[Experiment], part: int) -> Figure:
    names = [one.name.removeprefix(MICRO) for one in mine]
    bases = [statistics.median(one.columns[one.base].values()) for one in mine]
    by_operation = [{each.arm: each for each in one.comparisons} for one in mine]
    arms = list(dict.fromkeys(arm for each in by_operation for arm, one in each.items() if one.ratio))
    rows = [("bare", *(nanoseconds(base) for base in bases))]
    squares: dict[str, list[Square | None]] = {}
    for arm in arms:
        there = [each.get(arm) for each in by_operation]
        squares[arm] = [_square(one, base) for one, base in zip(there, bases)]
        rows.append(
            (arm, *(Cell(_cost(one, base), mark_of(one)) if one else Cell(NOTHING) for one, base in zip(there, bases)))  # type: ignore[arg-type]
        )
    about = "Percent more time for one operation than bare; pale and in brackets: unresolved. The table has the times."
    name = "micro-" + kind.lower().replace(", ", "-").replace(" ", "-") + (f"-{part + 1}" if part else "")
    title = kind + (f", part {part + 1}" if part else "")
    return Figure(name, title, about, heat(names, squares), Table.of(("arm", *names), rows))


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
