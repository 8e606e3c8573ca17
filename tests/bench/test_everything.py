"""``python -m bench all``: each part leaves its file, what is whole is not measured again, what breaks is told."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from bench import __main__ as front
from bench import counting, everything, samples
from bench.everything import Part
from bench.micro import arms
from bench.workloads import catalogue

ROOT = Path(front.__file__).parent.parent
ENCRYPT = ("run", "--workloads", "encrypt", "--environments", "bare", "--size", "tiny", "--own-programs")
TINY = Part("tiny", (*ENCRYPT, "--rest", "0.02", "--blocks", "2"), 1.0)


@pytest.fixture(autouse=True)
def _here(requires, monkeypatch: pytest.MonkeyPatch) -> None:
    requires.root()
    requires("cc", "make", "xz", "openssl")
    monkeypatch.chdir(ROOT)


def kinds(path: Path) -> list[str]:
    return [record.KIND for record in samples.read(str(path))]


def test_what_is_whole_is_not_measured_again_and_what_broke_is_told(tmp_path: Path, capfd) -> None:
    broken = Part("broken", ("run", "--workloads", "nothing"), 1.0)
    failed = everything.everything((broken, TINY), str(tmp_path), 1.0)
    assert failed == ["broken: left with 2: see above"]
    assert "no workload nothing" in capfd.readouterr().err
    path = tmp_path / "tiny.jsonl"
    assert kinds(path)[-1] == "end"
    before = path.read_bytes()
    assert everything.everything((TINY,), str(tmp_path), 1.0) == []
    assert path.read_bytes() == before
    assert "== tiny" not in capfd.readouterr().out


def test_an_interrupted_part_is_gone_on_with(tmp_path: Path) -> None:
    assert everything.everything((TINY,), str(tmp_path), 1.0) == []
    path = tmp_path / "tiny.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    counted = [line for line in lines if '"kind":"sample"' in line]
    cut = lines[: lines.index(counted[2]) + 1]  # the first sample of three, and half of the second
    path.write_text("".join(cut) + counted[3][:20])
    assert everything.ended(str(path)) is False
    assert everything.everything((TINY,), str(tmp_path), 1.0) == []
    assert kinds(path).count("run") == 1
    assert kinds(path).count("sample") == len(counted)
    assert everything.ended(str(path)) is True


def test_a_file_that_is_no_results_file_is_told_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "tiny.jsonl"
    path.write_text("my notes\n")
    (line,) = everything.everything((TINY,), str(tmp_path), 1.0)
    assert "not a record of the bench" in line
    assert path.read_text() == "my notes\n"


def test_what_one_part_took_too_long_the_others_lack() -> None:
    one, two, three = Part("one", (), 0.3), Part("two", (), needs=2.0), Part("three", (), 0.1)
    assert everything.allotted((one, two, three), 10.0) == pytest.approx(6.0)
    assert everything.allotted((two, three), 4.0) == everything.SHORTEST
    assert everything.allotted((three,), 1.5) == pytest.approx(1.5)
    assert everything.allotted((three,), -1.0) == everything.SHORTEST


def test_every_part_is_a_command_that_its_verb_takes() -> None:
    for part in everything.parts("small"):
        words = everything.command(part, "x.jsonl", 2.0, resume=False)[3:]
        parser = argparse.ArgumentParser()
        verb = __import__("importlib").import_module(front.VERBS[words[0]])
        verb.add_arguments(parser)
        parser.parse_args(words[1:])
        if part.timed:
            parser.parse_args(everything.command(part, "x.jsonl", 2.0, resume=True)[4:])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--only", "coffee"), "no part coffee; there are lifecycle, by-step, phases, alive, at-once, compile,"),
        (("--minutes", "3"), "--minutes 3: at least 4"),
        (("--dir", "/proc/nowhere"), "No such file or directory"),
    ],
)
def test_mistakes_are_one_line_and_nothing_is_begun(options: tuple[str, ...], said: str) -> None:
    command = [sys.executable, "-m", "bench", "all", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert said in done.stderr
    assert done.stdout == ""


def test_micro_has_every_arm_that_what_is_timed_is_made_of() -> None:
    chosen = {wish.key for wish in arms.chosen(arms.every(), arms.answering())}
    for kind in ("minictr", "docker", "lxc"):
        wanted = {key for part in arms.parts(kind, lan=True) for key in (part.arm, part.over)}
        wanted |= {part.arm.removesuffix(arms.WHOLE) for part in arms.wholes_of(kind)}
        assert wanted <= chosen, kind
    words = everything.micro()
    assert words[words.index("--arms") + 1].split(",") == arms.answering()
    operations = set(words[words.index("--operations") + 1].split(","))
    assert operations == set(counting.PRICED) and "append_4k" in operations
    for minutes, left_out in ((25.0, {"compile"}), (120.0, set())):
        (count,) = (part for part in everything.parts("small", minutes) if part.name == "count")
        assert {word.partition(":")[0] for word in count.words[2].split(",")} == set(catalogue.WORKLOADS) - left_out
