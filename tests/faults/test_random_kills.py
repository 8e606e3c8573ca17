"""SIGKILL at random moments of ``run``, ``run -d``, ``exec`` and ``rm``: the next start, or ``gc``, leaves nothing.

The moments are spread over the whole duration of a verb, which is measured first; every second kill hits the whole
process group, as a terminal's or a supervisor's does. Two containers of the same state root go on untouched meanwhile:
one of them is the one that ``exec`` enters.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import table
from other_runtimes import RUNTIMES, Other
from remains import Place, cli, subgroups

SEED = int(os.environ.get("MINICTR_FAULTS_SEED", "0")) or random.SystemRandom().randrange(1 << 32)
DEADLINE = 20.0  # seconds for any one command of this file
BYSTANDERS = ("lives", "target")
PROGRAM = "echo it ran; sleep 0.01"
LASTS = "echo it ran; exec sleep 600"
MEASURED = 5, 2  # times each verb is run undisturbed, by the whole and by the sample


class Verb:
    """One verb under kills: what is done before (``ready``), the words, and whether what it told is true."""

    name = ""
    words: list[str]

    def __init__(self, place: Place) -> None:
        self.place = place
        self.made = 0

    def ready(self) -> None:
        self.made += 1

    @property
    def container(self) -> str:
        return f"{self.name.replace(' ', '')}{self.made}"

    def start(self, *options: str) -> list[str]:
        words = ["--rootfs", str(self.place.rootfs), "--name", self.container, *self.place.options]
        return ["run", *options, *words, "--", "sh", "-c", LASTS if "-d" in options else PROGRAM]

    def wrong(self, code: int, out: str) -> str:
        """How it lied: exit 0, or an id told, without the program having run. "" when it did not."""
        return "" if code or "it ran" in out else f"exit 0, and it did not run: {out!r}"

    def clear(self) -> str:
        """What is to be done away with after a kill that came too late; what is wrong about it."""
        return ""


class Run(Verb):
    name = "run"

    def ready(self) -> None:
        super().ready()
        self.words = self.start()


class RunDetached(Verb):
    name = "run -d"

    def ready(self) -> None:
        super().ready()
        self.words = self.start("-d")

    def wrong(self, code: int, out: str) -> str:
        if code and not out.endswith("\n"):
            return ""  # it was killed before it told anything
        deadline = time.monotonic() + 2
        while "it ran" not in self.place.run("logs", self.container).stdout:
            if time.monotonic() > deadline:
                return f"it told {out!r}, and nothing runs"
        return ""

    def clear(self) -> str:
        """Either it is not there at all, or it is a container like any other, that can be seen and removed."""
        listed = listed_in(self.place)
        if self.container not in listed:
            return ""
        status = listed[self.container]
        removed = self.place.run("rm", "-f", self.container, timeout=DEADLINE)
        wrong = "" if status == "running" else f"ps says {status}; "
        return wrong + (f"rm -f: {removed.stderr}" if removed.returncode else "")


class Exec(Verb):
    name = "exec"

    def ready(self) -> None:
        super().ready()
        self.words = ["exec", "target", "sh", "-c", PROGRAM]

    def clear(self) -> str:
        """What ran in there may go on, as the container's; it ends by itself."""
        deadline = time.monotonic() + 5
        while (inside := processes_in(self.place, "target")) > 2:
            if time.monotonic() > deadline:
                return f"{inside} processes in the container"
            time.sleep(0.005)
        return ""


class Start(RunDetached):
    """The second half of ``create``, and the second life of one that is over."""

    name = "start"

    def ready(self) -> None:
        Verb.ready(self)
        words = self.start("-d")
        must(self.place.run("create", *words[2:]))
        self.words = ["start", self.container]

    def wrong(self, code: int, out: str) -> str:
        return super().wrong(code, out) if code == 0 else ""

    def clear(self) -> str:
        """Killed, it has started or not; whoever says start once more has it running."""
        status = listed_in(self.place)[self.container]
        if status != "running":
            status = self.place.run("start", self.container, timeout=DEADLINE).stderr
        lied = self.wrong(0, "it ran" if status == self.container else status)
        return lied or super().clear()


class StartAgain(Start):
    name = "start again"

    def ready(self) -> None:
        super().ready()
        must(self.place.run("start", self.container))
        must(self.place.run("kill", self.container))
        must(self.place.run("wait", self.container))


class Remove(Verb):
    """One that is over."""

    name = "rm"
    KINDS = ("created", "running", "exited", "dead")
    WORDS: tuple[str, ...] = ()

    def ready(self) -> None:
        super().ready()
        self.make()
        self.words = ["rm", *self.WORDS, self.container]

    def make(self) -> None:
        must(self.place.run(*self.start("-d")[:-1], "true"))
        must(self.place.run("wait", self.container))

    def wrong(self, code: int, out: str) -> str:
        there = self.container in listed_in(self.place)
        return "exit 0, and it is still there" if code == 0 and there else ""

    def clear(self) -> str:
        """The other half of a removal is done by whoever says rm once more, if it is listed still."""
        status = listed_in(self.place).get(self.container, "")
        if not status:
            return ""
        removed = self.place.run("rm", "-f", self.container, timeout=DEADLINE)
        wrong = f"ps says {status}; " if status not in self.KINDS else ""
        return wrong + (f"rm -f: {removed.stderr}" if removed.returncode else "")


class RemoveForced(Remove):
    """One that runs."""

    name = "rm -f"
    WORDS = ("-f",)

    def make(self) -> None:
        must(self.place.run(*self.start("-d")))


# kills of each in the whole suite: 200 of what the table of other runtimes has too, and of what is our own
VERBS = {Run: 50, RunDetached: 50, Exec: 50, Remove: 20, RemoveForced: 30, Start: 20, StartAgain: 20}


def must(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, (done.args, done.stderr)
    return done.stdout.strip()


def listed_in(place: Place) -> dict[str, str]:
    """Name -> status, as ``ps -a`` has them."""
    rows = json.loads(must(place.run("ps", "-a", "--format", "json", timeout=DEADLINE)))
    return {row["Names"]: row["State"] for row in rows}


def processes_in(place: Place, name: str) -> int:
    """How many processes are in a container's cgroup: by the kernel's word, not by ours."""
    short = f"minictr-{place.id_of(name)[:12]}"
    group = next(path for top in place.groups for path in subgroups(top) if path.endswith(short))
    return len(Path(group, "cgroup.procs").read_text().split())


@pytest.fixture
def place(tmp_path: Path, lab: Path) -> Iterator[Place]:
    with Place(tmp_path, lab) as place:
        for name in BYSTANDERS:
            ticking = "while :; do echo tick; sleep 0.02; done" if name == "lives" else "exec sleep 600"
            words = ("-d", "--name", name, "--rootfs", place.rootfs, *place.options)
            must(place.run("run", *words, "--", "sh", "-c", ticking))
        yield place


class Bystander:
    """A container that nobody kills: the same process, alive, and at work, after all that happened beside it."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.before = self.look()
        self.written = self.size()

    def look(self) -> str:
        return must(
            self.place.run("inspect", "-f", "{{.Id}} {{.State.Status}} {{.State.Pid}} {{.Monitor.Pid}}", "lives")
        )

    def size(self) -> int:
        return (self.place.root / "containers" / self.before.split()[0] / "log").stat().st_size

    def judge(self) -> None:
        assert self.look() == self.before
        assert self.size() > self.written


class Tally:
    """What came of the kills of one verb."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.tried = self.tolerated = 0
        self.leaked: list[str] = []
        self.hung: list[str] = []
        self.opened: list[str] = []

    def row(self) -> table.Row:
        failed = self.tried - self.tolerated
        bad = len(self.leaked), len(self.hung), len(self.opened)
        return table.Row(f"kill -9, {self.name}", self.tried, self.tolerated, failed, *bad)


def one(verb: Verb, moment: float, group: bool, sweeper: Callable[[], None], tally: Tally) -> None:
    """VERB is killed at MOMENT seconds after its start, then swept and looked at."""
    verb.ready()
    what = f"{verb.name} {verb.made}, {1000 * moment:.1f} ms{', group' * group}"
    tally.tried += 1
    process = verb.place.popen(
        [*cli(), *verb.words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0
    )
    time.sleep(moment)
    (os.killpg if group else os.kill)(process.pid, signal.SIGKILL)  # not yet reaped, so nobody else's number
    try:
        out, complaint = process.communicate(timeout=DEADLINE)
    except subprocess.TimeoutExpired:
        tally.hung.append(f"{what}: somebody keeps its streams")
        out, complaint = "", ""
        process.stdout.close(), process.stderr.close()
    tally.tolerated += process.returncode == 0
    if process.returncode not in (0, -signal.SIGKILL):
        tally.opened.append(f"{what}: exit {process.returncode}: {complaint}")
    try:
        if wrong := verb.wrong(process.returncode, out):
            tally.opened.append(f"{what}: {wrong}")
        sweeper()
        if wrong := verb.clear():
            tally.leaked.append(f"{what}: {wrong}")
        if left := verb.place.left(besides=BYSTANDERS):
            tally.leaked.append(f"{what}: " + "; ".join(left))
            again = verb.place.run("gc").stdout
            left = verb.place.left(besides=BYSTANDERS)
            tally.leaked[-1] += f"; a second gc: {again!r}, then {left}"
            if left:
                verb.place.run("rm", "-f", *verb.place.ids() - {verb.place.id_of(name) for name in BYSTANDERS})
    except subprocess.TimeoutExpired as error:
        tally.hung.append(f"{what}: {error}")


def duration(verb: Verb, times: int) -> float:
    """The shortest that VERB takes undisturbed: the machine may be busy while it is measured, and then it is not."""
    taken = []
    for _ in range(times):
        verb.ready()
        begin = time.monotonic()
        told = must(verb.place.run(*verb.words))
        taken.append(time.monotonic() - begin)
        assert not verb.wrong(0, told + "\n")
        verb.clear()
    return min(taken)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", VERBS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("part", [pytest.param(1, marks=pytest.mark.faults, id="whole"), pytest.param(10, id="sample")])
def test_kill_at_a_random_moment(place: Place, kind: type[Verb], part: int) -> None:
    print(f"MINICTR_FAULTS_SEED={SEED}")
    choose = random.Random(f"{SEED} {kind.name}")
    verb, bystander, tally, kills = kind(place), Bystander(place), Tally(kind.name), VERBS[kind] // part
    whole = duration(verb, MEASURED[part > 1])
    start = ("run", "--rootfs", place.rootfs, *place.options, "--", "true")
    sweepers = [lambda: must(place.run("gc", timeout=DEADLINE)), lambda: must(place.run(*start, timeout=DEADLINE))]
    for turn in range(kills):
        # one in each part of the duration, wherever in it: all phases are hit
        moment = (turn + choose.random()) / kills * whole
        one(verb, moment, bool(turn % 2), sweepers[turn // 2 % 2], tally)
    table.add(tally.row())
    bystander.judge()
    assert tally.row().sound, "\n".join((f"seed {SEED}", *tally.leaked, *tally.hung, *tally.opened))
    assert tally.tolerated <= kills / 2, "most of them were over before they were killed"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", RUNTIMES)
@pytest.mark.parametrize(
    "kills", [pytest.param(40, marks=pytest.mark.faults, id="whole"), pytest.param(3, id="sample")]
)
def test_other_runtimes_killed_at_a_random_moment(tmp_path: Path, lab: Path, name: str, kills: int, requires) -> None:
    """Told, not judged: ``run`` is killed, and ``delete --force`` cleans up after it."""
    if not requires.has(name):
        pytest.skip(f"{name} is not installed")
    choose, tally = random.Random(f"{SEED} {name}"), Tally(f"{name} run")
    with Place(tmp_path, lab) as place:
        other, taken = Other(place, name), []
        for turn in range(MEASURED[kills < 10]):
            begin = time.monotonic()
            done = place.popen(other.run(f"c{turn}", "sh", "-c", PROGRAM), stdout=subprocess.PIPE)
            assert done.communicate(timeout=DEADLINE)[0] == b"it ran\n"
            taken.append(time.monotonic() - begin)
            assert other.left(patience=1) == []
        for turn in range(kills):
            identity, moment = f"k{turn}", (turn + choose.random()) / kills * min(taken)
            tally.tried += 1
            command = other.run(identity, "sh", "-c", PROGRAM)
            process = place.popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, process_group=0)
            time.sleep(moment)
            (os.killpg if turn % 2 else os.kill)(process.pid, signal.SIGKILL)
            tally.tolerated += process.wait(DEADLINE) == 0
            try:
                quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
                with place.popen(other.delete(identity), **quiet) as cleaning:
                    cleaning.wait(DEADLINE / 4)
            except subprocess.TimeoutExpired:
                tally.hung.append(identity)
            if left := other.left(patience=0.3):
                tally.leaked.append(f"{identity}: {len(left)} things, {left[0]}")
            other.clear()
    table.add(tally.row())
    print(*tally.leaked, sep="\n")
