"""``python -m bench count``: how often each workload does what, in a run of its own under a tracer."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from bench import counting, progress, rootfs, session
from bench.blocks import BREAKS, said
from bench.environments import registry
from bench.micro.program import ProgramError
from bench.samples import BARE
from bench.session import SessionError
from bench.stage import Stage, StageError
from bench.workloads import catalogue
from bench.workloads.base import SIZES, Base
from bench.workloads.cli import own_programs, room, workloads

ABOUT = "how often each workload does what: one traced run each, for bench closure"
MOST = 12  # operations of a workload that are printed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    chosen = parser.add_argument
    names = ",".join(catalogue.WORKLOADS)
    chosen("--workloads", default=names, metavar="W,...", help=f"of {names}; W:KEY=VALUE")
    chosen("--size", choices=SIZES, default="small")
    chosen("--own-programs", action="store_true", help="a root of this machine's programs: no serve, no receive")
    chosen("--scratch", default="", metavar="DIR", help="on a real disk (default: MINICTR_BENCH_SCRATCH, or /var/tmp)")
    chosen("--out", default="", metavar="FILE", help="results (default: bench-count-DATE.jsonl here)")


def measure(wished: list[Base], arguments: dict[str, Any], options: argparse.Namespace) -> int:
    """Exit code: 0, or 1 when a workload broke or something was left."""
    recipe = own_programs() if arguments["own_programs"] else rootfs.Recipe()
    failed: list[str] = []
    kept = {**arguments, "one_in": {catalogue.experiment(it): counting.one_in(it) for it in wished}}
    with progress.shown() as bar, Stage(recipe, scratch=options.scratch, progress=bar.step) as stage:
        room(wished, stage.directory)
        with session.begun(options.out, "count", seed=0, arguments=kept) as it:
            bare = registry.make(BARE, stage)
            try:
                for workload in wished:
                    name = catalogue.experiment(workload)
                    bar.step(f"counting {name}")
                    try:
                        found = counting.count(workload, bare, stage, os.path.join(stage.directory, "counter"))
                    except (*BREAKS, ProgramError) as err:
                        failed.append(f"{name}: {said(err)}")
                        continue
                    for record in counting.records(it.run.id, name, BARE, found):
                        it.write(record)
                    part = counting.one_in(workload)
                    note = f" (one process of {part} was traced, drawn at random)" if part > 1 else ""
                    print(f"{name}:", counting.told(found, MOST) + note)
            finally:
                failed += bare.cleanup()
            it.end(failed)
    for line in failed:
        print(f"bench count: {line}", file=sys.stderr)
    print(f"every count: {options.out}")
    return 1 if failed else 0


def main(options: argparse.Namespace) -> int:
    """Exit code: 0 counted, 1 a workload broke, 2 the run could not begin."""
    options.out = options.out or session.default_path("count")
    arguments = {name: getattr(options, name) for name in ("workloads", "size", "own_programs")}
    try:
        session.usable(options.out)
        return measure(workloads(arguments), arguments, options)
    except (ValueError, SessionError, StageError, ProgramError, rootfs.RootfsError) as err:
        print(f"bench count: {err}", file=sys.stderr)
        return 2
