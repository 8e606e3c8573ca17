"""What the tests of cgroups share: groups that end with the test, and small programs in them.

Limits that kill are tried on programs that are bounded themselves, inside a group whose limit was read back first.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from minictr.kernel import cgroup_tasks, cgroups
from minictr.kernel.cgroups import Place

Group = Callable[..., Place]


def given(directory: str) -> list[str]:
    """What a v2 group gives to those below it; nothing for v1."""
    try:
        with open(f"{directory}/cgroup.subtree_control") as file:
            return file.read().split()
    except FileNotFoundError:
        return []


class Groups:
    """Makes groups below this process's own, of one name for a test, and takes them back."""

    def __init__(self) -> None:
        self.name = f"mctest-{os.getpid()}"
        self.places: list[Place] = []
        tops = [each for each in cgroups.hierarchies() if each.version == 2 and each.own]
        self.before = {each.own: given(each.own) for each in tops}

    def __call__(self, controller: str, name: str = "", **settings: Any) -> Place:
        if not cgroups.has(controller):
            pytest.skip(f"this machine has no {controller} controller")
        place = cgroups.locate(controller, "/".join(filter(None, (self.name, name))))
        cgroups.create(place)
        self.places.append(place)
        if settings:
            cgroups.write(place, **settings)
        return place

    def close(self) -> None:
        tops = {place.base + "/" + self.name: place for place in self.places}
        cgroups.kill([place.replace(directory=top) for top, place in tops.items()])
        for top in tops:
            cgroups.remove(top, recorded=True)
        for own, before in self.before.items():
            for controller in set(given(own)) - set(before):
                with open(f"{own}/cgroup.subtree_control", "w") as file:
                    file.write(f"-{controller}")


@contextmanager
def groups() -> Iterator[Groups]:
    found = Groups()
    try:
        yield found
    finally:
        found.close()


class Program(subprocess.Popen[str]):
    """A process that does not outlive its ``with``."""

    def __exit__(self, *exception: Any) -> None:
        self.kill()
        super().__exit__(*exception)


def start(program: str, *places: Place, **options: Any) -> Program:
    """Run a Python program, its process in PLACES before its first instruction."""

    def enter() -> None:
        for place in places:
            cgroup_tasks.add(place)

    command = [sys.executable, "-I", "-S", "-c", program]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return Program(command, preexec_fn=enter, **{**pipes, **options})


def outcome(program: str, *places: Place, timeout: float = 30) -> tuple[int, str]:
    """(return code, output) of a program that ran in PLACES."""
    with start(program, *places) as process:
        try:
            output, _ = process.communicate(timeout=timeout)
        finally:
            process.kill()
    return process.returncode, output


def text(place: Place, file: str) -> str:
    with open(f"{place.directory}/{file}") as opened:
        return opened.read().strip()


def block_device() -> tuple[int, int]:
    """A whole disk of this machine."""
    for name in sorted(os.listdir("/sys/block"), key=lambda name: name.startswith(("loop", "ram", "zram"))):
        with open(f"/sys/block/{name}/dev") as file:
            major, minor = file.read().split(":")
        return int(major), int(minor)
    pytest.skip("no disk")


def disk_of(path: Path) -> tuple[int, int]:
    """The whole disk that a file is on."""
    device = path.stat().st_dev
    if os.major(device) == 0:
        pytest.skip("temporary files are not on a disk")
    place = Path(os.path.realpath(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}"))
    whole = place.parent if (place / "partition").exists() else place
    major, minor = (whole / "dev").read_text().split(":")
    return int(major), int(minor)
