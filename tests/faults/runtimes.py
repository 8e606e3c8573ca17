"""What is tried, behind one face: a :class:`Drive` says which command is hit, and judges how it went.

The program of every start writes what the kernel says of it to a file and leaves with 7 (state.c). So that it has run
is seen by that file, and an exit code of 0 is a lie. What the file says is compared with that of an undisturbed start.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from onecall import Call, Point
from remains import Place
from states import Lab, State, difference, state_of

__all__ = ["FAILED", "HUNG", "LEAKED", "MISSED", "OPEN", "RAN", "TOLERATED", "Drive", "Outcome", "Starter", "Told"]

HERE = Path(__file__).resolve().parent
RAN = 7  # the program's own exit code
DEADLINE = 8.0  # seconds for a command, of which none needs half a second
TOLERATED, FAILED, LEAKED, HUNG, OPEN, MISSED = "tolerated", "failed", "leaked", "hung", "fail_open", "missed"


class Told(NamedTuple):
    """How a command went. ``code``: minus the signal, None when it did not end in time."""

    code: int | None
    hung: bool
    out: str
    err: str
    seconds: float
    hit: list[Any] | None = None
    made: list[list[Any]] | None = None


class Starter:
    """starter.py as a process: see there. WITHIN: the beginning of a command line that executes it."""

    def __init__(self, within: Iterable[str] = ()) -> None:
        command = [*within, sys.executable, "-P", str(HERE / "starter.py")]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, **request: Any) -> Told:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("the process that makes the starts is gone")
        return Told(**json.loads(line))

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(10)
        assert self.process.stdout is not None
        self.process.stdout.close()


class Outcome(NamedTuple):
    """What a try came to: some of the five kinds, and a line for people where something is wrong with it."""

    kinds: frozenset[str]
    text: str


class Drive:
    """One command of one runtime, tried again and again in a place of its own. ``name``: its row of the table."""

    name = ""
    minictr = True
    asserted = True  # a fault of it fails the test; else it is told
    to_the_end = False  # not the command alone is followed, but all it started
    within: tuple[str, ...] = ()  # where its starts are made: see Starter
    runs = True  # whether the program runs where nothing is wrong

    def __init__(self, lab: Lab) -> None:
        self.lab, self.starter = lab, Starter(self.within)
        self.renew()

    # --- where ---

    def renew(self) -> None:
        """A new place: at first, and after a try that left something in the old one."""
        self.place = Place(self.lab.directory)
        self.out = self.place.directory / "out"
        self.out.mkdir()
        self.wanted: State | None = None
        self.begin()
        told = self.attempt(None, traced=False)
        assert told.code == self.expected, f"{self.name} does not go undisturbed: {told}"
        self.wanted = self.look(5) if self.runs else None
        assert self.wanted is not None or not self.runs, f"{self.name}: the program did not run: {told}"
        problem = self.settle(told, None)
        assert not problem.text, f"{self.name}: {problem.text}"

    def close(self) -> None:
        self.starter.close()
        self.place.close()

    # --- what ---

    expected = RAN  # exit code of the command where nothing is wrong

    @property
    def words(self) -> list[str]:
        raise NotImplementedError

    @property
    def state(self) -> Path:
        """Where the program says what it is."""
        return self.out / "state"

    def begin(self) -> None:
        """What has to be there before the command."""

    @property
    def begins(self) -> str:
        """The program whose first call is the first that counts; "" where a mark says so (starter.py)."""
        return ""

    @property
    def payloads(self) -> list[str]:
        """Programs whose calls are not its own."""
        return [str(self.lab.program), os.path.realpath(sys.executable)]

    def tries(self, call: Call) -> bool:
        """Whether CALL is one of those that are hit."""
        return True

    def settle(self, told: Told, point: Point | None) -> Outcome:
        """The judgement of one try; after it nothing is left, or the kinds say so."""
        raise NotImplementedError

    # --- how ---

    def command(self, *words: str | Path) -> Told:
        """An undisturbed ``minictr WORDS``."""
        return self._ask(["minictr", *map(str, words)], traced=False)

    def attempt(self, point: Point | None, *, traced: bool = True) -> Told:
        call = list(point.call._replace(about="")) if point else None
        extra = {"call": call, "error": point.error, "late": point.late} if point else {}
        return self._ask(self.words, traced=traced, **extra)

    def _ask(self, words: list[str], **extra: Any) -> Told:
        return self.starter.ask(
            words=words,
            minictr=self.minictr,
            environment=self.place.environment,
            limit=self.place.limit,
            payloads=self.payloads,
            seconds=DEADLINE,
            to_the_end=self.to_the_end,
            begins=self.begins,
            **extra,
        )

    def enumerate(self) -> list[Call]:
        """Every call of an undisturbed command."""
        self.begin()
        told = self.attempt(None)
        assert told.made, told
        problem = self.settle(told, None)
        assert not problem.text, problem.text
        return [Call(*row) for row in told.made]

    def one(self, point: Point) -> Outcome:
        """The command once, with POINT hit."""
        self.begin()
        told = self.attempt(point)
        outcome = self.settle(told, point)
        if told.hit is None:
            outcome = Outcome(outcome.kinds | {MISSED}, outcome.text)
        if outcome.kinds & {LEAKED, HUNG, OPEN}:
            self.place.close()
            self.renew()
        if outcome.text:
            return outcome._replace(text=f"{point} [{Call(*told.hit).about if told.hit else 'missed'}]: {outcome.text}")
        return outcome

    def look(self, patience: float = 0.0) -> State | None:
        """What the program said, waited for as long as PATIENCE."""
        deadline = time.monotonic() + patience
        while (found := state_of(self.state)) is None and time.monotonic() < deadline:
            time.sleep(0.002)
        return found

    def ran(self, patience: float = 0.0) -> State | None:
        """What the program said; its file is removed."""
        found = self.look(patience)
        self.state.unlink(missing_ok=True)
        return found

    # --- the judgement that all have in common ---

    def kinds(self, told: Told, point: Point | None, found: State | None, left: list[str]) -> Outcome:
        """FOUND: what the program said, None if it did not run; LEFT: what is still there."""
        kinds, texts = set(), []
        if told.hung:
            kinds.add(HUNG)
            texts.append("hangs")
        if found is not None and not self.runs:
            kinds.add(OPEN)
            texts.append("a program ran")
        if found is not None and self.wanted is not None and (differs := difference(found, self.wanted)):
            kinds.add(OPEN)
            texts.append(f"not as intended: {differs}")
        if (told.code == 0 and self.expected) or (told.code == self.expected and found is None and self.runs):
            kinds.add(OPEN)
            texts.append(f"exit code {told.code}, and the program has not run")
        if left:
            kinds.add(LEAKED)
            texts.append(f"left {left[:3]}")
        if not kinds:
            kinds.add(TOLERATED if told.code == self.expected else FAILED)
            if told.code != self.expected and (unclear := self.unclear(told, point)):
                texts.append(unclear)
        text = "; ".join(texts)
        return Outcome(frozenset(kinds), f"{text} (exit code {told.code}: {told.err.strip()[-300:]})" if text else "")

    def unclear(self, told: Told, point: Point | None) -> str:
        """What its error message does not say; "" for a good one."""
        if point is None:
            return "it failed undisturbed"
        if not point.error and point.call.process == 0:
            return "" if told.code == -9 else f"killed, and its code is {told.code}"
        if not point.error and told.code == 128 + 9:
            return ""  # it ran, and was killed
        if told.code not in (125, 126, 127) and point.error:
            return "not a code of a failure"
        lines = told.err.strip().splitlines()
        if len(lines) != 1:
            return "an error is one line" if lines else "no message"
        if not point.error:
            return ""
        above = os.path.dirname(point.call.about)
        if point.error == "ENOENT" and above and f"{above}: {os.strerror(errno.ENOTEMPTY)}" in lines[0]:
            return ""  # believed: what it hid is found where the directory above it is to go
        words = point.error, os.strerror(getattr(errno, point.error))
        if not any(word.lower() in lines[0].lower() for word in words):
            return f"{point.error} is not named"
        return "neither step nor path" if "[Errno" in lines[0] else ""
