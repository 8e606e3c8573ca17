"""Containers that stay: the verbs of an environment, each a worker of its own.

A *resident* is an environment that starts a container, joins it, stops it and removes it; each verb is a worker
(worker.py) that is asked by a byte, so that no start of Python and no pipe is in a figure. Its program is that of
sign.py. What an environment has no verb for is told, and not imitated. Which there are: residents.py.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Mapping

from bench.lifecycle.arms import Arm, serve
from bench.lifecycle.lab import Lab
from bench.lifecycle.sign import Sign
from bench.lifecycle.worker import Command, Worker

START, EXEC, STOP, REMOVE = VERBS = ("start", "exec", "stop", "teardown")
Spawned = dict[str, list[str]]  # verb -> words


class Resident:
    """A context manager: entered, its workers are there. ``numbered``: each container has a number in its name, so that
    many can live; else one after another has the same name. ``arm`` is what it has in common with a start to exit."""

    NAME = ""
    ABOUT = ""
    KNOWN: tuple[str, ...] = ()
    ATTACHED = False  # its start command stays as long as its container
    REMOVES_GROUPS = True

    def __init__(self, lab: Lab, sign: Sign, *, numbered: bool = False) -> None:
        self.lab, self.sign, self.numbered = lab, sign, numbered
        self.container = f"minictr-bench-{os.getpid()}-{self.NAME}" + ("-@" if numbered else "")
        self.arm = self.made()
        self.workers: dict[str, Worker] = {}
        self._stack = contextlib.ExitStack()

    def made(self) -> Arm:
        raise NotImplementedError

    def available(self) -> str:
        return self.arm.available()

    def commands(self) -> Mapping[str, Command]:
        """The worker of each verb that there is. Raises ArmFailed."""
        raise NotImplementedError

    def state(self) -> list[str]:
        """Paths that are there as long as something is written down of its containers."""
        return []

    def __enter__(self) -> Resident:
        with contextlib.ExitStack() as stack:
            stack.callback(self.end)
            for verb, command in self.commands().items():
                log = self.lab.path("log", f"{self.NAME}-{verb}")
                self.workers[verb] = stack.enter_context(self.worker(command, log))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def worker(self, command: Command, log: str) -> Worker:
        return Worker(command, log=log)

    def end(self) -> None:
        """Whatever is left of it goes."""
        self.arm.cleanup()

    def awake(self) -> None:
        """Before it is asked for anything."""

    def rest(self) -> None:
        """When others are."""

    def terminate(self, pid: int) -> None:
        """Where there is no verb: the signal to the program itself, PID."""
        os.kill(pid, signal.SIGTERM)


class Spawning(Resident):
    """One whose verbs are commands."""

    def words(self) -> Spawned:
        raise NotImplementedError

    def commands(self) -> Mapping[str, Command]:
        return {verb: self.spawner(words) for verb, words in self.words().items()}

    def spawner(self, words: list[str]) -> Command:
        return serve(mode="spawn", argv=words, stamped=True, numbered=self.numbered)
