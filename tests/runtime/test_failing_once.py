"""What one failing call must not do: forget what is left, take the living for dead, keep a caller waiting."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import minictr as mc
from minictr.errors import StateError
from minictr.runtime.identity import ProcessIdentity
from minictr.runtime.store import Store
from minictr.runtime.sweep import sweep
from minictr.runtime.undo import Undo


class Failing:
    """A callback that fails so many times."""

    def __init__(self, times: int) -> None:
        self.times, self.called = times, 0

    def __call__(self) -> None:
        self.called += 1
        if self.called <= self.times:
            raise OSError(5, "Input/output error")


@pytest.mark.parametrize(("times", "called", "forgotten"), [(0, 1, 1), (1, 2, 1), (2, 2, 0)])
def test_what_undoes_is_tried_again_and_what_forgets_comes_last(times, called, forgotten):
    undo, record, other, failing = Undo(), Failing(0), Failing(0), Failing(times)
    undo.push_record(record)
    undo.push(other)
    undo.push(failing)
    if times > 1:
        with pytest.raises(OSError, match="Input/output"):
            undo.close()
    else:
        undo.close()
    assert (failing.called, other.called, record.called) == (called, 1, forgotten)
    undo.close()
    assert record.called == forgotten  # nothing is left to do


@contextlib.contextmanager
def no_descriptor() -> Iterator[None]:
    """No file can be opened in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def sleeper() -> Iterator[ProcessIdentity]:
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield ProcessIdentity.of(process.pid)
        process.kill()


def test_who_cannot_be_looked_at_is_not_dead(sleeper):
    for look in (lambda: sleeper.alive, sleeper.pidfd, lambda: ProcessIdentity.of(sleeper.pid)):
        with pytest.raises(mc.StepFailed, match="EMFILE.*ulimit -n"), no_descriptor():
            look()


def test_who_is_not_there_is_dead():
    with subprocess.Popen(["true"]) as process:
        identity = ProcessIdentity.of(process.pid)
    assert not identity.alive
    with pytest.raises(ProcessLookupError):
        identity.pidfd()


def test_a_store_that_cannot_be_looked_at_is_not_empty(tmp_path, monkeypatch):
    """rm -f, which is content with a container that is not there, would be content with this."""
    store = Store(tmp_path / "state")
    store.ensure()

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "readlink", refused)
    with pytest.raises(StateError, match="names/web: Permission denied"):
        store.lookup("web")


def test_a_sweep_says_what_it_could_not_look_at(tmp_path, monkeypatch):
    store = Store(tmp_path / "state")
    store.ensure()
    (Path(store.containers) / ("ab" * 32)).mkdir()
    original = os.open

    def refused(path: str, *more: object, **options: object) -> int:
        if str(path).startswith(store.containers):
            raise PermissionError(13, "Permission denied")
        return original(path, *more, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", refused)
    assert [line for line in sweep(store) if "left as it is" in line and "Permission denied" in line]


def test_a_background_start_that_fails_is_told_at_once(box, tmp_path):
    """Whose first process died before it was init was waited for by its monitor, and so by its starter, for 5 s."""
    failing = box.with_(mc.Sysctl((("net.ipv4.tcp_congestion_control", "no-such-thing"),)))
    begin = time.monotonic()
    with pytest.raises(mc.StepFailed, match="tcp_congestion_control"):
        failing.start(["true"], root=str(tmp_path / "state"))
    assert time.monotonic() - begin < 3
    assert not os.listdir(tmp_path / "state" / "containers")
