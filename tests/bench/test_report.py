"""Tables and JSON from raw values that are known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.lifecycle import bystep, leaks, report
from bench.lifecycle.run import Record, Run

QUIET = {"load_before": 0.1, "pressure_before": None, "steal": 0.0, "others": 0.0, "noisy": []}
HOST = {"kernel": "6.1", "cpus": 2, "cpu": "known"}
FLOOR = [3_000_000, 3_100_000, 2_900_000, 3_050_000, 2_950_000]


def made(**arms: list[int]) -> Run:
    """A run with these raw values; the floor is in it."""
    values = {"floor": FLOOR, "floor-again": FLOOR, **{name.replace("_", "-"): given for name, given in arms.items()}}
    records = {name: Record(name, "", nanoseconds=given) for name, given in values.items()}
    return Run(records, [list(records)] * len(FLOOR), seed=7, warmup=1, pause=0.0)


def times(factor: float) -> list[int]:
    return [round(value * factor) for value in FLOOR]


def test_a_row_is_median_quartiles_and_ratio() -> None:
    (floor, _, row) = report.rows(made(minictr_lib=times(1.2)))
    assert floor.milliseconds.median == pytest.approx(3.0)
    assert (row.milliseconds.q1, row.milliseconds.median, row.milliseconds.q3) == pytest.approx((3.54, 3.6, 3.66))
    assert row.ratio.estimate == pytest.approx(1.2)


@pytest.mark.parametrize(("factor", "answer"), [(1.2, "yes"), (1.8, "no")])
def test_targets_are_answered(factor: float, answer: str) -> None:
    answers = {text: given for text, given, _ in report.targets(made(minictr_lib=times(factor)))}
    assert answers == {"minictr-lib at most 1.5 floors": answer}


def test_a_target_between_is_unresolved() -> None:
    scattered = [round(value * factor) for value, factor in zip(FLOOR, (1.1, 1.9, 1.2, 1.8, 1.5), strict=True)]
    ((_, answer, _),) = report.targets(made(minictr_lib=scattered))
    assert answer == "unresolved"


def test_the_table_names_arms_state_and_warnings() -> None:
    run = made(minictr_lib=times(1.2))
    run.records["runc"] = Record("runc", "", unavailable="runc is not installed")
    run.records["crun"] = Record("crun", "", failed="in round 3: the command left with 1", unproven="no output")
    run.records["minictr-lib"].differences = ["Seccomp is 0, planned 2"]
    text = report.table(run, HOST, {**QUIET, "noisy": ["load average 9.00 before the run on 2 cpus"]})
    assert "5 rounds, order shuffled with seed 7" in text
    assert "minictr-lib              3.60    3.54    3.66     1.20   1.20 to 1.20" in text
    assert "runc                        -  runc is not installed" in text
    assert "crun: not proven: no output" in text
    assert "    - Seccomp is 0, planned 2" in text
    assert "noisy machine: load average 9.00" in text


def test_a_floor_unlike_itself_is_told() -> None:
    run = made()
    run.records["floor-again"].nanoseconds = times(1.1)
    assert any("A/A check" in text for text in report.warnings(run, QUIET))
    run.records["floor-again"].nanoseconds = [2_950_000, 3_150_000, 2_900_000, 3_000_000, 3_000_000]
    assert not any("A/A check" in text for text in report.warnings(run, QUIET))


def test_a_wide_spread_may_be_unstable() -> None:
    run = made(crun=[3_000_000, 9_000_000, 4_000_000, 20_000_000, 5_000_000])
    assert any(text.startswith("crun may be unstable") for text in report.warnings(run, QUIET))


def test_the_document_keeps_every_raw_value(tmp_path: Path) -> None:
    run = made(minictr_lib=times(1.2))
    report.write(str(tmp_path / "out.json"), report.document(run, HOST, QUIET))
    read = json.loads((tmp_path / "out.json").read_text())
    assert read["arms"]["minictr-lib"]["nanoseconds"] == times(1.2)
    assert read["orders"] == run.orders
    assert read["seed"] == 7
    assert read["summary"]["floor"]["ratio"]["estimate"] == pytest.approx(1)
    assert list(tmp_path.iterdir()) == [tmp_path / "out.json"]


BOOKS = {"fds": 5, "rss_kib": 9000, "threads": 1, "mounts": 20, "cgroups": 30, "children": 0, "zombies": 0}


def test_growth_is_told_and_the_allocator_forgiven() -> None:
    assert leaks.grown(BOOKS, BOOKS) == []
    assert leaks.grown(BOOKS, {**BOOKS, "rss_kib": 9500}) == []
    assert leaks.grown(BOOKS, {**BOOKS, "fds": 6}) == ["fds grew from 5 to 6"]
    assert leaks.grown(BOOKS, {**BOOKS, "rss_kib": 9600}) == ["rss_kib grew from 9000 to 9600"]
    assert leaks.grown(BOOKS, {**BOOKS, "mounts": 19}) == []


def test_slower_starts_are_told_and_do_not_fail() -> None:
    answer = {"starts": 40, "settled_at": 10, "settled": BOOKS, "last": BOOKS}
    even = leaks.judge({**answer, "nanoseconds": [5_000_000] * 40})
    assert (even["failed"], even["warnings"]) == (False, [])
    slower = leaks.judge({**answer, "nanoseconds": [9] * 10 + [5_000_000] * 15 + [10_000_000] * 15})
    assert slower["warnings"] == ["the last starts take 2.00 times the first ones"]
    assert not slower["failed"]
    assert "nothing grew" in leaks.table(slower)
    worse = leaks.judge({**answer, "last": {**BOOKS, "zombies": 3}, "nanoseconds": [5_000_000] * 40})
    assert worse["failed"]
    assert "zombies grew from 0 to 3" in leaks.table(worse)


def test_the_time_line_is_summed_up_by_feature() -> None:
    found = bystep.medians([{"clone": 700.0, "proc": 40.0}, {"clone": 900.0}, {"clone": 800.0, "proc": 50.0}])
    assert list(found) == ["clone", "proc"]
    assert found["clone"].median == 800
    assert found["proc"].median == 40  # absent once counts as 0
    text = bystep.table(found, 2000.0)
    assert "sum of medians         840" in text
    assert "the whole call        2000" in text
