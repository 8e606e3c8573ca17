"""``python -m bench closure``: from results files to the tables of bench/attribution.py. Reading only, no measuring."""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence

from bench import analysis, attribution, samples
from bench.attribution import Closure
from bench.micro import arms
from bench.micro.program import NETWORK

ABOUT = "what the loss of a container is made of: counts x unit costs, and what is left unexplained"
MICRO, COST = "micro/", "minimum_ns"
WORKLOAD, ABLATE = "workload/", "ablate/"
# What the server of the network's operations calls for one of them, in operations that are counted by themselves: a
# byte (or a block) received and one sent; a connection is accepted, taken by a child, read twice, answered and closed.
CALLED = {
    "tcp_rr": {"socket": 1.0},
    "tcp_crr": {"socket": 1.5, "getppid": 4.0, "fork_exit": 1.0},
    "tcp_stream": {"socket": 0.5},
    "tcp_maerts": {"socket": 0.5},
    "udp_rr": {"socket": 1.0},
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "results", nargs="+", metavar="RESULTS", help="files of `bench run`, `bench micro`, `bench ablate`"
    )


def costs(records: Iterable[samples.Record], *, network: bool = False) -> dict[str, dict[str, dict[int, float]]]:
    """arm -> operation -> block -> nanoseconds. Blocks of several runs are kept apart by counting on.

    The network's operations are those over the cable, with NETWORK also those on an arm's own loopback: both ends are
    in it, which would be counted twice. "docker*" is what was measured of docker in both experiments; its network's
    operations are less what they call, for that is counted as calls.
    """
    found: dict[str, dict[str, dict[int, float]]] = {}
    runs: dict[str, int] = {}
    for record in records:
        if not isinstance(record, samples.Sample) or record.discarded or not record.experiment.startswith(MICRO):
            continue
        way, _, operation = record.experiment.removeprefix(MICRO).rpartition("/")
        if COST in record.values and (network or (operation in NETWORK) == (way == arms.LAN)):
            block = runs.setdefault(record.run, len(runs) * 1_000_000) + record.block
            arm = f"{way}:{record.arm}" if way else record.arm
            found.setdefault(arm, {}).setdefault(operation, {})[block] = record.values[COST]
    for name in [name for name in found if not name.startswith(f"{arms.LAN}:")]:
        found[name + arms.WHOLE] = {**found[name], **paths(found[name], found.get(f"{arms.LAN}:{name}", {}))}
    return found


def paths(
    inside: Mapping[str, Mapping[int, float]], lan: Mapping[str, Mapping[int, float]]
) -> dict[str, dict[int, float]]:
    """The network's operations of LAN, in each block less their calls at what INSIDE says of them."""
    found: dict[str, dict[int, float]] = {}
    for operation, values in lan.items():
        calls = {name: times for name, times in CALLED.get(operation, {}).items() if name in inside}
        for block, value in values.items():
            if all(block in inside[name] for name in calls):
                less = sum(times * inside[name][block] for name, times in calls.items())
                found.setdefault(operation, {})[block] = value - less
    return found


def counts(records: Iterable[samples.Record]) -> dict[str, dict[str, float]]:
    """experiment -> operation -> times, the last counting run's."""
    found: dict[str, dict[str, float]] = {}
    for record in records:
        if isinstance(record, samples.Count):
            found.setdefault(record.experiment, {})[record.operation] = record.times
    return found


def notes(records: Iterable[samples.Record]) -> dict[str, str]:
    """experiment -> what a reader must know of its counts."""
    found: dict[str, str] = {}
    for it in records:
        if isinstance(it, samples.Run):
            for experiment, part in it.arguments.get("one_in", {}).items():
                found[experiment] = f"counted at one process of {part}, drawn at random" if part > 1 else ""
    return found


def walls(records: Iterable[samples.Record]) -> dict[str, dict[str, dict[tuple[str, int], float]]]:
    """experiment of a workload -> arm -> (run, block) -> seconds."""
    found: dict[str, dict[str, dict[tuple[str, int], float]]] = {}
    for it in records:
        if not isinstance(it, samples.Sample) or it.discarded or not it.experiment.startswith((WORKLOAD, ABLATE)):
            continue
        by_arm = found.setdefault(it.experiment, {}).setdefault(it.arm, {})
        if "wall_s" in it.values:
            by_arm[it.run, it.block] = it.values["wall_s"]
    return found


def counted_as(experiment: str) -> str:
    """The experiment whose counts are those of EXPERIMENT: ``ablate/W/SIZE/METHOD`` is ``workload/W/SIZE``."""
    if not experiment.startswith(ABLATE):
        return experiment
    return WORKLOAD + experiment.removeprefix(ABLATE).rpartition("/")[0]


def losses(table: Mapping[str, Mapping[tuple[str, int], float]], arm: str) -> list[float]:
    """Seconds that ARM takes more than bare, one for each block that has both."""
    mine, bare = table.get(arm, {}), table.get(samples.BARE, {})
    return [mine[key] - bare[key] for key in sorted(mine.keys() & bare.keys())]


def same_bare(experiment: str, table: Mapping[str, Mapping[tuple[str, int], float]]) -> str:
    """Why the A/A check of the timed runs fails; "" when it does not."""
    columns = {arm: dict(values) for arm, values in table.items()}
    same = analysis.compare("", experiment, "wall_s", columns, samples.AGAIN, samples.BARE)
    return analysis.same_gate(same if samples.AGAIN in table else None, samples.BARE)


def noise(records: Sequence[samples.Record]) -> dict[str, str]:
    """experiment -> why the machine was too busy for it, or "EXPERIMENT ARM" -> for that arm of it; of the micro tier
    as a whole, by MICRO."""
    runs = {it.id: it for it in records if isinstance(it, samples.Run)}
    quiets = {it.run: it.quiet for it in records if isinstance(it, samples.End)}
    mine: dict[str, list[samples.Sample]] = {}
    for it in records:
        if isinstance(it, samples.Sample) and not it.discarded:
            mine.setdefault(MICRO if it.experiment.startswith(MICRO) else it.experiment, []).append(it)
    found = {}
    for name, them in mine.items():
        unknown = sorted({it.run for it in them} - runs.keys())
        if unknown:
            found[name] = f"run {unknown[0]} has no record of its own"
            continue
        found[name] = analysis.noise_gate(them, runs, quiets)
        if name != MICRO:
            found.update({f"{name} {arm}": why for arm, why in analysis.busy_arms(them).items()})
    return {name: why for name, why in found.items() if why}


def closures(records: Sequence[samples.Record]) -> list[tuple[str, str, Closure | str]]:
    """(experiment, arm, its table or why there is none) for every workload and every arm that has parts."""
    unit, counted, busy, known = costs(records), counts(records), noise(records), notes(records)
    micro = [f"micro tier: {busy[MICRO]}"] if MICRO in busy else []
    found: list[tuple[str, str, Closure | str]] = []
    for experiment, table in walls(records).items():
        gates = [*filter(None, (same_bare(experiment, table), busy.get(experiment, ""))), *micro]
        gates += [busy[key] for arm in (samples.BARE, samples.AGAIN) if (key := f"{experiment} {arm}") in busy]
        bare = table.get(samples.BARE, {}).values()
        for arm in table:
            times = counted.get(counted_as(experiment), {})
            if arms.parts(arm, lan=False):
                own = [busy[key]] if (key := f"{experiment} {arm}") in busy else []
                made = closed(arm, unit, times, losses(table, arm), bare=mean(bare), gates=[*gates, *own])
                if isinstance(made, Closure):
                    made = dataclasses.replace(made, note=known.get(counted_as(experiment), ""))
                found.append((experiment, arm, made))
    return found


def mean(values: Collection[float]) -> float:
    return statistics.fmean(values) if values else 0.0


def closed(
    arm: str,
    unit: attribution.Costs,
    times: Mapping[str, float],
    loss: Sequence[float],
    *,
    bare: float,
    gates: Sequence[str] = (),
) -> Closure | str:
    """The table of one ARM, or why there is none. BARE: seconds. GATES: why nothing may be said."""
    if not times:
        return "nothing was counted: bench count does that"
    parts = arms.parts(arm, lan=any(name in NETWORK for name in times))
    try:
        return attribution.closure(
            times,
            unit,
            parts,
            loss,
            wholes=arms.wholes_of(arm),
            bare=bare,
            twins=arms.whole(samples.AGAIN),
            gates=gates,
        )
    except ValueError as err:
        return str(err)


def main(options: argparse.Namespace) -> int:
    """Exit code: 0 printed, 2 a file cannot be read or holds nothing of this."""
    records: list[samples.Record] = []
    try:
        for path in options.results:
            records += samples.read(path)
    except (OSError, samples.ResultsError) as err:
        print(f"bench closure: {err}", file=sys.stderr)
        return 2
    found = closures(records)
    if not found:
        print("bench closure: no workload was timed in a container: bench run does that", file=sys.stderr)
        return 2
    for experiment, arm, what in found:
        print(f"{experiment}, {arm} against bare:")
        for line in attribution.table(what) if isinstance(what, Closure) else [f"no table: {what}"]:
            print(f"  {line}")
        print()
    return 0
