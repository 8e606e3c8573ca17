"""``inspect``, ``top``, ``stats``, ``events``: what can be seen of containers, and that it is true."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from waiting import eventually

BUSY = "while :; do :; done"


def facts(run_cli, name):
    done = run_cli("inspect", name)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)[0]


def test_inspect_of_one_that_runs(run_cli, detached, rootfs, store, tmp_path):
    (tmp_path / "data").mkdir()
    options = ("-m", "64m", "-v", f"{tmp_path}/data:/data:ro", "--tmpfs", "/scratch", "-e", "A=1", "-w", "/data")
    identity = detached("web", "sleep", "1000", options=(*options, "--stop-timeout", "3", "-u", "1:1"))
    found = facts(run_cli, "web")
    assert (found["Id"], found["Name"], found["Rootfs"]) == (identity, "web", str(rootfs))
    assert (found["Path"], found["Args"]) == ("sleep", ["1000"])
    state = found["State"]
    assert (state["Status"], state["Running"], state["Paused"], state["Dead"]) == ("running", True, False, False)
    assert (state["ExitCode"], state["FinishedAt"], state["OOMKilled"]) == (None, "", False)
    with open(f"/proc/{state['Pid']}/comm") as file:
        assert file.read() == "minictr-init\n"
    assert found["Namespaces"]["pid"] == {"Link": os.readlink(f"/proc/{state['Pid']}/ns/pid"), "Host": False}
    assert found["Namespaces"]["user"]["Host"] is True
    assert found["Limits"]["memory"]["max"] == 64 << 20
    assert found["Usage"]["memory"]["current"] > 0
    for directory in found["Cgroups"].values():
        assert os.path.isdir(directory)
    mounts = {row["Destination"]: row for row in found["Mounts"]}
    assert (mounts["/data"]["Type"], mounts["/data"]["Source"], mounts["/data"]["RW"]) == (
        "bind",
        f"{tmp_path}/data",
        False,
    )
    assert (mounts["/scratch"]["Type"], mounts["/scratch"]["RW"]) == ("tmpfs", True)
    config = found["Config"]
    assert (config["Cmd"], config["WorkingDir"], config["User"]) == (["sleep", "1000"], "/data", "1:1")
    assert "A=1" in config["Env"]
    assert (config["Hostname"], config["StopTimeout"], config["StopSignal"]) == ("web", 3, signal.SIGTERM)
    assert found["CommandLine"][:4] == ["run", "-d", "--name", "web"]
    assert found["StateDir"] == f"{store.containers}/{identity}"
    assert os.path.exists(found["LogPath"])
    with open(f"/proc/{found['Monitor']['Pid']}/comm") as file:
        assert file.read().startswith("minictr-mon")


def test_inspect_of_one_that_is_over(run_cli, detached):
    detached("web", "sh", "-c", "exit 3")
    run_cli("wait", "web")
    run_cli("stop", "web")
    found = facts(run_cli, "web")
    state = found["State"]
    assert (state["Status"], state["ExitCode"], state["Pid"], state["Signal"]) == ("exited", 3, 0, 0)
    assert state["FinishedAt"] > state["StartedAt"]
    assert found["Namespaces"] == found["Limits"] == {}
    assert found["Usage"]["memory"]["peak"] > 0  # its last readings are kept
    assert found["Monitor"]["Pid"] == 0


def test_inspect_tells_of_an_oom_kill(run_cli, detached):
    detached(
        "web",
        "bash",
        "-c",
        'x=$(head -c 60M /dev/zero | tr "\\0" x); echo ${#x}',
        options=("-m", "16m", "--memory-swap", "16m"),
    )
    run_cli("wait", "web")
    run_cli("stop", "web")
    assert facts(run_cli, "web")["State"]["OOMKilled"] is True


def test_inspect_templates(run_cli, written):
    written("web")
    done = run_cli("inspect", "-f", "{{.Name}} {{.State.Running}} {{json .Args}}", "web", "web")
    assert done.stdout == 'web true ["1000"]\nweb true ["1000"]\n'
    done = run_cli("inspect", "-f", "{{.NetworkSetting}}", "web")
    assert done.returncode == 125
    assert done.stderr.startswith("minictr inspect: --format: no field .NetworkSetting; there are: Id, Name")


def test_top(run_cli, detached):
    detached("web", "sh", "-c", "sleep 1000 & sleep 1000; :")
    heading, *rows = (line.split() for line in run_cli("top", "web").stdout.splitlines())
    assert heading == ["UID", "PID", "PPID", "NSPID", "S", "RSS", "TIME", "TTY", "COMMAND"]
    assert [row[3] for row in rows] == ["1", "2", "3", "4"]
    assert [row[8] for row in rows] == ["minictr-init", "sh", "sleep", "sleep"]
    assert all(os.path.exists(f"/proc/{row[1]}") for row in rows)
    heading, *lines = run_cli("top", "web", "-eo", "pid,comm").stdout.splitlines()
    assert heading.split() == ["PID", "COMMAND"]
    assert sorted(line.split()[1] for line in lines) == ["minictr-init", "sh", "sleep", "sleep"]
    assert {line.split()[0] for line in lines} == {row[1] for row in rows}
    assert run_cli("top", "web", "-eo", "comm").returncode == 125
    assert run_cli("top", "web", "--nonsense").returncode == 125
    run_cli("stop", "-t", "0", "web")
    done = run_cli("top", "web")
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr.startswith("minictr top: top web: it is exited")


def test_stats_count_what_is_written_to_a_disk(run_cli, detached, tmp_path):
    if os.major(tmp_path.stat().st_dev) == 0:
        pytest.skip("temporary files are not on a disk")
    script = "dd if=/dev/zero of=/out/file bs=1M count=4 oflag=dsync status=none; sleep 1000"
    detached("writer", "sh", "-c", script, options=("-v", f"{tmp_path}:/out"))
    detached("without", options=("--without", "io"))

    def read(name):
        return json.loads(run_cli("stats", "--no-stream", "--format", "json", name).stdout)[0]["written_bytes"]

    deadline = time.monotonic() + 10
    while not (written := read("writer")) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert written >= 1 << 20
    assert read("without") is None


def test_stats_of_a_known_load(run_cli, detached):
    """One that may use a fifth of a processor and wants all of it, and one that sleeps."""
    detached("busy", "sh", "-c", BUSY, options=("--cpus", "0.2", "-m", "64m", "--pids-limit", "10"))
    detached("idle")
    time.sleep(0.5)
    rows = {row["Name"]: row for row in json.loads(run_cli("stats", "--no-stream", "--format", "json").stdout)}
    busy, idle = rows["busy"], rows["idle"]
    assert 5 < busy["cpu_percent"] < 40
    assert busy["throttled_percent"] > 50
    assert idle["cpu_percent"] < 5
    assert busy["memory_limit_bytes"] == 64 << 20
    assert 0 < busy["memory_bytes"] < 16 << 20
    assert busy["pids"] == 2
    table = run_cli("stats", "--no-stream", "busy").stdout.splitlines()
    assert table[0].split()[:4] == ["CONTAINER", "ID", "NAME", "CPU"]
    assert "/ 64MiB" in table[1]
    assert len(table) == 2
    assert run_cli("stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}}", "busy").stdout == "busy 2\n"
    done = run_cli("stats", "--no-stream", "busy", "nosuch")
    assert done.returncode == 125
    assert "busy" in done.stdout
    assert done.stderr.count("\n") == 1


def test_stats_of_one_without_cgroups(run_cli, started):
    started("web")
    (row,) = json.loads(run_cli("stats", "--no-stream", "--format", "json").stdout)
    assert (row["CPUPerc"], row["MemUsage"], row["cpu_percent"]) == ("--", "-- / --", None)


def test_stats_goes_on(run_cli, detached, minictr_cli):
    detached("web")
    with subprocess.Popen(
        [*minictr_cli, "stats", "-i", "100ms", "--format", "{{.Name}}"], stdout=subprocess.PIPE, text=True
    ) as watching:
        assert watching.stdout is not None
        for _ in range(3):
            assert watching.stdout.readline() == "web\n"
        watching.send_signal(signal.SIGINT)
        watching.communicate(timeout=10)
    assert watching.returncode == 0


def test_events_of_a_life(run_cli, detached):
    detached("web", "sh", "-c", "exit 3")
    run_cli("wait", "web")
    run_cli("stop", "web")
    run_cli("rename", "web", "www")
    run_cli("start", "www")
    run_cli("wait", "www")
    run_cli("rm", "-f", "www")
    lines = run_cli("events", "--since", "1h", "--no-stream", "--format", "json").stdout.splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["action"] for row in rows] == ["create", "start", "die", "rename", "start", "die", "destroy"]
    assert [row["status"] >> 8 for row in rows if row["action"] == "die"] == [3, 3]
    assert all(one["time"] <= other["time"] for one, other in zip(rows, rows[1:]))
    text = run_cli("events", "--since", "1h", "--no-stream", "--filter", "event=die").stdout.splitlines()
    assert len(text) == 2
    assert text[0].endswith("(name=web, exitCode=3)")
    assert run_cli("events", "--no-stream", "--filter", "container=nosuch").stdout == ""
    template = run_cli("events", "--no-stream", "--filter", "event=rename", "--format", "{{.old}} {{.name}}").stdout
    assert template == "web www\n"


def opened(pid):
    """The paths that PID has open."""
    fds = Path(f"/proc/{pid}/fd")
    return {os.path.realpath(fd) for fd in fds.iterdir()}


def test_events_are_followed(run_cli, detached, minictr_cli, store):
    detached("before")
    with subprocess.Popen(
        [*minictr_cli, "events", "--format", "{{.action}} {{.name}}"], stdout=subprocess.PIPE, text=True
    ) as watching:
        eventually(lambda: f"{store.path}/events" in opened(watching.pid))
        detached("web")
        run_cli("pause", "web")
        assert watching.stdout is not None
        assert [watching.stdout.readline() for _ in range(3)] == ["create web\n", "start web\n", "pause web\n"]
        os.rename(f"{store.path}/events", f"{store.path}/events.1")  # as a rotation does
        run_cli("unpause", "web")
        assert watching.stdout.readline() == "unpause web\n"
        watching.send_signal(signal.SIGINT)
        watching.communicate(timeout=10)
    assert watching.returncode == 130


def test_events_until(run_cli, written, store):
    os.makedirs(store.path, exist_ok=True)
    with open(f"{store.path}/events", "w") as file:
        file.write('{"id": "ab", "name": "x", "action": "start", "time": 1700000000000000000}\n')
        file.write('not JSON\n[1]\n{"time": "late"}\n')
        file.write('{"id": "ab", "name": "\\u001b[31m", "action": "die", "status": 9, "time": 1700000001000000000}\n')
        file.write('{"id": "cut')
    done = run_cli("events", "--until", "1700000000.5")
    assert (done.returncode, done.stdout) == (0, "2023-11-14T22:13:20.000000000Z container start ab (name=x)\n")
    out = run_cli("events", "--since", "1700000000.5", "--no-stream").stdout
    assert out == "2023-11-14T22:13:21.000000000Z container die ab (name=\\x1b[31m, exitCode=137)\n"


@pytest.mark.parametrize(
    "words",
    [
        ["inspect"], ["inspect", "nosuch"], ["inspect", "--type", "image", "web"], ["inspect", "-f", "{{.X", "web"],
        ["inspect", "-f", "yaml", "web"], ["top"], ["top", "nosuch"], ["top", "--format", "json", "web"],
        ["stats", "nosuch"], ["stats", "--format", "xml"], ["stats", "-i", "0"], ["stats", "-i", "x"],
        ["events", "web"], ["events", "--since", "yesterday"], ["events", "--filter", "event=party", "--no-stream"],
        ["events", "--filter", "x", "--no-stream"], ["events", "--format", "xml"], ["logs"], ["logs", "web", "db"],
        ["logs", "nosuch"], ["logs", "--details", "web"], ["logs", "--tail", "x", "web"],
        ["logs", "--since", "x", "web"],
        ["attach"], ["attach", "nosuch"], ["attach", "web", "db"], ["ps", "\x1b"],
    ],
)  # fmt: skip
def test_bad_input(run_cli, written, words):
    written("web")
    done = run_cli(*words)
    assert (done.returncode, done.stdout.replace("[]\n", "")) == (125, "")
    assert done.stderr.startswith(f"minictr {words[0]}: ")
    assert done.stderr.count("\n") == 1
    assert "\x1b" not in done.stderr
