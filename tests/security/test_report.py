"""`make security-report`, where it can go wrong: its classes are the program's, and of minictr it tells what holds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import compiled
import pytest

REPORT = Path(__file__).resolve().parent / "report"
# Limits that only a user can choose: docs/security.md says so
OPEN_BY_DEFAULT = {"memory"}


@pytest.fixture(scope="module")
def told(requires):
    """The report as data, of minictr alone."""
    requires.root()
    requires("gcc")
    done = subprocess.run(
        [sys.executable, REPORT, "--json", "--only", "minictr", "--only", "minictr docker"],
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    return json.loads(done.stdout)


def test_its_classes_are_the_programs(told, hostile):
    said = hostile.run(["attempt", "list"], capture_output=True, text=True).stdout
    tried = {name for name, in_report in map(str.split, said.splitlines()) if in_report == "1"}
    assert {row["name"] for row in told["classes"]} == tried
    assert all(set(runtime["classes"]) == tried for runtime in told["runtimes"])


def test_the_default_is_open_where_it_is_said_to_be(told):
    """A class that opens by a change of the default fails here, and has no line in any test of its own."""
    default = next(runtime for runtime in told["runtimes"] if runtime["name"] == "minictr")["classes"]
    opened = {name for name, row in default.items() if row["result"] == compiled.SUCCEEDED}
    assert opened == OPEN_BY_DEFAULT


def test_it_can_tell_that_something_is_open(told):
    docker = next(runtime for runtime in told["runtimes"] if runtime["name"] == "minictr docker")["classes"]
    opened = {name for name, row in docker.items() if row["result"] == compiled.SUCCEEDED}
    assert {"set_user_id", "interrupts", "processes", "terminals"} <= opened


def test_the_page_says_the_same(told):
    """docs/security.md has a row a class, and "OPEN" in minictr's two columns where the report has it."""
    page = (REPORT.parents[2] / "docs" / "security.md").read_text()
    rows = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in page.splitlines()]
    matrix = {row[0]: row for row in rows if len(row) > 8}
    head = next(row for row in matrix.values() if row[:2] == ["class", "if it succeeds"])
    for runtime in told["runtimes"]:
        place = head.index(runtime["name"])
        for kind in told["classes"]:
            opened = runtime["classes"][kind["name"]]["result"] == compiled.SUCCEEDED
            row = matrix[kind["title"]]
            assert (row[1], row[place] == "OPEN") == (kind["severity"], opened), (runtime["name"], row)


def test_a_runtime_that_there_is_not(requires):
    done = subprocess.run([sys.executable, REPORT, "--only", "gvisor"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "gvisor" in done.stderr
