"""`make security-report`: every class of escape, tried by one program in every runtime that is installed here.

    python tests/security/report [--json] [--markdown] [--details] [--only RUNTIME]...

Needs root. The program is tests/security/attempts; the same binary, with the same words, runs in each runtime as it
comes.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.path.append(str(HERE.parent.parent.parent))  # last: minictr is the one that is installed

import table  # noqa: E402
from dockerd import Docker  # noqa: E402
from runtimes import PEERS, POINTS, Minictr, MinictrDocker, Runtime  # noqa: E402
from world import World  # noqa: E402

from bench.host import facts  # noqa: E402

RUNTIMES: tuple[type[Runtime], ...] = (Minictr, MinictrDocker, Docker, *PEERS)
SAID = 300  # characters of what a runtime said that did not start


def progress(text: str) -> None:
    """One line on a terminal, written over by the next."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def column(kind: type[Runtime], world: World, number: int, total: int) -> table.Column:
    """What came of one runtime."""
    lead = f"{number}/{total} {kind.name}"
    progress(f"{lead}: starting")
    with kind(world) as runtime:
        trouble = getattr(runtime, "trouble", "") or runtime.missing()
        if trouble:
            return table.Column(kind.name, kind.about, "", {}, trouble)
        version = runtime.version()
        found, said = runtime.attempt(lambda count: progress(f"{lead}: {count} classes"))
    if not found:
        trouble = f"it does not start here: {said.strip()[-SAID:]}"
    return table.Column(kind.name, kind.about, version, found, trouble)


def _leave(number: int, _frame: object) -> None:
    sys.exit(128 + number)  # so that everything made is undone


def main() -> int:
    parser = argparse.ArgumentParser(prog="security-report", description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="the whole of it, for machines")
    parser.add_argument("--markdown", action="store_true", help="the table, as docs/security.md has it")
    parser.add_argument("--details", action="store_true", help="what stands behind every OPEN and n/e")
    names = [kind.name for kind in (*RUNTIMES, *POINTS)]
    parser.add_argument("--only", action="append", choices=names, metavar="RUNTIME", help=f"of {', '.join(names)}")
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("security-report: it must be root: the runtimes' defaults as root are what is compared", file=sys.stderr)
        return 125
    signal.signal(signal.SIGTERM, _leave)
    kinds = [kind for kind in (*RUNTIMES, *POINTS) if not options.only or kind.name in options.only]
    with World() as world:
        columns = [column(kind, world, i + 1, len(kinds)) for i, kind in enumerate(kinds)]
    progress("")
    machine = facts()
    points = [one for kind, one in zip(kinds, columns) if kind in POINTS]
    peers = [one for kind, one in zip(kinds, columns) if kind not in POINTS]
    if options.json:
        print(json.dumps(table.as_data(columns, machine), indent=1))
    elif options.markdown:
        print(table.markdown(peers, points, machine))
    else:
        print(table.plain(peers, points, machine, options.details))
    ours = next((one for one in columns if one.name == Minictr.name), None)
    return 0 if ours is None or ours.verdicts else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
