"""The launcher itself: what comes back from a guest, and that nothing of one stays, however it ends."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import guest
import pytest

pytestmark = [pytest.mark.beside, pytest.mark.guest, pytest.mark.slow, pytest.mark.usefixtures("guest_kernel")]


@pytest.fixture(autouse=True)
def _nothing_left(monkeypatch: pytest.MonkeyPatch) -> Any:
    """No directory of a guest that this test booted, and no process with that directory in its arguments."""
    exchanges: list[Path] = []
    booted = guest.booted
    monkeypatch.setattr(guest, "booted", lambda exchange, *rest: exchanges.append(exchange) or booted(exchange, *rest))
    yield
    for exchange in exchanges:
        gone(exchange)


def gone(exchange: Path) -> None:
    assert not exchange.exists()
    deadline = time.monotonic() + 5  # one that was killed is there until the kernel has taken it apart
    while (left := those_of(exchange)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left


def those_of(exchange: Path) -> list[str]:
    """The processes with that directory in their arguments."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if bytes(exchange) in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


def test_what_was_written_before_the_kernel_died_is_told() -> None:
    """And what was written to a file of this machine is not here, though it is there."""
    mark = guest.ROOT / "written-in-a-guest"
    script = f"id -u; pwd; echo kept >{mark}; cat {mark}; echo c >/proc/sysrq-trigger; sleep 9"
    told: list[str] = []
    outcome = guest.run("unified", ["sh", "-c", script], follow=told.append)
    assert outcome.output == "".join(told) == f"0\n{guest.ROOT}\nkept\n"
    assert outcome.code is None
    assert "Kernel panic" in outcome.console
    assert not mark.exists()


def test_a_command_that_hangs_is_ended_in_the_guest() -> None:
    outcome = guest.run("v1", ["sleep", "1000"], deadline=0.5)
    assert (outcome.code, outcome.output) == (124, "")


def test_a_guest_that_hangs_is_ended_from_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest.uml, "BOOTING", -57)
    begun = time.monotonic()
    outcome = guest.run("hybrid", ["sleep", "1000"], deadline=60)
    assert outcome.code is None
    assert time.monotonic() - begun < 15


@pytest.mark.parametrize("mode", ["unified", pytest.param("bookworm", marks=pytest.mark.matrix)])
def test_nothing_is_left_when_the_starter_is_killed(mode: str, tmp_path: Path) -> None:
    """By kill -9, in the middle of a command: no process, and not its directory."""
    place = guest.qemu.place() if mode == "bookworm" else guest.uml.place()
    before = set(Path(place).glob("minictr-guest-*"))
    command = [sys.executable, guest.__file__, mode, "--", "sh", "-c", "echo up; sleep 1000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as starter:
        assert starter.stdout is not None
        assert starter.stdout.readline() == "up\n"
        mine = {path for path in set(Path(place).glob("minictr-guest-*")) - before if those_of(path)}
        starter.kill()
    assert mine
    end = time.monotonic() + 20
    while any(path.exists() or those_of(path) for path in mine) and time.monotonic() < end:
        time.sleep(0.1)
    assert not [path for path in mine if path.exists()]
    assert not [found for path in mine for found in those_of(path)]
