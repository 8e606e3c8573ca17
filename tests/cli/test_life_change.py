"""``pause``, ``unpause``, ``update``, ``rename``, ``start``, ``generate``: what is done to containers that stay."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest
from waiting import eventually

import minictr as mc


def facts(run_cli, name):
    return json.loads(run_cli("inspect", name).stdout)[0]


def limits(run_cli, name):
    return facts(run_cli, name)["Limits"]


def test_pause_and_unpause(run_cli, detached):
    detached("web", "sh", "-c", "while :; do date +%s%N > /dev/shm/now; sleep 0.02; done")
    shared = f"/proc/{facts(run_cli, 'web')['State']['Pid']}/root/dev/shm/now"
    assert run_cli("pause", "web").stdout == "web\n"
    assert "(Paused)" in run_cli("ps").stdout
    assert facts(run_cli, "web")["State"]["Paused"] is True
    first = os.stat(shared).st_mtime_ns
    time.sleep(0.2)
    assert os.stat(shared).st_mtime_ns == first
    done = run_cli("pause", "web")
    assert (done.returncode, done.stderr) == (
        125,
        "minictr pause: pause web: it is paused: minictr unpause web first\n",
    )
    assert run_cli("unpause", "--all").returncode == 0
    time.sleep(0.2)
    assert os.stat(shared).st_mtime_ns != first
    assert run_cli("unpause", "web").returncode == 125


def test_pause_without_a_freezer(run_cli, detached):
    detached("web", options=("--without", "freezer"))
    done = run_cli("pause", "web")
    assert done.returncode == 125
    assert "it was started without the feature freezer" in done.stderr


def test_update(run_cli, detached):
    detached("web", options=("-m", "64m", "--pids-limit", "50"))
    done = run_cli("update", "web", "-m", "128m", "--memory-swap", "160m", "--pids-limit=70", "--cpus", "1.5")
    assert (done.returncode, done.stdout) == (0, "web\n")
    found = limits(run_cli, "web")
    assert (found["memory"]["max"], found["memory"]["swap"]) == (128 << 20, 32 << 20)
    assert found["pids"]["max"] == 70
    assert found["cpu"]["quota"] == 150_000
    assert run_cli("update", "web", "--cpu-shares", "512").returncode == 0
    again = limits(run_cli, "web")["cpu"]
    assert again["quota"] == 150_000
    assert again.get("shares") == 512 or again["weight"] < 100
    assert run_cli("update", "web", "--memory-swap=-1", "-m", "128m").returncode == 0
    assert limits(run_cli, "web")["memory"]["swap"] == -1


def test_update_holds_after_the_next_start(run_cli, detached):
    detached("web", options=("--pids-limit", "50"))
    assert run_cli("stop", "web").returncode == 0
    assert limits(run_cli, "web") == {}
    assert run_cli("update", "web", "--pids-limit", "33").returncode == 0
    assert run_cli("start", "web").stdout == "web\n"
    assert limits(run_cli, "web")["pids"]["max"] == 33


def test_update_is_all_or_nothing(run_cli, detached):
    """Memory cannot go below what is in use and cannot be swapped out: what was written before is put back."""
    detached("web", "sh", "-c", "head -c 20M /dev/zero > /dev/shm/big; exec sleep 1000", options=("-m", "64m"))
    deadline = time.monotonic() + 10
    while mc.container("web").stats().memory.current < 20 << 20:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    before, text = limits(run_cli, "web"), facts(run_cli, "web")["Features"]
    done = run_cli("update", "web", "--pids-limit", "77", "--cpus", "0.3", "-m", "4m", "--memory-swap", "4m")
    if done.returncode == 0:
        pytest.fail("this kernel took the limit")
    assert done.returncode == 125
    assert "memory.limit_in_bytes" in done.stderr or "memory." in done.stderr
    assert limits(run_cli, "web") == before
    assert facts(run_cli, "web")["Features"] == text
    assert run_cli("ps", "-q").stdout != ""


@pytest.mark.parametrize(
    "words",
    [
        [], ["web"], ["-m", "64m"], ["web", "-m", "lots"], ["web", "--cpus", "0"], ["web", "--cpus", "-1"],
        ["web", "--pids-limit", "x"], ["web", "--cpuset-cpus", "9999"], ["web", "--blkio-weight", "5"],
        ["web", "--device", "/dev/null"], ["web", "--memory-swap", "1m", "-m", "2m"], ["nosuch", "-m", "64m"],
        ["web", "--cgroup-conf", "cgroup.procs=1"], ["web", "--cgroup-parent", "x"], ["web", "--cpu-quota", "1"],
    ],
)  # fmt: skip
def test_update_refuses(run_cli, detached, words):
    detached("web", options=("--pids-limit", "50"))
    before = limits(run_cli, "web")
    done = run_cli("update", *words)
    if words == ["web", "--cpus", "0"]:  # docker's word for none
        assert done.returncode in (0, 125)
        return
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr.startswith("minictr update: ")
    assert done.stderr.count("\n") == 1
    assert limits(run_cli, "web") == before


def test_update_from_python(detached):
    detached("web", options=("--pids-limit", "50", "-m", "64m"))
    web = mc.container("web")
    web.update(memory="128M", swap=0, pids=60, cpus=0.5)
    assert web.stats().memory.limit == 128 << 20
    assert web.stats().pids.limit == 60
    web.update(mc.Cpu(quota=20_000), mc.Memory(low="16M"))
    assert web.inspect()["Limits"]["cpu"]["quota"] == 20_000
    assert web.stats().memory.limit == 128 << 20
    for wrong in ({"cpuset": "0"}, {"colour": 1}, {"pids": 0}, {"memory": "lots"}):
        with pytest.raises(mc.SpecError):
            web.update(**wrong)
    with pytest.raises(mc.SpecError, match="hostname is no limit"):
        web.update(mc.Hostname("x"))


def test_rename(run_cli, detached, store):
    identity, other = detached("web"), detached("db")
    assert run_cli("rename", "web", "www").returncode == 0
    assert run_cli("inspect", "-f", "{{.Name}} {{.Id}}", "www").stdout == f"www {identity}\n"
    assert sorted(os.listdir(store.names)) == ["db", "www"]
    assert run_cli("inspect", "web").returncode == 125
    for words in (
        ["www", "db"],
        ["www", "www"],
        ["www", ""],
        ["www", "a/b"],
        ["www"],
        ["www", "a", "b"],
        ["www", "-x"],
    ):
        done = run_cli("rename", *words)
        assert (done.returncode, done.stdout) == (125, ""), words
        assert done.stderr.count("\n") == 1
    assert sorted(os.listdir(store.names)) == ["db", "www"]
    assert run_cli("inspect", "-f", "{{.Id}}", "db").stdout == f"{other}\n"


def test_start_again(run_cli, detached):
    identity = detached("web", "sh", "-c", "exit 4")
    assert run_cli("wait", "web").stdout == "4\n"
    created = facts(run_cli, "web")["Created"]
    assert run_cli("start", "web").stdout == "web\n"
    assert run_cli("wait", "web").stdout == "4\n"
    again = facts(run_cli, "web")
    assert (again["Id"], again["Created"]) == (identity, created)
    detached("up")
    done = run_cli("start", "up", "web")
    assert (done.returncode, done.stdout) == (125, "web\n")
    assert done.stderr == "minictr start: start up: it is running already\n"


@pytest.mark.parametrize(
    "words", [[], ["nosuch"], ["-a"], ["-a", "web", "db"], ["--detach-keys", "ctrl-x", "web"], ["-x"]]
)
def test_start_refuses(run_cli, written, words):
    written("web", exit=0)
    done = run_cli("start", *words)
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr.startswith("minictr start: ")
    assert done.stderr.count("\n") == 1


def test_a_unit_for_systemd(run_cli, detached, rootfs, store, tmp_path, requires, monkeypatch):
    monkeypatch.chdir(tmp_path)
    detached(
        "web", "sh", "-c", 'echo "$A" 100%; exit 3', options=("-m64m", "-e", 'A=a "b" $c', "--log-opt", "max-size=1m")
    )
    done = run_cli("generate", "systemd", "web", "--restart-policy", "always", "--time", "4")
    assert done.returncode == 0
    text = done.stdout
    for line in ("Type=exec", "KillMode=mixed", "KillSignal=SIGTERM", "TimeoutStopSec=4", "Restart=always"):
        assert f"\n{line}\n" in text
    assert f"\nRequiresMountsFor={rootfs}\n" in text
    start = next(line for line in text.splitlines() if line.startswith("ExecStart="))
    assert " -d" not in start
    assert "--log-opt" not in start
    assert ' -e "A=a \\"b\\" $$c" ' in start
    assert start.endswith(' -- sh -c "echo \\"$$A\\" 100%%; exit 3"')
    done = run_cli("generate", "systemd", "web", "--files", "--new")
    path = tmp_path / "minictr-web.service"
    assert done.stdout == f"{path}\n"
    verify = subprocess.run(
        [requires("systemd-analyze"), "verify", str(path)], capture_output=True, text=True, check=False
    )
    assert (verify.returncode, verify.stderr) == (0, "")
    assert run_cli("generate", "systemd", "web", "--files").returncode == 0  # our own is replaced
    path.write_text("somebody else's\n")
    assert run_cli("generate", "systemd", "web", "--files").returncode == 125
    assert path.read_text() == "somebody else's\n"
    # what the unit says does what the container did
    words = start.removeprefix("ExecStart=").split(" run ")[0].split()
    import shlex

    command = shlex.split(start.split(" run ", 1)[1].replace("$$", "$").replace("%%", "%"))
    ran = subprocess.run([*words, "run", *command], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (3, 'a "b" $c 100%\n')


@pytest.mark.parametrize(
    "words",
    [
        [], ["web"], ["kube", "web"], ["systemd"], ["systemd", "nosuch"],
        ["systemd", "web", "--restart-policy", "maybe"],
        ["systemd", "web"], ["systemd", "web", "--time", "x"], ["systemd", "web", "--format", "json"],
    ],
)  # fmt: skip
def test_units_that_cannot_be(run_cli, written, words):
    written("web")  # not made by a command line
    done = run_cli("generate", *words)
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr.startswith("minictr generate: ")
    assert done.stderr.count("\n") == 1


def test_python_has_the_same_life(detached, run_cli):
    detached("web", "sh", "-c", "echo out; sleep 1000")
    (web,) = mc.containers()
    assert (web.name, web.status, web.running) == ("web", "running", True)
    eventually(lambda: [row.command for row in web.top()][-1] == "sleep 1000")
    web.pause()
    assert web.status == "paused"
    web.unpause()
    web.rename("www")
    assert mc.container("www") == web
    web.kill(15)
    assert web.wait(10) in (-15, 143 - 128, 0) or web.exit_code == 143
    assert [event["action"] for event in web.events()][-2:] in (["kill", "die"], ["die", "kill"])
    assert mc.containers() == []
    (again,) = mc.containers(all=True)
    again.start()
    assert again.status == "running"
    with pytest.raises(mc.WrongStatus):
        again.start()
    again.stop(0.1)
    again.remove()
    with pytest.raises(mc.NoSuchContainer):
        mc.container("www")
    assert sys.getrefcount(again)
