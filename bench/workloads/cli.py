"""``python -m bench run``: the five workloads in the environments, in randomised blocks."""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
from typing import Any

from bench import progress, rootfs, session
from bench.blocks import Blocks, Plan
from bench.environments import registry
from bench.lifecycle.cli import positive
from bench.noise import REST
from bench.session import SessionError
from bench.stage import Stage, StageError
from bench.workloads import arms, catalogue, table
from bench.workloads.base import SIZES, Base

ABOUT = "the five workloads in bare, minictr, LXC, Docker and others, in randomised blocks"
BLOCKS = 10  # as many iterations as the thesis had
ENVIRONMENTS = "bare,minictr,lxc,docker"


def own_programs() -> rootfs.Recipe:
    """A root of the machine's own programs instead of Debian's packages: no network, seconds to build."""
    found = subprocess.run(["cc", "-print-prog-name=cc1"], capture_output=True, text=True, check=True).stdout.strip()
    programs = ("sh", "bash", "@coreutils", "xz", "gzip", "bzip2", "openssl", "make", "cc", "as", "ld", found)
    return rootfs.Recipe((), programs)


def share(text: str) -> float:
    """``0.5%`` or ``0.005``, for argparse."""
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is no share such as 0.5% or 0.005")
    return value


def minutes(text: str) -> float:
    """A number above 0, for argparse."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def seconds(text: str) -> float:
    """A number from 0 up, for argparse."""
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return value


def add_arguments(parser: argparse.ArgumentParser) -> None:
    option, names = parser.add_argument, ",".join(catalogue.WORKLOADS)
    option("--workloads", default=names, metavar="W,...", help=f"W or W:KEY=VALUE:... (default: {names})")
    option("--environments", default=ENVIRONMENTS, metavar="E,...", help=f"or `all` (default: {ENVIRONMENTS})")
    option("--size", choices=SIZES, default="small", help="full is the thesis' size (default: small)")
    option("--blocks", type=positive, help=f"each has every arm once, and bare twice (default: {BLOCKS})")
    option("--minutes", type=minutes, help="begin no block that would not end by then (default: no limit)")
    option(
        "--precision", type=share, metavar="P", help="a workload ends when its intervals are within +-P, as in 0.5%%"
    )
    option("--seed", type=int, help="of the order (default: a new one, kept in the results)")
    option("--rest", type=seconds, metavar="S", help=f"seconds of rest before each sample (default: {REST})")
    option("--own-programs", action="store_true", help="a root of this machine's programs: no serve, no receive")
    option("--scratch", default="", metavar="DIR", help="on a real disk (default: MINICTR_BENCH_SCRATCH, or /var/tmp)")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--out", default="", metavar="FILE", help="results (default: bench-run-DATE.jsonl here)")
    where.add_argument("--resume", default="", metavar="FILE", help="go on with that run; only limits are taken anew")


KEPT = ("workloads", "environments", "size", "own_programs")  # what a resumed run takes from its file
LIMITS = ("blocks", "minutes", "precision", "rest")  # and what may be said anew


def asked(options: argparse.Namespace) -> tuple[dict[str, Any], int, list[Any]]:
    """What is to be measured, its seed, and the records of the run that is gone on with. Raises SessionError."""
    given = {name: getattr(options, name) for name in LIMITS if getattr(options, name) is not None}
    if not options.resume:
        session.usable(options.out)
        seed = random.randrange(1 << 31) if options.seed is None else options.seed
        return {"blocks": BLOCKS, **{name: getattr(options, name) for name in KEPT}, **given}, seed, []
    run, earlier = session.interrupted(options.resume, "run")
    return {**run.arguments, **given}, run.seed, [run, *earlier]


def environment_names(text: str) -> list[str]:
    """``a,b`` or ``all``, with the two bare arms. Raises ValueError with the choices."""
    names = list(registry.ENVIRONMENTS) if text == "all" else [name for name in text.split(",") if name]
    unknown = [name for name in names if name not in registry.ENVIRONMENTS]
    if unknown:
        raise ValueError(f"no environment {', '.join(unknown)}; there are {', '.join(registry.ENVIRONMENTS)}, all")
    return arms.with_twins(names)


def workloads(arguments: dict[str, Any]) -> list[Base]:
    """Those asked for. Raises ValueError."""
    found = [catalogue.made(text, arguments["size"]) for text in arguments["workloads"].split(",") if text]
    names = [catalogue.experiment(it) for it in found]
    if len(set(names)) < len(names) or not names:
        raise ValueError("a workload is asked for twice" if names else "no workload is asked for")
    lacking = [it.NAME for it in found if it.NAME in ("serve", "receive")]
    if arguments["own_programs"] and lacking:
        raise ValueError(f"{lacking[0]} needs Debian's packages: it cannot be had with --own-programs")
    return found


def amount(count: int) -> str:
    """COUNT bytes as a person says it: in the largest unit of which there is one at least."""
    for power, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if count >= 1 << power:
            return f"{count / (1 << power):.1f} {unit}"
    return f"{count} bytes"


def room(wished: list[Base], directory: str) -> None:
    """Raises StageError when the largest workload does not fit on DIRECTORY's disk."""
    most = max(wished, key=lambda it: it.room)
    disk = os.statvfs(directory)
    free = disk.f_bavail * disk.f_frsize
    if free < most.room:
        raise StageError(
            f"{most.NAME} at size {most.size} needs {amount(most.room)} in {directory}, where "
            f"{amount(free)} are free: make room, or choose --scratch"
        )


def measure(options: argparse.Namespace, arguments: dict[str, Any], seed: int, earlier: list[Any]) -> int:
    """The run. Exit code: 0, or 1 when an arm broke or something was left."""
    wished, names = workloads(arguments), environment_names(arguments["environments"])
    recipe = own_programs() if arguments["own_programs"] else rootfs.Recipe()
    plan = Plan(
        arguments["blocks"],
        seed,
        60 * arguments.get("minutes", 0.0),
        arguments.get("precision", 0.0),
        rest=arguments.get("rest", REST),
    )
    with progress.shown() as bar, Stage(recipe, scratch=options.scratch, progress=bar.step) as stage:
        room(wished, stage.directory)
        environments = [registry.make(name, stage) for name in names]
        with session.opened("run", options.out, options.resume, seed=seed, arguments=arguments, earlier=earlier) as it:
            bar.tell(f"run {it.run.id}, seed {seed}: {it.path}")
            them = arms.arms(wished, environments, stage)
            outcome = Blocks(them, it.run.id, it.write, plan, earlier=it.earlier, progress=bar).measure()
            touched = stage.touched()
            outcome.left += [touched] if touched else []
            it.end([*outcome.failed.values(), *outcome.left])
    print(table.text(it.path, outcome), end="")
    return 1 if outcome.failed or outcome.left else 0


def main(options: argparse.Namespace) -> int:
    """Exit code: 0 measured, 1 an arm broke, 2 the run could not begin or go on."""
    options.out = options.out or session.default_path("run")
    path = options.resume or options.out
    try:
        arguments, seed, earlier = asked(options)
        workloads(arguments)  # every mistake is told before anything is touched
        environment_names(arguments["environments"])
        return measure(options, arguments, seed, earlier)
    except (ValueError, SessionError, StageError, rootfs.RootfsError) as err:
        print(f"bench run: {err}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, SystemExit) as err:
        if os.path.exists(path):
            err.add_note(f"--resume {path} goes on")
        raise
