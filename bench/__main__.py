"""``python -m bench VERB``."""

from __future__ import annotations

import argparse
import importlib
import signal
import sys

# verb -> module with ABOUT, add_arguments(parser) and main(options) -> exit code
VERBS = {
    "ablate": "bench.ablate.cli",
    "all": "bench.everything",
    "closure": "bench.micro.closing",
    "count": "bench.counts",
    "doctor": "bench.doctor",
    "life": "bench.life.cli",
    "lifecycle": "bench.lifecycle.cli",
    "list": "bench.listing",
    "merge": "bench.merge",
    "micro": "bench.micro.cli",
    "report": "bench.report.cli",
    "run": "bench.workloads.cli",
    "thesis": "bench.thesis",
}


def _leave(number: int, _frame: object) -> None:
    sys.exit(128 + number)  # so that everything opened is closed


def main(arguments: list[str] | None = None) -> int:
    """Parse, run the verb, answer its exit code. Ctrl-C, TERM and HUP leave nothing behind."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb, module in VERBS.items():
        loaded = importlib.import_module(module)
        chapter = verbs.add_parser(verb, help=loaded.ABOUT, description=loaded.ABOUT)
        loaded.add_arguments(chapter)
        chapter.set_defaults(main=loaded.main)
    options = parser.parse_args(arguments)
    before = {number: signal.signal(number, _leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        return int(options.main(options))
    except KeyboardInterrupt:
        return 130
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    sys.exit(main())
