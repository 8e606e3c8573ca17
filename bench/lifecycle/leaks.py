"""``--leak-check N``: N starts in a row from one process, and whether anything grew."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from typing import Any

from bench import host, stats
from bench.lifecycle.lab import Lab, LabError
from bench.lifecycle.worker import environment

FEWEST = 30  # ten to settle and two windows of ten
RSS_TOLERANCE = 512  # KiB: the allocator takes memory in larger pieces than one start needs
SLOWER = 1.2  # times: medians of two windows on a shared machine differ by less


def ask_inside(wishes: dict[str, Any]) -> dict[str, Any]:
    """The answer of a ``bench.lifecycle.inside`` process. Raises LabError with what it said when it failed."""
    command = [sys.executable, "-m", "bench.lifecycle.inside", json.dumps(wishes)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise LabError(f"{wishes['mode']}: {said[-1] if said else f'left with {done.returncode}'}")
    return dict(json.loads(done.stdout))


def grown(settled: dict[str, int], last: dict[str, int]) -> list[str]:
    """What is more at the end than once settled, one line each."""
    found = []
    for name, before in settled.items():
        tolerance = RSS_TOLERANCE if name == "rss_kib" else 0
        if last[name] > before + tolerance:
            found.append(f"{name} grew from {before} to {last[name]}")
    return found


def judge(answer: dict[str, Any]) -> dict[str, Any]:
    """The answer with ``grown``, ``failed``, the two window medians in ms and their ratio."""
    settled = answer["nanoseconds"][answer["settled_at"] :]
    first, last = stats.windows(settled, min(20, len(settled) // 2))
    more = grown(answer["settled"], answer["last"])
    slower = [f"the last starts take {last / first:.2f} times the first ones"] if last > SLOWER * first else []
    judged = {"grown": more, "warnings": slower, "failed": bool(more), "first_ms": first / 1e6, "last_ms": last / 1e6}
    return {**answer, **judged}


def table(judged: dict[str, Any]) -> str:
    """The books side by side, and the verdict."""
    starts = judged["starts"]
    lines = [f"{starts} starts in a row from one process", ""]
    lines.append(f"{'':<10}{'at the ' + str(judged['settled_at']) + 'th':>14}{'at the ' + str(starts) + 'th':>14}")
    for name, before in judged["settled"].items():
        lines.append(f"{name:<10}{before:>14}{judged['last'][name]:>14}")
    lines.append(f"{'median ms':<10}{judged['first_ms']:>14.2f}{judged['last_ms']:>14.2f}   (windows of 20)")
    lines += ["", *judged["grown"], *judged["warnings"]]
    if not judged["grown"]:
        lines.append("nothing grew")
    return "\n".join(lines) + "\n"


def check(lab: Lab, options: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """Run it: the table and the document. Raises LabError for too few starts."""
    if options.leak_check < FEWEST:
        raise LabError(f"a leak check needs at least {FEWEST} starts, not {options.leak_check}")
    facts, watch = host.facts(), host.Watch()
    answer = ask_inside(
        {
            "mode": "leaks",
            "rootfs": lab.rootfs,
            "argv": list(lab.shape.command),
            "filter_path": lab.straight,
            "starts": options.leak_check,
            "ballast": lab.ballast,
        }
    )
    judged = judge(answer)
    return table(judged), {"schema": 1, "kind": "leak-check", "host": facts, "watch": watch.stop(), **judged}
