"""Words: what the project does not say, what the library does not do, links that lead somewhere."""

from __future__ import annotations

import ast
import re

import pytest
import sources

pytestmark = [pytest.mark.lint, pytest.mark.beside]

TEXTS = ("README.md", "CHANGELOG.md", "Makefile", "pyproject.toml", "MANIFEST.in", ".ci/run", "setup.py")

# Paths that exist on one person's machine, and notes to oneself.
UNWANTED = {
    "a path of somebody's machine": re.compile(r"(?<![\w{}./$~-])/(?:work|workspace|builds|Users)/[\w.]"),
    "a home directory": re.compile(r"(?<![\w{}.$~-])/home/\w+/"),
    "a note to oneself": re.compile(r"\b(?:TO" r"DO|FIX" r"ME|X" r"XX)\b"),
    "an emoji": re.compile("[\U0001f300-\U0001faff\u2705\u274c\u2728]"),
}
VAGUE = re.compile(r"(?:Manager|Helper|Utils?)$")


def texts() -> list[tuple[str, str]]:
    written = [sources.ROOT / name for name in TEXTS]
    written += sources.files(".py", ".c", ".h", ".sh")
    written += sources.files(".md", under=("docs", "examples", "bench"))
    return [(sources.name(path), path.read_text()) for path in written if path.exists()]


@pytest.mark.parametrize("kind", UNWANTED)
def test_nothing_says(kind: str) -> None:
    found = [
        f"{name}:{text.count(chr(10), 0, hit.start()) + 1}: {hit[0]}"
        for name, text in texts()
        for hit in UNWANTED[kind].finditer(text)
    ]
    assert not found, "\n".join(found)


def test_no_class_has_a_vague_name() -> None:
    found = [
        f"{sources.name(path)}:{node.lineno}: {node.name}"
        for path in sources.files(".py", under=("minictr", "bench"))
        for node in ast.walk(sources.tree(path))
        if isinstance(node, ast.ClassDef) and VAGUE.search(node.name)
    ]
    assert not found, "\n".join(found)


def test_the_library_never_prints_or_exits() -> None:
    """Only the command line talks."""
    found = []
    for path in sources.files(".py", under=("minictr",)):
        if sources.name(path).startswith("minictr/cli/") or path.name in ("__main__.py", "build.py"):
            continue
        for node in ast.walk(sources.tree(path)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("print", "input", "exit", "quit", "sys.exit"):
                found.append(f"{sources.name(path)}:{node.lineno}: {ast.unparse(node.func)}")
    assert not found, "\n".join(found)


def test_relative_links_lead_somewhere() -> None:
    broken = []
    for path in [sources.ROOT / "README.md", sources.ROOT / "CHANGELOG.md", *sources.files(".md", under=("docs",))]:
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text()):
            if "://" not in target and not (path.parent / target).exists():
                broken.append(f"{sources.name(path)}: {target}")
    assert not broken, "\n".join(broken)
