"""``stop``, ``kill``, ``wait``, ``rm``, ``gc``: how containers end, and that nothing of them stays."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time

import pytest

TRAPS = 'trap "exit 7" TERM; trap "exit 8" USR1; touch /tmp/ready; while :; do sleep 0.05; done'
DEAF = 'trap "" TERM; touch /tmp/ready; while :; do sleep 0.05; done'


def gone(pid):
    """Whether no process PID is left but for a zombie that the host's init has yet to reap."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def status(run_cli, name):
    return run_cli("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", name).stdout.strip()


@pytest.fixture
def shell(detached, run_cli, eventually_ready):
    """``shell("web", script)``: a container of a shell that has reached the line ``touch /tmp/ready``."""

    def start(name, script, *options):
        identity = detached(name, "bash", "-c", script, options=("--tmpfs", "/tmp", *options))
        eventually_ready(identity)
        return identity

    return start


@pytest.fixture
def eventually_ready(run_cli):
    def wait(identity):
        pid = run_cli("inspect", "-f", "{{.State.Pid}}", identity).stdout.strip()
        deadline = time.monotonic() + 10
        while not os.path.exists(f"/proc/{pid}/root/tmp/ready"):
            assert time.monotonic() < deadline
            time.sleep(0.01)

    return wait


def test_stop_asks_first(run_cli, shell):
    shell("web", TRAPS)
    assert run_cli("stop", "web").stdout == "web\n"
    assert status(run_cli, "web") == "exited 7"
    assert run_cli("stop", "web").stdout == "web\n"  # over already: no mistake
    assert run_cli("wait", "web").stdout == "7\n"


def test_stop_with_another_signal(run_cli, shell):
    shell("web", TRAPS)
    assert run_cli("stop", "web", "-s", "USR1").returncode == 0
    assert status(run_cli, "web") == "exited 8"


def test_stop_kills_at_last(run_cli, shell):
    shell("web", DEAF)
    begin = time.monotonic()
    assert run_cli("stop", "-t", "0.5", "web").returncode == 0
    assert 0.5 <= time.monotonic() - begin < 5
    assert status(run_cli, "web") == "exited 137"


def test_stop_of_a_frozen_one(run_cli, shell):
    shell("web", TRAPS)
    assert run_cli("pause", "web").returncode == 0
    assert run_cli("stop", "web").returncode == 0
    assert status(run_cli, "web") == "exited 7"


def test_kill(run_cli, shell):
    shell("web", TRAPS)
    assert run_cli("kill", "-s", "SIGUSR1", "web").stdout == "web\n"
    assert run_cli("wait", "web").stdout == "8\n"
    done = run_cli("kill", "web")
    assert (done.returncode, done.stderr) == (125, "minictr kill: kill web: it is exited: minictr start web first\n")


def test_kill_is_sigkill_and_a_frozen_one_dies_too(run_cli, detached):
    detached("web")
    assert run_cli("pause", "web").returncode == 0
    assert run_cli("kill", "web").returncode == 0
    assert run_cli("unpause", "web").returncode in (0, 125)  # v1 keeps it frozen until it is thawed
    assert run_cli("wait", "web").stdout == "137\n"


def test_wait_while_it_runs_and_after_it_was_removed(run_cli, detached, minictr_cli):
    detached("web", "sh", "-c", "sleep 3; exit 5", options=("--rm",))
    detached("db", "sh", "-c", "sleep 2; exit 6")
    with subprocess.Popen([*minictr_cli, "wait", "web", "db"], stdout=subprocess.PIPE, text=True) as waiting:
        assert waiting.communicate(timeout=20)[0] == "5\n6\n"
    assert waiting.returncode == 0
    deadline = time.monotonic() + 5
    while "web" in run_cli("ps", "-a", "--format", "{{.Names}}").stdout.split():
        assert time.monotonic() < deadline


def test_several_names_each_has_its_turn(run_cli, detached):
    detached("one")
    detached("two")
    done = run_cli("stop", "one", "nosuch", "two")
    assert (done.returncode, done.stdout) == (125, "one\ntwo\n")
    assert done.stderr.startswith("minictr stop: no container nosuch: ")
    assert done.stderr.count("\n") == 1
    done = run_cli("rm", "one", "nosuch", "two")
    assert (done.returncode, done.stdout) == (125, "one\ntwo\n")


def test_an_id_or_its_beginning_is_a_name(run_cli, detached):
    identity = detached("")
    assert run_cli("stop", identity[:6]).stdout == f"{identity[:6]}\n"
    assert run_cli("rm", identity).stdout == f"{identity}\n"


def test_all(run_cli, detached):
    one, two, held = detached("one"), detached("two"), detached("held", verb=("create",))
    assert set(run_cli("stop", "--all").stdout.split()) == {one, two, held}
    assert run_cli("ps", "-q").stdout == ""
    assert set(run_cli("rm", "-a").stdout.split()) == {one, two, held}
    assert run_cli("stop", "-a").stdout == ""


def test_rm_of_one_that_runs_and_of_one_that_waits(run_cli, detached):
    detached("web")
    detached("held", verb=("create",))
    done = run_cli("rm", "web")
    assert (done.returncode, done.stderr) == (125, "minictr rm: rm web: it is running: minictr stop web first\n")
    assert run_cli("rm", "held").returncode == 0
    assert run_cli("rm", "-f", "web", "nosuch").stdout == "web\n"
    assert run_cli("ps", "-aq").stdout == ""


def test_one_whose_monitor_was_killed(run_cli, detached, store):
    identity = detached("web")
    monitor, pid = map(int, run_cli("inspect", "-f", "{{.Monitor.Pid}} {{.State.Pid}}", "web").stdout.split())
    os.kill(monitor, signal.SIGKILL)
    time.sleep(0.2)
    assert status(run_cli, "web").split()[0] in ("running", "exited", "dead")
    assert run_cli("stop", "-t", "1", "web").returncode == 0
    assert gone(pid)
    done = run_cli("wait", "web")
    assert (done.returncode, done.stderr) == (125, "minictr wait: container web is over, and nobody wrote down how\n")
    assert status(run_cli, "web") == "dead <no value>"
    assert run_cli("rm", "web").returncode == 0
    assert identity not in os.listdir(store.containers)


def test_rm_of_one_whose_state_is_damaged_while_it_runs(run_cli, detached, store):
    """Its monitor is alive and holds the lock: what is written ahead in the journal says whom to end."""
    identity = detached("web", options=("-m", "64m"))
    facts = json.loads(run_cli("inspect", "web").stdout)[0]
    with open(f"{store.containers}/{identity}/state.json", "w") as file:
        file.write("{")
    assert run_cli("stop", "web").returncode == 125
    assert os.path.exists(f"/proc/{facts['State']['Pid']}")
    assert run_cli("rm", "-f", "web").returncode == 0
    assert gone(facts["State"]["Pid"])
    deadline = time.monotonic() + 5
    while not gone(facts["Monitor"]["Pid"]):
        assert time.monotonic() < deadline
    for directory in facts["Cgroups"].values():
        assert not os.path.exists(directory)


def test_gc_tells_what_it_removes(run_cli, started, store, written):
    started("web")  # a real one, of this very process
    over = written("over", exit=0)
    os.symlink("c" * 64, f"{store.names}/gone")
    half = "d" * 64
    os.mkdir(f"{store.containers}/{half}")
    done = run_cli("gc")
    assert done.returncode == 0
    assert done.stdout == f"container {half[:12]}: its start was never finished\nname gone of container {'c' * 12}\n"
    assert json.loads(run_cli("gc", "--format", "json").stdout) == []
    assert over in os.listdir(store.containers)
    assert run_cli("inspect", "-f", "{{.State.Status}}", "web").stdout == "running\n"


@pytest.mark.parametrize(
    "words",
    [
        ["stop"], ["kill"], ["rm"], ["wait"], ["pause"], ["unpause"],
        ["stop", "web", "--all"],
        ["stop", "-t", "x", "web"], ["stop", "-t", "-2", "web"], ["stop", "-t", "", "web"],
        ["stop", "-s", "NOPE", "web"],
        ["kill", "-s", "0", "web"], ["kill", "-s", "", "web"], ["kill", "../web"], ["kill", ""], ["kill", "-9", "web"],
        ["rm", "-v", "web"], ["rm", "--link", "web"],
        ["gc", "web"], ["gc", "--format", "xml"],
        ["stop", "nosuch"], ["kill", "nosuch"], ["rm", "nosuch"], ["wait", "nosuch"], ["pause", "nosuch"],
        ["unpause", "nosuch"], ["cleanup"], ["stop", "we\x1bb"], ["stop", "\udcff"], ["stop", "a" * 5000],
    ],
)  # fmt: skip
def test_bad_input(run_cli, written, words):
    written("web")
    done = run_cli(*words)
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr.startswith(f"minictr {words[0]}: ")
    assert done.stderr.count("\n") == 1
    assert "\x1b" not in done.stderr
    assert run_cli("ps", "--format", "{{.Names}} {{.State}}").stdout == "web running\n"
