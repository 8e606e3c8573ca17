"""A hundred containers started at once, then all removed at once, three times: none is lost, none is left."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import table
from remains import Place, cli

DEADLINE = 120.0


@pytest.fixture
def place(tmp_path: Path, lab: Path) -> Iterator[Place]:
    with Place(tmp_path, lab) as place:
        yield place


class Watcher(threading.Thread):
    """``ps -a`` and ``gc`` all the time, while others come and go; ``wrong`` is what they should not have said."""

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place, self.wrong, self.looks = place, [], 0
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.is_set():
            self.looks += 1
            done = subprocess.run(
                [*cli(), "ps", "-a", "--format", "json"],
                env=self.place.environment, stdin=-3, capture_output=True, text=True, timeout=DEADLINE,
            )  # fmt: skip
            if done.returncode or done.stderr:
                self.wrong.append(f"ps: {done.returncode}: {done.stderr}")
                continue
            rows = json.loads(done.stdout)
            self.wrong += [f"ps: {row}" for row in rows if row["State"] not in ("running", "exited", "dead")]
            if self.looks % 5 == 0:
                done = subprocess.run(
                    [*cli(), "gc"], env=self.place.environment, stdin=-3, capture_output=True, text=True
                )
                # what one who has ended had is removed by whoever comes first; nothing may be in the way of that
                self.wrong += [
                    f"gc: {text}" for text in (done.stderr, *done.stdout.splitlines()) if "left as it is" in text
                ]
                self.wrong += [f"gc: {done.stderr}"] * bool(done.returncode or done.stderr)

    def end(self) -> None:
        self.over.set()
        self.join(DEADLINE)


def at_once(place: Place, commands: Iterable[list[str]]) -> list[tuple[int, str, str]]:
    """(exit code, output, complaint) of commands that run all at the same time."""
    running = [place.popen([*cli(), *words], stdout=-1, stderr=-1, text=True) for words in commands]
    deadline = time.monotonic() + DEADLINE
    answers = []
    for process in running:
        out, err = process.communicate(timeout=max(1, deadline - time.monotonic()))
        answers.append((process.returncode, out.strip(), err))
    return answers


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("count", "rounds"), [pytest.param(100, 3, marks=pytest.mark.faults, id="whole"), pytest.param(12, 1, id="sample")]
)
def test_many_at_once(place: Place, count: int, rounds: int) -> None:
    names = [f"many{number}" for number in range(count)]
    leaked, failed = [], 0
    assert place.run("ps", "-a").returncode == 0  # the state directory is made by one of them: by whichever
    watcher = Watcher(place)
    watcher.start()
    try:
        for _ in range(rounds):
            options = ["--rootfs", str(place.rootfs), *place.options, "--", "sh", "-c", "echo it ran; exec sleep 600"]
            started = at_once(place, (["run", "-d", "--name", name, *options] for name in names))
            assert [answer for answer in started if answer[0] or answer[2]] == []
            ids = [identity for _, identity, _ in started]
            assert len({*ids}) == count
            assert [place.id_of(name) for name in names] == ids
            rows = json.loads(place.run("ps", "--no-trunc", "--format", "json", timeout=DEADLINE).stdout)
            assert {row["Names"]: row["ID"] for row in rows} == dict(zip(names, ids, strict=True))
            assert len(place.processes()) >= 3 * count  # monitor, init, program
            silent = [
                name
                for name in names
                if "it ran" not in (place.root / "containers" / place.id_of(name) / "log").read_text()
            ]
            assert silent == []
            removed = at_once(place, (["rm", "-f", name] for name in names))
            assert [answer for answer in removed if answer[0] or answer[2]] == []
            leaked += place.left()
    finally:
        watcher.end()
        failed = len(watcher.wrong)
    table.add(
        table.Row(f"{count} at once, {rounds} rounds", count * rounds, count * rounds - failed, 0, len(leaked), 0, 0)
    )
    assert leaked == []
    assert watcher.wrong == []
    assert watcher.looks > rounds
