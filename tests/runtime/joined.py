"""What tests of joining share: the target that a library's container is, and what a process is confined by."""

from __future__ import annotations

import os

import pytest

import minictr as mc
from minictr.runtime.join import Target, exec_run

STATUS = ("Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Umask")


def namespaces(pid: int) -> dict[str, str]:
    return {name: os.readlink(f"/proc/{pid}/ns/{name}") for name in os.listdir(f"/proc/{pid}/ns")}


def status(pid: int) -> dict[str, str]:
    with open(f"/proc/{pid}/status") as file:
        rows = (line.partition(":") for line in file)
        return {name: value.strip() for name, _, value in rows if name in STATUS}


def text(pid: int, name: str) -> str:
    with open(f"/proc/{pid}/{name}") as file:
        return file.read()


def target_of(process: mc.Process, box: mc.Container) -> Target:
    """A library's container as a target: its cgroups are those that its start made."""
    places = {} if process.aftermath is None else {place.controller: place for place in process.aftermath.places}
    return Target(process.pid, box.spec(), process.pidfd, places)


@pytest.fixture
def inside(box):
    """``inside(box)``: the target of a container that sleeps."""
    open_ones = []

    def start(which: mc.Container = box, args: tuple[str, ...] = ("sleep", "100"), **options: object) -> Target:
        open_ones.append(which.popen(args, **options))
        return target_of(open_ones[-1], which)

    yield start
    for process in open_ones:
        process.close()


def said(target: Target, script: str, *, code: int = 0, **options: object) -> str:
    done = exec_run(target, ["bash", "-c", script], capture_output=True, text=True, timeout=30, **options)
    assert done.returncode == code, f"{done.returncode}: {done.stdout}{done.stderr}"
    return str(done.stdout).strip()
