"""``--by-step``: minictr's own time line by feature, medians over many starts, beside the floor's parts."""

from __future__ import annotations

import argparse
from typing import Any

from bench import host, stats
from bench.lifecycle.lab import Lab
from bench.lifecycle.leaks import ask_inside
from bench.lifecycle.report import parts_line
from bench.lifecycle.run import BASE, measure

BAR = 30  # characters of the longest bar


def medians(lines: list[dict[str, float]]) -> dict[str, stats.Quartiles]:
    """Quartiles in microseconds by feature, in the order of first appearance; a feature absent once counts as 0."""
    names = list(dict.fromkeys(name for line in lines for name in line))
    return {name: stats.quartiles([line.get(name, 0.0) for line in lines]) for name in names}


def table(by_feature: dict[str, stats.Quartiles], whole_us: float) -> str:
    """One line a feature with a bar; what the time line does not cover comes last."""
    covered = sum(quartiles.median for quartiles in by_feature.values())
    longest = max([quartiles.median for quartiles in by_feature.values()] + [whole_us - covered, 1.0])
    lines = [f"{'feature':<16}{'median us':>10}{'q1':>8}{'q3':>8}"]
    for name, middle in by_feature.items():
        bar = "#" * round(BAR * middle.median / longest)
        lines.append(f"{name:<16}{middle.median:>10.0f}{middle.q1:>8.0f}{middle.q3:>8.0f}  {bar}".rstrip())
    lines.append(f"{'sum of medians':<16}{covered:>10.0f}")
    lines.append(f"{'the whole call':<16}{whole_us:>10.0f}")
    return "\n".join(lines) + "\n"


def by_step(lab: Lab, options: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """Run it: the table and the document."""
    facts, watch = host.facts(), host.Watch()
    answer = ask_inside(
        {
            "mode": "steps",
            "rootfs": lab.rootfs,
            "argv": list(lab.shape.command),
            "filter_path": lab.straight,
            "starts": options.rounds,
            "warmup": options.warmup,
            "ballast": lab.ballast,
        }
    )
    floor = measure(lab, [BASE], rounds=options.rounds, warmup=options.warmup, seed=options.seed or 0)
    whole = stats.quartiles([value / 1e3 for value in answer["nanoseconds"]])
    text = f"minictr's time line, {options.rounds} starts\n\n{table(medians(answer['by_feature']), whole.median)}"
    text += f"\nthe floor by part, median us: {parts_line(floor.records[BASE])}\n"
    found = {"schema": 1, "kind": "by-step", "host": facts, "watch": watch.stop(), "starts": options.rounds, **answer}
    return text, {**found, "floor_parts": floor.records[BASE].parts}
