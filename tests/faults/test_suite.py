"""The suite itself: its tracer hits one call of one process, and its judgement sees what is wrong."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from typing import Any

import pytest
from drives import Run
from onecall import Call, Point
from points import failures, spread
from runtimes import FAILED, HUNG, LEAKED, OPEN, TOLERATED, Starter, Told
from states import difference
from suite import tiny

__all__ = ["tiny"]

SHELL = shutil.which("dash") or "/bin/sh"
CAT = "/bin/cat"


@pytest.fixture
def starter(requires):
    if os.uname().machine != "x86_64":
        pytest.skip("the tracer knows x86-64 only")
    made = Starter()
    yield made
    made.close()


def ask(starter: Starter, *words: str, seconds: float = 5.0, **more: Any) -> Told:
    request = {
        "words": list(words),
        "minictr": False,
        "environment": {"PATH": "/bin:/usr/bin", "LC_ALL": "C"},
        "limit": 100_000,
        "payloads": [],
        "seconds": seconds,
        "to_the_end": True,
        "traced": True,
        "begins": words[0],
    }
    return starter.ask(**request, **more)


def calls(starter: Starter, *words: str) -> list[Call]:
    told = ask(starter, *words)
    assert told.code == 0, told
    return [Call(*row) for row in told.made or ()]


def hit(starter: Starter, point: Point, *words: str) -> Told:
    told = ask(starter, *words, call=list(point.call._replace(about="")), error=point.error, late=point.late)
    assert Call(*(told.hit or ())).name == point.call.name
    return told


def test_one_call_of_one_process(starter, tmp_path):
    """Two programs make the same calls; the second one's fails."""
    (tmp_path / "file").write_text("read\n")
    words = (SHELL, "-c", f"{CAT} {tmp_path}/file; {CAT} {tmp_path}/file; true")
    reads = [call for call in calls(starter, *words) if call.about == f"{tmp_path}/file"]
    assert [call.process for call in reads] == [1, 2]
    told = hit(starter, Point(reads[1], "EMFILE"), *words)
    assert (told.out, told.code) == ("read\n", 0)
    assert told.err == f"{CAT}: {tmp_path}/file: Too many open files\n"


def test_a_close_that_fails_has_closed(starter):
    """The shell's redirection: were the call left out, the descriptor would stay."""
    words = (SHELL, "-c", "exec 8</dev/null; exec 8<&-; exec 9</dev/null; [ ! -e /proc/self/fd/8 ]")
    made = calls(starter, *words)
    begin = next(index for index, call in enumerate(made) if call.about == "/dev/null")  # after the dynamic loader
    for call in [call for call in made[begin:] if call.name == "close"]:
        assert hit(starter, Point(call, "EIO", late=True), *words).code == 0, call


def test_a_process_is_killed_before_its_call(starter, tmp_path):
    words = (shutil.which("mkdir") or "", f"{tmp_path}/made")
    call = next(call for call in calls(starter, *words) if call.name == "mkdir")
    os.rmdir(tmp_path / "made")
    assert hit(starter, Point(call, ""), *words).code == -9
    assert not (tmp_path / "made").exists()


def test_a_command_that_hangs_is_ended(starter):
    told = ask(starter, shutil.which("sleep") or "", "100", seconds=0.3)
    assert told.hung and told.code == -9


def test_what_is_judged(tiny):
    """Each kind of fault is seen for what it is."""
    drive = Run(tiny)
    try:
        point = Point(Call(0, "mkdir", 1), "ENOSPC")
        wanted = drive.wanted
        assert wanted is not None and wanted["/proc/self/status"]
        good = "minictr run: mkdir /x: ENOSPC (No space left on device)\n"
        other = {**wanted, "else": ["umask 000"]}
        for code, err, found, left, kinds, is_wrong in (
            (7, "", wanted, [], {TOLERATED}, False),
            (125, good, None, [], {FAILED}, False),
            (125, "minictr run: no\n", None, [], {FAILED}, True),
            (125, good + good, None, [], {FAILED}, True),
            (0, "", None, [], {OPEN}, True),
            (0, "", wanted, [], {OPEN}, True),
            (7, "", None, [], {OPEN}, True),
            (7, "", other, [], {OPEN}, True),
            (125, good, None, ["cgroup: /x"], {LEAKED}, True),
        ):
            outcome = drive.kinds(Told(code, False, "", err, 0.1), point, found, left)
            assert (outcome.kinds, bool(outcome.text)) == (kinds, is_wrong), (code, err, left)
        assert drive.kinds(Told(-9, True, "", "", 8), point, None, []).kinds == {HUNG}
        hidden = Point(Call(0, "openat", 1, "/n/names"), "ENOENT")
        for line, is_wrong in (("minictr rm: remove /n: Directory not empty\n", False), ("minictr rm: no\n", True)):
            assert bool(drive.kinds(Told(125, False, "", line, 0.1), hidden, None, []).text) is is_wrong
        (drive.place.root / "containers" / "0123").mkdir(parents=True)
        assert drive.settle(Told(125, False, "", good, 0.1), point).kinds == {LEAKED}
        os.rmdir(drive.place.root / "containers" / "0123")
    finally:
        drive.close()


def test_a_state_with_one_capability_more_is_another():
    wanted = {"/proc/self/status": ["CapEff:\t0", "NoNewPrivs:\t1"]}
    assert not difference(wanted, wanted)
    assert "CapEff" in difference({"/proc/self/status": ["CapEff:\t1", "NoNewPrivs:\t1"]}, wanted)


def test_a_sample_has_each_kind_of_call():
    made = [Call(process, name, n) for process in (0, 1) for name in ("read", "mkdir", "openat") for n in range(1, 40)]
    found = failures(made)
    assert len(found) == len(made)
    some = spread(found, 20)
    assert len(set(some)) == len(some) and 15 < len(some) < 25
    assert len(Counter((point.call.process, point.call.name) for point in some)) == 6
