"""Closure from results files with a known truth, on the terminal and on the page."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
from known import FACTS, QUIET

from bench import __main__ as front
from bench import results, samples
from bench.micro import arms, closing
from bench.report import closing as page_closing
from bench.report.table import Table
from bench.samples import AGAIN, BARE

NETS = {"bare": 20.0, "host": 20.0, "veth": 24.0, "bridge": 25.0, "publish": 27.0, "conntrack": 28.0, "nat": 30.0}


def run_of(run: str, verb: str) -> Iterator[samples.Record]:
    yield samples.Run(run, verb, "one", 1, 0.0, {}, FACTS)
    yield samples.End(run, 1.0, QUIET)


def micro_records(blocks: int = 8) -> Iterator[samples.Record]:
    """getppid +40 by the filter, open_close +1,500 by the layer, tcp_rr as in NETS (us) by rung; docker has it all."""
    base = {"getppid": 100.0, "open_close": 1000.0}
    inside = {wish.name: dict(base) for wish in arms.every() if not wish.lan}
    inside["seccomp-docker"]["getppid"] += 40
    inside["overlay-1"]["open_close"] += 1500
    inside["docker"] = inside["minictr-docker"] = {"getppid": 140.0, "open_close": 2500.0}
    for arm in inside.values():
        arm["socket"] = 2000.0
    inside["docker"] = {**inside["docker"], "socket": 3000.0}
    far = {**{name: {"tcp_rr": 1000 * value} for name, value in NETS.items()}, "docker": {"tcp_rr": 31_000.0}}
    far[AGAIN] = far[BARE]
    yield from run_of("m", "micro")
    far["bridge_netfilter"] = far["bridge"]
    for block in range(blocks):
        for prefix, arms_of in (("micro", inside), ("micro/lan", far)):
            for arm, costs in arms_of.items():
                for name, cost in costs.items():
                    values = {"minimum_ns": cost + block}
                    yield samples.Sample("m", f"{prefix}/{name}", arm, block, 0, 0.0, values)
        yield samples.Sample("m", "micro/tcp_rr", "seccomp-docker", block, 0, 0.0, {"minimum_ns": 1e9})


def timed(loss: float, blocks: int = 8) -> Iterator[samples.Record]:
    yield from run_of("w", "run")
    for block in range(blocks):
        wobble = 0.001 * (-1) ** block
        for arm, seconds in ((BARE, 10.0), (AGAIN, 10.0 + wobble), ("docker", 10.0 + loss + wobble)):
            yield samples.Sample("w", "workload/serve/small", arm, block, 0, 0.0, {"wall_s": seconds})


def counts() -> list[samples.Record]:
    times = {"getppid": 2e6, "open_close": 2e5, "tcp_rr": 2e4}
    return [samples.Count("c", "workload/serve/small", BARE, name, count) for name, count in times.items()]


def test_closure_from_records_with_a_known_truth() -> None:
    # 2e6 x 40 ns + 2e5 x 1500 ns + 2e4 x 10 us = 0.08 + 0.3 + 0.2
    ((experiment, arm, found),) = closing.closures([*micro_records(), *timed(0.58), *counts()])
    assert (experiment, arm) == ("workload/serve/small", "docker")
    assert not isinstance(found, str)
    value = {line.name: found.seconds(line.name).estimate for line in found.lines}
    assert value["seccomp-docker"] == pytest.approx(0.08)  # not the network on its own loopback
    assert value["overlay-1"] == pytest.approx(0.3)
    assert [value[rung] for rung in ("veth", "bridge", "publish", "conntrack", "nat")] == pytest.approx(
        [0.08, 0.02, 0.04, 0.02, 0.04]
    )
    # of the round trip that took 11 us more, 1 us is of the calls, and they are not counted here: 10 us are the path's
    assert value["all at once (docker)"] == pytest.approx(0.58)
    assert value["interaction (docker)"] == pytest.approx(0.0, abs=1e-9)
    assert value["all at once (minictr-docker)"] == pytest.approx(0.38), (
        "without a path: it was not measured on the lan"
    )
    assert found.verdict == "closed"


def test_a_loss_beyond_the_counts_stays_unexplained() -> None:
    ((_, _, found),) = closing.closures([*micro_records(), *timed(0.98), *counts()])
    assert not isinstance(found, str)
    assert found.verdict == "open"
    assert found.seconds("unexplained").estimate == pytest.approx(0.4, abs=0.01)


def test_without_counts_there_is_no_table_but_a_reason() -> None:
    ((_, _, found),) = closing.closures([*micro_records(), *timed(0.5)])
    assert found == "nothing was counted: bench count does that"


def test_two_bare_arms_that_differ_resolve_nothing() -> None:
    records = [
        dataclasses.replace(it, values={"wall_s": it.values["wall_s"] + 0.2}) if getattr(it, "arm", "") == AGAIN else it
        for it in timed(0.58)
    ]
    ((_, _, found),) = closing.closures([*micro_records(), *records, *counts()])
    assert not isinstance(found, str)
    assert found.verdict == "unresolved" and "A/A: bare differs from itself" in found.why


def test_a_busy_machine_and_a_run_that_nobody_knows_resolve_nothing() -> None:
    loud = [
        dataclasses.replace(it, noise={"noisy": ["others used 40% of the cpu time"]})
        if isinstance(it, samples.Sample)
        else it
        for it in timed(0.58)
    ]
    ((_, _, found),) = closing.closures([*micro_records(), *loud, *counts()])
    assert not isinstance(found, str) and "busy in 24 of 24 samples" in found.why
    assert {line.verdict for line in found.lines} == {"unresolved"}
    unknown = [it for it in timed(0.58) if not isinstance(it, samples.Run)]
    ((_, _, found),) = closing.closures([*micro_records(), *unknown, *counts()])
    assert not isinstance(found, str) and "no record of its own" in found.why


@pytest.mark.parametrize(("loud", "shut"), [(1, False), (len(arms.every()), True)])
def test_of_the_micro_tier_samples_are_disturbed_and_not_blocks(loud: int, shut: bool) -> None:
    """One arm that is disturbed in each block leaves the others' figures as they are; all of them do not."""
    names = [wish.name for wish in arms.every()][:loud]
    noise = {"noisy": ["others used 40% of the cpu time"]}
    records = [
        dataclasses.replace(it, noise=noise) if isinstance(it, samples.Sample) and it.arm in names else it
        for it in micro_records()
    ]
    told = closing.noise(records)
    assert bool(told) == shut
    assert not shut or "samples (others used 40%" in told[closing.MICRO]


def test_an_ablation_is_counted_as_its_workload() -> None:
    assert closing.counted_as("ablate/serve/small/way=local/nginx") == "workload/serve/small/way=local"
    assert closing.counted_as("workload/serve/small") == "workload/serve/small"


def test_closure_prints_the_table(tmp_path: Path, capsys) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text("".join(map(samples.to_line, [*micro_records(), *timed(0.58), *counts()])))
    assert front.main(["closure", str(path)]) == 0
    told = capsys.readouterr().out
    assert "workload/serve/small, docker against bare:" in told
    assert "\n  unexplained" in told and "verdict: closed" in told
    assert front.main(["closure", str(tmp_path / "none.jsonl")]) == 2
    assert capsys.readouterr().err.startswith("bench closure: ")


def test_the_page_names_the_arms_and_what_is_not_resolved(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    records = [it for it in micro_records() if getattr(it, "arm", "") != "minictr-docker"]
    path.write_text("".join(map(samples.to_line, [*records, *timed(0.58), *run_of("c", "count"), *counts()])))
    found = results.load([str(path)])
    chapter = page_closing.section(found, found.places[0])
    assert chapter is not None
    rows = {str(row[0]): str(row[1]) for item in chapter.items if isinstance(item, Table) for row in item.rows}
    told = repr(chapter)
    assert "all at once (docker)" in told and "interaction (docker)" in told
    assert "all at once (minictr-docker)" in told and "not measured" in told
    assert any("interaction (minictr-docker)" in name for name in rows)
    assert "Never measured in the micro tier: all at once (minictr-docker)" in told


def test_closure_says_that_a_part_was_counted(tmp_path: Path, capsys) -> None:
    path = tmp_path / "r.jsonl"
    arguments = {"one_in": {"workload/serve/small": 8}}
    told = samples.Run("c", "count", "one", 0, 0.0, arguments, FACTS)
    path.write_text("".join(map(samples.to_line, [told, *micro_records(), *timed(0.58), *counts()])))
    assert front.main(["closure", str(path)]) == 0
    assert "counted at one process of 8, drawn at random" in capsys.readouterr().out
