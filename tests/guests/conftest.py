"""What the tests in guests share, and the lines at the end of a session that tell what ran inside."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).resolve().parent))

TOLD = "told"  # a property of a test: its report has it, also where another session shows it (house/beside.py)


@pytest.fixture(scope="session")
def guest_kernel(requires: Any) -> None:
    """User-mode Linux, which has to be installed. What QEMU boots is fetched where it can be (kernels.py)."""
    if platform.machine() != "x86_64":
        pytest.skip("User-mode Linux is for x86 only")
    requires("linux.uml", "insmod", "pivot_root", "mkswap")


@pytest.fixture
def kept(run_cli: Any, box: Any, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """``kept("run", ...)``: a verb on the containers of this test alone."""
    environment = {**os.environ, "MINICTR_ROOT": str(tmp_path / "state")}

    def verb(*arguments: str) -> Any:
        return run_cli(*arguments, env=environment)

    yield verb
    verb("rm", "-f", "lab")


@pytest.fixture
def told(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """Lines for the end of the session."""
    lines: list[str] = []
    yield lines
    request.node.user_properties += [(TOLD, line) for line in lines]


def is_end(report: object) -> bool:
    return isinstance(report, pytest.TestReport) and report.when == "teardown"


def pytest_terminal_summary(terminalreporter: Any) -> None:
    ends = (report for reports in terminalreporter.stats.values() for report in reports if is_end(report))
    if lines := [line for end in ends for name, line in end.user_properties if name == TOLD]:
        terminalreporter.section("inside the guests")
        for line in lines:
            terminalreporter.line(line)
