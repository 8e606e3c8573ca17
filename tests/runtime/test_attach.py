"""Clients of a detached container: output, input, terminals, several at once, slow ones, dead ones, a held start."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable

import pytest
from detached import Detached, logged, over
from waiting import eventually

import minictr as mc
from minictr.errors import StepFailed
from minictr.runtime.attach import HELD, STDIN, Client, attach, start

Make = Callable[..., Detached]


def connected(one: Detached, *, stdin: bool = False) -> Client:
    client = Client(str(one.state))
    try:
        client.attach(stdin=stdin)
    except BaseException:
        client.close()
        raise
    return client


def everything(client: Client, seconds: float = 20) -> dict[str, bytes]:
    """All that comes until the container is over, by stream."""
    found = {"stdout": b"", "stderr": b""}
    while (packet := client.receive(seconds)) is not None:
        found[packet[0]] += packet[1]
    return found


# --- output and input ---


def test_output_and_end(detached: Make) -> None:
    one = detached(["bash", "-c", "read x; echo $x; echo bad >&2; exit 7"]).start(stdin=True)
    with connected(one, stdin=True) as client:
        assert client.flags == STDIN
        assert client.send(b"hello\n") == 6
        assert everything(client) == {"stdout": b"hello\n", "stderr": b"bad\n"}
        assert client.status == 7 << 8


def test_input_that_ends(detached: Make) -> None:
    """A pipe is closed for good: the next client is told that there is no input any more."""
    one = detached(["bash", "-c", "cat; echo ended; exec sleep 1000"]).start(stdin=True)
    with connected(one, stdin=True) as client, connected(one) as other:
        client.send(b"text")
        assert client.end_of_input()
        eventually(lambda: logged(one.state) == b"textended\n")
        assert other.flags == STDIN, "it was open then"
    with connected(one, stdin=True) as client:
        assert client.flags == 0


def test_a_client_that_leaves_ends_no_input(detached: Make) -> None:
    one = detached(["cat"]).start(stdin=True)
    with connected(one, stdin=True) as client:
        client.send(b"one\n")
    with connected(one, stdin=True) as client:
        client.send(b"two\n")
        client.end_of_input()
        client.wait(10)
    assert logged(one.state) == b"one\ntwo\n"


def test_who_did_not_ask_for_input_cannot_give_it(detached: Make) -> None:
    one = detached(["bash", "-c", "read x; echo got $x"]).start(stdin=True)
    with connected(one) as silent, connected(one, stdin=True) as client:
        silent.send(b"nothing\n")
        silent.end_of_input()
        time.sleep(0.1)
        client.send(b"something\n")
        assert everything(client)["stdout"] == b"got something\n"


def test_no_input_at_all(detached: Make) -> None:
    one = detached(["sleep", "1000"]).start()
    with connected(one, stdin=True) as client:
        assert client.flags == 0
        client.send(b"nobody takes it")
        time.sleep(0.1)
        assert not over(one.pidfd, 0)


def test_much_input(detached: Make) -> None:
    """More than pipe and socket hold together, both ways at once: the container decides how fast."""
    data = os.urandom(3_000_000)
    one = detached(["bash", "-c", "sleep 0.3; cat"]).start(stdin=True)
    reader, writer = os.pipe()
    out_reader, out_writer = os.pipe()

    def feed() -> None:
        with os.fdopen(writer, "wb") as file:
            file.write(data)

    def collect() -> None:
        with os.fdopen(out_reader, "rb") as file:
            got.append(file.read())

    got: list[bytes] = []
    threads = [threading.Thread(target=feed), threading.Thread(target=collect)]
    for thread in threads:
        thread.start()
    with Client(str(one.state)) as client:
        assert attach(client, reader, out_writer, -1) == 0
    os.close(out_writer)
    os.close(reader)
    for thread in threads:
        thread.join(20)
    assert got == [data]
    assert logged(one.state) == data


def test_a_signal_by_the_monitor(detached: Make) -> None:
    one = detached(["bash", "-c", "trap 'exit 12' USR2; echo ready; while :; do sleep 0.02; done"]).start()
    with connected(one) as client:
        eventually(lambda: logged(one.state))
        client.signal(signal.SIGUSR2)
        assert client.wait(10) == 12 << 8


def test_the_end_is_told_to_one_who_is_typing(detached: Make) -> None:
    """What the monitor has not read of ours when it leaves must not hide its last word."""
    for _ in range(10):
        one = detached(["bash", "-c", "read x; exit 8"]).start(stdin=True)
        with connected(one, stdin=True) as client:
            for _ in range(20):
                client.send(b"more\n")
            assert client.wait(10) == 8 << 8


# --- several, slow, dead ---


def test_two_clients_see_the_same(detached: Make) -> None:
    one = detached(["bash", "-c", "read x; seq 20000; exit 1"]).start(stdin=True)
    with connected(one) as first, connected(one, stdin=True) as second:
        seen: list[bytes] = []
        thread = threading.Thread(target=lambda: seen.append(everything(first)["stdout"]))
        thread.start()
        second.send(b"\n")
        seen.append(everything(second)["stdout"])
        thread.join(10)
        assert seen[0] == seen[1] == b"".join(b"%d\n" % number for number in range(1, 20001))
        assert first.status == second.status == 1 << 8
    assert logged(one.state) == seen[0]


def test_a_client_that_dies(detached: Make) -> None:
    """Amid a flood of output it is gone: nobody waits for it, and nothing is lost."""
    one = detached(["bash", "-c", "read x; seq 200000"]).start(stdin=True)
    client, dead = connected(one, stdin=True), connected(one)
    pid = os.fork()
    if pid == 0:
        dead.receive()
        os._exit(0)
    dead.close()
    with client:
        client.send(b"\n")
        os.waitpid(pid, 0)
        assert everything(client)["stdout"].endswith(b"\n200000\n")
    assert one.exit().lost == 0


@pytest.mark.timeout(60)
def test_a_slow_client_is_waited_for_and_then_dropped(detached: Make) -> None:
    """The container stands meanwhile, as before a terminal that shows nothing more; then it goes on without it."""
    one = detached(["bash", "-c", "read x; seq 200000"]).start(stdin=True)
    with connected(one) as slow, connected(one, stdin=True) as client:
        client.send(b"\n")
        began = time.monotonic()
        assert everything(client, 30)["stdout"].endswith(b"\n200000\n")
        assert 9 < time.monotonic() - began < 20
        with pytest.raises(StepFailed, match="did not read"):
            everything(slow, 5)
    assert logged(one.state).endswith(b"\n200000\n")


def test_a_client_that_is_slow_for_a_while(detached: Make) -> None:
    one = detached(["bash", "-c", "read x; seq 200000"]).start(stdin=True)
    with connected(one, stdin=True) as client:
        client.send(b"\n")
        time.sleep(2)
        assert not over(one.pidfd, 0), "it waits"
        assert everything(client)["stdout"] == b"".join(b"%d\n" % number for number in range(1, 200001))


def test_one_too_many(detached: Make) -> None:
    one = detached(["sleep", "1000"]).start()
    clients = [connected(one) for _ in range(16)]
    with pytest.raises(StepFailed, match="16 clients"):
        connected(one)
    clients.pop().close()
    eventually(lambda: not refused(one))
    for client in clients:
        client.close()


def refused(one: Detached) -> bool:
    try:
        connected(one).close()
    except StepFailed:
        return True
    return False


@pytest.mark.parametrize(
    "packet", [b"", b"a", b"axx", b"w\0", b"s?", b"e", b"i", b"\xff" * 100, b"i" + bytes(16384), b"i" + bytes(20000)]
)
def test_nonsense_does_no_harm(detached: Make, packet: bytes) -> None:
    one = detached(["sleep", "1000"]).start(stdin=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as raw:
        raw.connect(str(one.state / "attach"))
        raw.send(packet)
        try:
            raw.send(packet)
        except BrokenPipeError:
            pass  # the first one was enough
    with connected(one) as client:
        assert client.flags == STDIN


def test_a_stranger_is_turned_away(detached: Make) -> None:
    """The directory keeps strangers out; should one get in, the monitor knows its user."""
    one = detached(["sleep", "1000"]).start()
    directory = os.open(one.state, os.O_PATH | os.O_DIRECTORY)
    os.chmod(one.state / "attach", 0o666)
    pid = os.fork()
    if pid == 0:
        os.chmod(f"/proc/self/fd/{directory}", 0o711)
        os.fchdir(directory)
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as raw:
            raw.connect("attach")
            try:
                raw.send(b"a\0")
                os._exit(0 if raw.recv(10) == b"" else 1)
            except OSError:
                os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    os.close(directory)


def test_nobody_listens(detached: Make, tmp_path: os.PathLike[str]) -> None:
    one = detached(["true"]).start()
    one.exit()
    with pytest.raises(StepFailed, match="not running"):
        Client(str(one.state))
    with pytest.raises(FileNotFoundError):
        Client(f"{tmp_path}/missing")


def test_a_monitor_that_is_killed(detached: Make) -> None:
    one = detached(["sleep", "1000"]).start()
    with connected(one) as client:
        os.kill(one.monitor_pid, signal.SIGKILL)
        with pytest.raises(StepFailed, match="was killed"):
            client.wait(5)


def test_a_long_path(detached: Make, tmp_path: os.PathLike[str]) -> None:
    """sockaddr_un has 108 bytes for it."""
    one = detached(["sleep", "1000"]).start()
    far = os.path.join(tmp_path, "x" * 100, "y" * 100)
    os.makedirs(os.path.dirname(far))
    os.symlink(one.state, far)
    with Client(far) as client:
        client.attach()


# --- what was held ---


def test_a_start_of_what_was_held(detached: Make) -> None:
    one = detached(["bash", "-c", "echo ran; exit 6"], hold=True).start()
    with connected(one) as client:
        assert client.flags & HELD
        start(client)
        assert everything(client)["stdout"] == b"ran\n"
        assert client.status == 6 << 8
    assert one.exit().elapsed < 5_000_000_000, "counted from its start, not from its creation"


def test_a_second_start(detached: Make) -> None:
    one = detached(["sleep", "1000"], hold=True).start()
    with Client(str(one.state)) as client:
        start(client)
        eventually(lambda: not connected_flags(one) & HELD)
        with pytest.raises(StepFailed, match="has been started already"):
            start(client)


def connected_flags(one: Detached) -> int:
    with connected(one) as client:
        return client.flags


def test_a_client_that_died_before_it_wrote_the_byte(detached: Make) -> None:
    """The container stays held, and another starts it."""
    one = detached(["bash", "-c", "exit 6"], hold=True).start()
    with Client(str(one.state)) as client:
        for fd in client.take_hold():
            os.close(fd)
    time.sleep(0.1)
    with connected(one) as client:
        assert client.flags & HELD
        start(client)
        assert client.wait(10) == 6 << 8


def test_a_start_that_fails(detached: Make, box: mc.Container) -> None:
    one = detached(["/etc/nothing"], hold=True).start()
    with Client(str(one.state)) as client, pytest.raises(mc.CommandNotFound, match="no such file in the container"):
        start(client, spec=box.spec(["/etc/nothing"]))
    assert os.waitstatus_to_exitcode(one.exit().status) == 125
    one = detached(["/etc/passwd"], hold=True).start()
    with Client(str(one.state)) as client, pytest.raises(mc.CommandNotExecutable, match="chmod"):
        start(client, spec=box.spec(["/etc/passwd"]))
    one = detached(["/etc/passwd"], hold=True).start()
    with Client(str(one.state)) as client, pytest.raises(StepFailed, match="exec"):
        start(client)
