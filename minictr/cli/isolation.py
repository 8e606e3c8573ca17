"""``minictr inspect --effective`` and ``--diff``: what truly confines a process, alone or beside another."""

from __future__ import annotations

from minictr.cli.inspect import indented
from minictr.cli.show import complain_of, size, table, write
from minictr.errors import MinictrError, SpecError
from minictr.runtime.isolation import by_word
from minictr.runtime.isolation_order import flat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from minictr.runtime.isolation import Isolation

WIDTH = 96  # where a list goes on in the next line
NOTHING, UNKNOWN = "-", "?"
MISSING = ""  # a mount, a limit, a cgroup that the other one has


def effective(shape: str, words: Sequence[str]) -> int:
    """Each process named: a table, or with ``--format json`` a list of objects."""
    found, code = [], 0
    for word in words:
        try:
            found.append((word, by_word(word)))
        except (MinictrError, OSError) as err:
            code = complain_of("inspect", err, word)
    if shape == "json":
        write("[" + ",".join(f"\n{indented(one.to_dict())}" for _, one in found) + ("\n]" if found else "]"))
        return code
    for place, (word, one) in enumerate(found):
        if place:
            write("")
        write(table(("FIELD", word), _rows(one)))
    return code


def compare(shape: str, words: Sequence[str], every: bool) -> int:
    """Two processes side by side: what differs, or with EVERY all of it. 0 whether or not there is a difference."""
    if len(words) != 2:
        raise SpecError(f"--diff takes two containers or process ids, not {len(words)} (minictr inspect --diff A B)")
    one, other = (by_word(word) for word in words)
    differing = {row.name: row for row in one.diff(other)}
    if shape == "json":
        rows = [{"name": row.name, "mine": row.mine, "other": row.other} for row in differing.values()]
        found = {"mine": one.to_dict(), "other": other.to_dict()} if every else {}
        write(indented({"processes": [one.pid, other.pid], "differences": rows, **found}, 0))
        return 0
    mine, its = flat(one), flat(other)
    lines: list[tuple[str, str, str]] = []
    for name in dict.fromkeys((*mine, *its)):
        if name in differing:
            pair = _against(name, mine.get(name, MISSING), its.get(name, MISSING))
            lines += _side_by_side(f"{name} *" if every else name, *pair)
        elif every and name in mine and name in its:
            lines += _side_by_side(name, _text(name, mine[name]), _text(name, its[name]))
    write(table(("FIELD", *words), lines) if lines else f"nothing differs between {words[0]} and {words[1]}")
    return 0


def _rows(one: Isolation) -> Iterator[tuple[str, str]]:
    """Every field, and why what is not known is not."""
    for name, value in _short(flat(one)).items():
        if value is None and name in one.unknown:
            yield name, f"{UNKNOWN} {one.unknown[name]}"
            continue
        for place, line in enumerate(_lines(_text(name, value))):
            yield ("" if place else name), line
    for name, reason in one.unknown.items():
        if name.startswith(("limits.", "masked.")):
            yield name, f"{UNKNOWN} {reason}"


def _short(rows: dict[str, Any]) -> dict[str, Any]:
    """ROWS with one for each namespace and each cgroup, in place of two and three."""
    found: dict[str, Any] = {}
    for name, value in rows.items():
        top, _, field = name.rpartition(".")
        if not top.startswith(("namespaces.", "cgroups.")):
            found[name] = value
        elif field == "own":
            words = (f"{top.partition('.')[2]} {rows[f'{top}.id']}") if f"{top}.id" in rows else rows[f"{top}.path"]
            host = ", the host's" if rows.get(f"{top}.host") and value else ""
            found[top] = f"{'own' if value else 'shared'}: {words}{host}"
    return found


def _side_by_side(name: str, mine: str, its: str) -> Iterator[tuple[str, str, str]]:
    left, right = ([*_lines(text, WIDTH // 2)] for text in (mine, its))
    for place in range(max(len(left), len(right))):
        yield (
            "" if place else name,
            left[place] if place < len(left) else "",
            right[place] if place < len(right) else "",
        )


def _against(name: str, mine: Any, its: Any) -> tuple[str, str]:
    """Both values; of two sets of names what each has besides."""
    if all(isinstance(value, tuple) and all(isinstance(one, str) for one in value) for value in (mine, its)):
        both = set(mine) & set(its)
        counts = [f"{len(value)}: " if both else "" for value in (mine, its)]
        rest = [" ".join(f"+{one}" if both else one for one in value if one not in both) for value in (mine, its)]
        return (counts[0] + (rest[0] or NOTHING), counts[1] + (rest[1] or NOTHING))
    return _text(name, mine), _text(name, its)


def _text(name: str, value: Any) -> str:
    """A value in words."""
    if value is None:
        return UNKNOWN
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        if name.startswith("rlimits."):
            return ":".join(_text("limits", one) for one in value)
        return " ".join(",".join(map(str, one)) if isinstance(one, tuple) else str(one) for one in value) or NOTHING
    if value == -1 and name.startswith("limits"):
        return "no limit"
    if name in ("umask", "personality"):
        return f"{value:04o}" if name == "umask" else f"{value:#x}"
    if name.startswith(("limits.memory", "limits.hugetlb")):
        return size(value)
    return str(value) or NOTHING


def _lines(text: str, width: int = WIDTH) -> Iterator[str]:
    """TEXT in lines of at most WIDTH, broken at blanks."""
    line = ""
    for word in text.split(" "):
        if line and len(line) + 1 + len(word) > width:
            yield line
            line = word
        else:
            line = f"{line} {word}" if line else word
    yield line
