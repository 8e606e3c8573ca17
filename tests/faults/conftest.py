"""What the tests of this room share: see tests/runtime/boxes.py."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path += [str(Path(__file__).resolve().parent.parent / "runtime"), str(Path(__file__).resolve().parent)]

from boxes import box, eventually, lab, mountinfo, sh, status

__all__ = ["box", "eventually", "lab", "mountinfo", "sh", "status"]
