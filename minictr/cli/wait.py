"""``minictr wait``: until containers end; prints their exit codes."""

from __future__ import annotations

from minictr.cli.show import each, some, write
from minictr.errors import StateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minictr.runtime.instance import Instance


def wait(opts: dict[str, Any], words: tuple[str, ...]) -> int:
    """Wait for every container named, one after another; a line with each one's exit code."""
    return each("wait", some("wait", words, False, ()), end_of, echo=False)


def end_of(instance: Instance) -> None:
    """Its exit code, as a shell tells it, once it ended."""
    code = instance.wait()
    if code is None:
        raise StateError(f"container {instance.label} is over, and nobody wrote down how")
    write(str(code if code >= 0 else 128 - code))
