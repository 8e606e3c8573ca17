"""A program that failed in a network without a way out: the line that names the option, and when there is none."""

from __future__ import annotations

import pytest

from minictr.cli.verdict import unreachable

# bash sends a datagram: connect(2) looks for the route, whoever listens
SEND = "echo x >/dev/udp/192.0.2.1/9"
LATER = "sleep 0.5; "  # the counters are opened once the program runs: one that is over by then is told nothing
LINE = (
    "minictr {}: no route: 1 attempt to reach another host: "
    "its own network has no way out (--network bridge gives it one)\n"
)
COUNTERS = "Ip: Forwarding OutNoRoutes InCsum\nIp: 1 {} 0\nTcp: OutNoRoutes\nTcp: 7\n"


@pytest.fixture
def send(run_cli, rootfs, requires):
    """What minictr says after ``bash -c SCRIPT``; bash's own complaint taken off."""
    requires.root()

    def run(script, *options):
        done = run_cli("run", "--rootfs", rootfs, *options, "--", "bash", "-c", script)
        return done.returncode, [line for line in done.stderr.splitlines(keepends=True) if line.startswith("minictr")]

    return run


def test_it_failed_for_want_of_a_route(send):
    assert send(LATER + SEND) == (1, [LINE.format("run")])
    assert send(f"{LATER}{SEND}; {SEND}; exit 3")[1] == [LINE.format("run").replace("1 attempt", "2 attempts")]


@pytest.mark.parametrize(
    ("script", "code"),
    [
        (f"{SEND}; exit 0", 0),  # it can do without
        ("exit 3", 3),
        ("echo x >/dev/tcp/127.0.0.1/9", 1),  # refused: there is a route
    ],
)
def test_it_did_not(send, script, code):
    assert send(LATER + script) == (code, [])


def test_the_hosts_own_network_is_others_too(send):
    assert send(f"{LATER}exit 3", "--net", "host") == (3, [])


def test_one_more_program_answers_for_itself(detached, run_cli):
    detached("web", "bash", "-c", f"{SEND}; touch /tmp/sent; sleep 1000", options=("--tmpfs", "/tmp"))
    while run_cli("exec", "web", "test", "-e", "/tmp/sent").returncode:
        pass
    assert run_cli("exec", "web", "false").stderr == ""
    done = run_cli("exec", "web", "bash", "-c", f"{SEND} 2>/dev/null")
    assert (done.returncode, done.stderr.splitlines(keepends=True)[-1]) == (1, LINE.format("exec"))
    assert run_cli("exec", "--without", "net", "web", "bash", "-c", "exit 3").stderr == ""


def test_readings():
    none, two = COUNTERS.format(0).encode(), COUNTERS.format(2).encode()
    assert unreachable(b"", none) == unreachable(two, two) == unreachable(two, b"") == unreachable(b"", b"") == ""
    assert "2 attempts" in unreachable(b"", two)
    assert "2 attempts" in unreachable(none, two)
    assert unreachable(b"", b"Ip: OutNoRoutes\n") == unreachable(b"", b"Ip: A\nIp: 1\n") == ""
    assert unreachable(b"", b"\xff\nIp: OutNoRoutes\nIp: many\n") == ""
