"""The micro tier: its program and its counter against known truths, its records, and one run of it. Never its times."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import ROOT, counting, samples
from bench import __main__ as front
from bench.blocks import order
from bench.micro import arms, closing, program, run, table
from bench.micro.cli import operations
from bench.samples import AGAIN, BARE

FEW = ("getppid", "personality", "mmap")


@pytest.fixture(scope="module")
def programs() -> Iterator[Path]:
    """Both programs, and the files that micro works on, at /data below it."""
    with tempfile.TemporaryDirectory(prefix="minictr-test-micro-", dir="/var/tmp") as path:
        program.furnish(path, program.LIGHT)
        program.compiled(path, "counter")
        os.mkdir(f"{path}/work")
        yield Path(path)


def micro(home: Path, *words: str, **options: object) -> subprocess.CompletedProcess[str]:
    places = ("--data", f"{home}/data", "--scratch", f"{home}/work")
    command = [f"{home}{program.PROGRAM}", *places, *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, **options)  # type: ignore


def test_it_knows_the_operations_of_the_table(programs: Path) -> None:
    done = subprocess.run([f"{programs}{program.PROGRAM}", "list"], capture_output=True, text=True, check=True)
    assert done.stdout.split() == list(program.OPERATIONS)


def test_each_operation_is_measured_or_refused_with_its_reason(programs: Path) -> None:
    done = micro(programs, "--bursts", "3", "--calls-percent", "10", *program.OPERATIONS)
    assert (done.returncode, done.stderr) == (0, "")
    found = program.parsed(done.stdout)
    assert list(found) == list(program.OPERATIONS)
    assert found["copyup_64m"].refused == "No such file or directory"  # it was not made for this test
    for name, figures in found.items():
        if not figures.refused:
            assert 1 <= figures.bursts <= 3 and figures.calls >= 1, name
            least, middle, high = figures.values
            assert 0 <= least <= middle <= high, name
    assert all(not found[name].refused for name in (*program.CALLS, *program.FILES, *program.MEMORY, *program.NETWORK))
    assert not os.listdir(programs / "work"), "nothing is left in the scratch directory"


def test_first_writes_have_as_many_bursts_as_files(programs: Path) -> None:
    names = [f"copyup_{size}" for size in program.LIGHT]
    found = program.parsed(micro(programs, "--bursts", "100", *names).stdout)
    assert {name: figures.bursts for name, figures in found.items()} == {
        f"copyup_{size}": program.LOWER[size][1] for size in program.LIGHT
    }
    assert (programs / "data/lower/64k/0").read_bytes() == b"L" * 65536, "one byte was written over itself"


def test_what_is_not_there_is_refused_and_the_others_go_on(programs: Path, tmp_path: Path) -> None:
    done = micro(programs, "--data", str(tmp_path), "--bursts", "2", "getppid", "stat_deep", "fault_file")
    found = program.parsed(done.stdout)
    assert not found["getppid"].refused
    assert found["stat_deep"].refused == found["fault_file"].refused == "No such file or directory"


def test_a_server_that_is_not_there_is_refused(programs: Path) -> None:
    done = micro(programs, "--bursts", "2", "--host", "127.0.0.1", "--port", "9", "tcp_rr", "tcp_stream")
    assert {figures.refused for figures in program.parsed(done.stdout).values()} == {"Connection refused"}


@pytest.mark.parametrize(
    "words", [(), ("nonsense",), ("--bursts", "x", "getppid"), ("--bursts", "0", "getppid"), ("--what", "1", "getppid")]
)
def test_bad_words_are_one_line(programs: Path, words: tuple[str, ...]) -> None:
    done = micro(programs, *words)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("micro: ") and done.stderr.count("\n") == 1


def test_landlock_layers_are_put_on_up_to_the_kernels_limit(programs: Path, requires) -> None:
    done = micro(programs, "--landlock", "2", "--bursts", "1", "open_close")
    if "Operation not supported" in done.stderr or "Function not implemented" in done.stderr:
        pytest.skip("no Landlock here")
    assert done.returncode == 0 and not program.parsed(done.stdout)["open_close"].refused
    assert "landlock: Argument list too long" in micro(programs, "--landlock", "17", "getppid").stderr


def test_what_it_prints_otherwise_is_no_result() -> None:
    for text in ("getppid", "getppid 3", "getppid 3 10 1.0 2.0", "getppid x 10 1 2 3"):
        with pytest.raises(program.ProgramError, match="printed"):
            program.parsed(text)


# --- the counter ---


def counted(home: Path, *words: str) -> tuple[int, dict[str, float]]:
    out = home / "counts"
    done = subprocess.run([f"{home}/counter", str(out), "--", *words], capture_output=True, check=False, timeout=60)
    return done.returncode, program.counted(out.read_text())


def test_the_counter_counts_what_is_known(programs: Path) -> None:
    """3 bursts of so many calls each, and what the program itself needs beside them."""
    words = ("--data", f"{programs}/data", "--scratch", f"{programs}/work", "--bursts", "3")
    names = ("getppid", "personality", "create_unlink", "write_64k", "fork_exec", "mmap", "read_4k")
    code, found = counted(programs, f"{programs}{program.PROGRAM}", *words, *names)
    assert code == 0
    assert found["judged"] == 3 * 1000
    assert 3 * 1000 <= found["other"] < 3 * 1000 + 2 * 3 * 100 + 300  # getppid; munmap, waitpid and the like
    assert found["unlink"] == 3 * 50 + 3 and found["create"] == 3 * 50 + 3  # write_64k makes a file for each burst
    assert found["exec"] == 3 * 5 + 1 and found["fork_call"] == 3 * 5
    assert 0 <= found["write_bytes"] - 3 * 50 * 65536 < 4096
    assert 3 * 500 <= found["read"] < 3 * 500 + 20 and 3 * 500 * 4096 <= found["read_bytes"] < 3 * 500 * 4096 + 9000
    assert 3 * 100 <= found["mmap"] < 3 * 100 + 20


def test_the_counter_ends_as_the_program_does(programs: Path) -> None:
    assert counted(programs, "sh", "-c", "exit 7")[0] == 7
    assert counted(programs, "sh", "-c", "kill -KILL $$")[0] == 128 + 9
    assert counted(programs, "/no/such/program")[0] == 127
    assert counted(programs, "sh", "-c", "kill -STOP $$ & kill -CONT $$; true")[0] == 0


def test_the_counter_follows_children_and_threads_of_them(programs: Path) -> None:
    code, found = counted(programs, "sh", "-c", "for i in 1 2 3; do sh -c 'cat /dev/null' & done; wait")
    assert code == 0 and found["fork_call"] >= 3 and found["exec"] >= 4


def test_operations_by_hand() -> None:
    raw = {
        "other": 10.0,
        "open": 5.0,
        "create": 2.0,
        "unlink": 2.0,
        "close": 9.0,
        "write": 7.0,
        "write_bytes": 2 * 65536.0,
        "exec": 3.0,
        "fork_call": 4.0,
        "getdents": 6.0,
        "futex": 8.0,
        "judged": 1.0,
        "minflt": 100.0,
        "majflt": 0.0,
    }
    assert counting.operations(raw, received=65536.0, sent=131072.0) == {
        "getppid": 12.0,  # 10, and two closes that no open belongs to
        "personality": 1.0,
        "open_close": 5.0,
        "create_unlink": 2.0,
        "readdir": 3.0,
        "write_64k": 2.0,
        "write_1": 5.0,
        "futex": 4.0,
        "fork_exec": 3.0,
        "fork_exit": 1.0,
        "fault_anon": 100.0,
        "tcp_stream": 1.0,
        "tcp_maerts": 2.0,
    }
    assert set(counting.operations(dict.fromkeys(raw, 1.0), 1.0, 1.0)) <= {*program.OPERATIONS, "major_fault"}


# --- arms and records ---


def test_every_arm_stands_on_one_that_is_there() -> None:
    wishes = arms.every()
    names = {(wish.lan, wish.name) for wish in wishes}
    assert len(names) == len(wishes)
    assert {(wish.lan, wish.over) for wish in wishes} <= names
    assert {wish.group for wish in wishes} == set(arms.GROUPS)


def test_an_arm_differs_from_the_one_it_stands_on_in_its_feature() -> None:
    table_of = {wish.name: wish for wish in arms.every() if not wish.lan}
    for name, features in (("seccomp-docker", {"seccomp"}), ("masks", {"masked_paths", "readonly_paths"})):
        mine, base = table_of[name].features or (), table_of[table_of[name].over].features or ()
        assert {one.name for one in mine} - {one.name for one in base} == features
        assert set(base) <= set(mine)


def test_chosen_brings_what_they_stand_on_and_the_two_bare_arms() -> None:
    found = {wish.key for wish in arms.chosen(arms.every(), ["masks"])}
    assert found == {BARE, AGAIN, "chroot", "mnt", "root", "pid", "proc", "masks"}
    assert {"lan:bare", "lan:bare-again", "lan:host", "lan:veth", "lan:bridge"} <= {
        wish.key for wish in arms.chosen(arms.every(), ["bridge"])
    }
    with pytest.raises(ValueError, match="no arm or group nonsense"):
        arms.chosen(arms.every(), ["nonsense"])


def test_layered_arms_have_as_many_layers_as_their_names_say() -> None:
    layers = {count: [f"/layer-{number}" for number in range(count - 1)] for count in arms.LAYERS}
    by_name = {wish.name: wish for wish in arms.every(layers)}
    for count in arms.LAYERS:
        wish = by_name[f"overlay-{count}"]
        (overlay,) = (one for one in wish.features if one.name == "overlay")
        assert 1 + len(overlay.lower) == count and not wish.refused


@pytest.mark.parametrize("arm", ["minictr", "docker", "lxc", "minictr-docker", "docker-volume"])
def test_a_container_is_made_of_arms_that_are_measured(arm: str) -> None:
    keys = {wish.key for wish in arms.every()}
    for lan in (False, True):
        parts = arms.parts(arm, lan=lan)
        assert parts and {part.arm for part in parts} | {part.over for part in parts} <= keys
    assert not arms.parts("nspawn", lan=False)


def record(**changes: object) -> samples.Sample:
    values = {"getppid.median_ns": 5.0, "getppid.minimum_ns": 4.0, "mmap.median_ns": 9.0}
    state = {"seccomp": 1, run.REFUSED: {"clone_net": "Operation not permitted"}}
    base = samples.Sample("r1", "micro", "root", 3, 1, 0.0, values, state, {"noisy": []}, "")
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


def test_a_sample_becomes_one_for_each_operation_and_back() -> None:
    found = list(run.split(record(), FEW))
    by_name = {it.experiment: it for it in found if isinstance(it, samples.Sample)}
    assert by_name["micro/getppid"].values == {"median_ns": 5.0, "minimum_ns": 4.0}
    assert by_name["micro/mmap"].values == {"median_ns": 9.0}
    assert by_name["micro/clone_net"].discarded == "refused: Operation not permitted"
    assert sum(bool(it.state) for it in by_name.values()) == 1, "the state is kept once"
    (one,) = run.joined(found)
    assert samples.done([one]) == {("micro", 3, "root")}


def test_a_failed_sample_stays_whole_and_is_measured_again() -> None:
    failed = record(discarded="failed: it broke", values={})
    assert list(run.split(failed, FEW)) == [failed]
    assert samples.done(run.joined([failed])) == set()


def test_an_arm_is_told_for_each_operation_and_known_again() -> None:
    arm = samples.Arm("r1", "micro/lan", "veth", "minictr", ("net",), {"seccomp": 0})
    found = list(run.split(arm, ("tcp_rr", "udp_rr")))
    assert [it.experiment for it in found] == ["micro/lan/tcp_rr", "micro/lan/udp_rr"]
    assert [it.experiment for it in run.joined(found)] == ["micro/lan"]


def test_operations_are_checked_before_anything_is_touched() -> None:
    assert operations("mmap,getppid", light=False) == ["getppid", "mmap"]
    assert "copyup_64m" not in operations("", light=True)
    with pytest.raises(ValueError, match="no operation nonsense"):
        operations("nonsense", light=False)


def test_the_table_brackets_what_may_be_zero() -> None:
    costs = {
        "root": {"getppid": dict.fromkeys(range(8), 100.0)},
        "seccomp-1": {"getppid": {block: 140.0 + block for block in range(8)}},
        "nodev": {"getppid": {block: 100.0 + (-1) ** block * 3 for block in range(8)}},
        "pid": {"getppid": dict.fromkeys(range(2), 150.0)},
    }
    assert table.cell(table.added(costs, "seccomp-1", "root", "getppid")) == "+44"
    assert table.cell(table.added(costs, "nodev", "root", "getppid")) == "(+0.0)"
    assert table.cell(table.added(costs, "pid", "root", "getppid")) == "(+50)", "two blocks are too few"
    assert table.cell(table.added(costs, "ipc", "root", "getppid")) == "-"


# --- closure from files ---

NETS = {"bare": 20.0, "host": 20.0, "veth": 24.0, "bridge": 25.0, "publish": 27.0, "conntrack": 28.0, "nat": 30.0}


def micro_records(blocks: int = 8) -> Iterator[samples.Record]:
    """getppid +40 by the filter, open_close +1,500 by the layer, tcp_rr as in NETS (us) by rung; docker has it all."""
    base = {"getppid": 100.0, "open_close": 1000.0}
    inside = {wish.name: dict(base) for wish in arms.every() if not wish.lan}
    inside["seccomp-docker"]["getppid"] += 40
    inside["overlay-1"]["open_close"] += 1500
    inside["docker"] = {"getppid": 140.0, "open_close": 2500.0}
    far = {**{name: {"tcp_rr": 1000 * value} for name, value in NETS.items()}, "docker": {"tcp_rr": 30_000.0}}
    far["bridge_netfilter"] = far["bridge"]
    for block in range(blocks):
        for prefix, arms_of in (("micro", inside), ("micro/lan", far)):
            for arm, costs in arms_of.items():
                for name, cost in costs.items():
                    values = {"median_ns": cost + block}
                    yield samples.Sample("m", f"{prefix}/{name}", arm, block, 0, 0.0, values)
        yield samples.Sample("m", "micro/tcp_rr", "seccomp-docker", block, 0, 0.0, {"median_ns": 1e9})


def timed(loss: float, blocks: int = 8) -> Iterator[samples.Record]:
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
    value = {line.name: line.seconds.estimate for line in found.lines}
    assert value["seccomp-docker"] == pytest.approx(0.08)  # not the network on its own loopback
    assert value["overlay-1"] == pytest.approx(0.3)
    assert [value[rung] for rung in ("veth", "bridge", "publish", "conntrack", "nat")] == pytest.approx(
        [0.08, 0.02, 0.04, 0.02, 0.04]
    )
    assert value["all at once"] == pytest.approx(0.58) and value["interaction"] == pytest.approx(0.0, abs=1e-9)
    assert found.verdict == "closed"


def test_a_loss_beyond_the_counts_stays_unexplained() -> None:
    ((_, _, found),) = closing.closures([*micro_records(), *timed(0.98), *counts()])
    assert not isinstance(found, str)
    assert found.verdict == "open"
    assert found.line("unexplained").seconds.estimate == pytest.approx(0.4, abs=0.01)


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
    assert found.verdict == "unresolved" and "two identical arms differ" in found.why


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


# --- one run ---


def bench(*words: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: what minictr keeps for its next start is kept there."""
    command = [sys.executable, "-m", "bench", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=110)


@pytest.mark.slow
def test_a_run_in_bare_and_minictr_and_going_on_with_it(tmp_path: Path, requires) -> None:
    requires.root()
    path = str(tmp_path / "m.jsonl")
    words = ["--arms", "seccomp-1,veth", "--operations", "getppid,clone_net,tcp_rr", "--bursts", "2", "--blocks", "1"]
    done = bench("micro", *words, "--rest", "0", "--seed", "3", "--out", path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^seccomp-1 +root +\(", done.stdout, re.M) and re.search(r"^veth +host +\(", done.stdout, re.M)
    records = list(samples.read(path))
    found = [it for it in records if isinstance(it, samples.Sample)]
    inside = {it.arm for it in found if it.experiment == "micro/getppid"}
    assert inside == {BARE, AGAIN, "chroot", "mnt", "root", "seccomp-1"}
    assert {it.arm for it in found if it.experiment == "micro/lan/tcp_rr"} == {BARE, AGAIN, "host", "veth"}
    states = {it.arm: it.state for it in found if it.state and not it.experiment.startswith("micro/lan")}
    assert (states["root"]["seccomp"], states["seccomp-1"]["seccomp"]) == (0, 1), "read back from the kernel"
    positions = {it.arm: it.position for it in found if it.experiment == "micro/getppid"}
    assert sorted(positions, key=positions.__getitem__) == order(list(inside), 3, "micro", 0)
    assert all(it.values["median_ns"] > 0 for it in found if not it.discarded)
    done = bench("micro", "--resume", path, "--rest", "0")
    assert done.returncode == 0, done.stderr
    assert [it for it in samples.read(path) if isinstance(it, samples.Sample)] == found, "nothing is measured twice"


@pytest.mark.parametrize("words", [["--arms", "nonsense"], ["--operations", "nonsense"], ["--resume", "/none.jsonl"]])
def test_mistakes_are_one_line_and_nothing_is_made(words: list[str], tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert front.main(["micro", *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not list(tmp_path.iterdir())
