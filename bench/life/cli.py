"""``python -m bench life``: its options, and what they do."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import random
import sys
from collections.abc import Callable
from typing import Any

from bench import host
from bench.life import controllers, crowd, joining, privilege, rest, syscalls
from bench.life.series import Part, Tell
from bench.lifecycle.cli import ballast, kept, natural, pause, positive, tell
from bench.lifecycle.lab import Lab, LabError
from bench.lifecycle.report import write
from bench.lifecycle.worker import ArmFailed
from bench.session import SessionError

ABOUT = "containers while they live: at rest, 500 at once, joined by exec; what controllers, filter and Landlock cost"
SCHEMA = 1
PROGRAMS = ("sh", "true", "cat", "readlink", "sleep")
PARTS: dict[str, Callable[[Lab, argparse.Namespace, Tell], Part]] = {
    "rest": rest.measure,
    "crowd": crowd.measure,
    "exec": joining.measure,
    "controllers": controllers.measure,
    "privilege": privilege.measure,
    "syscalls": syscalls.measure,
}


def part_names(text: str) -> list[str]:
    """``a,b`` as names of parts, for argparse; "" is all."""
    wished = [name.strip() for name in text.split(",") if name.strip()] or list(PARTS)
    unknown = [name for name in wished if name not in PARTS]
    if unknown:
        raise argparse.ArgumentTypeError(f"no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    return [name for name in PARTS if name in wished]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--parts", type=part_names, default="", metavar="A,B", help=f"of: {', '.join(PARTS)}")
    parser.add_argument("--rounds", type=positive, default=60, help="counted rounds of what is measured in turn")
    parser.add_argument("--warmup", type=natural, default=5, help="rounds dropped at the start (default: 5)")
    parser.add_argument("--containers", type=positive, default=500, metavar="N", help="of the crowd (default: 500)")
    parser.add_argument("--crowds", type=positive, default=4, metavar="N", help="how often it is made (default: 4)")
    parser.add_argument("--quick", action="store_true", help="15 rounds, 2 crowds of 100")
    parser.add_argument("--ballast-mb", type=ballast, default=200, metavar="N", help="heap of the Python processes")
    parser.add_argument("--rootfs", default="", metavar="DIR", help="default: a small one made for the run")
    parser.add_argument("--seed", type=natural, help="of the order and the intervals (default: a new one, printed)")
    parser.add_argument("--pause-ms", type=pause, default=2.0, metavar="N", help="idle time before each start")
    parser.add_argument("--format", choices=("table", "json"), default="table")
    parser.add_argument("--out", default="", metavar="FILE", help="write the raw values as JSON there as well")
    parser.add_argument("--records", default="", metavar="FILE.jsonl", help="a new file of records for `bench report`")


def document(parts: dict[str, Part], facts: dict[str, Any], watch: dict[str, Any], **arguments: Any) -> dict[str, Any]:
    """Everything, raw values included, as plain data for JSON."""
    return {
        "schema": SCHEMA,
        "kind": "life",
        "arguments": arguments,
        "host": facts,
        "watch": watch,
        "parts": {name: dict(part.raw) for name, part in parts.items()},
        "targets": [dataclasses.asdict(target) for part in parts.values() for target in part.targets],
        "warnings": warnings(parts, watch),
        "failed": any(part.raw.get("left") for part in parts.values()),
    }


def warnings(parts: dict[str, Part], watch: dict[str, Any]) -> list[str]:
    """Everything that should keep a reader from believing too much."""
    told = [f"noisy machine: {reason}" for reason in watch["noisy"]]
    return told + [text for part in parts.values() for text in part.unstable]


def table(parts: dict[str, Part], facts: dict[str, Any], watch: dict[str, Any], seed: int) -> str:
    """The whole report."""
    lines = [
        f"Life of containers, orders shuffled with seed {seed}",
        f"{facts.get('kernel', '?')}, {facts.get('cpus', '?')} cpus, {facts.get('cpu', 'unknown cpu')}, "
        f"cgroups {facts.get('cgroups', '?')}, load {watch['load_before']:.2f}, "
        f"others {watch['others']:.0%} of the cpu time",
    ]
    for part in parts.values():
        lines += ["", f"{part.title}:", *(f"  {line}".rstrip() for line in part.lines)]
    targets = [target for part in parts.values() for target in part.targets]
    lines += ["", "Targets:", *(f"  {target.answer:<11}{target.text}: {target.figure}" for target in targets)]
    told = warnings(parts, watch)
    if told:
        lines += ["", "Warnings:", *(f"  {text}" for text in told)]
    return "\n".join(lines) + "\n"


def refusal(options: argparse.Namespace) -> str:
    """Why the run cannot begin; "" when it can."""
    if os.geteuid():
        return "needs root: it makes namespaces and mounts"
    if options.out and not os.access(os.path.dirname(os.path.abspath(options.out)), os.W_OK):
        return f"cannot write {options.out}"
    if "crowd" in options.parts and options.containers < crowd.FEWEST:
        return f"a crowd needs at least {crowd.FEWEST} containers, not {options.containers}"
    return ""


def main(options: argparse.Namespace) -> int:
    """Exit code: 0 measured, 1 something was left behind, 2 the run could not begin."""
    if isinstance(options.parts, str):
        options.parts = part_names(options.parts)
    if options.quick:
        options.rounds, options.containers, options.crowds = 15, 100, 2
    options.seed = options.seed if options.seed is not None else random.randrange(1 << 31)
    why_not = refusal(options)
    if why_not:
        print(f"bench life: {why_not}", file=sys.stderr)
        return 2
    facts, watch = host.facts(), host.Watch()
    names = ("rounds", "warmup", "containers", "crowds", "ballast_mb", "rootfs", "seed", "pause_ms")
    arguments = {name: getattr(options, name) for name in names}
    try:
        with kept(options, "life", **arguments) as keep:
            with Lab(options.rootfs, ballast=options.ballast_mb, programs=PROGRAMS, compiled=False) as lab:
                parts = {name: PARTS[name](lab, options, tell) for name in options.parts}
            quiet = watch.stop()
            found = document(parts, facts, quiet, **arguments)
            keep(found)
    except (LabError, SessionError, ArmFailed) as err:
        print(f"bench life: {err}", file=sys.stderr)
        return 2
    finally:
        tell("")
    if options.out:
        write(options.out, found)
    print(json.dumps(found, indent=1) if options.format == "json" else table(parts, facts, quiet, options.seed), end="")
    return 1 if found["failed"] else 0
