"""What the tests of whole systems share: the roots they live in, and a place for their state."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).resolve().parent))

import debianroots
from systems import Life

Lives = Callable[[str], "AbstractContextManager[Life]"]


@pytest.fixture(scope="session")
def debian_root(request: pytest.FixtureRequest, requires: Any) -> Iterator[Callable[[str], Path]]:
    """``debian_root("systemd")``: a root of debianroots.PACKAGES, as it was built; in the end it still is."""
    requires.root()
    requires("mmdebstrap")
    used: set[Path] = set()

    def progress(line: str) -> None:
        plugins = request.config.pluginmanager
        with plugins.getplugin("capturemanager").global_and_fixture_disabled():
            plugins.getplugin("terminalreporter").write_line(f"  {line}")

    def root(kind: str) -> Path:
        try:
            path = debianroots.root(kind, progress)
        except debianroots.NoMirror as err:
            pytest.skip(str(err))
        used.add(path)
        return path

    yield root
    assert [path for path in used if not debianroots.is_untouched(path)] == []


@pytest.fixture(scope="session")
def lives(
    debian_root: Callable[[str], Path], run_cli: Any, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], AbstractContextManager[Life]]:
    """``with lives("systemd") as life``: containers of that root, and nothing of them at the end."""

    @contextmanager
    def live(kind: str) -> Iterator[Life]:
        life = Life(run_cli, tmp_path_factory.mktemp("life"), debian_root(kind))
        try:
            yield life
        finally:
            life.close()

    return live
