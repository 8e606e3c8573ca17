"""``--alive N``: what a start takes when so many containers live already, up to N, and what memory each of them holds.

A crowd is made and removed for each arm and round. A start is timed from asking to the program's first instruction
(sign.c), one after another. Memory of a container: the private memory of its processes (program, init, monitor), and
what the machine had less of once all lived, which holds the kernel's own as well.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import random
import resource
import statistics
import time
from collections.abc import Sequence
from typing import Any

from bench import host, stats
from bench.life.rest import private_kib
from bench.lifecycle import sign
from bench.lifecycle.lab import Lab, LabError
from bench.lifecycle.phases import TIMEOUT, begin
from bench.lifecycle.records import WINDOW, places
from bench.lifecycle.residents import RESIDENTS
from bench.lifecycle.run import Tell
from bench.lifecycle.verbs import REMOVE, START, Resident
from bench.lifecycle.worker import ArmFailed

ARMS = ("minictr-lib", "minictr-cli", "crun")
DEFAULT = ("minictr-lib", "crun")
FEWEST, MOST = 2 * WINDOW, 4000
DESCRIPTORS = 256  # beside one for each container


@dataclasses.dataclass
class Crowd:
    """One crowd: nanoseconds of each start in order, of the removal of all, KiB of each, KiB the machine had less."""

    nanoseconds: list[int] = dataclasses.field(default_factory=list)
    removed_ns: int = 0
    private_kib: float = 0.0
    machine_kib: float = 0.0


@dataclasses.dataclass
class Found:
    """What one arm gave."""

    known: list[str]
    unavailable: str = ""
    failed: str = ""
    crowds: list[Crowd] = dataclasses.field(default_factory=list)


def available_kib() -> int:
    """MemAvailable of /proc/meminfo, once what can be freed at once is."""
    for line in sign.read("/proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1])
    return 0


def crowd(it: Resident, count: int, tell: Tell) -> Crowd:
    """COUNT containers of IT, alive together, and none afterwards. Raises ArmFailed."""
    made, living, before = Crowd(), [], available_kib()
    with contextlib.ExitStack() as streams:
        try:
            for number in range(count):
                since = sign.ticks()
                it.workers[START].ask()
                begun, one = begin(it, since)
                streams.enter_context(one.stream)
                living.append(one)
                made.nanoseconds.append(one.first - begun)
                if number % 50 == 49:
                    tell(f"{it.NAME}: {number + 1} of {count} run")
            if ended := sum(one.gone(0) for one in living):
                raise ArmFailed(f"{ended} of {count} ended while the others were started")
            made.machine_kib = (before - available_kib()) / count
            pids = {pid for one in living for pid, _ in one.processes}
            made.private_kib = sum(private_kib(sign.read(f"/proc/{pid}/smaps_rollup")) for pid in pids) / count
        finally:
            begin_removal = time.monotonic_ns()
            for _ in living:
                it.workers[REMOVE].start()
            made.removed_ns = time.monotonic_ns() - begin_removal
        for one in living:
            if not one.gone(TIMEOUT):
                raise ArmFailed(f"process {one.pid} lives on after its removal")
    return made


def measure(
    lab: Lab, names: Sequence[str], count: int, *, rounds: int, seed: int, tell: Tell
) -> tuple[dict[str, Found], list[list[str]]]:
    """ROUNDS crowds of each of NAMES, in an order shuffled anew."""
    found = {name: Found(list(RESIDENTS[name].KNOWN)) for name in names}
    rng, orders = random.Random(seed), []
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, count + DESCRIPTORS)), hard))
        with sign.raised(lab) as listening:
            for _ in range(rounds):
                order = rng.sample(names, len(names))
                for name in order:
                    _crowd_of(RESIDENTS[name](lab, listening, numbered=True), count, found[name], tell)
                orders.append(order)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return found, orders


def _crowd_of(it: Resident, count: int, found: Found, tell: Tell) -> None:
    found.unavailable = it.available()
    if found.unavailable or found.failed:
        return
    try:
        with it:
            found.crowds.append(crowd(it, count, tell))
    except (ArmFailed, OSError) as err:
        found.failed = f"in crowd {len(found.crowds) + 1}: {err}"


def middles(found: Found, count: int) -> dict[int, stats.Quartiles]:
    """Milliseconds of a start by how many live: quartiles of the starts of all crowds around that number."""
    shown = {}
    for first, number in places(count):
        values = [value / 1e6 for one in found.crowds for value in one.nanoseconds[first : first + WINDOW]]
        if values:
            shown[number] = stats.quartiles(values)
    return shown


def table(found: dict[str, Found], count: int, seed: int) -> str:
    """By arm: milliseconds of a start, by how many live; memory; removal."""
    lines = [f"A start by how many live, up to {count}; median ms (quartiles) of {WINDOW} starts; seed {seed}", ""]
    for name, it in found.items():
        if not it.crowds:
            lines += [f"{name}: {it.unavailable or it.failed or 'not measured'}", ""]
            continue
        lines.append(f"{name}, {len(it.crowds)} crowds" + (f", left {it.failed}" if it.failed else ""))
        for number, middle in middles(it, count).items():
            lines.append(f"  {number:>5}  {middle.median:>8.2f}  ({middle.q1:.2f} to {middle.q3:.2f})")
        private = statistics.median(one.private_kib for one in it.crowds)
        machine = statistics.median(one.machine_kib for one in it.crowds)
        removal = statistics.median(one.removed_ns for one in it.crowds) / 1e6 / count
        less = f"{machine:.0f} KiB" if machine > 0 else "not known (others freed more)"
        lines.append(f"  each: {private:.0f} KiB private, {less} of the machine's; removed in {removal:.1f} ms")
        lines.append("")
    return "\n".join(lines)


def alive(lab: Lab, options: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """Run it: the table and the document. Raises LabError."""
    facts, watch, count = host.facts(), host.Watch(), options.alive
    wished = options.arms if options.arms_given else DEFAULT
    names = [name for name in ARMS if name in wished]
    if not names:
        raise LabError(f"none of {', '.join(wished)} is made in crowds; there are {', '.join(ARMS)}")
    found, orders = measure(lab, names, count, rounds=options.rounds, seed=options.seed, tell=options.tell)
    document = {"schema": 1, "kind": "alive", "host": facts, "watch": watch.stop(), "seed": options.seed}
    document |= {"containers": count, "orders": orders}
    document["arms"] = {name: dataclasses.asdict(it) for name, it in found.items()}
    document["failed"] = not any(it.crowds for it in found.values())
    return table(found, count, options.seed), document
