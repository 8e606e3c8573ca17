"""``minictr plan``: takes what ``run`` takes, prints, does nothing."""

from __future__ import annotations

import json
import re
import subprocess

import pytest


def test_one_line_a_step(run_cli, rootfs):
    done = run_cli("plan", "--rootfs", rootfs, "--", "bash", "-c", "true")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [int(line.split()[0]) for line in lines] == list(range(1, len(lines) + 1))
    assert re.search(r"setup +mount +proc on /proc +proc$", done.stdout, re.MULTILINE)
    assert lines[-1].split()[1:3] == ["exec", "exec"]


def test_json_is_the_same_plan(run_cli, rootfs):
    words = ["--rootfs", rootfs, "--no-init", "-v", "/tmp:/mnt", "--", "true"]
    text = run_cli("plan", *words).stdout
    rows = json.loads(run_cli("plan", "--format", "json", *words).stdout)
    assert [row["call"] for row in rows] == [line.split()[2] for line in text.splitlines()]
    assert "init" not in {row["feature"] for row in rows}
    assert "bind" in {row["feature"] for row in rows}


def test_without_removes_its_steps_and_nothing_else(run_cli, rootfs):
    def steps(*options):
        return json.loads(run_cli("plan", "--format=json", "--rootfs", rootfs, *options, "true").stdout)

    plain, less = steps(), steps("--without", "mqueue")
    assert [row["feature"] for row in plain if row["feature"] != "mqueue"] == [row["feature"] for row in less]
    assert len(less) < len(plain)


def test_difference_to_a_profile(run_cli, rootfs):
    same = run_cli("plan", "--rootfs", rootfs, "--diff", "default", "true")
    assert (same.returncode, same.stdout) == (0, "")
    done = run_cli("plan", "--rootfs", rootfs, "--without", "mqueue", "--tmpfs", "/run", "--diff", "default", "true")
    changed = {line.split()[-1] for line in done.stdout.splitlines() if line.startswith(("-", "+"))}
    assert {"mqueue", "tmpfs"} <= changed
    rows = json.loads(
        run_cli(
            "plan", "--rootfs", rootfs, "--without", "mqueue", "--diff", "default", "--format", "json", "true"
        ).stdout
    )
    assert "mqueue" in {row["feature"] for row in rows["removed"]}


@pytest.mark.parametrize("words", [["--format", "xml"], ["--diff", "nosuch"], ["--profile", "nosuch"], ["--nosuch"]])
def test_bad_input(run_cli, rootfs, words):
    done = run_cli("plan", "--rootfs", rootfs, *words, "true")
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr.startswith("minictr plan: ")
    assert done.stderr.count("\n") == 1


def test_a_reader_that_leaves_is_no_traceback(run_cli, rootfs, minictr_cli):
    line = f"{' '.join(minictr_cli)} plan --format json --rootfs {rootfs} true | head -c 10"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_a_full_disk_is_one_line(run_cli, rootfs):
    for words in (["plan", "--rootfs", rootfs, "true"], ["features"], ["version"], ["run", "--help"]):
        with open("/dev/full", "w") as full:
            done = run_cli(*words, stdout=full, stderr=subprocess.PIPE)
        assert done.returncode == 125, words
        assert done.stderr.count("\n") == 1, done.stderr
        assert "No space left" in done.stderr


def test_arguments_cannot_write_to_the_terminal(run_cli, rootfs):
    done = run_cli(
        "plan", "--rootfs", rootfs, "--", "echo", "\x1b]0;owned\x07", b"\xff".decode(errors="surrogateescape")
    )
    assert done.returncode == 0
    assert "\\x1b]0;owned" in done.stdout
    assert "\x1b" not in done.stdout
