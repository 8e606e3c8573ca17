"""What all handles of this package have in common: open, closed once, and a warning when dropped unclosed."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

__all__ = ["Handle", "shut"]


def shut(fd: int) -> None:
    """Close FD, whose content nobody waits for: a close that fails has closed (close(2)), and must stop nothing."""
    try:
        os.close(fd)
    except OSError:
        pass


class Handle:
    """A live thing that must be closed; ``with`` does it.

    Subclasses set ``_open`` to True once there is something to close, and define ``_close``.
    """

    _open = False

    def _close(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """Give it back. A second call does nothing."""
        if self._open:
            self._open = False
            self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def __del__(self) -> None:
        if self._open:
            try:
                import warnings
            except ImportError:  # the interpreter is ending
                return
            warnings.warn(f"{self!r} was dropped without close()", ResourceWarning, stacklevel=2, source=self)
            self._drop()

    def _drop(self) -> None:
        """What can be given back without the caller: by default all of it. Called by the garbage collector."""
        try:
            self.close()
        except OSError:
            pass  # nobody is left who could be told
