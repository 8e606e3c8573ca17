"""A terminal of the container's own: its name, size, controlling process, and job control."""

from __future__ import annotations

import os
import pty
import select
import threading
import time

import pytest

import minictr as mc
from minictr.runtime.console import interact


class Screen:
    """What a terminal's other end shows."""

    def __init__(self, master: int) -> None:
        self.master, self.text = master, ""

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def expect(self, wanted: str, seconds: float = 10) -> str:
        """Read until WANTED is there; everything up to it, which is taken away."""
        deadline = time.monotonic() + seconds
        while wanted not in self.text:
            left = deadline - time.monotonic()
            ready = left > 0 and select.select([self.master], [], [], left)[0]
            assert ready, f"no {wanted!r} in {self.text!r}"
            self.text += os.read(self.master, 4096).decode()
        before, _, self.text = self.text.partition(wanted)
        return before


@pytest.fixture
def on_terminal(box):
    """``on_terminal(args)``: (screen, process, console)."""
    open_ones = []

    def start(args: list[str], which: mc.Container = box, **options: object):
        console = mc.Console()
        open_ones.append(console)
        process = which.with_(mc.Tty()).popen(args, console=console, **options)
        open_ones.append(process)
        return Screen(console.master), process, console

    yield start
    for one in reversed(open_ones):
        one.close()


def test_it_is_a_terminal_with_a_name(on_terminal):
    screen, process, _ = on_terminal(["bash", "-c", "tty; test -t 0 -a -t 1 -a -t 2 && echo three; ls /dev/pts"])
    assert screen.expect("three").split() == ["/dev/pts/0"]
    assert process.wait(10) == 0


def test_it_controls_the_session(on_terminal):
    screen, _, _ = on_terminal(["bash", "-c", "read -a f < /proc/self/stat; echo ${f[5]} ${f[6]} $$ ${f[7]} end"])
    session, device, pid, foreground = screen.expect(" end").split()
    assert session == pid == foreground
    assert int(device) >> 8 & 0xFF == 136  # a pseudo terminal: devices.txt


def test_the_device_tty_is_it(on_terminal):
    screen, _, _ = on_terminal(["bash", "-c", "echo through-tty > /dev/tty; echo through-console > /dev/console"])
    screen.expect("through-tty")
    screen.expect("through-console")


def test_size_and_sigwinch(on_terminal):
    script = "trap 'stty size; exit' WINCH; stty size; echo ready; while :; do sleep 0.02; done"
    screen, process, console = on_terminal(["bash", "-c", script])
    assert screen.expect("ready").split() == ["0", "0"]
    console.resize(30, 100)
    screen.expect("30 100")
    assert process.wait(10) == 0


def test_control_c(on_terminal):
    screen, process, _ = on_terminal(
        ["bash", "-c", "trap 'echo caught; exit 5' INT; echo ready; while :; do sleep 0.05; done"]
    )
    screen.expect("ready")
    screen.type("\x03")
    screen.expect("caught")
    assert process.wait(10) == 5


def test_job_control(on_terminal):
    """Ctrl-Z stops the foreground job, ``fg`` brings it back: an interactive shell as on any terminal."""
    screen, process, _ = on_terminal(["bash", "--norc", "-i"])
    screen.type("echo rea''dy\n")
    assert "no job control" not in screen.expect("ready")
    screen.type("sleep 1000\n")
    time.sleep(0.3)
    screen.type("\x1a")
    screen.expect("Stopped")
    screen.type("jobs -l\n")
    screen.expect("sleep 1000")
    screen.type("kill %1; fg\n")
    screen.expect("Terminated")
    screen.type("exit 7\n")
    assert process.wait(10) == 7


def test_the_terminal_belongs_to_the_user(on_terminal, box):
    told = "stat -c '%u %G %a' $(tty); echo > /dev/tty && echo end"
    screen, _, _ = on_terminal(["bash", "-c", told], box.with_(mc.Identity("alice")))
    assert screen.expect("end").split()[::2] == ["1000", "620"]


def test_hanging_up_ends_the_program(on_terminal):
    """The caller closes its end: the session gets SIGHUP."""
    _, process, console = on_terminal(["sleep", "1000"])
    console.close()
    assert process.wait(10) == -1


def test_no_descriptor_of_the_callers_terminal_gets_in(box):
    """TIOCSTI (CVE-2016-7545) has nothing to type into; and the terminal inside is not the one outside."""
    master, slave = pty.openpty()
    try:
        console = mc.Console()
        with console, box.with_(mc.Tty()).popen(["bash", "-c", "ls -l /proc/self/fd; echo end"], console=console):
            assert os.ttyname(slave) not in Screen(console.master).expect("end").replace("/dev/pts/0", "")
    finally:
        os.close(master)
        os.close(slave)


def test_interact_ties_two_terminals(box):
    """What ``minictr run -it`` does: raw mode, size and bytes both ways, and the terminal as it was afterwards."""
    import termios

    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    termios.tcsetwinsize(slave, (33, 77))
    codes: list[int] = []

    def run() -> None:
        with (
            mc.Console() as console,
            box.with_(mc.Tty()).popen(["bash", "-c", "read x; stty size; echo got $x; exit 4"], console=console) as p,
        ):
            interact(console, p, slave, slave)
            codes.append(p.wait(10))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        screen = Screen(master)
        screen.type("hello\r")
        screen.expect("33 77")
        screen.expect("got hello")
        thread.join(10)
        assert codes == [4]
        assert termios.tcgetattr(slave) == before
    finally:
        thread.join(10)
        os.close(master)
        os.close(slave)


@pytest.mark.parametrize("lacking", ["devpts", "session"])
def test_what_a_terminal_needs(box, lacking):
    less = mc.Container(box.rootfs, features=[f for f in box.features if f.name != lacking])
    with mc.Console() as console, pytest.raises(mc.SpecError, match=lacking):
        less.with_(mc.Tty()).popen(["true"], console=console)


def test_a_terminal_and_no_console_or_the_other_way_round(box):
    with pytest.raises(mc.SpecError, match="Console"):
        box.with_(mc.Tty()).run(["true"])
    with mc.Console() as console, pytest.raises(mc.SpecError, match="tty"):
        box.run(["true"], console=console)


def test_a_program_that_is_not_found(box):
    with mc.Console() as console, pytest.raises(mc.CommandNotFound):
        box.with_(mc.Tty()).popen(["nosuch"], console=console)
