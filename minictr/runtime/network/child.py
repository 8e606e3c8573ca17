"""The child of a start, seen from outside while it waits: its namespaces by descriptor."""

from __future__ import annotations

import os

from minictr.errors import StepFailed
from minictr.kernel.handles import shut
from minictr.runtime.process import is_over

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minictr.runtime.launch import Start

__all__ = ["namespace_of"]

ESRCH = 3


def namespace_of(start: Start, kind: str = "net") -> int:
    """The child's namespace; its pid is not another's as long as it runs. Raises StepFailed."""
    path = f"/proc/{start.pid}/ns/{kind}"
    try:
        found = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as err:
        if is_over(start.pidfd, 0):
            start.await_exec()  # raises what it died of
        raise StepFailed(f"open {path}", err.errno or 0) from err
    if is_over(start.pidfd, 0):
        shut(found)
        start.await_exec()  # raises what it died of
        raise StepFailed("give the container its network", ESRCH, cure="it is over already")
    return found
