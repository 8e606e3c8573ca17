"""``minictr exec``: one more program in a container that runs. On the hot path, as :mod:`minictr.cli.run`."""

from __future__ import annotations

import os

from minictr.cli.given import variables
from minictr.cli.run import Network, attended, keep_standard_streams, told
from minictr.cli.settings import settings
from minictr.errors import SpecError
from minictr.kernel.handles import shut
from minictr.runtime.instance import find
from minictr.runtime.join import exec_program, join, target_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from minictr.runtime.console import Console
    from minictr.runtime.join import Target
    from minictr.runtime.process import Process
    from minictr.steps import Feature


def exec_(opts: dict[str, Any], words: tuple[str, ...]) -> int:
    """Run the command in WORDS[1:] in the container called WORDS[0], as OPTS say; the exit code."""
    if words[1:2] == ("--",):  # between the two, as kubectl and lxc-attach have it: no program is called that
        words = (words[0], *words[2:])
    if len(words) < 2:
        raise SpecError("no command: name the program to run after the container" if words else "no container named")
    keep_standard_streams()
    chosen = settings(opts)
    target = target_of(find(words[0]))
    network = None
    try:
        options = chosen_options(opts, target)
        program = exec_program(target, words[1:], **options)

        def start(streams: dict[str, int], console: Console | None) -> Process:
            return join(program, streams, target, preserve_fds=chosen.preserve_fds, console=console)

        if options["detach"]:
            return left(start)
        network = None if "net" in options["without"] else Network.of(target.spec, "exec")
        if network is not None:
            network.open(target.pid)  # before it can send anything
        process, timed_out = attended(start, chosen, options["tty"], network)
        return told(process, timed_out, chosen, words[1])
    finally:
        if network is not None:
            network.close()
        shut(target.pidfd)


def chosen_options(opts: dict[str, Any], target: Target) -> dict[str, Any]:
    """The options of :func:`minictr.runtime.join.exec_spec` that OPTS ask for."""
    detach, tty = bool(opts.get("detach")), opts.get("tty")
    if detach and tty:
        raise SpecError("-d and -t: nobody would hold the terminal: leave one of them out")
    without = opts.get("without", ())
    if tty is None:
        able = {"devpts", "session", "mnt"} <= target.spec.names.difference(without)
        tty = able and not detach and os.isatty(0) and os.isatty(1)
    labels: tuple[Feature, ...] = ()
    if "security_opt" in opts:
        from minictr.cli.labels import exec_labels

        labels, more = exec_labels(target.spec, opts["security_opt"])
        without = (*without, *more)
    return {
        "user": opts.get("user", ""),
        "cwd": opts.get("workdir", ""),
        "env": dict(variables(opts)),
        "tty": tty,
        "privileged": bool(opts.get("privileged")),
        "cap_add": opts.get("cap_add", ()),
        "cap_drop": opts.get("cap_drop", ()),
        "without": tuple(without),
        "labels": labels,
        "detach": detach,
    }


def left(start: Callable[[dict[str, int], Console | None], Process]) -> int:
    """Start with no streams of ours: 0 as soon as it runs, for who forked it leaves then."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        return start(dict.fromkeys(("stdin", "stdout", "stderr"), null), None).wait()
    finally:
        shut(null)
