"""The monitor of a detached container: what it is, and what it writes down at the end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from detached import Detached, logged, over
from waiting import eventually

import minictr as mc
from minictr.errors import StartTimeout, StepFailed
from minictr.kernel import procfs
from minictr.kernel.core import ffi, lib
from minictr.kernel.monitor import EXIT_SIZE, Exit, Monitor, blank_exit, read_exit

Make = Callable[..., Detached]


def is_alive(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}") and procfs.status(pid)["State"][0] not in "ZX"


# --- what it is ---


def test_it_is_small(detached: Make) -> None:
    """A hundredth of the mebibyte that is allowed, after some work too."""
    one = detached(["bash", "-c", "seq 10000; exec sleep 1000"]).start()
    eventually(lambda: logged(one.state).endswith(b"\n10000\n"))
    rows = (line.split() for line in Path(f"/proc/{one.monitor_pid}/smaps_rollup").read_text().splitlines()[1:])
    sizes = {row[0]: int(row[1]) for row in rows}
    assert sizes["Private_Clean:"] + sizes["Private_Dirty:"] + sizes["Shared_Clean:"] + sizes["Shared_Dirty:"] < 128
    assert sizes["Anonymous:"] < 100
    assert lib.mc_monitor_program_size() < 60 * 1024


def test_it_is_a_daemon(detached: Make) -> None:
    one = detached(["sleep", "1000"], title="container x").start()
    pid = one.monitor_pid
    status = procfs.status(pid)
    assert (status["Name"], status["Umask"], status["PPid"]) == ("minictr-mon", "0077", "1")
    assert procfs.read(pid, "cmdline").rstrip("\0") == "minictr-mon container x"
    assert os.getsid(pid) not in (os.getsid(0), pid), "in a session of its own, which it does not lead"
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    assert os.readlink(f"/proc/{pid}/exe").startswith("/memfd:minictr-mon")
    assert [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in (0, 1, 2)] == [os.devnull] * 3

    def kinds() -> list[str]:
        links = (os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd") if int(fd) > 2)
        return sorted(link.partition(":")[0].replace(str(one.state), "") for link in links)

    # the state directory, three files of it and the lock; the container's pidfd and signals; three pipes; the socket
    expected = ["", "/events", "/exit", "/lock", "/log", os.devnull, "anon_inode", "anon_inode"]
    eventually(lambda: kinds() == sorted([*expected, "pipe", "pipe", "pipe", "socket"]))
    assert one.pid in map(int, procfs.read(pid, f"task/{pid}/children").split())


def test_its_program_is_sealed(detached: Make) -> None:
    one = detached(["sleep", "1000"]).start()
    with pytest.raises(OSError, match="Text file busy|not permitted"):
        os.close(os.open(f"/proc/{one.monitor_pid}/exe", os.O_WRONLY))


def test_nothing_of_it_is_in_the_starter(detached: Make) -> None:
    before = sorted(os.listdir("/proc/self/fd")), procfs.read("thread-self", "children")
    one = detached(["sleep", "1000"]).start()
    for fd in (one.pidfd, one.monitor_pidfd):
        os.close(fd)
    pid, monitor, one.pidfd, one.monitor_pidfd = one.pid, one.monitor_pid, -1, -1
    assert (sorted(os.listdir("/proc/self/fd")), procfs.read("thread-self", "children")) == before
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not os.path.exists(f"/proc/{monitor}"))


# --- the end ---


@pytest.mark.parametrize("init", [True, False])
@pytest.mark.parametrize(
    ("script", "code"), [("exit 7", 7), ("exit 137", 137), ("kill -9 $$", -9), ("kill -15 $$", -15), ("true", 0)]
)
def test_the_exit_record(detached: Make, box: mc.Container, script: str, code: int, init: bool) -> None:
    """Of the program, not of init: `exit 137` and `kill -9` differ. Without init pid 1 has no default actions."""
    which = box if init else box.without("init", "pid")
    begun = time.time_ns()
    one = detached(["bash", "-c", script], which).start()
    found = one.exit()
    assert os.waitstatus_to_exitcode(found.status) == code
    assert begun < found.finished < time.time_ns()
    assert 0 < found.elapsed < 10**10
    assert 500 < found.maxrss < 50_000
    assert found.lost == 0
    assert (one.state / "exit").stat().st_size == EXIT_SIZE


def test_its_times(detached: Make) -> None:
    one = detached(["bash", "-c", "for ((i = 0; i < 200000; i++)); do :; done; exec sleep 0.2"]).start()
    found = one.exit()
    assert found.utime + found.stime > 20_000
    assert found.elapsed > 200_000_000


def test_killed_from_outside(detached: Make) -> None:
    """The container's first process is killed: no last word of init's, and still the truth."""
    one = detached(["sleep", "1000"]).start()
    lib.mc_pidfd_send_signal(one.pidfd, signal.SIGKILL, 0)
    assert one.exit().status == signal.SIGKILL


def test_the_die_event(detached: Make) -> None:
    one = detached(["bash", "-c", "exit 3"]).start()
    found = one.exit()
    (line,) = (one.state / "events").read_text().splitlines()
    assert json.loads(line) == {"id": "x", "action": "die", "status": 3 << 8, "time": found.finished}


def test_final_copies(detached: Make, tmp_path: Path) -> None:
    """What is there is copied, directories made; what is not leaves nothing, and nobody minds."""
    (tmp_path / "memory.peak").write_text("12345\n")
    (tmp_path / "big").write_bytes(bytes(100_000))
    source = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    names = ("memory.peak", "big", "missing")
    finals = [(source, name, f"final/memory/{name}") for name in names]
    one = detached(["true"], finals=finals)
    one.start()
    os.close(source)
    one.exit()
    found = {path.name: path.read_bytes() for path in (one.state / "final" / "memory").iterdir()}
    assert found == {"memory.peak": b"12345\n", "big": bytes(100_000)}


def test_the_exit_command(detached: Make, tmp_path: Path) -> None:
    """In the monitor's place, with a clean state of signals and descriptors, and the lock free."""
    script = (
        'grep -E "^Sig(Blk|Ign)|^ShdPnd|^SigPnd" /proc/self/status; ls -l /proc/$$/fd; '
        f"flock -n {tmp_path}/state0/lock echo free; cat {tmp_path}/state0/exit; env; pwd"
    )
    command = ["/bin/sh", "-c", f"exec > {tmp_path}/told; {script}"]
    one = detached(["sleep", "1000"], command=command, env=["NAME=value", "PATH=/usr/bin:/bin"]).start()
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE, signal.SIGUSR1):
        os.kill(one.monitor_pid, number)  # pending in the monitor: they must not end the command
    lib.mc_pidfd_send_signal(one.pidfd, signal.SIGKILL, 0)
    one.exit()
    told = (tmp_path / "told").read_text()
    assert {line.split()[-1] for line in told.splitlines() if line.startswith(("Sig", "Shd"))} == {"0" * 16}
    assert "free" in told
    assert "minictr-exit 1 status=9" in told
    assert "NAME=value" in told
    assert "/log" not in told.replace("told", "")
    assert told.count(os.devnull) == 2  # 0 and 2; 1 is the file


def test_no_exit_command_is_an_end(detached: Make) -> None:
    one = detached(["true"], command=["/nonexistent"])
    assert one.start().exit().status == 0


def test_a_descendant_that_holds_the_pipe(detached: Make, plain: mc.Container) -> None:
    """Without a pid namespace it lives on, and goes on writing: the end does not wait for it."""
    script = "(trap '' HUP; while :; do echo more; sleep 0.01; done) & echo $! > /dev/stderr; echo last; exit 5"
    one = detached(["bash", "-c", script], plain).start()
    began = time.monotonic()
    found = one.exit()
    assert time.monotonic() - began < 3
    assert os.waitstatus_to_exitcode(found.status) == 5
    assert b"last\n" in logged(one.state)
    pid = int(logged(one.state, "stderr"))
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # SIGPIPE was faster
    eventually(lambda: not is_alive(pid))


def test_an_orphan_is_reaped(detached: Make, plain: mc.Container) -> None:
    """It comes to the monitor, a subreaper, and not to the host's init; and leaves no zombie."""
    one = detached(["bash", "-c", "(sleep 0.3 & echo $!); exec sleep 1000"], plain).start()
    eventually(lambda: logged(one.state))
    orphan = int(logged(one.state))
    assert procfs.status(orphan)["PPid"] == str(one.monitor_pid)
    eventually(lambda: not os.path.exists(f"/proc/{orphan}"))


# --- signals to the monitor ---


def test_signals_that_it_survives(detached: Make) -> None:
    one = detached(["sleep", "1000"]).start()
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE, signal.SIGQUIT, signal.SIGUSR1, signal.SIGXFSZ):
        os.kill(one.monitor_pid, number)
    time.sleep(0.1)
    assert is_alive(one.monitor_pid)
    assert is_alive(one.pid)


@pytest.mark.parametrize(("option", "code"), [({}, 15), ({"stop_signal": signal.SIGUSR1}, 10)])
def test_sigterm_is_passed_on(detached: Make, option: dict[str, int], code: int) -> None:
    """As the container's stop signal: whoever ends the monitor wants the container ended, and told how."""
    script = "trap 'echo TERM; exit 15' TERM; trap 'echo USR1; exit 10' USR1; echo ready; while :; do sleep 0.02; done"
    one = detached(["bash", "-c", script], **option).start()
    eventually(lambda: logged(one.state))
    os.kill(one.monitor_pid, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(one.exit().status) == code


def test_sigterm_that_means_nothing(detached: Make) -> None:
    one = detached(["sleep", "1000"], stop_signal=0).start()
    os.kill(one.monitor_pid, signal.SIGTERM)
    time.sleep(0.1)
    assert is_alive(one.pid)


def test_a_starter_that_ignores_sigchld(detached: Make) -> None:
    """Ignored signals stay so over execve, and a process that ignores SIGCHLD is told no wait status."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        one = detached(["bash", "-c", "exit 6"]).start()
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert os.waitstatus_to_exitcode(one.exit().status) == 6


# --- what cannot be ---


def test_a_clone_that_is_refused(as_nobody: Any, tmp_path: Path) -> None:
    """By the monitor, and told by its starter as if it had been its own."""

    def body() -> tuple[str, str]:
        region = os.memfd_create("region")
        try:
            with pytest.raises(StepFailed) as caught:
                Monitor().spawn(0x40000000, region, [])  # CLONE_NEWNET
        finally:
            os.close(region)
        return str(caught.value), procfs.read("thread-self", "children")

    told, children = as_nobody(body)
    assert told == "clone3: EPERM (Operation not permitted)"
    assert children == ""


def test_a_monitor_that_does_not_answer(detached: Make) -> None:
    one = detached(["sleep", "1000"])
    one.spawn()
    os.kill(one.monitor_pid, signal.SIGSTOP)
    with pytest.raises(StartTimeout, match="monitor"):
        one.monitor.commit(timeout=0.2)
    assert one.monitor.abort(timeout=0.2) == 0
    assert over(one.pidfd, 5)
    assert over(one.monitor_pidfd, 5)


def test_too_many_finals() -> None:
    with pytest.raises(ValueError, match="at most 64"):
        Monitor(finals=[(0, "x", "y")] * 65)


def test_a_pid_namespace_of_another(detached: Make, box: mc.Container) -> None:
    """The container is born in it; what the monitor executes at the end is not."""
    host = detached(["sleep", "1000"]).start()
    namespace = os.open(f"/proc/{host.pid}/ns/pid", os.O_RDONLY)
    one = detached(["sleep", "1000"], box.without("pid", "proc"), command=["/bin/sleep", "0.3"])
    spawn = one.monitor.spawn
    one.monitor.spawn = lambda *args, **options: spawn(*args, pidns=namespace, **options)  # type: ignore[method-assign]
    one.start()
    os.close(namespace)
    assert os.readlink(f"/proc/{one.pid}/ns/pid") == os.readlink(f"/proc/{host.pid}/ns/pid")
    ours = os.readlink("/proc/self/ns/pid")
    assert os.readlink(f"/proc/{one.monitor_pid}/ns/pid_for_children") == ours


# --- records ---


def test_a_record_is_read_back() -> None:
    text = b"minictr-exit 1 status=9 maxrss=1 utime=2 stime=3 finished=4 elapsed=5 lost=6   \n"
    assert read_exit(text) == Exit(9, 1, 2, 3, 4, 5, 6)
    assert read_exit(text.replace(b" lost=6", b" new=7")) == Exit(9, 1, 2, 3, 4, 5)
    assert read_exit(b" " * 255 + b"\n") is None
    assert read_exit(b"") is None


@pytest.mark.parametrize(
    "text", [b"garbage", b"minictr-exit 2 status=9", b"minictr-exit 1 status=9", b"minictr-exit 1 status=x maxrss=1"]
)
def test_a_record_that_is_none(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_exit(text)


def test_a_blank_record_on_a_full_disk(in_child: Any, tmp_path: Path) -> None:
    def body() -> str:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k,nr_inodes=4", "tmpfs", str(tmp_path)], check=True)
        (tmp_path / "full").write_bytes(bytes(4096))
        directory = os.open(tmp_path, os.O_RDONLY)
        with pytest.raises(StepFailed) as caught:
            blank_exit(directory)
        return str(caught.value)

    assert in_child(body) == "write exit: ENOSPC (No space left on device)"


def test_the_layout_is_cs() -> None:
    assert len(ffi.new("struct mc_monitor *").fd) == lib.MC_FD_COUNT
