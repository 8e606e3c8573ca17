"""How often a workload does what: a separate run under a static tracer (bench/micro/counter.c), never a timed one.

The tracer sees system calls as they are made; the operations of the micro tier are what those calls add up to. What a
call cannot tell is taken from elsewhere: page faults from wait4(2), bytes over the cable from its device.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Mapping, Sequence
from typing import Any

from bench import samples
from bench.environments.base import Bind, Environment, Job, Stage
from bench.micro import program

INSIDE = "/bench-counter"
BLOCK = 65536  # bytes of tcp_stream and tcp_maerts
SIZES = (1, 4096, BLOCK)  # bytes of the operations that read and append
ONE_IN = {"compile": 8}  # tracing all of it took five times as long as compiling: 13,000 processes
NEVER = ("write_1", "fault_file", "udp_rr", *program.COPYUPS, *program.CLONES)
PRICED = tuple(name for name in program.OPERATIONS if name not in NEVER)  # what workloads are counted in
CLASSES = 13  # of the counter: more than 4^(N-1) and at most 4^N bytes
CABLE = "bench0"


class Counting:
    """ENVIRONMENT with every job under the tracer; all else is the environment's own. ``raw()`` after a job."""

    def __init__(self, environment: Environment, directory: str, one_in: int = 1) -> None:
        self._environment, self._directory, self._one_in = environment, directory, one_in
        os.makedirs(directory, exist_ok=True)
        program.compiled(directory, "counter")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._environment, name)

    def _traced(self, job: Job) -> Job:
        argv = (f"{INSIDE}/counter", "--one-in", str(self._one_in), f"{INSIDE}/counts", "--", *job.argv)
        return dataclasses.replace(job, argv=argv, binds=(*job.binds, Bind(self._directory, INSIDE)))

    def fresh(self, job: Job) -> None:
        self._environment.fresh(self._traced(job))

    def run(self, job: Job) -> Any:
        return self._environment.run(self._traced(job))

    def start(self, job: Job) -> Any:
        return self._environment.start(self._traced(job))

    def planned(self, job: Job) -> dict[str, Any]:
        return self._environment.planned(self._traced(job))

    def state(self, job: Job) -> dict[str, Any]:
        return self._environment.state(self._traced(job))

    def raw(self) -> dict[str, float]:
        """What was counted of the last job. Raises ProgramError when it left nothing."""
        path = os.path.join(self._directory, "counts")
        try:
            with open(path, encoding="ascii") as file:
                text = file.read()
        except OSError as err:
            raise program.ProgramError(f"the counter wrote nothing to {path}: {err.strerror}") from err
        os.remove(path)
        return program.counted(text)


def cable_bytes(environment: Environment) -> tuple[float, float]:
    """Bytes that the machine of ENVIRONMENT's lan has (received, sent) over its cable so far."""
    with environment.lan.inside(), open("/proc/thread-self/net/dev", encoding="ascii") as file:
        for line in file:
            name, _, figures = line.partition(":")
            if name.strip() == CABLE:
                words = figures.split()
                return float(words[0]), float(words[8])
    return 0.0, 0.0


def sized(raw: Mapping[str, float], way: str, names: Sequence[str]) -> dict[str, float]:
    """Reads or writes of files as NAMES, operations that move 1 byte, 4 KiB and 64 KiB.

    What a call costs is taken to grow evenly between two of these sizes. So the calls of a class are the two of NAMES
    around it, in numbers that keep both how many calls they were and how many bytes they moved. Beyond 64 KiB a call is
    as many of 64 KiB as its bytes are.
    """
    found = dict.fromkeys(names, 0.0)
    for place in range(CLASSES):
        calls, moved = raw.get(f"{way}_file_{place}", 0.0), raw.get(f"{way}_file_{place}_bytes", 0.0)
        if not calls:
            continue
        if moved >= calls * SIZES[-1]:
            found[names[-1]] += moved / SIZES[-1]
            continue
        at = 0 if 4**place <= SIZES[1] else 1
        larger = (moved - calls * SIZES[at]) / (SIZES[at + 1] - SIZES[at])
        found[names[at]] += calls - larger
        found[names[at + 1]] += larger
    return found


def on(raw: Mapping[str, float], *ends: str) -> float:
    """Reads and writes that moved something through descriptors of these kinds."""
    classes = itertools.product(("read", "write"), ends, range(CLASSES))
    return sum(raw.get(f"{way}_{end}_{place}", 0.0) for way, end, place in classes)


def operations(raw: Mapping[str, float], received: float = 0.0, sent: float = 0.0) -> dict[str, float]:
    """operation of the micro tier -> times, of what was counted; RECEIVED and SENT are bytes over the cable.

    Every call is in one operation only: ``getppid`` stands for those that do little, with what is left of close, munmap
    and wait when opens, mmaps and forks have had theirs. The network's operations are no calls but paths: what their
    calls take is in ``socket``, and bench/micro/closing.py takes it off where a whole container was measured by them.
    Names that the micro tier has not (``major_fault``) are told as not costed.
    """

    def of(name: str) -> float:
        return raw.get(name, 0.0)

    def beyond(name: str, *those: float) -> float:
        return max(of(name) - sum(those), 0.0)

    made, listed = (of("create") + of("unlink")) / 2, of("getdents") / 2
    executed = min(of("exec"), of("fork_call"))
    plain = of("other") + of("idle") + of("accept") + of("connect") + on(raw, "else")
    left = beyond("close", of("open"), of("create")) + beyond("munmap", of("mmap")) + beyond("wait", of("fork_call"))
    found = {
        "getppid": plain + left,
        "personality": of("judged") + of("socket"),
        "open_close": beyond("open", listed),
        "create_unlink": made,
        "stat_deep": of("stat"),
        "readdir": listed,
        **sized(raw, "read", program.READS),
        **sized(raw, "write", program.APPENDS),
        "pipe": on(raw, "pipe") / 4,
        "socket": on(raw, "local", "inet") / 2,
        "mmap": of("mmap"),
        "futex": of("futex") / 4,
        "fork_exec": executed,
        "fork_exit": of("fork_call") - executed,
        "fault_anon": of("minflt"),
        "major_fault": of("majflt"),
        "tcp_crr": of("accept") if received or sent else 0.0,
        "tcp_rr": of("turns") if received or sent else 0.0,
        "tcp_stream": received / BLOCK,
        "tcp_maerts": sent / BLOCK,
    }
    return {name: times for name, times in found.items() if times}


def one_in(workload: Any) -> int:
    """Of how many processes of WORKLOAD one is traced: of some ten thousand short ones a part is enough."""
    return ONE_IN.get(workload.NAME, 1) if workload.size != "tiny" else 1


def count(workload: Any, environment: Environment, stage: Stage, directory: str) -> dict[str, float]:
    """Run WORKLOAD once in ENVIRONMENT under the tracer, at :func:`one_in` of its processes: operation -> times.

    Raises what the workload raises, and ProgramError.
    """
    traced = Counting(environment, directory, one_in(workload))
    environment.prepare()
    before = cable_bytes(environment)
    workload.measure(traced, stage)
    after = cable_bytes(environment)
    if workload.job().network != "lan":
        after = before  # what a cable nobody uses carries is the kernel's own talk of neighbours
    return operations(traced.raw(), after[0] - before[0], after[1] - before[1])


def records(run: str, experiment: str, arm: str, found: Mapping[str, float]) -> list[samples.Count]:
    return [samples.Count(run, experiment, arm, operation, times) for operation, times in found.items()]


def told(found: Mapping[str, float], most: int) -> str:
    """The MOST frequent operations, in words."""
    largest = sorted(found.items(), key=lambda item: -item[1])[:most]
    return ", ".join(f"{name} {times:,.0f}" for name, times in largest)
