"""Closure, pure: do the counted operations, at what each costs more in each feature, explain the whole loss?

For one workload and one container::

    predicted(feature) = sum over operations of  times(operation) x (cost under the feature - cost under its base)
    unexplained        = measured loss - sum over features of predicted(feature)

Times come from a separate counting run, costs from the micro tier, the loss from the timed runs. Costs of one block
were measured within a minute of each other and share their base, so every sum is made within a block: an error of the
base is in all features that stand on it, as it was in the measurement, and the interval of a sum is not the sum of
intervals. The loss was measured in other blocks, so what is unexplained is a difference of two unpaired means.

Intervals and p-values are those of bench/paired.py (two unpaired means: :func:`apart`), of seconds instead of
logarithms; the rows of a table are a family of Holm's. A row that is not found is ``unresolved``, whatever its number.

``wholes``: the micro tier under whole containers at once, the same way. What one is more than the sum of features is
their interaction. Of the container itself, and of minictr rebuilt from the same features.
"""

from __future__ import annotations

import dataclasses
import math
import random
import statistics
from collections.abc import Mapping, Sequence

from bench import paired, stats, student
from bench.paired import FEWEST, Effect
from bench.stats import CONFIDENCE, Interval

RESAMPLES = 2000
WIDEST = 1.5  # times the loss: with a wider interval of the unexplained any sum would close
NANO = 1e-9

Costs = Mapping[str, Mapping[str, Mapping[int, float]]]  # arm -> operation -> block -> nanoseconds
SUM, MEASURED, UNEXPLAINED = "sum of features", "measured loss", "unexplained"
FOUND, NO_COST, UNRESOLVED = "found", "no cost", "unresolved"


def together(whole: str) -> str:
    """The name of WHOLE's row."""
    return f"all at once ({whole})"


def interaction(whole: str) -> str:
    """The name of the row of what WHOLE is more than the sum."""
    return f"interaction ({whole})"


@dataclasses.dataclass(frozen=True)
class Part:
    """A feature by itself: ``arm`` has it, ``over`` has all that ``arm`` has but it."""

    feature: str
    arm: str
    over: str


@dataclasses.dataclass(frozen=True)
class Line:
    """One row of the table, in seconds. ``by_operation``: the largest contributions, (operation, seconds).

    ``seconds`` is None where it was not measured, in less than two blocks. ``verdict``: "found" when it is not zero
    after Holm's adjustment, "no cost" when it is surely within 0.5 % of bare's time, else "unresolved".
    """

    name: str
    seconds: Interval | None
    by_operation: tuple[tuple[str, float], ...] = ()
    verdict: str = UNRESOLVED


@dataclasses.dataclass(frozen=True)
class Closure:
    """The table.

    ``verdict``: "closed" when the sum of features lies within the measured loss, "open" when it does not, "unresolved"
    when the loss itself may be zero, the intervals are too wide or the blocks too few. ``missing``: not measured.
    """

    lines: tuple[Line, ...]
    verdict: str
    why: str
    uncosted: tuple[tuple[str, float], ...] = ()  # operations counted whose cost nobody measured
    missing: tuple[str, ...] = ()
    note: str = ""  # of how it was counted

    def line(self, name: str) -> Line:
        return next(line for line in self.lines if line.name == name)

    def seconds(self, name: str) -> Interval:
        """Raises ValueError where it was not measured."""
        found = self.line(name).seconds
        if found is None:
            raise ValueError(f"{name} was not measured")
        return found


def predicted(costs: Costs, part: Part, counts: Mapping[str, float]) -> dict[int, dict[str, float]]:
    """block -> operation -> seconds that PART adds to one execution of the workload.

    Only blocks that have all operations that any block has, in both arms: a sum of fewer would be another sum.
    """
    found: dict[int, dict[str, float]] = {}
    for operation, times in counts.items():
        mine, base = costs.get(part.arm, {}).get(operation, {}), costs.get(part.over, {}).get(operation, {})
        for block in mine.keys() & base.keys():
            found.setdefault(block, {})[operation] = times * (mine[block] - base[block]) * NANO
    most = {operation for values in found.values() for operation in values}
    return {block: found[block] for block in sorted(found) if found[block].keys() == most}


def apart(values: Sequence[float], base: Sequence[float], *, seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """How much more than BASE the VALUES are on average; they were not measured in pairs.

    A percentile-t bootstrap, widened at each end to Welch's interval where that reaches further: as bench/paired.py.
    Raises ValueError for fewer than two values on a side.
    """
    wide, rng, pivots = student.welch(values, base), random.Random(seed), []
    least = 1e-12 * (wide.high - wide.low)

    def drawn(side: Sequence[float]) -> tuple[float, float]:
        some = rng.choices(side, k=len(side))
        return statistics.fmean(some), statistics.variance(some) / len(some)

    for _ in range(resamples if wide.high > wide.low else 0):
        (one, scatter), (other, others) = drawn(values), drawn(base)
        error = math.sqrt(scatter + others)
        if error > least:
            pivots.append((one - other - wide.estimate) / error)
    if not pivots:
        return wide
    error = math.sqrt(sum(statistics.variance(side) / len(side) for side in (values, base)))
    ordered, tail = sorted(pivots), (1 - CONFIDENCE) / 2
    low, high = (wide.estimate - stats.quantile(ordered, share) * error for share in (1 - tail, tail))
    return Interval(wide.estimate, min(wide.low, low), max(wide.high, high))


@dataclasses.dataclass(frozen=True)
class _Row:
    """A line before its verdict: seconds by block."""

    name: str
    by_block: Mapping[int, float]
    by_operation: tuple[tuple[str, float], ...] = ()

    def effect(self) -> Effect | None:
        values = tuple(self.by_block[block] for block in sorted(self.by_block))
        return Effect(values) if len(values) > 1 else None


def _row(name: str, costs: Costs, part: Part, counts: Mapping[str, float]) -> _Row:
    found = predicted(costs, part, counts)
    return _Row(name, {block: sum(values.values()) for block, values in found.items()}, _largest(found))


def _combined(name: str, rows: Sequence[_Row], signs: Sequence[int]) -> _Row:
    """The sum of ROWS, each with its sign, in the blocks that all of them have."""
    keys = set.intersection(*(set(row.by_block) for row in rows))
    return _Row(name, {key: sum(sign * row.by_block[key] for sign, row in zip(signs, rows)) for key in keys})


def _largest(found: Mapping[int, Mapping[str, float]], most: int = 3) -> tuple[tuple[str, float], ...]:
    """The MOST operations that add most, by their mean over the blocks."""
    names = {name for values in found.values() for name in values}
    means = {name: statistics.fmean(values[name] for values in found.values()) for name in names}
    return tuple(sorted(means.items(), key=lambda item: -abs(item[1]))[:most])


def closure(
    counts: Mapping[str, float],
    costs: Costs,
    parts: Sequence[Part],
    loss: Sequence[float],
    *,
    wholes: Sequence[Part] = (),
    bare: float = 0.0,
    twins: Part | None = None,
    gates: Sequence[str] = (),
) -> Closure:
    """The table for one workload in one container.

    COUNTS: operation -> times in one execution. LOSS: seconds that the container takes more than bare, one for each
    block of the timed runs; BARE: what bare takes. TWINS: the two bare arms, whose difference is to hold zero. GATES:
    why nothing may be said. Raises ValueError when LOSS has less than two blocks or no part was measured.
    """
    if len(loss) < 2:
        raise ValueError("no closure without a measured loss, in two blocks at least")
    rows = [_row(part.feature, costs, part, counts) for part in parts]
    missing = tuple(row.name for row in rows if not row.by_block)
    rows = sorted((row for row in rows if row.by_block), key=lambda row: -abs(statistics.fmean(row.by_block.values())))
    if not rows:
        raise ValueError(f"no closure: none of {', '.join(missing) or 'no features'} was measured with its base")
    total = _combined(SUM, rows, [1] * len(rows))
    sums = [total]
    for whole in wholes:
        at_once = _row(together(whole.feature), costs, whole, counts)
        sums += [at_once, _combined(interaction(whole.feature), (at_once, total), (1, -1))]
        missing += () if at_once.by_block else (at_once.name,)
    shut = [*gates, *_twins_gate(costs, twins, counts)]
    lines = _lines([*rows, *sums], shut, paired.MARGIN * bare)
    measured, values = Effect(tuple(loss)), [total.by_block[block] for block in sorted(total.by_block)]
    left = apart(loss, values) if len(values) > 1 else None
    lost = measured.interval()
    lines += [
        Line(MEASURED, lost, verdict=FOUND if 0.0 not in lost and not shut else UNRESOLVED),
        Line(UNEXPLAINED, left, verdict=FOUND if left and 0.0 not in left and not shut else UNRESOLVED),
    ]
    verdict, why = (UNRESOLVED, shut[0]) if shut else judged(lines, len(values), len(loss))
    return Closure(tuple(lines), verdict, why, uncosted(counts, costs), missing)


def _twins_gate(costs: Costs, twins: Part | None, counts: Mapping[str, float]) -> list[str]:
    """Why the micro tier resolves nothing for these COUNTS: its two bare arms differ, or one was not measured."""
    if twins is None:
        return []
    effect = _row(twins.feature, costs, twins, counts).effect()
    if effect is None:
        return [f"the micro tier has no {twins.arm} beside {twins.over}: no A/A check"]
    found = effect.interval()
    return [] if 0.0 in found else [f"A/A: in the micro tier two identical arms differ by {spanned(found)} s"]


def spanned(value: Interval) -> str:
    """Seconds with their interval."""
    return f"{value.estimate:+.4f} [{value.low:+.4f}, {value.high:+.4f}]"


def verdicts(effects: Mapping[str, Effect], margin: float, *, shut: bool = False) -> dict[str, str]:
    """name -> FOUND, NO_COST or UNRESOLVED, of a family of Holm's. MARGIN: within which there is no cost, in the
    unit of EFFECTS. SHUT: a gate is, and nothing is said."""
    enough = [name for name, effect in effects.items() if effect.blocks >= FEWEST]
    differs = dict(zip(enough, paired.holm([effects[name].p for name in enough])))
    equals = dict(zip(enough, paired.holm([effects[name].equivalence(margin) for name in enough])))
    found = dict.fromkeys(effects, UNRESOLVED)
    for name in () if shut else enough:
        if equals[name] < paired.LEVEL:
            found[name] = NO_COST
        elif differs[name] < paired.LEVEL and 0.0 not in effects[name].interval():
            found[name] = FOUND
    return found


def _lines(rows: Sequence[_Row], shut: Sequence[str], margin: float) -> list[Line]:
    """ROWS with their verdicts. MARGIN: seconds within which there is no cost."""
    effects = {row.name: effect for row in rows if (effect := row.effect())}
    said = verdicts(effects, margin, shut=bool(shut))
    spans = {name: effect.interval() for name, effect in effects.items()}
    return [Line(row.name, spans.get(row.name), row.by_operation, said.get(row.name, UNRESOLVED)) for row in rows]


def uncosted(counts: Mapping[str, float], costs: Costs) -> tuple[tuple[str, float], ...]:
    """What was counted and never measured: it can only be in what is unexplained."""
    known = {operation for arm in costs.values() for operation in arm}
    return tuple(sorted((it for it in counts.items() if it[0] not in known and it[1]), key=lambda it: -it[1]))


def judged(lines: Sequence[Line], micro_blocks: int, timed_blocks: int) -> tuple[str, str]:
    """(verdict, why) of a finished table."""
    by_name = {line.name: line.seconds for line in lines}
    if min(micro_blocks, timed_blocks) < FEWEST:
        return UNRESOLVED, f"{micro_blocks} blocks of the micro tier and {timed_blocks} timed: at least {FEWEST} each"
    measured, left, total = by_name[MEASURED], by_name[UNEXPLAINED], by_name[SUM]
    assert measured is not None and left is not None and total is not None  # there are enough blocks
    if 0.0 in measured:
        return UNRESOLVED, "the loss itself may be zero: there is nothing that could be explained"
    if left.high - left.low > WIDEST * abs(measured.estimate):
        return UNRESOLVED, f"what is unexplained is known to {left.low:+.3f} to {left.high:+.3f} s only"
    if total.estimate in measured:
        return "closed", "the sum of features lies in the interval of the measured loss"
    if 0.0 in left:
        return "closed", "the sum of features may be all of the loss"
    return "open", f"{left.estimate:+.3f} s of {measured.estimate:.3f} s are not explained by what was counted"


def table(found: Closure) -> list[str]:
    """The closure as lines of text."""
    lines = [f"{'':<32}{'seconds':>10}{'95 % interval':>24}   {'verdict':<12}mostly"]
    for line in found.lines:
        if line.name == SUM:
            lines.append("-" * 78)
        value = line.seconds
        if value is None:
            lines.append(f"{line.name:<32}{'-':>10}{'-':>24}   not measured in two blocks")
            continue
        mostly = ", ".join(f"{name} {seconds:+.3g}" for name, seconds in line.by_operation)
        span = f"{value.low:+.4f} to {value.high:+.4f}"
        lines.append(f"{line.name:<32}{value.estimate:>+10.4f}{span:>24}   {line.verdict:<12}{mostly}".rstrip())
    lines.append(f"verdict: {found.verdict}: {found.why}")
    if found.uncosted:
        names = ", ".join(f"{name} {times:,.0f}" for name, times in found.uncosted[:8])
        lines.append(f"counted, and measured by nobody (a part of what is unexplained): {names}")
    lines += [found.note] if found.note else []
    lines.append(f"never measured in the micro tier: {', '.join(found.missing) or 'nothing'}")
    return lines
