"""``--phases``: start, exec, stop and teardown of a container in every environment that has such a verb.

``start``     from asking until the program's first instruction, by the program's own clock (sign.c)
``exec``      ``/bin/true`` in the container that runs, from asking until the command is back
``stop``      from asking gracefully (SIGTERM, on which the program ends) until the program is gone and the command back
``teardown``  from asking for its removal until nothing is left: control groups, what is written down, mounts, monitor;
              where there is no such verb, from the end of the stop
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import random
import time
from collections.abc import Sequence
from typing import Any

from bench import host, stats
from bench.lifecycle import sign
from bench.lifecycle.lab import Lab, LabError
from bench.lifecycle.residents import RESIDENTS
from bench.lifecycle.run import Record, Tell
from bench.lifecycle.verbs import EXEC, REMOVE, START, STOP, VERBS, Resident
from bench.lifecycle.worker import ArmFailed

TIMEOUT = 60.0  # seconds for any phase
STEP = 0.0005  # seconds between two looks at what is left


def chosen(names: Sequence[str]) -> list[str]:
    """Those of NAMES that stay, with the twin of the library's. Raises LabError when none does."""
    found = [name for name in RESIDENTS if name in names]
    if not found:
        raise LabError(f"none of {', '.join(names)} has phases; there are {', '.join(RESIDENTS)}")
    twin = ["minictr-lib-again"] if "minictr-lib" in found else []
    return [name for name in RESIDENTS if name in {*found, *twin}]


def mounts(lab: Lab) -> set[str]:
    """The lines of our mount table that are the lab's: a detached container's may stay there."""
    return {
        line
        for line in sign.read("/proc/self/mountinfo").splitlines()
        if lab.directory in line or lab.scratch() in line
    }


def one(it: Resident, before: set[str]) -> dict[str, int]:
    """One container's life: nanoseconds by phase. Raises ArmFailed."""
    since, took = sign.ticks(), {}
    it.workers[START].ask()
    begun, living = begin(it, since)
    with living.stream:
        took[START] = living.first - begun if begun else 0
        if EXEC in it.workers:
            took[EXEC] = it.workers[EXEC].start().nanoseconds
        ended = stop(it, living, took)
        if not begun:
            answer = it.workers[START].answer()
            took[START] = living.first - answer.parts["begun"]
        teardown(it, living, before, took, ended)
    return {verb: took[verb] for verb in VERBS if verb in took}


def begin(it: Resident, since: int) -> tuple[int, sign.Living]:
    """When its start began (0 where the command only answers at the end), and its program."""
    begun = 0
    if not it.ATTACHED:
        begun = it.workers[START].answer().parts["begun"]
    try:
        return begun, it.sign.living(TIMEOUT, since)
    except ArmFailed:
        if it.ATTACHED:
            it.workers[START].answer()  # its own words are better
        raise


def stop(it: Resident, living: sign.Living, took: dict[str, int]) -> int:
    """Asked to end; CLOCK_MONOTONIC when it had."""
    begun = time.monotonic_ns()
    worker = it.workers.get(STOP)
    if worker is None:
        it.terminate(living.pid)
    else:
        worker.ask()
    if not living.gone(TIMEOUT):
        raise ArmFailed(f"its program runs on {TIMEOUT:g} s after it was asked to stop")
    gone = time.monotonic_ns()
    if worker is not None:
        answer = worker.answer()
        begun = answer.parts["begun"]
        gone = max(gone, begun + answer.nanoseconds)
    if worker is not None or type(it).terminate is not Resident.terminate:
        took[STOP] = gone - begun
    return gone


def teardown(it: Resident, living: sign.Living, before: set[str], took: dict[str, int], begun: int) -> None:
    """Removed, until nothing is left of it."""
    if REMOVE in it.workers:
        begun = it.workers[REMOVE].start().parts["begun"]
    deadline = time.monotonic() + TIMEOUT
    while left := remains(it, living, before):
        if time.monotonic() > deadline:
            raise ArmFailed(f"{TIMEOUT:g} s after its removal there is still {left[0]}")
        time.sleep(STEP)
    took[REMOVE] = time.monotonic_ns() - begun


def remains(it: Resident, living: sign.Living, before: set[str]) -> list[str]:
    """What is left of it, one line each."""
    left = [f"process {pid}" for pid, begun in living.processes if sign.alive(pid, begun)]
    left += [f"control group {path}" for path in living.groups if it.REMOVES_GROUPS and os.path.isdir(path)]
    left += [f"{path}" for path in it.state()]
    return left or [f"mount {line}" for line in mounts(it.lab) - before]


@dataclasses.dataclass
class Lives:
    """What was measured: records by name, with ``parts`` by phase, and the orders."""

    records: dict[str, Record]
    orders: list[list[str]]


def measure(lab: Lab, names: Sequence[str], *, rounds: int, warmup: int, seed: int, pause: float, tell: Tell) -> Lives:
    """ROUNDS lives of each of NAMES in shuffled order, after WARMUP dropped ones. One that fails leaves."""
    found = Lives({name: Record(name, RESIDENTS[name].ABOUT, known=list(RESIDENTS[name].KNOWN)) for name in names}, [])
    rng = random.Random(seed)
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(sign.raised(lab))
        alive: dict[str, Resident] = {}
        for name in names:
            tell(f"preparing {name}")
            it, record = RESIDENTS[name](lab, listening), found.records[name]
            record.unavailable = it.available()
            if not record.unavailable:
                try:
                    alive[name] = stack.enter_context(it)
                    it.rest()
                except (ArmFailed, OSError) as err:
                    record.failed = str(err)
        before = mounts(lab)
        for number in range(-warmup, rounds):
            tell(f"round {number + 1} of {rounds}" if number >= 0 else "warming up")
            order = rng.sample(list(alive), len(alive))
            for name in order:
                time.sleep(pause)
                _once(alive, name, found.records[name], before, number)
            if number >= 0:
                found.orders.append(order)
    return found


def _once(alive: dict[str, Resident], name: str, record: Record, before: set[str], number: int) -> None:
    it = alive[name]
    it.awake()
    try:
        took = one(it, before)
    except (ArmFailed, OSError) as err:
        record.failed = f"in round {number + 1}: {err}"
        del alive[name]
        return
    finally:
        it.rest()
    if number >= 0:
        record.nanoseconds.append(sum(took.values()))
        for verb, value in took.items():
            record.parts.setdefault(verb, []).append(value)


def table(found: Lives, rounds: int, seed: int) -> str:
    """A line each: median and quartiles of every phase."""
    lines = [f"Phases of a container, ms: median (quartiles); {rounds} rounds, order shuffled with seed {seed}", ""]
    lines.append(f"{'':<18}" + "".join(f"{verb:>24}" for verb in VERBS))
    for name, record in found.records.items():
        if not record.parts:
            lines.append(f"{name:<18}{'-':>24}  {record.unavailable or record.failed or 'not measured'}")
            continue
        cells = []
        for verb in VERBS:
            if verb not in record.parts:
                cells.append(f"{'no such verb':>24}")
                continue
            middle = stats.quartiles([value / 1e6 for value in record.parts[verb]])
            cells.append(f"{f'{middle.median:.2f} ({middle.q1:.2f} to {middle.q3:.2f})':>24}")
        lines.append(f"{name:<18}{''.join(cells)}" + (f"  left {record.failed}" if record.failed else ""))
    lines += ["", "What a fair reader must know:"]
    lines += [f"  {name}: {text}" for name, record in found.records.items() if record.parts for text in record.known]
    return "\n".join(lines) + "\n"


def phases(lab: Lab, options: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """Run it: the table and the document. Raises LabError."""
    facts, watch = host.facts(), host.Watch()
    names = chosen(options.arms)
    found = measure(
        lab,
        names,
        rounds=options.rounds,
        warmup=options.warmup,
        seed=options.seed,
        pause=options.pause_ms / 1e3,
        tell=options.tell,
    )
    document = {"schema": 1, "kind": "phases", "host": facts, "watch": watch.stop(), "seed": options.seed}
    document |= {"orders": found.orders, "arms": {name: dataclasses.asdict(it) for name, it in found.records.items()}}
    document["failed"] = not any(it.nanoseconds for it in found.records.values())
    return table(found, options.rounds, options.seed), document
