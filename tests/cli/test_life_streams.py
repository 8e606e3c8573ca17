"""``logs``, ``attach``, ``start -a``: what a container in the background writes, and how to be with it."""

from __future__ import annotations

import re
import subprocess
import time

import pytest

BOTH = "echo out 1; echo err 1 >&2; echo out 2; printf rest; sleep 0.2; exit 3"
TALK = "for i in 1 2 3 4 5 6; do echo line $i; sleep 0.15; done; exit 4"


def test_logs_go_to_the_streams_they_came_from(run_cli, detached):
    detached("web", "sh", "-c", BOTH)
    run_cli("wait", "web")
    done = run_cli("logs", "web")
    assert (done.returncode, done.stdout, done.stderr) == (0, "out 1\nout 2\nrest", "err 1\n")
    assert run_cli("stop", "web").returncode == 0
    assert run_cli("logs", "--until", "2020-01-01", "web").stdout == ""
    assert run_cli("logs", "--since", "1h", "web").stdout == "out 1\nout 2\nrest"
    assert run_cli("logs", "-n", "0", "web").stdout == ""
    stamped = run_cli("logs", "-t", "web").stdout.splitlines()
    assert [line.split(" ", 1)[1] for line in stamped] == ["out 1", "out 2", "rest"]
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z ", line) for line in stamped)


def test_the_last_lines(run_cli, detached):
    detached("web", "sh", "-c", "seq 100")
    run_cli("wait", "web")
    assert run_cli("logs", "--tail", "3", "web").stdout == "98\n99\n100\n"
    assert run_cli("logs", "--tail", "all", "web").stdout.splitlines()[0] == "1"


def test_logs_are_followed_to_the_end(run_cli, detached):
    detached("web", "sh", "-c", TALK)
    run_cli("update", "web", "-m", "64m")  # an editor in between is no end
    done = run_cli("logs", "-f", "web")
    assert (done.returncode, done.stdout.splitlines()) == (0, [f"line {n}" for n in range(1, 7)])


def test_without_a_log(run_cli, detached, started):
    detached("web", "echo", "x", options=("--log-driver", "none"))
    done = run_cli("logs", "web")
    assert done.returncode == 125
    assert "it was made with --log-driver none" in done.stderr
    started("mine")
    done = run_cli("logs", "mine")
    assert done.returncode == 125
    assert "output goes to who started it" in done.stderr


def test_start_and_stay(run_cli, detached):
    """Nothing is lost: the program begins when we are there. Its exit code is ours."""
    detached("web", "sh", "-c", BOTH, verb=("create",))
    for _ in range(2):  # once from created, once from exited
        done = run_cli("start", "-a", "web")
        assert (done.returncode, done.stdout, done.stderr) == (3, "out 1\nout 2\nrest", "err 1\n")
    detached("killed", "sh", "-c", "kill -9 $$", verb=("create",))
    assert run_cli("start", "-a", "killed").returncode == 137


def test_start_of_one_that_waits(run_cli, detached):
    detached("web", verb=("create",))
    assert run_cli("ps", "-a", "--format", "{{.Status}}").stdout == "Created\n"
    assert run_cli("inspect", "-f", "{{.State.StartedAt}}", "web").stdout == "\n"
    assert run_cli("start", "web").stdout == "web\n"
    assert run_cli("inspect", "-f", "{{.State.Status}}", "web").stdout == "running\n"
    done = run_cli("start", "web")
    assert (done.returncode, done.stderr) == (125, "minictr start: start web: it is running already\n")


def test_start_of_a_program_that_has_gone(run_cli, detached, own_rootfs):
    detached("web", "/bin/uname", verb=("create",), options=("--rootfs", str(own_rootfs)))
    (own_rootfs / "bin" / "uname").unlink(missing_ok=True)
    (own_rootfs / "usr" / "bin" / "uname").unlink(missing_ok=True)
    done = run_cli("start", "web")
    assert done.returncode in (125, 127)
    assert "/bin/uname" in done.stderr
    assert done.stderr.count("\n") == 1


def test_input_reaches_it(run_cli, detached):
    detached("web", "cat", verb=("create", "-i"))
    assert run_cli("start", "-ai", "web", input="some\ninput\n").stdout == "some\ninput\n"


def test_attach_to_one_that_runs(run_cli, detached):
    detached("web", "sh", "-c", TALK)
    done = run_cli("attach", "--no-stdin", "web")
    assert done.returncode == 4
    assert done.stdout.endswith("line 5\nline 6\n")
    done = run_cli("attach", "web")
    assert (done.returncode, done.stdout) == (125, "")


def test_signals_reach_it(run_cli, detached, minictr_cli):
    detached(
        "web", "bash", "-c", 'trap "echo got; exit 9" USR1; echo ready; while :; do sleep 0.05; done', verb=("create",)
    )
    with subprocess.Popen([*minictr_cli, "start", "-a", "web"], stdout=subprocess.PIPE, text=True) as staying:
        assert staying.stdout is not None
        assert staying.stdout.readline() == "ready\n"
        staying.send_signal(10)
        assert staying.communicate(timeout=10)[0] == "got\n"
    assert staying.returncode == 9


def test_one_of_another_process_cannot_be_attached_to(run_cli, started):
    started("mine")
    done = run_cli("attach", "mine")
    assert (done.returncode, done.stdout) == (125, "")
    assert "its streams are those of the process that started it" in done.stderr


@pytest.mark.slow
def test_a_log_that_is_rotated_is_read_through(run_cli, detached):
    detached(
        "web",
        "sh",
        "-c",
        "seq 3000; sleep 0.3; seq 3001 4000",
        options=("--log-opt", "max-size=16k", "--log-opt", "max-file=20"),
    )
    done = run_cli("logs", "-f", "web")
    assert done.stdout.split() == [str(n) for n in range(1, 4001)]
    time.sleep(0.1)
    assert run_cli("logs", "-n", "1500", "web").stdout.split() == [str(n) for n in range(2501, 4001)]
