"""``minictr ps``: who is listed, how, and what a container that cannot be read does to the others."""

from __future__ import annotations

import json
import os
import time

import pytest

HEADINGS = "CONTAINER ID ROOTFS COMMAND CREATED STATUS PORTS NAMES".split()


def names(done):
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_an_empty_store(run_cli, store):
    done = run_cli("ps")
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, HEADINGS, "")
    assert run_cli("ps", "-aq").stdout == ""
    assert json.loads(run_cli("ps", "--format", "json").stdout) == []
    assert not os.path.exists(store.path)


def test_what_runs_and_what_does_not(run_cli, written):
    running, over = written("web"), written("db", exit=3)
    table = run_cli("ps").stdout.splitlines()
    assert len(table) == 2
    assert table[1].startswith(running[:12])
    assert '"sleep 1000"' in table[1]
    assert "/srv/debian" in table[1]
    assert " Up " in table[1]
    assert table[1].endswith(" web")
    newest, oldest = run_cli("ps", "-a").stdout.splitlines()[1:]
    assert newest.startswith(over[:12])
    assert "Exited (3) Less than a second ago" in newest
    assert oldest.startswith(running[:12])
    assert names(run_cli("ps", "-q")) == [running[:12]]
    assert names(run_cli("ps", "-aq", "--no-trunc")) == [over, running]
    assert names(run_cli("ps", "-lq")) == [over[:12]]
    assert names(run_cli("ps", "-qn", "5")) == [over[:12], running[:12]]


def test_every_status(run_cli, written):
    hour = time.time_ns() - 3600 * 10**9
    written("run", created=hour, started=hour)
    written("held", held=True)
    written("over", exit=0)
    written("lost", exit=0)
    lost = json.loads(run_cli("inspect", "lost").stdout)[0]["StateDir"]
    os.unlink(f"{lost}/exit")
    rows = json.loads(run_cli("ps", "-a", "--format", "json").stdout)
    assert {row["Names"]: row["Status"] for row in rows} == {
        "run": "Up About an hour", "held": "Created", "over": "Exited (0) Less than a second ago", "lost": "Dead",
    }  # fmt: skip
    assert {row["Names"]: row["State"] for row in rows} == {
        "run": "running", "held": "created", "over": "exited", "lost": "dead",
    }  # fmt: skip
    assert {row["Names"]: row["ExitCode"] for row in rows if row["Names"] != "over"} == dict.fromkeys(
        ("run", "held", "lost")
    )


def test_long_fields_are_cut(run_cli, written):
    written("web", argv=("sh", "-c", "while sleep 1; do date; done"))
    assert '"sh -c while sleep 1…"' in run_cli("ps").stdout
    assert '"sh -c while sleep 1; do date; done"' in run_cli("ps", "--no-trunc").stdout


def test_filters(run_cli, written):
    web, other, over = written("web-1"), written("web-2"), written("db", exit=3)
    assert set(names(run_cli("ps", "-q", "--filter", "name=web"))) == {web[:12], other[:12]}
    assert names(run_cli("ps", "-q", "--filter", f"id={web[:20]}")) == [web[:12]]
    assert names(run_cli("ps", "-q", "-f", "status=exited")) == [over[:12]]
    assert names(run_cli("ps", "-q", "-f", "exited=3")) == [over[:12]]
    assert names(run_cli("ps", "-aq", "-f", "exited=4")) == []
    assert set(names(run_cli("ps", "-aq", "-f", "name=web-1", "-f", "name=db"))) == {web[:12], over[:12]}
    assert names(run_cli("ps", "-aq", "-f", "name=web", "-f", "status=exited")) == []


def test_templates(run_cli, written):
    web = written("web")
    assert run_cli("ps", "--format", "{{.ID}}={{.Names}}").stdout == f"{web[:12]}=web\n"
    assert run_cli("ps", "--format", r"table {{.Names}}\t{{.State}}").stdout == "NAMES   STATE\nweb     running\n"
    assert json.loads(run_cli("ps", "--format", "{{json .}}").stdout)["Names"] == "web"
    done = run_cli("ps", "--format", "{{.Image}}")
    assert done.returncode == 125
    assert done.stderr.startswith("minictr ps: --format: no field .Image; there are: ID, Rootfs, ")


@pytest.mark.parametrize(
    "words",
    [
        ["web"],
        ["--format", "yaml"],
        ["--format", "{{.ID"],
        ["--filter", "color=red"],
        ["--filter", "status"],
        ["--filter", "status=up"],
        ["--filter", "exited=x"],
        ["-n", "0"],
        ["-n", "x"],
        ["-n", "9" * 30],
        ["--size"],
        ["-z"],
    ],
)
def test_bad_input(run_cli, store, words):
    done = run_cli("ps", *words)
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr.startswith("minictr ps: ")
    assert done.stderr.count("\n") == 1


def test_a_hostile_name_does_not_reach_the_terminal(run_cli, written, store):
    """Who can write the state may do worse; what a program is called and where its root is, others may choose."""
    written("web", argv=("sh", "-c", "\x1b]0;owned\x07\r\nfake"))
    for words in (["ps"], ["ps", "--no-trunc"], ["ps", "--format", "{{.Command}}"], ["inspect", "web"]):
        out = run_cli(*words).stdout
        assert "\x1b" not in out
        assert "\x07" not in out
        assert "\r" not in out
        assert "fake" in out or words == ["ps"]


def test_root_option_and_variable(run_cli, written, tmp_path):
    web = written("web")
    elsewhere = tmp_path / "elsewhere"
    assert names(run_cli("--root", elsewhere, "ps", "-q")) == []
    assert names(run_cli(f"--root={elsewhere.parent / 'state'}", "ps", "-q")) == [web[:12]]
    for words in (["--root"], ["--root=", "ps"], ["--root", "", "ps"]):
        done = run_cli(*words)
        assert done.returncode == 125
        assert done.stderr.startswith("minictr: --root")
    (tmp_path / "state").chmod(0o777)
    done = run_cli("ps")
    assert done.returncode == 125
    assert "is open to others" in done.stderr


@pytest.mark.slow
def test_five_hundred_are_listed_in_a_third_of_a_second(run_cli, written, minictr_cli):
    first = written("box0")
    source = f"{os.environ['MINICTR_ROOT']}/containers"
    with open(f"{source}/{first}/state.json") as file:
        text = file.read()
    for number in range(1, 500):
        identity = f"{number:064x}"
        os.mkdir(f"{source}/{identity}", 0o700)
        with open(f"{source}/{identity}/state.json", "w") as file:
            file.write(text.replace(first, identity).replace("box0", f"box{number}"))
    best = 9.9
    for _ in range(5):
        start = time.monotonic()
        done = run_cli("ps", "-q")
        best = min(best, time.monotonic() - start)
        assert len(done.stdout.split()) == 500
    assert best < 0.3
