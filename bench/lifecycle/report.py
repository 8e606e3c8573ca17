"""A run as a table for people and as JSON for everything else. The JSON keeps every raw value."""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
from typing import Any

from bench import stats
from bench.lifecycle.run import AGAIN, BASE, Record, Run

SCHEMA = 1
NO_DIFFERENCE = "as planned"

# (text, arm, base arm, at most so many times): what is promised, with the figure
TARGETS = (
    ("minictr-lib at most 1.5 floors", "minictr-lib", BASE, 1.5),
    ("minictr-lib at most 1.5 floors that have an init too", "minictr-lib", "floor-init", 1.5),
    ("minictr-lib at most half of crun", "minictr-lib", "crun", 0.5),
    ("minictr-lib-whole at most 1.5 floors that have an init too", "minictr-lib-whole", "floor-init", 1.5),
    ("minictr-lib-whole at most half of crun", "minictr-lib-whole", "crun", 0.5),
    ("minictr-cli faster than runc", "minictr-cli", "runc", 1.0),
    ("minictr-cli-whole faster than runc", "minictr-cli-whole", "runc", 1.0),
    ("minictr-cli no slower than crun", "minictr-cli", "crun", 1.0),
    ("minictr-lib-tree below the floor", "minictr-lib-tree", BASE, 1.0),
)


@dataclasses.dataclass(frozen=True)
class Row:
    """One arm's line."""

    name: str
    about: str
    milliseconds: stats.Quartiles
    ratio: stats.Interval
    unstable: str


def ratio(run: Run, name: str, base: str) -> stats.Interval:
    """How many times BASE the arm NAME takes, paired within rounds."""
    return stats.paired_ratio(run.records[name].nanoseconds, run.records[base].nanoseconds, seed=run.seed)


def rows(run: Run) -> list[Row]:
    """A line for every arm that was measured to the end, in the order of the run."""
    return [
        Row(
            record.name,
            record.about,
            stats.quartiles([value / 1e6 for value in record.nanoseconds]),
            ratio(run, record.name, BASE),
            stats.instability(record.nanoseconds),
        )
        for record in _complete(run)
    ]


def _complete(run: Run) -> list[Record]:
    return [record for record in run.records.values() if record.complete]


def targets(run: Run) -> list[tuple[str, str, stats.Interval]]:
    """(what is promised, "yes", "no" or "unresolved", the ratio) for those whose arms were measured."""
    measured = {record.name for record in _complete(run)}
    found = []
    for text, name, base, at_most in TARGETS:
        if {name, base} <= measured:
            interval = ratio(run, name, base)
            found.append((text, stats.verdict(interval, at_most), interval))
    return found


def warnings(run: Run, watch: dict[str, Any]) -> list[str]:
    """Everything that should keep a reader from believing too much."""
    found = [f"noisy machine: {reason}" for reason in watch["noisy"]]
    if AGAIN in run.records and run.records[AGAIN].complete and run.records[BASE].complete:
        same = ratio(run, AGAIN, BASE)
        if 1.0 not in same:
            found.append(f"A/A check: the floor against itself is {same}, without 1 in it: ratios are unresolved")
    found += [f"{row.name} may be unstable: {row.unstable}" for row in rows(run) if row.unstable]
    return found


def table(run: Run, host: dict[str, Any], watch: dict[str, Any]) -> str:
    """The whole report, 80 columns wide where the words allow."""
    lines = [
        f"Start to exit of /bin/true, {len(run.orders)} rounds, order shuffled with seed {run.seed}",
        f"{host.get('kernel', '?')}, {host.get('cpus', '?')} cpus, {host.get('cpu', 'unknown cpu')}, "
        f"load {watch['load_before']:.2f}, others {watch['others']:.0%} of the cpu time",
        "",
        f"{'arm':<19}{'median ms':>10}{'q1':>8}{'q3':>8}{'x floor':>9}   95 % interval",
    ]
    for row in rows(run):
        middle, times = row.milliseconds, row.ratio
        lines.append(
            f"{row.name:<19}{middle.median:>10.2f}{middle.q1:>8.2f}{middle.q3:>8.2f}"
            f"{times.estimate:>9.2f}   {times.low:.2f} to {times.high:.2f}{' ~' if row.unstable else ''}"
        )
    for record in run.records.values():
        if not record.complete:
            lines.append(f"{record.name:<19}{'-':>10}  {record.unavailable or record.failed or 'not measured'}")
    lines += _sections(run, watch)
    return "\n".join(lines) + "\n"


def _sections(run: Run, watch: dict[str, Any]) -> list[str]:
    lines = []
    if run.records[BASE].parts:
        lines += ["", "The floor by part, median us:", f"  {parts_line(run.records[BASE])}"]
    promised = targets(run)
    if promised:
        lines += ["", "Targets:", *(f"  {answer:<11}{text}: {interval}" for text, answer, interval in promised)]
    lines += ["", "What each arm's container really was, read back from the kernel:"]
    for record in run.records.values():
        if not record.unavailable:
            lines += _state_lines(record)
    told = warnings(run, watch)
    if told:
        lines += ["", "Warnings:", *(f"  {text}" for text in told)]
    return lines


def _state_lines(record: Record) -> list[str]:
    if record.unproven:
        return [f"  {record.name}: not proven: {record.unproven}"]
    told = [*record.differences, *record.known]
    if not told:
        return [f"  {record.name}: {NO_DIFFERENCE}"]
    return [f"  {record.name}:", *(f"    - {text}" for text in told)]


def parts_line(record: Record) -> str:
    """``enter 700, root 120, ...``: medians in microseconds of what an arm tells of itself."""
    return ", ".join(f"{name} {statistics.median(values) / 1e3:.0f}" for name, values in record.parts.items())


def document(run: Run, host: dict[str, Any], watch: dict[str, Any]) -> dict[str, Any]:
    """Everything, raw values included, as plain data for JSON."""
    return {
        "schema": SCHEMA,
        "kind": "lifecycle",
        "arguments": run.arguments,
        "seed": run.seed,
        "warmup": run.warmup,
        "pause": run.pause,
        "host": host,
        "watch": watch,
        "orders": run.orders,
        "arms": {name: dataclasses.asdict(record) for name, record in run.records.items()},
        "summary": {row.name: dataclasses.asdict(row) for row in rows(run)},
        "targets": [
            {"text": text, "answer": answer, "ratio": dataclasses.asdict(interval)}
            for text, answer, interval in targets(run)
        ],
        "warnings": warnings(run, watch),
    }


def write(path: str, found: dict[str, Any]) -> None:
    """Write FOUND as JSON to PATH, whole or not at all."""
    partial = f"{path}.partial"
    with open(partial, "w", encoding="utf-8") as file:
        json.dump(found, file, indent=1)
        file.write("\n")
    os.replace(partial, path)
