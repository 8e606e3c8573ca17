"""SIGKILL of the monitor, of init, of both, and of the monitor with the starter, in each state of a container.

What is true then is asked of the kernel, and compared with what ``ps``, ``inspect``, ``wait``, ``stop`` and ``rm`` say.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import hostview
import pytest
import table
from remains import Place, cli
from waiting import eventually

DEADLINE = 15.0
STATES = ("created", "running", "paused", "stopping")
VICTIMS = ("monitor", "init", "both")
ENDINGS = ("rm", "stop", "gc")
STUBBORN = "trap '' TERM; echo it ran; while :; do sleep 0.05; done"
CASES = [*itertools.product(STATES, VICTIMS, ENDINGS)]
SAMPLE = [
    ("created", "monitor", "rm"),
    ("running", "monitor", "stop"),
    ("paused", "both", "gc"),
    ("stopping", "init", "rm"),
]


@pytest.fixture
def place(tmp_path: Path, lab: Path) -> Iterator[Place]:
    with Place(tmp_path, lab) as place:
        yield place


class Container:
    """One of whom somebody dies; ``pid`` and ``monitor`` as the kernel has them."""

    def __init__(self, place: Place, state: str) -> None:
        self.place, self.state = place, state
        self.stopping: subprocess.Popen[str] | None = None
        words = ["--name", "c", "--rootfs", str(place.rootfs), *place.options, "--", "sh", "-c", STUBBORN]
        self.must(*(["create"] if state == "created" else ["run", "-d"]), *words)
        self.facts = self.inspect()
        self.pid, self.monitor = self.facts["State"]["Pid"], self.facts["Monitor"]["Pid"]
        assert {self.pid, self.monitor} <= {*place.processes()}
        if state == "paused":
            self.must("pause", "c")
        if state == "stopping":
            command = [*cli(), "stop", "-t", "1", "c"]
            self.stopping = place.popen(command, stdout=-1, stderr=-1, text=True)
            eventually(lambda: "stopped" in os.listdir(self.directory), 5, "stop never began")

    @property
    def directory(self) -> Path:
        return self.place.root / "containers" / self.facts["Id"]

    def say(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.place.run(*words, timeout=DEADLINE)

    def must(self, *words: str) -> str:
        done = self.say(*words)
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout

    def inspect(self) -> dict:
        return dict(json.loads(self.must("inspect", "c"))[0])

    def status(self) -> str:
        """As ``ps -a`` has it; ``inspect`` must say the same."""
        rows = {row["Names"]: row["State"] for row in json.loads(self.must("ps", "-a", "--format", "json"))}
        facts = self.inspect()
        assert facts["State"]["Status"] == rows["c"]
        assert facts["Monitor"]["Pid"] == (self.monitor if runs(self.monitor) else 0)
        assert facts["State"]["Pid"] == (self.pid if runs(self.pid) else 0)
        return rows["c"]

    def kill(self, victim: str) -> None:
        for pid in {"monitor": [self.monitor], "init": [self.pid], "both": [self.monitor, self.pid]}[victim]:
            os.kill(pid, signal.SIGKILL)
        if victim != "init":
            eventually(lambda: not runs(self.monitor), 5, "the monitor does not die")


def runs(pid: int) -> bool:
    fields = hostview.read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return bool(fields) and fields[0] not in "ZX"


def told_well(container: Container, victim: str) -> None:
    """All that is said right after a death."""
    lives = victim == "monitor" and container.state != "created"  # what waits for its start goes with its monitor
    frozen = container.state == "paused"
    if not lives and not frozen:
        eventually(lambda: not runs(container.pid), 5, "init does not die")
    if container.stopping is not None:
        _, complaint = container.stopping.communicate(timeout=DEADLINE)
        assert container.stopping.returncode == 0, complaint
        lives = False
    if frozen and victim == "init":
        # v2 lets a frozen process be killed; v1's freezer keeps it until it is thawed
        if runs(container.pid):
            assert container.status() == "paused"
            container.must("unpause", "c")
        eventually(lambda: not runs(container.pid), 5, "init does not die")
    elif frozen and runs(container.pid):
        assert container.status() == "paused"
        container.must("unpause", "c")
        if victim == "both":
            eventually(lambda: not runs(container.pid), 5, "init does not die")
    if lives:
        assert container.status() == "running"
        assert container.must("exec", "c", "echo", "here") == "here\n"
        return
    eventually(lambda: container.status() in ("exited", "dead"), 5, "its end is never told")
    known = victim == "init" or (container.state == "stopping" and victim == "monitor" and runs(container.monitor))
    eventually(lambda: not known or container.status() == "exited", 5, "the monitor does not write down the end")
    assert container.status() == ("exited" if known else "dead")
    waited = container.say("wait", "c")
    if known:
        assert (waited.returncode, waited.stdout) == (0, "137\n"), waited
    else:
        assert waited.returncode == 125, waited
        assert waited.stderr == "minictr wait: container c is over, and nobody wrote down how\n"


def end(container: Container, ending: str) -> None:
    """The container is done away with; for ``gc`` it has to be over first."""
    if ending == "stop":
        container.must("stop", "-t", "0", "c")
        assert container.status() in ("exited", "dead")
        container.must("rm", "c")
    elif ending == "rm":
        container.must("rm", "-f", "c")
    else:
        if runs(container.pid):
            container.must("gc")
            assert container.status() == "running"  # no sweep touches what lives
            container.must("kill", "c")
            eventually(lambda: not runs(container.pid), 5, "kill does not end it")
        container.must("gc")
        left = [line for line in container.place.left(patience=0.5) if not line.startswith("state: ")]
        assert left == []  # all it had on the host is gone; what is written of it waits for rm
        container.must("rm", "c")


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    "cases", [pytest.param(CASES, marks=pytest.mark.faults, id="whole"), pytest.param(SAMPLE, id="sample")]
)
def test_somebody_dies(place: Place, cases: list[tuple[str, str, str]]) -> None:
    wrong, leaked, hung = [], 0, 0
    for case in cases:
        try:
            container = Container(place, case[0])
            container.kill(case[1])
            told_well(container, case[1])
            end(container, case[2])
        except (AssertionError, subprocess.TimeoutExpired) as error:
            hung += isinstance(error, subprocess.TimeoutExpired)
            wrong.append(f"{case}: {error}")
            place.run("rm", "-f", "-a")
        if left := place.left():
            leaked += 1
            wrong.append(f"{case}: {left}")
    table.add(table.Row("death of monitor, init", len(cases), 0, len(cases), leaked, hung, 0))
    assert not wrong, "\n".join(wrong)


# --- starter and monitor, between the start of the program and the hand-over ---

# The state is written when the program runs (or holds) and nothing is committed yet: there the starter is stopped, by
# strace, at the end of the rename.
RENAMES = "-e", "trace=rename,renameat,renameat2"


def until_over(place: Place) -> None:
    for words in (["kill", "c"], ["wait", "c"]):
        assert place.run(*words).returncode == 0
    eventually(lambda: not place.processes(), 5, "the cleanup does not end")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("verb", ["run -d", "create", "start"])
def test_starter_and_monitor_die_before_the_hand_over(place: Place, verb: str, requires, tmp_path: Path) -> None:
    """Nobody answers for the container but the journal: the next sweep ends it, though its program runs."""
    strace = requires("strace")
    spec = ["--name", "c", "--rootfs", str(place.rootfs), *place.options, "--", "sh", "-c", STUBBORN]
    log, words = tmp_path / "strace", ["start", "c"] if verb == "start" else [*verb.split(), *spec]
    if verb == "start":
        assert place.run("run", "-d", *spec).returncode == 0
        until_over(place)
    # which of its renames that is
    assert place.popen([strace, "-qq", "-o", log, *RENAMES, *cli(), *words], stdout=-3).wait(DEADLINE) == 0
    number = 1 + ['"state.json")' in line for line in log.read_text().splitlines()].index(True)
    until_over(place) if verb == "start" else place.run("rm", "-f", "c")
    log.write_text("")
    options = (*RENAMES, "-e", f"inject=rename,renameat,renameat2:signal=SIGSTOP:when={number}")
    tracer = place.popen([strace, "-qq", "-o", log, *options, *cli(), *words], stdout=-3, stderr=-3)
    try:
        eventually(lambda: "stopped by SIGSTOP" in log.read_text(), 5, "it never comes to the rename")
        (starter,) = hostview.read(f"/proc/{tracer.pid}/task/{tracer.pid}/children").split()
        (monitor,) = [pid for pid in place.processes() if "minictr-mon" in hostview.link(f"/proc/{pid}/exe")]
        programs = [
            pid for pid in place.processes() if STUBBORN in hostview.read(f"/proc/{pid}/cmdline").split("\0")[2:3]
        ]
        assert bool(programs) == (verb != "create")  # it runs, and nobody has committed it yet
        os.kill(monitor, signal.SIGKILL)
        os.kill(int(starter), signal.SIGKILL)
        tracer.wait(DEADLINE)
    finally:
        tracer.kill()
        tracer.wait()
    container = json.loads((place.root / "containers" / place.id_of("c") / "state.json").read_text())
    if verb == "create":
        eventually(lambda: not runs(container["process"][0]), 5, "what was held goes on without anybody")
    else:
        assert runs(container["process"][0])
    told = place.run("gc").stdout
    if verb == "start":  # it was a container before, and is one still: over
        assert place.run("inspect", "-f", "{{.State.Status}}", "c").stdout == "dead\n"
        assert place.run("rm", "c").returncode == 0
    else:
        assert "its start was never finished" in told
    left = place.left()
    table.add(table.Row(f"starter and monitor killed, {verb}", 1, 0, 1, int(bool(left)), 0, 0))
    assert left == []
