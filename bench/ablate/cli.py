"""``python -m bench ablate``: its options, and what they do."""

from __future__ import annotations

import argparse
import dataclasses
import os
import random
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from bench import design, progress, results, rootfs, session
from bench.ablate import rows, told
from bench.ablate.rows import ALL_METHODS, Trial, Trials
from bench.ablate.words import TARGETS, Target, WordError
from bench.blocks import Blocks, Measured, Outcome, Plan
from bench.design import DesignError
from bench.lifecycle.cli import positive
from bench.micro.program import ProgramError
from bench.micro.run import MicroStage
from bench.noise import REST
from bench.results import Results
from bench.samples import BARE
from bench.session import Session, SessionError
from bench.stage import StageError
from bench.workloads import catalogue
from bench.workloads.arms import Shared, WorkloadArm
from bench.workloads.base import SIZES, Base
from bench.workloads.cli import minutes, own_programs, room, seconds

ABOUT = "which kernel feature costs a workload what: features left out, put in, in ladders and in factorial designs"
BLOCKS = 8
WAYS = ("client", "local")  # how the web server's question is asked: by whom its site is fetched
KEPT = ("workload", "to", "size", "method", "factors", "own_programs")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    chosen = parser.add_argument
    chosen("--workload", required=True, metavar="W", help=f"of {', '.join(catalogue.WORKLOADS)}; W:KEY=VALUE")
    chosen("--from", dest="base", choices=("bare",), default="bare", help="where it begins: bare, and nothing else")
    chosen("--to", choices=tuple(TARGETS), default="docker", help="the whole that is taken apart (default: docker)")
    chosen("--size", choices=SIZES, default="small")
    chosen("--method", choices=ALL_METHODS, default="loo", help="default: loo, each feature left out")
    chosen("--factors", default="", metavar="F,...", help="features or groups of them; default: all (screen: groups)")
    chosen("--blocks", type=positive, help=f"each has every arm once (default: {BLOCKS})")
    chosen("--minutes", type=minutes, default=0.0, help="begin no block that would not end by then")
    chosen("--seed", type=int, help="of the order (default: a new one, kept in the results)")
    chosen("--rest", type=seconds, default=REST, metavar="S", help=f"seconds before each sample (default: {REST})")
    chosen("--own-programs", action="store_true", help="a root of this machine's programs: no serve, no receive")
    chosen("--scratch", default="", metavar="DIR", help="on a real disk (default: MINICTR_BENCH_SCRATCH, or /var/tmp)")
    chosen("--plan", action="store_true", help="print the arms and what cannot be, and measure nothing")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--out", default="", metavar="FILE", help="results (default: bench-ablate-DATE.jsonl here)")
    where.add_argument("--resume", default="", metavar="FILE", help="go on with an interrupted run of these options")


class TrialArm(WorkloadArm):
    """A workload in one arm of a design."""

    def __init__(
        self, trial: Trial, workload: Base, shared: Shared, stage: Any, experiment: str, jumped: Sequence[str] = ()
    ) -> None:
        super().__init__(trial.name, workload, shared, stage)
        self.experiment, self.features = experiment, trial.on
        self.known = (*self.known, *([f"compared with {trial.over}"] if trial.over not in ("", trial.name) else []))
        self.known += (f"jumps {', '.join(jumped)}, which cannot be had for this workload",) if jumped else ()


@dataclasses.dataclass
class Impossible:
    """An arm that cannot be: it is told with its reason, and kept in the results."""

    experiment: str
    name: str
    reason: str
    environment: str = "minictr"
    features: tuple[str, ...] = ()
    known: tuple[str, ...] = ()

    def unavailable(self) -> str:
        return self.reason

    def prepare(self) -> None:
        raise AssertionError("it is unavailable")

    def measure(self) -> Measured:
        raise AssertionError("it is unavailable")

    def cleanup(self) -> Sequence[str]:
        return ()


def experiment_of(workload: Base, method: str) -> str:
    """``ablate/encrypt/small/loo``."""
    return catalogue.experiment(workload).replace("workload/", "ablate/", 1) + f"/{method.replace(':', '-')}"


def workloads(arguments: dict[str, Any]) -> list[Base]:
    """The one asked for; for the web server's question each way to it. Raises ValueError."""
    text, size = arguments["workload"], arguments["size"]
    if arguments["method"] == "nginx":
        if text != "serve":
            raise ValueError(f"method nginx is about the workload serve, not {text}")
        found = [catalogue.made(f"serve:way={way}", size) for way in WAYS]
    else:
        found = [catalogue.made(text, size)]
    if arguments["own_programs"] and found[0].NAME in ("serve", "receive"):
        raise ValueError(f"{found[0].NAME} needs Debian's packages: it cannot be had with --own-programs")
    return found


def target_of(arguments: dict[str, Any], wished: Sequence[Base]) -> Target:
    """What is taken apart. Raises ValueError for a method that this workload cannot be given."""
    lan = wished[0].job().network == "lan"
    if arguments["method"] in ("ladder:network", "nginx") and not lan:
        raise ValueError(f"{arguments['method']}: {wished[0].NAME} is not reached over the network")
    if arguments["method"] == "nginx" and arguments["to"] != "docker":
        raise ValueError(f"nginx takes Docker apart: --to docker, not {arguments['to']}")
    return Target.of(arguments["to"], lan=lan)


def unreached(rungs: Sequence[str], workload: Base) -> str:
    """Why a client that comes by 127.0.0.1 does not reach a server behind RUNGS; "" when it does."""
    if workload.variant.get("way") == "local" and rungs and "publish" not in rungs:
        return "127.0.0.1 of the machine leads to a container by a published port only"
    return ""


def hung(trials: Sequence[Trial], refused: Mapping[str, str]) -> dict[str, tuple[str, tuple[str, ...]]]:
    """trial -> (what it is compared with, the rungs that are jumped), with those REFUSED for a workload taken out."""
    over = {trial.name: trial.over for trial in trials}
    there = {trial.name for trial in trials if trial.place is not None} - refused.keys()
    return {name: design.standing(name, over, there) for name in over}


def arms_of(found: Trials, wished: Sequence[Base], stage: Any, method: str) -> list[Any]:
    """Each trial with each workload; an environment is made once for all of them."""
    made: list[Any] = []
    places = {trial.name: Shared(trial.place) for trial in found.trials if trial.place is not None}
    for workload in wished:
        name = experiment_of(workload, method)
        refused = {trial.name: unreached(getattr(trial.place, "rungs", ()), workload) for trial in found.trials}
        refused = {arm: why for arm, why in refused.items() if why}
        stands = hung(found.trials, refused)
        for trial in found.trials:
            why, (over, jumped) = refused.get(trial.name, trial.refused), stands[trial.name]
            if trial.name not in places or why:
                known = (f"compared with {over}",) if over else ()
                made.append(Impossible(name, trial.name, why, features=trial.on, known=known))
            else:
                one = dataclasses.replace(trial, over=over)
                made.append(TrialArm(one, workload, places[trial.name], stage, name, jumped))
    return made


def asked(options: argparse.Namespace) -> tuple[dict[str, Any], int, list[Any]]:
    """What is to be measured, its seed, and the records of the run that is gone on with. Raises SessionError."""
    if options.resume:
        run, earlier = session.interrupted(options.resume, "ablate")
        blocks = options.blocks or run.arguments["blocks"]
        return {**run.arguments, "blocks": blocks}, run.seed, [run, *earlier]
    session.usable(options.out)
    seed = random.randrange(1 << 31) if options.seed is None else options.seed
    return {**{name: getattr(options, name) for name in KEPT}, "blocks": options.blocks or BLOCKS}, seed, []


@dataclasses.dataclass
class Bench:
    """What the steps of one run share."""

    stage: Any
    session: Session
    plan: Plan
    bar: progress.Progress
    outcomes: list[Outcome] = dataclasses.field(default_factory=list)

    def run(self, found: Trials, wished: Sequence[Base], method: str) -> None:
        """Measure the arms."""
        for note in found.notes:
            self.bar.tell(f"note: {note}")
        them = arms_of(found, wished, self.stage, method)
        it = self.session
        self.outcomes.append(
            Blocks(them, it.run.id, it.write, self.plan, earlier=it.earlier, progress=self.bar).measure()
        )

    def so_far(self) -> Results:
        """What the file holds, as if the run ended now: with how quiet the machine has been."""
        found = results.load([self.session.path])
        found.ends[self.session.run.id] = self.session.so_far()
        return found


def measure(options: argparse.Namespace, arguments: dict[str, Any], seed: int, earlier: list[Any]) -> int:
    """Exit code: 0, or 1 when an arm broke or something was left."""
    wished, method = workloads(arguments), arguments["method"]
    target = target_of(arguments, wished)
    recipe = own_programs() if arguments["own_programs"] else rootfs.Recipe()
    plan = Plan(arguments["blocks"], seed, 60 * options.minutes, rest=options.rest)
    lines: list[str] = []
    with progress.shown() as bar, MicroStage(recipe, scratch=options.scratch, progress=bar.step) as stage:
        room(wished, stage.directory)
        with session.opened(
            "ablate", options.out, options.resume, seed=seed, arguments=arguments, earlier=earlier
        ) as it:
            bar.tell(f"run {it.run.id}, seed {seed}: {it.path}")
            bench = Bench(stage, it, plan, bar)
            found = rows.planned(method, target, arguments["factors"], stage)
            bench.run(found, wished, method)
            said = [(experiment_of(workload, method), found) for workload in wished]
            if method == "screen":
                said += _survivors(bench, target, wished[0], lines)
            left = [line for one in bench.outcomes for line in one.left]
            left += [touched] if (touched := stage.touched()) else []
            failed = [line for one in bench.outcomes for line in one.failed.values()]
            it.end([*failed, *left])
            path, run = it.path, it.run.id
    read = results.load([path])  # with its end: how quiet the machine was is a gate of every verdict
    lines = [line for name, trials in said for line in (*told.text(read, run, name, trials), "")] + lines
    for title, said in (("out", failed), ("could not be removed", left)):
        lines += [f"{title}: {line}" for line in said]
    lines += [one.ended for one in bench.outcomes if one.ended]
    print("\n".join([*lines, f"every sample: {path}"]))
    return 1 if failed or left else 0


def _survivors(bench: Bench, target: Target, workload: Base, lines: list[str]) -> list[tuple[str, Trials]]:
    """The full factorial of the factors that the screening says act: measured, and what is to be told of it."""
    screened = told.experiment(bench.so_far(), bench.session.run.id, experiment_of(workload, "screen"))
    acting = screened.acting if screened else []
    if len(acting) < 2:
        lines += ["no two factors act, so there is no factorial to look for their interaction in", ""]
        return []
    method = "screen:factorial"
    crossed = rows.planned("factorial", target, ",".join(acting), bench.stage)
    bench.run(crossed, [workload], method)
    return [(experiment_of(workload, method), crossed)]


def printed(arguments: dict[str, Any]) -> int:
    """The plan: nothing is touched."""
    target, method = target_of(arguments, workloads(arguments)), arguments["method"]
    if method in rows.LADDERS:
        for wish in rows.wishes_of(rows.LADDERS[method], {}):
            print(f"{wish.name:<22}over {wish.over:<20}{wish.refused}".rstrip())
        return 0
    if method == "nginx":
        return asked_twice(target, workloads(arguments))
    of = rows.rebuild(target) if method == rows.REBUILD else rows.designed(method, target, arguments["factors"])
    for row in of.rows:
        print(_planned(row.name, row.over or "bare", rows.spelled(target, row)))
    for name, why in of.refused:
        print(f"{name:<22}cannot be: {why}")
    for note in of.notes:
        print(f"note: {note}")
    return 0


def _planned(name: str, over: str, on: Sequence[str]) -> str:
    return f"{name:<22}over {over:<20} {' '.join(on)}".rstrip()


def asked_twice(target: Target, wished: Sequence[Base]) -> int:
    """The plan of the web server's question, for each way that a client comes."""
    for workload in wished:
        found = rows.question(target)
        over = {name: below for name, (below, _, _) in found.items()}
        why = {
            name: refused or unreached([word for word in on if word in target.rungs], workload)
            for name, (_, on, refused) in found.items()
        }
        there = {name for name in found if not why[name]} | {BARE}
        print(f"{experiment_of(workload, 'nginx')}:")
        for name, (_, on, _) in found.items():
            below = design.ground(*design.standing(name, over, there))
            print(f"  {name:<20}cannot be: {why[name]}" if why[name] else f"  {_planned(name, below, on)}")
    return 0


def main(options: argparse.Namespace) -> int:
    """Exit code: 0 measured, 1 an arm broke, 2 the run could not begin or go on."""
    options.out = options.out or session.default_path("ablate")
    path = options.resume or options.out
    try:
        arguments, seed, earlier = asked(options)
        wished = workloads(arguments)  # every mistake is told before anything is touched
        target = target_of(arguments, wished)
        if arguments["method"] not in (*rows.LADDERS, rows.REBUILD, "nginx"):
            rows.designed(arguments["method"], target, arguments["factors"])
        if options.plan:
            return printed(arguments)
        return measure(options, arguments, seed, earlier)
    except (ValueError, DesignError, WordError, ProgramError, SessionError, StageError, rootfs.RootfsError) as err:
        print(f"bench ablate: {err}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, SystemExit) as err:
        if os.path.exists(path):
            err.add_note(f"--resume {path} goes on")
        raise
