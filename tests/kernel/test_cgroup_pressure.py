"""Pressure: read, and waited for."""

from __future__ import annotations

import time
from typing import Any

import pytest
from cgrouptools import outcome, start

from minictr.errors import SpecError, StepFailed, Unsupported
from minictr.kernel import cgroups, pressure
from minictr.kernel.capabilities import get
from minictr.kernel.pressure import Pressure, Stall, Trigger

SPIN = "import time\nend = time.monotonic() + {}\nwhile time.monotonic() < end: pass"


@pytest.fixture(autouse=True)
def _psi(request: pytest.FixtureRequest) -> None:
    if "parse" not in request.node.name and "no_psi" not in request.node.name and not pressure.available():
        pytest.skip("this kernel has no PSI")


def test_parse() -> None:
    text = "some avg10=0.12 avg60=0.05 avg300=0.00 total=1500000\nfull avg10=0.00 avg60=0.00 avg300=0.01 total=250000\n"
    assert pressure.parse(text) == Pressure(Stall(0.12, 0.05, 0.0, 1.5), Stall(0.0, 0.0, 0.01, 0.25))
    assert pressure.parse("full avg10=0.00 avg60=0.00 avg300=0.00 total=0\n").some is None


def test_no_psi(tmp_path: Any) -> None:
    with pytest.raises(Unsupported, match="no PSI; CONFIG_PSI, and psi=1"):
        pressure.pressure("cpu", str(tmp_path))
    with pytest.raises(Unsupported, match="no PSI"):
        Trigger("cpu", stall=0.1, directory=str(tmp_path))
    assert pressure.available(str(tmp_path)) == ()


def test_the_host() -> None:
    assert {"cpu", "memory", "io"} <= set(pressure.available())
    found = pressure.pressure("cpu").some
    assert found is not None and 0 <= found.avg10 <= 100 and found.total >= 0
    with pytest.raises(SpecError, match="'disk' is not one of cpu, memory, io, irq"):
        pressure.pressure("disk")


def test_a_group_that_waits_for_the_processor(group: Any) -> None:
    """Four programs for each processor: known work, and the number must show it."""
    import os

    place = group("unified")
    before = pressure.pressure("cpu", place.directory).some
    processes = [start(SPIN.format(0.5), place) for _ in range(4 * (os.cpu_count() or 1))]
    for process in processes:
        process.communicate()
    after = pressure.pressure("cpu", place.directory).some
    assert before is not None and after is not None
    assert after.total - before.total > 0.2
    told = cgroups.usage([place]).pressure["cpu"].some
    assert told is not None and told.total == pytest.approx(after.total, abs=0.05)


def test_a_trigger(group: Any) -> None:
    """Fires where there is pressure, and not where there is none."""
    import os

    place, quiet = group("unified"), group("unified", "quiet")
    with (
        Trigger("cpu", stall=0.05, window=2, directory=place.directory) as trigger,
        Trigger("cpu", stall=0.05, window=2, directory=quiet.directory) as other,
    ):
        assert not trigger.wait(0)
        processes = [start(SPIN.format(3), place) for _ in range(4 * (os.cpu_count() or 1))]
        began = time.monotonic()
        assert trigger.wait(10)
        assert time.monotonic() - began < 5
        assert not other.wait(0)
        for process in processes:
            process.kill()
            process.communicate()


def test_a_trigger_of_a_group_that_is_removed(group: Any) -> None:
    place = group("unified", "gone")
    with Trigger("memory", stall=0.1, directory=place.directory) as trigger:
        cgroups.remove(place.directory)
        with pytest.raises(StepFailed, match="the group was removed"):
            trigger.wait(5)


@pytest.mark.parametrize(("stall", "window"), [(0, 2), (3, 2), (0.1, 0.4), (1, 11)])
def test_thresholds_that_are_none(stall: float, window: float) -> None:
    with pytest.raises(SpecError, match="0.5 to 10 s"):
        Trigger("cpu", stall=stall, window=window)


def test_windows_of_those_without_privilege(requires: Any) -> None:
    requires.root()
    if "SYS_RESOURCE" in get().effective:
        Trigger("cpu", stall=0.1, window=1).close()
    else:
        with pytest.raises(StepFailed, match="EINVAL .*multiple of 2 s"):
            Trigger("cpu", stall=0.1, window=1)


def test_idle_groups_have_none(group: Any) -> None:
    place = group("unified")
    outcome("pass", place)
    found = pressure.pressure("io", place.directory).some
    assert found is not None and found.total < 0.5
