"""Student's t distribution and Welch's interval, pure: what the standard library leaves out.

The distribution function is a regularised incomplete beta function, evaluated by its continued fraction
(Abramowitz and Stegun 26.5.8, 26.7.1); quantiles invert it by bisection.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from bench.stats import CONFIDENCE, Interval

_TINY = 1e-300
_ENOUGH = 1e-15


def _beta_fraction(x: float, a: float, b: float) -> float:
    """The continued fraction of the incomplete beta function, by Lentz's method; for x < (a + 1) / (a + b + 2)."""
    c, d = 1.0, 1.0 / (1.0 - (a + b) * x / (a + 1.0))
    found = d
    for step in range(1, 500):
        even = step * (b - step) * x / ((a + 2 * step - 1) * (a + 2 * step))
        odd = -(a + step) * (a + b + step) * x / ((a + 2 * step) * (a + 2 * step + 1))
        for term in (even, odd):
            d = 1.0 / (1.0 + term * d or _TINY)
            c = 1.0 + term / c or _TINY
            found *= c * d
        if abs(c * d - 1.0) < _ENOUGH:
            break
    return found


def incomplete_beta(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function I_x(a, b), for 0 <= x <= 1."""
    if not 0.0 <= x <= 1.0:
        raise ValueError(f"the incomplete beta function needs 0 <= x <= 1, not {x}")
    if x in (0.0, 1.0):
        return x
    logs = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    if x < (a + 1.0) / (a + b + 2.0):
        return math.exp(logs) * _beta_fraction(x, a, b) / a
    return 1.0 - math.exp(logs) * _beta_fraction(1.0 - x, b, a) / b


def cdf(t: float, freedom: float) -> float:
    """The chance that a t of FREEDOM degrees of freedom is at most T."""
    if freedom <= 0:
        raise ValueError(f"degrees of freedom must be above 0, not {freedom}")
    if math.isinf(t):
        return 0.0 if t < 0 else 1.0
    tail = incomplete_beta(freedom / (freedom + t * t), freedom / 2, 0.5) / 2
    return tail if t < 0 else 1.0 - tail


def quantile(share: float, freedom: float) -> float:
    """The t that SHARE of a t distribution of FREEDOM degrees of freedom lies below."""
    if not 0.0 < share < 1.0:
        raise ValueError(f"a quantile needs a share between 0 and 1, not {share}")
    if share < 0.5:
        return -quantile(1.0 - share, freedom)
    low, high = 0.0, 1.0
    while cdf(high, freedom) < share:
        high *= 2
    while high - low > 1e-12 * max(high, 1.0):
        middle = (low + high) / 2
        low, high = (middle, high) if cdf(middle, freedom) < share else (low, middle)
    return (low + high) / 2


def welch(values: Sequence[float], base: Sequence[float], *, confidence: float = CONFIDENCE) -> Interval:
    """How much more than BASE the VALUES are on average; the two were not measured in pairs and may scatter unequally.

    Welch (1947), degrees of freedom by Satterthwaite. Raises ValueError for fewer than two values on a side.
    """
    if min(len(values), len(base)) < 2:
        raise ValueError("Welch's interval needs two values on each side")
    difference = statistics.fmean(values) - statistics.fmean(base)
    parts = [statistics.variance(side) / len(side) for side in (values, base)]
    if not sum(parts):
        return Interval(difference, difference, difference)
    freedom = sum(parts) ** 2 / sum(part**2 / (len(side) - 1) for part, side in zip(parts, (values, base), strict=True))
    half = quantile((1 + confidence) / 2, freedom) * math.sqrt(sum(parts))
    return Interval(difference, difference - half, difference + half)
