"""``python -m bench lifecycle``: its options, and what they do."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from bench import host, session
from bench.lifecycle import alive, atonce, bystep, leaks, phases, records, report, run
from bench.lifecycle.lab import Lab, LabError
from bench.session import SessionError

MOST_PAUSE = 60_000.0  # ms before each start
MOST_BALLAST = 16_384  # MiB
ABOUT = "start to exit of /bin/true in a default-shaped container, side by side"


def whole(text: str) -> int:
    """A whole number, for argparse."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None


def between(least: int, most: int) -> Callable[[str], int]:
    """A whole number from LEAST to MOST, for argparse."""

    def number(text: str) -> int:
        found = whole(text)
        if not least <= found <= most:
            raise argparse.ArgumentTypeError(f"{text} is not between {least} and {most}")
        return found

    return number


def positive(text: str) -> int:
    """A whole number above 0, for argparse."""
    number = whole(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def natural(text: str) -> int:
    """A whole number from 0 up, for argparse."""
    number = whole(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return number


def pause(text: str) -> float:
    """Milliseconds from 0 to MOST_PAUSE, for argparse: ``nan`` and ``inf`` are none."""
    try:
        number = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of milliseconds") from None
    if not 0 <= number <= MOST_PAUSE:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and {MOST_PAUSE:g} ms")
    return number


ballast = between(0, MOST_BALLAST)


def arm_names(text: str) -> list[str]:
    """``a,b`` as arm names, for argparse."""
    try:
        return run.chosen(text)
    except ValueError as err:
        raise argparse.ArgumentTypeError(str(err)) from err


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=positive, default=60, help="counted rounds (default: 60)")
    parser.add_argument("--quick", action="store_const", dest="rounds", const=15, help="15 rounds")
    parser.add_argument("--warmup", type=natural, default=5, help="rounds dropped at the start (default: 5)")
    parser.add_argument("--arms", type=arm_names, metavar="A,B", help=f"of: {', '.join(run.ARMS)}")
    parser.add_argument("--ballast-mb", type=ballast, default=200, metavar="N", help="heap of the Python process")
    parser.add_argument("--rootfs", default="", metavar="DIR", help="default: a small one made for the run")
    parser.add_argument("--seed", type=natural, help="of the order and the intervals (default: a new one, printed)")
    parser.add_argument("--pause-ms", type=pause, default=2.0, metavar="N", help="idle time before each start")
    parser.add_argument("--format", choices=("table", "json"), default="table")
    parser.add_argument("--out", default="", metavar="FILE", help="write the raw values as JSON there as well")
    parser.add_argument("--records", default="", metavar="FILE.jsonl", help="a new file of records for `bench report`")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--leak-check", type=natural, metavar="N", help="instead: N starts in a row from one process")
    instead.add_argument("--by-step", action="store_true", help="instead: minictr's own time line by feature")
    instead.add_argument("--phases", action="store_true", help="instead: start, exec, stop, teardown of containers")
    instead.add_argument("--at-once", action="store_true", help="instead: starts by 1, 2, 4 and 8 callers at once")
    crowd = between(alive.FEWEST, alive.MOST)
    instead.add_argument(
        "--alive",
        type=crowd,
        metavar="N",
        help="instead: a start by how many live, up to N; --rounds crowds of each arm",
    )


def tell(text: str) -> None:
    """Progress, on a terminal only."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()


def compare(lab: Lab, options: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """The arms side by side: the table and the document."""
    facts, watch = host.facts(), host.Watch()
    found = run.measure(
        lab,
        options.arms,
        rounds=options.rounds,
        warmup=options.warmup,
        seed=options.seed,
        pause=options.pause_ms / 1e3,
        progress=tell,
    )
    tell("")
    if not found.records[run.BASE].complete:
        raise LabError(f"the floor could not be measured: {found.records[run.BASE].failed or 'not available'}")
    quiet = watch.stop()
    found.arguments = {"rounds": options.rounds, "ballast_mb": options.ballast_mb, "rootfs": options.rootfs}
    return report.table(found, facts, quiet), report.document(found, facts, quiet)


def job(options: argparse.Namespace) -> Callable[[Lab, argparse.Namespace], tuple[str, dict[str, Any]]]:
    """What the options ask for."""
    if options.leak_check is not None:
        return leaks.check
    others = {
        "by_step": bystep.by_step,
        "phases": phases.phases,
        "at_once": atonce.at_once,
        "alive": alive.alive,
    }
    return next((call for name, call in others.items() if getattr(options, name)), compare)


@contextlib.contextmanager
def kept(options: argparse.Namespace, verb: str, **arguments: Any) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Gives a function that writes a document's records to ``--records``; without the option one that does nothing.

    The file is begun before anything is measured. Raises SessionError.
    """
    if not options.records:
        yield lambda document: None
        return
    with session.begun(options.records, verb, seed=options.seed, arguments=arguments) as open_session:

        def keep(document: dict[str, Any]) -> None:
            for record in records.of_document(document, open_session.run.id, time.time()):
                open_session.write(record)
            open_session.end(records.broken(document))

        yield keep


def main(options: argparse.Namespace) -> int:
    """Exit code: 0 measured, 1 the floor could not be measured or something leaked, 2 the run could not begin."""
    options.arms_given = options.arms is not None
    options.arms = options.arms or run.chosen("")
    if os.geteuid():
        print("bench lifecycle: needs root: it makes namespaces and mounts", file=sys.stderr)
        return 2
    if options.out and not os.access(os.path.dirname(os.path.abspath(options.out)), os.W_OK):
        print(f"bench lifecycle: cannot write {options.out}", file=sys.stderr)
        return 2
    if options.records and options.leak_check is not None:
        print("bench lifecycle: a leak check has no records", file=sys.stderr)
        return 2
    options.tell = tell
    options.seed = options.seed if options.seed is not None else random.randrange(1 << 31)
    try:
        with kept(options, "lifecycle", rounds=options.rounds, ballast_mb=options.ballast_mb) as keep:
            with Lab(options.rootfs, ballast=options.ballast_mb) as lab:
                text, document = job(options)(lab, options)
            keep(document)
    except (LabError, SessionError) as err:
        print(f"bench lifecycle: {err}", file=sys.stderr)
        return 2
    if options.out:
        report.write(options.out, document)
    print(json.dumps(document, indent=1) if options.format == "json" else text, end="")
    return 1 if document.get("failed") else 0
