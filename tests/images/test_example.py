"""The example of root file systems does what it says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_minimal_rootfs(requires) -> None:
    requires.root()
    import minictr

    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(Path(minictr.__path__[0]).parent)}
    command = [sys.executable, root / "examples" / "minimal_rootfs.py"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    assert "made from the host: " in done.stdout
    assert done.stdout.splitlines()[-1].endswith(" root nobody")
