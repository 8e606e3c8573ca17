"""The interactive half of ``minictr run``: a terminal of the container's own, tied to the caller's."""

from __future__ import annotations

import termios
import time

import pytest
from terminals import Terminal


@pytest.fixture
def terminal(minictr_cli, rootfs, requires):
    requires.root()
    opened = []

    def start(*words):
        opened.append(Terminal([*minictr_cli, "run", "--rootfs", str(rootfs), *words]))
        return opened[-1]

    yield start
    for each in opened:
        each.close()


SHELL = ("--", "bash", "--norc", "--noprofile", "-i")


def shell(terminal, *options):
    """An interactive shell whose prompt is told apart from the echo of what is typed."""
    term = terminal("-e", "PS1=ready> ", *options, *SHELL)
    term.expect("ready> ")
    return term


def test_a_shell_has_job_control_and_its_own_terminal(terminal):
    term = shell(terminal)
    assert "no job control" not in term.seen
    term.type("tty; stty size; echo $TERM\n")
    shown = term.expect("ready> ")
    assert "/dev/pts/0" in shown
    assert "30 100" in shown
    assert "xterm" in shown
    term.type("exit 5\n")
    assert term.end() == 5


def test_control_c_ends_the_job_and_not_the_shell(terminal):
    term = shell(terminal)
    term.type("sleep 60\n")
    time.sleep(0.3)
    term.type("\x03")
    term.expect("ready> ")
    term.type("echo code=$?\n")
    term.expect("code=130")
    term.type("sleep 60\n")
    time.sleep(0.3)
    term.type("\x1a")
    term.expect("Stopped")
    term.expect("ready> ")
    term.type("kill %1; exit 0\n")
    term.expect("exit")
    term.type("exit 0\n")
    assert term.end() == 0


def test_resizing_reaches_the_program(terminal):
    term = shell(terminal)
    term.resize(40, 132)
    time.sleep(0.3)
    term.type("stty size\n")
    term.expect("40 132")


def test_the_terminal_is_put_back(terminal):
    term = shell(terminal)
    assert termios.tcgetattr(term.slave) != term.before
    term.type("exit 0\n")
    assert term.end() == 0
    assert termios.tcgetattr(term.slave) == term.before


def test_killing_the_program_puts_the_terminal_back(terminal):
    term = shell(terminal)
    term.type("kill -9 $$\n")
    assert term.end() == 137
    assert termios.tcgetattr(term.slave) == term.before


def test_the_timeout_holds_on_a_terminal(terminal):
    term = terminal("--timeout", "0.5", "--", "sleep", "60")
    assert term.end() == 124
    assert termios.tcgetattr(term.slave) == term.before


def test_no_tty_leaves_the_callers_terminal(terminal):
    term = terminal("--no-tty", "--", "bash", "-c", "test -t 1 && echo yes; tty || echo mine=no")
    assert "yes" in term.expect("mine=no")


def test_without_a_terminal_none_is_made(run_cli, rootfs):
    done = run_cli("run", "--rootfs", rootfs, "tty")
    assert (done.returncode, done.stdout) == (1, "not a tty\n")


def test_a_terminal_can_be_had_without_having_one(run_cli, rootfs):
    done = run_cli("run", "-t", "--rootfs", rootfs, "--", "bash", "-c", "tty; exit 3")
    assert (done.returncode, done.stdout) == (3, "/dev/pts/0\n")


def test_input_from_a_pipe_ends_on_a_terminal_of_its_own(run_cli, rootfs):
    done = run_cli("run", "-it", "--rootfs", rootfs, "cat", input="one\n")
    assert done.returncode == 0
    assert "one" in done.stdout


def test_output_ends_whole_on_a_terminal(run_cli, rootfs):
    done = run_cli("run", "-t", "--rootfs", rootfs, "seq", "20000")
    assert done.stdout.split() == [str(number) for number in range(1, 20001)]


def test_a_console_that_nobody_has_open_at_times(run_cli, rootfs):
    """As init systems have it: opened for each word. Its writers are neither lost nor, when it is full, stuck."""
    script = "exec <&- >&- 2>&-; for i in 1 2 3; do sleep 0.2; seq 10000 >/dev/console; done; exit 3"
    done = run_cli("run", "-t", "--rootfs", rootfs, "--", "sh", "-c", script)
    assert done.returncode == 3
    assert done.stdout.split() == [str(number) for number in range(1, 10001)] * 3
