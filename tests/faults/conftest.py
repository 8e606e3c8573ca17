"""What the tests of this room share (see tests/runtime/boxes.py), and the table at the session's end."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path += [str(Path(__file__).resolve().parent.parent / "runtime"), str(Path(__file__).resolve().parent)]

import table
from boxes import box, lab, mountinfo, sh, status

__all__ = ["box", "lab", "mountinfo", "sh", "status"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    lines = table.text()
    if lines:
        terminalreporter.section("faults", bold=True)
    for line in lines:
        terminalreporter.line(line)
