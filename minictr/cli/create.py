"""``minictr create`` and ``minictr run -d``: a container that outlives the command. Prints its id."""

from __future__ import annotations

import os
import sys

from minictr.cli import entry
from minictr.cli.build import build
from minictr.errors import NoSuchContainer, SpecError, StepFailed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minictr.runtime.detached import Keeping
    from minictr.runtime.instance import Instance
    from minictr.spec import Spec

__all__ = ["create", "detach", "free_file", "replace", "write_file"]

# Options that are about this very process: a container that outlives it has no use for them.
ATTACHED = {
    "timeout": "--timeout",
    "trace": "--trace",
    "json_status_fd": "--json-status-fd",
    "preserve_fds": "--preserve-fds",
    "die_with_parent": "--die-with-parent",
}


def create(opts: dict[str, Any], command: tuple[str, ...]) -> int:
    """Set COMMAND's container up to just before it, and print its id."""
    return keep(opts, command, held=True)


def detach(opts: dict[str, Any], command: tuple[str, ...]) -> int:
    """Run COMMAND in the background, and print its container's id."""
    return keep(opts, command, held=False)


def keep(opts: dict[str, Any], command: tuple[str, ...], *, held: bool) -> int:
    """Make a kept container as OPTS say; 0. Raises MinictrError."""
    for dest, option in ATTACHED.items():
        if dest in opts:
            how = "create" if held else "run -d"
            raise SpecError(f"{option} is about a container that ends with this command: leave it out with {how}")
    from minictr.runtime.kept import accounted

    spec = accounted(build(opts, command, terminal=False), tuple(opts.get("without", ())))
    keeping = kept_as(opts, spec, held=held)
    for option in ("cidfile", "pidfile"):
        free_file(f"--{option}", opts.get(option))
    if opts.get("replace"):
        replace(spec.name)
    instance = made(spec, keeping, opts.get("best_effort", ()))
    for option, text in (("cidfile", instance.id), ("pidfile", str(instance.process.pid))):
        if option in opts:
            write_file(f"--{option}", opts[option], text)
    try:
        sys.stdout.write(f"{instance.id}\n")
        sys.stdout.flush()
    except BrokenPipeError:
        raise  # who asked wants to know no more
    except OSError as err:
        instance.remove(force=True)
        raise StepFailed("write the container's id to standard output", err.errno or 0, cure="it is removed") from err
    return 0


def made(spec: Spec, keeping: Keeping, names: list[str]) -> Instance:
    """The container; without what cannot be had of NAMES (``--best-effort``)."""
    from minictr.runtime.kept import make

    if not names:
        return make(spec, keeping)
    from minictr.cli.run import left_out
    from minictr.runtime.effort import best_effort

    def start(out: tuple[str, ...]) -> Instance:
        return make(spec.without(*out, cascade=True), keeping)

    return best_effort(start, names, left_out(spec))[0]


def kept_as(opts: dict[str, Any], spec: Spec, *, held: bool) -> Keeping:
    """How it is kept. Raises SpecError."""
    from minictr.features.tables import signal_number
    from minictr.runtime.detached import Keeping
    from minictr.runtime.kept import stop_signal_of

    settings: dict[str, Any] = {}
    if "stop_signal" in opts:
        try:
            settings["stop_signal"] = signal_number(opts["stop_signal"])
        except SpecError as err:
            raise SpecError(f"--stop-signal: {err}") from err
    else:
        settings["stop_signal"] = stop_signal_of(spec)
    if "stop_timeout" in opts:
        from minictr.parse import duration

        settings["stop_timeout"] = duration(opts["stop_timeout"], "--stop-timeout")
    return Keeping(
        held=held,
        remove=bool(opts.get("rm")),
        interactive=bool(opts.get("interactive")),
        log=log_options(opts),
        command_line=entry.words(),
        directory=os.getcwd(),
        **settings,
    )


def log_options(opts: dict[str, Any]) -> tuple[int, int]:
    """Bytes of a log file and number of files, from ``--log-driver`` and ``--log-opt``."""
    from minictr.runtime.detached import LOG_FILES, LOG_SIZE

    driver = opts.get("log_driver", "k8s-file")
    if driver not in ("k8s-file", "none"):
        raise SpecError(f"--log-driver {driver!r} is not one of k8s-file, none")
    size, files = LOG_SIZE, LOG_FILES
    for text in opts.get("log_opt", ()):
        name, _, value = text.partition("=")
        if name == "max-size":
            from minictr.features.check import size as bytes_of

            size = 0 if value == "-1" else bytes_of(value, "--log-opt max-size", low=4096)
        elif name == "max-file":
            from minictr.features.check import number

            files = number(value, "--log-opt max-file", 1, 100)
        else:
            raise SpecError(f"--log-opt {name}: max-size=SIZE and max-file=N are known")
    return (0, 0) if driver == "none" else (size, files)


def replace(name: str) -> None:
    """``--replace``: another container of that name is removed first."""
    if not name:
        raise SpecError("--replace: which one? give --name as well")
    from minictr.runtime.instance import find

    try:
        find(name).remove(force=True)
    except NoSuchContainer:
        pass


def free_file(option: str, path: str | None) -> None:
    """A file of somebody else's is never written over."""
    if path is None:
        return
    if not path or os.path.lexists(path):
        raise SpecError(f"{option} {path}: {'is there already' if path else 'empty'}: name a file that is not")
    directory = os.path.dirname(path) or "."
    if not os.path.isdir(directory) or not os.access(directory, os.W_OK):
        raise SpecError(f"{option} {path}: {directory} is no directory that can be written")


def write_file(option: str, path: str, text: str) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)
    except OSError as err:
        raise SpecError(f"{option} {path}: {os.strerror(err.errno or 0)}; the container runs") from err
