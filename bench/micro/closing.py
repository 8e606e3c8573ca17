"""``python -m bench closure``: from results files to the tables of bench/attribution.py. Reading only, no measuring."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence

from bench import attribution, samples
from bench.attribution import Closure
from bench.micro import arms
from bench.micro.program import NETWORK

ABOUT = "what the loss of a container is made of: counts x unit costs, and what is left unexplained"
MICRO, COST = "micro/", "median_ns"
WORKLOAD, ABLATE = "workload/", "ablate/"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "results", nargs="+", metavar="RESULTS", help="files of `bench run`, `bench micro`, `bench ablate`"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the intervals (default: 0)")


def costs(records: Iterable[samples.Record], *, network: bool = False) -> dict[str, dict[str, dict[int, float]]]:
    """arm -> operation -> block -> nanoseconds. Blocks of several runs are kept apart by counting on.

    The network's operations are those over the cable, with NETWORK also those on an arm's own loopback: both ends are
    in it, which would be counted twice. "docker*" is what was measured of docker in both experiments.
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
        found[name + arms.WHOLE] = {**found[name], **found.get(f"{arms.LAN}:{name}", {})}
    return found


def counts(records: Iterable[samples.Record]) -> dict[str, dict[str, float]]:
    """experiment -> operation -> times, the last counting run's."""
    found: dict[str, dict[str, float]] = {}
    for record in records:
        if isinstance(record, samples.Count):
            found.setdefault(record.experiment, {})[record.operation] = record.times
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


def same_bare(table: Mapping[str, Mapping[tuple[str, int], float]]) -> str:
    """Why the A/A check fails: "" when two identical arms may be equal, or were not both measured enough."""
    found = losses(table, samples.AGAIN)
    if len(found) < attribution.FEWEST:
        return ""
    interval = attribution.stats.bootstrap(found, seed=0)
    return "" if 0.0 in interval else f"two identical arms differ by {interval} s: this run resolves nothing"


def closures(records: Sequence[samples.Record], seed: int = 0) -> list[tuple[str, str, Closure | str]]:
    """(experiment, arm, its table or why there is none) for every workload and every arm that has parts."""
    unit, counted = costs(records), counts(records)
    found: list[tuple[str, str, Closure | str]] = []
    for experiment, table in walls(records).items():
        broken = same_bare(table)
        for arm in table:
            times = counted.get(counted_as(experiment), {})
            if arms.parts(arm, lan=False):
                found.append((experiment, arm, closed(arm, unit, times, losses(table, arm), broken=broken, seed=seed)))
    return found


def closed(
    arm: str,
    unit: attribution.Costs,
    times: Mapping[str, float],
    loss: Sequence[float],
    *,
    broken: str = "",
    seed: int = 0,
) -> Closure | str:
    """The table of one ARM, or why there is none. BROKEN: why the timed run resolves nothing."""
    if not times:
        return "nothing was counted: bench count does that"
    parts = arms.parts(arm, lan=any(name in NETWORK for name in times))
    try:
        made = attribution.closure(times, unit, parts, loss, together=arms.whole(arm), seed=seed)
    except ValueError as err:
        return str(err)
    return attribution.unresolved(made, broken) if broken else made


def main(options: argparse.Namespace) -> int:
    """Exit code: 0 printed, 2 a file cannot be read or holds nothing of this."""
    records: list[samples.Record] = []
    try:
        for path in options.results:
            records += samples.read(path)
    except (OSError, samples.ResultsError) as err:
        print(f"bench closure: {err}", file=sys.stderr)
        return 2
    found = closures(records, options.seed)
    if not found:
        print("bench closure: no workload was timed in a container: bench run does that", file=sys.stderr)
        return 2
    for experiment, arm, what in found:
        print(f"{experiment}, {arm} against bare:")
        for line in attribution.table(what) if isinstance(what, Closure) else [f"no table: {what}"]:
            print(f"  {line}")
        print()
    return 0
