"""Results files: joined, and whatever is wrong in them told."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from known import Made

from bench import __main__ as front
from bench import results, samples

TWO = {"bare": 1.0, "bare-again": 1.0}


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = Made().arm("workload/x", "bare").blocks("workload/x", TWO, blocks=3).end().write(tmp_path / "a.jsonl")
    found = results.load([path])
    assert found.told == []
    assert found.places == ["one"]
    assert len(found.samples("one")) == 6
    assert found.interrupted("one") == []


def test_a_run_without_an_end_is_interrupted_and_its_cut_line_is_told(tmp_path: Path) -> None:
    path = Path(Made().blocks("workload/x", TWO, blocks=3).write(tmp_path / "a.jsonl"))
    path.write_text(path.read_text()[:-20])
    found = results.load([str(path)])
    assert [run.id for run in found.interrupted("one")] == ["r1"]
    assert len(found.samples("one")) == 5
    assert found.told == [f"{path}, line 7: cut short, as by a kill: left out"]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("nonsense\n", "not a record of the bench"),
        ('{"kind":"sample"}\n', "not a record of the bench"),
        ("[1]\n", "not a record of the bench"),
        (
            '{"kind":"count","run":"r9","experiment":"w","arm":"bare","operation":"stat","times":1}\n',
            "run r9, which is",
        ),
    ],
)
def test_a_bad_line_is_told_and_the_rest_is_kept(tmp_path: Path, line: str, told: str) -> None:
    path = Path(Made().blocks("workload/x", TWO, blocks=2).end().write(tmp_path / "a.jsonl"))
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:2], line, *lines[2:]]))
    found = results.load([str(path)])
    assert len(found.samples("one")) == 4
    (only,) = found.told
    assert told in only and f"{path}, line 3" in only


def test_many_bad_lines_are_told_in_few(tmp_path: Path) -> None:
    path = Path(Made().write(tmp_path / "a.jsonl"))
    path.write_text(path.read_text() + "nonsense\n" * 100)
    told = results.load([str(path)]).told
    assert len(told) == results.MOST_TOLD + 1
    assert told[-1].endswith("92 more like these")


def test_the_same_file_twice_is_taken_once(tmp_path: Path) -> None:
    path = Made().blocks("workload/x", TWO, blocks=4).end().write(tmp_path / "a.jsonl")
    found = results.load([path, path])
    assert len(found.samples("one")) == 8
    assert found.told == [f"{path}: 10 records were there already and are taken once"]


def test_a_second_value_of_one_block_is_refused(tmp_path: Path) -> None:
    made = Made().blocks("workload/x", TWO, blocks=1)
    twin = dataclasses.replace(made.records[-1], values={"wall_s": 99.0})
    made.records.append(twin)
    found = results.load([made.write(tmp_path / "a.jsonl")])
    assert 99.0 not in [sample.values["wall_s"] for sample in found.samples("one")]
    assert "a second, different sample of workload/x" in found.told[0]


def test_a_discarded_sample_may_be_measured_again(tmp_path: Path) -> None:
    made = Made().blocks("workload/x", TWO, blocks=1)
    made.records.insert(1, dataclasses.replace(made.records[-1], discarded="not as planned: x"))
    found = results.load([made.write(tmp_path / "a.jsonl")])
    assert len(found.samples("one")) == 2
    assert len(found.discarded("one")) == 1
    assert found.told == []


def test_two_machines_are_two_places(tmp_path: Path) -> None:
    first = Made("r1", machine="one").blocks("workload/x", TWO, blocks=3).end().write(tmp_path / "a.jsonl")
    other = Made("r2", machine="two").blocks("workload/x", TWO, blocks=5).end().write(tmp_path / "b.jsonl")
    found = results.load([first, other])
    assert found.places == ["one", "two"]
    assert [len(found.samples(place)) for place in found.places] == [6, 10]


def test_one_machine_with_two_kernels_is_two_places(tmp_path: Path) -> None:
    first = Made("r1").blocks("workload/x", TWO, blocks=3).end().write(tmp_path / "a.jsonl")
    other = Made("r2", kernel="6.18").blocks("workload/x", TWO, blocks=3).end().write(tmp_path / "b.jsonl")
    assert results.load([first, other]).places == ["one, 6.1.0-known", "one, 6.18"]


def test_a_contradicting_run_is_left_out_whole(tmp_path: Path) -> None:
    first = Made("r1", machine="one").blocks("workload/x", TWO, blocks=3).end().write(tmp_path / "a.jsonl")
    other = Made("r1", machine="two").blocks("workload/x", TWO, blocks=5).end().write(tmp_path / "b.jsonl")
    found = results.load([first, other])
    assert found.places == ["one"]
    assert len(found.samples("one")) == 6
    assert "run r1 contradicts one of the same name" in found.told[0]


def test_merge_writes_what_it_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = Made("r1", machine="one").blocks("workload/x", TWO, blocks=3).end().write(tmp_path / "a.jsonl")
    other = Made("r2", machine="two").blocks("workload/x", TWO, blocks=5).write(tmp_path / "b.jsonl")
    out = tmp_path / "c.jsonl"
    assert front.main(["merge", first, other, "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert "one: 1 runs, 6 samples that count" in text
    assert "two: 1 runs, 1 interrupted, 10 samples that count" in text
    again = results.load([str(out)])
    assert again.told == []
    assert again.records == results.load([first, other]).records
    assert all(isinstance(record, samples.Record) for record in samples.read(str(out)))


def test_merge_refuses_before_it_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = Made().end().write(tmp_path / "a.jsonl")
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    assert front.main(["merge", path, "--out", path]) == 2
    assert front.main(["merge", str(tmp_path / "none"), "--out", str(tmp_path / "c")]) == 2
    assert front.main(["merge", str(empty), "--out", str(tmp_path / "c")]) == 2
    assert not (tmp_path / "c").exists()
    told = capsys.readouterr().err
    assert "is there already" in told and "No such file" in told and "no run in" in told
    empty.write_text(Path(path).read_text() + "nonsense\n")
    assert front.main(["merge", str(empty), "--out", str(tmp_path / "d")]) == 1


def test_a_full_disk_leaves_no_half_file(small_disk: Path) -> None:
    made = Made().blocks("workload/x", TWO, blocks=4000)
    with pytest.raises(OSError, match="No space left"):
        made.write(small_disk / "a.jsonl")
    assert list(small_disk.iterdir()) == []
