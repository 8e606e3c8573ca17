"""Limits in docker's words: whatever the text, a value or a SpecError of one line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minictr.errors import SpecError
from minictr.features.cgroup_devices import Devices, Io
from minictr.features.cgroups import Cpu, Memory
from minictr.features.controllers import Pids
from minictr.parse import limits

NUMBERS = st.one_of(st.integers(-2, 1 << 40).map(str), st.text("0123456789.kmgb-:/*", max_size=8), st.just(""))
WORDS = st.one_of(st.text(max_size=12), st.text("/dev:0189rwmcba* ", max_size=14))


@given(NUMBERS, NUMBERS, NUMBERS, NUMBERS)
def test_memory_is_a_wish_or_an_error(limit: str, swap: str, low: str, swappiness: str) -> None:
    fields = answer(limits.memory, limit, swap, low, swappiness)
    if fields is None:
        return
    if "max" in fields and fields["swap"] >= 0 and swap not in ("", "0"):
        assert fields["max"] + fields["swap"] >= fields["max"]
    answer(Memory, **fields)


@given(NUMBERS, NUMBERS, NUMBERS, NUMBERS)
def test_cpu_is_a_wish_or_an_error(cpus: str, shares: str, quota: str, period: str) -> None:
    fields = answer(limits.cpu, cpus, shares, quota, period)
    if fields is not None:
        answer(Cpu, **fields)


@given(WORDS)
def test_any_text_is_a_value_or_an_error(text: str) -> None:
    number = answer(limits.pids_limit, text)
    assert number is None or Pids(number)
    weight = answer(limits.io_weight, text)
    assert weight is None or Io(weight)
    for function in (limits.device_bps, limits.device_iops):
        row = answer(function, text)
        assert row is None or answer(Io, read_bps=(row,))
    rule = answer(limits.device_rule, text)
    assert rule is None or Devices((rule,))
    for function in (limits.device_weight, limits.device_node, limits.cgroup_conf):
        answer(function, text)


def answer(function: Callable[..., Any], *args: Any, **named: Any) -> Any:
    """What FUNCTION gives; None for a SpecError, which has to be one line."""
    try:
        return function(*args, **named)
    except SpecError as err:
        message = str(err)
    assert len(message.splitlines()) == 1
    assert not message.endswith(".")
    return None


@given(st.integers(10, 1000))
def test_a_weight_of_docker_s_comes_back(weight: int) -> None:
    """The hand for v1 converts back: the smallest that gives the same io.weight."""
    there = limits.io_weight(str(weight))
    assert there is not None
    assert 10 + -(-(there - 1) * 990 // 9999) == weight


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("/dev/kvm", ("/dev/kvm", "/dev/kvm", "rwm")),
        ("/dev/kvm:r", ("/dev/kvm", "/dev/kvm", "r")),
        ("/dev/kvm:/dev/x", ("/dev/kvm", "/dev/x", "rwm")),
        ("/dev/kvm:/dev/x:mr", ("/dev/kvm", "/dev/x", "rm")),
    ],
)
def test_device_node(text: str, wanted: tuple[str, str, str]) -> None:
    assert limits.device_node(text) == wanted
