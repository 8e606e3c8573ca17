"""``run`` and ``Process``: as subprocess has them."""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import signal
import threading
import time
import warnings

import pytest

import minictr as mc

# --- run ---


def test_check(box):
    with pytest.raises(mc.CalledProcessError) as caught:
        box.run(["sh", "-c", "echo out; exit 3"], check=True, stdout=mc.PIPE)
    error = caught.value
    assert (error.returncode, error.cmd, error.stdout) == (3, ["sh", "-c", "echo out; exit 3"], b"out\n")
    assert error.result.returncode == 3
    assert not isinstance(error, mc.MinictrError)  # the program failed, not the sandbox


def test_text_encoding_and_errors(box):
    done = box.run(["cat"], input="grüße\n", capture_output=True, encoding="latin-1")
    assert done.stdout == "grüße\n"
    done = box.run(["printf", "\\xff\\r\\nx"], stdout=mc.PIPE, text=True, errors="replace")
    assert done.stdout == "\ufffd\nx"
    with pytest.raises(UnicodeDecodeError):
        box.run(["printf", "\\xff"], stdout=mc.PIPE, text=True)
    with pytest.raises(LookupError):
        box.popen(["sleep", "100"], stdout=mc.PIPE, encoding="no-such-code")


def test_timeout_kills_and_keeps_what_was_written(box):
    begin = time.monotonic()
    with pytest.raises(mc.TimeoutExpired) as caught:
        box.run(["sh", "-c", "echo partial; echo err >&2; sleep 100"], capture_output=True, timeout=0.3, text=True)
    assert 0.3 <= time.monotonic() - begin < 3
    error = caught.value
    assert (error.stdout, error.stderr, error.timeout) == ("partial\n", "err\n", 0.3)
    assert (error.result.timed_out, error.result.signal) == (True, signal.SIGKILL)


def test_timeout_does_not_wait_for_what_lives_on(box):
    """Without a pid namespace a grandchild survives and holds the pipe; who asked for a second gets his second."""
    begin = time.monotonic()
    with pytest.raises(mc.TimeoutExpired) as caught:
        box.without("pid").run(["sh", "-c", "sleep 2 & echo $!; sleep 2"], stdout=mc.PIPE, timeout=0.3, text=True)
    assert time.monotonic() - begin < 1.5
    with contextlib.suppress(ProcessLookupError):  # it goes with its group, and here init may have reaped it already
        os.kill(int(caught.value.stdout), signal.SIGKILL)


def test_a_trap_does_not_help_against_a_timeout(box):
    with pytest.raises(mc.TimeoutExpired):
        box.run(["bash", "-c", "trap '' TERM INT HUP QUIT; while :; do sleep 1; done"], timeout=0.2)


@pytest.mark.parametrize("args", ["ls -l", [], ()])
def test_args_must_be_a_list(box, args):
    with pytest.raises(mc.SpecError):
        box.run(args)


def test_elapsed_and_rusage(box):
    done = box.run(["bash", "-c", "for ((i = 0; i < 100000; i++)); do :; done; sleep 0.2"])
    assert 0.2 < done.elapsed < 20
    assert done.rusage.ru_utime > 0.01
    assert isinstance(done.rusage, resource.struct_rusage)


def test_the_timeline_is_the_plan(box):
    """One row a step, in the order of the plan, clone3 as one row; rows follow one another."""
    plan = box.plan(["true"])
    rows = box.run(["true"]).timeline.rows
    planned = [step.call for step in plan if step.call != "clone"]
    assert [row.call for row in rows if row.call != "clone3"] == planned
    assert {row.feature for row in rows} >= {feature.name for feature in box.features if feature.name == "proc"}
    child = [row for row in rows if row.call not in ("clone3", "oom_score_adj", "cgroup")]
    for before, after in zip(child, child[1:]):
        assert after.start_us == pytest.approx(before.start_us + before.duration_us, abs=0.01)
        assert after.duration_us >= 0


def test_what_is_left_out_is_not_in_the_timeline(box):
    assert "masked_paths" not in box.without("masked_paths").run(["true"]).timeline.by_feature()
    assert box.run(["true"]).timeline.by_feature()["masked_paths"] > 0


def test_mc_run_without_anything_contains_nothing():
    done = mc.run(["sh", "-c", "readlink /proc/self/ns/*; pwd"], stdout=mc.PIPE, text=True)
    ours = [os.readlink(f"/proc/self/ns/{name}") for name in sorted(os.listdir("/proc/self/ns"))]
    assert done.stdout.splitlines() == [*ours, os.getcwd()]


def test_mc_run_with_a_root(lab):
    done = mc.run(["sh", "-c", "id -u; pwd; echo $A"], rootfs=lab, user="alice", cwd="/tmp", env={"A": "b"}, stdout=-1)
    assert done.stdout.split() == [b"1000", b"/tmp", b"b"]


# --- Process ---


def test_poll_and_wait(box):
    with box.popen(["cat"], stdin=mc.PIPE) as process:
        assert process.poll() is None and process.returncode is None
        assert process.fileno() == process.pidfd
        with pytest.raises(mc.TimeoutExpired):
            process.wait(0.05)
        process.stdin.close()
        assert process.wait(10) == 0
        assert process.poll() == process.wait() == 0
        assert process.pidfd == -1


def test_signals_after_the_end_do_nothing(box):
    with box.popen(["true"]) as process:
        process.wait(10)
        process.send_signal(signal.SIGTERM)
        process.kill()
        process.terminate()


def test_a_signal_to_one_that_is_gone_but_not_reaped(box):
    with box.popen(["true"]) as process:
        os.waitid(os.P_PIDFD, process.pidfd, os.WEXITED | os.WNOWAIT)
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 0


def test_a_wrong_signal(box):
    with box.popen(["sleep", "100"]) as process, pytest.raises(OSError, match="999"):
        process.send_signal(999)


def test_leaving_the_block_kills(box):
    with box.popen(["sleep", "1000"], stdin=mc.PIPE, stdout=mc.PIPE) as process:
        pid = process.pid
    assert process.returncode == -signal.SIGKILL
    assert not os.path.exists(f"/proc/{pid}")
    assert process.stdin.closed and process.stdout.closed


def test_an_exception_in_the_block_kills(box):
    with pytest.raises(ZeroDivisionError), box.popen(["sleep", "1000"]) as process:
        raise ZeroDivisionError
    assert process.returncode == -signal.SIGKILL


def test_a_dropped_process_warns(box):
    process = box.popen(["sleep", "1000"])
    pid = process.pid
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del process
        gc.collect()
    assert [str(warning.message) for warning in caught] == [f"process {pid} is still running"]
    assert caught[0].category is ResourceWarning
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    box.run(["true"])  # the next start reaps it
    assert not os.path.exists(f"/proc/{pid}")


def test_communicate_goes_on_after_a_timeout(box):
    with box.popen(["sh", "-c", "read a; echo $a; sleep 0.5; cat"], stdin=mc.PIPE, stdout=mc.PIPE) as process:
        data = b"first\n" + bytes(1 << 20)
        with pytest.raises(mc.TimeoutExpired) as caught:
            process.communicate(data, timeout=0.1)
        assert caught.value.stdout == b"first\n"
        out, err = process.communicate(timeout=10)
    assert out == data and err is None


def test_communicate_speaks_text_where_the_streams_do(box):
    with box.popen(["cat"], stdin=mc.PIPE, stdout=mc.PIPE, text=True) as process:
        assert process.communicate("grüße", timeout=10) == ("grüße", None)


def test_many_threads_wait_for_one(box):
    answers: list[int] = []
    with box.popen(["sh", "-c", "sleep 0.2; exit 9"]) as process:
        threads = [threading.Thread(target=lambda: answers.append(process.wait(10))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
    assert answers == [9] * 8


def test_somebody_else_reaped_it(box):
    """A caller's wait(-1) takes the exit status away; init's own word is still there."""
    with box.popen(["sh", "-c", "exit 5"]) as process:
        os.waitpid(process.pid, 0)
        assert process.wait(10) == 5


def test_repr_says_what_it_is(box):
    with box.popen(["sleep", "100"]) as process:
        assert repr(process) == f"<Process {process.pid} running 'sleep 100'>"
    assert "returncode=-9" in repr(process)
