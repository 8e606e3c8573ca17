"""Randomised complete blocks: every arm once in each block, in an order of the block's own, two identical arms in each.

An experiment is a set of arms that are compared with each other. Block 0 of every experiment is measured, then block 1
of every experiment, and so on, so that whenever a run ends all experiments have about as many blocks. The orders come
from the seed alone: an interrupted run goes on in the order it would have had. A fixed order is forbidden: what one arm
leaves to the kernel would be paid by the next, always the same one.

A sample whose state differs from its plan is written down as discarded and told. An arm that breaks twice in a row is
out; the others go on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

from bench import analysis, paired, samples
from bench.environments.base import EnvironmentBroken
from bench.environments.state import differences
from bench.noise import REST, Noise
from bench.progress import Progress, Silent
from bench.samples import AGAIN, BARE
from bench.workloads.base import WrongResult

PATIENCE = 2  # failures or discarded samples in a row before an arm is out
MOST_SAID = 300  # characters of what an arm says when it breaks
# What an arm may raise and the run survives: anything else is a mistake of the bench's own.
BREAKS = (EnvironmentBroken, WrongResult, OSError, subprocess.SubprocessError, ValueError)

Measured = tuple[dict[str, float], dict[str, Any], dict[str, Any]]  # values, state, planned


class Arm(Protocol):
    """One thing that is compared. ``experiment`` names what it is compared in, ``name`` is its own in there."""

    experiment: str
    name: str
    environment: str
    features: tuple[str, ...]
    known: tuple[str, ...]

    def unavailable(self) -> str:
        """Why it cannot be had here, "" when it can."""
        ...

    def prepare(self) -> None:
        """Everything that is made once. May be called for several arms of one environment: the first one makes it."""
        ...

    def measure(self) -> Measured:
        """One sample: its values, the state read back from the kernel, and what that was planned to be."""
        ...

    def cleanup(self) -> Sequence[str]:
        """Remove everything; one line for what would not go. Called once, whatever happened."""
        ...


@dataclasses.dataclass(frozen=True)
class Plan:
    """How much is measured. ``seconds`` 0 is no limit; ``precision`` 0 is none.

    ``precision`` is half the width of the interval of an arm's ratio to bare, as a logarithm (0.01: plus or minus 1 %),
    at which an experiment has blocks enough (``bench.paired.precise``): whether the interval holds 1 is never asked.
    """

    blocks: int
    seed: int
    seconds: float = 0.0
    precision: float = 0.0
    value: str = "wall_s"
    rest: float = REST


@dataclasses.dataclass
class Outcome:
    """What became of a run. ``samples`` holds those of the run that was resumed as well."""

    samples: list[samples.Sample] = dataclasses.field(default_factory=list)
    failed: dict[tuple[str, str], str] = dataclasses.field(default_factory=dict)  # (experiment, arm) -> one line
    unavailable: dict[tuple[str, str], str] = dataclasses.field(default_factory=dict)
    discarded: list[str] = dataclasses.field(default_factory=list)
    left: list[str] = dataclasses.field(default_factory=list)  # what would not be removed
    ended: str = ""  # why there are fewer blocks than planned


def order(arms: Sequence[str], seed: int, experiment: str, block: int) -> list[str]:
    """The arms of one block in its order: always the same for the same seed."""
    shuffled = sorted(arms)
    random.Random(f"{seed}/{experiment}/{block}").shuffle(shuffled)
    return shuffled


def precise(found: Sequence[samples.Sample], arms: Iterable[str], plan: Plan) -> bool:
    """Whether the ratio to bare of every arm is known as well as PLAN wants it."""
    table = analysis.columns((it for it in found if not it.discarded), plan.value)
    return all(paired.precise(analysis.logs(table, arm, BARE), plan.precision) for arm in arms)


class Blocks:
    """The runner. One use: ``Blocks(arms, run, writer, plan).measure()``.

    RUN is the id of the run in the records, EARLIER what an interrupted run with this seed has measured already.
    Raises ValueError when an experiment lacks one of its two bare arms, or has two arms of one name.
    """

    def __init__(
        self,
        arms: Sequence[Arm],
        run: str,
        write: Callable[[samples.Record], None],
        plan: Plan,
        *,
        earlier: Iterable[samples.Record] = (),
        progress: Progress | None = None,
    ) -> None:
        self._arms = {(arm.experiment, arm.name): arm for arm in arms}
        self._experiments = list(dict.fromkeys(arm.experiment for arm in arms))
        if len(self._arms) != len(arms):
            raise ValueError("two arms of one experiment have the same name")
        for experiment in self._experiments:
            for name in (BARE, AGAIN):
                if (experiment, name) not in self._arms:
                    raise ValueError(f"{experiment} has no arm {name}: each block has two identical bare arms")
        self._run, self._write, self._plan = run, write, plan
        self._progress: Progress = progress or Silent()
        self._outcome = Outcome()
        earlier = list(earlier)
        self._done = samples.done(earlier)
        self._outcome.samples = [it for it in earlier if isinstance(it, samples.Sample)]
        self._told = {(it.experiment, it.name) for it in earlier if isinstance(it, samples.Arm)}
        self._alive: dict[tuple[str, str], Arm] = {}
        self._strikes: dict[tuple[str, str], int] = {}
        self._enough: set[str] = set()

    def measure(self) -> Outcome:
        """All blocks. Whatever happens, Ctrl-C included, every arm is cleaned up before it comes back."""
        if {(of, block, name) for of, name in self._arms for block in range(self._plan.blocks)} <= self._done:
            return self._outcome
        stack = contextlib.ExitStack()
        try:
            self._prepare(stack)
            deadline = time.monotonic() + self._plan.seconds if self._plan.seconds else math.inf
            measured = sum((of, name) in self._alive for of, _, name in self._done)
            self._progress.begin(self._plan.blocks * len(self._alive) - measured, self._plan.seconds)
            for block in range(self._plan.blocks):
                if not self._block(block, deadline):
                    break
        finally:
            with undisturbed(self._progress):
                stack.close()
        return self._outcome

    def _prepare(self, stack: contextlib.ExitStack) -> None:
        for key, arm in self._arms.items():
            self._progress.step(f"preparing {arm.name} for {arm.experiment}")
            stack.callback(self._clean, arm)
            try:
                reason = arm.unavailable()
                if not reason:
                    arm.prepare()
                    self._alive[key] = arm
                    continue
            except BREAKS as err:
                self._out(key, f"could not be prepared: {said(err)}")
                continue
            self._outcome.unavailable[key] = reason
            self._tell_arm(arm, {}, reason)
            self._progress.tell(f"{arm.experiment}: {arm.name} unavailable: {reason}")

    def _clean(self, arm: Arm) -> None:
        self._progress.step(f"cleaning up {arm.name}")
        try:
            left = [" ".join(line.split()) for line in arm.cleanup()]
        except BREAKS as err:
            left = [f"{arm.name}: cleaning up: {said(err)}"]
        self._outcome.left += [line for line in left if line not in self._outcome.left]

    def _block(self, block: int, deadline: float) -> bool:
        """One block of every experiment; False when there is nothing left to do."""
        experiments = [name for name in self._experiments if name not in self._enough]
        random.Random(f"{self._plan.seed}/{block}").shuffle(experiments)
        for experiment in experiments:
            names = [name for of, name in self._arms if of == experiment]
            began, counted = time.monotonic(), len(self._outcome.samples)
            for position, name in enumerate(order(names, self._plan.seed, experiment, block)):
                if (experiment, name) in self._alive and (experiment, block, name) not in self._done:
                    self._sample(self._alive[experiment, name], block, position)
            self._after(experiment, block)
            took = time.monotonic() - began if len(self._outcome.samples) > counted else 0.0
            if time.monotonic() + took > deadline and block + 1 < self._plan.blocks:
                self._outcome.ended = f"the time was up in block {block + 1} of {self._plan.blocks}"
                return False
        return bool(experiments)

    def _after(self, experiment: str, block: int) -> None:
        """Whether EXPERIMENT goes on after BLOCK."""
        alive = {name for of, name in self._alive if of == experiment}
        if BARE not in alive or alive <= {BARE}:
            self._enough.add(experiment)
            return
        if not self._plan.precision:
            return
        mine = [it for it in self._outcome.samples if it.experiment == experiment]
        if precise(mine, alive - {BARE}, self._plan):
            self._enough.add(experiment)
            self._progress.skip((self._plan.blocks - block - 1) * len(alive))
            self._progress.tell(f"{experiment}: precise enough after block {block + 1}")

    def _sample(self, arm: Arm, block: int, position: int) -> None:
        key = (arm.experiment, arm.name)
        self._progress.step(f"block {block + 1} of {self._plan.blocks}: {arm.experiment}, {arm.name}")
        noise, now = Noise(self._plan.rest), time.time()
        values: dict[str, float] = {}
        state: dict[str, Any] = {}
        try:
            values, state, planned = arm.measure()
        except BREAKS as err:
            discarded = f"failed: {said(err)}"
        else:
            self._tell_arm(arm, planned)
            wrong = differences(planned, state)
            discarded = f"not as planned: {'; '.join(wrong)}" if wrong else ""
        sample = samples.Sample(
            self._run, arm.experiment, arm.name, block, position, now, values, state, noise.stop(), discarded
        )
        self._write(sample)
        self._outcome.samples.append(sample)
        self._progress.advance()
        self._strikes[key] = self._strikes.get(key, 0) + 1 if discarded else 0
        if discarded:
            line = f"{arm.experiment}: {arm.name}, block {block + 1}: {discarded}"
            self._outcome.discarded.append(line)
            self._progress.tell(line)
        if self._strikes[key] >= PATIENCE:
            self._out(key, f"{discarded}, {PATIENCE} times in a row", block)

    def _tell_arm(self, arm: Arm, planned: dict[str, Any], unavailable: str = "") -> None:
        """Its record, once."""
        if (arm.experiment, arm.name) in self._told:
            return
        self._told.add((arm.experiment, arm.name))
        features, known = tuple(arm.features), tuple(arm.known)
        self._write(
            samples.Arm(self._run, arm.experiment, arm.name, arm.environment, features, planned, unavailable, known)
        )

    def _out(self, key: tuple[str, str], why: str, block: int = 0) -> None:
        if self._alive.pop(key, None):
            self._progress.skip(self._plan.blocks - block - 1)
        self._outcome.failed[key] = f"{key[0]}: {key[1]}: {why}"
        self._tell_arm(self._arms[key], {})
        self._progress.tell(f"{self._outcome.failed[key]}; it is out, the others go on")


@contextlib.contextmanager
def undisturbed(progress: Progress) -> Iterator[None]:
    """Ctrl-C, TERM and HUP are answered with a line: what is removed in here is removed whole. Main thread only."""

    def answer(number: int, _frame: object) -> None:
        progress.tell(f"{signal.Signals(number).name}: cleaning up already, a moment")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, answer) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def said(err: BaseException) -> str:
    """An exception as one line."""
    line = " ".join(str(err).split()) or type(err).__name__
    return line if len(line) <= MOST_SAID else f"{line[:MOST_SAID]} ..."
