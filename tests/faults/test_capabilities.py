"""No drop from the bounding set, and no securebit, goes wrong unseen: each such prctl(2) fails, or lies, by itself."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from test_child import DEADLINE, traced, wait_for

import minictr as mc
from minictr.kernel.capabilities import bounding, last_cap

__all__ = ["traced"]

KEPT = ("KILL", "SETPCAP")
LINE = re.compile(r"^(\d+) +prctl\((\w+)(?:, (\w+))?")


@pytest.fixture
def which(box: mc.Container) -> mc.Container:
    """What keeps two capabilities; with a barrier, at which strace comes in, and one process, whose calls it counts."""
    wanted = (mc.Capabilities(KEPT), mc.Securebits(("noroot", "noroot_locked")), mc.OomScoreAdj(0))
    return box.without("no_new_privs", "seccomp", "init").with_(*wanted)


@pytest.fixture
def asked(which: mc.Container, traced: list, tmp_path: Path) -> list[tuple[str, str]]:
    """(operation, argument) of each prctl(2) of the program's process, in order."""
    traced.append(("-b", "execve", "-e", "trace=prctl,execve", "-o", str(tmp_path / "log")))
    assert which.run(["true"], start_timeout=DEADLINE).returncode == 0
    wait_for(tmp_path / "log")
    rows = [match.groups() for line in (tmp_path / "log").read_text().splitlines() if (match := LINE.match(line))]
    process = next(row[0] for row in rows if row[1] == "PR_CAPBSET_DROP")
    return [row[1:] for row in rows if row[0] == process]


def outcome(which: mc.Container, traced: list, place: int, what: str) -> mc.MinictrError | int:
    """How a start ends whose PLACE-th prctl(2) (from 0) has WHAT happen to it."""
    inject = f"inject=prctl:{what}:when={place + 1}"
    traced.append(("-b", "execve", "-e", "trace=prctl", "-e", inject, "-o", "/dev/null"))
    try:
        return which.run(["true"], start_timeout=DEADLINE).returncode
    except mc.MinictrError as error:
        return error


def places(asked: list[tuple[str, str]], operation: str) -> list[int]:
    return [place for place, row in enumerate(asked) if row[0] == operation]


def refused(ended: object, *words: str) -> bool:
    return isinstance(ended, mc.StepFailed) and all(word in str(ended) for word in words)


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.faults)])
def test_a_drop_that_fails_ends_the_start(which, traced, asked, every) -> None:
    drops = places(asked, "PR_CAPBSET_DROP")
    assert len(drops) == len(bounding()) - len(KEPT)
    for place in drops if every else (drops[0], drops[-1]):
        for error in ("EPERM", "EINVAL", "EIO") if every else ("EPERM",):
            ended = outcome(which, traced, place, f"error={error}")
            assert refused(ended, "bounding", error, "feature capabilities"), (place, error, ended)


def test_a_drop_that_did_not_happen_is_found(which, traced, asked) -> None:
    for place in (drops := places(asked, "PR_CAPBSET_DROP"))[0], drops[-1]:
        ended = outcome(which, traced, place, "retval=0")
        assert refused(ended, "verify caps", "holds more capabilities than asked for"), ended


def test_the_kernel_says_which_is_the_last(which, traced, asked) -> None:
    """Where it has one more than any table of ours, that one is dropped too: told so, we ask for it."""
    reads = [place for place in places(asked, "PR_CAPBSET_READ") if asked[place][1] in last_names()]
    ended = outcome(which, traced, reads[0], "retval=1")
    assert refused(ended, "bounding", "EINVAL"), ended


def last_names() -> tuple[str, ...]:
    """How strace writes the first number that this kernel does not have."""
    number = last_cap() + 1
    return str(number), hex(number), f"1<<{number}"


@pytest.mark.parametrize(("what", "told"), [("error=EPERM", "prctl: EPERM"), ("retval=0", "verify securebits")])
def test_securebits_that_are_not_set_end_the_start(which, traced, asked, what, told) -> None:
    (place,) = places(asked, "PR_SET_SECUREBITS")
    assert refused(outcome(which, traced, place, what), told, "feature securebits")
