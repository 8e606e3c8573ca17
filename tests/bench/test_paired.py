"""Effects by block against numbers worked out by hand, and against simulations whose truth is known."""

from __future__ import annotations

import math
import random

import pytest

from bench import paired
from bench.paired import Effect


def normal(rng: random.Random, count: int, mean: float = 0.0, deviation: float = 1.0) -> tuple[float, ...]:
    return tuple(rng.gauss(mean, deviation) for _ in range(count))


def test_the_unit_is_one_logarithm_a_block() -> None:
    assert paired.log_ratios([2, 8], [1, 2]) == pytest.approx([math.log(2), math.log(4)])
    with pytest.raises(ValueError, match="zip"):
        paired.log_ratios([1, 2], [1])
    with pytest.raises(ValueError, match="math domain|positive"):
        paired.log_ratios([0.0], [1])


def test_mean_error_and_ratio_by_hand() -> None:
    # ratios 1, 2, 4: geometric mean 2; logarithms 0, ln 2, 2 ln 2: deviation ln 2, error ln 2 / sqrt 3
    effect = Effect(tuple(paired.log_ratios([1, 2, 4], [1, 1, 1])))
    assert effect.ratio().estimate == pytest.approx(2)
    assert effect.deviation == pytest.approx(math.log(2))
    assert effect.error == pytest.approx(math.log(2) / math.sqrt(3))


def test_the_pivots_of_two_blocks_are_known() -> None:
    # of {0, 1} the resamples with scatter are (0, 1) and (1, 0): mean 0.5 as ours, t = 0; the others are left out
    assert set(Effect((0.0, 1.0)).pivots) == {0.0}


def test_swapping_the_two_arms_mirrors_the_interval() -> None:
    logs = normal(random.Random(1), 9, 0.3)
    one, other = Effect(logs).interval(), Effect(tuple(-value for value in logs)).interval()
    assert (one.estimate, one.low, one.high) == pytest.approx((-other.estimate, -other.high, -other.low))


def test_the_interval_is_never_inside_of_student() -> None:
    for seed in range(20):
        logs = normal(random.Random(seed), 6)
        found, half = Effect(logs, resamples=500).interval(), paired.half_width(logs)
        assert found.low <= found.estimate - half + 1e-12
        assert found.high >= found.estimate + half - 1e-12


def test_equal_blocks_have_an_interval_of_no_width() -> None:
    effect = Effect((0.25,) * 6)
    assert effect.interval() == paired.Interval(0.25, 0.25, 0.25)
    assert effect.p == 0.0
    assert effect.equivalence() == 1.0
    assert Effect((0.001,) * 6).equivalence() == 0.0


def test_one_block_is_no_effect() -> None:
    with pytest.raises(ValueError, match="two blocks, not 1"):
        Effect((0.1,))


@pytest.mark.parametrize("count", [5, 10, 20])
@pytest.mark.parametrize("skewed", [False, True])
def test_the_interval_covers_the_truth(count: int, skewed: bool) -> None:
    """300 samples of a known mean: 95 % is 285, four standard errors below is 270. Plain bootstraps hold 240 to 270."""
    rng, held = random.Random(count), 0
    for seed in range(300):
        logs = tuple(rng.expovariate(1) - 1 if skewed else rng.gauss(0, 1) for _ in range(count))
        held += 0.0 in Effect(logs, seed=seed, resamples=400).interval()
    assert held >= (262 if skewed else 270)  # of a skewed population five blocks cannot know more


def test_p_and_interval_say_the_same() -> None:
    for seed in range(60):
        effect = Effect(normal(random.Random(seed), 8, 0.7), resamples=999)
        assert (effect.p < 0.05) == (0.0 not in effect.interval()) or abs(effect.p - 0.05) < 0.004


def test_equivalence_is_an_interval_within_the_margin() -> None:
    for seed in range(60):
        effect = Effect(normal(random.Random(seed), 8, 0.0, 0.006), resamples=999)
        within = effect.interval(0.90).low > -paired.MARGIN and effect.interval(0.90).high < paired.MARGIN
        assert (effect.equivalence() < 0.05) == within or abs(effect.equivalence() - 0.05) < 0.004


def test_no_cost_is_rarely_said_of_half_a_percent() -> None:
    """At the margin itself the words would be wrong; they may come in 5 of 100."""
    rng, wrong, right = random.Random(4), 0, 0
    for seed in range(200):
        wrong += Effect(normal(rng, 10, paired.MARGIN, 0.004), seed=seed, resamples=400).equivalence() < 0.05
        right += Effect(normal(rng, 10, 0.0, 0.004), seed=seed, resamples=400).equivalence() < 0.05
    assert wrong <= 20
    assert right >= 120


def test_holm_by_hand() -> None:
    # ascending 0.01, 0.02, 0.03, 0.2 times 4, 3, 2, 1; never below the one before
    assert paired.holm([0.02, 0.2, 0.01, 0.03]) == pytest.approx([0.06, 0.2, 0.04, 0.06])
    assert paired.holm([0.5, 0.6]) == [1.0, 1.0]
    assert paired.holm([]) == []


def test_holm_keeps_the_family() -> None:
    """Twenty arms without an effect: at least one false word in about 5 of 100 families, not in 64."""
    rng, false = random.Random(9), 0
    for _ in range(400):
        false += min(paired.holm([rng.random() for _ in range(20)])) < 0.05
    assert false <= 38  # 20, and four standard errors


def test_what_is_detectable_is_found_so_often() -> None:
    # ten blocks: (2.2622 + 0.8834) / sqrt(10) = 0.99473 deviations
    assert paired.detectable(1.0, 10) == pytest.approx(0.99473, abs=2e-4)
    assert Effect((0.0, 0.02) * 5).detectable() == pytest.approx(math.exp(0.99473 * 0.0105409), rel=1e-4)
    rng, found = random.Random(2), 0
    for seed in range(200):
        found += Effect(normal(rng, 10, paired.detectable(1.0, 10)), seed=seed, resamples=400).p < 0.05
    assert 132 <= found <= 184  # 160, and some of its power goes to the wider interval


def test_precision_looks_at_the_width_only() -> None:
    logs = [0.0, 0.002, 0.004, 0.006, 0.008]
    # deviation 0.0031623, t of 4 degrees 2.77645: half width 0.0039264
    assert paired.half_width(logs) == pytest.approx(0.0039264, abs=1e-6)
    assert paired.precise(logs, 0.004) and not paired.precise(logs, 0.0039)
    assert paired.precise([value + 5 for value in logs], 0.004)
    assert not paired.precise(logs[:4], 1.0)  # too few, whatever the width
    assert paired.half_width([1.0]) == math.inf


def test_blocks_needed_is_where_it_becomes_precise() -> None:
    logs = normal(random.Random(3), 8, 0.0, 0.01)
    needed = paired.blocks_needed(logs, 0.005)
    deviation = Effect(logs).deviation

    def half(count: int) -> float:
        return paired.student.quantile(0.975, count - 1) * deviation / math.sqrt(count)

    assert half(needed) <= 0.005 < half(needed - 1)
    assert paired.blocks_needed([0.0, 1e-9], 0.005) == paired.FEWEST


def test_stopping_on_precision_keeps_the_coverage() -> None:
    """The rule is asked after every block; intervals still hold the truth about as often as they should."""
    rng, held = random.Random(6), 0
    for seed in range(200):
        logs = list(normal(rng, 5))
        while not paired.precise(logs, 0.6) and len(logs) < 60:
            logs.append(rng.gauss(0, 1))
        held += 0.0 in Effect(tuple(logs), seed=seed, resamples=400).interval()
    assert held >= 174


def test_intervals_of_many_hold_all_at_once() -> None:
    """Of 20 effects without a difference all wide intervals hold 1 in most families, all plain ones in few."""
    rng, families, size = random.Random(9), 100, 20
    wide = plain = 0
    for _ in range(families):
        effects = [Effect(normal(rng, 6, deviation=0.01), resamples=200) for _ in range(size)]
        wide += all(1.0 in one.together(size) for one in effects)
        plain += all(1.0 in one.ratio() for one in effects)
    assert wide >= 0.9 * families
    assert plain <= 0.8 * families
    assert effects[0].together(1) == effects[0].ratio(), "of one they are the same"
