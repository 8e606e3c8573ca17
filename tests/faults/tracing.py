"""strace as a tool of tests: which system calls were made, and one of them made to fail. strace(1), "Tampering"."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path

import pytest

Case = tuple[str, int, str]  # system call, which one of them (from 1), error

ERRORS = ("EPERM", "EIO", "ENOMEM")
CALL = re.compile(r"^(\d+) +(\w+)\(")
# Without consequence by definition (their result is not looked at), and what only a clock or a lock is asked with.
HARMLESS = frozenset({"clock_gettime", "exit_group", "exit", "futex", "restart_syscall", "wait4", "rt_sigtimedwait"})


def attach(pid: int, *options: str) -> subprocess.Popen[bytes]:
    """strace on PID, once it is really attached."""
    with tempfile.TemporaryFile() as complaint:
        command = ["strace", "-qq", *options, "-p", str(pid)]
        tracer = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=complaint)
        deadline = time.monotonic() + 10
        # a zombie: what it was waiting in was made to fail at once, so it has been traced
        while not traced(pid) and stat(pid).rpartition(")")[2].split()[0] != "Z":
            if tracer.poll() is not None or time.monotonic() > deadline:
                complaint.seek(0)
                pytest.fail(f"strace cannot attach: {complaint.read().decode()} {stat(pid)}")
            time.sleep(0.0005)
    return tracer


def stat(pid: int) -> str:
    with open(f"/proc/{pid}/stat") as file:
        return file.read()


def traced(pid: int) -> bool:
    with open(f"/proc/{pid}/status") as file:
        return any(line.startswith("TracerPid") and line.split()[1] != "0" for line in file)


def injection(case: Case) -> tuple[str, ...]:
    """Options that make one call fail; nothing is written anywhere."""
    call, number, error = case
    return "-e", f"trace={call}", "-e", f"inject={call}:error={error}:when={number}", "-o", "/dev/null"


def calls(log: Path) -> dict[int, list[str]]:
    """Thread -> names of the system calls it made, in order, from a log written with -f."""
    found: dict[int, list[str]] = {}
    for line in log.read_text().splitlines():
        hit = CALL.match(line)
        if hit:
            found.setdefault(int(hit[1]), []).append(hit[2])
    return found


def cases(made: list[list[str]], every_error: frozenset[str], stride: int) -> list[Case]:
    """Each (call, number) of each thread once: with all three errors for EVERY_ERROR, else with one of them in turn.
    Of calls that are made more than twenty times, which loops do, each STRIDE-th."""
    most: Counter[str] = Counter()
    for names in made:
        for name, count in Counter(names).items():
            most[name] = max(most[name], count)
    found: list[Case] = []
    for name in sorted(set(most) - HARMLESS):
        for number in range(1, most[name] + 1, stride if most[name] > 20 else 1):
            errors = ERRORS if name in every_error else (ERRORS[len(found) % 3],)
            found += [(name, number, error) for error in errors]
    return found


def finish(tracer: subprocess.Popen[bytes]) -> None:
    """The tracer is gone; it ends by itself when all it traced have ended."""
    try:
        tracer.wait(5)
    except subprocess.TimeoutExpired:
        tracer.terminate()  # it lets go of what still runs
        tracer.wait(5)


def children() -> list[str]:
    """Pids of our children, zombies included."""
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return file.read().split()
