"""What one arm costs against another, pure: from the logarithm of their ratio in each block.

Every block holds each arm once, in an order of its own, so that what slows a whole block slows both sides of its ratio.
The logarithm of that ratio is the unit: one number a block, however many values are behind it. Its mean over the blocks
is the geometric mean of the ratios, and swapping the two arms gives exactly the reciprocal.

Intervals are *percentile-t* bootstrap intervals (Efron and Tibshirani 1993, chapter 12), widened at each end to
Student's where that reaches further. Percentile-t knows skewed blocks, Student's those with a few stray ones; the plain
percentile interval and BCa do not know how few the blocks are, and hold the truth too rarely below some twenty.
`docs/bench-statistics.md` has the coverage of them all, simulated. p-values follow: the larger of the two.
"""

from __future__ import annotations

import bisect
import dataclasses
import math
import operator
import random
import statistics
from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache

from bench import student
from bench.stats import CONFIDENCE, Interval, quantile

RESAMPLES = 4000
FEWEST = 5  # blocks below which nothing is said: resamples of fewer are too few to have tails
LEVEL = 1 - CONFIDENCE
MARGIN = math.log(1.005)  # what "no cost" means: within half a percent
POWER = 0.8


def log_ratios(values: Sequence[float], base: Sequence[float]) -> list[float]:
    """The unit: one logarithm of a ratio for each block. ValueError when lengths differ or a value is not above 0."""
    return [math.log(value) - math.log(other) for value, other in zip(values, base, strict=True)]


@lru_cache(maxsize=16)
def _draws(count: int, seed: int, resamples: int) -> list[Callable[[Sequence[float]], Sequence[float]]]:
    """So many resamples of COUNT values as functions that pick them: made once for all effects of so many blocks."""
    rng = random.Random(seed)
    return [operator.itemgetter(*rng.choices(range(count), k=count)) for _ in range(resamples)]


@dataclasses.dataclass(frozen=True)
class Effect:
    """LOGS, one for each block, and what can be said of their mean. The same LOGS always give the same answers."""

    logs: tuple[float, ...]
    seed: int = 0
    resamples: int = RESAMPLES

    def __post_init__(self) -> None:
        if len(self.logs) < 2:
            raise ValueError(f"an effect needs two blocks, not {len(self.logs)}")

    @property
    def blocks(self) -> int:
        return len(self.logs)

    @cached_property
    def mean(self) -> float:
        return statistics.fmean(self.logs)

    @cached_property
    def deviation(self) -> float:
        """Standard deviation of one block's logarithm: unbiased variance."""
        return statistics.stdev(self.logs)

    @property
    def error(self) -> float:
        """Standard error of the mean."""
        return self.deviation / math.sqrt(self.blocks)

    @cached_property
    def pivots(self) -> list[float]:
        """(mean of a resample - mean) / its standard error, ascending; resamples without scatter are left out."""
        count = self.blocks
        centred = [value - self.mean for value in self.logs]
        squares = [value * value for value in centred]
        found, least = [], 1e-12 * self.deviation**2
        for draw in _draws(count, self.seed, self.resamples):
            middle = sum(draw(centred)) / count
            square = sum(draw(squares)) - count * middle * middle
            if square > least:
                found.append(middle / math.sqrt(square / (count - 1) / count))
        return sorted(found)

    def interval(self, confidence: float = CONFIDENCE) -> Interval:
        """The mean logarithm with its interval; of no width when all blocks are equal."""
        if not self._scatters:
            return Interval(self.mean, self.mean, self.mean)
        tail, t = (1 - confidence) / 2, student.quantile((1 + confidence) / 2, self.blocks - 1)
        low, high = min(-t, quantile(self.pivots, tail)), max(t, quantile(self.pivots, 1 - tail))
        return Interval(self.mean, self.mean - high * self.error, self.mean - low * self.error)

    @property
    def _scatters(self) -> bool:
        return self.deviation > 1e-12 and bool(self.pivots)

    def ratio(self, confidence: float = CONFIDENCE) -> Interval:
        """The geometric mean ratio with its interval."""
        found = self.interval(confidence)
        return Interval(*(math.exp(value) for value in (found.estimate, found.low, found.high)))

    def together(self, family: int) -> Interval:
        """The ratio with Student's interval at LEVEL / FAMILY, and never less than its own: of so many effects all hold
        at once (Bonferroni). A few blocks drawn again have no tails so far out."""
        own = self.ratio()
        half = student.quantile(1 - LEVEL / family / 2, self.blocks - 1) * self.error
        low, high = min(own.low, math.exp(self.mean - half)), max(own.high, math.exp(self.mean + half))
        return Interval(own.estimate, low, high)

    def _above(self, value: float) -> float:
        """The chance of a mean as high as ours, were the truth VALUE: the one-sided p-value of "more than VALUE"."""
        if not self._scatters:
            return 0.0 if self.mean > value else 1.0
        return self._beyond((self.mean - value) / self.error, upper=True)

    def _below(self, value: float) -> float:
        """The same for "less than VALUE"."""
        if not self._scatters:
            return 0.0 if self.mean < value else 1.0
        return self._beyond((self.mean - value) / self.error, upper=False)

    def _beyond(self, t: float, *, upper: bool) -> float:
        count = len(self.pivots)
        beyond = count - bisect.bisect_left(self.pivots, t) if upper else bisect.bisect_right(self.pivots, t)
        of_student = student.cdf(-t if upper else t, self.blocks - 1)
        return max((beyond + 1) / (count + 1), of_student)

    @cached_property
    def p(self) -> float:
        """Two-sided p-value of "no difference": below LEVEL when the interval does not hold 0, by the same pivots."""
        return min(1.0, 2 * min(self._above(0.0), self._below(0.0)))

    def equivalence(self, margin: float = MARGIN) -> float:
        """The p-value of two one-sided tests (Schuirmann 1987): below 0.05 the mean is within MARGIN of 0."""
        return max(self._above(-margin), self._below(margin))

    def detectable(self, *, level: float = LEVEL, power: float = POWER) -> float:
        """The smallest true ratio above 1 that so many blocks with such scatter find with POWER at LEVEL."""
        return math.exp(detectable(self.deviation, self.blocks, level=level, power=power))


def detectable(deviation: float, blocks: int, *, level: float = LEVEL, power: float = POWER) -> float:
    """The mean logarithm that BLOCKS blocks of this DEVIATION tell from 0: (t of level + t of power) errors."""
    if blocks < 2:
        raise ValueError(f"a detectable effect needs two blocks, not {blocks}")
    ts = student.quantile(1 - level / 2, blocks - 1) + student.quantile(power, blocks - 1)
    return ts * deviation / math.sqrt(blocks)


def holm(ps: Sequence[float]) -> list[float]:
    """The p-values adjusted for their number by Holm (1979): reject those at most the level, and the chance of one
    false rejection in the whole family is at most that level. In the order given."""
    order = sorted(range(len(ps)), key=ps.__getitem__)
    adjusted, highest = [0.0] * len(ps), 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[place]))
        adjusted[place] = highest
    return adjusted


def half_width(logs: Sequence[float], confidence: float = CONFIDENCE) -> float:
    """Half the width of Student's interval of the mean of LOGS: what the stopping rule looks at, as it is cheap."""
    if len(logs) < 2:
        return math.inf
    return student.quantile((1 + confidence) / 2, len(logs) - 1) * statistics.stdev(logs) / math.sqrt(len(logs))


def precise(logs: Sequence[float], target: float, *, fewest: int = FEWEST) -> bool:
    """Whether there are blocks enough: half the interval's width is at most TARGET, a logarithm (0.005: 0.5 %).

    It looks at the width and never at where the interval lies: stopping when a difference shows would find differences
    where there are none (docs/bench-statistics.md has the figures).
    """
    return len(logs) >= fewest and half_width(logs) <= target


def blocks_needed(logs: Sequence[float], target: float, *, fewest: int = FEWEST) -> int:
    """How many blocks would be precise if they scatter as LOGS do: for the time left. At least FEWEST."""
    deviation = statistics.stdev(logs)
    needed = fewest
    while student.quantile((1 + CONFIDENCE) / 2, needed - 1) * deviation / math.sqrt(needed) > target:
        needed += max(1, needed // 50)
    return needed
