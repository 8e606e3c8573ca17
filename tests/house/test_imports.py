"""Import rules that no layer contract can say. The layers themselves: import-linter, in pyproject.toml."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest
import sources

pytestmark = [pytest.mark.lint, pytest.mark.beside]

# A third-party package -> the only files that may import it.
HOMES = {
    "click": ("minictr/cli/*.py",),
    "cffi": ("minictr/_core/build.py",),
    "_cffi_backend": ("minictr/_core/*.py",),
    "prctl": ("minictr/kernel/capabilities.py",),
    "pyroute2": ("minictr/kernel/iproute.py",),
    "pyseccomp": ("minictr/kernel/seccomp_library.py",),
    "psutil": ("minictr/kernel/processes.py",),
}
# Each costs a cold start more than a step of a container does (docs/decisions.md). Builtin and frozen ones are free.
COSTLY = frozenset(
    "argparse asyncio click contextlib dataclasses enum inspect json logging pathlib platform prctl psutil pyroute2"
    " pyseccomp random re shutil socket subprocess tempfile typing".split()
)


def library() -> list[Path]:
    return sources.files(".py", under=("minictr",))


def test_third_party_packages_stay_at_home() -> None:
    known = sys.stdlib_module_names | {"minictr", "_sha2", "_sha256"}  # the one of them is a version's, each
    wrong = []
    for path in library():
        for line, imported in sources.imports(path):
            package = imported.partition(".")[0]
            if package in known:
                continue
            if not any(fnmatch(sources.name(path), home) for home in HOMES.get(package, ())):
                wrong.append(f"{sources.name(path)}:{line}: {package} belongs in {HOMES.get(package, 'no file')}")
    assert not wrong, "\n".join(wrong)


def test_the_bench_uses_the_front_door() -> None:
    """The bench measures what a user has: ``import minictr as mc`` and the names of its ``__all__``."""
    import minictr

    public = {f"{module}.{name}" for module in ("mc", "minictr") for name in (*minictr.__all__, "__file__")}
    wrong = []
    for path in sources.files(".py", under=("bench",)):
        places = [(line, name) for line, name in sources.imports(path) if name.startswith("minictr.")]
        places += [
            (line, name)
            for line, name in attributes(path)
            if name.startswith(("mc.", "minictr.")) and name not in public
        ]
        wrong += [f"{sources.name(path)}:{line}: {name}" for line, name in places]
    assert not wrong, "\n".join(wrong)


def attributes(path: Path) -> Iterator[tuple[int, str]]:
    """(line, ``name.attribute``) of every attribute of a plain name."""
    for node in ast.walk(sources.tree(path)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield node.lineno, f"{node.value.id}.{node.attr}"


def test_only_the_hands_know_the_core() -> None:
    """Only ``kernel`` and ``runtime`` know the compiled module; a command or a wish that did would go round them."""
    allowed = ("minictr/kernel/*", "minictr/runtime/*", "minictr/_core/*")
    wrong = [
        f"{sources.name(path)}:{line}: {imported}"
        for path in library()
        if not any(fnmatch(sources.name(path), pattern) for pattern in allowed)
        for line, imported in sources.imports(path)
        if imported.startswith("minictr._core")
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("module", ["minictr", "minictr.plan", "minictr.features", "minictr.runtime.launch"])
def test_the_hot_path_imports_nothing_costly(module: str) -> None:
    """What a start needs, in a fresh interpreter without site, against what the bare interpreter has."""
    code = "import sys; before = set(sys.modules); import {}; print(*sorted(set(sys.modules) - before))"
    path = next(str(Path(place).parent) for place in _minictr_places())
    program = f"import sys; sys.path[:0] = {[path, *_site_places()]!r}; {code.format(module)}"
    answer = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert COSTLY.isdisjoint(answer.stdout.split()), sorted(COSTLY.intersection(answer.stdout.split()))


def _minictr_places() -> list[str]:
    import minictr

    return list(minictr.__path__)


def _site_places() -> list[str]:
    return [place for place in sys.path if place.endswith("site-packages")]
