"""The micro tier: its program and its counter against known truths, its records, and one run of it. Never its times."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import ROOT, counting, results, samples
from bench import __main__ as front
from bench.blocks import order
from bench.micro import arms, closing, program, run, table
from bench.micro.cli import operations
from bench.report import closing as page_closing
from bench.report.table import Table
from bench.samples import AGAIN, BARE
from bench.stage import StageError
from tests.bench.known import FACTS, QUIET

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
    names = ("getppid", "personality", "create_unlink", "append_64k", "fork_exec", "mmap", "read_4k", "pipe", "socket")
    code, found = counted(programs, f"{programs}{program.PROGRAM}", *words, *names)
    assert code == 0
    assert found["judged"] == 3 * 1000
    assert 3 * 1000 <= found["other"] < 3 * 1000 + 300  # getppid
    assert 3 * 100 <= found["munmap"] < 3 * 100 + 20 and found["wait"] >= 3 * 5
    assert found["unlink"] == 3 * 50 + 3 and found["create"] == 3 * 50 + 3  # append_64k makes a file for each burst
    assert found["exec"] == 3 * 5 + 1 and 3 * 5 + 1 <= found["fork_call"] <= 3 * 5 + 2  # pipe has a partner
    assert found["write_file_8"] == 3 * 20 and found["write_file_8_bytes"] == 3 * 20 * 65536
    assert 3 * 500 <= found["read_file_6"] < 3 * 500 + 20
    assert 0 <= found["read_file_6_bytes"] - 3 * 500 * 4096 < 9000
    for way in ("read", "write"):
        assert 2 * 3 * 100 - 2 <= found[f"{way}_pipe_0"] <= 2 * 3 * 100 and found[f"{way}_local_0"] == 3 * 200
    assert not any(name.startswith(("read_inet", "write_inet")) for name in found)
    assert 3 * 100 <= found["mmap"] < 3 * 100 + 20


def test_the_counter_tells_sockets_of_the_internet_and_their_turns(programs: Path) -> None:
    """A byte there and back, so often, over TCP and UDP; each half is one process that is followed."""
    words = ("--data", f"{programs}/data", "--scratch", f"{programs}/work", "--bursts", "2", "tcp_rr", "tcp_crr")
    code, found = counted(programs, f"{programs}{program.PROGRAM}", *words)
    assert code == 0
    there = 2 * (100 + 1) + 2 * (20 + 1)  # and one in front of each burst
    assert found["accept"] == 2 + 2 * 21
    assert there <= found["turns"] <= 2 * there  # the server's; the client sends its kind first, and turns as often
    assert found["write_inet_0"] == 2 * there + 2 + 2 * 21, "each half's byte, and one for each connection"
    assert abs(found["read_inet_0"] - found["write_inet_0"]) <= 2
    assert not any(name.startswith("write_file") for name in found), "nothing of it is a file's"


def test_what_openssl_and_dd_wrote_is_counted_by_size(programs: Path, requires) -> None:
    """openssl writes 4 KiB at a time, whatever is said of it; dd what it is told."""
    requires("openssl", "dd")
    size = 1 << 20
    (programs / "input").write_bytes(os.urandom(size))
    words = ("-pbkdf2", "-S", "6d696e69637472ff", "-pass", "pass:x", "-in", f"{programs}/input")
    code, found = counted(programs, "openssl", "enc", "-aes-256-cbc", *words, "-out", f"{programs}/output")
    assert code == 0
    written = {name: times for name, times in found.items() if re.fullmatch(r"write_file_\d+", name)}
    assert sum(found[f"{name}_bytes"] for name in written) == os.path.getsize(programs / "output")
    assert written["write_file_6"] >= size / 4096 and found["write_file_6_bytes"] >= size
    made = counting.operations(found)
    assert made["append_4k"] == pytest.approx(size / 4096, abs=2) and made["append_1"] < 3
    code, found = counted(programs, "dd", f"if={programs}/input", f"of={programs}/output", "bs=128K", "status=none")
    assert (code, found["write_file_9"], found["write_file_9_bytes"]) == (0, size / 131072, size)
    assert counting.operations(found)["append_64k"] == size / 65536
    code, found = counted(programs, "dd", f"if={programs}/input", f"of={programs}/output", "bs=1", "count=99")
    assert found["write_file_0"] == found["write_file_0_bytes"] == 99
    assert counting.operations(found)["append_1"] == pytest.approx(99, abs=1)


def test_a_pipe_is_no_file(programs: Path) -> None:
    code, found = counted(
        programs, "sh", "-c", f"dd if=/dev/zero bs=64K count=16 2>{programs}/said | wc -c >{programs}/said2"
    )
    assert code == 0 and found["write_pipe_8"] == 16 and found["write_pipe_8_bytes"] == 1 << 20
    assert "write_file_8" not in found
    made = counting.operations(found)
    assert made["pipe"] >= 16 / 4 and made.get("append_64k", 0.0) == 0.0


def test_the_counter_ends_as_the_program_does(programs: Path) -> None:
    assert counted(programs, "sh", "-c", "exit 7")[0] == 7
    assert counted(programs, "sh", "-c", "kill -KILL $$")[0] == 128 + 9
    assert counted(programs, "/no/such/program")[0] == 127
    assert counted(programs, "sh", "-c", "kill -STOP $$ & kill -CONT $$; true")[0] == 0


def test_the_counter_follows_children_and_threads_of_them(programs: Path) -> None:
    code, found = counted(programs, "sh", "-c", "for i in 1 2 3; do sh -c 'cat /dev/null' & done; wait")
    assert code == 0 and found["fork_call"] >= 3 and found["exec"] >= 4


def test_one_process_of_so_many_stands_for_the_others(programs: Path) -> None:
    """200 children that read 8 KiB each, one in 4 of them traced: forks are exact, reads are near."""
    (programs / "bytes").write_bytes(b"x" * 8192)
    script = f"i=0; while [ $i -lt 200 ]; do head -c 8192 {programs}/bytes >/dev/null; i=$((i+1)); done"
    out = programs / "counts"
    command = [f"{programs}/counter", "--one-in", "4", str(out), "--", "sh", "-c", script]
    assert subprocess.run(command, check=False, timeout=60).returncode == 0
    found = program.counted(out.read_text())
    assert (found["fork_call"], found["exec"]) == (200, 201)
    assert found["read_file_7"] % 4 == 0 and 100 <= found["read_file_7"] <= 320
    assert found["wait"] >= 200, "the first process is traced always, and counts once"
    bad = subprocess.run([*command[:2], "0", *command[3:]], check=False, capture_output=True, timeout=60)
    assert bad.returncode == 125 and bad.stderr.startswith(b"usage: counter")


def test_closure_says_that_a_part_was_counted(tmp_path: Path, capsys) -> None:
    path = tmp_path / "r.jsonl"
    arguments = {"one_in": {"workload/serve/small": 8}}
    told = samples.Run("c", "count", "one", 0, 0.0, arguments, FACTS)
    path.write_text("".join(map(samples.to_line, [told, *micro_records(), *timed(0.58), *counts()])))
    assert front.main(["closure", str(path)]) == 0
    assert "counted at one process of 8, drawn at random" in capsys.readouterr().out


def test_operations_by_hand() -> None:
    raw = {
        "other": 10.0,
        "idle": 3.0,
        "open": 8.0,
        "create": 2.0,
        "unlink": 2.0,
        "close": 12.0,
        "munmap": 3.0,
        "mmap": 2.0,
        "exec": 3.0,
        "fork_call": 4.0,
        "wait": 5.0,
        "getdents": 6.0,
        "futex": 8.0,
        "judged": 1.0,
        "socket": 1.0,
        "accept": 2.0,
        "turns": 7.0,
        "write_file_6": 4.0,
        "write_file_6_bytes": 4 * 4096.0,
        "write_file_9": 1.0,
        "write_file_9_bytes": 2 * 65536.0,
        "write_pipe_3": 6.0,
        "write_pipe_3_bytes": 300.0,
        "read_pipe_3": 6.0,
        "read_local_0": 5.0,
        "write_inet_8": 11.0,
        "write_else_2": 1.0,
        "minflt": 100.0,
        "majflt": 0.0,
    }
    assert counting.operations(raw, received=65536.0, sent=131072.0) == {
        "getppid": 10.0 + 3.0 + 2.0 + 1.0 + 2.0 + 1.0 + 1.0,  # idle, accept, else; a close, a munmap, a wait too many
        "personality": 2.0,
        "open_close": 5.0,  # three are of directories
        "create_unlink": 2.0,
        "readdir": 3.0,
        "append_4k": 4.0,
        "append_64k": 2.0,
        "pipe": 3.0,
        "socket": 8.0,
        "mmap": 2.0,
        "futex": 2.0,
        "fork_exec": 3.0,
        "fork_exit": 1.0,
        "fault_anon": 100.0,
        "tcp_crr": 2.0,
        "tcp_rr": 7.0,
        "tcp_stream": 1.0,
        "tcp_maerts": 2.0,
    }
    assert not {"tcp_rr", "tcp_crr"} & counting.operations(raw).keys(), "nothing went over the cable"
    assert set(counting.operations(dict.fromkeys(raw, 1.0), 1.0, 1.0)) <= {*counting.PRICED, "major_fault"}


@pytest.mark.parametrize("size", [1, 17, 4095, 4096, 8192, 60_000, 65536, 300_000])
def test_sizes_keep_calls_and_bytes(size: int) -> None:
    place = next(place for place in range(counting.CLASSES) if size <= 4**place)
    raw = {f"read_file_{place}": 10.0, f"read_file_{place}_bytes": 10.0 * size}
    found = counting.sized(raw, "read", program.READS)
    assert all(times >= 0 for times in found.values())
    moved = sum(times * of for times, of in zip(found.values(), counting.SIZES))
    assert moved == pytest.approx(10 * size)
    assert sum(found.values()) == pytest.approx(max(10.0, 10 * size / 65536))


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


def test_too_many_layers_are_refused_by_the_library_in_its_words() -> None:
    layers = {count: [f"/layer-{number}" for number in range(count - 1)] for count in arms.LAYERS}
    by_name = {wish.name: wish for wish in arms.every(layers)}
    assert "at most 12 go below the root" in by_name["overlay-32"].refused
    assert not by_name["overlay-13"].refused


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


def known_costs() -> dict[str, dict[str, dict[int, float]]]:
    """In "root" 100 ns; a filter's 40 more, a mount that adds nothing surely, one that nobody can tell, two blocks."""
    wobble = {block: (-1) ** block for block in range(8)}
    return {
        BARE: {"getppid": {block: 100.0 + wobble[block] for block in range(8)}},
        AGAIN: {"getppid": {block: 100.0 - wobble[block] for block in range(8)}},
        "root": {"getppid": dict.fromkeys(range(8), 100.0)},
        "seccomp-1": {"getppid": {block: 140.0 + block for block in range(8)}},
        "nodev": {"getppid": {block: 100.0 + wobble[block] * 3 for block in range(8)}},
        "ipc": {"getppid": {block: 100.0 + wobble[block] * 0.01 for block in range(8)}},
        "pid": {"getppid": dict.fromkeys(range(2), 150.0)},
    }


def cells(costs: dict, *gates: str) -> dict[str, str]:
    found = table.column(costs, [wish for wish in arms.every() if not wish.lan], "getppid", "", gates)
    return {name: str(cell) for name, cell in found.items()}


def test_the_table_brackets_what_is_not_resolved() -> None:
    found = cells(known_costs())
    assert found["seccomp-1"] == "+44"
    assert found["nodev"] == "(+0.0)"
    assert found["ipc"] == "no cost", "within 0.5 % of bare, by the equivalence test"
    assert found["pid"] == "(+50)", "two blocks are too few"
    assert "uts" not in found


def test_the_tables_gates() -> None:
    shut = cells(known_costs(), "the machine was busy")
    assert len(shut) == 5 and all(value.startswith("(") for value in shut.values()), "nothing is found"
    apart = known_costs()
    apart[AGAIN] = {"getppid": {block: 109.0 + block % 3 for block in range(8)}}
    assert cells(apart)["seccomp-1"] == "(+44)", "bare differs from itself"
    told = "\n".join(table.lines(apart, [wish for wish in arms.every() if not wish.lan]))
    assert "getppid: bare differs from itself" in told
    alone = known_costs()
    del alone[AGAIN]
    assert cells(alone)["seccomp-1"] == "(+44)", "no A/A check"
    assert "all unresolved: busy" in table.lines(known_costs(), arms.every(), ["busy"])


# --- closure from files ---

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
                    values = {"median_ns": cost + block}
                    yield samples.Sample("m", f"{prefix}/{name}", arm, block, 0, 0.0, values)
        yield samples.Sample("m", "micro/tcp_rr", "seccomp-docker", block, 0, 0.0, {"median_ns": 1e9})


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
    assert not isinstance(found, str) and "busy in 8 of 8 blocks" in found.why
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


@pytest.mark.parametrize("words", [["--bursts", "1001"], ["--minutes", "-1"], ["--rest", "-1"], ["--rest", "nan"]])
def test_a_number_out_of_range_is_refused_before_the_start(words: list[str], capsys) -> None:
    with pytest.raises(SystemExit) as left:
        front.main(["micro", *words])
    assert left.value.code == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert "error: " in said[-1] and words[0] in said[-1] and "Traceback" not in "".join(said)


def test_the_most_bursts_are_those_of_the_program(programs: Path) -> None:
    assert micro(programs, "--bursts", str(program.MOST_BURSTS), "getppid").returncode == 0
    assert micro(programs, "--bursts", str(program.MOST_BURSTS + 1), "getppid").returncode == 2


@contextlib.contextmanager
def small_disk(where: Path) -> Iterator[str]:
    """Of 6 MiB, which the root and its files do not fit in."""
    image = where / "image"
    with image.open("wb") as file:
        file.truncate(6 << 20)
    (where / "disk").mkdir()
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), f"{where}/disk"], check=True)
    try:
        yield f"{where}/disk"
    finally:
        subprocess.run(["umount", f"{where}/disk"], check=True)


def test_a_full_disk_is_one_line(tmp_path: Path, requires) -> None:
    requires.root()
    requires("mkfs.ext4")
    with small_disk(tmp_path) as disk:
        done = bench(
            "micro", "--arms", "chroot", "--operations", "getppid", "--scratch", disk, "--out", f"{tmp_path}/m.jsonl"
        )
        assert os.listdir(disk) == ["lost+found"], "what there was is removed"
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert last.startswith("bench micro: ") and "No space left on device" in last
    assert not (tmp_path / "m.jsonl").exists()


def test_layers_that_cannot_be_made_are_a_line(tmp_path: Path, monkeypatch) -> None:
    stage = run.MicroStage.__new__(run.MicroStage)
    stage.directory = str(tmp_path)
    (tmp_path / "layer-0").write_text("no directory")
    with pytest.raises(StageError, match=r"cannot make layers in .*: Not a directory; --scratch"):
        stage.layers()


@pytest.mark.parametrize("words", [["--arms", "nonsense"], ["--operations", "nonsense"], ["--resume", "/none.jsonl"]])
def test_mistakes_are_one_line_and_nothing_is_made(words: list[str], tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert front.main(["micro", *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not list(tmp_path.iterdir())
