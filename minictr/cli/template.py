"""``--format '{{.ID}} {{.State.Pid}}'``: the plain part of docker's templates, which are Go's text/template.

``{{.Path.To.Field}}``, ``{{.}}``, ``{{json .Path}}``, ``{{index .Path "key"}}`` and the escapes ``\\t`` and ``\\n``.
Go's functions, pipes and conditions are refused by name.
"""

from __future__ import annotations

from minictr.errors import SpecError
from minictr.jsontext import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

Part = tuple[str, tuple[str, ...]]  # (literal, ()), ("text" or "json", path)


def compiled(template: str) -> list[Part]:
    """The parts of TEMPLATE. SpecError for what is not in the plain part of the language."""
    parts: list[Part] = []
    rest = template.replace("\\t", "\t").replace("\\n", "\n")
    while rest:
        literal, opened, rest = rest.partition("{{")
        if literal:
            parts.append((literal, ()))
        if not opened:
            break
        inside, closed, rest = rest.partition("}}")
        if not closed:
            raise SpecError(f"--format {template!r}: '{{{{' without its '}}}}'")
        parts.append(_part(template, inside.strip()))
    return parts


def _part(template: str, inside: str) -> Part:
    words = inside.split()
    shape = "text"
    if words[:1] == ["json"] and len(words) == 2:
        shape, words = "json", words[1:]
    more: tuple[str, ...] = ()
    if words[:1] == ["index"] and len(words) == 3 and len(words[2]) > 2 and words[2][0] == words[2][-1] == '"':
        more, words = (words[2][1:-1],), words[1:2]
    if len(words) != 1 or words[0][:1] != "." or ".." in words[0]:
        known = '{{.Field}}, {{json .Field}} and {{index .Field "key"}} are known'
        raise SpecError(f"--format {template!r}: {{{{{inside}}}}}: {known}")
    return shape, ("", *filter(None, words[0].split(".")), *more)


def render(parts: list[Part], data: Any) -> str:
    """PARTS filled in from DATA (dicts and lists). SpecError for a field that is not there, naming those that are."""
    return "".join(literal if not path else _shown(literal, _at(data, path[1:])) for literal, path in parts)


def _at(data: Any, path: tuple[str, ...]) -> Any:
    for depth, name in enumerate(path):
        if isinstance(data, list) and name.isdecimal() and int(name) < len(data):
            data = data[int(name)]
            continue
        if not isinstance(data, dict) or name not in data:
            where = ".".join(("", *path[: depth + 1]))
            there = ", ".join(map(str, data)) if isinstance(data, dict) else "none"
            raise SpecError(f"--format: no field {where}; there are: {there}")
        data = data[name]
    return data


def _shown(shape: str, value: Any) -> str:
    if shape == "json":
        return dumps(value)
    if value is None:
        return "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    return dumps(value) if isinstance(value, (dict, list)) else str(value)


def headings(parts: list[Part]) -> str:
    """The line above a ``table`` template's rows: NAMES for ``{{.Names}}``."""
    return "".join(literal if not path else "_".join(path[1:]).upper() for literal, path in parts)


def print_rows(template: str, rows: list[dict[str, Any]], example: dict[str, Any]) -> None:
    """A line of TEMPLATE for each of ROWS; ``table ...`` aligns columns and puts headings above, as in docker.

    EXAMPLE is a row to find mistakes by even where there are no rows.
    """
    from minictr.cli.show import table, write

    titled = template.startswith("table ")
    parts = compiled(template.removeprefix("table ").strip() if titled else template)
    render(parts, example)
    lines = [render(parts, row) for row in rows]
    if titled:
        write(table(headings(parts).split("\t"), [line.split("\t") for line in lines]))
    elif lines:
        write("\n".join(lines))
