"""The stage of one run: the root file system, a directory on a real disk, and copies to write to."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from typing import Any

from bench import rootfs
from bench.tree import Tree

SCRATCH = "/var/tmp"
NO_DISK = ("tmpfs", "ramfs", "overlay")  # a layer cannot lie on the last; the first two are memory


class StageError(Exception):
    """The run cannot begin: one line."""


class Stage:
    """A context manager. ``rootfs``, ``linux``: see :mod:`bench.rootfs`; ``directory`` goes with the run.

    ``scratch``: where that is made, by default what MINICTR_BENCH_SCRATCH says, or /var/tmp. Raises RootfsError,
    StageError.
    """

    def __init__(
        self, recipe: rootfs.Recipe = rootfs.FULL, *, scratch: str = "", progress: rootfs.Progress = rootfs.silent
    ) -> None:
        self.recipe, self.progress = recipe, progress
        self.scratch = scratch or os.environ.get("MINICTR_BENCH_SCRATCH", SCRATCH)
        self.rootfs = self.linux = self.directory = ""
        self.facts: dict[str, object] = {}
        self._trees: dict[int, Tree] = {}
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Stage:
        if os.geteuid() != 0:
            raise StageError("the environments need root: chroot, cgroups, networks and daemons are its")
        with contextlib.ExitStack() as stack:
            made = rootfs.ensure(self.recipe, progress=self.progress)
            self.rootfs, self.linux, self.facts = made.path, made.linux, made.facts
            self.directory = tempfile.mkdtemp(prefix="minictr-bench-", dir=self.scratch)
            os.chmod(self.directory, 0o755)  # mapped root users go through it
            stack.callback(shutil.rmtree, self.directory, ignore_errors=True)
            kind = filesystem(self.directory)
            if kind in NO_DISK:
                raise StageError(f"{self.scratch} is on {kind}, and not on a disk: set MINICTR_BENCH_SCRATCH")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: Any) -> None:
        self._trees = {}
        self._stack.close()

    def tree(self, owner: int = 0) -> str:
        """The writable copy with its owners shifted by OWNER, made when first asked for."""
        if owner not in self._trees:
            self.progress("copying the root file system" + (f" for users from {owner} on" if owner else ""))
            self._trees[owner] = Tree(self.rootfs, os.path.join(self.directory, f"tree-{owner}"), owner)
        return self._trees[owner].path

    def restore(self, owner: int = 0) -> None:
        """That copy as it was when it was made."""
        self.tree(owner)
        self._trees[owner].restore()

    def touched(self) -> str:
        """Whether somebody wrote to the root itself: a line, "" when nobody did."""
        whole = rootfs.digest(self.rootfs) == self.facts["digest"]
        return "" if whole else f"{self.rootfs} was written to during the run: its bytes were not the same for all"


def filesystem(path: str) -> str:
    """The name of PATH's file system, as stat(1) has it."""
    return subprocess.run(["stat", "-f", "-c", "%T", path], capture_output=True, text=True, check=True).stdout.strip()
