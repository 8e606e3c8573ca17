"""The project's own files, for the checks that read them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
CODE = ("minictr", "bench", "examples", "tests", "scripts")
GENERATED = {"build", "__pycache__"}


def files(*suffixes: str, under: tuple[str, ...] = CODE) -> list[Path]:
    """Every source file with one of ``suffixes`` below the given directories, sorted."""
    found = (path for top in under for path in (ROOT / top).rglob("*") if path.suffix in suffixes and path.is_file())
    return sorted(
        path for path in found if not GENERATED.intersection(path.relative_to(ROOT).parts[:-1]) and written(path)
    )


def written(path: Path) -> bool:
    """Not what cffi wrote."""
    return path.name != "_native.c"


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every absolute import, wherever it stands; ``from a import b`` gives ``a.b``."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def c_functions(text: str) -> Iterator[tuple[int, int, str]]:
    """(line, length, first line) of every function body in C source: what stands in braces after a ``)`` at depth 0."""
    plain = re.sub(
        r"/\*.*?\*/|//[^\n]*|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])+'",
        lambda found: re.sub(r"[^\n]", " ", found[0]),
        text,
        flags=re.DOTALL,
    )
    plain = re.sub(
        r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", lambda found: re.sub(r"[^\n]", " ", found[0]), plain, flags=re.MULTILINE
    )
    depth, start, last = 0, 0, ""
    for place, character in enumerate(plain):
        if character == "{":
            if depth == 0:
                start = place if last == ")" else -1
            depth += 1
        elif character == "}":
            depth -= 1
            if depth == 0 and start >= 0:
                first, final = plain.count("\n", 0, start) + 1, plain.count("\n", 0, place) + 1
                yield first, final - first + 1, text.splitlines()[first - 1].strip()
        if not character.isspace():
            last = character
