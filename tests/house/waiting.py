"""Waiting for what the kernel, or another process, does in its own time."""

from __future__ import annotations

import time
from collections.abc import Callable


def eventually(
    check: Callable[[], object], seconds: float = 10, what: str | Callable[[], object] = "", pause: float = 0.01
) -> None:
    """CHECK comes true within SECONDS; a failure says WHAT did not."""
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() > deadline:
            raise AssertionError(f"it never came true: {what() if callable(what) else what}".rstrip(": "))
        time.sleep(pause)
