"""Closure, pure: do the counted operations, at what each costs more in each feature, explain the whole loss?

For one workload and one container::

    predicted(feature) = sum over operations of  times(operation) x (cost under the feature - cost under its base)
    unexplained        = measured loss - sum over features of predicted(feature)

Times come from a separate counting run, costs from the micro tier, the loss from the timed runs. Costs of one block
were measured within a minute of each other and share their base, so whole blocks are drawn in the bootstrap: an error
of the base is in all features that stand on it, as it was in the measurement. The loss was measured in other blocks and
is drawn by itself. Every sum is made within a draw; so the interval of a sum is not the sum of intervals.

``together``: the micro tier under the whole container at once, the same way. What that is more than the sum of features
is their interaction.
"""

from __future__ import annotations

import dataclasses
import random
import statistics
from collections.abc import Mapping, Sequence

from bench import stats
from bench.stats import CONFIDENCE, Interval

RESAMPLES = 1000
WIDEST = 1.5  # times the loss: with a wider interval of the unexplained any sum would close
FEWEST = 6  # blocks: of fewer not even the least and the largest enclose the median in 95 of 100 cases
NANO = 1e-9

Costs = Mapping[str, Mapping[str, Mapping[int, float]]]  # arm -> operation -> block -> nanoseconds
SUM, TOGETHER, MEASURED, UNEXPLAINED = "sum of features", "all at once", "measured loss", "unexplained"
INTERACTION = "interaction"


@dataclasses.dataclass(frozen=True)
class Part:
    """A feature by itself: ``arm`` has it, ``over`` has all that ``arm`` has but it."""

    feature: str
    arm: str
    over: str


@dataclasses.dataclass(frozen=True)
class Line:
    """One row of the table, in seconds. ``by_operation``: the largest contributions, (operation, seconds)."""

    name: str
    seconds: Interval
    by_operation: tuple[tuple[str, float], ...] = ()


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

    def line(self, name: str) -> Line:
        return next(line for line in self.lines if line.name == name)


def blocks_of(costs: Costs) -> list[int]:
    """Every block in which something was measured."""
    return sorted({block for arm in costs.values() for values in arm.values() for block in values})


def common(costs: Costs, part: Part) -> int:
    """In how many blocks PART and what it stands on were both measured, of the operation that has the most."""
    mine, base = costs.get(part.arm, {}), costs.get(part.over, {})
    return max((len(mine[name].keys() & base[name].keys()) for name in mine.keys() & base.keys()), default=0)


def added(costs: Costs, part: Part, operation: str, drawn: Sequence[int]) -> float | None:
    """Nanoseconds that PART adds to OPERATION: median over the DRAWN blocks that have both; None without any."""
    mine, base = costs.get(part.arm, {}).get(operation, {}), costs.get(part.over, {}).get(operation, {})
    found = [mine[block] - base[block] for block in drawn if block in mine and block in base]
    return statistics.median(found) if found else None


def predicted(costs: Costs, part: Part, counts: Mapping[str, float], drawn: Sequence[int]) -> dict[str, float]:
    """operation -> seconds that PART adds to one execution of the workload."""
    found = {}
    for operation, times in counts.items():
        cost = added(costs, part, operation, drawn)
        if cost is not None:
            found[operation] = times * cost * NANO
    return found


def _interval(estimate: float, draws: Sequence[float]) -> Interval:
    ordered, tail = sorted(draws), (1 - CONFIDENCE) / 2
    return Interval(estimate, stats.quantile(ordered, tail), stats.quantile(ordered, 1 - tail))


@dataclasses.dataclass(frozen=True)
class _Draw:
    """One resample: seconds by part, in the order of the parts; then of the whole container, and measured."""

    parts: tuple[float, ...]
    together: float
    loss: float

    def sums(self) -> dict[str, float]:
        total = sum(self.parts)
        return {
            SUM: total,
            TOGETHER: self.together,
            INTERACTION: self.together - total,
            MEASURED: self.loss,
            UNEXPLAINED: self.loss - total,
        }


def closure(
    counts: Mapping[str, float],
    costs: Costs,
    parts: Sequence[Part],
    loss: Sequence[float],
    *,
    together: Part | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Closure:
    """The table for one workload in one container.

    COUNTS: operation -> times in one execution. LOSS: seconds that the container takes more than bare, one for each
    block of the timed runs. Raises ValueError when LOSS is empty or no part was measured.
    """
    if not loss:
        raise ValueError("no closure without a measured loss")
    missing = tuple(part.feature for part in parts if not _measured(costs, part, counts))
    parts = [part for part in parts if part.feature not in missing]
    if not parts:
        raise ValueError(f"no closure: none of {', '.join(missing) or 'no features'} was measured with its base")
    whole = together if together is not None and _measured(costs, together, counts) else None
    blocks, rng = blocks_of(costs), random.Random(seed)

    def drawn(some: Sequence[int], losses: Sequence[float]) -> _Draw:
        each = tuple(sum(predicted(costs, part, counts, some).values()) for part in parts)
        both = sum(predicted(costs, whole, counts, some).values()) if whole else 0.0
        return _Draw(each, both, statistics.median(losses))

    middle = drawn(blocks, loss)
    draws = [drawn(rng.choices(blocks, k=len(blocks)), rng.choices(loss, k=len(loss))) for _ in range(resamples)]
    lines = [
        Line(
            part.feature, _interval(middle.parts[at], [draw.parts[at] for draw in draws]), _largest(costs, part, counts)
        )
        for at, part in enumerate(parts)
    ]
    lines.sort(key=lambda line: -abs(line.seconds.estimate))
    wanted = [SUM, *((TOGETHER, INTERACTION) if whole else ()), MEASURED, UNEXPLAINED]
    sums = [draw.sums() for draw in draws]
    lines += [Line(name, _interval(middle.sums()[name], [one[name] for one in sums])) for name in wanted]
    verdict, why = judged(lines, min(common(costs, part) for part in parts), len(loss))
    return Closure(tuple(lines), verdict, why, uncosted(counts, costs), missing)


def _measured(costs: Costs, part: Part, counts: Mapping[str, float]) -> bool:
    return bool(predicted(costs, part, counts, blocks_of(costs)))


def _largest(costs: Costs, part: Part, counts: Mapping[str, float], most: int = 3) -> tuple[tuple[str, float], ...]:
    found = predicted(costs, part, counts, blocks_of(costs))
    return tuple(sorted(found.items(), key=lambda item: -abs(item[1]))[:most])


def uncosted(counts: Mapping[str, float], costs: Costs) -> tuple[tuple[str, float], ...]:
    """What was counted and never measured: it can only be in what is unexplained."""
    known = {operation for arm in costs.values() for operation in arm}
    return tuple(sorted((it for it in counts.items() if it[0] not in known and it[1]), key=lambda it: -it[1]))


def judged(lines: Sequence[Line], micro_blocks: int, timed_blocks: int) -> tuple[str, str]:
    """(verdict, why) of a finished table."""
    by_name = {line.name: line.seconds for line in lines}
    if min(micro_blocks, timed_blocks) < FEWEST:
        return "unresolved", f"{micro_blocks} blocks of the micro tier and {timed_blocks} timed: at least {FEWEST} each"
    measured, left, total = by_name[MEASURED], by_name[UNEXPLAINED], by_name[SUM]
    if 0.0 in measured:
        return "unresolved", "the loss itself may be zero: there is nothing that could be explained"
    if left.high - left.low > WIDEST * abs(measured.estimate):
        return "unresolved", f"what is unexplained is known to {left.low:+.3f} to {left.high:+.3f} s only"
    if total.estimate in measured:
        return "closed", "the sum of features lies in the interval of the measured loss"
    if 0.0 in left:
        return "closed", "the sum of features may be all of the loss"
    return "open", f"{left.estimate:+.3f} s of {measured.estimate:.3f} s are not explained by what was counted"


def unresolved(found: Closure, why: str) -> Closure:
    """The same table, which resolves nothing."""
    return dataclasses.replace(found, verdict="unresolved", why=why)


def table(found: Closure) -> list[str]:
    """The closure as lines of text."""
    lines = [f"{'':<22}{'seconds':>10}{'95 % interval':>24}   mostly"]
    for line in found.lines:
        if line.name == SUM:
            lines.append("-" * 58)
        value = line.seconds
        mostly = ", ".join(f"{name} {seconds:+.3g}" for name, seconds in line.by_operation)
        span = f"{value.low:+.4f} to {value.high:+.4f}"
        lines.append(f"{line.name:<22}{value.estimate:>+10.4f}{span:>24}   {mostly}".rstrip())
    lines.append(f"verdict: {found.verdict}: {found.why}")
    if found.uncosted:
        names = ", ".join(f"{name} {times:,.0f}" for name, times in found.uncosted[:8])
        lines.append(f"counted, and measured by nobody (a part of what is unexplained): {names}")
    if found.missing:
        lines.append(f"not measured in the micro tier: {', '.join(found.missing)}")
    return lines
