"""The documents of lifecycle and life as records for the report."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import __main__ as front
from bench import analysis, results, samples
from bench.lifecycle import records

ROOT = str(Path(front.__file__).parent.parent)


def arm(*nanoseconds: int, **more: Any) -> dict[str, Any]:
    return {"nanoseconds": list(nanoseconds), "failed": "", "unavailable": "", **more}


LIFECYCLE = {
    "kind": "lifecycle",
    "orders": [["floor", "runc"], ["runc", "floor"], ["floor", "runc"]],
    "arms": {
        "floor": arm(3_000_000, 3_100_000, 2_900_000, parts={"enter": [700_000] * 3, "cpu": [900_000] * 3}),
        "runc": arm(
            30_000_000, 31_000_000, failed="in round 3: left with 1", known=["writes its state"], differences=["x"]
        ),
        "crun": arm(unavailable="crun is not installed"),
    },
}
CROWD = {
    "kind": "life",
    "parts": {
        "exec": {"series": {"exec": {**arm(5_000_000), "cpu": [2_000_000]}}, "orders": [["exec"]]},
        "crowd": {
            "rounds": [
                {"by": way, "nanoseconds": [10_000_000 + number for number in range(40)], "removed_ns": 40_000_000}
                | {"ps_command": [[90, 50]], "ps_library": [[30, 20], [40, 20]]}
                for way in ("library", "command")
            ]
        },
    },
}


def of_kind(found: list[samples.Record], kind: type) -> list[Any]:
    return [record for record in found if isinstance(record, kind)]


def test_every_counted_start_is_a_sample() -> None:
    found = records.of_document(LIFECYCLE, "r1", 7.0)
    starts = of_kind(found, samples.Sample)
    assert [(it.arm, it.block, it.position) for it in starts] == [
        ("floor", 0, 0),
        ("runc", 0, 1),
        ("runc", 1, 0),
        ("floor", 1, 1),
        ("floor", 2, 0),
    ]
    assert starts[0].values == {"wall_s": 0.003, "phase_enter_s": 0.0007, "cpu_s": 0.0009}
    arms = {it.name: it for it in of_kind(found, samples.Arm)}
    assert arms["crun"].unavailable == "crun is not installed"
    assert arms["runc"].unavailable == "" and arms["runc"].known == ("writes its state", "x")
    assert records.broken(LIFECYCLE) == ["lifecycle/start: runc: in round 3: left with 1"]


def test_a_time_line_is_phases() -> None:
    lines = [{"clone": 300.0, "mounts": 40.0}]
    document = {"kind": "by-step", "nanoseconds": [900_000], "by_feature": lines, "floor_parts": {"enter": [200_000]}}
    (ours, floor) = of_kind(records.of_document(document, "r1", 7.0), samples.Sample)
    assert ours.values == {"wall_s": 0.0009, "phase_clone_s": 0.0003, "phase_mounts_s": pytest.approx(4e-5)}
    assert floor.arm == "floor" and floor.values["phase_enter_s"] == 0.0002


def test_a_crowd_is_a_scale() -> None:
    found = of_kind(records.of_document(CROWD, "r1", 7.0), samples.Sample)
    alive = {
        (it.experiment, it.arm): it.values["start_s"] for it in found if it.experiment.startswith("lifecycle/alive/")
    }
    assert [key for key in alive if key[1] == "minictr-lib"] == [
        (f"lifecycle/alive/{number}", "minictr-lib") for number in (1, 10, 20, 40)
    ]
    assert [key for key in alive if key[1] == "minictr-cli"] == [
        (f"lifecycle/alive/{number}", "minictr-cli") for number in (10, 40)
    ]
    assert alive["lifecycle/alive/10", "minictr-lib"] == pytest.approx(0.0100000135)  # the middle of starts 9 to 18
    removed = [it.values["wall_s"] for it in found if it.experiment == "lifecycle/remove"]
    assert removed == [0.001, 0.001]
    assert len([it for it in found if it.experiment == "lifecycle/ps"]) == 6
    keys = [(it.experiment, it.arm, it.block) for it in found]
    assert len(keys) == len(set(keys))


def test_lifecycle_writes_what_the_report_reads(rootfs: Path, tmp_path: Path, requires) -> None:
    requires.root()
    out = tmp_path / "records.jsonl"
    words = ["--rounds", "2", "--warmup", "0", "--arms", "floor,minictr-lib", "--ballast-mb", "1", "--seed", "11"]
    command = [sys.executable, "-m", "bench", "lifecycle", *words, "--rootfs", str(rootfs), "--records", str(out)]
    again = [*command, "--format", "json"]
    done = subprocess.run(again, cwd=ROOT, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    found = results.load([str(out)])
    assert found.told == []
    (place,) = found.places
    assert found.interrupted(place) == []
    assert next(iter(found.runs.values())).seed == 11
    (start,) = analysis.experiments(found, place)
    assert (start.name, start.base) == ("lifecycle/start", "floor")
    raw = json.loads(done.stdout)["arms"]["minictr-lib"]["nanoseconds"]
    assert list(start.columns["minictr-lib"].values()) == [value / 1e9 for value in raw]
    assert front.main(["report", str(out), "--out", str(tmp_path / "page.html")]) == 0
    # a file with results is not written over
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 2
    assert "holds results already" in done.stderr


PHASES = {
    "kind": "phases",
    "orders": [["minictr-lib", "bwrap"], ["bwrap", "minictr-lib"]],
    "arms": {
        "minictr-lib": arm(9, 9, known=["k"], parts={"start": [5, 6], "stop": [4, 3]}),
        "bwrap": arm(2, 2, known=[], parts={"start": [2, 2]}),
        "docker": arm(unavailable="docker not installed", known=[]),
    },
}
AT_ONCE = {
    "kind": "at-once",
    "callers": [1, 8],
    "arms": {
        "crun": arm(
            known=["k"], bursts={"1": {"nanoseconds": [4_000_000], "per_second": [250.0]}}, failed="in round 2"
        ),
    },
}
ALIVE = {
    "kind": "alive",
    "containers": 30,
    "arms": {
        "crun": {
            "unavailable": "",
            "failed": "",
            "known": ["k"],
            "crowds": [
                {"nanoseconds": list(range(1, 31)), "removed_ns": 3_000, "private_kib": 2.0, "machine_kib": -1.0},
            ],
        },
    },
}


def values_of(document: dict[str, Any]) -> dict[str, list[tuple[str, int, dict[str, float]]]]:
    found: dict[str, list[tuple[str, int, dict[str, float]]]] = {}
    for it in of_kind(records.of_document(document, "r1", 0.0), samples.Sample):
        found.setdefault(it.experiment, []).append((it.arm, it.block, it.values))
    return found


def test_each_phase_is_compared_by_itself_and_no_sum_is_made() -> None:
    found = values_of(PHASES)
    assert list(found) == ["lifecycle/life", "lifecycle/life/start", "lifecycle/life/stop"]
    assert found["lifecycle/life"][0] == ("minictr-lib", 0, {"phase_start_s": 5e-9, "phase_stop_s": 4e-9})
    assert found["lifecycle/life"][2] == ("bwrap", 0, {"phase_start_s": 2e-9})
    assert found["lifecycle/life/stop"] == [("minictr-lib", 0, {"wall_s": 4e-9}), ("minictr-lib", 1, {"wall_s": 3e-9})]
    assert [name for name, _, _ in found["lifecycle/life/start"]] == ["minictr-lib", "bwrap", "bwrap", "minictr-lib"]
    arms = of_kind(records.of_document(PHASES, "r1", 0.0), samples.Arm)
    assert [it.unavailable for it in arms if it.name == "docker"] == ["docker not installed"]
    assert records.broken(PHASES) == []


def test_starts_at_once_have_seconds_and_a_rate() -> None:
    assert values_of(AT_ONCE) == {"lifecycle/at-once/1": [("crun", 0, {"start_s": 0.004, "together_per_s": 250.0})]}
    unavailable = {
        it.experiment: it.unavailable for it in of_kind(records.of_document(AT_ONCE, "r1", 0.0), samples.Arm)
    }
    assert unavailable == {"lifecycle/at-once/1": "", "lifecycle/at-once/8": "in round 2"}
    assert records.broken(AT_ONCE) == ["lifecycle/at-once: crun: in round 2"]


def test_a_crowd_of_several_arms_is_a_curve() -> None:
    found = values_of(ALIVE)
    assert {name: one[0][2] for name, one in found.items() if "alive" in name} == {
        "lifecycle/alive/1": {"start_s": 5.5e-9},
        "lifecycle/alive/10": {"start_s": 14.5e-9},
        "lifecycle/alive/20": {"start_s": 24.5e-9},
        "lifecycle/alive/30": {"start_s": 25.5e-9},
    }
    ((_, _, removed),) = found["lifecycle/remove"]
    assert removed == pytest.approx({"wall_s": 1e-7, "private_bytes": 2048.0, "machine_bytes": -1024.0})


def test_the_page_shows_phases_and_throughput(tmp_path: Path) -> None:
    """What only has phases is one figure; a rate along a number is one more."""
    from bench.report import lifecycle

    path = tmp_path / "records.jsonl"
    two = {**AT_ONCE, "arms": {"crun": {**AT_ONCE["arms"]["crun"]}}}  # type: ignore[dict-item]
    two["arms"]["crun"]["bursts"] = {  # type: ignore[index]
        "1": {"nanoseconds": [4_000_000], "per_second": [250.0]},
        "8": {"nanoseconds": [8_000_000], "per_second": [1000.0]},
    }
    found = [*records.of_document(PHASES, "r1", 0.0), *records.of_document(two, "r1", 0.0)]
    run = samples.Run("r1", "lifecycle", "m", 1, 0.0, {}, {})
    with samples.Writer(str(path)) as writer:
        for record in (run, *found, samples.End("r1", 1.0, {})):
            writer.write(record)
    results_ = results.load([str(path)])
    section = lifecycle.section(
        analysis.experiments(results_, "m"), [it for it in found if isinstance(it, samples.Sample)]
    )
    assert section is not None
    names = [item.name for item in section.items]  # type: ignore[union-attr]
    assert names.count("lifecycle-life-phases") == 1
    assert "lifecycle-life-time" not in names
    assert names[-2:] == ["lifecycle-at-once-scale", "lifecycle-at-once-throughput"]
    rows = section.items[-1].table.rows  # type: ignore[union-attr]
    assert [[cell.text for cell in row][:4] for row in rows] == [["crun", "1", "1", "250"], ["crun", "8", "1", "1,000"]]
