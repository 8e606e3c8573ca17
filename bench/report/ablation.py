"""Which feature costs what: waterfalls from bare to the whole container, ladders, and the micro tier."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence

from bench import steps
from bench.ablate import effects
from bench.ablate.effects import Told
from bench.analysis import UNRESOLVED, Comparison, Experiment, percent, span_text
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
MORE = "% more time"
ASKED_BY = {
    "way=client": "asked by another machine",
    "way=host": "asked by the machine's address",
    "way=local": "asked by 127.0.0.1",
}
FIGURES = (">blocks", ">step or effect, 95 % interval", ">all at once", ">detectable", "verdict")
LOGS = "hundredths of the logarithm of the time: about percent, and they add up"


def section(found: Sequence[Experiment], arms: Mapping[tuple[str, str], Arm]) -> Section | None:
    """The chapter; None without an ablation."""
    mine = [one for one in found if one.name.startswith(PREFIX)]
    items: list[Item] = []
    for one in mine:
        title = title_of(one)
        items.append(Note(heading=title.capitalize()))
        items += _one(effects.told(one, arms), title)
    if not items:
        return None
    lead = (
        "The same workload with features put in and left out, all in the same shuffled blocks. A share is the "
        "mean of what a feature adds alone and of what it adds to all others; of a full factorial the Shapley value. "
        "Verdicts are those that bench ablate prints."
    )
    return Section("ablation", "Which feature costs what", "Features", lead, tuple(items))


def title_of(one: Experiment) -> str:
    """``ablate/serve/small/way=local/nginx`` as ``serve small nginx, asked by 127.0.0.1``."""
    words = one.name.removeprefix(PREFIX).split("/")
    ways = [ASKED_BY.get(word, "") for word in words]
    title = " ".join(word for word, way in zip(words, ways) if not way)
    if effects.method_of(one) == effects.NGINX and not any(ways):
        ways = [ASKED_BY["way=client"]]
    return ", ".join([title, *filter(None, ways)])


def _one(told: Told, title: str) -> list[Item]:
    """The figures of one ablation: by what its arms are to each other."""
    if not told.steps:
        return []
    shares, items = told.shares, list[Item]()
    if shares is not None and shares.whole.ratio is not None:
        items.append(falling(shares, title))
        items += [each_way(shares, title)] if shares.alone or shares.last or shares.terms else []
    if told.effects:
        items.append(effect_figure(told, title))
    items.append(ladder(told, title))
    shut = tuple(f"Unresolved, all of it: {gate}." for gate in told.experiment.gates)
    return [*items, Note(lines=(*shut, f"{told.about[0].upper()}{told.about[1:]}.", *told.notes))]


def _brief(one: Comparison, gates: Sequence[str]) -> str:
    """The verdict for a chart. A shut gate is told once, below it."""
    return UNRESOLVED if one.reason in gates else brief(one)


def effect_figure(told: Told, title: str) -> Figure:
    """All effects that are more than a difference of two arms, as they are printed in a terminal."""
    lines, rows = [], []
    for family in told.effects:
        lines.append(Line(family.title, heading=True))
        for one in family.ones:
            words = f"{figure_of(one)}  {_brief(one, told.experiment.gates)}"
            lines.append(dataclasses.replace(line_of(one), words=words, colour="c-minictr"))
            rows.append((family.title, one.arm, one.base, *_figures(one)))
    if effects.method_of(told.experiment) == effects.SCREEN:
        lines.append(Line(f"acting: {', '.join(told.acting) or 'none that could be told from noise'}", heading=True))
    about = "Percent more time. Filled: resolved. Hollow: not. The table has the intervals that hold for all at once."
    table = Table.of(("of", "effect", "over", *FIGURES), rows, heading=2)
    return Figure(f"{_name(told.experiment)}-effects", f"{title}: effects", about, forest(lines, unit=MORE), table)


def _figures(one: Comparison) -> tuple[Cell | str, ...]:
    """What is known of a comparison, in the columns FIGURES."""
    detectable = f"{percent(one.detectable):.1f} %" if math.isfinite(one.detectable) else NOTHING
    span = span_text(one.together) or NOTHING
    return (str(one.blocks), figure_of(one), span, detectable, Cell(one.words, mark_of(one)))


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


def ladder(told: Told, title: str) -> Figure:
    """Arm after arm, each with its step from the one that it is held against."""
    one = told.experiment
    against, lines, rows = {each.arm: each for each in one.comparisons}, [], []
    for step in told.steps:
        whole = against.get(step.arm)
        words = f"over {step.base}: {figure_of(step)}  {_brief(step, one.gates)}"
        ratio = as_percent(whole.ratio) if whole and whole.ratio else None
        lines.append(Line(step.arm, ratio, words, "c-minictr", mark_of(step), step.verdict != UNRESOLVED))
        rows.append((step.arm, figure_of(whole) if whole else NOTHING, step.base, *_figures(step)))
    about = f"The point is the arm against {one.base}; the words are its step over the one that it is held against."
    table = Table.of(("arm", f">against {one.base}", "over", *FIGURES), rows)
    name = "rung by rung" if steps.in_order(one) else "arm by arm"
    return Figure(
        f"{_name(one)}-ladder", f"{title}: {name}", about, forest(lines, unit=f"% more time than {one.base}"), table
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
    lead = "One static program, unchanged in every arm, in short shuffled bursts: the quickest of them."
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
