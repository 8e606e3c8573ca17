"""A terminal at both ends of an attach: sizes, keys, signals, and what hangs up."""

from __future__ import annotations

import os
import pty
import select
import signal
import struct
import termios
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from detached import Detached, logged, over
from test_terminal import Screen
from waiting import eventually

import minictr as mc
from minictr.runtime.attach import STDIN, TERMINAL, Client, attach
from minictr.runtime.terminal import DetachKeys, parse_detach_keys

Make = Callable[..., Detached]


def connected(one: Detached, *, stdin: bool = False) -> Client:
    client = Client(str(one.state))
    try:
        client.attach(stdin=stdin)
    except BaseException:
        client.close()
        raise
    return client


# --- terminals ---


@pytest.fixture
def terminal() -> Iterator[tuple[Screen, int]]:
    """The caller's terminal, of 33 rows and 77 columns: what is on it, and its descriptor."""
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (33, 77))
    yield Screen(master), slave
    os.close(master)
    os.close(slave)


@pytest.fixture
def on_terminal(detached: Make, box: mc.Container) -> Callable[..., Detached]:
    def make(script: str, **options: object) -> Detached:
        return detached(["bash", "--norc", "-c", script], box.with_(mc.Tty()), **options).start()

    return make


class Attached:
    """attach() in a thread, on a terminal."""

    def __init__(self, one: Detached, slave: int, **options: object) -> None:
        self.ends: list[int | None] = []

        def run() -> None:
            with Client(str(one.state)) as client:
                self.ends.append(attach(client, slave, slave, -1, **options))

        self.thread = threading.Thread(target=run)
        self.thread.start()

    def end(self) -> int | None:
        self.thread.join(15)
        (end,) = self.ends
        return end


def test_a_terminal(on_terminal: Callable[..., Detached], terminal: tuple[Screen, int]) -> None:
    """Its size is the caller's, Ctrl-C is the container's own, and the caller's is as it was afterwards."""
    screen, slave = terminal
    before = termios.tcgetattr(slave)
    one = on_terminal(
        "trap 'echo caught; stty size; read x; echo got $x; exit 4' INT; echo on; while :; do sleep 0.02; done"
    )
    eventually(lambda: b"on\r\n" in logged(one.state))
    attached = Attached(one, slave)
    eventually(lambda: termios.tcgetattr(slave) != before)
    screen.type("\x03")
    screen.expect("caught")
    screen.expect("33 77")
    screen.type("typed\r")
    screen.expect("got typed")
    assert attached.end() == 4 << 8
    assert termios.tcgetattr(slave) == before
    assert b"33 77" in logged(one.state)


def test_sizes(on_terminal: Callable[..., Detached]) -> None:
    one = on_terminal("echo on; while :; do stty size; sleep 0.05; done")
    with connected(one) as client:
        assert client.flags == TERMINAL | STDIN
        eventually(lambda: b"on\r\n" in logged(one.state))
        for rows, columns in ((10, 20), (200, 300)):
            client.resize(rows, columns)
            wanted = b"%d %d\r\n" % (rows, columns)
            eventually(lambda: wanted in logged(one.state), what=lambda: logged(one.state))  # noqa: B023


def test_detach_keys(on_terminal: Callable[..., Detached], terminal: tuple[Screen, int]) -> None:
    screen, slave = terminal
    before = termios.tcgetattr(slave)
    one = on_terminal("while read x; do echo got $x; done")
    attached = Attached(one, slave)
    eventually(lambda: termios.tcgetattr(slave) != before)
    screen.type("one\r")
    screen.expect("got one")
    screen.type("\x10\x11")
    assert attached.end() is None
    assert termios.tcgetattr(slave) == before
    assert not over(one.pidfd, 0)
    attached = Attached(one, slave, keys="ctrl-],x")
    eventually(lambda: termios.tcgetattr(slave) != before)
    screen.type("two\r")
    screen.expect("got two")
    screen.type("\x10\x11\r\x1dx")
    assert attached.end() is None


def test_input_of_a_terminal_ends(on_terminal: Callable[..., Detached]) -> None:
    """The end of a file that is typed into a terminal is its end-of-file character."""
    one = on_terminal("cat; echo ended; exit 3")
    with connected(one, stdin=True) as client:
        client.send(b"text\n")
        client.end_of_input()
        assert client.wait(10) == 3 << 8
    assert b"ended" in logged(one.state)


def test_a_terminal_that_everybody_closed(on_terminal: Callable[..., Detached]) -> None:
    """As a getty or an init of a whole system does: whoever opens it next is heard."""
    one = on_terminal(
        "echo first; exec > /dev/null 2>&1 < /dev/null; sleep 0.5; echo second > /dev/console; sleep 1000"
    )
    eventually(lambda: b"second" in logged(one.state))
    ticks = cpu_ticks(one.monitor_pid)
    time.sleep(0.5)
    assert cpu_ticks(one.monitor_pid) - ticks < 5, "it waits, and does not spin"


def cpu_ticks(pid: int) -> int:
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_the_last_words_of_a_terminal(on_terminal: Callable[..., Detached]) -> None:
    one = on_terminal("seq 5000; printf last")
    one.exit()
    assert logged(one.state).replace(b"\r\n", b"\n") == b"".join(b"%d\n" % n for n in range(1, 5001)) + b"last"


def test_the_monitor_ends_and_so_does_the_session(on_terminal: Callable[..., Detached]) -> None:
    one = on_terminal("sleep 1000")
    os.kill(one.monitor_pid, signal.SIGKILL)
    assert over(one.pidfd, 5), "a terminal hangs up"


# --- a program around it ---


@pytest.mark.parametrize(("proxy", "end"), [(True, 5 << 8), (False, None)])
def test_signals_go_on(detached: Make, proxy: bool, end: int | None) -> None:
    one = detached(["bash", "-c", "trap 'exit 5' TERM; echo ready; while :; do sleep 0.02; done"]).start()
    eventually(lambda: logged(one.state))
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    null = os.open(os.devnull, os.O_WRONLY)
    with Client(str(one.state)) as client:
        assert attach(client, -1, null, null, sig_proxy=proxy) == end
    os.close(null)
    timer.join()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert over(one.pidfd, 5 if proxy else 0) is proxy


# --- keys ---


@pytest.mark.parametrize(
    ("text", "keys"),
    [("ctrl-p,ctrl-q", b"\x10\x11"), ("a", b"a"), ("ctrl-@,ctrl-_,ctrl-[", b"\0\x1f\x1b"), ("DEL", b"\x7f"), ("", b"")],
)
def test_keys_are_written_as_docker_writes_them(text: str, keys: bytes) -> None:
    assert parse_detach_keys(text) == keys


@pytest.mark.parametrize("text", ["ctrl-", "ctrl-P", "ctrl-1", "ab", "a,,b", "del", "é", "ctrl-p,"])
def test_keys_that_are_none(text: str) -> None:
    with pytest.raises(mc.SpecError, match="detach keys"):
        parse_detach_keys(text)


@pytest.mark.parametrize(
    ("typed", "passed", "found"),
    [
        ([b"abc"], b"abc", False),
        ([b"a\x10", b"\x11b"], b"a", True),
        ([b"a\x10", b"b\x11"], b"a\x10b\x11", False),
        ([b"\x10", b"\x10", b"\x11"], b"\x10", True),
        ([b"\x10"], b"", False),
        ([b"x\x10\x11rest"], b"x", True),
    ],
)
def test_keys_among_others(typed: list[bytes], passed: bytes, found: bool) -> None:
    keys = DetachKeys(b"\x10\x11")
    answers = [keys.feed(data) for data in typed]
    assert b"".join(data for data, _ in answers) == passed
    assert answers[-1][1] is found


def test_no_keys() -> None:
    assert DetachKeys(b"").feed(b"\x10\x11") == (b"\x10\x11", False)


def test_the_window_size_struct() -> None:
    """What `w` carries is rows and columns, 16 bits each."""
    assert struct.calcsize("=HH") == 4
    assert select.POLLIN == 1, "as monitor.h has it"
