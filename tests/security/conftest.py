"""What the tests of this room share: see tests/runtime/boxes.py."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent / "runtime"))
sys.path.append(str(Path(__file__).resolve().parent / "attempts"))

from boxes import box, eventually, lab, mountinfo, sh, status
from hostile import hostile, tried, walls

__all__ = ["box", "eventually", "hostile", "lab", "mountinfo", "sh", "status", "tried", "walls"]
