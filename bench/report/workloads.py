"""The five workloads: the answer in one table, losses, forest, and each as the thesis showed it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence

from bench import paired, student, thesis
from bench.analysis import SUFFIX, UNRESOLVED, Comparison, Experiment, against_peers, interval_text, percent
from bench.report.bars import Bar, grouped, upright
from bench.report.forest import Line, forest
from bench.report.page import Figure, Item, Note, Pair, Section
from bench.report.svg import family, seconds
from bench.report.table import NOTHING, Cell, Table
from bench.stats import Interval

PREFIX = "workload/"
PERCENT = "% more time than bare"


def short(experiment: str) -> str:
    """``workload/encrypt/small`` as ``encrypt small``."""
    return " ".join(experiment.split("/")[1:]) or experiment


def mark_of(one: Comparison) -> str:
    return one.verdict.replace(" ", "-")


def as_percent(ratio: Interval) -> Interval:
    return Interval(*(percent(value) for value in (ratio.estimate, ratio.low, ratio.high)))


def figure_of(one: Comparison) -> str:
    """``+3.2 % [+2.1, +4.3]``, or a dash where there are too few blocks for an interval."""
    return interval_text(one.ratio) if one.ratio else NOTHING


def short_words(one: Comparison) -> str:
    """The verdict beside its figure: not the figure once more."""
    return one.words if one.verdict == UNRESOLVED else one.verdict


def brief(one: Comparison) -> str:
    """The same for a chart, where room is scarce: of a reason its first part; all of it is in the table."""
    if one.verdict != UNRESOLVED or one.reason.startswith("A/A"):
        return short_words(one)
    return f"{UNRESOLVED}: {one.reason.partition(' (')[0].partition(': ')[0]}"


def line_of(one: Comparison, other: float | None = None) -> Line:
    """A comparison as a line of a forest plot."""
    words = f"{figure_of(one)}  {brief(one)}"
    return Line(
        one.arm,
        as_percent(one.ratio) if one.ratio else None,
        words,
        family(one.arm),
        mark_of(one),
        one.verdict != UNRESOLVED,
        other=other,
    )


def comparison_table(found: Sequence[Comparison], caption: str = "") -> Table:
    """Every figure of COMPARISONS, one a row."""
    return Table.of(
        (
            "experiment",
            "arm",
            ">blocks",
            ">difference, 95 % interval",
            ">p (Holm)",
            ">p (no cost)",
            ">detectable",
            "verdict",
        ),
        [
            (
                one.experiment,
                one.arm,
                str(one.blocks),
                figure_of(one),
                f"{one.holm:.3f}" if one.ratio else NOTHING,
                f"{one.equal:.3f}" if one.ratio else NOTHING,
                f"{percent(one.detectable):.1f} %" if math.isfinite(one.detectable) else NOTHING,
                Cell(one.words, mark_of(one)),
            )
            for one in found
        ],
        caption,
        heading=2,
    )


def thesis_loss(experiment: str, arm: str) -> float | None:
    """The thesis' loss for this workload and environment, in percent; None where it had none."""
    test = thesis.WORKLOADS.get(experiment.split("/")[1] if "/" in experiment else "")
    if test is None or arm not in thesis.NAMES:
        return None
    cells = thesis.table(thesis.timings()[test], test=test)
    return next((cell.loss.estimate for cell in cells if cell.environment == arm and cell.loss), None)


def section(found: Sequence[Experiment], absent: Sequence[Item] = ()) -> Section | None:
    """The chapter; None without workloads. ABSENT stands below the answer: who is not in it."""
    mine = [one for one in found if one.name.startswith(PREFIX)]
    if not mine:
        return None
    compared = [one for one in mine if one.comparisons]
    items: list[Item] = [answer(mine), *absent]
    if compared:
        items += [overhead(compared), all_arms(compared), *peers(compared)]
    for one in mine:
        items += [Note(heading=short(one.name).capitalize()), *as_the_thesis(one)]
    lead = (
        "Each figure is the geometric mean of the ratios to bare within blocks, as percent more time, with a 95 % "
        "interval. Where a gate is shut, or the interval settles nothing, the verdict is “unresolved”, and says why."
    )
    return Section("workloads", "What a container costs, by workload", "Workloads", lead, tuple(items))


def answer(found: Sequence[Experiment]) -> Table:
    """One row a workload, one column an arm."""
    arms = list(dict.fromkeys(one.arm for each in found for one in each.comparisons))
    rows = []
    for each in found:
        by_arm = {one.arm: one for one in each.comparisons}
        base = [statistics.fmean(each.columns[each.base].values())] if each.base in each.columns else []
        cells = [
            Cell(figure_of(by_arm[arm]), mark_of(by_arm[arm]), short_words(by_arm[arm]))
            if arm in by_arm
            else Cell("not measured")
            for arm in arms
        ]
        rows.append((short(each.name), *(seconds(value) for value in base or [0.0]), *cells))
    return Table.of(("workload", ">bare, mean", *arms), rows, "The answer: time against bare", mark="answer")


def overhead(found: Sequence[Experiment]) -> Figure:
    """The thesis' last chart: every loss in one picture."""
    groups: dict[str, list[Bar]] = {}
    rows = []
    colours = shades(dict.fromkeys(one.arm for each in found for one in each.comparisons))
    for each in found:
        for one in each.comparisons:
            if one.ratio is None:
                continue
            before, interval = thesis_loss(each.name, one.arm), as_percent(one.ratio)
            bar = Bar(
                one.arm,
                interval.estimate,
                colours[one.arm],
                figure_of(one),
                (),
                interval,
                before,
                one.verdict != UNRESOLVED,
            )
            groups.setdefault(short(each.name), []).append(bar)
            rows.append(
                (
                    short(each.name),
                    one.arm,
                    figure_of(one),
                    f"{before:+.2f} %" if before is not None else NOTHING,
                    Cell(one.words, mark_of(one)),
                )
            )
    about = (
        "Loss against bare with 95 % intervals; hollow bars are unresolved. A diamond is what the thesis of 2017 found "
        "for the same workload, against its virtual machine, on its machine: for the order of size only."
    )
    table = Table.of(("workload", "arm", ">loss", ">thesis 2017", "verdict"), rows, heading=2)
    return Figure("overhead", "Loss by workload", about, grouped(groups, unit=PERCENT), table)


def shades(arms: Iterable[str]) -> dict[str, str]:
    """Colours by environment; arms of one environment in shades of it."""
    found: dict[str, str] = {}
    seen: dict[str, int] = {}
    for arm in arms:
        colour = family(arm)
        number = seen[colour] = seen.get(colour, 0) + 1
        found[arm] = f"{colour} {('', 'second', 'third')[min(number, 3) - 1]}".rstrip()
    return found


def all_arms(found: Sequence[Experiment]) -> Figure:
    """The forest plot of all arms."""
    lines = []
    for each in found:
        lines.append(Line(short(each.name), heading=True))
        lines += [line_of(one) for one in each.comparisons]
    margin = 100 * math.expm1(paired.MARGIN)
    about = f"Filled: resolved. Hollow: not. The shaded band is ±{margin:.1f} %, within which “no cost” may be said."
    table = comparison_table([one for each in found for one in each.comparisons])
    return Figure(
        "forest", "All arms, all workloads", about, forest(lines, unit=PERCENT, band=(-margin, margin)), table
    )


def peers(found: Sequence[Experiment]) -> list[Item]:
    """minictr against LXC and Docker themselves; none where they were not measured together."""
    rows = [
        (short(one.experiment), one.base, str(one.blocks), figure_of(one), Cell(one.words, mark_of(one)))
        for each in found
        for one in against_peers(each)
    ]
    columns = ("workload", "against", ">blocks", ">minictr takes more, 95 % interval", "verdict")
    return [Table.of(columns, rows, "minictr against LXC and Docker", heading=2)] if rows else []


def iterations(one: Experiment) -> dict[str, list[float]]:
    """arm -> seconds in the order of the blocks."""
    return {arm: [values[key] for key in sorted(values)] for arm, values in one.columns.items()}


def as_the_thesis(one: Experiment) -> list[Item]:
    """The table of iterations, and the charts of means and variances."""
    values = iterations(one)
    name = one.name.replace("/", "-")
    measured = {arm: given for arm, given in values.items() if len(given) > 1}
    items: list[Item] = []
    if measured:
        items.append(_means_and_variances(name, short(one.name), measured))
    items.append(iteration_table(one, values))
    return items


def iteration_table(one: Experiment, values: Mapping[str, Sequence[float]]) -> Table:
    """Every iteration, the smallest and the largest of each environment marked; mean, variance and loss below."""
    longest = max(map(len, values.values()), default=0)
    rows: list[tuple[Cell | str, ...]] = []
    for number in range(longest):
        cells = [_extreme(given, number) for given in values.values()]
        rows.append((str(number + 1), *cells))
    rows.append(("mean", *(f"{statistics.fmean(given):.4f}" for given in values.values())))
    if longest > 1:
        variances = (f"{statistics.variance(given):.6f}" if len(given) > 1 else NOTHING for given in values.values())
        rows.append(("variance", *variances))
        rows.append(("loss, %", *(_loss(values, arm, one.base) for arm in values)))
    caption = f"{short(one.name)}: seconds by iteration, ▼ the smallest and ▲ the largest of each environment"
    return Table.of(("iteration", *(f">{arm}" for arm in values)), rows, caption)


def _extreme(given: Sequence[float], number: int) -> Cell:
    if number >= len(given):
        return Cell(NOTHING)
    mark = "min" if given[number] == min(given) else "max" if given[number] == max(given) else ""
    return Cell(f"{given[number]:.4f}", mark if len(given) > 1 else "")


def _loss(values: Mapping[str, Sequence[float]], arm: str, base: str) -> str:
    """The thesis' loss, of means, with Welch's interval: never without."""
    if arm == base or min(len(values[arm]), len(values.get(base, ()))) < 2:
        return NOTHING
    found = thesis.loss(values[arm], values[base])
    return f"{found.estimate:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"


def _means_and_variances(name: str, title: str, values: Mapping[str, Sequence[float]]) -> Pair:
    arms = {arm: given for arm, given in values.items() if not arm.endswith(SUFFIX)}
    means = [
        Bar(arm, statistics.fmean(given), family(arm), f"{statistics.fmean(given):.3f}", tuple(given))
        for arm, given in arms.items()
    ]
    variances = [
        Bar(arm, statistics.variance(given), family(arm), f"{statistics.variance(given):.3g}")
        for arm, given in arms.items()
    ]
    half = {arm: _half_width(given) for arm, given in arms.items()}
    mean_table = Table.of(
        ("arm", ">mean, s", ">± 95 %"), [(bar.label, f"{bar.value:.4f}", half[bar.label]) for bar in means]
    )
    variance_table = Table.of(("arm", ">variance, s²"), [(bar.label, f"{bar.value:.6f}") for bar in variances])
    return Pair(
        Figure(
            f"{name}-mean",
            f"{title}: mean time",
            "Seconds, from zero; the points are the iterations.",
            upright(means, unit="seconds"),
            mean_table,
        ),
        Figure(
            f"{name}-variance",
            f"{title}: variance",
            "Seconds squared, unbiased: how evenly it runs.",
            upright(variances, unit="seconds²"),
            variance_table,
        ),
    )


def _half_width(given: Sequence[float]) -> str:
    t = student.quantile(0.975, len(given) - 1)
    return f"{t * statistics.stdev(given) / math.sqrt(len(given)):.4f}"
