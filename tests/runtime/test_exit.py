"""Start and end: codes, signals, what init does."""

from __future__ import annotations

import signal
import time

import pytest
from waiting import eventually

import minictr as mc


@pytest.mark.parametrize("code", [0, 1, 42, 125, 137, 255])
@pytest.mark.parametrize("without", [(), ("init",), ("pid",), ("pid", "init")])
def test_the_returncode_is_the_programs_own(box, code, without):
    done = box.without(*without).run(["sh", "-c", f"exit {code}"])
    assert (done.returncode, done.signal) == (code, 0)


@pytest.mark.parametrize("name", ["KILL", "TERM", "SEGV", "ABRT", "USR1", "HUP", "RTMIN"])
def test_a_signal_is_told_from_an_exit_code(box, name):
    """Under init the program is not PID 1, so its own kill -9 is true, and is not taken for exit code 137."""
    done = box.run(["bash", "-c", f"kill -{name} $$"])
    number = 34 if name == "RTMIN" else getattr(signal, f"SIG{name}")
    assert (done.returncode, done.signal) == (-number, number)


def test_without_init_the_program_is_pid_1_and_immune_to_itself(box):
    """pid_namespaces(7): what docker, runc and nspawn report as 0."""
    done = box.without("init").run(["bash", "-c", "kill -9 $$; kill -TERM $$; echo $$"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "1\n")


def test_without_a_pid_namespace_init_is_a_subreaper(box, sh):
    assert sh(box, "echo $PPID") == "1"
    assert int(sh(box.without("pid"), "echo $PPID")) > 1
    done = box.without("pid").run(["bash", "-c", "kill -9 $$"])
    assert done.signal == signal.SIGKILL


@pytest.mark.parametrize("name", ["TERM", "USR1", "INT", "HUP", "WINCH", "CONT"])
def test_init_forwards_signals(box, name):
    script = f"trap 'echo got; exit 7' {name}; echo ready; while :; do sleep 0.01; done"
    with box.popen(["bash", "-c", script], stdout=mc.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(getattr(signal, f"SIG{name}"))
        assert process.communicate(timeout=10)[0] == "got\n"
    assert process.returncode == 7


def test_a_signal_without_a_handler_ends_the_program(box):
    with box.popen(["sleep", "100"]) as process:
        process.terminate()
        assert process.wait(10) == -signal.SIGTERM


def test_without_init_a_signal_without_a_handler_does_nothing(box):
    with box.without("init").popen(["sleep", "100"]) as process:
        process.terminate()
        with pytest.raises(mc.TimeoutExpired):
            process.wait(0.2)


def test_no_signal_is_lost_in_a_storm(box):
    script = "n=0; trap 'n=$((n+1))' USR1; trap 'echo $n; exit' TERM; echo ready; while :; do sleep 0.005; done"
    with box.popen(["bash", "-c", script], stdout=mc.PIPE, text=True) as process:
        process.stdout.readline()
        for _ in range(50):
            process.send_signal(signal.SIGUSR1)
        process.terminate()
        assert int(process.communicate(timeout=10)[0]) >= 1
    assert process.returncode == 0


def test_init_reaps_orphans(box, sh):
    """A double fork leaves an orphan to PID 1; without init that is the program, which does not wait for it."""
    assert sh(box, "exec probe orphans 20") == "0"
    assert sh(box.without("init"), "exec probe orphans 20") == "20"


def test_background_processes_end_with_the_program(box, tmp_path):
    shared = mc.Bind(str(tmp_path), "/mnt")
    done = box.with_(shared).run(["bash", "-c", "(while :; do date +%N > /mnt/alive; sleep 0.01; done) & sleep 0.1"])
    assert done.returncode == 0
    last = (tmp_path / "alive").read_text()
    time.sleep(0.05)
    assert (tmp_path / "alive").read_text() == last


def test_init_is_small_and_holds_nothing(box, sh, status):
    """Under 1 MiB, no Python, no file but the pipe that tells how the program ended, no privilege but to kill."""
    init = status(box, "/proc/1/status")
    assert init["Name"] == "minictr-init"
    assert int(init["VmRSS"].split()[0]) < 256
    assert (init["CapPrm"], init["CapEff"], init["CapInh"]) == ("0000000000000020", "0000000000000020", "0" * 16)
    assert (init["NoNewPrivs"], init["Seccomp"], init["Threads"]) == ("1", "2", "1")
    assert len(sh(box, "ls /proc/1/fd").split()) == 1
    assert sh(box, "tr '\\0' ' ' < /proc/1/cmdline").split() == ["minictr-init"]
    maps = sh(box.without("capabilities"), "cat /proc/1/maps")
    assert "python" not in maps and ".so" not in maps


@pytest.mark.parametrize("without", [(), ("init",)])
def test_who_is_pid_1(box, sh, without):
    assert sh(box.without(*without), "cat /proc/1/comm") == ("cat" if without else "minictr-init")


def test_killing_the_container_kills_all_of_it(box, tmp_path):
    (tmp_path / "alive").touch()
    script = "for i in 1 2 3; do (trap '' TERM HUP; while :; do sleep 0.01; echo >> /mnt/alive; done) & done; wait"
    with box.with_(mc.Bind(str(tmp_path), "/mnt")).popen(["bash", "-c", script]) as process:
        eventually(lambda: (tmp_path / "alive").stat().st_size, 5)
        process.kill()
        assert process.wait(10) == -signal.SIGKILL
    size = (tmp_path / "alive").stat().st_size
    with pytest.raises(AssertionError):
        eventually(lambda: (tmp_path / "alive").stat().st_size != size, 0.1)


def test_without_a_pid_namespace_the_program_dies_with_its_init(box):
    with box.without("pid").popen(["sleep", "1000"]) as process:
        with open(f"/proc/{process.pid}/task/{process.pid}/children") as children:
            program = int(children.read())
        process.kill()
        process.wait(10)
    eventually(lambda: not alive(program), 5)


def alive(pid: int) -> bool:
    """Whether PID runs; a zombie that the machine's init has not reaped yet is dead."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False
