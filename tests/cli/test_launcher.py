"""``scripts/minictr``: a shell script and a Python program in one, beside an interpreter or not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

import minictr

SCRIPT = Path(__file__).resolve().parent.parent.parent / "scripts" / "minictr"
NEEDED = ("click", "_cffi_backend")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A virtual environment with the launcher and, by links, the package under test."""
    top = tmp_path_factory.mktemp("installed") / "a venv"
    venv.create(top, with_pip=False, symlinks=True)
    packages = top / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    (packages / "minictr").symlink_to(next(iter(minictr.__path__)))
    for name in NEEDED:
        module = __import__(name)
        file = Path(module.__file__ or "")
        source = file.parent if file.name == "__init__.py" else file
        (packages / source.name).symlink_to(source)
    shutil.copy(SCRIPT, top / "bin" / "minictr")
    return top


def run(*words, **keywords):
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    keywords.setdefault("env", env)
    return subprocess.run([*map(str, words)], capture_output=True, text=True, check=False, timeout=60, **keywords)


def test_it_runs_isolated_and_without_site(place, rootfs, requires):
    requires.root()
    done = run(place / "bin" / "minictr", "run", "--rootfs", rootfs, "--", "echo", "a b", "", "*")
    assert (done.returncode, done.stdout, done.stderr) == (0, "a b  *\n", "")


def test_pythons_variables_do_not_reach_it(place, tmp_path):
    (tmp_path / "minictr").mkdir()
    (tmp_path / "minictr" / "__init__.py").write_text("raise SystemExit('the wrong one')")
    done = run(place / "bin" / "minictr", "version", env={**os.environ, "PYTHONPATH": str(tmp_path)}, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"minictr {minictr.__version__}\n")


def test_cold_verbs_find_their_packages(place):
    assert "Usage: minictr run" in run(place / "bin" / "minictr", "run", "--help").stdout


def test_links_to_it_and_path(place, tmp_path):
    (tmp_path / "absolute").symlink_to(place / "bin" / "minictr")
    (tmp_path / "relative").symlink_to("absolute")
    wanted = f"minictr {minictr.__version__}\n"
    assert run(tmp_path / "relative", "version").stdout == wanted
    assert run("./relative", "version", cwd=tmp_path).stdout == wanted
    assert run("minictr", "version", env={"PATH": f"{place / 'bin'}:{os.environ['PATH']}"}).stdout == wanted


def test_without_an_interpreter_beside_it(place, tmp_path):
    """As after ``pip install --user``: the interpreter of PATH, the ordinary way."""
    shutil.copy(SCRIPT, tmp_path / "minictr")
    done = run(tmp_path / "minictr", "version", env={"PATH": f"{place / 'bin'}:{os.environ['PATH']}"})
    assert (done.returncode, done.stdout) == (0, f"minictr {minictr.__version__}\n")


def test_with_the_package_elsewhere(place, tmp_path):
    """As after ``pip install --editable``: only what site does leads to the package."""
    packages = next((place / "lib").glob("python*/site-packages"))
    other = tmp_path / "elsewhere"
    other.mkdir()
    (packages / "minictr").rename(other / "minictr")
    (packages / "elsewhere.pth").write_text(f"{other}\n")
    try:
        done = run(place / "bin" / "minictr", "version")
    finally:
        (other / "minictr").rename(packages / "minictr")
        (packages / "elsewhere.pth").unlink()
    assert (done.returncode, done.stdout) == (0, f"minictr {minictr.__version__}\n")
