"""Undo in reverse order, whatever happened: a small ExitStack (``contextlib`` costs 3 ms on a cold start)."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Self


class Undo:
    """Callbacks that run in reverse order on ``close()`` or at the end of ``with``; each runs though another failed."""

    def __init__(self) -> None:
        self._callbacks: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []

    def push(self, function: Callable[..., Any], *args: Any) -> None:
        self._callbacks.append((function, args))

    def close(self) -> None:
        """Run and drop every callback; the first failure is raised after all have run."""
        failure: BaseException | None = None
        while self._callbacks:
            function, args = self._callbacks.pop()
            try:
                function(*args)
            except BaseException as err:
                failure = failure or err
        if failure is not None:
            raise failure

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()
