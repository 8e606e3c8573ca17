"""One run: every arm once in each round, in a new order each time.

The order is shuffled by a seed that is printed and kept. A fixed order is forbidden: what one arm leaves to the kernel
(a network namespace is torn down by a kernel thread after its last process is gone) would be paid by the next, always
the same one.
"""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from bench.lifecycle import probe
from bench.lifecycle.arms import (
    Arm,
    CommandLine,
    CommandLineWhole,
    Floor,
    FloorAgain,
    FloorBallast,
    FloorInit,
    FloorTree,
    Library,
    LibraryNoInit,
    LibraryTree,
    LibraryWhole,
)
from bench.lifecycle.lab import Lab
from bench.lifecycle.peers import Bubblewrap, Crun, LxcExecute, Runc
from bench.lifecycle.placed import DockerRun, LxcUnprivilegedRun, NspawnRun, PodmanRun
from bench.lifecycle.worker import ArmFailed

Tell = Callable[[str], None]  # progress
ARMS: dict[str, type[Arm]] = {
    arm.NAME: arm
    for arm in (
        Floor,
        FloorAgain,
        FloorBallast,
        FloorInit,
        FloorTree,
        Library,
        LibraryNoInit,
        LibraryTree,
        LibraryWhole,
        CommandLine,
        CommandLineWhole,
        Bubblewrap,
        Crun,
        LxcExecute,
        LxcUnprivilegedRun,
        Runc,
        NspawnRun,
        DockerRun,
        PodmanRun,
    )
}
BASE, AGAIN = Floor.NAME, FloorAgain.NAME  # always there: the measure of all, and the check of the measure


@dataclasses.dataclass
class Record:
    """What one arm gave. ``nanoseconds`` has one value for every counted round, None for a failed one."""

    name: str
    about: str
    unavailable: str = ""
    failed: str = ""  # the first failure; the arm is out of the run from then on
    unproven: str = ""  # why its state could not be read back
    differences: list[str] = dataclasses.field(default_factory=list)
    known: list[str] = dataclasses.field(default_factory=list)
    nanoseconds: list[int] = dataclasses.field(default_factory=list)
    parts: dict[str, list[int]] = dataclasses.field(default_factory=dict)

    @property
    def complete(self) -> bool:
        return bool(self.nanoseconds) and not self.failed and not self.unavailable


@dataclasses.dataclass
class Run:
    """The raw result of a run."""

    records: dict[str, Record]
    orders: list[list[str]]
    seed: int
    warmup: int
    pause: float
    arguments: dict[str, Any] = dataclasses.field(default_factory=dict)


def chosen(names: str) -> list[str]:
    """Arm names from ``a,b`` in the order of ARMS; "" is all. The floor is always twice in it. Raises ValueError."""
    wished = [name.strip() for name in names.split(",") if name.strip()] or list(ARMS)
    unknown = [name for name in wished if name not in ARMS]
    if unknown:
        raise ValueError(f"no arm {', '.join(unknown)}; there are {', '.join(ARMS)}")
    return [name for name in ARMS if name in {*wished, BASE, AGAIN}]


@contextmanager
def prepared(arm: Arm, record: Record) -> Iterator[bool]:
    """The arm ready, its state read back; False where it cannot be had. It is cleaned up whatever happens."""
    record.known = list(arm.KNOWN)
    try:
        _make_ready(arm, record)
        yield not record.unavailable and not record.failed
    finally:
        arm.cleanup()


def _make_ready(arm: Arm, record: Record) -> None:
    record.unavailable = arm.available()
    if record.unavailable:
        return
    try:
        _prove(arm, record)
        arm.prepare()
        arm.start()  # the command runs and succeeds, or the arm does not count
    except (ArmFailed, OSError) as err:
        record.failed = str(err)


def _prove(arm: Arm, record: Record) -> None:
    try:
        record.differences = probe.differences(probe.parse(arm.probe()), arm.lab.shape)
    except (ArmFailed, ValueError, KeyError, IndexError) as err:
        record.unproven = str(err)


def measure(
    lab: Lab,
    names: list[str],
    *,
    rounds: int,
    warmup: int,
    seed: int,
    pause: float = 0.0,
    progress: Tell = lambda text: None,
) -> Run:
    """Run ROUNDS counted rounds after WARMUP dropped ones over the arms NAMES; PAUSE seconds lie before each start."""
    run = Run({name: Record(name, ARMS[name].ABOUT) for name in names}, [], seed, warmup, pause)
    rng = random.Random(seed)
    with ExitStack() as stack:
        alive: dict[str, Arm] = {}
        for name in names:
            progress(f"preparing {name}")
            arm = ARMS[name](lab)
            if stack.enter_context(prepared(arm, run.records[name])):
                alive[name] = arm
        for number in range(-warmup, rounds):
            progress(f"round {number + 1} of {rounds}" if number >= 0 else "warming up")
            order = list(alive)
            rng.shuffle(order)
            _one_round(alive, order, run, counted=number >= 0)
            if number >= 0:
                run.orders.append(order)
    return run


def _one_round(alive: dict[str, Arm], order: list[str], run: Run, *, counted: bool) -> None:
    for name in order:
        record = run.records[name]
        if run.pause:
            time.sleep(run.pause)
        try:
            start = alive[name].start()
        except ArmFailed as err:
            record.failed = f"in round {len(run.orders) + 1}: {err}"
            del alive[name]
            continue
        if counted:
            record.nanoseconds.append(start.nanoseconds)
            for part, value in start.parts.items():
                record.parts.setdefault(part, []).append(value)
