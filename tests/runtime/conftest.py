"""What the tests of this room share: see tests/runtime/boxes.py, ends.py and joined.py."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent / "runtime"))

from boxes import box, lab, mountinfo, sh, status
from detached import detached, plain
from ends import ends
from joined import inside
from notifying import asks, made, nothing_left

__all__ = [
    "asks",
    "box",
    "detached",
    "ends",
    "inside",
    "lab",
    "made",
    "mountinfo",
    "nothing_left",
    "plain",
    "sh",
    "status",
]
