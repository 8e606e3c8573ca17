"""The arms: one class per way to start the container, all with one face.

``available()`` says why not, or ""; ``prepare()`` gets everything ready that a user would have ready (a bundle, a
configuration, an imported library); ``probe()`` answers what the container really is; ``run_once()`` is one start to
exit of ``/bin/true`` and nothing else; ``cleanup()`` leaves nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from typing import Any

from bench.lifecycle import probe
from bench.lifecycle.lab import Lab, missing_for_probe
from bench.lifecycle.shape import APART
from bench.lifecycle.worker import ArmFailed, Command, Start, Worker


def serve(**wishes: Any) -> Command:
    """The command of a serve process with these wishes."""
    start = [sys.executable, "-m", "bench.lifecycle.serve", json.dumps(wishes)]
    return lambda request, reply: [*start, str(request), str(reply)]


class Arm:
    """The base: an arm is a worker process made from a command. Subclasses say which."""

    NAME = ""
    ABOUT = ""
    KNOWN: tuple[str, ...] = ()  # differences that the probe cannot see

    def __init__(self, lab: Lab, tag: str = "") -> None:
        """TAG tells several of one class apart: it is in the names of all they make."""
        self.lab, self.tag = lab, tag
        self._worker: Worker | None = None

    @property
    def name(self) -> str:
        return f"{self.NAME}{self.tag}"

    def available(self) -> str:
        """Why this arm cannot be had here; "" when it can."""
        return "" if os.geteuid() == 0 else "needs root"

    def command(self, argv: tuple[str, ...]) -> Command:
        """The worker that starts a container running ARGV each time it is asked."""
        raise NotImplementedError

    def _log(self) -> str:
        return self.lab.path("log", self.name)

    def prepare(self) -> None:
        self._worker = self.worker()

    def worker(self, number: int = 0) -> Worker:
        """The process that starts this arm's containers. NUMBER tells several of them apart."""
        return Worker(self.command(self.lab.shape.command), log=f"{self._log()}{number or ''}")

    def probe(self) -> str:
        """The output of the probing script, run once in a container of this arm. Raises ArmFailed."""
        missing = missing_for_probe(self.lab.rootfs)
        if missing:
            raise ArmFailed(f"the root file system has no {', '.join(missing)}")
        path = self.lab.path("probe", self.name)
        with (
            open(path, "wb") as out,
            Worker(self.command(probe.argv(self.lab.shape)), log=self._log(), stdout=out) as worker,
        ):
            worker.start()
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()

    def start(self) -> Start:
        """One start to exit, with its parts where the arm knows them. Raises ArmFailed."""
        if self._worker is None:
            raise ArmFailed("not prepared")
        return self._worker.start()

    def run_once(self) -> float:
        """One start to exit, in seconds. Raises ArmFailed."""
        return self.start().nanoseconds / 1e9

    def cleanup(self) -> None:
        if self._worker is not None:
            self._worker.close()
            self._worker = None


class Floor(Arm):
    """floor.c; variants are options of the same program."""

    NAME = "floor"
    ABOUT = "the same system calls from bare C"
    OPTIONS: tuple[str, ...] = ()
    TREE = False

    def command(self, argv: tuple[str, ...]) -> Command:
        shape = self.lab.shape
        options = ["--rootfs", self.lab.rootfs, "--hostname", shape.hostname, "--keep", f"{shape.capability_mask:x}"]
        options += ["--filter", self.lab.tree if self.TREE else self.lab.straight]
        options += ["--shm", ",".join(shape.shm_options), *self.options()]
        for option, values in (
            ("--mask", shape.masks),
            ("--readonly", shape.readonlys),
            ("--env", [f"{name}={value}" for name, value in shape.env]),
            ("--sysctl", [f"{probe.sysctl_path(name)}={value}" for name, value in shape.sysctls]),
        ):
            for value in values:
                options += [option, value]
        return lambda request, reply: [
            *(self.lab.floor, "--request", str(request), "--reply", str(reply)),
            *(*options, "--", *argv),
        ]

    def options(self) -> list[str]:
        return []


class FloorAgain(Floor):
    NAME = "floor-again"
    ABOUT = "the floor once more: the A/A check"


class FloorBallast(Floor):
    NAME = "floor-ballast"
    ABOUT = "the floor with minictr-lib's ballast in its heap"

    def options(self) -> list[str]:
        return ["--ballast", str(self.lab.ballast)]


class FloorInit(Floor):
    NAME = "floor-init"
    ABOUT = "the floor with a reaping init as pid 1"

    def options(self) -> list[str]:
        return ["--init", "1"]


class FloorTree(Floor):
    NAME = "floor-tree"
    ABOUT = "the floor with the filter as a search tree"
    TREE = True


class Library(Arm):
    """minictr in a Python process that carries a ballast."""

    NAME = "minictr-lib"
    ABOUT = "minictr.Container.run in a Python process"
    WITHOUT: tuple[str, ...] = APART
    TREE = False

    def command(self, argv: tuple[str, ...]) -> Command:
        return serve(
            mode="library",
            rootfs=self.lab.rootfs,
            argv=list(argv),
            filter_path=self.lab.tree if self.TREE else self.lab.straight,
            without=list(self.WITHOUT),
            ballast=self.lab.ballast,
        )


class LibraryNoInit(Library):
    NAME = "minictr-lib-noinit"
    ABOUT = "the same without the init feature"
    WITHOUT = (*APART, "init")


class LibraryWhole(Library):
    NAME = "minictr-lib-whole"
    ABOUT = "the default profile as it is: with its limit of processes, and its groups on /sys/fs/cgroup"
    WITHOUT = ()
    KNOWN = ("a cgroup of pids, its last readings, and a mount for it: no arm but runc and LXC has one",)


class LibraryTree(Library):
    NAME = "minictr-lib-tree"
    ABOUT = "the same with the filter as a search tree"
    TREE = True


class Tool(Arm):
    """A runtime on the command line, spawned anew for every start."""

    PROGRAM = ""

    def executable(self) -> str:
        """Its path, or "" when it is not installed. Beside this Python first: that is where an environment's own is."""
        beside = os.path.join(os.path.dirname(sys.executable), self.PROGRAM)
        return beside if os.access(beside, os.X_OK) else shutil.which(self.PROGRAM) or ""

    def available(self) -> str:
        return super().available() or ("" if self.executable() else f"{self.PROGRAM} is not installed")


class CommandLine(Tool):
    NAME = "minictr-cli"
    ABOUT = "minictr run --rootfs R -- /bin/true, without control groups"
    PROGRAM = "minictr"
    WITHOUT: tuple[str, ...] = APART

    def command(self, argv: tuple[str, ...]) -> Command:
        without = [word for name in self.WITHOUT for word in ("--without", name)]
        return serve(mode="spawn", argv=[self.executable(), "run", "--rootfs", self.lab.rootfs, *without, "--", *argv])


class CommandLineWhole(CommandLine):
    NAME = "minictr-cli-whole"
    ABOUT = "minictr run --rootfs R -- /bin/true: the default profile as it is"
    WITHOUT = ()
    KNOWN = LibraryWhole.KNOWN
