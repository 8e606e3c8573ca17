"""What verbs that may take long have in common: progress on standard error, and an end that leaves nothing behind."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from typing import TYPE_CHECKING, NoReturn

import click

from minictr.cli.entry import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from minictr.runtime.copying import Copied

PATIENCE = 0.5  # seconds before progress is worth a line


class Progress:
    """Lines on standard error once the work turns out to be long."""

    def __init__(self, quiet: bool) -> None:
        self._quiet, self._start, self._held = quiet, time.monotonic(), ""

    def __call__(self, message: str) -> None:
        if self._quiet:
            return
        if time.monotonic() - self._start < PATIENCE:
            self._held = message
            return
        for line in filter(None, (self._held, message)):
            click.echo(printable(line), err=True)
        self._held = ""


class Meter:
    """One line on the terminal that says how far the work is, written over and over."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet or not sys.stderr.isatty()
        self._next = time.monotonic() + PATIENCE
        self._shown = False

    def __call__(self, files: int, moved: int) -> None:
        """Of a copy."""
        if self.due():
            self.say(amount(files, moved))

    def due(self) -> bool:
        """Whether a line is wanted by now."""
        return not self.quiet and time.monotonic() >= self._next

    def say(self, text: str) -> None:
        """TEXT instead of what is there."""
        self._next, self._shown = time.monotonic() + PATIENCE / 5, True
        click.echo(f"\r\x1b[K{printable(text)}", err=True, nl=False)

    def clear(self) -> None:
        """Take the line away."""
        if self._shown:
            click.echo("\r\x1b[K", err=True, nl=False)
            self._shown = False

    def done(self, verb: str, copied: Copied, where: str) -> None:
        """Notes always; what was done only to somebody who watches."""
        self.clear()
        notes(verb, copied.notes)
        if not self.quiet:
            click.echo(f"{printable(where)}: {amount(copied.files, copied.bytes)}", err=True)


def amount(files: int, size: int) -> str:
    """FILES and bytes for people."""
    return f"{files} file{'' if files == 1 else 's'}, {size / (1 << 20):.1f} MiB"


def notes(verb: str, lines: Sequence[str]) -> None:
    """What the user should know of, on standard error."""
    for line in lines:
        click.echo(f"minictr {verb}: note: {printable(line)}", err=True)


@contextlib.contextmanager
def ends_cleanly() -> Iterator[None]:
    """SIGTERM and SIGHUP unwind as Ctrl-C does, so that what was begun is removed."""

    def leave(number: int, _frame: object) -> NoReturn:
        sys.exit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
