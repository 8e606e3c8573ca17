"""One system call of the child fails, each of them once: a clean error that names the step, or all as intended.

strace attaches while the child waits at the barrier, so the counts begin there: what came before is in test_parent.py.
"""

from __future__ import annotations

import os
import select
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from tracing import Case, attach, calls, cases, children, finish, injection

import minictr as mc
from minictr.runtime import launch

DEADLINE = 5.0
SESSION = ""  # the directory of this test session: another may mount in its own meanwhile
STATE = "cat /proc/self/status; echo ---; cat /proc/self/mountinfo; echo ---; uname -n; umask; pwd"
KEPT = "Umask Uid Gid Groups SigBlk SigIgn CapInh CapPrm CapEff CapBnd CapAmb NoNewPrivs Seccomp".split()
# Where a failure that went unnoticed would be a hole, with each of the three errors.
GRAVE = frozenset(
    "capset setresuid setresgid setgroups seccomp no_new_privs close_range umount2 pivot_root fchdir chdir mount "
    "mount_setattr keyctl setsid prlimit64 statx getcwd umask personality chroot setns unshare".split()
)


@pytest.fixture
def traced(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[tuple[str, ...]]]:
    """Options in this list: strace with them is on the child of the next start before it goes on."""
    monkeypatch.setattr(sys.modules[__name__], "SESSION", f"{tmp_path_factory.getbasetemp()}/")
    wanted: list[tuple[str, ...]] = []
    original = launch.Start.attach

    def with_tracer(self: launch.Start) -> None:
        if wanted:
            self._poll(select.POLLIN)  # it is at the barrier, and its exec of the stub over, which -b would detach at
            tracers.append(attach(self.pid, "-f", *wanted.pop()))
        original(self)

    tracers: list = []
    monkeypatch.setattr(launch.Start, "attach", with_tracer)
    yield wanted
    for tracer in tracers:
        finish(tracer)


def box_of(box: mc.Container, kind: str) -> mc.Container:
    """Four shapes of a start; each has a barrier, for it has something for the parent to do."""
    rows = ((0, 100_000, 65_536),)
    full = box.with_(mc.OomScoreAdj(0), mc.Cwd("/tmp"), mc.Bind("/etc/hostname", "/etc/hostname", "ro"))
    return {
        "default": full,
        "user": full.with_(mc.Identity("alice")).without("init"),
        "userns": full.with_(mc.UserNamespace(uid_map=rows, gid_map=rows), mc.ReadonlyRoot()),
        "overlay": full.with_(mc.Overlay(), mc.Personality(aslr=False), mc.TimeNamespace(monotonic=5)).without("pid"),
    }[kind]


def state(done: mc.Result) -> tuple[object, ...]:
    """What the program saw of itself, without what differs from start to start."""
    status, mounts, rest = done.stdout.split("---\n")
    rows = dict(line.partition(":")[::2] for line in status.splitlines())
    table = [line.split() for line in mounts.splitlines()]
    kinds = sorted((row[4], row[5], row[row.index("-") + 1]) for row in table)
    return tuple(rows[name].strip() for name in KEPT), kinds, rest.split()


Start = Callable[[mc.Container], "mc.Result | mc.MinictrError"]


def start(box: mc.Container) -> mc.Result | mc.MinictrError:
    try:
        return box.run(["sh", "-c", STATE], capture_output=True, text=True, start_timeout=DEADLINE, timeout=10)
    except mc.MinictrError as error:
        return error


@pytest.mark.timeout(180)
@pytest.mark.parametrize("kind", ["default", "user", "userns", "overlay"])
def test_every_call_fails_once(box, traced, tmp_path, kind):
    which = box_of(box, kind)
    plain = start(which)
    assert isinstance(plain, mc.Result) and plain.returncode == 0, plain
    intended = state(plain)
    traced.append(("-b", "execve", "-o", str(tmp_path / "log")))
    assert isinstance(start(which), mc.Result)
    wait_for(tmp_path / "log")
    made = list(calls(tmp_path / "log").values())
    # what is the same in all starts is tried thoroughly in one of them
    found = cases(made, GRAVE, 3) if kind == "default" else cases(made, frozenset(), 13)
    before, ended = look(), Counter[str]()
    wrong = [text for case in found if (text := one(which, case, traced, intended, before, ended))]
    assert not wrong, f"{len(wrong)} of {len(found)}:\n" + "\n".join(wrong)
    assert len(found) > 80 and ended["refused"] > len(found) / 2, (len(found), ended)


def wait_for(log) -> None:
    deadline = time.monotonic() + 5
    while "execve" not in log.read_text() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)


def look() -> tuple[int, list[str]]:
    """How many descriptors we have, and what is mounted at or from a directory of this test session."""
    with open("/proc/self/mountinfo") as file:
        return len(os.listdir("/proc/self/fd")), [line for line in file if SESSION in line]


def one(
    box: mc.Container,
    case: Case,
    traced: list,
    intended: tuple[object, ...],
    before: tuple[int, int],
    ended: Counter[str],
    start: Start = start,
    state: Callable[[mc.Result], tuple[object, ...]] = state,
) -> str:
    """What is wrong about a start in which CASE fails; "" if it ended as it should. ENDED counts the ends."""
    name = "{}:{}:{}".format(*case)
    traced.append(("-b", "execve", *injection(case)))
    begin, there = time.monotonic(), children()
    outcome = start(box)
    if time.monotonic() - begin > DEADLINE - 0.5 or isinstance(outcome, mc.StartTimeout):
        return f"{name}: hangs: {outcome}"
    ended["refused" if isinstance(outcome, mc.StepFailed) else "started"] += 1
    if isinstance(outcome, mc.StepFailed):
        if not outcome.index or not outcome.feature or "\n" in str(outcome):
            return f"{name}: does not name the step: {outcome}"
    elif isinstance(outcome, mc.MinictrError):
        return f"{name}: {type(outcome).__name__}: {outcome}"
    elif outcome.returncode == 0 and state(outcome) != intended:
        differs = [(a, b) for a, b in zip(state(outcome), intended) if a != b]
        return f"{name}: starts, but not as intended: {differs}"
    elif outcome.returncode:
        return f"{name}: returncode {outcome.returncode}: {outcome.stderr}"
    gone = [pid for pid in children() if pid not in there and open_text(f"/proc/{pid}/comm") not in ("strace\n", "")]
    return f"{name}: left {gone}, {look()} instead of {before}" if gone or look() != before else ""


def open_text(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


@pytest.mark.parametrize("error", ["EACCES", "ENOMEM", "EIO", "EPERM"])
def test_execve_fails(box, traced, error):
    traced.append(injection(("execve", 1, error)))
    with pytest.raises(mc.CommandNotExecutable, match=f"exec /bin/true: {error}"):
        box_of(box, "default").run(["/bin/true"])


@pytest.mark.parametrize(
    ("call", "step"), [("mount_setattr", "setattr"), ("pivot_root", "pivot_root"), ("execve", "exec")]
)
def test_a_call_that_takes_too_long(box, traced, call, step):
    """The deadline holds wherever the child is, execve itself included; it names the step, and nothing is left.

    Two seconds, for a killed process that is traced is gone only when its tracer has seen it.
    """
    traced.append(("-e", f"trace={call}", "-e", f"inject={call}:delay_enter=2s", "-o", "/dev/null"))
    begin = time.monotonic()
    with pytest.raises(mc.StartTimeout, match=step):
        box.with_(mc.OomScoreAdj(0)).run(["true"], start_timeout=0.5)
    assert time.monotonic() - begin < 5
