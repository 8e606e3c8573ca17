"""What several tests of the bench need."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import rootfs
from bench.micro import program
from bench.stage import Stage
from minictr.kernel import nftables

sys.path.append(str(Path(__file__).parent))  # known.py: results with a known truth; places.py: environments


@pytest.fixture(autouse=True)
def _one_socket_for_rules() -> Iterator[None]:
    """minictr keeps its socket for rules as long as the process lives, one at most: a test ends without."""
    yield
    if nftables._kept is not None:
        nftables._kept[1].close()
        nftables._kept = None


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """Over a root of this machine's programs, which nobody has written to in the end."""
    with Stage(rootfs.MINIMAL) as it:
        yield it
        assert it.touched() == ""


@pytest.fixture
def small_disk(tmp_path: Path, requires) -> Iterator[Path]:
    """An empty tmpfs of 1 MiB."""
    requires.root()
    path = tmp_path / "small-disk"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1M", "minictr-bench-test", str(path)], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", str(path)], check=True)


@pytest.fixture(scope="module")
def programs() -> Iterator[Path]:
    """The programs of the micro tier, micro and counter, and the files that micro works on, at /data below it."""
    with tempfile.TemporaryDirectory(prefix="minictr-test-micro-", dir="/var/tmp") as path:
        program.furnish(path, program.LIGHT)
        program.compiled(path, "counter")
        os.mkdir(f"{path}/work")
        yield Path(path)
