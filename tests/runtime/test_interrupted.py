"""Removing and settling, cut short before every one of their calls: a sweep finishes what was meant, and no more."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator

import pytest

import minictr as mc
from minictr.runtime.ended import ExitRecord
from minictr.runtime.identity import ProcessIdentity
from minictr.runtime.reclaim import settle
from minictr.runtime.record import Record
from minictr.runtime.state import State
from minictr.runtime.store import Store
from minictr.runtime.sweep import sweep
from minictr.spec import Spec

CALLS = ("open", "close", "write", "unlink", "rename", "rmdir", "listdir")


class Killed(BaseException):
    """What a SIGKILL is to what runs on in the same process: nothing catches it."""


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "state")


def over(store: Store) -> Record:
    """A container that is over, with all that one has."""
    record = Record.new(store, "lab")
    record.write_ahead(("cgroup", 1, "pids", f"{store.path}/no-such-group"), ("committed",))
    spec = Spec(("true",), (mc.Proc(),), "/nosuch", "lab")
    record.save(State(record.id, spec, 1, detached=True).text())
    record.write_exit(ExitRecord(0))
    for name in ("log", "attach"):
        open(f"{record.directory}/{name}", "w").close()
    os.makedirs(f"{record.directory}/upper/data")
    return record


def cut_short(monkeypatch: pytest.MonkeyPatch, number: int, work: Callable[[], None]) -> bool:
    """WORK up to just before the NUMBERth of the calls; whether it came that far."""
    left = [number]

    def counted(call: Callable[..., object]) -> Callable[..., object]:
        def instead(*args: object, **options: object) -> object:
            left[0] -= 1
            if left[0] <= 0:
                if call.__name__ == "close":
                    call(*args)  # which the end of a process does too
                raise Killed
            return call(*args, **options)

        return instead

    with monkeypatch.context() as patch:
        for name in CALLS:
            patch.setattr(os, name, counted(getattr(os, name)))
        try:
            work()
        except Killed:
            return True
    return False


def each(store: Store, monkeypatch: pytest.MonkeyPatch, work: Callable[[Record], None]) -> Iterator[int]:
    """A container in which WORK was cut short, at one call after another, and then nobody owned it any more."""
    for number in range(1, 100):
        record = over(store)
        fds = record.fd, record._journal
        reached = cut_short(monkeypatch, number, lambda record=record: work(record))
        record.lend()
        for fd in fds:  # as the end of a process closes them, whatever was closed before
            try:
                os.close(fd)
            except OSError:
                pass
        if not reached:
            assert number > 5
            return
        yield number
    pytest.fail("it never came to its end")


def test_a_removal_is_finished_by_the_next_sweep(store, monkeypatch) -> None:
    for number in each(store, monkeypatch, lambda record: record.forget("lab")):
        told = sweep(store, names=True)
        if number <= 2:  # nothing of it was done, but for a descriptor that was closed: it is there, as it was
            kept = Record.at(store, store.lookup("lab"))
            assert State.of(kept).name == "lab"
            kept.forget("lab")
        assert (store.ids(), os.listdir(store.names)) == ([], []), (number, told)


def test_what_is_settled_is_kept(store, monkeypatch) -> None:
    for number in each(store, monkeypatch, settle):
        sweep(store, names=True)
        assert len(store.ids()) == 1, number
        with Record.at(store, store.lookup("lab")) as record:
            assert record.own()
            assert record.rows() == [("committed",)]
            assert record.exit_record() == ExitRecord(0)
            assert os.path.isdir(f"{record.directory}/upper/data")
            record.forget("lab")


def test_a_new_life_that_was_never_handed_over_is_ended(store) -> None:
    """Starter and monitor were killed between the start of the program and the last line of the journal."""
    process = subprocess.Popen(["sleep", "60"])
    try:
        with over(store) as record:
            identity = ProcessIdentity.of(process.pid)
            record.settled()
            record.write_ahead(("process", identity.pid, identity.start, identity.boot))
        assert f"process {process.pid}" in sweep(store)
        assert process.wait(5) == -9
    finally:
        process.kill()
        process.wait()
    with Record.at(store, store.lookup("lab")) as record:
        assert record.own()
        assert record.rows() == [("committed",)]
        record.forget("lab")


def test_a_renaming_that_was_never_finished_leaves_one_name(store) -> None:
    """Killed before the new name is written down, or after: the one that is written stays, gc says so."""
    with over(store) as record:
        store.take_name("new", record.id)
        assert sweep(store) == []
        told = sweep(store, names=True)
        assert told == [f"name new of container {record.id[:12]}: its renaming was never finished"]
        assert os.listdir(store.names) == ["lab"]
        assert sweep(store, names=True) == []
        record.forget("lab")
