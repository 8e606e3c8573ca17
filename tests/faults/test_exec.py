"""One system call of who joins a container fails, each of them once; and callers that are killed while they join.

Two processes are traced: the one that joins, from its barrier on, and the program that it forks inside.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter

import pytest
from test_child import DEADLINE, GRAVE, STATE, look, one, state, traced, wait_for
from tracing import calls, cases
from waiting import eventually

import minictr as mc
from minictr.runtime.join import Target, exec_popen, exec_run

__all__ = ["traced"]

ROWS = ((0, 100_000, 65_536),)
KINDS = {
    "default": lambda box: box,
    "user in a userns": lambda box: box.with_(mc.UserNamespace(uid_map=ROWS, gid_map=ROWS), mc.Identity("alice")),
    "chroot": lambda box: mc.Container(box.rootfs, features=[mc.Chroot(), mc.Env()]).with_(mc.PidNamespace()),
}


def target_of(process: mc.Process, box: mc.Container) -> Target:
    places = {} if process.aftermath is None else {place.controller: place for place in process.aftermath.places}
    return Target(process.pid, box.spec(), process.pidfd, places)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("kind", KINDS)
def test_every_call_fails_once(box, traced, tmp_path, kind):
    which = KINDS[kind](box).with_(mc.OomScoreAdj(0))  # a barrier, at which strace comes in
    script = STATE if kind != "chroot" else "echo Umask:; echo ---; echo ---; pwd"
    with which.popen(["sleep", "1000"]) as process:
        target = target_of(process, which)

        def start(_: object) -> mc.Result | mc.MinictrError:
            try:
                limits = {"start_timeout": DEADLINE, "timeout": 10}
                return exec_run(target, ["sh", "-c", script], capture_output=True, text=True, **limits)
            except mc.MinictrError as error:
                return error

        def intended(done: mc.Result) -> tuple[object, ...]:
            return state(done) if kind != "chroot" else (done.stdout,)

        plain = start(None)
        assert isinstance(plain, mc.Result) and plain.returncode == 0, plain
        traced.append(("-b", "execve", "-o", str(tmp_path / "log")))
        assert isinstance(start(None), mc.Result)
        wait_for(tmp_path / "log")
        made = list(calls(tmp_path / "log").values())
        assert len(made) == 2, "who joins, and the program"
        found = cases(made, GRAVE, 3) if kind == "default" else cases(made, frozenset(), 13)
        before, ended = look(), Counter[str]()
        wrong = [
            text
            for case in found
            if (text := one(which, case, traced, intended(plain), before, ended, start, intended))
        ]
        assert not wrong, f"{len(wrong)} of {len(found)}:\n" + "\n".join(wrong)
        assert len(found) > 20 and ended["refused"] > len(found) / 3, (len(found), ended)
        inside = exec_run(target_of(process, which), ["true"])
        assert inside.returncode == 0 and process.poll() is None
        assert processes(process) <= 2, "something was left in the container"


def processes(process: mc.Process) -> int:
    """How many there are in a container's pid namespace."""
    wanted, found = os.readlink(f"/proc/{process.pid}/ns/pid"), 0
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            found += os.readlink(f"/proc/{name}/ns/pid") == wanted
        except OSError:
            continue
    return found


@pytest.mark.parametrize("moment", range(12))
def test_a_caller_that_is_killed_while_it_joins(box, moment):
    """Before the program runs it dies with its caller; once it runs it goes on, as the container's."""
    with box.popen(["sleep", "1000"]) as process:
        target = target_of(process, box)
        child = os.fork()
        if child == 0:
            try:
                exec_popen(target, ["sleep", "654"], stdin=mc.DEVNULL)
                time.sleep(10)
            finally:
                os._exit(1)
        time.sleep(0.0003 * moment)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)

        def settled() -> bool:
            words = exec_run(target, ["ps", "-e", "-o", "pid=,args="], capture_output=True, text=True).stdout
            rows = [row.split(maxsplit=1) for row in words.splitlines()]
            return {args for pid, args in rows if pid not in ("1", "2")} <= {"ps -e -o pid=,args=", "sleep 654"}

        eventually(settled, 5)
