from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).resolve().parent))

from world import World, world


@pytest.fixture
def net(tmp_path: Path, minictr_cli: list[str], rootfs: Path, requires: Any) -> Iterator[World]:
    """See world.py. At the end nothing of ours may be left in it."""
    requires.root()
    requires("nft")
    with world(tmp_path / "state", minictr_cli, rootfs) as made:
        yield made
    # the containers and networks are removed by now


@pytest.fixture
def etc(own_rootfs: Path) -> Path:
    return own_rootfs / "etc"
