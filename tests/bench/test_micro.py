"""The micro tier: its program, its arms, its tables and records, and one run of it. Never its times."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import ROOT, samples
from bench import __main__ as front
from bench.blocks import order
from bench.micro import arms, program, run, table
from bench.micro.cli import operations
from bench.samples import AGAIN, BARE
from bench.stage import StageError

FEW = ("getppid", "personality", "mmap")


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
    assert all(it.values["minimum_ns"] > 0 for it in found if not it.discarded)
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
