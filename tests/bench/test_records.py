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
