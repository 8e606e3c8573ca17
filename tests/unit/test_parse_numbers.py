"""Sizes, durations and modes: meaning, round trips, bounds."""

from __future__ import annotations

from importlib import import_module

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minictr.errors import SpecError
from minictr.features.check import SIZE_MAX

parse = import_module("minictr.parse")


def refused(function: object, *args: object) -> str:
    """What the SpecError says; anything else is a failure."""
    with pytest.raises(SpecError) as caught:
        function(*args)  # type: ignore[operator]
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("1", 1),
        (4096, 4096),
        ("10b", 10),
        ("64k", 65536),
        ("64K", 65536),
        ("256M", 256 << 20),
        ("256mb", 256 << 20),
        ("256MiB", 256 << 20),
        ("1g", 1 << 30),
        ("1.5g", 3 << 29),
        ("1 g", 1 << 30),
        ("2t", 2 << 40),
        ("1p", 1 << 50),
    ],
)
def test_size(text: str | int, count: int) -> None:
    assert parse.size(text) == count


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "-1",
        -1,
        0,
        "k",
        "1x",
        "1kk",
        "1bb",
        "1ib",
        "1,5g",
        "1e9",
        "0x10",
        "1.g",
        ".5g",
        "9999p",
        "٣",
        "1" * 30,
        1 << 61,
        None,
        True,
        1.5,
    ],
)
def test_size_refuses(text: object) -> None:
    assert refused(parse.size, text).startswith("size: ")


@given(st.integers(1, SIZE_MAX), st.sampled_from("bkmgtp"))
def test_sizes_keep_their_value(count: int, unit: str) -> None:
    assert parse.size(str(count)) == parse.size(count) == count
    factor = 1024 ** "bkmgtp".index(unit)
    if count * factor <= SIZE_MAX:
        assert parse.size(f"{count}{unit}") == parse.size(f"{count}{unit.upper()}") == count * factor


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("90", 90), ("2.5", 2.5), ("1m30s", 90), ("500ms", 0.5), ("1h", 3600), ("1h1m1s", 3661), ("1.5m", 90)],
)
def test_duration(text: str, seconds: float) -> None:
    assert parse.duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "-1", "s", "1x", "1 s", "m1", "1e3", "inf", "nan", "1..5", "9" * 15, "1s-1s"])
def test_duration_refuses(text: str) -> None:
    assert refused(parse.duration, text).startswith("duration: ")


@given(st.integers(0, 9999), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999))
def test_durations_add_up(hours: int, minutes: int, seconds: int, ms: int) -> None:
    text = f"{hours}h{minutes}m{seconds}s{ms}ms"
    assert parse.duration(text) == pytest.approx(hours * 3600 + minutes * 60 + seconds + ms / 1000)


@given(st.integers(0, 0o7777))
def test_modes_keep_their_value(number: int) -> None:
    assert parse.mode(f"{number:o}") == parse.mode(f"0{number:o}") == number


@pytest.mark.parametrize("text", ["", "8", "rwx", "-1", "0o755", "10000", "777777"])
def test_mode_refuses(text: str) -> None:
    refused(parse.mode, text)
