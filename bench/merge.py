"""``python -m bench merge A.jsonl B.jsonl --out C.jsonl``: results of several machines in one file."""

from __future__ import annotations

import argparse
import os
import sys

from bench import results

ABOUT = "joins results files of one or several machines; blocks of different machines stay apart"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("results", nargs="+", metavar="RESULTS", help="files of JSON lines")
    parser.add_argument("--out", required=True, metavar="FILE", help="a new file")


def main(options: argparse.Namespace) -> int:
    """Exit code: 0 joined, 1 joined without what was wrong (told), 2 nothing was written."""
    if os.path.exists(options.out):
        print(f"bench merge: {options.out} is there already: choose another file", file=sys.stderr)
        return 2
    try:
        found = results.load(options.results)
        if not found.runs:
            raise results.samples.ResultsError(f"no run in {', '.join(options.results)}")
        results.write(options.out, found.records)
    except (OSError, results.samples.ResultsError) as err:
        print(f"bench merge: {err}", file=sys.stderr)
        return 2
    for line in found.told:
        print(f"bench merge: {line}", file=sys.stderr)
    for place in found.places:
        runs, blocks = found.runs_of(place), found.samples(place)
        cut = len(found.interrupted(place))
        print(f"{place}: {len(runs)} runs{f', {cut} interrupted' if cut else ''}, {len(blocks)} samples that count")
    print(f"written: {options.out}")
    return 1 if any("left out" in line for line in found.told) else 0
