"""What the verbs of a container's life print: tables as docker's, spans of time in words, answers name by name."""

from __future__ import annotations

import sys
import time

from minictr.cli.entry import FAILED, complain, printable, told
from minictr.errors import MinictrError, SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from minictr.runtime.instance import Instance

GAP = 3  # spaces between two columns


def write(text: str) -> None:
    """TEXT and a newline on standard output, its lines made harmless to a terminal."""
    if sys.stdout is None:
        raise SpecError("standard output is closed")
    sys.stdout.write("".join(f"{printable(line)}\n" for line in text.split("\n")))
    sys.stdout.flush()


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns, each as wide as its widest cell; control characters are escaped first, for they have no width."""
    cells = [list(headings), *([printable(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headings))]
    lines = ((" " * GAP).join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in cells)
    return "\n".join(lines)


def each(verb: str, words: Sequence[str], act: Callable[[Instance], object], *, echo: bool = True) -> int:
    """ACT on every container called one of WORDS, whose names are printed as docker prints them.

    One that fails is a line on standard error, and the others still have their turn: 0, or 125 when one failed.
    """
    from minictr.runtime.instance import find

    failed = 0
    for word in words:
        try:
            act(find(word))
        except (MinictrError, OSError) as err:
            failed = complain_of(verb, err, word)
            continue
        if echo:
            write(word)
    return failed


def complain_of(verb: str, err: MinictrError | OSError, word: str = "") -> int:
    """One line on standard error; the exit code that ERR means."""
    if isinstance(err, MinictrError):
        complain(verb, err)
        return err.exit_code
    complain(verb, f"{word}: {told(err)}" if word else told(err))
    return FAILED


def some(verb: str, words: Sequence[str], every: bool, statuses: Sequence[str]) -> list[str]:
    """The names that VERB is for: WORDS, or with ``--all`` the ids of all whose status is one of STATUSES."""
    if every:
        if words:
            raise SpecError("--all and names: give one of them")
        from minictr.runtime.listing import glances
        from minictr.runtime.store import Store

        store = Store()
        store.check()
        return [look.id for look in glances(store) if look.status in statuses]
    if not words:
        raise SpecError(f"no container: name one or more (minictr {verb} NAME...)")
    return list(words)


def one(verb: str, words: Sequence[str]) -> str:
    """The one name that VERB is for."""
    if len(words) != 1:
        raise SpecError(f"{len(words) or 'no'} containers: name one (minictr {verb} NAME)")
    return words[0]


def format_of(opts: dict[str, object], *known: str) -> str:
    """``--format``: one of KNOWN, or a template of docker's. SpecError for anything else."""
    text = str(opts.get("format", known[0]))
    if text in known or "{{" in text:
        return text
    raise SpecError(f"--format {text!r} is not one of {', '.join(known)}, and no template as '{{{{.ID}}}}'")


def span(seconds: float) -> str:
    """SECONDS as docker says them: "Less than a second", "2 minutes", "About an hour", "3 weeks"."""
    whole = max(0, int(seconds))
    minutes, hours = whole // 60, int(seconds / 3600 + 0.5)
    if whole < 60:
        return "Less than a second" if whole < 1 else "1 second" if whole == 1 else f"{whole} seconds"
    if minutes < 60:
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    for limit, unit, name in (
        (48, 1, "hour"),
        (24 * 14, 24, "day"),
        (24 * 60, 24 * 7, "week"),
        (24 * 730, 720, "month"),
    ):
        if hours < limit:
            return "About an hour" if hours == 1 else f"{hours // unit} {name}s"
    return f"{hours // (24 * 365)} years"


def ago(nanoseconds: int, now: int = 0) -> str:
    """How long before NOW that was: "2 minutes ago"."""
    return f"{span(((now or time.time_ns()) - nanoseconds) / 1e9)} ago"


def stamp(nanoseconds: int) -> str:
    """Nanoseconds since 1970 as RFC 3339 in UTC; "" for 0, which is never."""
    if not nanoseconds:
        return ""
    whole, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{rest:09d}Z"


def size(number: float) -> str:
    """Bytes as docker's stats have them: "12.5MiB"."""
    unit = 0
    while number >= 1024 and unit < 5:
        number, unit = number / 1024, unit + 1
    return f"{number:.4g}{('B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB')[unit]}"
