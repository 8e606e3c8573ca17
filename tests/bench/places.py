"""What tests of environments ask of them."""

from __future__ import annotations

import contextlib
import fcntl
import subprocess
from collections.abc import Iterator

from bench.environments import registry
from bench.environments.base import Stage
from bench.environments.place import Place

__all__ = ["ask", "one_daemon", "prepared"]

LOCK = "/tmp/dockerd.lock"


@contextlib.contextmanager
def one_daemon() -> Iterator[None]:
    """One dockerd at a time on this machine, whoever tests."""
    with open(LOCK, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def ask(place: Place, way: str, address: str, port: int) -> str:
    """What a client of the far machine, or of the machine itself, is answered."""
    argv = ["socat", "-T5", "-", f"TCP:{address}:{port},connect-timeout=5"]
    command = place.lan.command(argv, "client" if way == "client" else "host")
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False)
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
