"""One invocation's results file: begun, or gone on with after an interruption, and ended.

What a verb that measures needs around its blocks::

    with session.begun(path, "run", seed=7, arguments={...}) as it:
        outcome = Blocks(arms, it.run.id, it.write, plan, earlier=it.earlier, progress=bar).measure()
        it.end(outcome.failed.values())
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
import uuid
from collections.abc import Iterable, Iterator
from typing import Any

from bench import host, samples


class SessionError(Exception):
    """The results file cannot be used, or written any more; one line with what to do."""


class Session:
    """An open results file. ``earlier`` are the records of the run that is gone on with, [] for a new one."""

    def __init__(self, path: str, run: samples.Run, writer: samples.Writer, earlier: list[samples.Record]) -> None:
        self.path, self.run, self.earlier = path, run, earlier
        self._writer, self._watch = writer, host.Watch()

    def write(self, record: samples.Record) -> None:
        """Raises SessionError when the disk is full or the file is gone: nothing of the record is left half-written."""
        try:
            self._writer.write(record)
        except OSError as err:
            raise SessionError(
                f"cannot write {self.path}: {err.strerror}; what was measured before is in it, and --resume "
                f"{self.path} goes on from there"
            ) from err

    def end(self, failed: Iterable[str] = ()) -> dict[str, Any]:
        """Write the run's end. The answer is how quiet the machine was (``bench.host.Watch``)."""
        end = dataclasses.replace(self.so_far(), failed=tuple(failed))
        self.write(end)
        return end.quiet

    def so_far(self) -> samples.End:
        """The end that the run would have now, not written: for what is judged before more is measured."""
        return samples.End(self.run.id, time.time(), self._watch.stop())


def default_path(verb: str) -> str:
    """``bench-run-20260131-235959.jsonl``: where a verb writes when nobody says where."""
    return time.strftime(f"bench-{verb}-%Y%m%d-%H%M%S.jsonl")


def usable(path: str) -> None:
    """Raises SessionError when PATH cannot become a new results file; nothing is made yet."""
    directory = os.path.dirname(os.path.abspath(path))
    if os.path.exists(path) and (not os.path.isfile(path) or os.path.getsize(path)):
        raise SessionError(f"{path} holds results already: choose another file, or --resume {path}")
    if not os.access(directory, os.W_OK | os.X_OK):
        raise SessionError(f"cannot write {path}: {directory} is no directory that can be written to")


@contextlib.contextmanager
def begun(path: str, verb: str, *, seed: int, arguments: dict[str, Any]) -> Iterator[Session]:
    """A new run in the new file PATH. Raises SessionError when there is one already or it cannot be made."""
    run = samples.Run(uuid.uuid4().hex[:12], verb, host.machine(), seed, time.time(), arguments, host.facts())
    usable(path)
    with _opened(path) as writer:
        session = Session(path, run, writer, [])
        session.write(run)
        yield session


def interrupted(path: str, verb: str) -> tuple[samples.Run, list[samples.Record]]:
    """The last run of VERB in PATH, with its records. Raises SessionError: no such file or run, or another machine."""
    try:
        records = list(samples.read(path))
    except (OSError, samples.ResultsError) as err:
        raise SessionError(f"cannot go on with {path}: {getattr(err, 'strerror', None) or err}") from err
    runs = [record for record in records if isinstance(record, samples.Run) and record.verb == verb]
    if not runs:
        raise SessionError(f"cannot go on with {path}: there is no `bench {verb}` in it")
    run = runs[-1]
    if run.machine != host.machine():
        raise SessionError(f"cannot go on with {path}: it was measured on {run.machine}, this is {host.machine()}")
    kernel = host.facts().get("kernel")
    if run.facts.get("kernel") != kernel:
        raise SessionError(f"cannot go on with {path}: its kernel was {run.facts.get('kernel')}, this is {kernel}")
    return run, [record for record in records if getattr(record, "run", "") == run.id]


@contextlib.contextmanager
def resumed(path: str, run: samples.Run, earlier: list[samples.Record]) -> Iterator[Session]:
    """The run goes on at the end of its file; a last line that a kill cut short is removed first."""
    with _opened(path) as writer:
        yield Session(path, run, writer, earlier)


@contextlib.contextmanager
def opened(
    verb: str, out: str, resume: str, *, seed: int, arguments: dict[str, Any], earlier: list[Any]
) -> Iterator[Session]:
    """The results file of VERB: OUT, a new one, or RESUME, gone on with: EARLIER is its run and then its records."""
    if resume:
        with resumed(resume, earlier[0], earlier[1:]) as it:
            yield it
    else:
        with begun(out, verb, seed=seed, arguments=arguments) as it:
            yield it


def _opened(path: str) -> samples.Writer:
    try:
        _mend(path)
        return samples.Writer(path)
    except OSError as err:
        raise SessionError(f"cannot write {path}: {err.strerror}") from err


def _mend(path: str) -> None:
    """Cut PATH after its last newline."""
    if not os.path.exists(path):
        return
    with open(path, "r+b") as file:
        text = file.read()
        file.truncate(text.rfind(b"\n") + 1)
