"""The golden test: the thesis' own table, digit for digit, from its own timings."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

from bench import __main__ as front
from bench import student, thesis

# test -> the thesis' means of VM, LXC, Docker in seconds, as printed there
MEANS = {
    "t1_compress_256MiB": ("105.9491", "106.2062", "106.4033"),
    "t2_aes256cbc_4GiB": ("17.5809", "18.144", "18.6188"),
    "t3_kernel_4.9.8": ("1170.0822", "1186.9426", "1189.4148"),
    "t4_nginx_wget_16539": ("24.5385", "24.6406", "26.9379"),
    "t5_scp_1GiB": ("91.669", "93.4925", "91.5562"),
}
# worked out in decimal arithmetic, to ten places
VARIANCES = {
    "t1_compress_256MiB": ("0.3721907667", "0.9214912889", "0.5120873444"),
    "t2_aes256cbc_4GiB": ("1.0370158778", "2.2618060000", "0.4051477333"),
    "t3_kernel_4.9.8": ("0.9221584000", "1.2871333778", "0.5388077333"),
    "t4_nginx_wget_16539": ("0.0015076111", "0.0008936000", "0.0112434333"),
    "t5_scp_1GiB": ("0.0137728889", "0.1362802778", "0.0009308444"),
}
LOSSES = {  # percent, LXC and Docker
    "t1_compress_256MiB": ("0.24", "0.43"),
    "t2_aes256cbc_4GiB": ("3.20", "5.90"),
    "t3_kernel_4.9.8": ("1.44", "1.65"),
    "t4_nginx_wget_16539": ("0.42", "9.78"),
    "t5_scp_1GiB": ("1.99", "-0.12"),
}
UNRESOLVED = {("t1_compress_256MiB", "lxc"), ("t1_compress_256MiB", "docker"), ("t2_aes256cbc_4GiB", "lxc")}


@pytest.fixture(scope="module")
def cells() -> dict[tuple[str, str], thesis.Cell]:
    return {(cell.test, cell.environment): cell for cell in thesis.cells()}


def test_the_data_are_150_timings() -> None:
    found = thesis.timings()
    assert list(found) == list(MEANS) == list(thesis.TESTS)
    assert [len(values) for test in found.values() for values in test.values()] == [10] * 15


@pytest.mark.parametrize("test", MEANS)
def test_means_variances_and_losses_are_the_thesis(test: str, cells: dict) -> None:
    for place, environment in enumerate(thesis.NAMES):
        cell = cells[test, environment]
        assert f"{cell.mean:.10f}".rstrip("0") == MEANS[test][place]
        assert f"{cell.variance:.10f}" == VARIANCES[test][place]
        assert (cell.loss is None) == (environment == "vm")
        if cell.loss:
            assert f"{cell.loss.estimate:.2f}" == LOSSES[test][place - 1]


def test_decimal_arithmetic_agrees(cells: dict) -> None:
    """Not our formulas once more: the sums in exact decimals, from the text of the file."""
    with open(thesis.TIMINGS, encoding="utf-8") as file:
        exact = json.load(file, parse_float=Decimal)
    for (test, environment), cell in cells.items():
        values, base = exact[test][environment], exact[test]["vm"]
        mean = sum(values) / 10
        assert cell.mean == pytest.approx(float(mean), abs=1e-12)
        assert cell.variance == pytest.approx(float(sum((one - mean) ** 2 for one in values) / 9), rel=1e-9)
        if cell.loss:
            assert cell.loss.estimate == pytest.approx(float(100 * (mean / (sum(base) / 10) - 1)), abs=1e-9)


def test_its_first_test_and_lxc_in_its_second_resolve_nothing(cells: dict) -> None:
    holding_zero = {key for key, cell in cells.items() if cell.loss and 0.0 in cell.loss}
    assert holding_zero == UNRESOLVED
    assert cells["t2_aes256cbc_4GiB", "lxc"].loss.low < -3 and cells["t2_aes256cbc_4GiB", "lxc"].loss.high > 10
    assert thesis.verdict(cells["t5_scp_1GiB", "docker"].loss) == "faster"


def test_the_verb_prints_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert front.main(["thesis"]) == 0
    text = capsys.readouterr().out
    assert "  Docker    26.9379     0.011243   9.778   +9.46 to +10.10  slower" in text
    assert text.count("unresolved: holds 0") == 3
    assert max(map(len, text.splitlines())) <= 90
    assert front.main(["thesis", "--format", "json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 15


@pytest.mark.parametrize(
    ("freedom", "share", "t"),  # printed tables of Student's t
    [
        (1, 0.975, 12.7062),
        (2, 0.95, 2.9200),
        (4, 0.975, 2.7764),
        (9, 0.975, 2.2622),
        (9, 0.8, 0.8834),
        (30, 0.995, 2.7500),
        (1000, 0.975, 1.9623),
    ],
)
def test_quantiles_are_those_of_the_tables(freedom: float, share: float, t: float) -> None:
    assert student.quantile(share, freedom) == pytest.approx(t, abs=6e-5)
    assert student.cdf(student.quantile(share, freedom), freedom) == pytest.approx(share, abs=1e-12)
    assert student.quantile(1 - share, freedom) == pytest.approx(-t, abs=6e-5)


def test_one_and_two_degrees_have_closed_forms() -> None:
    from math import atan, pi, sqrt

    for t in (-7.0, -0.3, 0.0, 0.5, 40.0):
        assert student.cdf(t, 1) == pytest.approx(0.5 + atan(t) / pi, abs=1e-13)
        assert student.cdf(t, 2) == pytest.approx(0.5 + t / (2 * sqrt(2 + t * t)), abs=1e-13)


def test_welch_by_hand() -> None:
    # means 4 and 2, variances 4 and 1, three values each: error sqrt(4/3 + 1/3); Satterthwaite's freedom
    # (5/3)^2 / ((4/3)^2/2 + (1/3)^2/2) = 50/17
    found = student.welch([2, 4, 6], [1, 2, 3])
    half = student.quantile(0.975, 50 / 17) * (5 / 3) ** 0.5
    assert (found.estimate, found.low, found.high) == pytest.approx((2, 2 - half, 2 + half))
    assert student.welch([3, 3], [1, 1]) == student.Interval(2, 2, 2)
    with pytest.raises(ValueError, match="two values"):
        student.welch([1], [1, 2])
