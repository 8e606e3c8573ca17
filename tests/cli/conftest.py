"""Containers for the tests of the command line's life verbs: real ones, and ones that are written down only."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import minictr
from minictr.features import PROFILES
from minictr.kernel import namespaces
from minictr.plan import plan
from minictr.runtime.ended import ExitRecord
from minictr.runtime.identity import ProcessIdentity
from minictr.runtime.launch import launch
from minictr.runtime.process import Process
from minictr.runtime.program import Program
from minictr.runtime.record import Record
from minictr.runtime.resolve import resolve
from minictr.runtime.state import State
from minictr.runtime.store import Store
from minictr.spec import Spec

Made = Callable[..., str]


PROGRAM = """
import sys
sys.path += {path!r}
{before}
from minictr.cli.entry import main
code = main({argv!r})
sys.stderr.write(" ".join([str(code), *sorted(sys.modules.keys() - {without})]))
"""
# "without" is what was imported when the program was waited for
AT_THE_WAIT = """
import minictr.runtime.process as process
there, really = [], process.is_over
def is_over(*args):
    there.append(set(sys.modules))
    return really(*args)
process.is_over = is_over
"""


def _ran(before: str, without: str, argv: tuple[str, ...]) -> tuple[int, set[str], str]:
    places = [str(Path(place).parent) for place in minictr.__path__] + [p for p in sys.path if "-packages" in p]
    code = PROGRAM.format(path=places, before=before, without=without, argv=list(map(str, argv)))
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    number, *modules = done.stderr.split("\n")[-1].split()
    return int(number), set(modules), done.stdout


def _imported(*argv: str) -> tuple[int, set[str], str]:
    """Exit code and modules after ``minictr ARGV``, and what it wrote."""
    return _ran("", "set()", argv)


@pytest.fixture(scope="session")
def imported_late() -> Callable[..., tuple[int, set[str], str]]:
    """As ``imported``, but only the modules that were not there yet when the program was first waited for."""
    return lambda *argv: _ran(AT_THE_WAIT, "there[0]", argv)


@pytest.fixture(scope="session")
def imported() -> Callable[..., tuple[int, set[str], str]]:
    """``imported("exec", "lab", "true")``: exit code and modules after that command line, and what it wrote."""
    return _imported


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The store of this test alone."""
    path = tmp_path / "state"
    monkeypatch.setenv("MINICTR_ROOT", str(path))
    return Store(path)


@pytest.fixture
def written(store: Store) -> Iterator[Made]:
    """``written("web")``: a container that is written down only; its id.

    Its process is a plain ``sleep`` of the host, or with ``exit=3`` one that is over. It looks as one whose monitor was
    killed: nobody holds its lock.
    """
    sleeps: list[subprocess.Popen[bytes]] = []

    def make(name: str = "", argv: tuple[str, ...] = ("sleep", "1000"), exit: int | None = None, **fields: Any) -> str:
        record = Record.new(store, name)
        if exit is None:
            sleeps.append(subprocess.Popen(["sleep", "1000"], start_new_session=True))
            identity = ProcessIdentity.of(sleeps[-1].pid)
        else:
            identity = ProcessIdentity(2, 1, "an earlier boot")
        now = time.time_ns()
        spec = Spec(argv, PROFILES["default"], "/srv/debian", name)
        state = State(record.id, spec, now, now, detached=True, process=identity).replace(**fields)
        record.write_ahead(("name", name), ("process", identity.pid, identity.start, identity.boot), ("committed",))
        os.close(record.make_exit_room())
        record.save(state.text())
        if exit is not None:
            record.write_exit(ExitRecord(exit << 8, finished=now, elapsed=10**9))
        with record:
            return record.id

    yield make
    for sleep in sleeps:
        sleep.kill()
        sleep.wait()


@pytest.fixture
def detached(store: Store, rootfs: Path, requires: Any, run_cli: Any) -> Iterator[Callable[..., str]]:
    """``detached("web", "sleep", "60", options=("-m", "64m"))``: a real container in the background; its id."""
    requires.root()

    def start(name: str, *argv: str, options: tuple[str, ...] = (), verb: tuple[str, ...] = ("run", "-d")) -> str:
        named = ("--name", name) if name else ()
        done = run_cli(*verb, *named, "--rootfs", rootfs, *options, "--", *(argv or ("sleep", "1000")))
        assert done.returncode == 0, done.stderr
        return str(done.stdout.strip())

    yield start
    done = run_cli("rm", "-f", "--all")
    assert (done.returncode, done.stderr) == (0, "")
    assert os.listdir(store.containers) == []
    assert os.listdir(store.names) == []


@pytest.fixture
def started(store: Store, rootfs: Path, requires: Any) -> Iterator[Callable[..., Process]]:
    """``started("web", ["sleep", "60"])``: a real container of this process, without cgroups."""
    requires.root()
    running: list[Process] = []

    def start(name: str, argv: list[str] | None = None, profile: str = "bare", **options: Any) -> Process:
        record = Record.new(store, name)
        record.write_ahead(("name", name))
        spec = resolve(Spec(tuple(argv or ["sleep", "1000"]), PROFILES[profile], str(rootfs), name))
        streams = {"stdin": 0, "stdout": 1, "stderr": 2}
        running.append(launch(Program(plan(spec)), streams, record=record, **options))
        return running[-1]

    yield start
    for process in running:
        process.close()


@pytest.fixture
def in_own_mounts(requires: Any) -> Callable[..., Any]:
    """``in_own_mounts(function)``: its answer, from a fork in a mount namespace of its own."""
    requires.root()

    def run(function: Callable[[], Any]) -> Any:
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                namespaces.unshare("mnt").keep()
                os.write(writer, json.dumps([True, function()]).encode())
            except BaseException as err:
                os.write(writer, json.dumps([False, repr(err)]).encode())
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as file:
            text = file.read()
        os.waitpid(pid, 0)
        good, answer = json.loads(text)
        assert good, answer
        return answer

    return run
