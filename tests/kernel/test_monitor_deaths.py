"""Who dies when: starter, monitor and container, at every stage of a start; and what a two-phase start is."""

from __future__ import annotations

import fcntl
import os
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from detached import Detached, logged, over
from waiting import eventually

import minictr as mc
from minictr.errors import StepFailed
from minictr.kernel import procfs
from minictr.kernel.core import lib
from minictr.kernel.monitor import read_exit
from minictr.plan import HOLD, plan

Make = Callable[..., Detached]


def is_alive(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}") and procfs.status(pid)["State"][0] not in "ZX"


# --- who dies when ---


def stages(one: Detached) -> Any:
    """The life of a start, with a pause after each stage: before the barrier, after it, and when the program runs, or
    is held, before the commit."""
    one.spawn()
    yield
    one.await_report(1)
    os.read(one.report, 1)
    os.write(one.go, b"g")
    yield
    if one.is_held:
        one.await_report(1)
        one.monitor.give_hold(one.report, one.region, one.hold)
    else:
        one.await_report(0)
    yield


def start_and_wait(one: Detached, stage: int, reader: int, writer: int) -> int:
    """A starter, in a process of its own: as far as STAGE, and on after SIGUSR1. 3: it was told of the death."""
    try:
        os.close(reader)
        signal.alarm(30)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
        life = stages(one)
        for _ in range(stage + 1):
            next(life)
        os.write(writer, b"%d %d" % (one.pid, one.monitor_pid))
        signal.sigwait([signal.SIGUSR1])
        one.commit()
        return 1
    except StepFailed:
        one.close()
        return 3
    except BaseException:
        traceback.print_exc()
        return 2


@pytest.mark.parametrize("init", [True, False])
@pytest.mark.parametrize(
    ("victims", "stage", "hold"),
    # both at once, while the program may run uncommitted, is what the hold is there for: see docs/monitor.md
    [
        (victims, stage, hold)
        for victims in ("starter", "monitor", "both")
        for stage in range(3)
        for hold in (False, True)
        if hold or victims != "both" or stage == 0
    ],
)
def test_a_death_before_the_commit(
    detached: Make, box: mc.Container, victims: str, stage: int, init: bool, hold: bool
) -> None:
    """Whoever dies, and whenever: no container goes on that nobody committed."""
    which = box if init else box.without("init")
    reader, writer = os.pipe()
    starter = os.fork()
    if starter == 0:
        os._exit(start_and_wait(detached(["sleep", "1000"], which, hold=hold), stage, reader, writer))
    os.close(writer)
    with os.fdopen(reader) as file:
        pid, monitor = (int(word) for word in os.read(file.fileno(), 64).split())
        pidfds = [os.pidfd_open(pid), os.pidfd_open(monitor)]
        if victims != "starter":
            os.kill(monitor, signal.SIGKILL)
            over(pidfds[1], 5)
        os.kill(starter, signal.SIGUSR1 if victims == "monitor" else signal.SIGKILL)
        _, status = os.waitpid(starter, 0)
        gone = [over(pidfd, 10) for pidfd in pidfds]
        for pidfd, is_gone in zip(pidfds, gone):
            if not is_gone:
                lib.mc_pidfd_send_signal(pidfd, signal.SIGKILL, 0)
            os.close(pidfd)
    assert gone == [True, True]
    if victims == "monitor":
        assert os.waitstatus_to_exitcode(status) == 3, "the starter is told"


def test_a_dead_starter_is_cleaned_up_after(detached: Make, tmp_path: Path) -> None:
    """The exit command runs then too: it finds a start that nobody committed."""
    starter = os.fork()
    if starter == 0:
        signal.alarm(30)
        command = ["/bin/sh", "-c", f"echo ran > {tmp_path}/cleaned"]
        one = detached(["sleep", "1000"], command=command)
        one.spawn()
        os._exit(0)
    os.waitpid(starter, 0)
    eventually((tmp_path / "cleaned").exists)
    state = tmp_path / "state0"
    assert (state / "events").read_text() == "", "it never lived, so it did not die"


def test_an_abort_tells_how_it_ended(detached: Make, tmp_path: Path) -> None:
    command = ["/bin/sh", "-c", f"echo ran > {tmp_path}/cleaned"]
    one = detached(["sleep", "1000"], command=command)
    one.spawn()
    assert one.monitor.abort() == signal.SIGKILL
    assert over(one.monitor_pidfd, 5)
    assert not (tmp_path / "cleaned").exists(), "undoing is the starter's, who is there"


def test_a_program_that_is_over_before_the_commit(detached: Make) -> None:
    one = detached(["bash", "-c", "echo so soon; exit 4"])
    one.spawn()
    one.let_go()
    assert over(one.pidfd, 5)
    time.sleep(0.1)
    one.commit()
    assert os.waitstatus_to_exitcode(one.exit().status) == 4
    assert logged(one.state) == b"so soon\n"


def test_a_program_that_cannot_run(detached: Make) -> None:
    one = detached(["/nonexistent"])
    one.spawn()
    outcome = one.let_go()
    assert (outcome.state, outcome.error) == (lib.MC_STATE_FAILED, 2)
    assert os.waitstatus_to_exitcode(one.monitor.abort()) == 125


def test_the_monitor_is_killed(detached: Make, plain: mc.Container) -> None:
    """The container goes on, and the truth about it is its pidfd."""
    for which in (None, plain):
        options = {} if which is None else {"which": which}
        one = detached(["sleep", "1000"], **options).start()
        os.kill(one.monitor_pid, signal.SIGKILL)
        assert over(one.monitor_pidfd, 5)
        assert not over(one.pidfd, 0.3)
        assert read_exit((one.state / "exit").read_bytes()) is None
        with open(one.state / "lock") as lock:  # free, so the monitor is known to be gone
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


# --- two phases ---


def test_a_plan_that_holds(box: mc.Container) -> None:
    calls = [step.call for step in plan(box.spec(["true"]), (HOLD,))]
    place = calls.index("hold")
    assert calls[place - 1 :] == ["verify_no_new_privs", "hold", "ready", "seccomp", "exec"]


def test_a_held_container_has_run_nothing(detached: Make) -> None:
    one = detached(["bash", "-c", "echo ran"], hold=True).start()
    time.sleep(0.1)
    assert procfs.status(one.pid)["Name"] == "minictr-init"
    assert logged(one.state) == b""
    lib.mc_pidfd_send_signal(one.pidfd, signal.SIGKILL, 0)
    assert one.exit().status == signal.SIGKILL


def test_a_commit_before_the_program_runs(detached: Make) -> None:
    """Held, committed, released: at no moment has anything run that nobody answered for."""
    one = detached(["bash", "-c", "echo ran; exit 9"], hold=True)
    one.spawn()
    one.let_go()
    one.monitor.commit(final=False)
    assert one.release().state == lib.MC_STATE_EXEC
    assert over(one.pidfd, 5)
    assert not over(one.monitor_pidfd, 0.2), "the starter may still undo it"
    one.monitor.close()
    assert os.waitstatus_to_exitcode(one.exit().status) == 9
    assert logged(one.state) == b"ran\n"


def test_a_commit_that_is_undone(detached: Make, tmp_path: Path) -> None:
    """The program could not be executed: the starter is there, and undoes the start itself."""
    command = ["/bin/sh", "-c", f"echo ran > {tmp_path}/cleaned"]
    one = detached(["/nonexistent"], hold=True, command=command)
    one.spawn()
    one.let_go()
    one.monitor.commit(final=False)
    outcome = one.release()
    assert (outcome.state, outcome.error) == (lib.MC_STATE_FAILED, 2)
    assert os.waitstatus_to_exitcode(one.monitor.abort()) == 125
    assert over(one.monitor_pidfd, 5)
    assert not (tmp_path / "cleaned").exists()
    assert (one.state / "events").read_text() == ""


def test_a_starter_that_dies_between_commit_and_release(detached: Make) -> None:
    """What it leaves is a created container: held, with a monitor, for somebody to start or remove."""
    one = detached(["sleep", "1000"], hold=True)
    one.spawn()
    one.let_go()
    one.monitor.commit(final=False)
    one.monitor._forget()  # as if it had died
    one.monitor._open = False
    assert not over(one.pidfd, 0.2)
    assert procfs.status(one.pid)["Name"] == "minictr-init"


def test_a_held_container_ends_with_its_monitor(detached: Make) -> None:
    one = detached(["bash", "-c", "echo ran"], hold=True).start()
    os.kill(one.monitor_pid, signal.SIGKILL)
    assert over(one.pidfd, 5)
