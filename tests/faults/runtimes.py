"""What is tried, behind one face: a :class:`Drive` says which command is hit, and judges how it went.

The program of every start writes what the kernel says of it to a file and leaves with 7 (state.c). So that it has run is
seen by that file, and an exit code of 0 is always a lie. With what the file says an undisturbed start is compared.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from onecall import Call, Point
from remains import Place

__all__ = ["DRIVES", "Drive", "Lab", "Outcome", "Starter", "make_lab"]

HERE = Path(__file__).resolve().parent
RAN = 7  # the program's own exit code
DEADLINE = 8.0  # seconds for a command, of which none needs half a second
KEPT = frozenset(
    "Umask Uid Gid Groups SigBlk SigIgn SigCgt CapInh CapPrm CapEff CapBnd CapAmb NoNewPrivs Seccomp Seccomp_filters".split()
)
TOLERATED, FAILED, LEAKED, HUNG, OPEN = "tolerated", "failed", "leaked", "hung", "fail_open"


class Lab(NamedTuple):
    """Where the program lies: a root file system with nothing else in it."""

    directory: Path
    rootfs: Path

    @property
    def program(self) -> Path:
        return self.rootfs / "state"


def make_lab(directory: Path, gcc: str) -> Lab:
    """A root file system in DIRECTORY, whose program is state.c."""
    rootfs = directory / "rootfs"
    for name in ("proc", "sys", "dev", "etc", "out", "tmp", "run"):
        (rootfs / name).mkdir(parents=True)
    (rootfs / "etc" / "passwd").write_text("root:x:0:0::/:/state\n")
    (rootfs / "etc" / "group").write_text("root:x:0:\n")
    flags = ["-O1", "-Wall", "-Wextra", "-Werror", "-static"]
    subprocess.run([gcc, *flags, "-o", str(rootfs / "state"), str(HERE / "state.c")], check=True)
    return Lab(directory, rootfs)


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
    """starter.py as a process: see there."""

    def __init__(self) -> None:
        command = [sys.executable, "-P", str(HERE / "starter.py")]
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


def state_of(path: Path) -> dict[str, list[str]] | None:
    """What the program wrote, section by section, without what differs from start to start; None: it did not run."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        return None
    sections: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("== "):
            rows = sections.setdefault(line[3:], [])
        else:
            rows.append(line)
    rows = sections["/proc/self/status"]
    sections["/proc/self/status"] = [row for row in rows if row.partition(":")[0] in KEPT]
    sections["/proc/self/limits"] = [row for row in sections["/proc/self/limits"] if "msgqueue" not in row]
    # without the numbers of mounts and devices, and of propagation groups
    mounts = [row.split() for row in sections["/proc/self/mountinfo"]]
    sections["/proc/self/mountinfo"] = [
        " ".join([*row[3:6], *(word.partition(":")[0] for word in row[6:])]) for row in mounts
    ]
    sections["/proc/self/net/dev"] = [row.partition(":")[0] for row in sections["/proc/self/net/dev"]]
    return sections


def difference(found: dict[str, list[str]], wanted: dict[str, list[str]]) -> str:
    """What is not as wanted; "" when all is."""
    lines = []
    for name in sorted({*found, *wanted}):
        there, meant = found.get(name, []), wanted.get(name, [])
        lines += [f"{name}: {row!r} is new" for row in there if row not in meant]
        lines += [f"{name}: {row!r} is missing" for row in meant if row not in there]
        if not lines and there != meant:
            lines.append(f"{name}: another order")
    return "; ".join(lines[:4])


class Drive:
    """One command of one runtime, tried again and again in a place of its own. ``name``: its row of the table."""

    name = ""
    minictr = True
    asserted = True  # a fault of it fails the test; else it is told
    to_the_end = False  # not the command alone is followed, but all it started

    def __init__(self, lab: Lab) -> None:
        self.lab, self.starter = lab, Starter()
        self.renew()

    # --- where ---

    def renew(self) -> None:
        """A new place: at first, and after a try that left something in the old one."""
        self.place = Place(self.lab.directory)
        self.out = self.place.directory / "out"
        self.out.mkdir()
        self.wanted: dict[str, list[str]] | None = None
        self.begin()
        told = self.attempt(None, traced=False)
        assert told.code == self.expected, f"{self.name} does not go undisturbed: {told}"
        self.wanted = self.look(5)
        assert self.wanted is not None, f"{self.name}: the program did not run: {told}"
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
            payloads=[str(self.lab.program), os.path.realpath(sys.executable)],
            seconds=DEADLINE,
            to_the_end=self.to_the_end,
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
            outcome = Outcome(outcome.kinds | {"missed"}, outcome.text)
        if outcome.kinds & {LEAKED, HUNG, OPEN}:
            self.place.close()
            self.renew()
        if outcome.text:
            return outcome._replace(text=f"{point} [{Call(*told.hit).about if told.hit else 'missed'}]: {outcome.text}")
        return outcome

    def look(self, patience: float = 0.0) -> dict[str, list[str]] | None:
        """What the program said, waited for as long as PATIENCE."""
        deadline = time.monotonic() + patience
        while (found := state_of(self.state)) is None and time.monotonic() < deadline:
            time.sleep(0.002)
        return found

    def ran(self, patience: float = 0.0) -> dict[str, list[str]] | None:
        """What the program said; its file is removed."""
        found = self.look(patience)
        self.state.unlink(missing_ok=True)
        return found

    # --- the judgement that all have in common ---

    def kinds(self, told: Told, point: Point | None, found: dict[str, list[str]] | None, left: list[str]) -> Outcome:
        """FOUND: what the program said, None if it did not run; LEFT: what is still there."""
        kinds, texts = set(), []
        if told.hung:
            kinds.add(HUNG)
            texts.append("hangs")
        if found is not None and self.wanted is not None and (differs := difference(found, self.wanted)):
            kinds.add(OPEN)
            texts.append(f"not as intended: {differs}")
        if (told.code == 0 and self.expected) or (told.code == self.expected and found is None):
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
        if told.code not in (125, 126, 127) and point.error:
            return "not a code of a failure"
        lines = told.err.strip().splitlines()
        if len(lines) != 1:
            return "an error is one line" if lines else "no message"
        if not point.error:
            return ""
        words = point.error, os.strerror(getattr(errno, point.error))
        if not any(word in lines[0] for word in words):
            return f"{point.error} is not named"
        return "neither step nor path" if "[Errno" in lines[0] else ""


NAME = "try"


class Run(Drive):
    name = "minictr run"

    @property
    def options(self) -> list[str]:
        limits = ["-m", "64m", "--cpus", "1", "--pids-limit", "50", "--hostname", "lab", "--name", NAME]
        where = [*self.place.options, "--rootfs", str(self.lab.rootfs), "-v", f"{self.out}:/out"]
        return [*where, *limits]

    @property
    def words(self) -> list[str]:
        return ["minictr", "run", *self.options, "--", "/state"]

    def settle(self, told: Told, point: Point | None) -> Outcome:
        if point is not None and not point.error:
            self.command("gc")
        left = self.place.left()
        return self.kinds(told, point, self.ran(), left)


class Detached(Run):
    name = "minictr run -d"
    expected = 0

    @property
    def words(self) -> list[str]:
        return ["minictr", "run", "-d", *self.options, "--", "/state", "/out/state", "stay"]

    def settle(self, told: Told, point: Point | None) -> Outcome:
        found = self.ran(3 if told.code == 0 else 0)
        killed = point is not None and not point.error
        if told.code == 0 or (killed and self.place.id_of(NAME)):
            if killed:
                self.command("gc")
            if self.place.id_of(NAME):
                found = found or self.ran(1)
                removed = self.command("rm", "-f", NAME)
                if removed.code:
                    return self.kinds(told, point, found, [f"rm -f: {removed.code}: {removed.err}"])
        return self.kinds(told, point, found, self.place.left())


class Remove(Run):
    """``rm -f`` of a container that runs."""

    name = "minictr rm -f"
    expected = 0

    @property
    def words(self) -> list[str]:
        return ["minictr", "rm", "-f", NAME]

    def begin(self) -> None:
        told = self.command("run", "-d", *self.options, "--", "/state", "/out/state", "stay")
        assert told.code == 0, told
        self.found = self.ran(5)

    def look(self, patience: float = 0.0) -> dict[str, list[str]] | None:
        """Nothing else runs here than the container that was there before."""
        return super().look(patience) or self.found

    def renew(self) -> None:
        self.found = None
        super().renew()

    def settle(self, told: Told, point: Point | None) -> Outcome:
        if told.code != 0:
            again = self.command("rm", "-f", NAME)
            self.command("gc")
            if again.code:
                return self.kinds(told, point, self.found, [f"rm -f again: {again.code}: {again.err}"])
        return self.kinds(told, point, self.found, self.place.left())


class Exec(Run):
    """``exec`` in a container that runs, and has to go on."""

    name = "minictr exec"

    @property
    def words(self) -> list[str]:
        return ["minictr", "exec", NAME, "/state", "/out/exec"]

    @property
    def state(self) -> Path:
        return self.out / "exec"

    def renew(self) -> None:
        self.container = ""
        super().renew()

    def begin(self) -> None:
        if self.container:
            return
        told = self.command("run", "-d", *self.options, "--", "/state", "/out/state", "stay")
        assert told.code == 0, told
        deadline = time.monotonic() + 5
        while not (self.out / "state").exists() and time.monotonic() < deadline:
            time.sleep(0.002)
        self.container = told.out.strip()
        self.group = next(path for top in self.place.groups for path in Path(top).glob("minictr-*"))
        self.inside = self.members()

    def members(self) -> set[str]:
        return set((self.group / "cgroup.procs").read_text().split())

    def settle(self, told: Told, point: Point | None) -> Outcome:
        deadline = time.monotonic() + 3
        while (now := self.members()) != self.inside and time.monotonic() < deadline:
            time.sleep(0.005)
        left = self.place.left(besides=[NAME])
        left += [f"process {pid} in the container" for pid in now - self.inside]
        left += [f"process {pid} of the container is gone" for pid in self.inside - now]
        return self.kinds(told, point, self.ran(), left)

    def close(self) -> None:
        self.command("rm", "-f", NAME)
        super().close()


DRIVES: dict[str, type[Drive]] = {drive.name: drive for drive in (Run, Detached, Remove, Exec)}
