"""``minictr inspect``: all that is known of containers, and what truly confines a process."""

from __future__ import annotations

from minictr.cli.show import each, format_of, some, write
from minictr.errors import SpecError
from minictr.jsontext import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SHORT_ENOUGH = 76  # characters of JSON that stay on one line


def inspect(opts: dict[str, Any], words: tuple[str, ...]) -> int:
    """A JSON list with an object for each container named, or a line of the template for each.

    ``--effective``, ``--diff``: what the kernel says of processes instead, in a table. ``--file-capabilities``: which
    files of their roots give privilege.
    """
    if opts.get("privileged_files"):
        return in_root(opts, words)
    if opts.get("effective") or opts.get("compare"):
        return read_back(opts, words)
    if opts.get("all"):
        raise SpecError("--all: it goes with --diff, and shows what does not differ as well")
    shape = format_of(opts, "json")
    names = some("inspect", words, False, ())
    if shape == "json":
        found: list[str] = []
        code = each("inspect", names, lambda one: found.append(indented(one.inspect())), echo=False)
        write("[" + ",".join(f"\n{text}" for text in found) + ("\n]" if found else "]"))
        return code
    from minictr.cli.template import compiled, render

    parts = compiled(shape)
    return each("inspect", names, lambda one: write(render(parts, one.inspect())), echo=False)


def read_back(opts: dict[str, Any], words: tuple[str, ...]) -> int:
    """``--effective NAME|PID...``, ``--diff A B``."""
    shape = str(opts.get("format", "table"))
    if shape not in ("table", "json"):
        raise SpecError(f"--format {shape!r}: with --effective and --diff it is table or json")
    if not words:
        raise SpecError("no process: name containers or process ids (minictr inspect --effective NAME|PID...)")
    from minictr.cli.isolation import compare, effective

    if opts.get("compare"):
        return compare(shape, words, bool(opts.get("all")))
    if opts.get("all"):
        raise SpecError("--all: it goes with --diff, and shows what does not differ as well")
    return effective(shape, words)


def in_root(opts: dict[str, Any], words: tuple[str, ...]) -> int:
    """``--file-capabilities NAME|DIR/...``"""
    shape = str(opts.get("format", "table"))
    if shape not in ("table", "json"):
        raise SpecError(f"--format {shape!r}: with --file-capabilities it is table or json")
    for name in ("effective", "compare", "all"):
        if opts.get(name):
            raise SpecError(f"--file-capabilities does not go with --{name.replace('compare', 'diff')}: give one")
    if not words:
        raise SpecError("no container: name one, or a directory as DIR/ (minictr inspect --file-capabilities NAME)")
    from minictr.cli.privilege import privilege

    return privilege(shape, words)


def indented(value: Any, depth: int = 1) -> str:
    """JSON for people: objects and lists of objects one field a line, the rest on one line."""
    pad, short = "    " * depth, dumps(value)
    if len(short) <= SHORT_ENOUGH:
        return pad + short
    if isinstance(value, dict) and value:
        rows = (f"{pad}    {dumps(key)}: {indented(item, depth + 1).lstrip()}" for key, item in value.items())
        return f"{pad}{{\n" + ",\n".join(rows) + f"\n{pad}}}"
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return f"{pad}[\n" + ",\n".join(indented(item, depth + 1) for item in value) + f"\n{pad}]"
    return pad + short
