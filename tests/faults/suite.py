"""All points of a command, tried by some workers at once, and what came of them as a row of the table."""

from __future__ import annotations

import os
import queue
import threading
from collections import Counter
from pathlib import Path

import pytest
import table
from onecall import Point
from points import ERRNOS, failures, kills, spread
from runtimes import FAILED, HUNG, LEAKED, MISSED, OPEN, TOLERATED, Drive
from states import Lab, make_lab

__all__ = ["tiny", "wrong"]

WORKERS = (os.cpu_count() or 1) + 1  # a try waits as well, for what is dying
AGAIN = 3  # times that a point is tried, which no call was at: a start may make one call less than another
FAILS, KILLED = "one call fails", "SIGKILL"


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory, requires) -> Lab:
    requires.root()
    if os.uname().machine != "x86_64":
        pytest.skip("the tracer knows x86-64 only")
    return make_lab(tmp_path_factory.mktemp("faults"), requires("gcc"))


class Tally:
    """What came of the points so far; several threads count."""

    def __init__(self) -> None:
        self.kinds: Counter[str] = Counter()
        self.tried = 0
        self.wrong: list[str] = []
        self.lock = threading.Lock()

    def count(self, drive: Drive, point: Point) -> None:
        outcome = drive.one(point)
        for _ in range(AGAIN - 1):
            if MISSED not in outcome.kinds:
                break
            outcome = drive.one(point)
        with self.lock:
            if outcome.text:
                self.wrong.append(outcome.text)
            if MISSED in outcome.kinds:
                self.kinds[MISSED] += 1
                return
            self.tried += 1
            kinds = outcome.kinds
            if outcome.text and FAILED in kinds and drive.asserted:
                kinds -= {FAILED}  # it did, but not clearly
            self.kinds.update(kinds)


def points_of(drive: Drive, how: str) -> list[Point]:
    made = [call for call in drive.enumerate() if drive.tries(call)]
    if how == KILLED:
        return kills(made)
    return failures(made if drive.asserted else [call for call in made if call.name in ERRNOS])


def wrong(which: type[Drive], lab: Lab, how: str, number: int = 0) -> list[str]:
    """What is wrong with WHICH, a line each, when HOW is done to each of its calls, or to about NUMBER of them. Adds a
    row to the table."""
    drives: list[Drive] = []
    tally = Tally()
    try:
        drives += [which(lab) for _ in range(WORKERS)]
        found = points_of(drives[0], how)
        waiting: queue.SimpleQueue[Point] = queue.SimpleQueue()
        for point in spread(found, number) if number else found:
            waiting.put(point)

        def work(drive: Drive) -> None:
            while True:
                try:
                    point = waiting.get_nowait()
                except queue.Empty:
                    return
                try:
                    tally.count(drive, point)
                except Exception as err:  # told, not lost with its thread
                    tally.wrong.append(f"{point}: the test itself: {err!r}")
                    return

        threads = [threading.Thread(target=work, args=(drive,)) for drive in drives]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        for drive in drives:
            drive.close()
    add_row(which, how, tally, number)
    return tally.wrong


def add_row(which: type[Drive], how: str, tally: Tally, number: int) -> None:
    kinds = tally.kinds
    columns = (kinds[kind] for kind in (TOLERATED, FAILED, LEAKED, HUNG, OPEN))
    name = f"{which.name}: {how}" + (" (a sample)" if number else "")
    table.add(table.Row(name, tally.tried, *columns))


def told(lines: list[str], directory: Path) -> str:
    """LINES for an assertion, with what all of them have in common left out."""
    return f"{len(lines)} wrong:\n" + "\n".join(line.replace(str(directory), "") for line in lines[:40])
