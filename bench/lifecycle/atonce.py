"""``--at-once``: starts to exit by 1, 2, 4 and 8 callers at the same time.

Each caller is a process of its own that starts one container after another; all begin together. Told are the seconds of
a start as its caller sees them, and how many starts a second all callers together come to.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import random
import select
import statistics
import time
from collections.abc import Sequence
from typing import Any

from bench import host, stats
from bench.lifecycle.arms import Arm, CommandLineWhole, LibraryWhole
from bench.lifecycle.lab import Lab, LabError
from bench.lifecycle.peers import Crun, LxcExecute, Runc
from bench.lifecycle.placed import DockerRun, Placed
from bench.lifecycle.run import Tell
from bench.lifecycle.worker import DEADLINE, ArmFailed, Worker

CALLERS = (1, 2, 4, 8)
EACH = 4  # starts of every caller in one sample
ARMS: dict[str, type[Arm]] = {
    "minictr-lib": LibraryWhole,
    "minictr-cli": CommandLineWhole,
    "crun": Crun,
    "lxc-execute": LxcExecute,
    "runc": Runc,
    "docker": DockerRun,
}


@dataclasses.dataclass
class Burst:
    """What one arm gave with so many callers: by round, the median nanoseconds of a start and starts a second."""

    nanoseconds: list[int] = dataclasses.field(default_factory=list)
    per_second: list[float] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Crew:
    """An arm with its callers. ``failed``, ``unavailable``: why it is out of the run."""

    name: str
    known: list[str] = dataclasses.field(default_factory=list)
    unavailable: str = ""
    failed: str = ""
    bursts: dict[int, Burst] = dataclasses.field(default_factory=dict)
    arms: list[Arm] = dataclasses.field(default_factory=list)
    workers: list[Worker] = dataclasses.field(default_factory=list)


def burst(workers: Sequence[Worker], each: int) -> tuple[list[int], int]:
    """EACH starts by every one of WORKERS at the same time: nanoseconds of each start, and of all. Raises ArmFailed."""
    left = dict.fromkeys(workers, each)
    took: list[int] = []
    begin = time.perf_counter_ns()
    for worker in workers:
        worker.ask()
    try:
        while left:
            ready = select.select(list(left), [], [], DEADLINE)[0]
            if not ready:
                raise ArmFailed(f"no answer in {DEADLINE:g} s")
            for worker in ready:
                left[worker] -= 1
                took.append(worker.answer().nanoseconds)
                if left[worker]:
                    worker.ask()
                else:
                    del left[worker]
    finally:
        for worker in left:  # what was asked for is waited for: nobody is left with an answer of the last burst
            with contextlib.suppress(ArmFailed):
                worker.answer()
    return took, time.perf_counter_ns() - begin


def hire(lab: Lab, name: str, stack: contextlib.ExitStack) -> Crew:
    """The arm NAME with as many callers as there are ever, warm."""
    crew = Crew(name)
    kind, most = ARMS[name], max(CALLERS)
    several = 1 if issubclass(kind, Placed) else most  # a daemon gives its containers names by itself
    crew.arms = [kind(lab, f"-{number}" if number else "") for number in range(several)]
    crew.known, crew.unavailable = list(crew.arms[0].KNOWN), crew.arms[0].available()
    if crew.unavailable:
        return crew
    try:
        for arm in crew.arms:
            stack.callback(arm.cleanup)
        if several == 1:
            awake(crew)
        crew.workers = [stack.enter_context(crew.arms[number % several].worker(number)) for number in range(most)]
        awake(crew)
        for worker in crew.workers:
            worker.start()
    except (ArmFailed, OSError) as err:
        crew.failed = str(err)
    rest(crew)
    return crew


def awake(crew: Crew) -> None:
    for arm in crew.arms:
        if isinstance(arm, Placed):
            arm.ready()
            arm.awake()


def rest(crew: Crew) -> None:
    for arm in crew.arms:
        if isinstance(arm, Placed):
            arm.rest()


def measure(
    lab: Lab, names: Sequence[str], *, rounds: int, seed: int, pause: float, tell: Tell
) -> tuple[list[Crew], list[list[tuple[str, int]]]]:
    """ROUNDS in each of which every arm is asked by every number of callers, in an order shuffled anew."""
    rng, orders = random.Random(seed), []
    with contextlib.ExitStack() as stack:
        crews = {}
        for name in names:
            tell(f"preparing {name}")
            crews[name] = hire(lab, name, stack)
        for number in range(rounds):
            tell(f"round {number + 1} of {rounds}")
            order = [(name, callers) for name in names for callers in CALLERS if crews[name].workers]
            rng.shuffle(order)
            for name, callers in order:
                if not crews[name].failed:
                    time.sleep(pause)
                    _sample(crews[name], callers, number)
            orders.append(order)
    return list(crews.values()), orders


def _sample(crew: Crew, callers: int, number: int) -> None:
    awake(crew)
    try:
        took, whole = burst(crew.workers[:callers], EACH)
    except ArmFailed as err:
        crew.failed = f"in round {number + 1}, {callers} callers: {err}"
        return
    finally:
        rest(crew)
    into = crew.bursts.setdefault(callers, Burst())
    into.nanoseconds.append(round(statistics.median(took)))
    into.per_second.append(len(took) / (whole / 1e9))


def table(crews: Sequence[Crew], rounds: int, seed: int) -> str:
    """By arm and number of callers: median ms of a start, and starts a second."""
    lines = [f"Starts at once, {EACH} by each caller, {rounds} rounds, order shuffled with seed {seed}", ""]
    lines.append(f"{'':<14}" + "".join(f"{f'{callers} at once':>22}" for callers in CALLERS))
    lines.append(f"{'':<14}" + f"{'ms':>11}{'a second':>11}" * len(CALLERS))
    for crew in crews:
        if not crew.bursts:
            lines.append(f"{crew.name:<14}{'-':>11}  {crew.unavailable or crew.failed or 'not measured'}")
            continue
        line = f"{crew.name:<14}"
        for callers in CALLERS:
            found = crew.bursts.get(callers, Burst())
            if found.nanoseconds:
                line += f"{stats.quartiles([value / 1e6 for value in found.nanoseconds]).median:>11.2f}"
                line += f"{statistics.median(found.per_second):>11.1f}"
            else:
                line += f"{'-':>11}{'-':>11}"
        lines.append(line + (f"  left {crew.failed}" if crew.failed else ""))
    return "\n".join(lines) + "\n"


def at_once(lab: Lab, options: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """Run it: the table and the document. Raises LabError."""
    facts, watch = host.facts(), host.Watch()
    names = [name for name in ARMS if name in options.arms]
    if not names:
        raise LabError(f"none of {', '.join(options.arms)} is started at once; there are {', '.join(ARMS)}")
    pause = options.pause_ms / 1e3
    crews, orders = measure(lab, names, rounds=options.rounds, seed=options.seed, pause=pause, tell=options.tell)
    document = {"schema": 1, "kind": "at-once", "host": facts, "watch": watch.stop(), "seed": options.seed}
    document |= {"each": EACH, "callers": list(CALLERS), "orders": orders}
    document["arms"] = {
        crew.name: {
            "unavailable": crew.unavailable,
            "failed": crew.failed,
            "known": crew.known,
            "bursts": {str(callers): dataclasses.asdict(found) for callers, found in crew.bursts.items()},
        }
        for crew in crews
    }
    document["failed"] = not any(crew.bursts for crew in crews)
    return table(crews, options.rounds, options.seed), document
