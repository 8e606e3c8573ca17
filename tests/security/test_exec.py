"""Joining a container whose processes are hostile: nothing of the host's, nor of the runtime's, can be taken.

CVE-2016-9962 (runc, docker): a process that had entered, and held descriptors of the host, was traced before its exec.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from joins import Weaken, as_it_is, dumpable, join_again

import minictr as mc
from minictr.kernel import ops
from minictr.plan import Plan, plan
from minictr.runtime import join
from minictr.runtime.program import Program
from minictr.steps import LOCK

THIEF = Path(__file__).resolve().parent / "thief.c"
ROUNDS = 200


@pytest.fixture(scope="session")
def den(lab, requires) -> Path:
    """``lab`` with thief.c in it, as /bin/thief."""
    gcc = requires("gcc")
    command = [gcc, "-O1", "-Wall", "-Wextra", "-Werror", "-static", "-o", lab / "bin" / "thief", THIEF]
    subprocess.run(command, check=True)
    return lab


class Loot:
    """What a thief saw and took in ROUNDS programs that joined its container."""

    def __init__(self, told: str) -> None:
        first, *self.descriptors = told.split("\n")[:-1]
        counts = dict(word.split("=") for word in first.split())
        self.seen, self.exe, self.fd, self.ptrace = (int(counts[name]) for name in ("seen", "exe", "fd", "ptrace"))
        self.caps = int(counts["caps"], 16)


def robbed(box: mc.Container, weaken: Weaken = as_it_is, how: str = "trace", rounds: int = ROUNDS) -> Loot:
    """Joins BOX again and again while a thief is in it. WEAKEN: makes the program of each join a worse one."""
    with box.popen(["thief", how], stdin=mc.PIPE, stdout=mc.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        join_again(box, process, rounds, weaken)
        process.stdin.close()
        return Loot(process.stdout.read())


def powerful(box: mc.Container) -> mc.Container:
    kept = next(f for f in box.features if f.name == "capabilities").bounding
    return box.with_(mc.Capabilities((*kept, "SYS_PTRACE")))


def early(program: Program) -> Program:
    """Into the pid namespace as soon as there is one to enter, as runc before its 2016 and 2024 repairs did: with all
    privilege, and with the descriptors of the host still open."""
    steps = [step for step in program.plan.steps if step.call != "fork"]
    fork = next(step for step in program.plan.steps if step.call == "fork")
    place = next(i for i, step in enumerate(steps) if step.phase == LOCK)
    weak = Program(Plan((*steps[:place], fork, *steps[place:]), program.plan.spec))
    return dumpable(weak)


@pytest.mark.slow
def test_a_thief_gets_nothing(den):
    """CVE-2016-9962, CVE-2019-5736: 200 programs join, one after the other, and a thief looks for each."""
    loot = robbed(mc.Container(den))
    assert loot.seen > 0, "it never saw a joining process: this proves nothing"
    assert (loot.exe, loot.fd, loot.ptrace) == (0, 0, 0)


@pytest.mark.slow
def test_of_one_that_may_be_looked_into_it_gets_all(den):
    """The same thief, and the one thing taken away that stands against it."""
    loot = robbed(mc.Container(den), dumpable, "look")
    assert loot.exe > 0 and loot.fd > 0
    assert robbed(mc.Container(den), dumpable).ptrace > 0


@pytest.mark.slow
def test_with_the_capability_to_trace_it_gets_no_more_than_it_has(den, status):
    """CAP_SYS_PTRACE looks into everything. It finds streams, the report, and no privilege but the container's."""
    box = powerful(mc.Container(den))
    loot = robbed(box, how="look")
    assert loot.seen > 0
    assert set(loot.descriptors) <= {"pipe:", "/dev/null"}
    assert loot.caps == int(status(box)["CapPrm"], 16)


@pytest.mark.slow
def test_before_the_privilege_is_gone_it_would_get_more(den, status):
    box = powerful(mc.Container(den))
    loot = robbed(box, early, "look")
    assert loot.caps & ~int(status(box)["CapPrm"], 16)


def test_what_is_open_in_the_child_when_it_is_born(box):
    """The order of the plan: every descriptor of the host is used, and so closed, before the fork; so is privilege."""
    with box.popen(["sleep", "100"]) as process:
        made = plan(join.exec_spec(join.Target(process.pid, box.spec(), process.pidfd), ["true"]))
    calls = [step.call for step in made]
    fork = calls.index("fork")
    named = ((step.args[name], kind) for step in made.steps[fork:] for name, kind in _parameters(step.call))
    uses = {word for word, kind in named if kind == "f" and word != -1}  # -1: a filter that has no listener
    assert uses == {"stdin", "stdout", "stderr"}
    for call in ("setns", "setresuid", "bounding", "capset", "no_new_privs"):
        assert calls.index(call) < fork
    assert calls.index("fork") < calls.index("setsid") < calls.index("exec")


def _parameters(call: str) -> list[tuple[str, str]]:
    return [tuple(parameter.split(":")) for parameter in ops.SIGNATURES[call]]


def test_the_program_has_no_descriptor_but_its_streams(box):
    with box.popen(["sleep", "100"]) as process, open(os.devnull) as extra:
        os.set_inheritable(extra.fileno(), True)
        target = join.Target(process.pid, box.spec(), process.pidfd)
        with join.exec_popen(target, ["sleep", "100"]) as joined:
            assert sorted(os.listdir(f"/proc/{joined.pid}/fd")) == ["0", "1", "2"]
