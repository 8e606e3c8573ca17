"""``python -m bench list``: the environments, the workloads, and the names by which results call them."""

from __future__ import annotations

import argparse
import json
from typing import Any

from bench.environments import registry
from bench.workloads.base import SIZES
from bench.workloads.catalogue import WORKLOADS

ABOUT = "the environments, the workloads with their variants, and the experiments' names"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="as one object")


def found() -> dict[str, Any]:
    """All of it, as plain data."""
    return {
        "environments": {
            name: {"about": kind.ABOUT, "known": list(kind.KNOWN)} for name, kind in registry.ENVIRONMENTS.items()
        },
        "workloads": {
            name: {
                "about": kind.ABOUT,
                "packages": list(kind.NEEDS),
                "variants": {
                    key: list(kind.CHOICES.get(key, (value,))) for key, value in kind("small").variant.items()
                },
            }
            for name, kind in WORKLOADS.items()
        },
        "experiments": [f"workload/{name}/{size}" for name in WORKLOADS for size in SIZES],
    }


def main(options: argparse.Namespace) -> int:
    """Exit code: 0."""
    answer = found()
    print(json.dumps(answer, indent=1) if options.json else table(answer))
    return 0


def table(answer: dict[str, Any]) -> str:
    """The answer for people."""
    width = max(len(name) for part in ("environments", "workloads") for name in answer[part])
    lines = ["environments: an arm of every workload, chosen by --environments"]
    for name, row in answer["environments"].items():
        lines.append(f"  {name:<{width}}  {row['about']}")
        lines += [f"  {'':<{width}}    - {known}" for known in row["known"]]
    lines += ["", "workloads: chosen by --workloads NAME[:KEY=VALUE], first value unless chosen"]
    for name, row in answer["workloads"].items():
        lines.append(f"  {name:<{width}}  {row['about']}")
        lines += [f"  {'':<{width}}    {key}={' | '.join(values)}" for key, values in row["variants"].items()]
    lines += ["", f"experiments: workload/NAME/SIZE, sizes {', '.join(SIZES)}"]
    return "\n".join(lines)
