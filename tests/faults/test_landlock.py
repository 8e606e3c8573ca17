"""Each system call of Landlock fails, each of them once with each of three errors: the program never runs, and the step
is named. For a start and for a program that joins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_child import DEADLINE, look, traced, wait_for
from test_exec import target_of
from tracing import calls, cases, injection

import minictr as mc
from minictr.runtime.join import exec_run

__all__ = ["traced"]

SYSTEM = ("/usr", "/bin", "/lib", "/lib64", "/proc")
WISH = mc.Landlock(
    SYSTEM, rw=("/dev",), rules=(("/etc", ("read_file", "read_dir")),), connect=(80,), scopes=("signal",)
)
CALLS = ("landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self")
STEPS = {"landlock_create_ruleset": "landlock ruleset", "landlock_restrict_self": "landlock restrict"}
RULES = len(SYSTEM) + 3


@pytest.fixture(autouse=True)
def _there(requires: Any) -> None:
    requires.landlock(6)


def shaped(box: mc.Container, shape: str) -> mc.Container:
    wanted = box.with_(WISH, mc.OomScoreAdj(0))  # a barrier, at which strace comes in
    return wanted if shape == "no_new_privs" else wanted.without("no_new_privs")


@pytest.mark.timeout(180)
@pytest.mark.parametrize("shape", ["no_new_privs", "privileged"])
@pytest.mark.parametrize("how", ["run", "exec"])
def test_every_call_fails_once(box: mc.Container, traced: list, tmp_path: Path, shape: str, how: str) -> None:
    which = shaped(box, shape)
    options = {"capture_output": True, "text": True, "start_timeout": DEADLINE, "timeout": 10}
    script = ["sh", "-c", "echo ran; { echo >/tmp/not-allowed; } 2>&-"]
    with which.popen(["sleep", "1000"]) as process:
        target = target_of(process, which)

        def start() -> mc.Result | mc.MinictrError:
            try:
                return which.run(script, **options) if how == "run" else exec_run(target, script, **options)
            except mc.MinictrError as error:
                return error

        traced.append(("-b", "execve", "-o", str(tmp_path / "log")))
        plain = start()
        assert isinstance(plain, mc.Result), plain
        assert (plain.returncode != 0, plain.stdout) == (True, "ran\n"), "it is restricted"
        wait_for(tmp_path / "log")
        made = [[name for name in names if name in CALLS] for names in calls(tmp_path / "log").values()]
        assert sorted(name for names in made for name in names) == sorted((*CALLS, *CALLS[1:2] * (RULES - 1)))
        before = look()
        for case in cases(made, frozenset(CALLS), 1):
            call, _, error = case
            traced.append(("-b", "execve", *injection(case)))
            outcome = start()
            assert isinstance(outcome, mc.StepFailed), f"{case}: {outcome}"
            assert outcome.feature == "landlock" and outcome.index, outcome
            step = STEPS.get(call, "landlock p")  # a path or a port
            assert str(outcome).startswith(step) and f"{call}: {error}" in str(outcome), outcome
            assert look() == before
