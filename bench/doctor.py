"""``python -m bench doctor``: what can be measured on this machine, what cannot and why, and how quiet it is."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import sys
import time
from typing import Any

from bench import host, rootfs
from bench.environments import registry
from bench.environments.base import EnvironmentBroken, Job
from bench.environments.place import Place
from bench.environments.state import differences
from bench.noise import Noise
from bench.stage import SCRATCH, Stage, StageError
from bench.workloads.catalogue import WORKLOADS

ABOUT = "which environments, workloads and tools can be had here, why not, and how quiet the machine is"
LOOK = 1.0  # seconds of the look at the noise
FREE = 12 << 30  # bytes: what a full run wants of a disk, with the copies that are checked
TOOLS = {
    "gcc": "compiles the clock that every arm starts",
    "mmdebstrap": "builds the root file system",
    "nft": "the networks of minictr and LXC",
    "nsenter": "the client's network",
    "ip": "bridges, addresses",
    "ss": "who listens, for the state",
    "wget": "the client of serve",
    "scp": "the client of receive",
    "socat": "the small server of the tests",
}


@dataclasses.dataclass(frozen=True)
class Row:
    """One thing: whether it can be had, and why not or how it was seen."""

    kind: str
    name: str
    usable: bool
    about: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="the whole answer as one object")
    parser.add_argument("--quick", action="store_true", help="look only: nothing is started")


def main(options: argparse.Namespace) -> int:
    """Exit code: 0, or 1 when not even bare can be had."""
    facts, noise = host.facts(), Noise(LOOK).stop()
    rows = [*environments(options.quick), *workloads(), *tools()]
    answer = {
        "facts": facts,
        "noise": noise,
        "rows": [dataclasses.asdict(row) for row in rows],
        "better": advice(facts, noise, rows),
    }
    print(json.dumps(answer, indent=1) if options.json else table(answer))
    return 0 if any(row.usable for row in rows if row.name == "bare") else 1


def environments(quick: bool) -> list[Row]:
    """Each environment: with a small root of this host's own programs a job is run in it, and its state compared."""
    try:
        with Stage(rootfs.MINIMAL) as stage:
            return [_environment(registry.make(name, stage), quick) for name in registry.ENVIRONMENTS]
    except (StageError, rootfs.RootfsError) as err:
        return [Row("environment", name, False, str(err)) for name in registry.ENVIRONMENTS]


def _environment(place: Place, quick: bool) -> Row:
    why = place.unavailable()
    if why or quick:
        return Row("environment", place.name, not why, why or place.ABOUT)
    job = Job(("true",), network="lan")
    try:
        begin = time.perf_counter()
        place.fresh(job)
        prepared, ran = time.perf_counter() - begin, place.run(job)
        wrong = differences(place.planned(job), place.state(job))
        if ran.returncode or wrong:
            return Row("environment", place.name, False, "; ".join(wrong) or f"true left with {ran.returncode}")
        seen = f"prepared in {prepared:.1f} s, one job in {ran.values['whole_s'] * 1000:.0f} ms, its state as planned"
        return Row("environment", place.name, True, seen)
    except EnvironmentBroken as err:
        return Row("environment", place.name, False, str(err))
    finally:
        for line in place.cleanup():
            print(f"bench doctor: {line}", file=sys.stderr)


def workloads() -> list[Row]:
    """Each workload: whether the programs that play its client are here. The rest is in the root file system."""
    rows = []
    for name, kind in WORKLOADS.items():
        missing = [program for program in kind("small").needs_here if not shutil.which(program)]
        about = f"{', '.join(missing)} not installed" if missing else kind.ABOUT
        rows.append(Row("workload", name, not missing, about))
    made = os.path.exists(os.path.join(rootfs.CACHE, rootfs.FULL.key, "made.json"))
    how = f"{rootfs.CACHE}/{rootfs.FULL.key}" if made else "not built yet: some 30 s and 135 MB of packages at first"
    return [*rows, Row("workload", "root file system", True, how)]


def tools() -> list[Row]:
    return [
        Row("tool", name, bool(shutil.which(name)), about if shutil.which(name) else f"not installed: {about}")
        for name, about in TOOLS.items()
    ]


def advice(facts: dict[str, Any], noise: dict[str, Any], rows: list[Row]) -> list[str]:
    """What would make the figures better, or more of them: one line each."""
    lines = [f"not quiet: {reason}" for reason in noise.get("noisy", ())]
    if facts.get("hypervisor"):
        lines.append("this is a virtual machine: others share its processors; a machine of its own resolves more")
    governor = facts.get("governor")
    if governor and governor != "performance":
        lines.append(f"cpu frequency governor {governor}: performance makes times more equal")
    if facts.get("cpus", 2) < 2:
        lines.append("one processor: server and client of serve and receive share it")
    disk = os.statvfs(os.environ.get("MINICTR_BENCH_SCRATCH", SCRATCH))
    free = disk.f_bavail * disk.f_frsize
    if free < FREE:
        lines.append(f"{free / (1 << 30):.1f} GiB free for scratch: the sizes of the thesis want {FREE >> 30}")
    if any(not row.usable for row in rows if row.kind in ("tool", "environment") and "not installed" in row.about):
        lines.append("scripts/bootstrap.sh bench installs what is missing, as `make bench` does by itself")
    return lines


def table(answer: dict[str, Any]) -> str:
    """The answer for people."""
    rows = [Row(**row) for row in answer["rows"]]
    width = max(len(row.name) for row in rows)
    lines, kind = [], ""
    for row in rows:
        if row.kind != kind:
            kind = row.kind
            lines += ["", f"{kind}s"]
        lines.append(f"  {row.name:<{width}}  {'yes' if row.usable else 'no ':<3}  {row.about}")
    facts, noise = answer["facts"], answer["noise"]
    told = ("kernel", "cpu", "cpus", "memory", "cgroups", "lsm", "clocksource", "governor")
    lines += ["", "machine", *(f"  {name:<{width}}  {facts[name]}" for name in told if name in facts)]
    figures = ("load_before", "rest_busy", "rest_waited", "rest_steal")
    lines += [f"  {name:<{width}}  {noise[name]}" for name in figures if name in noise]
    lines += ["", "what would make it better", *(f"  {line}" for line in answer["better"] or ["nothing"])]
    return "\n".join(lines).lstrip("\n")
