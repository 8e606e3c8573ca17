"""``minictr exec``: one more program in a container that runs. On the hot path, as :mod:`minictr.cli.run`."""

from __future__ import annotations

import os

from minictr.cli.run import Network, attended, keep_standard_streams, told
from minictr.cli.settings import settings
from minictr.errors import MinictrError, SpecError, StartTimeout
from minictr.kernel.handles import shut
from minictr.runtime import exec_cache
from minictr.runtime.joining import join
from minictr.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from minictr.cli.settings import Settings
    from minictr.runtime.console import Console
    from minictr.runtime.join import Target
    from minictr.runtime.process import Process
    from minictr.steps import Feature

    Starter = Callable[[dict[str, int], Console | None], Process]

# Options that are about this process, not about the program: what is compiled does not hang on them.
OURS = frozenset({"interactive", "tty", "timeout", "trace", "json_status_fd", "preserve_fds"})


def exec_(opts: dict[str, Any], words: tuple[str, ...]) -> int:
    """Run the command in WORDS[1:] in the container called WORDS[0], as OPTS say; the exit code."""
    if words[1:2] == ("--",):  # between the two, as kubectl and lxc-attach have it: no program is called that
        words = (words[0], *words[2:])
    if len(words) < 2:
        raise SpecError("no command: name the program to run after the container" if words else "no container named")
    keep_standard_streams()
    chosen = settings(opts)
    tty = opts.get("tty")
    plain = OURS.issuperset(opts) and not tty and (tty is not None or not (os.isatty(0) and os.isatty(1)))
    way = kept_way(opts, words, chosen) if plain else None
    if way is None:
        way = new_way(opts, words, chosen, plain)
    try:
        if opts.get("detach"):
            return left(way.start)
        if way.network is not None:
            way.network.open(way.pid)  # before it can send anything
        process, timed_out = attended(way.start, chosen, way.terminal, way.network)
        return told(process, timed_out, chosen, words[1])
    finally:
        if way.network is not None:
            way.network.close()
        shut(way.pidfd)


class Way(Value):
    """How a program comes into a container whose first process is ``pid``; ``pidfd`` is to be closed."""

    pid: int
    pidfd: int
    start: Starter
    network: Network | None
    terminal: bool = False


def kept_way(opts: dict[str, Any], words: tuple[str, ...], chosen: Settings) -> Way | None:
    """By what an earlier ``exec`` compiled, if that holds."""
    entry = exec_cache.find(words[0])
    if entry is None:
        return None
    program = entry.program(words[1:])

    def start(streams: dict[str, int], console: Console | None) -> Process:
        try:
            return join(program, streams, entry.pidfd, preserve_fds=chosen.preserve_fds)
        except StartTimeout:
            raise
        except MinictrError:
            pass  # nothing has run: the ordinary way tells why, or finds it mended
        way = new_way(opts, words, chosen, True)
        try:
            return way.start(streams, console)
        finally:
            shut(way.pidfd)

    return Way(entry.pid, entry.pidfd, start, Network("exec") if entry.network else None)


def new_way(opts: dict[str, Any], words: tuple[str, ...], chosen: Settings, plain: bool) -> Way:
    """By the container's own wishes. PLAIN: what is compiled for this command serves others too, and is kept."""
    from minictr.runtime.instance import find
    from minictr.runtime.join import exec_program, target_of

    instance = find(words[0])
    state = exec_cache.stamp(instance.directory)
    target = target_of(instance)
    try:
        options = chosen_options(opts, target)
        program = exec_program(target, words[1:], **options)
    except BaseException:
        shut(target.pidfd)
        raise

    def start(streams: dict[str, int], console: Console | None) -> Process:
        process = join(program, streams, target.pidfd, preserve_fds=chosen.preserve_fds, console=console)
        if plain:
            exec_cache.keep(instance.directory, state, instance.process, target, program)
        return process

    network = None if "net" in options["without"] else Network.of(target.spec, "exec")
    return Way(target.pid, target.pidfd, start, network, options["tty"])


def chosen_options(opts: dict[str, Any], target: Target) -> dict[str, Any]:
    """The options of :func:`minictr.runtime.join.exec_spec` that OPTS ask for."""
    from minictr.cli.given import variables

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


def left(start: Starter) -> int:
    """Start with no streams of ours: 0 as soon as it runs, for who forked it leaves then."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        return start(dict.fromkeys(("stdin", "stdout", "stderr"), null), None).wait()
    finally:
        shut(null)
