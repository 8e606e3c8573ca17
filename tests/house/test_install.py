"""One wheel for every Python: built once from a copy of the sources, installed and run by each Python found here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import sources

VERSIONS = ("3.11", "3.12", "3.13")
# What must lie in the tree for a build, and nothing that a build leaves there.
LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv", "build", "dist", "demo-root", "*.egg-info", "__pycache__", ".*_cache", "*.so", ".hypothesis"
)
# The core: compiled, loaded, and starting a program in a namespace of its own.
PROGRAM = """
import sys
import minictr as mc
box = mc.Container(features=[mc.UtsNamespace()])
result = box.run(["readlink", "/proc/self/ns/uts"], capture_output=True, text=True, timeout=10)
print(*sys.version_info[:2], result.returncode, result.stdout)
"""

pytestmark = [pytest.mark.beside, pytest.mark.slow, pytest.mark.timeout(300)]


def command(*arguments: str | Path, **options: object) -> str:
    """Runs it; returns stdout, fails with everything it said."""
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    answer = subprocess.run(
        [str(argument) for argument in arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        **options,
    )
    if answer.returncode:
        pytest.fail(f"{' '.join(map(str, arguments))}\n{answer.stdout}{answer.stderr}", pytrace=False)
    return answer.stdout


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources: a build writes beside them."""
    path = tmp_path_factory.mktemp("sources") / "tree"
    shutil.copytree(sources.ROOT, path, ignore=LEFT_OUT, symlinks=True)
    return path


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with the build's own requirements, as pyproject.toml states them."""
    import tomllib

    path = tmp_path_factory.mktemp("tools") / "venv"
    command(sys.executable, "-m", "venv", path)
    requirements = tomllib.loads((sources.ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    command(path / "bin/python", "-m", "pip", "install", "-q", *requirements)
    return path / "bin/python"


@pytest.fixture(scope="module")
def wheel(tree: Path, tools: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    command(tools, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", out, tree)
    (built,) = out.glob("*.whl")
    return built


def python(version: str) -> str | None:
    """An interpreter of that version that works: in PATH, or of pyenv."""
    found = [shutil.which(f"python{version}")]
    found += sorted(map(str, Path.home().glob(f".pyenv/versions/{version}.*/bin/python{version}")), reverse=True)
    for candidate in filter(None, found):
        program = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"
        answer = subprocess.run([candidate, "-I", "-c", program], capture_output=True, text=True, check=False)
        if answer.stdout.strip() == version:
            return candidate
    return None


def test_the_wheel_serves_every_later_python(wheel: Path) -> None:
    assert "-cp311-abi3-linux_" in wheel.name
    names = zipfile.ZipFile(wheel).namelist()
    assert [name for name in names if name.endswith(".so")] == ["minictr/_core/_native.abi3.so"]
    assert any(name.endswith("/scripts/minictr") for name in names)


def test_the_wheel_holds_the_library_and_nothing_else(wheel: Path, tree: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"minictr"}
    assert not [name for name in names if name.endswith((".c", ".h", ".o", ".inc"))]
    packed = {name for name in names if name.endswith(".py")}
    assert packed == {str(path.relative_to(tree)) for path in (tree / "minictr").rglob("*.py")}


@pytest.mark.parametrize("version", VERSIONS)
def test_it_installs_and_its_core_answers(version: str, wheel: Path, tools: Path, tmp_path: Path) -> None:
    interpreter = python(version)
    if interpreter is None:
        pytest.skip(f"no python{version} on this machine")
    command(interpreter, "-m", "venv", "--without-pip", tmp_path / "venv")
    installed = tmp_path / "venv/bin/python"
    pip = (tools, "-m", "pip", "--python", installed, "install", "-q")
    command(*pip, "--no-deps", wheel)
    command(*pip, "cffi>=1.17,<3")
    said = command(installed, "-c", PROGRAM, cwd=tmp_path)
    assert said.split()[:3] == [*version.split("."), "0"]
    assert said.split()[3].startswith("uts:[")
    assert said.split()[3] != os.readlink("/proc/self/ns/uts")


def test_the_source_distribution_builds_the_same(tree: Path, tools: Path, tmp_path: Path, wheel: Path) -> None:
    """The archive holds all that a build needs: the wheel built from it has the same files."""
    program = "import setuptools.build_meta as b, sys; print(b.build_sdist(sys.argv[1]))"
    archive = tmp_path / command(tools, "-c", program, tmp_path, cwd=tree).splitlines()[-1]
    (tmp_path / "unpacked").mkdir()
    command("tar", "-xf", archive, "-C", tmp_path / "unpacked")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    command(tools, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", tmp_path / "again", unpacked)
    (again,) = (tmp_path / "again").glob("*.whl")
    assert zipfile.ZipFile(again).namelist() == zipfile.ZipFile(wheel).namelist()
