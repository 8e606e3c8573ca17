"""What is told of the machine."""

from __future__ import annotations

import os

import pytest

from bench import host


def test_the_facts_name_kernel_cpus_and_versions() -> None:
    facts = host.facts()
    assert facts["kernel"] == os.uname().release
    assert facts["cpus"] >= 1
    assert facts["cgroups"] in ("v1", "v2", "hybrid", "none")
    assert facts["date"].endswith("+00:00")
    assert "minictr" in facts["versions"]


def test_a_tool_that_is_not_there_has_no_version() -> None:
    assert host.tool_version("no-such-tool-anywhere") == ""


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, []),
        ({"load": 1.5}, []),
        ({"load": 1.6}, ["load average 1.60 before the run on 2 cpus"]),
        ({"steal": 0.05}, ["5.0% of the cpu time stolen by other guests"]),
        ({"others": 0.3}, ["30% of the cpu time went to other processes during the run"]),
        ({"pressure": 40.0}, ["tasks waited for a cpu 40% of the time before the run"]),
    ],
)
def test_noise_is_told(changes: dict[str, float], told: list[str]) -> None:
    quiet = {"load": 0.1, "cpus": 2, "steal": 0.0, "others": 0.01, "pressure": None}
    assert host.noise(**{**quiet, **changes}) == told


def test_a_watch_gives_figures() -> None:
    quiet = host.Watch().stop()
    assert quiet["load_before"] >= 0
    assert 0 <= quiet["steal"] <= 1
    assert 0 <= quiet["others"] <= 1
    assert isinstance(quiet["noisy"], list)
