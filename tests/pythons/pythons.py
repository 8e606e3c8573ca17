"""Other Pythons to test with: minictr and its tests inside a Debian container that minictr runs.

Each row of PYTHONS is a version, the root it lives in (tests/life/debianroots.py) and the packages that make it: the
root's own Python, or one of this machine's, where there is one, seen in the container at its own place. What the
project needs is installed there once per machine by pip, from the registry that this machine's pip uses.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.append(str(Path(__file__).resolve().parent.parent / "life"))
sys.path.append(str(Path(__file__).resolve().parent.parent / "guests"))

import debianroots
import registry
from kernels import made_once

ROOT = Path(__file__).resolve().parent.parent.parent
PYTHONS = {
    "3.11": "python-bookworm",
    "3.12": "python-bookworm",  # of no Debian release: this machine's
    "3.13": "python-trixie",
    "3.14": "python-forky",
}
REPOSITORY = ("bench", "docs", "examples", "minictr", "scripts", "tests")  # and the files beside them
TOOLS = ("hypothesis", "pytest")  # of the extra "test"; the linters are the same whatever runs them
OTHER = "require a different python version"  # pip: there are releases, but for other Pythons
OWN = {"python-bookworm": "3.11", "python-trixie": "3.13", "python-forky": "3.14"}


class NoPython(Exception):
    """This Python cannot be had here; the reason is the text."""


class Python(NamedTuple):
    """``program`` runs in ``rootfs``; ``prefix`` is a directory of the host's that has it, or None."""

    version: str
    rootfs: Path
    program: str
    prefix: Path | None


def find(version: str, progress: Callable[[str], None]) -> Python:
    """The Python of that version and the root for it. Raises NoPython."""
    kind = PYTHONS[version]
    prefix = None if OWN[kind] == version else on_this_machine(version)
    try:
        rootfs = debianroots.root(kind, progress)
    except debianroots.NoMirror as err:
        raise NoPython(str(err)) from err
    program = f"{prefix}/bin/python{version}" if prefix else f"/usr/bin/python{version}"
    if not prefix and not (rootfs / program[1:]).exists():
        raise NoPython(f"{debianroots.suite(kind)} has another Python by now: no {program} in {rootfs}")
    return Python(version, rootfs, program, prefix)


def on_this_machine(version: str) -> Path:
    """The prefix of a Python that PATH or pyenv has, with the modules a virtual environment needs."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    found = [*sorted(map(str, pyenv.glob(f"{version}.*/bin/python{version}"))), shutil.which(f"python{version}")]
    for program in filter(None, found):
        asked = [program, "-I", "-c", "import venv, ensurepip, sys; print(sys.version_info[:2], sys.base_prefix)"]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=30, check=False)
        head, _, prefix = done.stdout.strip().rpartition(" ")
        if head == str(tuple(map(int, version.split(".")))) and prefix not in ("/usr", ""):
            return Path(prefix)
    raise NoPython(f"no Debian release has Python {version}, and there is none in PATH or in {pyenv}")


def requirements() -> list[str]:
    """What minictr needs to be built, to run and to be tested, as pyproject.toml has it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    tools = [word for word in project["project"]["optional-dependencies"]["test"] if word.startswith(TOOLS)]
    return [*project["build-system"]["requires"], *project["project"]["dependencies"], *tools]


class Inside:
    """Containers with one Python. ``cli``: the beginning of minictr's command line; ``place``: for what is its own."""

    def __init__(self, python: Python, cli: Sequence[str], place: Path) -> None:
        self.python, self.cli, self.place = python, cli, place
        self.environment = {**os.environ, "MINICTR_ROOT": str(place / "state")}

    def run(self, *command: str, options: Sequence[str] = (), seconds: float = 300) -> Any:
        """COMMAND in a container of its own, whose root is thrown away; ``options`` are of ``minictr run``."""
        prefix = self.python.prefix
        words = ["--rootfs", str(self.python.rootfs), "--overlay", "--tmpfs", "/tmp:exec,suid,dev,mode=1777", *options]
        words += ["-v", f"{prefix}:{prefix}:ro"] if prefix else []
        return subprocess.run(
            [*self.cli, "run", *words, "--", *command],
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            stdin=subprocess.DEVNULL,
            env=self.environment,
        )

    def checked(self, *command: str, options: Sequence[str] = (), seconds: float = 300) -> None:
        """Runs it; RuntimeError when it fails."""
        done = self.run(*command, options=options, seconds=seconds)
        if done.returncode:
            raise RuntimeError(f"{command}: {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")

    def tools(self, progress: Callable[[str], None]) -> Path:
        """The virtual environment with all that minictr needs, for /venv; made once per machine."""
        names = "\n".join((self.python.program, str(self.python.rootfs), *requirements()))
        name = f"venv-{self.python.version}-{hashlib.sha256(names.encode()).hexdigest()[:12]}"
        path = debianroots.cache() / name
        with made_once(path) as stage:
            if stage:
                progress(f"building {path}, once for this machine")
                ways = registry.options(self.place / "pip", self.python.rootfs)
                options = ["--network", "host", "-v", f"{stage}:/venv", *ways]
                self.checked(self.python.program, "-m", "venv", "/venv", options=options)
                self.fetched(options)
        return path

    def fetched(self, options: Sequence[str]) -> None:
        """Raises NoPython when it is not for us: this machine's pip gets nothing either, or there is nothing for this
        Python. Anything else is a failure."""
        wanted = requirements()
        try:
            self.checked("/venv/bin/python", "-m", "pip", "install", "-q", *wanted, options=options, seconds=900)
        except RuntimeError as err:
            if OTHER in str(err):
                raise NoPython(f"the registry has nothing for Python {self.python.version}: {err}") from err
            if why := registry.reached(wanted):
                raise NoPython(f"this machine's pip cannot get what is needed: {why}") from err
            raise

    def installed(self, progress: Callable[[str], None]) -> list[str]:
        """Options with which a container has /venv, with minictr built and installed in it, and /repo."""
        shutil.copytree(self.tools(progress), self.place / "venv", symlinks=True)
        repo = self.place / "repo"
        repo.mkdir()
        for name in REPOSITORY:
            shutil.copytree(ROOT / name, repo / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        for file in ROOT.iterdir():
            if file.is_file() and not file.is_symlink() and file.name != ".git":
                shutil.copy(file, repo / file.name)
        options = ["-v", f"{self.place / 'venv'}:/venv", "-v", f"{repo}:/repo", "-w", "/repo"]
        install = ("pip", "install", "-q", "--no-deps", "--no-build-isolation", "--use-pep517", ".")
        self.checked("/venv/bin/python", "-m", *install, options=options)
        for name in ("build", "minictr.egg-info"):
            shutil.rmtree(repo / name, ignore_errors=True)
        return options
