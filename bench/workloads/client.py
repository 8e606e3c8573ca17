"""The far end of a wire: a program of the host's, in the client's network namespace or on the machine itself."""

from __future__ import annotations

import os
import resource
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence

from bench.environments.base import Environment, EnvironmentBroken, Ran, Running
from bench.workloads.base import ENVIRONMENT, WrongResult, last_words

WAYS = ("client", "host", "local")


def address(running: Running, way: str, name: str) -> str:
    """Whom a client asks that comes by WAY. Raises EnvironmentBroken where the environment NAME has no such way."""
    if way not in running.addresses:
        raise EnvironmentBroken(f"{name}: a server in it is not reached by the way {way!r}")
    return running.addresses[way]


def run(environment: Environment, way: str, argv: Sequence[str], timeout: float) -> dict[str, float]:
    """Run ARGV on the client ("client") or on the machine (any other WAY): its wall_s, and its own share as client_*.

    Raises WrongResult when it fails or takes longer than TIMEOUT seconds.
    """
    command = environment.lan.command(argv, "client" if way == "client" else "host")
    with tempfile.TemporaryFile() as said:
        began = time.perf_counter()
        process = subprocess.Popen(
            command, env=ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True
        )
        try:
            in_time = _ended(process.pid, timeout)
        finally:
            wall = time.perf_counter() - began
            usage = _collect(process)
        said.seek(0)
        if not in_time:
            raise WrongResult(f"{argv[0]} had not ended after {timeout:.0f} s: {last_words(said.read())}")
        if process.returncode:
            raise WrongResult(f"{argv[0]} left with {process.returncode}: {last_words(said.read())}")
    return {"wall_s": wall, "client_user_s": usage.ru_utime, "client_system_s": usage.ru_stime}


def _ended(pid: int, timeout: float) -> bool:
    fd = os.pidfd_open(pid)
    try:
        return bool(select.select([fd], [], [], timeout)[0])
    finally:
        os.close(fd)


def _collect(process: subprocess.Popen[bytes]) -> resource.struct_rusage:
    """Kill what has not ended, with all of its session, and take the process's figures."""
    if not _ended(process.pid, 0):
        os.killpg(process.pid, signal.SIGKILL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage


def together(client: dict[str, float], server: Ran) -> dict[str, float]:
    """The values of a sample: the wall time is the client's, the rest is of the server's job."""
    of_server = {f"server_{name}" if name == "wall_s" else name: value for name, value in server.values.items()}
    return {**of_server, **client}
