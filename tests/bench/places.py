"""What tests of environments ask of them."""

from __future__ import annotations

import contextlib
import fcntl
import subprocess
from collections.abc import Iterator

from bench.environments import registry
from bench.environments.base import Stage
from bench.environments.place import Place

__all__ = ["SERVER", "ask", "one_daemon", "prepared"]

SERVER = ("socat", "TCP-LISTEN:8000,fork,reuseaddr", "SYSTEM:echo hello")
LOCK = "/tmp/dockerd.lock"


@contextlib.contextmanager
def one_daemon() -> Iterator[None]:
    """One dockerd at a time on this machine, whoever tests."""
    with open(LOCK, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def ask(place: Place, way: str, address: str, port: int, *, seconds: int = 5) -> str:
    """What a client of the far machine, or of the machine itself, is answered within SECONDS."""
    argv = ["socat", f"-t{seconds}", f"-T{seconds}", "-", f"TCP:{address}:{port},connect-timeout={seconds}"]
    command = place.lan.command(argv, "client" if way == "client" else "host")
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=4 * seconds + 10
    )
    return done.stdout + done.stderr


def prepared(name: str, stage: Stage) -> Iterator[Place]:
    """The environment NAME, which must be to be had, and nothing of it afterwards: for fixtures."""
    it = registry.make(name, stage)
    assert it.unavailable() == ""
    it.prepare()
    try:
        yield it
    finally:
        assert list(it.cleanup()) == []
