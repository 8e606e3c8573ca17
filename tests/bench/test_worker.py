"""The process that stays: its answers, and everything that can go wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.lifecycle import worker
from bench.lifecycle.worker import ArmFailed, Command, Start, Worker


def shell(script: str) -> Command:
    """A worker in sh: $1 is where requests come from, $2 where replies go."""
    return lambda request, reply: ["/bin/bash", "-c", script, "worker", str(request), str(reply)]


ANSWERING = 'while read -r -N1 -u "$1" byte; do echo "ok 1500 0 enter 500 run 1000" >&"$2"; done'


def test_an_answer_is_parsed() -> None:
    assert worker.parse_reply("ok 1500 0\n") == Start(1500)
    assert worker.parse_reply("ok 1500 0 enter 500 run 1000") == Start(1500, {"enter": 500, "run": 1000})


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("error mount /proc: Operation not permitted", "mount /proc: Operation not permitted"),
        ("ok 1500 256", "the command left with 1"),
        ("ok 1500 32000", "the command left with 125"),
        ("ok 1500 9", "ended by signal 9"),
        ("nonsense", "nonsense"),
    ],
)
def test_anything_but_success_is_a_failure(line: str, told: str) -> None:
    with pytest.raises(ArmFailed, match=told):
        worker.parse_reply(line)


def test_it_answers_each_time_it_is_asked(tmp_path: Path) -> None:
    with Worker(shell(ANSWERING), log=str(tmp_path / "log")) as process:
        assert [process.start().nanoseconds for _ in range(3)] == [1500] * 3


def test_a_worker_that_is_gone_is_told_with_its_last_words(tmp_path: Path) -> None:
    with Worker(shell("echo the disk is full >&2"), log=str(tmp_path / "log")) as process:
        with pytest.raises(ArmFailed, match="the disk is full"):
            process.start()
        with pytest.raises(ArmFailed):
            process.start()


def test_a_hung_worker_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "DEADLINE", 0.2)
    monkeypatch.setattr(worker, "PATIENCE", 0.2)
    with Worker(shell("trap '' TERM; sleep 300 & wait"), log=str(tmp_path / "log")) as process:
        with pytest.raises(ArmFailed, match=r"no answer in 0\.2 s"):
            process.start()
        with pytest.raises(ArmFailed, match="was closed"):
            process.start()


def test_a_command_that_cannot_be_run_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Worker(lambda request, reply: ["/no/such/program"], log=str(tmp_path / "log"))


def test_the_bench_is_found_by_its_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/one")
    assert worker.environment()["PYTHONPATH"] == f"/one:{worker.ROOT}"
    monkeypatch.delenv("PYTHONPATH")
    assert worker.environment()["PYTHONPATH"] == worker.ROOT
