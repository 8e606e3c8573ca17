"""Formatting, lint and types, by the tools themselves. Settings: pyproject.toml."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import sources

pytestmark = [pytest.mark.lint, pytest.mark.beside]

PYTHON = [top for top in (*sources.CODE, "setup.py") if (sources.ROOT / top).exists()]


def run_tool(tool: str, *arguments: str) -> None:
    """Runs a tool of the test extra at the repository's root; its output is the failure's text."""
    beside = Path(sys.executable).parent / tool
    command = [str(beside) if beside.exists() else tool, *arguments]
    environment = {**os.environ, "NO_COLOR": "1", "PYTHONPATH": str(sources.ROOT)}
    answer = subprocess.run(
        command,
        cwd=sources.ROOT,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    if answer.returncode:
        pytest.fail(f"{' '.join([tool, *arguments])}\n{answer.stdout}", pytrace=False)


def test_ruff_finds_nothing() -> None:
    run_tool("ruff", "check", "--quiet", *PYTHON)


def test_everything_is_formatted() -> None:
    run_tool("ruff", "format", "--check", "--quiet", "--diff", *PYTHON)


@pytest.mark.timeout(300)
def test_types_are_strict() -> None:
    run_tool("mypy", "--no-error-summary", "--no-color-output")


def test_imports_run_one_way() -> None:
    run_tool("lint-imports", "--no-cache")
