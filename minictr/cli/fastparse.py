"""A small parser over the option tables of the hot verbs.

click costs 34 ms to import here, three times a whole interpreter start; this parser costs under 0.1 ms. It follows
click's rules: ``--opt value``, ``--opt=value``, clusters as ``-it``, ``-eKEY=VALUE``, ``--`` ends the options, and
everything from the first word that is not an option is the command; for the verbs that take names of containers
(``mixed``) options may stand after and between them.
"""

from __future__ import annotations

from minictr.cli.options import FLAG, MANY, OPTIONAL
from minictr.errors import SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from minictr.cli.options import Row

    Entry = tuple[Row, bool]
    Refusals = tuple[tuple[tuple[str, ...], str], ...]


def index(table: Sequence[Row]) -> dict[str, Entry]:
    """Every spelling of the table: flag -> (row, what a flag stores)."""
    found: dict[str, Entry] = {}
    for row in table:
        for flag in row[0]:
            yes, _, no = flag.partition("/")
            found[yes] = (row, True)
            if no:
                found[no] = (row, False)
    return found


def parse(
    args: Sequence[str], table: Sequence[Row], *, mixed: bool = False, refused: Refusals = ()
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Options and command, or names, of ARGS. ``--help`` gives ``{"help": True}`` at once. SpecError on anything wrong.

    ``refused``: options that are knowingly not there, with the reason.
    """
    opts: dict[str, Any] = {}
    for row, _, value in scan(args, table, mixed=mixed, refused=refused):
        if row is None:
            if value is None:
                return {"help": True}, ()
            return opts, tuple(value)
        if row[2] == MANY:
            opts.setdefault(row[1], []).append(value)
        else:
            opts[row[1]] = value
    return opts, ()


def scan(
    args: Sequence[str], table: Sequence[Row], *, mixed: bool = False, refused: Refusals = ()
) -> Iterator[tuple[Row | None, str, Any]]:
    """The options of ARGS one by one as (row, spelling, value), then (None, "", command).

    ``--help`` is (None, "--help", None) and ends the scan.
    """
    known = index(table)
    rest, names = list(reversed(args)), []
    while rest:
        word = rest.pop()
        if word == "--":
            break
        if len(word) < 2 or word[0] != "-":
            if mixed:
                names.append(word)
                continue
            rest.append(word)
            break
        if word[1] == "-":
            flag, equals, text = word.partition("=")
            if flag == "--help" and not equals:
                yield None, flag, None
                return
            row, value = _entry(flag, known, refused)
            yield row, flag, _value(row, flag, value, text if equals else None, rest)
            continue
        for place in range(1, len(word)):
            flag = "-" + word[place]
            row, value = _entry(flag, known, refused)
            if row[2] != FLAG:
                yield row, flag, _value(row, flag, value, word[place + 1 :] or None, rest)
                break
            yield row, flag, value
    yield None, "", names + rest[::-1]


def _value(row: Row, flag: str, positive: bool, given: str | None, rest: list[str]) -> Any:
    if row[2] == FLAG:
        if given is not None:
            raise SpecError(f"{flag} takes no value, and was given {given!r}")
        return positive
    if given is not None:
        return given
    if row[2] == OPTIONAL:
        return ""
    if not rest:
        raise SpecError(f"{flag} needs a value: {row[3]}")
    return rest.pop()


def _entry(flag: str, known: dict[str, Entry], refused: Refusals) -> Entry:
    entry = known.get(flag)
    if entry is None:
        raise SpecError(_unknown(flag, known, refused))
    return entry


def _unknown(flag: str, known: dict[str, Entry], refused: Refusals) -> str:
    for flags, reason in refused:
        if flag in flags:
            return f"{flag} is not supported: {reason}"
    if len(flag) == 2:
        return f"no such option: {flag}"
    from difflib import get_close_matches

    near = get_close_matches(flag, known, n=1, cutoff=0.7)
    return f"no such option: {flag}" + (f"; did you mean {near[0]}?" if near else "")
