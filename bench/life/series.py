"""Commands measured in turn: each once a round, in a new order each time, in a process that stays."""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from bench import stats
from bench.lifecycle.lab import Lab
from bench.lifecycle.worker import ArmFailed, Command, Worker

Tell = Callable[[str], None]


@dataclasses.dataclass
class Series:
    """What one command took: ``nanoseconds`` by round; ``cpu``: of processor time. ``failed``: why it left the run."""

    name: str
    about: str = ""
    nanoseconds: list[int] = dataclasses.field(default_factory=list)
    failed: str = ""
    cpu: list[int] = dataclasses.field(default_factory=list)

    @property
    def complete(self) -> bool:
        return bool(self.nanoseconds) and not self.failed


@dataclasses.dataclass(frozen=True)
class Target:
    """A promise: ``answer`` is "yes", "no" or "unresolved", ``figure`` what was found."""

    text: str
    answer: str
    figure: str

    @classmethod
    def of(cls, text: str, found: stats.Interval, at_most: float) -> Target:
        return cls(text, stats.verdict(found, at_most), str(found))


@dataclasses.dataclass(frozen=True)
class Part:
    """One part of the run: ``lines`` for people, ``targets``, and ``raw`` with every value."""

    title: str
    lines: Sequence[str]
    targets: Sequence[Target]
    raw: Mapping[str, Any]
    unstable: Sequence[str] = ()


def in_turn(
    lab: Lab,
    commands: Mapping[str, tuple[str, Command]],
    *,
    rounds: int,
    warmup: int,
    seed: int,
    pause: float = 0.0,
    tell: Tell = lambda text: None,
) -> tuple[dict[str, Series], list[list[str]]]:
    """ROUNDS counted rounds of COMMANDS (name -> (about, worker's command)) after WARMUP dropped ones; the orders too.

    One that fails is marked and leaves; the others go on.
    """
    found = {name: Series(name, about) for name, (about, _) in commands.items()}
    orders: list[list[str]] = []
    rng = random.Random(seed)
    with ExitStack() as stack:
        workers: dict[str, Worker] = {}
        for name, (_, command) in commands.items():
            worker = stack.enter_context(Worker(command, log=lab.path("log", f"life-{name}")))
            try:
                worker.start()
                workers[name] = worker
            except ArmFailed as err:
                found[name].failed = str(err)
        for number in range(-warmup, rounds):
            tell(f"round {number + 1} of {rounds}" if number >= 0 else "warming up")
            order = list(workers)
            rng.shuffle(order)
            for name in order:
                time.sleep(pause)
                try:
                    start = workers[name].start()
                except ArmFailed as err:
                    found[name].failed = f"in round {number + 1}: {err}"
                    del workers[name]
                    continue
                if number >= 0:
                    found[name].nanoseconds.append(start.nanoseconds)
                    found[name].cpu += [value for part, value in start.parts.items() if part == "cpu"]
            if number >= 0:
                orders.append(order)
    return found, orders


def table(found: Mapping[str, Series], base: str, seed: int) -> list[str]:
    """A line each: median, quartiles, processor time, and how many times BASE it takes."""
    with_cpu = any(series.cpu for series in found.values())
    lines = [
        f"{'':<15}{'median ms':>10}{'q1':>8}{'q3':>8}{'cpu' if with_cpu else '':>8}{'x ' + base:>13}   95 % interval"
    ]
    for series in found.values():
        if not series.complete:
            lines.append(f"{series.name:<15}{'-':>10}  {series.failed}")
            continue
        middle = stats.quartiles([value / 1e6 for value in series.nanoseconds])
        line = f"{series.name:<15}{middle.median:>10.2f}{middle.q1:>8.2f}{middle.q3:>8.2f}"
        line += f"{stats.quartiles(series.cpu).median / 1e6:>8.2f}" if series.cpu else " " * 8
        if found[base].complete:
            times = ratio(found, series.name, base, seed)
            line += f"{times.estimate:>13.2f}   {times.low:.2f} to {times.high:.2f}"
        lines.append(line + (" ~" if stats.instability(series.nanoseconds) else ""))
    return lines


def ratio(found: Mapping[str, Series], name: str, base: str, seed: int) -> stats.Interval:
    """How many times BASE the series NAME takes, paired within rounds."""
    return stats.paired_ratio(found[name].nanoseconds, found[base].nanoseconds, seed=seed)


def unstable(found: Mapping[str, Series]) -> list[str]:
    """What spreads too wide, one line each."""
    told = ((series.name, stats.instability(series.nanoseconds)) for series in found.values() if series.complete)
    return [f"{name} may be unstable: {reason}" for name, reason in told if reason]


def raw(found: Mapping[str, Series], orders: list[list[str]]) -> dict[str, Any]:
    """Every value, as plain data."""
    return {"series": {name: dataclasses.asdict(series) for name, series in found.items()}, "orders": orders}
