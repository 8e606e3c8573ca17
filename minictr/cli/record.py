"""``minictr record``: run a program observed, and write down the least that it needs."""

from __future__ import annotations

import os
import shlex
import sys

from minictr.cli.build import build
from minictr.cli.entry import complain, printable, table_of, words
from minictr.cli.fastparse import scan
from minictr.cli.options import FLAG, OPTIONAL
from minictr.cli.run import attempt, compiled, die_with_parent, exit_code, keep_standard_streams, only_detached
from minictr.cli.settings import settings, writable
from minictr.errors import SpecError, TimeoutExpired
from minictr.jsontext import dumps
from minictr.kernel.handles import shut
from minictr.runtime.launch import launch
from minictr.runtime.observed.record import ordered, recorded, verified
from minictr.runtime.observed.start import Observer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from minictr.cli.settings import Settings
    from minictr.runtime.observed.record import Recording
    from minictr.runtime.process import Process
    from minictr.spec import Spec

OUTPUT = "recorded.json"
OURS = frozenset(("output", "once", "any_exit", "cap_add", "cap_drop"))  # not said again: the recording has them


def record(opts: dict[str, Any], command: tuple[str, ...]) -> int:
    """Run COMMAND as OPTS say, observed; write what it needs. The program's exit code, or 125. Raises MinictrError."""
    keep_standard_streams()
    only_detached(opts)
    chosen = settings(opts)
    path = str(writable("--output", opts.get("output", OUTPUT)))
    spec = build(opts, command)
    program = compiled(spec, True)
    reason = "" if opts.get("once") else once_only(spec)
    if chosen.die_with_parent:
        die_with_parent()
    start = os.lseek(0, 0, os.SEEK_CUR) if not reason and not opts.get("once") else 0
    process, timed_out = attempt(program, chosen, spec, record=True)
    code = exit_code(process)
    if (timed_out or code) and not opts.get("any_exit"):
        what = "its time was over" if timed_out else f"the program ended with exit code {code}"
        complain("record", f"{what}: nothing is written; --any-exit writes what it needed to get so far")
        return 124 if timed_out else code
    found = recorded(process, spec)
    if opts.get("once") or reason:
        found = found.replace(capabilities=ordered((*found.capabilities, *found.maybe)))
        if reason:
            complain("record", f"what was recorded was not tried: {reason}")
    else:
        found = verified(found, again(chosen, start))
    write(path, found)
    tell(found, path, command)
    return code


def once_only(spec: Spec) -> str:
    """Why the program cannot be run a second time just so; "" where it can."""
    if "tty" in spec.names:
        return "it had a terminal, and somebody at it (--no-tty)"
    try:
        os.lseek(0, 0, os.SEEK_CUR)
    except OSError:
        return "its input is a pipe, and read now (give a file, or </dev/null)"
    return ""


def again(chosen: Settings, start: int) -> Callable[[Spec], Process]:
    """Runs a spec with the same input from START on, and with its output thrown away; not longer than --timeout."""

    def run(spec: Spec) -> Process:
        null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.lseek(0, start, os.SEEK_SET)
            streams = {"stdin": 0, "stdout": null, "stderr": null}
            process = launch(compiled(spec, True), streams, observer=Observer(spec))
        finally:
            shut(null)
        with process:
            try:
                process.wait(chosen.timeout or None)
            except TimeoutExpired:
                process.kill()
                process.wait()
        return process

    return run


def write(path: str, found: Recording) -> None:
    """FOUND to PATH, as a whole or not at all."""
    text = dumps(found.json())
    try:
        import json

        text = json.dumps(json.loads(text), indent=1)
        with open(f"{path}.new", "w", encoding="utf-8") as file:
            file.write(text + "\n")
        os.replace(f"{path}.new", path)
    except OSError as err:
        raise SpecError(f"--output {path}: {os.strerror(err.errno or 0)}") from err


def tell(found: Recording, path: str, command: tuple[str, ...]) -> None:
    """What was recorded, in a few lines on standard error, and the command line that confines to it."""
    if sys.stderr is None:
        return
    landlock = found.landlock
    paths = "not recorded: it has rules of its own, or mounts, or this kernel cannot"
    if landlock is not None:
        paths = f"{len(landlock.ro)} read, {len(landlock.rw)} written, {len(landlock.rules)} listed"
    runs = "once" if found.runs == 1 else f"{found.runs} times, the last one with just this"
    rows = (
        ("system calls", f"{len(found.calls)}, and what ends a program"),
        ("capabilities", " ".join(found.capabilities) or "none"),
        ("paths", paths),
        ("was run", runs),
        ("written to", path),
    )
    for name, value in rows:
        sys.stderr.write(f"{name:<13} {printable(value)}\n")
    line = ["minictr", "run", *said_before(), *found.options(path), "--", *command]
    sys.stderr.write(f"{printable(shlex.join(line))}\n")


def said_before() -> list[str]:
    """The options of this command that are no part of what was recorded."""
    given = list(words())
    kept: list[str] = []
    table, refused = table_of("record")
    for row, flag, value in scan(given[given.index("record") + 1 :], table, refused=refused):
        if row is None:
            break
        if row[1] in OURS or (row[1] == "security_opt" and str(value).startswith("seccomp")):
            continue
        if row[2] == FLAG:
            kept.append(flag)
        else:
            kept += [f"{flag}={value}"] if row[2] == OPTIONAL else [flag, value]
    return kept
