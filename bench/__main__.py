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


def _interrupted(arguments: list[str] | None, err: BaseException) -> None:
    """One line. A verb that can go on says how in a note of the exception."""
    verb = next((word for word in arguments or sys.argv[1:] if word in VERBS), "")
    how = "; ".join(getattr(err, "__notes__", ()))
    print(f"bench{f' {verb}' if verb else ''}: interrupted{f'; {how}' if how else ''}", file=sys.stderr)


def main(arguments: list[str] | None = None) -> int:
    """Parse, run the verb, answer its exit code. Ctrl-C, TERM and HUP leave nothing behind."""
    stops = (signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, _leave) for number in stops}
    try:
        return _main(arguments)
    except KeyboardInterrupt as err:
        _interrupted(arguments, err)
        return 130
    except SystemExit as err:
        if err.code in [128 + number for number in stops]:
            _interrupted(arguments, err)
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _main(arguments: list[str] | None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb, module in VERBS.items():
        loaded = importlib.import_module(module)
        chapter = verbs.add_parser(verb, help=loaded.ABOUT, description=loaded.ABOUT)
        loaded.add_arguments(chapter)
        chapter.set_defaults(main=loaded.main)
    options = parser.parse_args(arguments)
    return int(options.main(options))


if __name__ == "__main__":
    sys.exit(main())
