"""Both ends of a copy, for the tests of copies."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from minictr.runtime.copying import Copied, copy_in, copy_out, stopped_root


class Ends:
    """A host directory and a root, and a copy in either direction between them by relative paths."""

    def __init__(self, house: Path, inwards: bool) -> None:
        self.host, self.root, self.inwards = house / "host", house / "root", inwards
        for path in (self.host, self.root):
            path.mkdir()
        self.fd = stopped_root(str(self.root))

    @property
    def source(self) -> Path:
        return self.host if self.inwards else self.root

    @property
    def target(self) -> Path:
        return self.root if self.inwards else self.host

    def copy(self, source: str, dest: str, **options: object) -> Copied:
        if self.inwards:
            return copy_in(f"{self.host}/{source}", self.fd, dest, name="box", **options)  # type: ignore[arg-type]
        return copy_out(self.fd, source, f"{self.host}/{dest}", name="box", **options)  # type: ignore[arg-type]


@pytest.fixture(params=["in", "out"])
def ends(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ends]:
    made = Ends(tmp_path, request.param == "in")
    yield made
    os.close(made.fd)


def names(path: Path) -> list[str]:
    """Everything below PATH."""
    return sorted(str(found.relative_to(path)) for found in path.rglob("*"))
