"""Help, completion, the overview of features, the version."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from minictr import __version__
from minictr.cli import options
from minictr.cli.main import VERBS


@pytest.mark.parametrize("verb", ["run", "plan", "create"])
def test_help_of_the_hot_verbs(run_cli, verb):
    done = run_cli(verb, "--help", env={**os.environ, "COLUMNS": "200"})
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    groups = [line.rstrip(":") for line in lines if line and not line.startswith(" ") and line.endswith(":")]
    table = options.TABLES[verb]
    assert groups == [group for group in options.GROUPS if any(row[5] == group for row in table)]
    for flags, *_ in table:
        for flag in flags:
            for spelling in flag.split("/"):
                assert any(spelling in line.replace(",", " ").replace("[", " ").split() for line in lines), spelling
    assert len(lines) < 136


def test_each_option_is_one_line_of_help(run_cli):
    done = run_cli("run", "--help")
    shown = [line for line in done.stdout.splitlines() if line.startswith("  -")]
    assert len(shown) == len(options.TABLES["run"])
    assert not [line for line in done.stdout.splitlines() if line.startswith("     ")]


@pytest.mark.parametrize("words", [["--help"], []])
def test_the_overview(run_cli, words):
    done = run_cli(*words)
    assert done.returncode == 0
    for verb in VERBS:
        assert f"\n  {verb} " in done.stdout
    assert "cleanup" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


@pytest.mark.parametrize("words", [["version"], ["--version"]])
def test_version(run_cli, words):
    assert run_cli(*words).stdout == f"minictr {__version__}\n"


def test_features(run_cli):
    from minictr.features import REGISTRY

    rows = json.loads(run_cli("features", "--format", "json").stdout)
    assert [row["name"] for row in rows] == list(REGISTRY)
    for row in rows:
        assert row["summary"]
        assert row["supported"] in (True, False)
        assert row["supported"] or row["reason"]
    text = run_cli("features")
    assert text.returncode == 0
    assert max(map(len, text.stdout.splitlines())) <= 80
    assert run_cli("features", "proc").stdout.split()[:2] in (["proc", "yes"], ["proc", "no"])
    assert run_cli("features", "nosuch").returncode == 125


# --- completion ---


def complete(run_cli, shell, *words):
    """What SHELL is offered for the last of WORDS."""
    env = {**os.environ, "_MINICTR_COMPLETE": f"{shell}_complete", "COMP_WORDS": " ".join(["minictr", *words])}
    env["COMP_CWORD"] = words[-1] if shell == "fish" else str(len(words))
    answer = run_cli(env=env).stdout.splitlines()
    return [line.split(",", 1)[1] if shell in ("bash", "fish") else line for line in answer]


def test_verbs_and_options_are_completed(run_cli):
    assert complete(run_cli, "bash", "pl") == ["plan"]
    assert complete(run_cli, "bash", "run", "--cap-") == ["--cap-add", "--cap-drop"]
    assert complete(run_cli, "bash", "run", "--profile", "d") == ["docker", "default"]
    assert complete(run_cli, "bash", "run", "--without", "hostn") == ["hostname", "hostname_file"]
    assert complete(run_cli, "bash", "run", "--net", "h") == ["host"]
    assert "NET_RAW" in complete(run_cli, "bash", "run", "--cap-add", "net")
    assert complete(run_cli, "fish", "run", "--profile", "lx") == ["lxc"]
    assert "plan" in complete(run_cli, "zsh", "pl")


def test_programs_of_the_root_are_completed(run_cli, rootfs):
    assert "bash" in complete(run_cli, "bash", "run", "--rootfs", str(rootfs), "bas")


def test_containers_are_completed(run_cli, written):
    """Those that the verb can be done with, each once; an id where there is no name."""
    written("web")
    written("was", exit=0)
    nameless = written("")
    assert complete(run_cli, "bash", "stop", "w") == ["web"]
    assert complete(run_cli, "bash", "start", "w") == ["was"]
    assert sorted(complete(run_cli, "fish", "rm", "w")) == ["was", "web"]
    assert complete(run_cli, "bash", "rm", "web", "w") == ["was"]
    assert complete(run_cli, "fish", "inspect", nameless[:4]) == [nameless[:12]]
    assert complete(run_cli, "bash", "stop", "--sig") == ["--signal"]
    assert complete(run_cli, "bash", "kill", "-s", "US") == ["USR1", "USR2"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(run_cli, shell):
    script = run_cli("completion", shell).stdout
    assert "_MINICTR_COMPLETE" in script
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)
