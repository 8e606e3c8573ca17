"""What all arms of one run share: the root file system, the filters, the compiled floor, a directory for the rest."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

from bench.lifecycle import bpf
from bench.lifecycle.probe import NEEDS
from bench.lifecycle.shape import FILTER_INSTRUCTIONS, Shape, from_minictr
from bench.lifecycle.worker import environment

C_FLAGS = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror")
PROGRAMS = ("sh", "true", "cat", "readlink")
MOST_SAID = 500  # characters of a failed command's words in a message
SCRATCH = "/var/tmp"  # a disk; MINICTR_BENCH_SCRATCH says another
ROOT_DIRECTORIES = ("proc", "sys", "dev")


class LabError(Exception):
    """The run cannot begin: no compiler, no root file system, no root."""


class Lab:
    """A context manager; everything it makes is below one temporary directory and removed at the end.

    ``rootfs`` "" builds a small one from the host's own ``programs``. ``straight`` and ``tree`` are paths of the two
    filters, ``floor`` of the compiled program, "" without ``compiled``.
    """

    def __init__(
        self,
        rootfs: str = "",
        *,
        ballast: int = 200,
        shape: Shape | None = None,
        programs: Sequence[str] = PROGRAMS,
        compiled: bool = True,
    ) -> None:
        self.ballast, self.shape = ballast, shape or from_minictr()
        self._programs, self._compiled = programs, compiled
        self._wished_rootfs = rootfs
        self._stack = contextlib.ExitStack()
        self.directory = self.rootfs = self.floor = self.straight = self.tree = self._scratch = ""

    def __enter__(self) -> Lab:
        with contextlib.ExitStack() as stack:  # survives a failure half-way
            self.directory = tempfile.mkdtemp(prefix="minictr-bench-")
            stack.callback(shutil.rmtree, self.directory, ignore_errors=True)
            self.rootfs = os.path.abspath(self._wished_rootfs) if self._wished_rootfs else self._build_rootfs()
            check_rootfs(self.rootfs)
            self.floor = self._compile_floor() if self._compiled else ""
            self.straight = self._write("straight.bpf", bpf.straight(FILTER_INSTRUCTIONS))
            self.tree = self._write("tree.bpf", bpf.tree(FILTER_INSTRUCTIONS))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: Any) -> None:
        self._stack.close()

    def path(self, *names: str) -> str:
        """A path in the lab's own directory; its parents are made."""
        path = os.path.join(self.directory, *names)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return path

    def own_rootfs(self) -> None:
        """From here on ``rootfs`` is ours to add to: one that was given is copied."""
        if self._wished_rootfs and self.rootfs == os.path.abspath(self._wished_rootfs):
            copy = self.path("root-of-our-own")
            done = subprocess.run(["cp", "-a", "--", self.rootfs, copy], capture_output=True, text=True, check=False)
            if done.returncode:
                raise LabError(f"cannot copy {self.rootfs}: {done.stderr.strip()[-MOST_SAID:]}")
            self.rootfs = copy

    def scratch(self) -> str:
        """A directory on a disk, where layers can lie, made when first asked for; it goes with the rest."""
        if not self._scratch:
            top = os.environ.get("MINICTR_BENCH_SCRATCH", SCRATCH)
            self._scratch = tempfile.mkdtemp(prefix="minictr-bench-", dir=top)
            os.chmod(self._scratch, 0o755)  # mapped root users go through it
            self._stack.callback(shutil.rmtree, self._scratch, ignore_errors=True)
        return self._scratch

    def _write(self, name: str, data: bytes) -> str:
        with open(self.path(name), "wb") as file:
            file.write(data)
        return file.name

    def _compile_floor(self) -> str:
        compiler = shutil.which(os.environ.get("CC", "cc"))
        if not compiler:
            raise LabError("no C compiler for the floor: install gcc, or name one in CC")
        output = self.path("floor")
        source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "floor.c")
        done = subprocess.run([compiler, *C_FLAGS, "-o", output, source], capture_output=True, text=True, check=False)
        if done.returncode:
            raise LabError(f"{compiler} cannot compile {source}: {done.stderr.strip()}")
        return output

    def _build_rootfs(self) -> str:
        directory = self.path("root")
        command = [sys.executable, "-m", "minictr", "rootfs", "minimal", directory, *self._programs]
        done = subprocess.run(command, cwd="/", env=environment(), capture_output=True, text=True, check=False)
        if done.returncode:
            raise LabError(f"no root file system was built, give --rootfs DIR: {done.stderr.strip()[-MOST_SAID:]}")
        return directory


def check_rootfs(rootfs: str) -> None:
    """Raise LabError when ROOTFS lacks what every arm needs. It is never changed: the mount points must be there."""
    for name in ROOT_DIRECTORIES:
        if not os.path.isdir(os.path.join(rootfs, name)):
            raise LabError(f"{rootfs} has no directory /{name} to mount on")
    if not os.path.lexists(os.path.join(rootfs, "bin/true")):
        raise LabError(f"{rootfs} has no /bin/true")


def missing_for_probe(rootfs: str) -> list[str]:
    """Programs the probe needs and ROOTFS has not."""
    return [path for path in NEEDS if not os.path.lexists(rootfs + path)]
