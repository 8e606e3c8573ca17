"""The one door to the C core: ``ffi`` and ``lib`` of ``minictr._core._native``, and the check of every return.

Source: ``minictr/_core/core.h``. Functions there return ``-errno`` and never set ``errno``.
"""

from __future__ import annotations

from minictr._core._native import ffi, lib
from minictr.errors import StepFailed

__all__ = ["check", "ffi", "lib"]


def check(result: int, what: str, cure: str = "") -> int:
    """RESULT if it is no error; otherwise :class:`minictr.errors.StepFailed` naming WHAT was attempted on what."""
    if result < 0:
        raise StepFailed(what, -result, cure=cure)
    return result
