"""What the tests of other Pythons share: the containers they live in, and what this session installed for each."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).resolve().parent))

import pythons


@pytest.fixture(scope="session")
def make(
    request: pytest.FixtureRequest, requires: Any, minictr_cli: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[pythons.Inside, list[str]]]:
    """``make("3.13")``: its containers, and the options with which one has minictr installed. Raises NoPython."""
    requires.root()
    requires("mmdebstrap")

    def progress(line: str) -> None:
        plugins = request.config.pluginmanager
        with plugins.getplugin("capturemanager").global_and_fixture_disabled():
            plugins.getplugin("terminalreporter").write_line(f"  {line}")

    def found(version: str) -> tuple[pythons.Inside, list[str]]:
        inside = pythons.Inside(pythons.find(version, progress), minictr_cli, tmp_path_factory.mktemp("python"))
        return inside, inside.installed(progress)

    return found
