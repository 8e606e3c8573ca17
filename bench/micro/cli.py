"""``python -m bench micro``: its options, and what they do."""

from __future__ import annotations

import argparse
import os
import random
import sys
from typing import Any

from bench import progress, rootfs, samples, session
from bench.blocks import Blocks, Outcome, Plan
from bench.lifecycle.cli import positive
from bench.micro import arms, closing, program, run, table
from bench.noise import REST
from bench.session import SessionError
from bench.stage import StageError
from bench.workloads.cli import minutes, seconds

ABOUT = "what single kernel operations take in every arm: calls, files, memory, processes, the network; in nanoseconds"
BLOCKS, BURSTS = 8, 24
QUICK_BLOCKS = 3
KEPT = ("arms", "operations", "bursts")  # what a resumed run takes from its file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    chosen = parser.add_argument
    chosen("--arms", default="", metavar="A,...", help=f"arms or groups ({', '.join(arms.GROUPS)}); default: all")
    chosen("--operations", default="", metavar="O,...", help="default: all")
    chosen("--blocks", type=positive, help=f"each has every arm once (default: {BLOCKS})")
    chosen("--minutes", type=minutes, default=0.0, help="begin no block that would not end by then")
    chosen("--bursts", type=bursts, default=BURSTS, help=f"of each operation in a sample (default: {BURSTS})")
    chosen("--quick", action="store_true", help=f"{QUICK_BLOCKS} blocks, no first writes of more than 1 MiB")
    chosen("--rest", type=seconds, default=REST, metavar="S", help=f"seconds before each sample (default: {REST})")
    chosen("--seed", type=int, help="of the orders (default: a new one, kept in the results)")
    chosen("--scratch", default="", metavar="DIR", help="on a real disk (default: MINICTR_BENCH_SCRATCH, or /var/tmp)")
    chosen("--list", action="store_true", help="name the arms and operations, and measure nothing")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--out", default="", metavar="FILE", help="results (default: bench-micro-DATE.jsonl here)")
    where.add_argument("--resume", default="", metavar="FILE", help="go on with an interrupted run")


def bursts(text: str) -> int:
    """A number from 1 to what the program has room for, for argparse."""
    value = positive(text)
    if value > program.MOST_BURSTS:
        raise argparse.ArgumentTypeError(f"{text} is above {program.MOST_BURSTS}, which the program has room for")
    return value


def operations(text: str, *, light: bool) -> list[str]:
    """``a,b`` as operations; "" is all. LIGHT: without first writes to large files. Raises ValueError."""
    wished = [name for name in text.split(",") if name] or [
        name for name in program.OPERATIONS if not light or name not in ("copyup_16m", "copyup_64m")
    ]
    unknown = [name for name in wished if name not in program.OPERATIONS]
    if unknown:
        raise ValueError(f"no operation {', '.join(unknown)}; there are {', '.join(program.OPERATIONS)}")
    return [name for name in program.OPERATIONS if name in wished]


def listed() -> str:
    lines = [f"{'arm':<20}{'over':<20}group"]
    lines += [f"{it.key:<20}{it.over:<20}{it.group}" for it in arms.every()]
    return "\n".join([*lines, "", f"operations: {', '.join(program.OPERATIONS)}"])


def asked(options: argparse.Namespace) -> tuple[dict[str, Any], int, list[Any]]:
    """What is to be measured, its seed, and the records of the run that is gone on with. Raises SessionError."""
    if options.resume:
        before, earlier = session.interrupted(options.resume, "micro")
        blocks = options.blocks or before.arguments["blocks"]
        return {**before.arguments, "blocks": blocks}, before.seed, [before, *earlier]
    seed = random.randrange(1 << 31) if options.seed is None else options.seed
    names = ",".join(operations(options.operations, light=options.quick))
    given = {"arms": options.arms, "operations": names, "bursts": options.bursts}
    return {**given, "blocks": options.blocks or (QUICK_BLOCKS if options.quick else BLOCKS)}, seed, []


def measure(options: argparse.Namespace, arguments: dict[str, Any], seed: int, earlier: list[Any]) -> int:
    """Exit code: 0, or 1 when an arm broke or something was left."""
    names = operations(arguments["operations"], light=False)
    words = [word for word in arguments["arms"].split(",") if word]
    sizes = [size for size in program.LOWER if f"copyup_{size}" in names]
    plan = Plan(arguments["blocks"], seed, 60 * options.minutes, rest=options.rest)
    with progress.shown() as bar, run.MicroStage(rootfs.MINIMAL, scratch=options.scratch, progress=bar.step) as stage:
        stage.furnish(sizes)
        wishes = arms.chosen(arms.every(stage.layers()), words)
        with session.opened(
            "micro", options.out, options.resume, seed=seed, arguments=arguments, earlier=earlier
        ) as it:
            bar.tell(f"run {it.run.id}, seed {seed}, {len(wishes)} arms: {it.path}")

            def write(record: samples.Record) -> None:
                for one in run.split(record, names):
                    it.write(one)

            them = run.made(wishes, stage, names, seed, arguments["bursts"])
            known = run.joined(it.earlier)
            outcome = Blocks(them, it.run.id, write, plan, earlier=known, progress=bar).measure()
            outcome.left += [touched] if (touched := stage.touched()) else []
            it.end([*outcome.failed.values(), *outcome.left])
            path = it.path
    print(text(path, wishes, outcome))
    return 1 if outcome.failed or outcome.left else 0


def text(path: str, wishes: list[arms.Wish], outcome: Outcome) -> str:
    """The tables of PATH, and what became of the run."""
    records = list(samples.read(path))
    busy = closing.noise(records).values()
    lines = table.lines(closing.costs(records, network=True), wishes, list(busy))
    lines += [table.NOTE, ""]
    lines += [f"unavailable: {name}: {why}" for (_, name), why in outcome.unavailable.items()]
    for title, found in (
        ("discarded", outcome.discarded),
        ("out", outcome.failed.values()),
        ("could not be removed", outcome.left),
    ):
        lines += [f"{title}: {line}" for line in found]
    lines += [f"refused in {name}: {told}" for name, told in refusals(path).items()]
    return "\n".join([*lines, *([outcome.ended] if outcome.ended else []), f"every sample: {path}"])


def refusals(path: str) -> dict[str, str]:
    """arm -> the operations it refuses, with the reasons."""
    found: dict[str, dict[str, None]] = {}
    for record in samples.read(path):
        if isinstance(record, samples.Sample) and record.discarded.startswith("refused: "):
            operation = record.experiment.rpartition("/")[2]
            found.setdefault(record.arm, {})[f"{operation} ({record.discarded.removeprefix('refused: ')})"] = None
    return {arm: ", ".join(told) for arm, told in found.items()}


def main(options: argparse.Namespace) -> int:
    """Exit code: 0 measured, 1 an arm broke, 2 the run could not begin or go on."""
    if options.list:
        print(listed())
        return 0
    options.out = options.out or session.default_path("micro")
    try:
        arguments, seed, earlier = asked(options)
        arms.chosen(arms.every(), [word for word in arguments["arms"].split(",") if word])  # before anything is touched
        return measure(options, arguments, seed, earlier)
    except (ValueError, SessionError, StageError, rootfs.RootfsError, program.ProgramError) as err:
        print(f"bench micro: {err}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, SystemExit) as err:
        path = options.resume or options.out
        if os.path.exists(path):
            err.add_note(f"--resume {path} goes on")
        raise
