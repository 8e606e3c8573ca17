"""State that cannot be read: an error that names the file, the others untouched, and ``rm -f`` gets rid of it."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from minictr.runtime.identity import boot_id

DAMAGES = {
    "empty": lambda text: "",
    "truncated": lambda text: text[: len(text) // 2],
    "half written": lambda text: text.rstrip()[:-1],
    "not JSON": lambda text: "hello\n",
    "not text": lambda text: "\udcff\udcfe" * 40,
    "foreign JSON": lambda text: '{"ociVersion": "1.0.2", "id": "web", "status": "running", "pid": 1}\n',
    "a list": lambda text: "[1, 2]\n",
    "newer schema": lambda text: text.replace('"schema": 1', '"schema": 2'),
    "another id": lambda text: json.dumps({**json.loads(text), "id": "f" * 64}),
    "no process": lambda text: json.dumps({k: v for k, v in json.loads(text).items() if k != "process"}),
    "pid as text": lambda text: json.dumps({**json.loads(text), "process": ["1", 1, "x"]}),
    "pid one": lambda text: json.dumps({**json.loads(text), "process": {"pid": 1}}),
    "spec as text": lambda text: json.dumps({**json.loads(text), "spec": "sleep"}),
    "no command": lambda text: json.dumps({**json.loads(text), "spec": {**json.loads(text)["spec"], "argv": []}}),
    "time as text": lambda text: json.dumps({**json.loads(text), "created": "yesterday"}),
    "deep": lambda text: "[" * 100000,
    "NaN": lambda text: text.replace('"started": ', '"started": NaN, "x": '),
}
VERBS = {
    "inspect": [], "stop": [], "kill": [], "rm": [], "wait": [], "pause": [], "unpause": [], "top": [], "attach": [],
    "update": ["--pids-limit", "5"], "start": [], "logs": [], "stats": ["--no-stream"],
}  # fmt: skip


def damage(store, identity, how):
    path = f"{store.containers}/{identity}/state.json"
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        text = file.read()
    with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(DAMAGES[how](text))
    return path


@pytest.mark.parametrize("how", DAMAGES)
def test_one_that_cannot_be_read(run_cli, written, store, how):
    other, broken = written("other"), written("broken")
    path = damage(store, broken, how)
    processes = [json.loads(run_cli("inspect", "other").stdout)[0]["State"]["Pid"]]
    rows = {row["ID"]: row for row in json.loads(run_cli("ps", "-a", "--no-trunc", "--format", "json").stdout)}
    assert set(rows) == {other, broken}
    assert (rows[broken]["State"], rows[broken]["Names"]) == ("damaged", "broken")
    assert path in rows[broken]["Error"]
    assert "Damaged" in run_cli("ps", "-a").stdout
    assert run_cli("ps", "-q").stdout.split() == [other[:12]]
    for verb, words in VERBS.items():
        done = run_cli(verb, "broken", *words)
        assert done.returncode == 125, verb
        assert done.stderr.startswith(f"minictr {verb}: "), verb
        assert done.stderr.count("\n") == 1, done.stderr
        assert path in done.stderr, verb
    both = run_cli("inspect", "broken", "other")
    assert both.returncode == 125
    assert [row["Name"] for row in json.loads(both.stdout)] == ["other"]
    assert os.path.exists(f"/proc/{processes[0]}")
    gc = run_cli("gc")
    assert gc.returncode == 0
    assert os.path.exists(path)
    assert run_cli("rm", "-f", "broken").stdout == "broken\n"
    assert os.listdir(store.containers) == [other]
    assert os.listdir(store.names) == ["other"]
    assert run_cli("ps", "-q").stdout.split() == [other[:12]]


def test_a_process_that_is_another_by_now_is_not_killed(run_cli, written, store):
    """Same pid, other start time: the container is over, and whoever has its pid now is let alone."""
    bystander = subprocess.Popen(["sleep", "1000"])
    try:
        web = written("web", exit=0)
        path = f"{store.containers}/{web}"
        with open(f"{path}/state.json") as file:
            state = json.load(file)
        boot = boot_id()
        with open(f"{path}/state.json", "w") as file:
            json.dump({**state, "process": [bystander.pid, 1, boot]}, file)
        with open(f"{path}/journal", "w") as file:
            file.write(f"process\t{bystander.pid}\t1\t{boot}\ncommitted\n")
        assert run_cli("kill", "web").returncode == 125
        assert run_cli("stop", "web").returncode == 0
        assert run_cli("rm", "-f", "web").returncode == 0
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_other_entries_are_not_looked_at(run_cli, written, store):
    web = written("web")
    os.mkdir(f"{store.containers}/lost+found")
    with open(f"{store.containers}/{'a' * 64}", "w"):
        pass
    os.symlink("/etc", f"{store.containers}/{'b' * 64}")
    os.symlink("../../etc/passwd", f"{store.names}/evil")
    assert run_cli("ps", "-q").stdout.split() == [web[:12]]
    assert run_cli("gc").returncode == 0
    assert run_cli("inspect", "evil").returncode == 125
    for entry in ("lost+found", "a" * 64, "b" * 64):
        assert os.path.lexists(f"{store.containers}/{entry}")
