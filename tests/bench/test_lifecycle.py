"""Tiny real runs: their structure, never their times. As root."""

from __future__ import annotations

import glob
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench import __main__ as front
from bench.lifecycle import cli, probe, run
from bench.lifecycle.arms import Arm
from bench.lifecycle.lab import Lab, LabError, check_rootfs
from bench.lifecycle.worker import ArmFailed, Command

FLOORS = ["floor", "floor-again"]


@pytest.fixture(autouse=True)
def _root(requires) -> None:
    requires.root()


@pytest.fixture
def small_lab(rootfs: Path):
    with Lab(str(rootfs), ballast=1) as lab:
        yield lab


def bench(*arguments: str) -> tuple[int, dict]:
    """``python -m bench lifecycle ARGUMENTS --format json``: exit code and document."""
    command = [sys.executable, "-m", "bench", "lifecycle", *arguments, "--format", "json"]
    root = str(Path(front.__file__).parent.parent)
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode in (0, 1), done.stderr
    return done.returncode, json.loads(done.stdout)


def test_a_tiny_run_has_every_raw_value(rootfs: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "out.json")
    arguments = ("--rounds", "2", "--warmup", "1", "--arms", "floor,minictr-lib", "--ballast-mb", "1")
    code, found = bench(*arguments, "--rootfs", str(rootfs), "--seed", "11", "--out", out)
    assert code == 0
    assert json.loads(Path(out).read_text()) == found
    assert list(found["arms"]) == [*FLOORS, "minictr-lib"]
    for record in found["arms"].values():
        assert record["failed"] == record["unavailable"] == record["unproven"] == ""
        assert len(record["nanoseconds"]) == 2
        assert all(value > 0 for value in record["nanoseconds"])
    assert [sorted(order) for order in found["orders"]] == [sorted(found["arms"])] * 2
    assert {"enter", "root", "mounts", "masks", "seccomp", "run"} <= found["arms"]["floor"]["parts"].keys()
    assert found["seed"] == 11
    assert found["host"]["kernel"] == os.uname().release


def test_the_containers_are_what_was_planned(small_lab: Lab) -> None:
    found = run.measure(small_lab, [*FLOORS, "floor-tree", "minictr-lib-noinit"], rounds=1, warmup=0, seed=1)
    assert {name: record.differences for name, record in found.records.items() if record.differences} == {}
    assert all(record.complete for record in found.records.values())


def test_the_whole_profile_leaves_nothing_out(small_lab: Lab) -> None:
    for name in ("minictr-lib-whole", "minictr-cli-whole"):
        assert run.ARMS[name](small_lab).WITHOUT == ()  # type: ignore[attr-defined]
    found = run.measure(small_lab, [*FLOORS, "minictr-lib-whole"], rounds=1, warmup=0, seed=1)
    record = found.records["minictr-lib-whole"]
    assert record.complete, record.failed
    assert [text for text in record.differences if "/sys/fs/cgroup" in text]


def test_an_init_is_the_only_difference_of_one_with_init(small_lab: Lab) -> None:
    found = run.measure(small_lab, [*FLOORS, "floor-init", "minictr-lib"], rounds=1, warmup=0, seed=1)
    assert [text.split(" (")[0] for text in found.records["floor-init"].differences] == ["an init as pid 1"]
    assert [text.split(" (")[0] for text in found.records["minictr-lib"].differences] == ["an init as pid 1"]


@pytest.mark.parametrize("name", ["bwrap", "crun", "lxc-execute", "runc", "minictr-cli", "minictr-cli-whole"])
def test_a_peer_runs_in_its_own_namespaces_and_leaves_nothing(name: str, small_lab: Lab) -> None:
    arm = run.ARMS[name](small_lab)
    if arm.available():
        pytest.skip(arm.available())
    found = run.measure(small_lab, [*FLOORS, name], rounds=1, warmup=0, seed=1)
    record = found.records[name]
    assert record.complete, record.failed
    assert not record.unproven
    assert not [text for text in record.differences if "namespace" in text or "CapEff" in text or "NoNew" in text]


def test_a_failing_arm_is_marked_and_the_others_go_on(small_lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(Arm):
        NAME = "failing"

        def command(self, argv: tuple[str, ...]) -> Command:
            script = 'read -r -N1 -u "$1"; echo "ok 5 0" >&"$2"; read -r -N1 -u "$1"; echo "error out of luck" >&"$2"'
            return lambda request, reply: ["/bin/bash", "-c", script, "failing", str(request), str(reply)]

    monkeypatch.setitem(run.ARMS, "failing", Failing)
    found = run.measure(small_lab, [*FLOORS, "failing"], rounds=3, warmup=0, seed=1)
    assert found.records["failing"].failed == "in round 1: out of luck"
    assert found.records["failing"].unproven
    assert len(found.records["floor"].nanoseconds) == 3
    assert [len(order) for order in found.orders] == [3, 2, 2]


def test_a_container_that_cannot_start_says_why(small_lab: Lab) -> None:
    arm = run.Floor(small_lab)
    small_lab.rootfs = "/no/such/root"
    arm.prepare()
    with pytest.raises(ArmFailed, match="No such file or directory"):
        arm.run_once()
    arm.cleanup()


def test_one_start_in_seconds(small_lab: Lab) -> None:
    arm = run.Floor(small_lab)
    with pytest.raises(ArmFailed, match="not prepared"):
        arm.run_once()
    arm.prepare()
    assert 0 < arm.run_once() < 30
    arm.cleanup()
    arm.cleanup()


def test_the_lab_leaves_nothing_even_of_a_failure(rootfs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = glob.glob("/tmp/minictr-bench-*")
    with Lab(str(rootfs)) as lab:
        assert os.path.exists(lab.floor)
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(LabError, match="no C compiler"), Lab(str(rootfs)):
        pass
    assert glob.glob("/tmp/minictr-bench-*") == before


def test_a_root_without_mount_points_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="no directory /proc to mount on"):
        check_rootfs(str(tmp_path))
    for name in ("proc", "sys", "dev"):
        (tmp_path / name).mkdir()
    with pytest.raises(LabError, match="has no /bin/true"):
        check_rootfs(str(tmp_path))


def test_a_root_without_a_shell_is_not_proven(tmp_path: Path, small_lab: Lab) -> None:
    small_lab.rootfs = str(tmp_path)
    with pytest.raises(ArmFailed, match="has no /bin/sh"):
        run.Floor(small_lab).probe()


def test_the_probe_runs_in_the_floor(small_lab: Lab) -> None:
    arm = run.Floor(small_lab)
    assert probe.parse(arm.probe()).pid == 1


def test_by_step_sums_up_minictrs_time_line(rootfs: Path) -> None:
    code, found = bench("--by-step", "--rounds", "2", "--warmup", "0", "--ballast-mb", "1", "--rootfs", str(rootfs))
    assert code == 0
    assert len(found["by_feature"]) == 2
    assert {"proc", "masked_paths", "capabilities"} <= found["by_feature"][0].keys()


def test_too_few_starts_for_a_leak_check(rootfs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert front.main(["lifecycle", "--leak-check", "5", "--rootfs", str(rootfs)]) == 2
    assert "at least 30 starts, not 5" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--arms", "floor,nothing"], "no arm nothing; there are floor"),
        (["--rounds", "0"], "0 is not above 0"),
        (["--warmup", "-1"], "-1 is below 0"),
        (["--format", "xml"], "invalid choice: 'xml'"),
        (["--leak-check", "40", "--by-step"], "not allowed with"),
    ],
)
def test_wrong_options_are_refused(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        front.main(["lifecycle", *arguments])
    assert refused.value.code == 2
    assert told in capsys.readouterr().err


def test_a_file_that_cannot_be_written_is_refused_before_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert front.main(["lifecycle", "--out", "/no/such/directory/file"]) == 2
    assert "cannot write /no/such/directory/file" in capsys.readouterr().err


def test_a_missing_root_is_one_clear_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert front.main(["lifecycle", "--rootfs", "/no/such/root"]) == 2
    assert capsys.readouterr().err == "bench lifecycle: /no/such/root has no directory /proc to mount on\n"


def test_the_floor_is_always_twice_in_it() -> None:
    assert run.chosen("crun") == [*FLOORS, "crun"]
    assert run.chosen("") == list(run.ARMS)
    assert cli.arm_names("runc, floor-tree") == [*FLOORS, "floor-tree", "runc"]
