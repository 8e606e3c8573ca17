"""``python -m bench all``: every verb in turn, each with its share of the time, and one report of what they found.

Each is a command of its own, so that what one breaks is its own only. A directory holds a results file for each; what
is whole in it is not measured again, what was interrupted is gone on with.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Sequence

from bench import counting, samples
from bench.micro import arms
from bench.workloads.base import SIZES

ABOUT = "doctor, micro, lifecycle, the five workloads, ablations and the report, within a time"
MINUTES = 24.0  # `make bench` installs before it, and is to end within 25
TAKEN_APART = ("--to", "docker", "--blocks", "20", "--method", "loo", "--factors")
OF_FILES, OF_NETWORK = "overlay,privilege,seccomp,cgroups", "overlay,seccomp,cgroups,firewall"
CLOSING = 0.7  # minutes for the report
SHORTEST = 0.05  # minutes; a part's first block is measured in any case
LEAST = 4.0  # minutes; below, no part could measure anything
COUNTED = "compress,encrypt,serve,receive"
LONG = 60.0  # minutes from which compile is counted too: with less it has one block, of which nothing is said
REPORT = "report"
BENCH = (sys.executable, "-m", "bench")


@dataclasses.dataclass(frozen=True)
class Part:
    """One command. ``share`` of the time that is left when it begins, among those that are still to come; 0 where it
    takes what it takes, which is ``needs`` minutes on two cores and is kept for it.

    ``timed``: it has an option --minutes. ``records``: the option that names its results file.
    """

    name: str
    words: tuple[str, ...]
    share: float = 0.0
    needs: float = 0.0
    timed: bool = True
    records: str = "--out"


def _lifecycle(name: str, needs: float, *words: str) -> Part:
    return Part(name, ("lifecycle", *words), timed=False, needs=needs, records="--records")


def parts(size: str, minutes: float = MINUTES) -> tuple[Part, ...]:
    """What is measured in MINUTES, in order. compile comes early: its one block takes what it takes, eight minutes on
    two cores, and those after it share what is left."""
    sized, long = ("--size", size), minutes >= LONG
    counted = COUNTED + ",compile:jobs=2" * long
    return (
        _lifecycle("lifecycle", 0.3, "--rounds", "25"),
        _lifecycle("by-step", 0.1, "--by-step", "--rounds", "25"),
        _lifecycle("phases", 0.6, "--phases", "--rounds", "6", "--warmup", "1"),
        _lifecycle("alive", 0.2, "--alive", "100", "--rounds", "1"),
        _lifecycle("at-once", 0.5, "--at-once", "--rounds", "1"),
        Part("compile", ("run", "--workloads", "compile:jobs=2", "--blocks", "10", *sized), 0.30),
        Part("run", ("run", "--workloads", "encrypt,serve,receive", "--blocks", "20", *sized), 0.31),
        Part("compress", ("run", "--workloads", "compress", "--blocks", "10", *sized), 0.05),
        Part("micro", micro(), 0.12),
        Part("count", ("count", "--workloads", counted, *sized), timed=False, needs=3.5 if long else 0.8),
        Part("ablate-encrypt", ("ablate", "--workload", "encrypt", *TAKEN_APART, OF_FILES, *sized), 0.11),
        Part("ablate-serve", ("ablate", "--workload", "serve", *TAKEN_APART, OF_NETWORK, *sized), 0.16),
    )


def micro() -> tuple[str, ...]:
    """Every arm that a closure of what is timed needs, and the operations that workloads are counted in: a block of
    these takes some 25 s on two cores."""
    chosen = ("--arms", ",".join(arms.answering()), "--operations", ",".join(counting.PRICED))
    return ("micro", *chosen, "--blocks", "40", "--rest", "0.1")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    names = [part.name for part in parts(SIZES[0])]
    parser.add_argument("--minutes", type=float, default=MINUTES, help=f"for all of it (default: {MINUTES:.0f})")
    parser.add_argument("--size", choices=SIZES, default="small", help="of the workloads (default: small)")
    parser.add_argument("--only", default="", metavar="PART,...", help=f"of {', '.join(names)}")
    parser.add_argument("--dir", default="", metavar="DIR", help="results (default: results/DATE here); one that is")
    parser.add_argument("--no-report", action="store_true", help="results only")


def ended(path: str) -> bool | None:
    """Whether the run in PATH came to its end; None where there is none. Raises ResultsError."""
    if not os.path.exists(path) or not os.path.getsize(path):
        return None
    return any(isinstance(record, samples.End) for record in samples.read(path))


def command(part: Part, path: str, minutes: float, *, resume: bool) -> list[str]:
    """The words of PART's own command."""
    where = ["--resume", path] if resume else [part.records, path]
    time_limit = ["--minutes", f"{minutes:.2f}"] if part.timed else []
    return [*BENCH, *part.words, *time_limit, *where]


def measured(part: Part, directory: str, minutes: float) -> str:
    """Measure PART; a line of what went wrong, "" when nothing did. KeyboardInterrupt is the caller's."""
    path = os.path.join(directory, f"{part.name}.jsonl")
    before = ended(path)
    if before:
        return ""
    resume = before is False and part.records == "--out" and part.timed
    if before is False and not resume:
        os.unlink(path)  # short, and without a way to go on
    code = _told(part.name, command(part, path, minutes, resume=resume))
    return "" if not code else f"{part.name}: left with {code}: see above"


def _told(name: str, words: Sequence[str]) -> int:
    print(f"\n== {name}: python -m {' '.join(words[2:])}", flush=True)
    began = time.monotonic()
    code = run(words)
    print(f"== {name}: {time.monotonic() - began:.0f} s, exit code {code}", flush=True)
    return code


def run(words: Sequence[str]) -> int:
    """Its exit code. Ctrl-C reaches it too, from the terminal: it is waited for while it cleans up."""
    with subprocess.Popen(words) as process:
        try:
            return process.wait()
        except BaseException:
            process.terminate()
            process.wait()
            raise


def report(directory: str, names: Sequence[str]) -> int:
    """The page of what there is."""
    paths = [os.path.join(directory, f"{name}.jsonl") for name in names]
    found = [path for path in paths if os.path.exists(path) and os.path.getsize(path)]
    if not found:
        return 0
    return _told(REPORT, [*BENCH, "report", *found, "--out", os.path.join(directory, REPORT)])


def chosen(options: argparse.Namespace) -> list[Part]:
    """Raises ValueError for a part that there is none of."""
    found = parts(options.size, options.minutes)
    wished = [name for name in options.only.split(",") if name] or [part.name for part in found]
    unknown = sorted(set(wished) - {part.name for part in found})
    if unknown:
        raise ValueError(f"no part {', '.join(unknown)}; there are {', '.join(part.name for part in found)}")
    return [part for part in found if part.name in wished]


def everything(wished: Sequence[Part], directory: str, minutes: float) -> list[str]:
    """Measure each of WISHED, MINUTES in all; one line for each that broke."""
    end, failed = time.monotonic() + 60 * minutes, []
    for at, part in enumerate(wished):
        try:
            line = measured(part, directory, allotted(wished[at:], (end - time.monotonic()) / 60))
        except samples.ResultsError as err:
            line = f"{part.name}: {err}"
        failed += [line] if line else []
    return failed


def allotted(to_come: Sequence[Part], left: float) -> float:
    """Minutes for the first of TO_COME when LEFT are left for all of them: what one took too long, the others lack."""
    free = left - sum(part.needs for part in to_come)
    return max(free * to_come[0].share / (sum(part.share for part in to_come) or 1.0), SHORTEST)


def main(options: argparse.Namespace) -> int:
    """Exit code: 0 measured, 1 something broke (the others went on), 2 it could not begin."""
    directory = options.dir or time.strftime("results/%Y%m%d-%H%M%S")
    try:
        wished = chosen(options)
        if not options.minutes >= LEAST:
            raise ValueError(f"--minutes {options.minutes:g}: at least {LEAST:g}, or no part measures anything")
        if os.geteuid() != 0:
            raise ValueError("needs root: chroot, cgroups, networks and daemons are its")
        os.makedirs(directory, exist_ok=True)
    except (ValueError, OSError) as err:
        print(f"bench all: {err}", file=sys.stderr)
        return 2
    began = time.monotonic()
    try:
        failed = ["doctor: see above"] if _told("doctor", [*BENCH, "doctor", "--quick"]) else []
        failed += everything(wished, directory, options.minutes - CLOSING - (time.monotonic() - began) / 60)
    except (KeyboardInterrupt, SystemExit) as err:
        err.add_note(f"--dir {directory} goes on")
        raise
    if not options.no_report and report(directory, [part.name for part in parts(options.size)]):
        failed.append("report: see above")
    for line in failed:
        print(f"bench all: {line}", file=sys.stderr)
    print(f"results: {directory}")
    return 1 if failed else 0
