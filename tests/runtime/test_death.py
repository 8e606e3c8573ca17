"""Who dies with whom: the caller with kill -9 before and after "go", a start that hangs, many starts in a row."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from waiting import eventually

import minictr as mc
from minictr.runtime import launch

SECONDS = f"4321.{os.getpid()}"  # a mark that no other process has
PARENT = """
import minictr as mc, sys, os
box = mc.Container(sys.argv[1])
box = box.with_(mc.OomScoreAdj(0), *eval(sys.argv[2])).without(*eval(sys.argv[3]))
{hook}
process = box.popen(["sh", "-c", "echo started; exec sleep SECONDS"])
os.write(1, b"%d\\n" % process.pid)  # in one piece: the program writes to the same pipe
os.read(0, 1)
"""
STOP_BEFORE_GO = """
from minictr.runtime import launch
def attach(self):
    os.write(1, b"%d\\n" % self.pid)
    os.read(0, 1)
launch.Start.attach = attach
"""


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def sleepers() -> list[int]:
    """Programs of ours that still run, whoever their parent is."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                if file.read() == b"sleep\0" + SECONDS.encode() + b"\0":
                    found.append(int(pid))
        except OSError:
            pass
    return found


@pytest.fixture(autouse=True)
def _no_sleepers_left():
    """A test that fails half way must not leave its containers to the next one."""
    yield
    for pid in sleepers():
        os.kill(pid, signal.SIGKILL)


def caller(box: mc.Container, *, more: str = "()", less: str = "()", hook: str = "") -> subprocess.Popen[str]:
    """A process that starts a container and waits; it writes the container's pid, and STARTED when it runs."""
    environment = {**os.environ, "PYTHONPATH": str(Path(mc.__file__).parent.parent)}
    command = [
        sys.executable,
        "-P",
        "-c",
        PARENT.format(hook=hook).replace("SECONDS", SECONDS),
        str(box.rootfs),
        more,
        less,
    ]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    return subprocess.Popen(command, env=environment, text=True, **pipes)


@pytest.mark.parametrize("less", ["()", "('init',)", "('pid',)", "('pid', 'init')"])
def test_kill_9_before_go(box, less):
    """Whatever the features: a start whose caller is gone does not go on."""
    with caller(box, less=less, hook=STOP_BEFORE_GO) as parent:
        pid = int(parent.stdout.readline())
        assert alive(pid)
        parent.kill()
    eventually(lambda: not alive(pid), 5)
    assert sleepers() == []


@pytest.mark.parametrize("less", ["()", "('init',)", "('pid',)", "('pid', 'init')"])
def test_kill_9_of_the_caller_with_pdeathsig(box, less):
    with caller(box, more="(mc.Pdeathsig(),)", less=less) as parent:
        lines = {parent.stdout.readline().strip() for _ in range(2)}
        pid = int((lines - {"started"}).pop())
        eventually(sleepers, 5)
        parent.kill()
    eventually(lambda: not alive(pid) and not sleepers(), 5)


def test_without_pdeathsig_the_container_lives_on(box):
    with caller(box) as parent:
        lines = {parent.stdout.readline().strip() for _ in range(2)}
        pid = int((lines - {"started"}).pop())
        eventually(sleepers, 5)
        parent.kill()
    time.sleep(0.1)
    assert alive(pid) and len(sleepers()) == 1
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not alive(pid) and not sleepers(), 5)


def test_another_signal_for_the_callers_death(box, tmp_path):
    """TERM goes to init, which passes it on: the program may tidy up."""
    more = f"(mc.Pdeathsig('TERM'), mc.Bind({str(tmp_path)!r}, '/mnt'))"
    program = "trap 'echo tidy > /mnt/tidied; exit' TERM; echo started; while :; do sleep 0.02; done"
    text = PARENT.format(hook="").replace("echo started; exec sleep SECONDS", program)
    environment = {**os.environ, "PYTHONPATH": str(Path(mc.__file__).parent.parent)}
    command = [sys.executable, "-P", "-c", text, str(box.rootfs), more, "()"]
    with subprocess.Popen(command, env=environment, text=True, stdin=-1, stdout=-1) as parent:
        lines = {parent.stdout.readline().strip() for _ in range(2)}
        pid = int((lines - {"started"}).pop())
        parent.kill()
    eventually(lambda: not alive(pid), 5)
    assert (tmp_path / "tidied").read_text() == "tidy\n"


# --- a start that hangs ---


@pytest.fixture
def stopped(monkeypatch):
    """Every start's child is stopped before "go": it hangs wherever it then is."""
    attach = launch.Start.attach

    def stop(self: launch.Start) -> None:
        os.kill(self.pid, signal.SIGSTOP)
        attach(self)

    monkeypatch.setattr(launch.Start, "attach", stop)


@pytest.mark.parametrize("less", [(), ("init",), ("pid",)])
def test_a_start_that_hangs_is_given_up(box, stopped, less):
    begin = time.monotonic()
    with pytest.raises(mc.StartTimeout, match=r"start passed its deadline of 0\.3 s in ") as caught:
        box.with_(mc.OomScoreAdj(0)).without(*less).run(["true"], start_timeout=0.3)
    assert 0.3 <= time.monotonic() - begin < 2
    assert caught.value.what and caught.value.exit_code == 125


def test_no_time_at_all(box):
    with pytest.raises(mc.StartTimeout):
        box.popen(["true"], start_timeout=0)


# --- many ---


def resident_kib() -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))


def test_two_hundred_starts_leave_nothing(box):
    """No descriptor, no zombie, no mount, no memory; and the last ones are as fast as the first."""

    def look() -> tuple[int, int, str]:
        with open("/proc/self/mountinfo") as file:
            mounts = "".join(line for line in file if "pytest-of-" in line)
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            children = len(file.read().split())
        return len(os.listdir("/proc/self/fd")), children, mounts

    for _ in range(10):
        box.run(["true"])
    before, memory = look(), resident_kib()
    times = [box.run(["true"]).elapsed for _ in range(200)]
    assert look() == before
    assert resident_kib() - memory < 1024
    early, late = sorted(times[:20])[10], sorted(times[-20:])[10]
    assert late < early * 3 + 0.01


def test_failed_starts_leave_nothing(box):
    before = os.listdir("/proc/self/fd")
    for _ in range(30):
        with pytest.raises(mc.CommandNotFound):
            box.run(["nosuch"])
        with pytest.raises(mc.StepFailed):
            box.with_(mc.Bind("/no/such", "/mnt")).run(["true"], stdin=mc.PIPE, stdout=mc.PIPE)
        with pytest.raises(mc.StepFailed):
            box.with_(mc.NetNamespace(join="/no/such")).without("sysctl", "loopback").run(["true"])
    assert os.listdir("/proc/self/fd") == before
