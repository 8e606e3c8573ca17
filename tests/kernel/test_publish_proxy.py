"""The proxy of published ports by itself, on the loopback device: what it passes on, what it is, when it ends."""

from __future__ import annotations

import hashlib
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from minictr.errors import StepFailed
from minictr.kernel import publish_proxy
from minictr.kernel.publish_proxy import Port
from minictr.kernel.stub import sealed_proxy

LOOPBACK = "127.0.0.1"


@pytest.fixture(autouse=True, scope="module")
def _kept() -> None:
    sealed_proxy()  # the one descriptor that a process keeps


@contextmanager
def proxy(*ports: Port) -> Iterator[int]:
    """The pid of a proxy of PORTS, that ends with a process of the test's."""
    with subprocess.Popen(["sleep", "1000"]) as watched:
        watch = os.pidfd_open(watched.pid)
        try:
            pid, pidfd, report = publish_proxy.spawn(ports, watch, "lab")
            try:
                publish_proxy.until_bound(ports, report)
                yield pid
            finally:
                watched.kill()
                assert select.select([pidfd], [], [], 10)[0], "the proxy outlives what it was started for"
                os.close(pidfd)
                os.close(report)
        finally:
            watched.kill()
            os.close(watch)


def free(kind: int = socket.SOCK_STREAM, address: str = LOOPBACK) -> int:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind) as found:
        found.bind((address, 0))
        return int(found.getsockname()[1])


@contextmanager
def pair() -> Iterator[tuple[socket.socket, Callable[[], socket.socket], int]]:
    """A listening server, how a client connects by the proxy, and the proxy's pid."""
    with socket.create_server((LOOPBACK, 0), backlog=1024) as server:
        port = free()
        with proxy(Port("tcp", LOOPBACK, port, LOOPBACK, server.getsockname()[1])) as pid:
            yield server, lambda: socket.create_connection((LOOPBACK, port), 10), pid


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def settles(expected: int, pid: int) -> bool:
    deadline = time.monotonic() + 10
    while descriptors(pid) > expected and time.monotonic() < deadline:
        time.sleep(0.01)
    return descriptors(pid) <= expected


def test_each_way_ends_by_itself() -> None:
    """The client says it has no more; the server hears that, and its answer still comes."""
    with pair() as (server, connect, _), connect() as client:
        accepted, _address = server.accept()
        with accepted:
            client.sendall(b"question")
            client.shutdown(socket.SHUT_WR)
            assert accepted.recv(100) == b"question"
            assert accepted.recv(100) == b""
            accepted.sendall(b"answer")
            assert client.recv(100) == b"answer"
        assert client.recv(100) == b""


def test_a_stream_is_whole_both_ways_at_once() -> None:
    size, block = 32 << 20, os.urandom(1 << 16)
    with pair() as (server, connect, _), connect() as client:
        accepted, _address = server.accept()
        digests: dict[str, str] = {}

        def send(end: socket.socket) -> None:
            for _ in range(size // len(block)):
                end.sendall(block)
            end.shutdown(socket.SHUT_WR)

        def receive(end: socket.socket, name: str) -> None:
            digest = hashlib.sha256()
            while data := end.recv(1 << 16):
                digest.update(data)
            digests[name] = digest.hexdigest()

        with accepted:
            threads = [threading.Thread(target=send, args=(end,)) for end in (client, accepted)]
            threads += [threading.Thread(target=receive, args=(end, str(end.fileno()))) for end in (client, accepted)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
        expected = hashlib.sha256(block * (size // len(block))).hexdigest()
        assert list(digests.values()) == [expected, expected]


def test_who_does_not_read_holds_back_who_sends() -> None:
    """What is under way is bounded, and nobody spins meanwhile: the proxy takes next to no time while it waits."""
    with pair() as (server, connect, pid), connect() as client:
        accepted, _address = server.accept()
        with accepted:
            client.setblocking(False)
            sent = 0
            while select.select([], [client], [], 0.5)[1]:
                sent += client.send(bytes(1 << 16))
            assert sent < 64 << 20  # the kernel's buffers of two connections and a pipe

            def ticks() -> int:
                return sum(map(int, Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]))

            before = ticks()
            client.close()  # its end is behind all that: still nothing to do
            time.sleep(0.5)
            assert ticks() - before < 10  # of 50
            received = 0
            while data := accepted.recv(1 << 20):
                received += len(data)
            assert received == sent


def test_a_reset_is_passed_on() -> None:
    with pair() as (server, connect, pid):
        before = descriptors(pid)
        client = connect()
        accepted, _address = server.accept()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        with accepted, pytest.raises(ConnectionResetError):
            accepted.recv(1)
        client = connect()
        accepted, _address = server.accept()
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        accepted.close()
        with client, pytest.raises(ConnectionResetError):
            client.recv(1)
        assert settles(before + 64, pid)  # pipes that are kept for the next


def test_nobody_listens() -> None:
    port = free()
    with (
        proxy(Port("tcp", LOOPBACK, port, LOOPBACK, free())),
        pytest.raises(ConnectionResetError),  # by the first read, or so early that connect tells it
        socket.create_connection((LOOPBACK, port), 10) as client,
    ):
        client.recv(1)


# A proxy that may have 400 descriptors, for as long as this script's standard input is open.
FEW = """
import os, subprocess, sys
from minictr.kernel import publish_proxy as p
ports = (p.Port("tcp", "127.0.0.1", int(sys.argv[1]), "127.0.0.1", int(sys.argv[2])),)
pid, _, report = p.spawn(ports, os.pidfd_open(os.getpid()))
p.until_bound(ports, report)
print(pid, flush=True)
sys.stdin.read()
"""


def test_many_connections_and_few_descriptors() -> None:
    """More clients than the proxy has descriptors for: the others wait, all are served, and none is left open."""
    port = free()
    with socket.create_server((LOOPBACK, 0), backlog=1024) as server:
        words = [sys.executable, "-P", "-c", FEW, str(port), str(server.getsockname()[1])]
        command = ["sh", "-c", 'ulimit -n 400; exec "$@"', "sh", *words]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as starter:
            assert starter.stdin is not None and starter.stdout is not None
            pid = int(starter.stdout.readline())
            clients = [socket.create_connection((LOOPBACK, port), 30) for _ in range(300)]

            def serve() -> None:
                for _ in clients:
                    accepted, _address = server.accept()
                    with accepted:
                        accepted.sendall(accepted.recv(100)[::-1])

            thread = threading.Thread(target=serve)
            thread.start()
            for number, client in enumerate(clients):
                client.sendall(f"{number:05}".encode())
            for number, client in enumerate(clients):
                with client:
                    assert client.recv(100).decode() == f"{number:05}"[::-1]
            thread.join(30)
            assert descriptors(pid) <= 400
            assert settles(4 + 64, pid)  # pipes that are kept for the next
            starter.stdin.close()


@pytest.mark.parametrize("listens", [LOOPBACK, "::1"])
def test_datagrams(listens: str) -> None:
    """Each client has its own answers, by either kind of address; of 1,100 the oldest makes room, and comes anew."""
    family = socket.AF_INET6 if ":" in listens else socket.AF_INET
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((LOOPBACK, 0))
        server.settimeout(10)
        port = free(socket.SOCK_DGRAM, listens)
        with proxy(Port("udp", listens, port, LOOPBACK, server.getsockname()[1])) as pid:
            before = descriptors(pid)
            for size in (0, 1, 60000):
                with socket.socket(family, socket.SOCK_DGRAM) as client:
                    client.settimeout(10)
                    client.connect((listens, port))
                    client.send(bytes(size))
                    data, peer = server.recvfrom(1 << 16)
                    server.sendto(data + b"!", peer)
                    assert client.recv(1 << 16) == bytes(size) + b"!"
            for number in range(1100):
                with socket.socket(family, socket.SOCK_DGRAM) as client:
                    client.settimeout(10)
                    client.connect((listens, port))
                    client.send(b"%d" % number)
                    data, peer = server.recvfrom(100)
                    server.sendto(data, peer)
                    assert client.recv(100) == b"%d" % number
            assert descriptors(pid) <= before + 1024


def test_the_answer_comes_from_the_address_that_was_written_to() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((LOOPBACK, 0))
        port = free(socket.SOCK_DGRAM, "0.0.0.0")
        with (
            proxy(Port("udp", "0.0.0.0", port, LOOPBACK, server.getsockname()[1])),
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
        ):
            client.settimeout(10)
            client.sendto(b"x", ("127.0.0.7", port))
            data, peer = server.recvfrom(100)
            server.sendto(data, peer)
            assert client.recvfrom(100) == (b"x", ("127.0.0.7", port))


def test_it_has_nothing_but_its_sockets() -> None:
    port = free()
    with proxy(Port("tcp", LOOPBACK, port, LOOPBACK, port), Port("udp", LOOPBACK, port, LOOPBACK, port)) as pid:
        status = dict(
            row.split(":\t", 1) for row in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in row
        )
        assert [status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")] == ["0" * 16] * 4
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
        assert settles(4, pid)  # it has told how it went a moment ago
        assert int(status["VmRSS"].split()[0]) < 300  # KiB
        links = sorted(os.readlink(f"/proc/{pid}/fd/{fd}").partition(":")[0] for fd in os.listdir(f"/proc/{pid}/fd"))
        assert [name for name in links if not name.startswith("anon_inode")] == ["socket", "socket"]
        assert len(links) == 4  # and epoll, and the pidfd
        assert Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0") == b"minictr-proxy lab"
        assert os.readlink(f"/proc/{pid}/cwd") == "/"


def test_a_port_that_is_taken() -> None:
    with socket.create_server((LOOPBACK, 0)) as other:
        port = other.getsockname()[1]
        with (
            pytest.raises(StepFailed, match=rf"bind 127\.0\.0\.1:{port}/tcp: EADDRINUSE"),
            proxy(
                Port("udp", LOOPBACK, free(socket.SOCK_DGRAM), LOOPBACK, 1), Port("tcp", LOOPBACK, port, LOOPBACK, 1)
            ),
        ):
            pass


def test_it_gives_its_ports_back_at_once() -> None:
    port = free()
    for _ in range(3):
        with proxy(Port("tcp", LOOPBACK, port, LOOPBACK, 1), Port("udp", LOOPBACK, port, LOOPBACK, 1)):
            pass


def test_a_signal_that_ends_ordinary_programs_does_not_end_it() -> None:
    with pair() as (server, connect, pid):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
            os.kill(pid, number)
        with connect() as client:
            server.accept()[0].close()
            assert client.recv(1) == b""
