"""The statistics against numbers worked out by hand."""

from __future__ import annotations

import math
import statistics

import pytest

from bench import stats


def test_quartiles_of_odd_and_even_samples() -> None:
    # 1 2 3 4 5: places 1, 2 and 3 of 0..4
    assert stats.quartiles([5, 3, 1, 2, 4]) == stats.Quartiles(2, 3, 4)
    # 1 2 3 4: places 0.75, 1.5 and 2.25 of 0..3
    assert stats.quartiles([4, 1, 3, 2]) == stats.Quartiles(1.75, 2.5, 3.25)
    assert stats.quartiles([7]) == stats.Quartiles(7, 7, 7)


def test_quartiles_are_those_of_the_standard_library() -> None:
    values = [3.1, 9.9, 4.7, 2.2, 8.0, 6.5, 1.1]
    middle = stats.quartiles(values)
    assert (middle.q1, middle.median, middle.q3) == pytest.approx(statistics.quantiles(values, n=4, method="inclusive"))


def test_a_quantile_of_nothing_is_refused() -> None:
    for wrong in (lambda: stats.quartiles([]), lambda: stats.bootstrap([]), lambda: stats.quantile([], 0.5)):
        with pytest.raises(ValueError, match="of no values"):
            wrong()


def test_spread_is_a_share_of_the_median() -> None:
    assert stats.Quartiles(8, 10, 12).spread == pytest.approx(0.4)
    assert stats.Quartiles(0, 0, 0).spread == math.inf


def test_the_ratio_is_taken_within_rounds() -> None:
    # ratios 2, 2, 3: the median is 2, though the medians' ratio is 40 / 10
    ratio = stats.paired_ratio([2, 40, 60], [1, 20, 20])
    assert ratio.estimate == pytest.approx(2)
    assert 2 <= ratio.low <= ratio.high <= 3 + 1e-9


def test_an_even_number_of_ratios_gives_the_geometric_middle() -> None:
    # ratios 2 and 8: exp((ln 2 + ln 8) / 2) = 4
    assert stats.paired_ratio([2, 8], [1, 1]).estimate == pytest.approx(4)


def test_swapping_the_two_gives_the_reciprocal() -> None:
    values, base = [3.0, 5.0, 4.0, 7.0], [1.0, 2.0, 3.0, 2.5]
    one, other = stats.paired_ratio(values, base, seed=3), stats.paired_ratio(base, values, seed=3)
    assert one.estimate == pytest.approx(1 / other.estimate)


def test_a_constant_ratio_has_an_interval_of_no_width() -> None:
    ratio = stats.paired_ratio([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
    assert (ratio.estimate, ratio.low, ratio.high) == pytest.approx((2, 2, 2))


def test_unequal_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        stats.paired_ratio([1, 2], [1])


def test_the_same_seed_gives_the_same_interval() -> None:
    values = [float(value * 37 % 101) for value in range(1, 60)]
    assert stats.bootstrap(values, seed=5) == stats.bootstrap(values, seed=5)
    assert stats.bootstrap(values, seed=5) != stats.bootstrap(values, seed=6)


def test_the_bootstrap_of_two_values_is_known() -> None:
    # The mean of two draws from {0, 1} is 0, 0.5 or 1 with chances 1/4, 1/2, 1/4: the 95 % interval is all of it.
    interval = stats.bootstrap([0.0, 1.0], statistics.fmean, resamples=400)
    assert interval == stats.Interval(0.5, 0.0, 1.0)


def test_the_interval_covers_what_it_should() -> None:
    """A known answer: of 200 samples from a known population some 95 % of the intervals hold its median."""
    import random

    rng = random.Random(1)
    inside = sum(
        0.0 in stats.bootstrap([rng.gauss(0, 1) for _ in range(31)], seed=number, resamples=200)
        for number in range(200)
    )
    assert 178 <= inside <= 199


def test_an_interval_holds_its_ends() -> None:
    interval = stats.Interval(2, 1, 3)
    assert 1 in interval
    assert 3 in interval
    assert 3.01 not in interval
    assert str(interval) == "2.00 [1.00, 3.00]"


@pytest.mark.parametrize(
    ("low", "high", "answer"),
    [(0.9, 1.5, "yes"), (1.51, 2.0, "no"), (1.4, 1.6, "unresolved"), (1.5, 1.6, "unresolved")],
)
def test_a_verdict_needs_the_whole_interval(low: float, high: float, answer: str) -> None:
    assert stats.verdict(stats.Interval((low + high) / 2, low, high), 1.5) == answer


def test_a_wide_middle_is_told() -> None:
    assert stats.instability([10, 10, 10, 10, 10]) == ""
    assert stats.instability([10, 10.5, 11]) == ""  # 0.5 of 10.5
    assert stats.instability([5, 10, 20]) == "the middle half spreads over 75% of the median"  # 15 - 7.5 of 10


def test_windows_at_both_ends() -> None:
    assert stats.windows([1, 2, 3, 10, 20, 30], 3) == (2, 20)
    with pytest.raises(ValueError, match="at least 8 values, not 6"):
        stats.windows([1, 2, 3, 4, 5, 6], 4)


def test_a_difference_is_taken_within_rounds() -> None:
    # differences 1, 1, 30: what disturbs one round moves neither the median nor much of the interval
    found = stats.paired_difference([11, 21, 60], [10, 20, 30])
    assert found.estimate == 1
    assert found.low == 1


def test_a_quiet_difference_is_that_of_low_quantiles() -> None:
    # 10 % of 11 values is the second smallest: 2 and 5
    values, base = [5.0 + one for one in range(-1, 10)], [2.0 + one for one in range(-1, 10)]
    assert stats.quiet_difference(values, base).estimate == pytest.approx(3)
    noisy = [value if value < 6 else value * 50 for value in values]
    assert stats.quiet_difference(noisy, base).estimate == pytest.approx(3)
    assert stats.quiet_difference([4.0] * 9, [1.0] * 9) == stats.Interval(3, 3, 3)


def test_an_unpaired_ratio_is_that_of_medians() -> None:
    found = stats.unpaired_ratio([20, 30, 10], [10, 10, 10, 10])
    assert found.estimate == 2
    assert (found.low, found.high) == (1, 3)
