"""What the tests of this room share: see tests/runtime/boxes.py and ends.py."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent / "runtime"))

from boxes import box, eventually, lab, mountinfo, sh, status
from detached import detached, plain
from ends import ends

__all__ = ["box", "detached", "ends", "eventually", "lab", "mountinfo", "plain", "sh", "status"]
