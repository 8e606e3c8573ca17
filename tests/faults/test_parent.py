"""One system call of the caller's own side fails, each of them once; and of the child's before the barrier."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from tracing import Case, attach, calls, cases, finish, injection
from waiting import eventually

import minictr as mc
from minictr.runtime.store import Store
from minictr.runtime.sweep import sweep

# getppid() marks where the start begins and ends: nobody else asks for it
WORKER = """
import json, os, sys, time
import minictr as mc
import minictr.runtime.diagnose
box = mc.Container(sys.argv[1]).with_(mc.OomScoreAdj(0))
box.run(["true"])
try: box.run(["nosuch"])
except mc.CommandNotFound: pass
def look():
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return sorted(os.listdir("/proc/self/fd")), file.read()
look()
for line in sys.stdin:
    before, begin = look(), time.monotonic()
    os.getppid()
    try:
        with box.popen(["cat", "/proc/self/status"], stdout=mc.PIPE, start_timeout=5) as process:
            os.getppid()
            out = process.communicate(timeout=5)[0].decode()
            told = ["", str(process.returncode), out]
    except BaseException as error:
        told = [type(error).__name__, str(error), ""]
    told += [time.monotonic() - begin, before == look()]
    print(json.dumps(told), flush=True)
"""
SETS = ("CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb", "NoNewPrivs")
# Python's own: an allocator's and a lock's failures are not ours to handle; and a close that did not happen leaves
# its descriptor, whoever looks at the result (on pipes and memory files it cannot fail)
SKIP = frozenset("mmap munmap brk madvise mremap getpid getppid rt_sigprocmask rt_sigreturn close".split())


class Worker:
    """An interpreter that makes a start whenever it is told, and tells how it went."""

    def __init__(self, root: str) -> None:
        environment = {**os.environ, "PYTHONPATH": str(Path(mc.__file__).parent.parent)}
        command = [sys.executable, "-P", "-c", WORKER, root]
        self.process = subprocess.Popen(command, env=environment, text=True, stdin=-1, stdout=-1, stderr=-3)
        self.start()  # it is ready, and has everything imported

    def start(self) -> list | None:
        """One start: [exception, message or code, output, seconds, nothing left]; None if it died of it."""
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        return json.loads(line) if line else None

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def worker(box):
    made: list[Worker] = []

    def get() -> Worker:
        if made and made[-1].process.poll() is None:
            return made[-1]
        made.append(Worker(str(box.rootfs)))
        return made[-1]

    yield get
    for one in made:
        one.close()
    sweep(Store())  # what a failing call kept one from removing is the next sweep's


def between(names: list[str]) -> tuple[list[str], Counter[str]]:
    """The calls between the two marks, and how often each was made before the first."""
    first = names.index("getppid")
    last = names.index("getppid", first + 1)
    return names[first:last], Counter(names[:first])


@pytest.mark.timeout(120)
def test_every_call_of_the_caller_fails_once(worker, tmp_path):
    tracer = attach(worker().process.pid, "-f", "-o", str(tmp_path / "log"))
    assert worker().start()[:2] == ["", "0"]
    tracer.terminate()
    finish(tracer)
    inside, earlier = between(calls(tmp_path / "log")[worker().process.pid])
    found = [case for case in cases([inside], frozenset(), 1) if case[0] not in SKIP]
    assert len(found) > 20
    wrong = []
    for call, number, error in found:
        case = call, number + earlier[call], error
        wrong += filter(None, [at_its_place(worker, case, tmp_path / "hit")])
    assert not wrong, f"{len(wrong)} of {len(found)}:\n" + "\n".join(wrong)


def at_its_place(worker: Callable[[], Worker], case: Case, log: Path) -> str:
    """What went wrong when CASE failed between the marks. The call that the worker is in when the tracer comes is
    counted or not, as it happens; so where the failure really was is read from the tracer's log, and it is tried
    again, one earlier or later, until it was there."""
    call, number, error = case
    for shift in (0, 0, -1, 1, 0):
        wrong = one(worker(), (call, number + shift, error), "-o", str(log), "-e", f"trace={call},getppid")
        names = log.read_text().splitlines()
        hit = next((at for at, line in enumerate(names) if "(INJECTED)" in line), len(names))
        if sum("getppid(" in line for line in names[:hit]) == 1:
            return wrong
    return f"{case}: never between the marks"


def one(worker: Worker, case: Case, *options: str) -> str:
    name = "{}:{}:{}".format(*case)
    tracer = attach(worker.process.pid, *injection(case), *options)
    told = worker.start()
    tracer.terminate()
    finish(tracer)
    if told is None:
        worker.close()
        return f"{name}: the caller died"
    kind, text, out, seconds, clean = told
    rows = dict(line.partition(":")[::2] for line in out.splitlines())
    if seconds > 4.5:
        return f"{name}: hangs: {told}"
    if kind and kind not in ("StepFailed", "StateError", "SpecError", "CommandNotFound", "CommandNotExecutable"):
        return f"{name}: {kind}: {text}"
    if not kind and (rows["CapEff"].strip(), rows["NoNewPrivs"].strip()) != ("00000000000405fb", "1"):
        return f"{name}: starts with {[rows[row] for row in SETS]}"
    again = worker.start()
    if not clean or again is None or again[0] or not again[4]:
        again = again and [*again[:2], *again[3:]]
        return f"{name}: {kind} {text}: clean {clean}; the next start: {again}"
    return ""


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "case",
    [
        *[("fcntl", n, "EPERM") for n in (1, 2, 3)],
        ("clone3", 1, "EAGAIN"), ("clone3", 1, "EPERM"), ("clone3", 1, "ENOSPC"), ("clone3", 1, "ENOSYS"),
        ("execveat", 1, "EACCES"), ("execveat", 1, "ENOMEM"), ("memfd_create", 1, "EMFILE"), ("pipe2", 1, "EMFILE"),
        *[("prctl", n, "EPERM") for n in (1, 2, 3)], *[("close_range", n, "EINVAL") for n in (1, 2, 3)],
        *[("mmap", n, "ENOMEM") for n in (1, 2)],
    ],
)  # fmt: skip
def test_calls_before_the_barrier(worker, case):
    """In all threads, the child's first steps among them."""
    wrong = one(worker(), case, "-f")
    assert not wrong or "MemoryError" in wrong or (case[0] == "mmap" and "died" in wrong), wrong


@pytest.mark.timeout(120)
def test_kill_9_at_any_moment(box):
    """A caller that starts containers one after another is killed: nothing of them is left, 40 times."""
    program = (
        "import minictr as mc, sys, itertools\n"
        "box = mc.Container(sys.argv[1]).with_(mc.Pdeathsig(), *eval(sys.argv[2])).without(*eval(sys.argv[3]))\n"
        "print('ready', flush=True)\n"
        "for i in itertools.count(): box.run(['sleep', '0.00' + str(i % 9)])\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(mc.__file__).parent.parent)}
    shapes = [("()", "()"), ("(mc.Overlay(),)", "('init',)"), ("(mc.OomScoreAdj(0),)", "('pid',)"), ("()", "('net',)")]
    inode = os.stat(box.rootfs).st_ino
    for turn in range(40):
        command = [sys.executable, "-P", "-c", program, str(box.rootfs), *shapes[turn % len(shapes)]]
        with subprocess.Popen(command, env=environment, stdin=-3, stdout=-1) as caller:
            caller.stdout.readline()
            time.sleep(turn * 0.0031 % 0.03)
            caller.kill()
        eventually(lambda: not inside(inode), 5)
    sweep(Store())  # each caller's first start has swept after the one before; nobody came after the last


def inside(inode: int) -> list[str]:
    """Living processes whose root is the lab's, and start programs that nobody waits for."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat") as file:
                state = file.read().rpartition(")")[2].split()[0]
            ours = os.stat(f"/proc/{pid}/root/").st_ino == inode
            if state not in "ZX" and ours:
                found.append(pid)
        except OSError:
            pass
    return found
