"""No file over 400 lines, no function over 60."""

from __future__ import annotations

import ast

import pytest
import sources

FILE_LINES = 400
FUNCTION_LINES = 60

pytestmark = [pytest.mark.lint, pytest.mark.beside]


def test_no_file_is_too_long() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in sources.files(".py", ".c", ".h", ".sh")}
    long = [f"{sources.name(path)}: {lines} lines" for path, lines in lengths.items() if lines > FILE_LINES]
    assert not long, "\n".join(long)


def test_no_python_function_is_too_long() -> None:
    long = []
    for path in sources.files(".py"):
        for node in ast.walk(sources.tree(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > FUNCTION_LINES:
                    long.append(f"{sources.name(path)}:{node.lineno}: {node.name} has {lines} lines")
    assert not long, "\n".join(long)


def test_no_c_function_is_too_long() -> None:
    long = []
    for path in sources.files(".c", ".h"):
        for line, lines, text in sources.c_functions(path.read_text()):
            if lines > FUNCTION_LINES:
                long.append(f"{sources.name(path)}:{line}: {text} has {lines} lines")
    assert not long, "\n".join(long)


def test_the_c_counter_counts() -> None:
    """The counter itself, on braces in strings, comments, macros, initialisers and nested blocks."""
    text = "#define OPEN {\nint table[] = {\n1,\n};\n\nint f(void) {\n"
    text += "  /* { */ char c = '{';\n  if (c) { puts(\"}\"); }\n}\n"
    assert list(sources.c_functions(text)) == [(6, 4, "int f(void) {")]
