"""The program of ``exec``: its streams, ends and terminal, the container's end meanwhile, many at once, left alone."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest
from joined import said, target_of
from waiting import eventually

import minictr as mc
from minictr.runtime.join import Target, exec_popen, exec_run

# --- streams, ends, signals ---


def test_streams(inside):
    target = inside()
    done = exec_run(target, ["bash", "-c", "cat; echo err >&2; exit 3"], input="in", capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (3, "in", "err\n")
    with pytest.raises(mc.CalledProcessError):
        exec_run(target, ["false"], check=True)
    with pytest.raises(mc.TimeoutExpired):
        exec_run(target, ["sleep", "100"], timeout=0.1)
    with exec_popen(target, ["cat"], stdin=mc.PIPE, stdout=mc.PIPE, text=True) as joined:
        assert joined.communicate("words") == ("words", None)


def test_a_program_that_cannot_run(inside):
    target = inside()
    for _ in range(2):  # what failed is not kept
        with pytest.raises(mc.CommandNotFound, match="nosuch"):
            exec_run(target, ["nosuch"])
    with pytest.raises(mc.CommandNotExecutable, match="is a directory"):
        exec_run(target, ["/etc"])
    with pytest.raises(mc.SpecError, match="list"):
        exec_run(target, "true")


def test_a_program_that_goes_away(inside, own_rootfs):
    target = inside(mc.Container(own_rootfs))
    said(target, "cp /bin/true /tmp/here")
    assert exec_run(target, ["/tmp/here"]).returncode == 0
    said(target, "rm /tmp/here")
    with pytest.raises(mc.CommandNotFound, match="/tmp/here"):
        exec_run(target, ["/tmp/here"])


def test_signals(inside):
    target = inside()
    assert exec_run(target, ["bash", "-c", "kill -9 $$"]).signal == 9
    with exec_popen(target, ["sleep", "100"]) as joined:
        joined.terminate()
        assert joined.wait(10) == -signal.SIGTERM  # not PID 1: the default action is taken
    with exec_popen(target, ["bash", "-c", "trap 'exit 7' USR1; echo on; while :; do sleep 0.01; done"],
                    stdout=mc.PIPE) as joined:  # fmt: skip
        assert joined.stdout.readline() == b"on\n"
        joined.send_signal(signal.SIGUSR1)
        assert joined.wait(10) == 7


def test_the_time_line(inside):
    line = exec_run(inside(), ["true"]).timeline
    assert {"join", "capabilities", "exec", "clone"} <= set(line.by_feature())
    assert [row.call for row in line.rows if row.feature == "join"] == ["open_process", "setns", "fork", "verify_root"]


def test_descriptors_are_passed_on_when_asked_for(inside, tmp_path):
    target = inside()
    with open(tmp_path / "file", "w+") as file:
        saved = os.dup(3) if os.path.exists("/proc/self/fd/3") else -1
        os.dup2(file.fileno(), 3)
        try:
            assert said(target, "echo through >&3", preserve_fds=1) == ""
        finally:
            if saved >= 0:
                os.dup2(saved, 3)
                os.close(saved)
            elif file.fileno() != 3:
                os.close(3)
        assert (tmp_path / "file").read_text() == "through\n"


# --- a terminal ---


def test_a_terminal(inside):
    target = inside()
    with (
        mc.Console() as console,
        exec_popen(target, ["bash", "-c", "tty; ps -o tty= -p $$"], console=console) as joined,
    ):
        assert joined.wait(10) == 0
        shown = os.read(console.master, 4096).decode().split()
    assert shown == ["/dev/pts/0", "pts/0"]


def test_a_terminal_of_a_user(inside):
    target = inside()
    script = "stat -c %u:%a $(tty)"
    with mc.Console() as console, exec_popen(target, ["bash", "-c", script], console=console, user="alice") as joined:
        assert joined.wait(10) == 0
        assert os.read(console.master, 4096).decode().strip() == "1000:620"


def test_no_terminals_no_terminal(inside, box):
    target = inside(mc.Container(box.rootfs, features="bare"))
    with mc.Console() as console, pytest.raises(mc.StepFailed, match="devpts"):
        exec_popen(target, ["true"], console=console)


# --- the container's end ---


def test_the_container_ends_meanwhile(box):
    with box.popen(["sleep", "100"]) as process:
        target = target_of(process, box)
        with exec_popen(target, ["sleep", "100"]) as joined:
            process.kill()
            assert joined.wait(10) == -signal.SIGKILL
            assert process.wait(10) == -signal.SIGKILL
            with pytest.raises(mc.StepFailed, match="ESRCH"):
                exec_run(Target(target.pid, target.spec), ["true"])  # no pidfd: the number itself tells


def test_one_that_is_over(box):
    process = box.popen(["true"])
    pidfd = os.dup(process.pidfd)
    try:
        target = Target(process.pid, box.spec(), pidfd)
        with process:
            process.wait()
        for wanted in ({}, {"user": "alice"}, {"cwd": "/usr"}):
            with pytest.raises(mc.StepFailed, match="ESRCH.*the container is over"):
                exec_run(target, ["/bin/true"], **wanted)
    finally:
        os.close(pidfd)


def test_a_number_used_again_is_not_joined(box, inside):
    """The pidfd says that the process is gone, though another has its number: here, one that runs."""
    other = inside()
    with box.popen(["true"]) as process:
        pidfd = os.dup(process.pidfd)
        process.wait()
    try:
        with pytest.raises(mc.StepFailed, match="ESRCH"):
            exec_run(Target(other.pid, other.spec, pidfd), ["true"])
    finally:
        os.close(pidfd)


def test_ends_at_any_moment(box):
    """The main program ends while somebody joins: it runs, is killed, or fails clearly; nothing hangs or is left."""
    outcomes = set()
    for delay in range(12):
        with box.popen(["sleep", "100"]) as process:
            target = target_of(process, box)
            timer = threading.Timer(delay * 0.0002, process.kill)
            timer.start()
            try:
                outcomes.add(exec_run(target, ["true"], timeout=20).returncode)
            except mc.StepFailed as error:
                outcomes.add(type(error).__name__)
            timer.join()
    assert outcomes <= {0, -signal.SIGKILL, "StepFailed", "CommandNotFound"}


# --- many, and left alone ---


def test_fifty_at_once(inside):
    target = inside()
    found: list[object] = []

    def one(number: int) -> None:
        found.append(
            (number, exec_run(target, ["bash", "-c", f"echo {number}"], capture_output=True, text=True).stdout)
        )

    threads = [threading.Thread(target=one, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(found) == [(number, f"{number}\n") for number in range(50)]


def test_detached(inside):
    """Its parent is the container's init, which reaps it."""
    target = inside()
    start = time.monotonic()
    with exec_popen(target, ["sleep", "0.9"], detach=True) as joined:
        assert joined.wait(10) == 0
    assert time.monotonic() - start < 0.8

    def parents() -> list[str]:
        rows = (row.split(maxsplit=1) for row in said(target, "ps -e -o ppid=,args=").splitlines())
        return [parent for parent, words in rows if words == "sleep 0.9"]

    assert parents() == ["1"]
    eventually(lambda: parents() == [], 5)
    assert "defunct" not in said(target, "ps ax")


def test_detached_without_a_pid_namespace(inside, box):
    """It is left to whoever reaps on the host."""
    target = inside(box.without("pid"))
    with exec_popen(target, ["bash", "-c", "echo on; sleep 0.2; echo done"], stdout=mc.PIPE, detach=True) as joined:
        assert joined.wait(10) == 0
        assert joined.stdout.read() == b"on\ndone\n"


def test_detached_says_what_failed(inside):
    with pytest.raises(mc.StepFailed, match="chdir"):
        exec_popen(inside(), ["true"], detach=True, cwd="/nosuch")


def test_a_start_that_hangs_is_given_up(inside, box):
    """Who joined and the program are both killed: nothing of it is left."""
    target = inside()
    with mc.Console() as console:
        console.receive = lambda timeout: None  # a caller that never answers
        with pytest.raises(mc.StartTimeout, match="console"):
            exec_popen(target, ["true"], console=console, start_timeout=0.3)
    assert "minictr-init" not in said(target, "ps -e -o pid=,comm= | tail -n +2")
