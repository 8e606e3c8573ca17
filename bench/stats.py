"""Statistics, pure: medians with quartiles, ratios paired within rounds, bootstrap intervals.

Nothing here knows what is measured. All intervals are percentile bootstrap intervals with a seed, so that the same
raw values always give the same report.
"""

from __future__ import annotations

import dataclasses
import math
import random
import statistics
from collections.abc import Callable, Sequence

CONFIDENCE = 0.95
RESAMPLES = 2000
QUIET = 0.1  # the share of rounds that counts as undisturbed
UNSTABLE_SPREAD = 0.25  # (q3 - q1) / median beyond which a reader is warned


@dataclasses.dataclass(frozen=True)
class Quartiles:
    """The middle of a sample. ``q1`` and ``q3`` interpolate linearly between order statistics (numpy's default)."""

    q1: float
    median: float
    q3: float

    @property
    def spread(self) -> float:
        """(q3 - q1) / median: a share, without unit."""
        return (self.q3 - self.q1) / self.median if self.median else math.inf


@dataclasses.dataclass(frozen=True)
class Interval:
    """An estimate with the interval that ``CONFIDENCE`` of such intervals would cover it in."""

    estimate: float
    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def __str__(self) -> str:
        return f"{self.estimate:.2f} [{self.low:.2f}, {self.high:.2f}]"


def quantile(ordered: Sequence[float], share: float) -> float:
    """The SHARE quantile of values in ascending order, linear between order statistics."""
    if not ordered:
        raise ValueError("a quantile of no values")
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def quartiles(values: Sequence[float]) -> Quartiles:
    """Quartiles of VALUES. Raises ValueError when there are none."""
    ordered = sorted(values)
    return Quartiles(*(quantile(ordered, share) for share in (0.25, 0.5, 0.75)))


def bootstrap(
    values: Sequence[float],
    statistic: Callable[[Sequence[float]], float] = statistics.median,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Interval:
    """STATISTIC of VALUES with a percentile bootstrap interval; the unit that is resampled is one value."""
    if not values:
        raise ValueError("a bootstrap of no values")
    rng = random.Random(seed)
    again = sorted(statistic(rng.choices(values, k=len(values))) for _ in range(resamples))
    tail = (1 - confidence) / 2
    return Interval(statistic(values), quantile(again, tail), quantile(again, 1 - tail))


def paired_ratio(
    values: Sequence[float], base: Sequence[float], *, seed: int = 0, resamples: int = RESAMPLES
) -> Interval:
    """How many times BASE the VALUES take: the median of the ratios within rounds, and its interval.

    ``values[i]`` and ``base[i]`` are from the same round, so what disturbs a whole round cancels. The median is taken
    of logarithms, so that swapping the two gives exactly the reciprocal. Raises ValueError when lengths differ.
    """
    logs = [math.log(value / other) for value, other in zip(values, base, strict=True)]
    found = bootstrap(logs, seed=seed, resamples=resamples)
    return Interval(math.exp(found.estimate), math.exp(found.low), math.exp(found.high))


def paired_difference(values: Sequence[float], base: Sequence[float], *, seed: int = 0) -> Interval:
    """How much more than BASE the VALUES are: the median of the differences within rounds, and its interval.

    Raises ValueError when lengths differ.
    """
    return bootstrap([value - other for value, other in zip(values, base, strict=True)], seed=seed)


def quiet_difference(
    values: Sequence[float], base: Sequence[float], *, share: float = QUIET, seed: int = 0, resamples: int = RESAMPLES
) -> Interval:
    """How much more than BASE the VALUES are in their quietest rounds: the difference of the SHARE quantiles.

    On a machine where others work too the middle of a sample is mostly waiting; what was least disturbed tells what the
    work itself takes. Both are resampled by themselves.
    """
    rng = random.Random(seed)

    def low(sample: Sequence[float]) -> float:
        return quantile(sorted(sample), share)

    def again(sample: Sequence[float]) -> float:
        return low(rng.choices(sample, k=len(sample)))

    found = sorted(again(values) - again(base) for _ in range(resamples))
    tail = (1 - CONFIDENCE) / 2
    return Interval(low(values) - low(base), quantile(found, tail), quantile(found, 1 - tail))


def unpaired_ratio(
    values: Sequence[float], base: Sequence[float], *, seed: int = 0, resamples: int = RESAMPLES
) -> Interval:
    """Median of VALUES by median of BASE, which were not measured in pairs; both are resampled by themselves."""
    rng = random.Random(seed)

    def again(sample: Sequence[float]) -> float:
        return statistics.median(rng.choices(sample, k=len(sample)))

    ratios = sorted(again(values) / again(base) for _ in range(resamples))
    tail = (1 - CONFIDENCE) / 2
    estimate = statistics.median(values) / statistics.median(base)
    return Interval(estimate, quantile(ratios, tail), quantile(ratios, 1 - tail))


def instability(values: Sequence[float]) -> str:
    """Why VALUES may be unstable, in words; "" when they are not."""
    middle = quartiles(values)
    if middle.spread > UNSTABLE_SPREAD:
        return f"the middle half spreads over {middle.spread:.0%} of the median"
    return ""


def verdict(ratio: Interval, at_most: float) -> str:
    """Whether RATIO is at most AT_MOST: "yes", "no", or "unresolved" where its interval holds both."""
    if ratio.high <= at_most:
        return "yes"
    return "no" if ratio.low > at_most else "unresolved"


def windows(values: Sequence[float], size: int) -> tuple[float, float]:
    """Median of the first SIZE values and of the last SIZE: whether something grows. Raises ValueError for too few."""
    if size < 1 or len(values) < 2 * size:
        raise ValueError(f"two windows of {size} need at least {2 * size} values, not {len(values)}")
    return statistics.median(values[:size]), statistics.median(values[-size:])
