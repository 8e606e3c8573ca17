"""How an init system ends, by its own words and by ours, and that nothing of it stays."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from systems import Life, Traces
from terminals import Terminal

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
LXC = ("--profile", "lxc")


@pytest.fixture
def systemd(lives: Any) -> Iterator[Life]:
    """``sys``, booted to where it can be talked to."""
    with lives("systemd") as life:
        life.start("sys", "/sbin/init", options=LXC)
        life.until(lambda: life.is_up("sys"), 60)
        yield life


@pytest.fixture
def inits(lives: Any) -> Iterator[Life]:
    with lives("inits") as life:
        yield life


def test_stop_by_its_own_signal_leaves_nothing(systemd: Life) -> None:
    assert systemd.inspect("sys")["Config"]["StopSignal"] == 37  # SIGRTMIN+3: systemd(1)
    traces = Traces(systemd, "sys")
    assert len(traces.processes) > 10
    begin = time.monotonic()
    systemd("stop", "sys")
    assert time.monotonic() - begin < 9  # it was not killed
    state = systemd.state("sys")
    assert (state["Status"], state["ExitCode"], state["Halt"]) == ("exited", 0, "halted")
    assert traces.left() == []
    assert "Stopped target" in systemd.output("sys")
    assert "Halting system." in systemd.output("sys")
    assert traces.directory.exists()
    systemd("rm", "sys")
    assert not traces.directory.exists()


def test_reboot_and_poweroff_from_inside(systemd: Life) -> None:
    first = Traces(systemd, "sys")
    boot_id = systemd.exec("sys", "cat", "/proc/sys/kernel/random/boot_id")
    begun = systemd.state("sys")["StartedAt"]
    systemd.exec("sys", "touch", "/root/kept")
    systemd.done("exec", "sys", "reboot")  # whether the caller lives to see its end is a race
    systemd.until(lambda: systemd.state("sys")["StartedAt"] > begun and systemd.is_up("sys"), 60)
    assert systemd.exec("sys", "cat", "/proc/sys/kernel/random/boot_id") != boot_id
    assert systemd.exec("sys", "ls", "/root/kept") == "/root/kept"
    assert len(systemd.exec("sys", "journalctl", "--list-boots", "-q").splitlines()) == 2
    # groups are made again, by the same names
    assert [line for line in first.left() if line.startswith("process")] == []
    second = Traces(systemd, "sys")
    systemd.done("exec", "sys", "poweroff")
    assert systemd("wait", "sys") == "0"
    assert systemd.state("sys")["Halt"] == "halted"
    assert second.left() == []


def test_stop_in_the_middle_of_its_boot(lives: Any) -> None:
    """Before it listens to signals the kernel drops them: it is asked once more, and not killed."""
    with lives("systemd") as life:
        for seconds in (0, 0.15, 0.6):
            life.start("sys", "/sbin/init", options=LXC)
            traces = Traces(life, "sys")
            time.sleep(seconds)
            life("stop", "-t", "30", "sys")
            state = life.state("sys")
            assert (state["ExitCode"], state["Halt"]) == (0, "halted")
            assert traces.left() == []
            life("rm", "sys")


def test_another_stop_signal(lives: Any) -> None:
    """SIGRTMIN+5 is reboot to systemd: what was asked to end is not started again."""
    with lives("systemd") as life:
        life.start("sys", "/sbin/init", options=(*LXC, "--stop-signal", "RTMIN+5"))
        life.until(lambda: life.is_up("sys"), 60)
        assert life.inspect("sys")["Config"]["StopSignal"] == 39
        life("stop", "sys")
        state = life.state("sys")
        assert (state["Status"], state["Halt"], state["ExitCode"]) == ("exited", "rebooted", 133)
        time.sleep(0.5)
        assert life.state("sys")["Status"] == "exited"


def test_rm_of_a_running_system(systemd: Life) -> None:
    traces = Traces(systemd, "sys")
    systemd("rm", "-f", "sys")
    assert traces.left() == []
    assert not traces.directory.exists()


def test_systemd_under_the_default_profile_names_the_option(lives: Any) -> None:
    with lives("systemd") as life:
        done = life.run("/sbin/init")
        assert (done.returncode, done.stdout) == (125, "")
        assert "--profile lxc" in done.stderr
        assert done.stderr.count("\n") == 1


def test_sysvinit(inits: Life) -> None:
    """Its signal is that of Ctrl-Alt-Del: by Debian's inittab a reboot, after which it is not started again."""
    inits.start("old", "/sbin/init", options=LXC)
    inits.until(lambda: inits.done("exec", "old", "runlevel").stdout == "N 2\n", 60)
    assert inits.exec("old", "cat", "/proc/1/comm") == "init"
    assert "Entering runlevel: 2" in inits.output("old")
    assert inits.inspect("old")["Config"]["StopSignal"] == 2
    traces = Traces(inits, "old")
    inits("stop", "-t", "30", "old")
    assert inits.state("old")["Halt"] == "rebooted"
    assert inits.state("old")["Status"] == "exited"
    assert traces.left() == []
    assert "All processes ended" in inits.output("old")
    inits("start", "old")
    inits.until(lambda: inits.done("exec", "old", "runlevel").stdout == "N 2\n", 60)
    inits.done("exec", "old", "poweroff")
    assert inits("wait", "old") == "0"
    assert inits.state("old")["Halt"] == "halted"


def test_busybox_init(inits: Life, tmp_path: Path) -> None:
    table = tmp_path / "inittab"
    table.write_text("::sysinit:/bin/echo ready to work\n::respawn:/bin/sleep 1000\n")
    inits.start("small", "/bin/busybox", "init", options=(*LXC, "-v", f"{table}:/etc/inittab"))
    inits.says("small", "ready to work")
    assert inits.exec("small", "cat", "/proc/1/cmdline").replace("\0", " ").strip() == "/bin/busybox init"
    assert inits.inspect("small")["Config"]["StopSignal"] == 12
    traces = Traces(inits, "small")
    inits("stop", "-t", "30", "small")
    assert inits.state("small")["Halt"] == "halted"
    assert traces.left() == []
    assert "Requesting system poweroff" in inits.output("small")
    begun = inits.state("small")["StartedAt"]
    inits("start", "small")
    inits.done("exec", "small", "busybox", "reboot")  # it kills its caller with all others
    inits.until(lambda: inits.state("small")["StartedAt"] > begun and inits.state("small")["Running"], 30)


def test_in_the_foreground_the_console_is_ours(inits: Life, minictr_cli: list[str]) -> None:
    """All of a boot is seen, though its init opens the console for each word; the signal that ends it is passed on."""
    words = inits.words(LXC, ("/sbin/init",))
    window = Terminal([*minictr_cli, "--root", str(inits.root), "run", "--name", "old", *words])
    try:
        # in the middle of a script's words: init itself empties its terminal at times (tcflush(3)), words and all
        window.expect("Mounting local filesystems", 60)
        inits.until(lambda: inits.done("exec", "old", "runlevel").stdout == "N 2\n", 60)
        window.process.send_signal(signal.SIGINT)
        window.expect("All processes ended", 60)
        assert window.end() == 133
    finally:
        window.close()
