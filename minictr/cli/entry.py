"""The door of the command line: ``main`` sends hot verbs to the fast parser and everything else to click.

What ``minictr run`` imports is a budget: nothing here, nor in the modules it reaches on the way to a container, may
import click, re, typing, enum, json or the like (tests/cli/test_hot_path.py holds the list).
"""

from __future__ import annotations

import gc
import os
import sys

from minictr.errors import MinictrError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

    from minictr.cli.options import Row

HOT = ("run", "plan", "exec")
FAILED = MinictrError.exit_code


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ARGV (default: the process's own) and return its exit code."""
    args = list(sys.argv[1:] if argv is None else argv)
    if args and args[0] in HOT and "_MINICTR_COMPLETE" not in os.environ:
        return hot(args[0], args[1:])
    return cold(args)


def hot(verb: str, args: Sequence[str]) -> int:
    """A hot verb by the fast parser; ``--help`` goes to click."""
    from minictr.cli.fastparse import parse

    try:
        opts, command = parse(args, table(verb))
    except MinictrError as err:
        complain(verb, err)
        return err.exit_code
    if opts.get("help"):
        return cold([verb, "--help"])
    return call(verb, opts, command)


def table(verb: str) -> tuple[Row, ...]:
    """The options of a hot verb."""
    if verb == "exec":
        from minictr.cli.options_exec import EXEC_OPTIONS

        return EXEC_OPTIONS
    from minictr.cli.options import PLAN_OPTIONS, RUN_OPTIONS

    return RUN_OPTIONS if verb == "run" else PLAN_OPTIONS + RUN_OPTIONS


def call(verb: str, opts: dict[str, object], command: tuple[str, ...]) -> int:
    """The hot verb itself, with its errors as one line and an exit code."""
    try:
        if verb == "run":
            from minictr.cli.run import run

            return run(opts, command)
        if verb == "exec":
            from minictr.cli.exec import exec_

            return exec_(opts, command)
        from minictr.cli.plan import plan

        return plan(opts, command)
    except MinictrError as err:
        complain(verb, err)
        return err.exit_code
    except BrokenPipeError:
        return broken_pipe()
    except OSError as err:  # standard output, most likely: a full disk
        complain(verb, err)
        return FAILED
    except KeyboardInterrupt:
        return 130
    except Exception:  # a bug of minictr: never to be taken for the program's own exit code
        sys.excepthook(*sys.exc_info())
        return FAILED


def complain(verb: str, err: object) -> None:
    """One line on standard error."""
    name = f"minictr {verb}" if verb else "minictr"
    if sys.stderr is not None:  # None: the caller closed it
        sys.stderr.write(f"{name}: {printable(str(err))}\n")


def printable(text: str) -> str:
    """TEXT with control characters escaped: a path or a host name must not write to the terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode("ascii") for c in text)


def cold(args: Sequence[str]) -> int:
    """Every other verb, help and completion: click."""
    gc.enable()
    if "site" not in sys.modules:  # started by the launcher with -S: .pth files and their kin are wanted now
        import site

        site.main()
    from minictr.cli.main import main as click_main

    return click_main(args)


def broken_pipe() -> int:
    """The reader of our output is gone: keep the interpreter's last flush from complaining about it."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)
    return FAILED


def leave() -> NoReturn:
    """``main`` as a process: ends without the interpreter's own tidying, which takes 1-2 ms and frees nothing."""
    gc.disable()  # a collection while modules are loaded finds nothing, and all of them take 2 ms
    code = main()
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            code = code or FAILED
    os._exit(code)
