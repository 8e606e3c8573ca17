"""``on_syscall`` when it goes wrong: what is no answer, who is gone or slow, and what is refused before a start."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

import pytest
from notifying import DIRECTORIES, Slow, asking
from waiting import eventually

import minictr as mc

pytestmark = pytest.mark.usefixtures("nothing_left")


@pytest.mark.parametrize("answer", [None, True, "0", -1, -4095, 1 << 63, 1.0, mc.Errno])
def test_what_is_no_answer_is_a_refusal(made, answer):
    done = made.run(["mkdir", "/asked/x"], on_syscall=lambda _: answer, capture_output=True, text=True)
    assert done.returncode == 1
    assert "Operation not permitted" in done.stderr
    (error,) = done.handler_errors
    assert isinstance(error, (TypeError, mc.SpecError)), error


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, SystemExit, OSError])
def test_a_function_that_raises(made, kind):
    def handler(call):
        raise kind("a mistake of mine")

    with made.popen(["bash", "-c", "mkdir /asked/x || mkdir /asked/y"], on_syscall=handler, stderr=mc.PIPE) as process:
        _, err = process.communicate()
        assert err.count(b"Operation not permitted") == 2
        assert [type(error) for error in process.handler_errors] == [kind, kind]
    with pytest.raises(mc.CalledProcessError) as caught:
        made.run(["mkdir", "/asked/x"], on_syscall=handler, check=True, stderr=mc.DEVNULL)
    assert "a mistake of mine" in caught.value.__notes__[0]
    assert type(caught.value.result.handler_errors[0]) is kind


def test_errors_are_kept_but_not_all(made):
    def handler(call):
        raise ValueError

    done = made.run(["bash", "-c", "for i in {1..40}; do mkdir /asked/x; done"], on_syscall=handler, stderr=mc.DEVNULL)
    assert len(done.handler_errors) == 32


def test_an_answer_is_given_once(made, sh):
    kept = []

    def handler(call):
        kept.append(call)
        return 0

    sh(made, "mkdir /asked/x", on_syscall=handler)
    (call,) = kept
    assert not call.waits
    for use in (lambda: call.string(call.args[1]), lambda: call.read(call.args[1], 1), lambda: call.add_fd(0)):
        with pytest.raises(ProcessLookupError):
            use()
    assert call.name in repr(call)


def test_a_timeout_while_it_sleeps(made):
    slow = Slow()
    try:
        with pytest.raises(mc.TimeoutExpired) as caught:
            made.run(["mkdir", "/asked/x"], on_syscall=slow, timeout=0.3)
        assert caught.value.result.signal == signal.SIGKILL
        assert slow.entered.is_set()
        assert not slow.left.is_set()
    finally:
        slow.go.set()
    assert slow.left.wait(5)
    assert slow.waits is False


def test_a_program_that_is_killed_while_it_is_decided(made):
    """The function learns it; that is no mistake of its own."""
    slow = Slow()
    with made.popen(["mkdir", "/asked/x"], on_syscall=slow) as process:
        assert slow.entered.wait(20)
        os.kill(process.pid, signal.SIGKILL)
        assert select_over(process)
        slow.go.set()
        assert slow.left.wait(5)
        process.wait()
        assert (slow.waits, process.handler_errors) == (False, ())


def select_over(process: mc.Process) -> bool:
    """Whether it ends soon; it is not reaped."""
    from minictr.runtime.process import is_over

    return is_over(process.pidfd, 10)


def test_a_start_that_hangs_in_the_function(box):
    slow = Slow()
    try:
        with pytest.raises(mc.StartTimeout, match="exec"):
            box.with_(asking("execve")).run(["true"], on_syscall=slow, start_timeout=0.3)
    finally:
        slow.go.set()
    assert slow.left.wait(5)


def test_who_is_left_behind_is_refused(lab, tmp_path):
    """Without a pid namespace a process outlives the container's; nobody answers it any more: ENOSYS."""
    box = mc.Container(lab).without("pid", "pids").with_(mc.Bind(str(tmp_path), "/out"), asking(*DIRECTORIES))
    script = "(while test -e /out/wait; do sleep 0.02; done; mkdir /out/x 2>/out/said; echo over >>/out/said) & exit 0"
    (tmp_path / "wait").touch()
    assert box.run(["bash", "-c", script], on_syscall=lambda _: 0).returncode == 0
    (tmp_path / "wait").unlink()
    eventually(lambda: (tmp_path / "said").exists() and "over" in (tmp_path / "said").read_text(), 5)
    assert "Function not implemented" in (tmp_path / "said").read_text()


ORPHANS = """
import os
import sys
import minictr as mc
lab, out = sys.argv[1:]
flt = mc.Seccomp(mc.SeccompFilter("allow").notify("mkdir", "mkdirat"))
box = mc.Container(lab).without("init", "pids").with_(mc.Bind(out, "/out"), flt)
script = "mkdir /out/a; while mkdir /out/b 2>/out/said; do sleep 0.02; done; echo over >>/out/said"
def handler(call):
    os.write(1, b"asked ")
    return 0
box.popen(["bash", "-c", script], on_syscall=handler).wait()
"""


def test_a_supervisor_that_is_killed(lab, tmp_path):
    command = [sys.executable, "-P", "-c", ORPHANS, str(lab), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as supervisor:
        assert supervisor.stdout.read(6) == b"asked "
        supervisor.kill()
    eventually(lambda: (tmp_path / "said").exists() and "over" in (tmp_path / "said").read_text(), 5)
    assert "Function not implemented" in (tmp_path / "said").read_text()


NESTED = """
import sys
import minictr as mc
from minictr.kernel import process, seccomp
process.no_new_privs()
program = mc.SeccompFilter("allow").notify("mknod").program
seccomp.load(program, flags=seccomp.NEW_LISTENER)
try:
    mc.run(["true"], seccomp=mc.SeccompFilter("allow").notify("mknod"), on_syscall=lambda call: 0)
except mc.StepFailed as err:
    print(err)
"""


def test_there_can_be_one_only():
    done = subprocess.run([sys.executable, "-P", "-c", NESTED], capture_output=True, text=True, timeout=30, check=True)
    assert "EBUSY" in done.stdout
    assert "one is all that the kernel lets be" in done.stdout


OLDER = """
import minictr as mc
from minictr.kernel import process, seccomp, seccomp_notify
process.no_new_privs()
seccomp.load(mc.SeccompFilter("allow").deny("seccomp", errno="EINVAL", when=(1, "&", 32, 32)).program)
assert not seccomp_notify.killable()
flt = mc.SeccompFilter("allow").notify("mkdir", "mkdirat")
print(mc.run(["mkdir", "/nowhere/x"], seccomp=flt, on_syscall=lambda call: 0).returncode)
print(mc.support("seccomp"))
"""


def test_a_kernel_without_wait_killable():
    """So looks one before Linux 5.19: the flag is done without."""
    done = subprocess.run([sys.executable, "-P", "-c", OLDER], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "0\nyes (notify; a signal interrupts a call, before Linux 5.19)\n"


FEW_DESCRIPTORS = """
import os, resource
import minictr as mc
flt = mc.SeccompFilter("allow").notify("mkdir", "mkdirat")
asked = []

def run():
    asked.clear()
    return mc.run(["mkdir", "/nowhere/x"], seccomp=flt, on_syscall=handler, stderr=mc.DEVNULL).returncode

def handler(call):
    asked.append(call)
    return 0

run()
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
told = []
for most in range(len(os.listdir("/proc/self/fd")) - 1, 64):
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    try:
        told.append(f"{run()} {len(asked)}")
    except mc.MinictrError as err:
        assert "EMFILE" in str(err), err
        told.append("refused")
    if told[-1] != "refused":
        break
print(len(told) > 4, told[-1], set(told[:-1]))

import _socket
from minictr.kernel import packets
from minictr.runtime.supervisor import Supervisor
supervisor = Supervisor(handler)
end = _socket.socket(fileno=supervisor.offer())
packets.send(end, b"l", [0])
end.close()
resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
try:
    supervisor.take(1, 0)
except OSError as err:
    print(err)
supervisor.stop()
"""


def test_no_room_for_its_descriptors():
    """With one descriptor more at each turn it is refused until all is well; it never runs unasked, also where the
    listener is the one that has no room."""
    command = [sys.executable, "-P", "-c", FEW_DESCRIPTORS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    refused, lost = done.stdout.splitlines()
    assert refused == "True 0 1 {'refused'}"
    assert "listener could not be received" in lost


def test_no_room_for_the_thread_that_sends(box):
    with pytest.raises(mc.StepFailed, match=r"clone.*EAGAIN.*one more while it is loaded"):
        box.with_(mc.Pids(2), asking("mknod", "sendmsg")).run(["true"], on_syscall=lambda _: 0)
    for most, names in ((3, ("mknod", "sendmsg")), (2, ("mknod",))):
        assert box.with_(mc.Pids(most), asking(*names)).run(["true"], on_syscall=lambda _: 0).returncode == 0


# --- before anything is touched ---


def test_one_without_the_other(box, made):
    with pytest.raises(mc.SpecError, match="give on_syscall="):
        made.run(["true"])
    for without in (box, box.without("seccomp"), box.with_(mc.Seccomp("docker"))):
        with pytest.raises(mc.SpecError, match="no filter asks it"):
            without.run(["true"], on_syscall=lambda _: 0)
    with pytest.raises(mc.SpecError, match="str is no function"):
        made.run(["true"], on_syscall="handler")


def test_a_container_that_outlives_us(made):
    for method in (made.start, made.create):
        with pytest.raises(mc.SpecError, match="outlives the function"):
            method(["true"])
    assert not [one for one in mc.containers() if one.state.spec.rootfs == made.rootfs]


@pytest.mark.parametrize("number", [0, -1, 4096, "ENOTHING", None, 1.5])
def test_what_is_no_errno(number):
    with pytest.raises(mc.SpecError):
        mc.Errno(number)


def test_values():
    assert mc.Errno("ENOENT") == mc.Errno(2) == mc.Errno("2")
    assert repr(mc.Errno(2)) == "Errno('ENOENT')"
    assert repr(mc.CONTINUE) == "CONTINUE"
    plan = mc.Container("", features=[asking("mknod"), mc.NoNewPrivs()]).plan()
    step = next(step for step in plan if step.call == "seccomp")
    assert (step.args["flags"], step.args["listener"]) == (8 | 32, "listener")
    assert "notifies" in step.about


def test_run_takes_a_filter():
    flt = mc.SeccompFilter("allow").notify(*DIRECTORIES)
    done = mc.run(["mkdir", "/nowhere/x"], seccomp=flt, on_syscall=lambda _: 0)
    assert done.returncode == 0
    done = asyncio.run(mc.run_async(["mkdir", "/x"], seccomp="lxc"))
    assert done.returncode == 0
    os.rmdir("/x")
