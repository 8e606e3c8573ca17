"""How far a long run is: a bar with the time left on a terminal (rich, of the extra ``bench``), lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any, Protocol, TextIO

PLAIN_EVERY = 30.0  # seconds between two lines of a run that no terminal shows


class Progress(Protocol):
    """A context manager. ``tell`` is for lines that stay; ``step`` for what happens just now."""

    def __enter__(self) -> Progress: ...
    def __exit__(self, *exc: Any) -> None: ...
    def begin(self, total: int, seconds: float = 0.0) -> None: ...
    def step(self, text: str) -> None: ...
    def advance(self) -> None: ...
    def skip(self, number: int) -> None: ...
    def tell(self, line: str) -> None: ...


class Silent:
    """Says nothing, and counts: the base of the other two."""

    def __init__(self) -> None:
        self.total = self.done = 0
        self._began, self._seconds = time.monotonic(), 0.0

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, *exc: Any) -> None:
        return None

    def begin(self, total: int, seconds: float = 0.0) -> None:
        """TOTAL steps lie ahead; SECONDS is the most they may take, 0 for no limit."""
        self.total, self.done, self._began, self._seconds = total, 0, time.monotonic(), seconds

    def step(self, text: str) -> None:
        return None

    def advance(self) -> None:
        """One of them is done."""
        self.done += 1

    def skip(self, number: int) -> None:
        """NUMBER of them need not be done."""
        self.total = max(self.total - number, self.done)

    def tell(self, line: str) -> None:
        return None

    def left(self) -> float | None:
        """Seconds left, by what the steps took until now; None before the first."""
        passed = time.monotonic() - self._began
        if not self.done:
            return self._seconds or None
        wanted = passed / self.done * (self.total - self.done)
        return min(wanted, max(self._seconds - passed, 0.0)) if self._seconds else wanted


def clock(seconds: float | None) -> str:
    """``3:07`` or ``1:02:40``; "unknown" for None."""
    if seconds is None:
        return "unknown"
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


class Plain(Silent):
    """A line now and then, for a log."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream, self._last = stream, -PLAIN_EVERY

    def step(self, text: str) -> None:
        if time.monotonic() - self._last >= PLAIN_EVERY:
            self._last = time.monotonic()
            self.tell(f"[{self.done}/{self.total}, {clock(self.left())} left] {text}" if self.total else text)

    def tell(self, line: str) -> None:
        print(line, file=self._stream, flush=True)


class Bar(Silent):
    """rich's bar. Raises ImportError where rich is not installed."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as Bars

        self._bars = Bars(
            BarColumn(24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]} left"),
            TextColumn("{task.description}", markup=False),
            console=Console(file=stream),
            transient=True,
            auto_refresh=False,  # its thread would run during a measurement
        )
        self._task = self._bars.add_task("", total=None, left="unknown")

    def __enter__(self) -> Bar:
        self._bars.start()
        return self

    def __exit__(self, *exc: Any) -> None:
        self._bars.stop()

    def step(self, text: str) -> None:
        shown = {"total": self.total or None, "completed": self.done, "left": clock(self.left())}
        self._bars.update(self._task, description=text, refresh=True, **shown)

    def tell(self, line: str) -> None:
        self._bars.console.print(line, markup=False, highlight=False)


def shown(stream: TextIO | None = None) -> Progress:
    """The bar when STREAM (standard error) is a terminal and rich is there, lines otherwise."""
    stream = stream or sys.stderr
    if stream.isatty():
        try:
            return Bar(stream)
        except ImportError:
            pass
    return Plain(stream)
