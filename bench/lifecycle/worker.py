"""One arm's process: asked for a start by a byte, answers with the time it took.

The process stays from round to round, so neither its own start nor the pipe is inside the measured time.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import select
import signal
import subprocess
from collections.abc import Callable
from typing import IO

from bench import ROOT

DEADLINE = 60.0  # seconds for one start; a worker that takes longer is hung
PATIENCE = 5.0  # seconds a worker has to leave once its pipe is closed
LOG_TAIL = 200  # characters of the last words of its standard error shown in a message

Command = Callable[[int, int], list[str]]  # (request fd, reply fd) -> argv


class ArmFailed(Exception):
    """A container was not started, or its command did not succeed. The arm is marked, the others go on."""


@dataclasses.dataclass(frozen=True)
class Start:
    """One start to exit: ``nanoseconds``, and the parts an arm can tell by itself (name to nanoseconds)."""

    nanoseconds: int
    parts: dict[str, int] = dataclasses.field(default_factory=dict)


def parse_reply(line: str) -> Start:
    """``ok NANOSECONDS STATUS [NAME NANOSECONDS]...`` or ``error TEXT``. Raises ArmFailed for anything but success."""
    kind, _, rest = line.strip().partition(" ")
    if kind != "ok":
        raise ArmFailed(rest or f"answered {line!r}")
    total, status, *pairs = rest.split()
    if int(status):
        code = os.waitstatus_to_exitcode(int(status))
        raise ArmFailed(f"the command left with {code}" if code >= 0 else f"the command was ended by signal {-code}")
    return Start(int(total), {name: int(value) for name, value in zip(pairs[::2], pairs[1::2], strict=True)})


def environment() -> dict[str, str]:
    """Ours, with the bench to be found by the workers; what is already in PYTHONPATH stays before it."""
    path = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    return {**os.environ, "PYTHONPATH": os.pathsep.join([*path, ROOT])}


class Worker:
    """A context manager. ``log`` is the path that takes the process's standard error."""

    def __init__(self, command: Command, *, log: str, stdout: IO[bytes] | int = subprocess.DEVNULL) -> None:
        self._log, self._pending = log, b""
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
            ends = [*os.pipe(), *os.pipe()]
            request, self._request, self._reply, reply = ends
            for stack, fd in zip((theirs, ours, ours, theirs), ends, strict=True):
                stack.callback(os.close, fd)
            errors = theirs.enter_context(open(log, "wb"))
            self._process = subprocess.Popen(
                command(request, reply),
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=errors,
                pass_fds=(request, reply),
                env=environment(),
                start_new_session=True,  # Ctrl-C is for the bench, which then closes us in order
            )
            ours.pop_all()  # kept: close() ends them

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> Start:
        """Ask for one start and wait for it. Raises ArmFailed when it failed, hung, or the worker is gone."""
        self.ask()
        return self.answer()

    def ask(self) -> None:
        """Ask for one start; :meth:`answer` must be called before the next. Raises ArmFailed."""
        if self._request < 0:
            raise ArmFailed("the worker was closed")
        try:
            os.write(self._request, b"r")
        except BrokenPipeError:
            raise ArmFailed(self._complaint("the worker is gone")) from None

    def fileno(self) -> int:
        """What can be read from once there is an answer, for select."""
        return self._reply

    @property
    def pid(self) -> int:
        """The process that stays."""
        return self._process.pid

    def answer(self) -> Start:
        """What was asked for last. Raises ArmFailed."""
        if self._request < 0:
            raise ArmFailed("the worker was closed")
        try:
            return parse_reply(self._read_line())
        except BrokenPipeError:
            raise ArmFailed(self._complaint("the worker is gone")) from None
        except ArmFailed as err:
            raise ArmFailed(self._complaint(str(err))) from None

    def _read_line(self) -> str:
        while b"\n" not in self._pending:
            if not select.select([self._reply], [], [], DEADLINE)[0]:
                self.close()
                raise ArmFailed(f"no answer in {DEADLINE:g} s")
            data = os.read(self._reply, 65536)
            if not data:
                raise ArmFailed("the worker ended")
            self._pending += data
        line, _, self._pending = self._pending.partition(b"\n")
        return line.decode(errors="replace")

    def _complaint(self, what: str) -> str:
        with contextlib.suppress(OSError), open(self._log, encoding="utf-8", errors="replace") as file:
            said = " ".join(file.read().strip().rpartition("\n")[2].split())[:LOG_TAIL]
            return f"{what}: {said}" if said else what
        return what

    def close(self) -> None:
        """End the process: by closing its pipe, and by force when it does not leave."""
        if self._request < 0:
            return
        os.close(self._request)
        os.close(self._reply)
        self._request = self._reply = -1
        try:
            self._process.wait(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
