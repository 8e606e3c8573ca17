"""``python -m bench life``: its parts for real, small; its sums by hand. Never its times."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import minictr as mc
from bench import ROOT
from bench import __main__ as front
from bench.life import adding, cli, controllers, crowd, joining, privilege, rest, syscalls
from bench.life.series import Series, in_turn
from bench.lifecycle.lab import Lab
from bench.lifecycle.worker import Command

ROLLUP = """\
55d0c0000000-7ffd1c5f6000 ---p 00000000 00:00 0                          [rollup]
Rss:                1000 kB
Pss:                 500 kB
Shared_Clean:        700 kB
Private_Clean:         4 kB
Private_Dirty:        36 kB
Swap:                 20 kB
SwapPss:              20 kB
"""


@pytest.fixture(autouse=True)
def _root(requires) -> None:
    requires.root()


@pytest.fixture
def lab(rootfs: Path):
    with Lab(str(rootfs), ballast=1, compiled=False) as small:
        assert small.floor == ""
        yield small


def options(**changes: object) -> argparse.Namespace:
    few = {"rounds": 2, "warmup": 0, "containers": crowd.FEWEST, "crowds": 2, "seed": 3, "pause_ms": 0.0}
    return argparse.Namespace(**{**few, **changes})


def quiet(text: str) -> None:
    del text


def series(**values: list[float]) -> dict[str, Series]:
    """Series with these milliseconds; "_" stands for a blank."""
    return {
        name.replace("_", " "): Series(name.replace("_", " "), "", [round(value * 1e6) for value in given])
        for name, given in values.items()
    }


def answers(part: object) -> dict[str, str]:
    return {target.text: target.answer for target in part.targets}  # type: ignore[attr-defined]


# --- at rest ---


def test_private_memory_is_what_no_other_process_has() -> None:
    assert rest.private_kib(ROLLUP) == 4 + 36 + 20


def test_everything_that_is_ours_is_weighed(lab: Lab) -> None:
    found = rest.measure(lab, options(), quiet)
    kib = found.raw["kib"]
    assert set(kib) == {"default", "with a terminal", "without init"}
    assert all(set(row) == {"monitor", "init"} and min(row.values()) > 0 for row in kib["default"])
    assert all(set(row) == {"monitor"} for row in kib["without init"])
    assert len(kib["default"]) == rest.EACH


def test_too_much_memory_is_no() -> None:
    assert answers(rest.part({"default": [{"monitor": 1000, "init": 24}]})) == {
        "under 1 MiB of private memory at rest": "no"
    }
    assert answers(rest.part({"default": [{"monitor": 1000, "init": 23}]})) == {
        "under 1 MiB of private memory at rest": "yes"
    }


# --- the crowd ---


@pytest.mark.slow
def test_a_crowd_runs_is_listed_and_goes(lab: Lab) -> None:
    found = crowd.measure(lab, options(), quiet)
    first, second = found.raw["rounds"]
    assert (first["by"], second["by"]) == ("library", "command")
    for one in (first, second):
        assert one["running"] == len(one["nanoseconds"]) == len(one["kib"]) == crowd.FEWEST
        assert len(one["cpu"]) == crowd.FEWEST
        assert min(one["cpu"]) > 0
        assert len(one["ps_command"]) == len(one["ps_library"]) == crowd.LISTINGS
        assert one["left"] == []
    said = answers(found)
    assert said[f"{crowd.FEWEST} at once"] == said["nothing left of them"] == "yes"


def test_what_is_left_is_seen_and_what_is_others_is_not(rootfs: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(crowd, "GRACE", 0.0)
    root = str(tmp_path / "state")
    instance = mc.Container(str(rootfs)).start(["/bin/sleep", "100"], root=root)
    other = mc.Container(str(rootfs)).start(["/bin/sleep", "100"], root=str(tmp_path / "other"))
    ids, pids = [instance.id], [(instance.pid, crowd.start_time(instance.pid))]
    left = crowd.left_behind(root, ids, pids)
    assert f"process {instance.pid}" in left
    assert f"{root}/containers/{instance.id}" in left
    groups = [line for line in left if line.startswith("/sys/fs/cgroup")]
    assert len(groups) == len({place.directory for place in instance.places().values()})
    instance.remove(force=True)
    assert crowd.left_behind(root, ids, pids) == []
    other.remove(force=True)


def test_a_number_that_is_used_again_is_another_process() -> None:
    assert crowd.start_time(os.getpid()) != ""
    assert crowd.start_time(1 << 22) == ""
    assert crowd.left_behind("/nonexistent", [], [(os.getpid(), "1")]) == []


def test_the_windows_are_the_tenth_to_the_nineteenth_and_the_last_ten() -> None:
    early, last = crowd.windows([{"nanoseconds": list(range(1, 501))}])
    assert (early, last) == (list(range(10, 20)), list(range(491, 501)))


@pytest.mark.parametrize(("factor", "answer"), [(1.0, "yes"), (2.0, "no")])
def test_a_crowd_that_slows_down_is_told(factor: float, answer: str) -> None:
    nanoseconds = [8_000_000] * 30 + [round(8_000_000 * factor)] * 10
    found = {
        "by": "library",
        "running": 40,
        "nanoseconds": nanoseconds,
        "cpu": [5_000_000] * 40,
        "ps_command": [(round(factor * 2e8), round(factor * 1.9e8))] * 3,
        "ps_library": [(1, 1)],
        "kib": [64] * 40,
        "removed_ns": 1,
        "left": [],
    }
    said = answers(crowd.part([found], options(containers=40)))
    assert said["start of the 40th within 1.5 of the 10th, by the library"] == answer
    assert said["minictr ps of 40 under 0.3 s"] == answer
    assert said["mc.containers() of 40 under 0.3 s"] == said["40 at once"] == said["nothing left of them"] == "yes"
    waited = {**found, "ps_command": [(700_000_000, 70_000_000)] * 3}
    assert answers(crowd.part([waited], options(containers=40)))["minictr ps of 40 under 0.3 s"] == "unresolved"
    said = answers(crowd.part([{**found, "running": 39, "left": ["process 7"]}], options(containers=40)))
    assert said["40 at once"] == said["nothing left of them"] == "no"


# --- exec ---


def test_every_way_to_join_is_measured_or_says_why_not(lab: Lab, requires) -> None:
    found = joining.measure(lab, options(), quiet)
    rows = found.raw["series"]
    assert set(rows) == {"bare", "bare, mc.run", "exec", "exec again", joining.RUNC, *joining.COMMANDS}
    for name, row in rows.items():
        if name in ("runc exec", "crun exec", "lxc-attach") and not requires.has(name.split()[0]):
            assert row["failed"].endswith("is not installed")
            continue
        assert not row["failed"], (name, row["failed"])
        assert len(row["nanoseconds"]) == 2


def test_the_others_leave_nothing(lab: Lab) -> None:
    joining.measure(lab, options(rounds=1), quiet)
    marks = (f"minictr-bench-{os.getpid()}-", f"bench-life-{os.getpid()}")
    left = [entry for top in crowd.own_cgroups() for entry in os.listdir(top) if entry.startswith(marks)]
    assert left == []
    said = [Path(f"/proc/{pid}/cmdline") for pid in os.listdir("/proc") if pid.isdigit()]
    running = [text for text in (_read(path) for path in said) if any(mark.encode() in text for mark in marks)]
    assert running == []


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_the_promises_of_exec() -> None:
    found = series(bare=[1, 1.1, 0.9], exec=[1.2, 1.3, 1.1], runc_exec=[20, 21, 19], minictr_exec=[30, 31, 29])
    said = answers(joining.part({**found, "crun exec": Series("crun exec", failed="not there")}, [], 1))
    assert said == {
        "exec from the library at most 1.5 starts without namespaces": "yes",
        "minictr exec faster than runc exec": "no",
    }


# --- controllers ---


def test_each_controller_is_measured_by_itself(lab: Lab) -> None:
    limits = {name: controllers.LIMITS[name] for name in ("pids", "memory")}
    found, orders = in_turn(lab, controllers.commands(lab, limits), rounds=2, warmup=1, seed=1)
    assert list(found) == ["none", "none again", "pids", "memory", "all"]
    assert all(len(one.nanoseconds) == len(one.cpu) == 2 and not one.failed for one in found.values())
    assert all(min(one.cpu) > 0 for one in found.values())
    assert [sorted(order) for order in orders] == [sorted(found)] * 2


def test_what_this_host_has_not_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(controllers.LIMITS, "rdma", ("Rdma", ({"no such device": "hca_handle=2"},)))
    found, missing = controllers.supported()
    assert "pids" in found
    assert found.keys().isdisjoint(missing)
    assert found.keys() | missing.keys() == controllers.LIMITS.keys()


def test_what_a_controller_adds_is_what_it_takes_in_quiet_rounds() -> None:
    found = series(none=[3, 3, 9], pids=[3.1, 3.1, 30])
    assert adding.added(found, "pids", 1).estimate == pytest.approx(0.1)
    found["none"].cpu, found["pids"].cpu = [1_000_000, 2_000_000, 1_500_000], [1_200_000, 2_200_000, 1_700_000]
    assert adding.worked(found, "pids", 1).estimate == pytest.approx(0.2)


def test_each_controller_has_two_promises() -> None:
    found = series(none=[3] * 9, pids=[3.1] * 9, memory=[3.5] * 9, all=[3.5] * 9)
    for name, cpu in (("none", 1.0), ("pids", 1.4), ("memory", 1.2), ("all", 1.9)):
        found[name].cpu = [round(cpu * 1e6)] * 9
    found["cpu"] = Series("cpu", failed="no such controller")
    part = adding.part("", found, [], 1, single=tuple(controllers.LIMITS), at_most=controllers.AT_MOST_MS)
    assert answers(part) == {
        "pids adds at most 0.3 ms": "yes",
        "pids adds at most 0.3 ms of processor time": "no",
        "memory adds at most 0.3 ms": "no",
        "memory adds at most 0.3 ms of processor time": "yes",
        "all 2 add, each, at most 0.3 ms": "yes",
        "all 2 add, each, at most 0.3 ms of processor time": "no",
    }
    assert any("no such controller" in line for line in part.lines)


# --- filters and Landlock ---


def test_a_filter_and_landlock_are_there_when_they_are_measured(lab: Lab) -> None:
    commands = privilege.commands(lab)
    assert list(commands) == ["none", "none again", *privilege.FILTERS, "landlock 20", "both"]
    found, _ = in_turn(lab, {name: commands[name] for name in ("none", "both")}, rounds=1, warmup=0, seed=1)
    assert all(one.complete for one in found.values())
    paths = privilege.some_paths(lab.rootfs)
    assert len(set(paths)) == 20
    assert paths[0] == "/"
    assert all(os.path.lexists(lab.rootfs + path) for path in paths)


def test_system_calls_are_timed_under_the_filters_they_say(lab: Lab) -> None:
    root = syscalls.compiled_root(lab)
    boxes = syscalls.boxes(root)
    without = [name for name, box in boxes.items() if "seccomp" not in {feature.name for feature in box.features}]
    assert without == ["none", "none again"]
    for box in boxes.values():
        told = syscalls.parsed(box.run(["/syscalls", "2", "50"], capture_output=True, text=True).stdout)
        assert list(told) == ["getppid", "personality", "open+close"]
        assert min(told.values()) > 0
    assert boxes["none"].run(["/syscalls", "0", "1"]).returncode == 2


def test_a_frequent_call_must_cost_what_the_kernels_cache_costs() -> None:
    values = {name: {"getppid": [100.0] * 9} for name in ("none", "none again")}
    values |= {name: {"getppid": [140.0] * 9} for name in ("allow all", "default", "lxc")}
    part = syscalls.part({**values, "docker": {"getppid": [160.0] * 9}}, 1)
    assert {text.split()[2]: answer for text, answer in answers(part).items()} == {
        "default": "yes",
        "docker": "no",
        "lxc": "yes",
    }
    assert any(line.split() == ["docker", "160.0", "60.0"] for line in part.lines)


# --- the whole ---


def test_one_that_fails_is_marked_and_the_others_go_on(lab: Lab) -> None:
    def shell(script: str) -> tuple[str, Command]:
        return "", lambda request, reply: ["/bin/bash", "-c", script, "x", str(request), str(reply)]

    ask, ok = 'read -r -N1 -u "$1"', 'echo "ok 5 0" >&"$2"'
    good = f"while {ask}; do {ok}; done"
    late = f'for n in 1 2; do {ask}; {ok}; done; {ask}; echo "error bad luck" >&"$2"'
    commands = {"good": shell(good), "late": shell(late), "never": shell(f"{ask}; exit 1")}
    found, orders = in_turn(lab, commands, rounds=3, warmup=0, seed=1)
    assert found["good"].nanoseconds == [5, 5, 5]
    assert found["late"].failed == "in round 2: bad luck"
    assert found["never"].failed == "the worker ended"
    assert [len(order) for order in orders] == [2, 2, 1]


def test_a_run_is_a_table_for_people_and_json_with_every_value(rootfs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    command = [sys.executable, "-m", "bench", "life", "--parts", "rest,controllers", "--rounds", "2", "--warmup", "0"]
    command += ["--ballast-mb", "1", "--rootfs", str(rootfs), "--seed", "11", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    assert "A detached container at rest:" in done.stdout
    assert "Targets:" in done.stdout
    found = json.loads(out.read_text())
    assert (found["kind"], found["arguments"]["seed"], found["failed"]) == ("life", 11, False)
    assert list(found["parts"]) == ["rest", "controllers"]
    assert all(target["answer"] in ("yes", "no", "unresolved") for target in found["targets"])
    measured = found["parts"]["controllers"]["series"]
    assert len(measured["none"]["nanoseconds"]) == 2


def test_what_is_left_fails_the_run() -> None:
    part = crowd.Part("", [], [], {"left": ["process 7"]})
    watch = {"load_before": 0.1, "others": 0.0, "noisy": []}
    assert cli.document({"crowd": part}, {}, watch)["failed"]
    assert not cli.document({"crowd": crowd.Part("", [], [], {"left": []})}, {}, watch)["failed"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--parts", "rest,sleep"], "no part sleep; there are rest, crowd, exec, controllers"),
        (["--rounds", "0"], "0 is not above 0"),
    ],
)
def test_wrong_options_are_refused(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        front.main(["life", *arguments])
    assert refused.value.code == 2
    assert told in capsys.readouterr().err


def test_too_few_for_a_crowd(capsys: pytest.CaptureFixture[str]) -> None:
    assert front.main(["life", "--parts", "crowd", "--containers", "12"]) == 2
    assert capsys.readouterr().err == f"bench life: a crowd needs at least {crowd.FEWEST} containers, not 12\n"


def test_a_program_that_ends_while_it_is_looked_at_is_over(tmp_path: Path) -> None:
    child = subprocess.Popen(["/bin/sleep", "100"])
    begun = crowd.start_time(child.pid)
    child.kill()
    child.wait()
    before = time.monotonic()
    assert crowd.left_behind(str(tmp_path), [], [(child.pid, begun)]) == []
    assert time.monotonic() - before < crowd.GRACE


def test_a_command_of_the_crowd_that_fails_is_one_clear_line(
    rootfs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(crowd, "command_line", lambda: ["/bin/false"])
    few = ["--parts", "crowd", "--containers", str(crowd.FEWEST), "--crowds", "1", "--ballast-mb", "1"]
    assert front.main(["life", *few, "--rootfs", str(rootfs)]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == "bench life: minictr ps left with 1"
