"""``lab``: a machine with an ordinary user, one for a file of tests. See lab.py."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).resolve().parent))

import lab as labs


@pytest.fixture(scope="module")
def machine(rootfs: Path, requires: Any) -> Iterator[labs.Lab]:
    requires.root()
    requires("ip", "nsenter", "setpriv", "unshare", "newuidmap", "newgidmap")
    with labs.lab(rootfs) as made:
        yield made


@pytest.fixture
def lab(machine: labs.Lab) -> Iterator[labs.Lab]:
    """With no container of the user's, before and after."""
    yield machine
    machine.clean()
    assert not machine.pastas()
    assert machine.containers() == []
