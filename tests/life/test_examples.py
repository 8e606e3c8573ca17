"""The examples that need a whole Debian do what they say, and leave the host as it was."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import minictr

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SAYS = {
    "service": [
        "answers: 200",
        "memory: below its limit of 128 MiB: True",
        "stopped: exited, exit code 0",
        "workers started",
        "left: []",
    ],
    "system_container": [
        "system: running, PID 1 is systemd",
        "failed: nothing",
        "journal: hello from inside",
        "paused: paused, processor time used meanwhile: 0",
        "limit: 512 MiB",
        "rebooted: another boot id",
        "stopped by its own signal: exit code 0, ",
        "left: []",
    ],
}


@pytest.mark.parametrize("name", SAYS)
def test_example(name: str, debian_root: Callable[[str], Path], tmp_path: Path) -> None:
    source, state = str(Path(minictr.__path__[0]).parent), str(tmp_path / "state")
    environment = {**os.environ, "PYTHONPATH": source, "MINICTR_ROOT": state}
    command = [sys.executable, "-W", "error", str(EXAMPLES / f"{name}.py")]
    wrong = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert f"python {name}.py ./debian" in wrong.stderr
    command.append(str(debian_root("systemd")))
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    rest = done.stdout
    for proof in SAYS[name]:
        before, found, rest = rest.partition(proof)
        assert found, f"no {proof!r} after {before!r}"
    assert [*Path(state).glob("containers/*"), *Path(state).glob("names/*")] == []
