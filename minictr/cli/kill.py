"""``minictr kill``: a signal to containers."""

from __future__ import annotations

from minictr.cli.show import each, some
from minictr.cli.stop import signal_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SIGKILL = 9


def kill(opts: dict[str, Any], words: tuple[str, ...]) -> int:
    """Send the signal, KILL when none is named, to the first process of every container named."""
    signal, every = signal_of(opts, SIGKILL), bool(opts.get("all_processes"))
    names = some("kill", words, bool(opts.get("all")), ("created", "running", "paused"))
    return each("kill", names, lambda instance: instance.kill(signal or SIGKILL, every=every))
