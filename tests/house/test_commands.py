"""The two commands, and what they are made of."""

from __future__ import annotations

import os
import re
import subprocess

import pytest
import sources

pytestmark = [pytest.mark.lint, pytest.mark.beside]

TARGETS = "help install demo test test-faults test-bench test-matrix lint guest bench security-report clean".split()
PROGRAMS = ("scripts/bootstrap.sh", "scripts/demo.sh", "scripts/minictr", ".ci/run")


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")} | environment
    return subprocess.run(command, cwd=sources.ROOT, env=env, capture_output=True, text=True, check=False)


def test_make_alone_lists_every_target() -> None:
    answer = run("make")
    assert answer.returncode == 0, answer.stderr
    assert re.findall(r"^  make ([\w-]+) +\S", answer.stdout, re.MULTILINE) == TARGETS


@pytest.mark.parametrize("text", ["README.md", "Makefile", *("scripts/demo.sh", "scripts/bootstrap.sh")])
def test_every_target_that_is_named_exists(text: str) -> None:
    named = set(re.findall(r"`make ([\w-]+)|^make ([\w-]+)", (sources.ROOT / text).read_text(), re.MULTILINE))
    assert {first or second for first, second in named} <= set(TARGETS)


@pytest.mark.parametrize("program", PROGRAMS)
def test_it_is_executable_and_a_script(program: str) -> None:
    path = sources.ROOT / program
    assert os.access(path, os.X_OK)
    first, _, rest = path.read_text().partition("\n")
    assert first in ("#!/bin/sh", "#!/bin/bash")
    if "import" not in rest:  # the launcher is a shell's program in its first lines and Python's in all of them
        answer = run(first.removeprefix("#!"), "-n", program)
        assert answer.returncode == 0, answer.stderr


def test_bootstrap_is_silent_when_all_is_there() -> None:
    """And asks no package server: it must stay quick enough to stand before every target."""
    answer = run("scripts/bootstrap.sh", "test")
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")


def test_bootstrap_finds_a_python() -> None:
    answer = run("scripts/bootstrap.sh", "--python")
    assert answer.returncode == 0, answer.stderr
    version = run(answer.stdout.strip(), "-c", "import sys; print(sys.version_info >= (3, 11))")
    assert version.stdout == "True\n"


def test_bootstrap_refuses_what_it_does_not_know() -> None:
    answer = run("scripts/bootstrap.sh", "everything")
    assert answer.returncode == 2
    assert "no such set: everything" in answer.stderr
