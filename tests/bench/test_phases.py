"""Containers that stay: phases, many at once, many alive. What is left is asked of the kernel; never their times."""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import __main__ as front
from bench.host import own_cgroups
from bench.lifecycle import alive, atonce, cli, phases, residents, run, sign
from bench.lifecycle.lab import Lab, LabError
from bench.lifecycle.run import Record
from bench.lifecycle.verbs import REMOVE, START, STOP, VERBS
from bench.lifecycle.worker import ArmFailed, Worker

ROOT = str(Path(front.__file__).parent.parent)
LOCK = "/tmp/dockerd.lock"  # one daemon at a time on this machine, whoever tests
ALL = set(VERBS)
# what each has no verb for is not imitated
HAVE = {
    "minictr-lib": ALL,
    "minictr-cli": ALL,
    "bwrap": {START, REMOVE},
    "crun": ALL,
    "lxc-execute": ALL,
    "lxc-unprivileged": ALL,
    "runc": ALL,
    "nspawn": {START, STOP, REMOVE},
}


@pytest.fixture(autouse=True)
def _root(requires) -> None:
    requires.root()
    requires("cc")


@pytest.fixture
def lab(rootfs: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    monkeypatch.setenv("MINICTR_BENCH_SCRATCH", "/var/tmp")
    with Lab(str(rootfs), ballast=1, compiled=False) as it:
        yield it
        kept = (it.directory, it._scratch)
    assert not [path for path in kept if path and os.path.exists(path)]


def quiet(text: str) -> None:
    del text


def ours() -> list[str]:
    """Control groups of this process's containers: none is left after a test."""
    mark = f"minictr-bench-{os.getpid()}"
    return [one.path for top in own_cgroups() for one in os.scandir(top) if one.name.startswith(mark)]


def missing(name: str, lab: Lab) -> str:
    """Why the resident NAME cannot be had."""
    return residents.RESIDENTS[name](lab, None).available()  # type: ignore[arg-type]


def lives(lab: Lab, *names: str, rounds: int = 1) -> phases.Lives:
    found = phases.measure(lab, names, rounds=rounds, warmup=0, seed=1, pause=0.0, tell=quiet)
    assert ours() == []
    return found


# --- the program that tells ---


def test_the_program_tells_of_its_first_instruction_and_of_its_end(lab: Lab) -> None:
    with sign.raised(lab) as listening:
        since, before = sign.ticks(), time.monotonic_ns()
        words = [f"{listening.directory}/sign", f"{listening.directory}/socket"]
        with subprocess.Popen(words) as process:
            living = listening.living(30.0, since)
            assert before < living.first < time.monotonic_ns()
            assert living.pid == process.pid
            assert [pid for pid, _ in living.processes] == [process.pid]  # we are older than it
            assert living.groups == ()  # it is in ours
            assert sign.alive(*living.processes[0])
            assert not living.gone(0.05)
            process.send_signal(signal.SIGTERM)
            assert living.gone(30.0)
            assert process.wait(30) == 0
            assert not sign.alive(*living.processes[0])
            living.stream.close()


def test_a_program_that_never_begins_is_told(lab: Lab) -> None:
    with sign.raised(lab) as listening, pytest.raises(ArmFailed, match=r"did not begin within 0\.05 s"):
        listening.living(0.05, 0)


def test_a_root_that_was_given_is_not_written_to(rootfs: Path, lab: Lab) -> None:
    before = sorted(os.listdir(rootfs))
    with sign.raised(lab):
        assert lab.rootfs != str(rootfs)
        assert os.path.isdir(lab.rootfs + sign.INSIDE)
    assert sorted(os.listdir(rootfs)) == before


# --- phases ---


@pytest.mark.parametrize("name", list(HAVE))
def test_every_verb_that_there_is_is_a_phase(name: str, lab: Lab) -> None:
    if why_not := missing(name, lab):
        pytest.skip(why_not)
    found = lives(lab, name)
    record = found.records[name]
    assert record.failed == record.unavailable == ""
    assert set(record.parts) == HAVE[name]
    assert all(len(values) == 1 and values[0] > 0 for values in record.parts.values())
    assert record.nanoseconds == [sum(values[0] for values in record.parts.values())]


def test_a_stop_is_graceful(lab: Lab) -> None:
    """The program ends at SIGTERM, by itself and with 0: the start command of one that is attached says so."""
    with sign.raised(lab) as listening, residents.RESIDENTS["bwrap"](lab, listening) as it:
        if it.available():
            pytest.skip(it.available())
        it.workers[START].ask()
        living = listening.living(30.0, sign.ticks() - 100)
        it.terminate(living.pid)
        assert it.workers[START].answer().nanoseconds > 0  # ArmFailed for any other exit code
        living.stream.close()


def test_one_that_is_left_behind_is_no_teardown(lab: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    left = tmp_path / "left"
    left.mkdir()
    monkeypatch.setattr(residents.OfLibrary, "state", lambda self: [str(left)])
    monkeypatch.setattr(phases, "TIMEOUT", 1.0)
    found = phases.measure(lab, ["minictr-lib"], rounds=1, warmup=0, seed=1, pause=0.0, tell=quiet)
    assert found.records["minictr-lib"].failed == f"in round 1: 1 s after its removal there is still {left}"


def test_one_that_fails_leaves_and_the_others_go_on(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(residents.OfLibrary):
        NAME = "broken"

        def worker(self, command, log: str) -> Worker:
            script = 'while read -r -N1 -u "$1"; do echo "error out of luck" >&"$2"; done'
            return Worker(lambda request, reply: ["/bin/bash", "-c", script, "x", str(request), str(reply)], log=log)

    monkeypatch.setitem(residents.RESIDENTS, "broken", Broken)
    found = lives(lab, "minictr-lib", "broken", rounds=2)
    assert found.records["broken"].failed == "in round 1: out of luck"
    assert len(found.records["minictr-lib"].nanoseconds) == 2
    assert [len(order) for order in found.orders] == [2, 1]


def test_the_table_tells_medians_and_missing_verbs() -> None:
    two = Record(
        "two", "", nanoseconds=[3_000_000] * 3, parts={START: [1_000_000, 2_000_000, 3_000_000], STOP: [5_000_000] * 3}
    )
    none = Record("none", "", unavailable="none is not installed")
    text = phases.table(phases.Lives({"two": two, "none": none}, []), 3, 7)
    line = next(line for line in text.splitlines() if line.startswith("two"))
    assert line.split()[1:6] == ["2.00", "(1.50", "to", "2.50)", "no"]
    assert "5.00 (5.00 to 5.00)" in line
    assert "none is not installed" in text


def test_phases_of_nothing_are_refused() -> None:
    assert phases.chosen(["floor", "minictr-lib", "runc"]) == ["minictr-lib", "minictr-lib-again", "runc"]
    with pytest.raises(LabError, match="none of floor, floor-again has phases"):
        phases.chosen(["floor", "floor-again"])


# --- environments as arms ---


@pytest.mark.parametrize("name", ["nspawn", "lxc-unprivileged"])
def test_an_environment_is_an_arm(name: str, lab: Lab) -> None:
    arm = run.ARMS[name](lab)
    if arm.available():
        pytest.skip(arm.available())
    before = sorted(os.listdir(lab.rootfs))
    record = Record(name, "")
    with run.prepared(arm, record) as usable:
        assert usable, record.failed
        assert not record.unproven
        own = [text for text in record.differences if "namespace is the host's" in text]
        assert own == []
        mapped = "a user namespace of its own as well" in record.differences
        assert mapped == (name == "lxc-unprivileged")
        assert arm.start().nanoseconds > 0
    assert sorted(os.listdir(lab.rootfs)) == before
    assert ours() == []


def test_what_is_not_installed_is_told(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    for name in ("docker", "podman", "nspawn", "lxc-unprivileged"):
        assert "not installed" in run.ARMS[name](lab).available()


@pytest.mark.bench
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["docker", "podman"])
def test_a_daemon_of_our_own_and_a_storage_of_our_own(name: str, lab: Lab) -> None:
    """Start to exit, all four phases, and (docker) several at once; nothing is left, the daemon neither."""
    with open(LOCK, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if why_not := run.ARMS[name](lab).available():
            pytest.skip(why_not)
        arm, record = run.ARMS[name](lab), Record(name, "")
        with run.prepared(arm, record) as usable:
            assert usable, record.failed
            assert "CapEff is" in " ".join(record.differences)
            assert arm.start().nanoseconds > 0
        of = lives(lab, name).records[name]
        assert of.failed == ""
        assert set(of.parts) == ALL
        if name == "docker":
            (crew,), _ = atonce.measure(lab, ["docker"], rounds=1, seed=1, pause=0.0, tell=quiet)
            assert crew.failed == ""
            assert all(len(burst.nanoseconds) == 1 for burst in crew.bursts.values())
    mark = lab.scratch().encode()
    running = [pid for pid in filter(str.isdecimal, os.listdir("/proc")) if mark in cmdline(pid)]
    assert running == []


def cmdline(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


# --- at once ---


def test_all_callers_begin_together(tmp_path: Path) -> None:
    """Each of three waits for a second to be asked as well: one after another none of them would come back."""
    fifo = tmp_path / "gate"
    fifo.mkdir()
    script = (
        'n=0; while read -r -N1 -u "$1"; do n=$((n+1)); : >"$3/$4-$n"; '
        'until [ "$(ls "$3" | grep -c -- "-$n\\$")" = 3 ]; do sleep 0.01; done; echo "ok $4 0" >&"$2"; done'
    )
    workers = []
    for number in (1, 2, 3):
        workers.append(
            Worker(
                lambda request, reply, number=number: [
                    *("/bin/bash", "-c", script, "caller", str(request), str(reply), str(fifo), str(number)),
                ],
                log=str(tmp_path / f"log-{number}"),
            )
        )
    try:
        took, whole = atonce.burst(workers, 2)
    finally:
        for worker in workers:
            worker.close()
    assert sorted(took) == [1, 1, 2, 2, 3, 3]
    assert whole > 0
    assert len(os.listdir(fifo)) == 6


def test_starts_at_once_by_every_number_of_callers(lab: Lab) -> None:
    names = [name for name in ("minictr-lib", "crun", "runc", "lxc-execute") if not atonce.ARMS[name](lab).available()]
    crews, orders = atonce.measure(lab, names, rounds=1, seed=1, pause=0.0, tell=quiet)
    for crew in crews:
        assert crew.failed == ""
        assert sorted(crew.bursts) == list(atonce.CALLERS)
        assert all(found.per_second[0] > 0 and found.nanoseconds[0] > 0 for found in crew.bursts.values())
    assert sorted(orders[0]) == sorted((name, callers) for name in names for callers in atonce.CALLERS)
    assert ours() == []


# --- alive ---


def test_a_crowd_lives_and_goes(lab: Lab) -> None:
    names = [name for name in alive.DEFAULT if not missing(name, lab)]
    found, _ = alive.measure(lab, names, alive.FEWEST, rounds=1, seed=1, tell=quiet)
    for it in found.values():
        assert it.failed == ""
        (crowd,) = it.crowds
        assert len(crowd.nanoseconds) == alive.FEWEST
        assert min(crowd.nanoseconds) > 0
        assert crowd.private_kib > 0
        assert crowd.removed_ns > 0
    assert ours() == []
    assert list(alive.middles(found[names[0]], alive.FEWEST)) == [1, 10, alive.FEWEST]


def test_one_that_ends_early_is_no_crowd(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is told of so many alive is true of so many alive."""
    real, seen = sign.Sign.living, []

    def dying(self: sign.Sign, timeout: float, since: int) -> sign.Living:
        living = real(self, timeout, since)
        seen.append(living.pid)
        if len(seen) == 2:
            os.kill(living.pid, signal.SIGTERM)
            assert living.gone(30.0)
        return living

    monkeypatch.setattr(sign.Sign, "living", dying)
    found, _ = alive.measure(lab, ["minictr-lib"], 3, rounds=1, seed=1, tell=quiet)
    assert found["minictr-lib"].failed == "in crowd 1: 1 of 3 ended while the others were started"
    assert ours() == []


# --- the command ---


def bench(*arguments: str, rootfs: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench", "lifecycle", "--rootfs", str(rootfs), "--ballast-mb", "1", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=200)


@pytest.mark.parametrize(
    ("words", "kind", "experiments"),
    [
        (("--phases",), "phases", {"lifecycle/life", *(f"lifecycle/life/{verb}" for verb in VERBS)}),
        (("--at-once",), "at-once", {f"lifecycle/at-once/{callers}" for callers in atonce.CALLERS}),
        (("--alive", "20"), "alive", {"lifecycle/alive/1", "lifecycle/alive/20", "lifecycle/remove"}),
    ],
)
def test_the_command_writes_records(
    words: tuple[str, ...], kind: str, experiments: set[str], rootfs: Path, tmp_path: Path
) -> None:
    path = tmp_path / "records.jsonl"
    arguments = (*words, "--rounds", "1", "--warmup", "0", "--arms", "minictr-lib", "--records", str(path))
    done = bench(*arguments, "--format", "json", rootfs=rootfs)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["kind"] == kind
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert experiments <= {line["experiment"] for line in lines if line["kind"] == "sample"}
    assert lines[-1]["kind"] == "end"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--pause-ms", "-2"], "-2 is not between 0 and 60000 ms"),
        (["--pause-ms", "nan"], "nan is not between"),
        (["--pause-ms", "soon"], "'soon' is no number of milliseconds"),
        (["--rounds", "1.5"], "'1.5' is no whole number"),
        (["--seed", "-1"], "-1 is below 0"),
        (["--ballast-mb", "99999999"], "99999999 is not between 0 and 16384"),
    ],
)
@pytest.mark.parametrize("verb", ["lifecycle", "life"])
def test_nonsense_is_one_clear_line(verb: str, words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        front.main([verb, *words])
    assert refused.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"python -m bench {verb}: error: argument {words[0]}: {told}")


def test_a_crowd_has_a_least_and_a_most() -> None:
    parser = argparse.ArgumentParser()
    cli.add_arguments(parser)
    assert parser.parse_args(["--alive", "1000"]).alive == 1000
    assert parser.parse_args(["--alive", "20"]).arms is None  # then the two that crowds are made of
    for wrong in ("0", "19", "4001", "-5", "many"):
        with pytest.raises(SystemExit):
            parser.parse_args(["--alive", wrong])


def test_a_worker_is_none_of_the_processes_that_must_go() -> None:
    """Though it is no older than they are, by the clock's ticks."""
    with subprocess.Popen(["sh", "-c", "sleep 100 & echo $!; wait"], stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        child = int(worker.stdout.readline())
        assert [pid for pid, _ in sign.its_processes(child, 0)] == [child]
        os.kill(child, signal.SIGKILL)
