"""The door of the command line: ``main`` sends hot verbs to the fast parser and everything else to click.

What ``minictr run`` imports is a budget: nothing here, nor in the modules it reaches on the way to a container, may
import click, re, typing, enum, json or the like (tests/cli/test_hot_path.py holds the list).
"""

from __future__ import annotations

import gc
import os
import sys

from minictr.errors import MinictrError, SpecError, errno_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NoReturn

    from minictr.cli.fastparse import Refusals
    from minictr.cli.options import Row

COMMAND, NAMES = False, True  # what may stand among the options: nothing after the first word, or names of containers
RUN, LIFE = "minictr.cli.options", "minictr.cli.options_life"

# Verbs that scripts loop over: verb -> (module, function, home of its option table, what its words are).
HOT: dict[str, tuple[str, str, str, bool]] = {
    "run": ("minictr.cli.run", "run", RUN, COMMAND),
    "plan": ("minictr.cli.plan", "plan", RUN, COMMAND),
    "create": ("minictr.cli.create", "create", RUN, COMMAND),
    "record": ("minictr.cli.record", "record", RUN, COMMAND),
    "top": ("minictr.cli.top", "top", LIFE, COMMAND),
    "exec": ("minictr.cli.exec", "exec_", "minictr.cli.options_exec", COMMAND),
    **{
        verb: (f"minictr.cli.{verb}", verb, LIFE, NAMES)
        for verb in (
            "ps stats logs inspect wait start attach stop kill pause unpause rename update rm events gc generate"
            " cleanup"
        ).split()
    },
}
FAILED = MinictrError.exit_code
_words: list[str] = []


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ARGV (default: the process's own) and return its exit code."""
    args = list(sys.argv[1:] if argv is None else argv)
    _words[:] = args
    if "_MINICTR_COMPLETE" in os.environ:
        return cold(args)
    try:
        args = without_root(args)
    except MinictrError as err:
        complain("", err)
        return err.exit_code
    if args and args[0] in HOT:
        return hot(args[0], args[1:])
    return cold(args)


def words() -> tuple[str, ...]:
    """The words of this command, as they were given: what makes the same container again."""
    return tuple(_words)


def without_root(args: list[str]) -> list[str]:
    """ARGS after ``--root DIR``, which stands before the verb; state lives there from now on."""
    while args and args[0].partition("=")[0] == "--root":
        _, equals, path = args[0].partition("=")
        if not equals and len(args) < 2:
            raise SpecError("--root needs a value: DIR")
        path, args = (path, args[1:]) if equals else (args[1], args[2:])
        from minictr.runtime.store import choose_root

        choose_root(path)
    return args


def table_of(verb: str) -> tuple[tuple[Row, ...], Refusals]:
    """The options of VERB, and those that are refused by name."""
    home: Any = __import__(HOT[verb][2], fromlist=["TABLES"])  # importlib is not on the hot path
    return home.TABLES[verb], home.REFUSALS.get(verb, ())


def hot(verb: str, args: Sequence[str]) -> int:
    """A verb by the fast parser; ``--help`` goes to click."""
    from minictr.cli.fastparse import parse

    try:
        table, refused = table_of(verb)
        opts, words = parse(args, table, mixed=HOT[verb][3], refused=refused)
    except MinictrError as err:
        complain(verb, err)
        return err.exit_code
    if opts.get("help"):
        return cold([verb, "--help"])
    return call(verb, opts, words)


def call(verb: str, opts: dict[str, Any], words: tuple[str, ...]) -> int:
    """The hot verb itself, with its errors as one line and an exit code."""
    module, function, _, _ = HOT[verb]
    try:
        code: int = getattr(__import__(module, fromlist=[function]), function)(opts, words)
        return code
    except MinictrError as err:
        complain(verb, err)
        return err.exit_code
    except BrokenPipeError:
        return broken_pipe()
    except OSError as err:
        complain(verb, told(err))
        return FAILED
    except KeyboardInterrupt:
        return 130
    except Exception:  # a bug of minictr: never to be taken for the program's own exit code
        sys.excepthook(*sys.exc_info())
        return FAILED


def told(err: OSError) -> str:
    """A call of the kernel's that nobody expected to fail: which part of minictr made it, on what, and the errno."""
    frame, place = err.__traceback__, "minictr"
    while frame is not None:
        module = frame.tb_frame.f_globals.get("__name__", "")
        if module.startswith("minictr."):
            place = f"{module.removeprefix('minictr.')}.{frame.tb_frame.f_code.co_name.strip('_')}"
        frame = frame.tb_next
    path = f" {os.fsdecode(err.filename)}" if isinstance(err.filename, str | bytes) else ""
    return f"{place}{path}: {errno_name(err.errno or 0)} ({os.strerror(err.errno or 0)})"


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
