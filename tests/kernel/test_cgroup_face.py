"""``Cgroup``: one handle for all directories of a group, on v1, v2 and hybrid hosts."""

from __future__ import annotations

import os
import warnings
from typing import Any

import pytest
from cgrouptools import given, outcome, start
from test_cgroup_limits import DEVICES, FILL, TRY

import minictr as mc
from minictr.errors import SpecError, StepFailed, Unsupported
from minictr.kernel import cgroups

NAME = f"mctest-face-{os.getpid()}"


@pytest.fixture(autouse=True)
def _nothing_is_left(requires: Any) -> Any:
    requires.root()
    owns = cgroups.own_groups()
    before = {own: given(own) for own in owns}
    yield
    assert [own for own in owns if os.path.exists(f"{own}/{NAME}")] == []
    for own in owns:
        for controller in set(given(own)) - set(before[own]):
            with open(f"{own}/cgroup.subtree_control", "w") as file:
                file.write(f"-{controller}")


def test_a_taste() -> None:
    with mc.Cgroup(NAME, memory="32M", swap=0, cpus=0.5, cpu_weight=50, pids=64) as cg:
        assert cg.memory.limit == 32 << 20
        assert cg.pids.limit == 64
        assert {"memory", "cpu", "pids", "freezer"} <= set(cg.places)
        assert outcome(FILL, *cg._directories()) == (-9, "")
        assert cg.oom_kills == 1 == cg.usage().oom_kills
        assert cg.memory.peak is None or cg.memory.peak <= 32 << 20
        assert cg.cpu.usage is not None and cg.cpu.usage > 0
        assert cg.io.devices == () if "io" in cg.places else "io" not in cg.places


def test_every_keyword_is_a_wish() -> None:
    from minictr.runtime.cgroup import KEYWORDS

    for wish, field in KEYWORDS.values():
        assert field == "*" or field in wish._fields


def test_accounts_are_there_without_a_limit_and_can_be_left_out() -> None:
    with mc.Cgroup(NAME) as cg:
        outcome("pass", *cg._directories())
        assert cg.cpu.usage is not None and cg.cpu.usage > 0
        assert cg.memory.limit == -1
        assert (cg.pids.limit, cg.pids.hits) == (-1, 0)
    with mc.Cgroup(NAME, accounts=(), pids=5) as cg:
        assert list(cg.places) == ["pids"]
        with pytest.raises(Unsupported, match="memory: .* was made without it"):
            _ = cg.memory


def test_processes_are_added_frozen_and_killed() -> None:
    with mc.Cgroup(NAME, pids=64) as cg, start("import time; time.sleep(60)") as process:
        cg.add(process.pid)
        assert cg.processes() == (process.pid,)
        cg.freeze()
        assert cgroups.frozen(cg.places["freezer"])
        cg.thaw()
        cg.kill()
        assert process.wait(5) == -9


def test_the_end_of_the_block_kills_what_is_in_it() -> None:
    with start("import time; time.sleep(60)") as process:
        with mc.Cgroup(NAME) as cg:
            cg.add(process.pid)
        assert process.wait(5) == -9


def test_this_process_comes_back() -> None:
    before = cgroups.own_groups()
    with mc.Cgroup(NAME) as cg:
        cg.add()
        assert os.getpid() in cg.processes()
    assert cgroups.own_groups() == before


def test_update() -> None:
    with mc.Cgroup(NAME, memory="32M", pids=5) as cg:
        cg.update(pids=10, swap="4M")
        cg.update(memory="64M")
        assert (cg.pids.limit, cg.memory.limit) == (10, 64 << 20)
        cg.update(memory="max", swap=None)
        assert cg.memory.limit == -1
        with pytest.raises(SpecError, match="was made without io: name it in accounts"):
            cg.update(io={"weight": 5})
        with pytest.raises(SpecError, match="'memori' is no limit; there are: memory, swap"):
            cg.update(memori=1)
        assert cg.pids.limit == 10


def test_devices_and_io() -> None:
    if not (cgroups.has("devices") and cgroups.home("devices").version == 1):
        pytest.skip("v2's device program: test_cgroup_device_program")
    with mc.Cgroup(NAME, devices=DEVICES, accounts=()) as cg:
        assert outcome(TRY, *cg._directories()) == (0, "yes yes 1 1 ")
    with mc.Cgroup(NAME, devices=["c 1:3 rwm"], accounts=()) as cg:
        assert outcome(TRY, *cg._directories()) == (0, "yes 1 1 1 ")
    with pytest.raises(SpecError, match="/dev/null is no block device"):
        mc.Cgroup(NAME, io={"read_bps": {"/dev/null": "1M"}})
    with pytest.raises(StepFailed, match="look at device /dev/nothing: ENOENT"):
        mc.Cgroup(NAME, io={"read_bps": {"/dev/nothing": "1M"}})
    with pytest.raises(SpecError, match="cgroup io: .* is not a dictionary"):
        mc.Cgroup(NAME, io=5)


def test_hugetlb_and_raw() -> None:
    if not cgroups.has("hugetlb"):
        pytest.skip("no hugetlb")
    with mc.Cgroup(NAME, hugetlb={"2MB": 0}, raw={"cgroup.max.depth": "2"}, accounts=()) as cg:
        assert {row.page_size for row in cg.hugetlb} >= {"2MB"}
        assert set(cg.pressure) >= {"cpu"}
        with cg.psi_trigger("cpu", stall=1) as trigger:
            assert not trigger.wait(0)


def test_events() -> None:
    with mc.Cgroup(NAME, memory="16M", swap=0) as cg, cg.events() as events:
        assert outcome(FILL, *cg._directories())[0] == -9
        assert {event.kind for event in events.wait(5)} & {"oom", "oom_kill", "memory_max"}


def test_pressure_needs_v2() -> None:
    with mc.Cgroup(NAME, accounts=["pids"]) as cg:
        if cg.places["pids"].version == 1:
            assert cg.pressure == {}
            with pytest.raises(Unsupported, match='name "unified" in accounts'):
                cg.psi_trigger("cpu", stall=1)


def test_what_is_there_already_is_never_taken_over() -> None:
    with mc.Cgroup(NAME, pids=5, accounts=()):
        with pytest.raises(StepFailed, match=r"mkdir .*EEXIST .*choose another name"):
            mc.Cgroup(NAME, pids=7, accounts=())
        assert cgroups.usage([cgroups.locate("pids", NAME)]).pids.limit == 5  # type: ignore[union-attr]


def test_nothing_is_left_of_one_that_cannot_be_had() -> None:
    for limits in ({"cpuset": "4000"}, {"raw": {"memory.nothing": "1"}}, {"io": {"read_bps": {"4000:1": 5}}}):
        with pytest.raises((StepFailed, Unsupported)):
            mc.Cgroup(NAME, pids=5, **limits)  # type: ignore[arg-type]
    for wrong in ({"memory": "much"}, {"parent": "../.."}, {"cpus": 0}, {"memory_limit": 1}):
        with pytest.raises(SpecError):
            mc.Cgroup(NAME, **wrong)  # type: ignore[arg-type]


def test_below_a_parent() -> None:
    with mc.Cgroup(NAME, pids=50) as outer, mc.Cgroup("inner", parent=NAME, pids=5) as inner:
        assert inner.places["pids"].directory == outer.places["pids"].directory + "/inner"
        if inner.places["pids"].version == 1:
            assert outcome("pass", *inner._directories())[0] == 0


def test_keep_and_dropped() -> None:
    cg = mc.Cgroup(NAME, pids=5, accounts=())
    cg.keep()
    cg.close()
    assert os.path.isdir(cg.places["pids"].directory)
    cgroups.remove(cg.places["pids"].directory)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        mc.Cgroup(NAME, pids=5, accounts=()).__del__()
    assert [str(warning.message) for warning in caught] == [f"<cgroup {NAME}: pids> was dropped without close()"]
