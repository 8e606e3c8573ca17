"""How often intervals hold the truth: the simulation behind docs/bench-statistics.md. By hand, for it takes minutes.

    python tests/bench/coverage.py [SAMPLES]        default: 2000 samples of each kind and size

Four populations of a block's logarithm: normal; skewed (exponential); heavy (Student's t of 3 degrees); spikes (normal,
one block in ten disturbed six deviations wide). The truth is each one's mean.
"""

from __future__ import annotations

import math
import os
import random
import statistics
import sys
from collections.abc import Callable, Sequence

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from bench import paired
from bench.stats import quantile

BLOCKS = (5, 7, 10, 15, 20)
RESAMPLES = 1000
NORMAL = statistics.NormalDist()
Pair = tuple[float, float]


def spike(rng: random.Random) -> float:
    return rng.choice((-1, 1)) * rng.expovariate(1 / 6) if rng.random() < 0.1 else 0.0


POPULATIONS: dict[str, Callable[[random.Random], float]] = {  # all of mean 0
    "normal": lambda rng: rng.gauss(0, 1),
    "skewed": lambda rng: rng.expovariate(1) - 1 + rng.gauss(0, 0.3),
    "heavy": lambda rng: rng.gauss(0, 1) / math.sqrt(rng.gammavariate(1.5, 2) / 3),
    "spikes": lambda rng: rng.gauss(0, 1) + spike(rng),
}


def percentile(logs: Sequence[float], rng: random.Random) -> Pair:
    means = resampled(logs, rng)
    return quantile(means, 0.025), quantile(means, 0.975)


def resampled(logs: Sequence[float], rng: random.Random) -> list[float]:
    return sorted(sum(rng.choices(logs, k=len(logs))) / len(logs) for _ in range(RESAMPLES))


def bca(logs: Sequence[float], rng: random.Random) -> Pair:
    """Bias-corrected and accelerated: Efron and Tibshirani 1993, chapter 14."""
    count, mean, means = len(logs), statistics.fmean(logs), resampled(logs, rng)
    below = (sum(value < mean for value in means) + 0.5 * sum(value == mean for value in means)) / RESAMPLES
    bias = NORMAL.inv_cdf(min(max(below, 1e-6), 1 - 1e-6))
    without = [(count * mean - value) / (count - 1) for value in logs]
    middle = statistics.fmean(without)
    scale = 6 * sum((middle - value) ** 2 for value in without) ** 1.5
    acceleration = sum((middle - value) ** 3 for value in without) / scale if scale else 0.0

    def place(share: float) -> float:
        z = bias + NORMAL.inv_cdf(share)
        return NORMAL.cdf(bias + z / (1 - acceleration * z))

    return quantile(means, place(0.025)), quantile(means, place(0.975))


def student(logs: Sequence[float], rng: random.Random) -> Pair:
    mean, half = statistics.fmean(logs), paired.half_width(logs)
    return mean - half, mean + half


def percentile_t(logs: Sequence[float], rng: random.Random) -> Pair:
    effect = paired.Effect(tuple(logs), rng.randrange(8), RESAMPLES)
    low, high = quantile(effect.pivots, 0.025), quantile(effect.pivots, 0.975)
    return effect.mean - high * effect.error, effect.mean - low * effect.error


def ours(logs: Sequence[float], rng: random.Random) -> Pair:
    found = paired.Effect(tuple(logs), rng.randrange(8), RESAMPLES).interval()
    return found.low, found.high


METHODS = {"percentile": percentile, "BCa": bca, "Student": student, "percentile-t": percentile_t, "ours": ours}


def covered(method: Callable[[Sequence[float], random.Random], Pair], kind: str, blocks: int, samples: int) -> Pair:
    """(share of intervals that hold the truth, median width)."""
    rng, held, widths = random.Random(f"{kind}/{blocks}"), 0, []
    for _ in range(samples):
        low, high = method([POPULATIONS[kind](rng) for _ in range(blocks)], rng)
        held += low <= 0 <= high
        widths.append(high - low)
    return held / samples, statistics.median(widths)


def stopped(kind: str, target: float, samples: int) -> tuple[float, float, float]:
    """(coverage, median blocks) of stopping on precision; how often "stop when it shows" finds what is not there."""
    rng, held, lengths, false = random.Random(5), 0, [], 0
    for _ in range(samples):
        logs = [POPULATIONS[kind](rng) for _ in range(5)]
        while not paired.precise(logs, target) and len(logs) < 60:
            logs.append(POPULATIONS[kind](rng))
        lengths.append(len(logs))
        held += 0 in paired.Effect(tuple(logs), rng.randrange(8), RESAMPLES).interval()
        logs = [POPULATIONS[kind](rng) for _ in range(40)]
        false += any(abs(statistics.fmean(logs[:n])) > paired.half_width(logs[:n]) for n in range(5, 41))
    return held / samples, statistics.median(lengths), false / samples


def main() -> None:
    samples = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    print(f"95 % intervals that hold the truth, and their median width, {samples} samples each")
    for kind in POPULATIONS:
        for blocks in BLOCKS:
            found = {name: covered(method, kind, blocks, samples) for name, method in METHODS.items()}
            line = "  ".join(f"{name} {held:.3f} ({width:.2f})" for name, (held, width) in found.items())
            print(f"{kind:<8}{blocks:>3}  {line}", flush=True)
    print("stopping on precision (half width 0.5 deviations): coverage, median blocks; on significance: false findings")
    for kind in POPULATIONS:
        held, length, false = stopped(kind, 0.5, max(samples // 2, 1))
        print(f"{kind:<8} {held:.3f}  {length:.0f}  {false:.2f}", flush=True)


if __name__ == "__main__":
    main()
