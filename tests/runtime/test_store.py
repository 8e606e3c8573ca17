"""Containers written down: directories, locks, names, journals, states, and what a sweep takes back."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time

import pytest

import minictr as mc
from minictr.errors import NoSuchContainer, SpecError, StateError, StepFailed
from minictr.runtime import identity
from minictr.runtime.ended import ExitRecord
from minictr.runtime.identity import ProcessIdentity
from minictr.runtime.record import EXIT_ROOM, Record
from minictr.runtime.state import Group, State
from minictr.runtime.store import Store
from minictr.runtime.sweep import sweep
from minictr.spec import Spec


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "state")


@pytest.fixture
def sleeper():
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait()


def state(record: Record, **more: object) -> State:
    spec = Spec(("true",), (mc.Proc(), mc.Cwd("/tmp")), "/nosuch", str(more.pop("name", "")))
    return State(record.id, spec, 1, **more)


def test_a_store_makes_nothing_until_it_is_needed(store, tmp_path):
    assert store.ids() == []
    with pytest.raises(NoSuchContainer):
        store.lookup("lab")
    assert list(tmp_path.iterdir()) == []


def test_directories_are_the_users_alone(store):
    Record.new(store).forget()
    for path in (store.path, store.containers, store.names):
        assert os.stat(path).st_mode & 0o777 == 0o700
    os.chmod(store.containers, 0o777)
    with pytest.raises(StateError, match="open to others"):
        Record.new(store)


@pytest.mark.parametrize("kind", ["file", "link", "others"])
def test_a_store_that_is_no_directory_of_ours(tmp_path, kind):
    path = tmp_path / "state"
    if kind == "file":
        path.write_text("")
    elif kind == "link":
        (tmp_path / "elsewhere").mkdir()
        path.symlink_to(tmp_path / "elsewhere")
    else:
        path.mkdir()
        os.chown(path, 12345, 12345)
    with pytest.raises(StateError):
        Record.new(Store(path))


def test_a_name_is_taken_once(store):
    with Record.new(store, "lab") as first:
        with pytest.raises(SpecError, match="is taken by container"):
            Record.new(store, "lab")
        assert store.lookup("lab") == first.id
        assert store.ids() == [first.id]  # nothing of the second is left
        first.forget("lab")
    with Record.new(store, "lab") as second:
        second.forget("lab")
    assert os.listdir(store.names) == []


def test_a_name_of_a_container_that_is_gone_is_free(store):
    store.ensure()
    os.symlink("0" * 64, os.path.join(store.names, "lab"))
    with Record.new(store, "lab") as record:
        assert store.lookup("lab") == record.id
        record.forget("lab")


def test_ids_are_found_by_their_beginnings(store):
    with Record.new(store) as one, Record.new(store) as two:
        assert store.lookup(one.id[:12]) == one.id
        assert store.lookup(two.id) == two.id
        if one.id[0] == two.id[0]:
            with pytest.raises(NoSuchContainer, match="2 ids begin so"):
                store.lookup(one.id[0])
        for record in (one, two):
            record.forget()


@pytest.mark.parametrize("word", ["", "..", "../x", "a/b", "-x", ".", "a\nb", "~"])
def test_words_that_are_no_names(store, word):
    with pytest.raises((SpecError, NoSuchContainer)):
        store.lookup(word)


def test_the_owner_is_who_holds_the_lock(store):
    with Record.new(store) as record:
        with Record.at(store, record.id) as other:
            assert not other.own()
        code = "import fcntl, os, sys; fcntl.flock(os.open(sys.argv[1], 0), fcntl.LOCK_EX | fcntl.LOCK_NB)"
        assert subprocess.run([sys.executable, "-c", code, record.directory], stderr=-3, check=False).returncode == 1
        identity, directory = record.id, record.directory
    assert subprocess.run([sys.executable, "-c", code, directory], stderr=-3, check=False).returncode == 0
    with Record.at(store, identity) as again:
        assert again.own()
        again.forget()


def test_a_sweep_may_be_faster_than_the_lock(store, monkeypatch):
    """Of one who starts at the same time: between the making of the directory and its opening."""
    original, removed = Record.at, []

    def at(store: Store, identity: str) -> Record:
        if not removed:
            removed.append(identity)
            assert sweep(store) == [f"container {identity[:12]}: its start was never finished"]
        return original(store, identity)

    monkeypatch.setattr(Record, "at", at)
    record = Record.new(store)
    assert removed
    assert record.id not in removed
    record.forget()


def test_a_journal_is_read_to_its_last_whole_line(store):
    with Record.new(store) as record:
        record.write_ahead(("cgroup", 1, "pids", "/a b"), ("directory", "/caf\udce9"))
        with open(f"{record.directory}/journal", "ab") as file:
            file.write(b"cgroup\t1\tmem")
        assert record.rows() == [("cgroup", "1", "pids", "/a b"), ("directory", "/caf\udce9")]
        record.settled()
        assert record.rows() == [("committed",)]
        record.forget()


def test_a_childs_start_is_told_by_when_it_was_cloned(monkeypatch):
    """Against what /proc says, for many; where a clock tick ended meanwhile it is read there."""
    read = []
    real = identity._stat
    monkeypatch.setattr(identity, "_stat", lambda pid: read.append(pid) or real(pid))
    guessed = 0
    for _ in range(50):
        before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        pid = os.posix_spawn("/bin/true", ["true"], {})
        after = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        read.clear()
        told = ProcessIdentity.born(pid, before, after)
        guessed += not read
        assert told == ProcessIdentity.of(pid)
        os.waitpid(pid, 0)
    assert guessed > 0
    pid = os.getpid()
    assert ProcessIdentity.born(pid, 0, 10**10) == ProcessIdentity.of(pid)


def test_state_round_trip(store):
    with Record.new(store, "lab") as record:
        who = ProcessIdentity.of(os.getpid())
        groups = (Group("pids", 1, "/sys/fs/cgroup/pids/x"),)
        wanted = state(record, name="lab", process=who, groups=groups, command_line=("run", "--", "a b"), log=(1, 2))
        record.save(wanted.text())
        assert State.of(record) == wanted
        assert State.of(record).process.alive
        record.forget("lab")


DAMAGE = [
    "", "{", "null", "[]", "{}", '{"schema": 2}', '{"schema": "1"}', '{"schema": 1, "id": "x"}', "\0" * 64,
    "[" * 100000,
]  # fmt: skip


@pytest.mark.parametrize("text", DAMAGE, ids=lambda text: text[:12])
def test_a_damaged_state_is_an_error_that_names_the_file(store, text):
    with Record.new(store) as record:
        record.save(text)
        with pytest.raises(StateError, match="state.json"):
            State.of(record)
        record.forget()


@pytest.mark.parametrize("field", [*State._fields])
@pytest.mark.parametrize("value", ["x", -1.5, [[]], {"a": 1}, None], ids=repr)
def test_a_wrong_field_is_an_error_or_harmless(store, field, value):
    """A field of the wrong type never gets through as another process, group or flag."""
    import json

    with Record.new(store) as record:
        whole = state(record, process=ProcessIdentity.of(os.getpid()))
        record.save(json.dumps({**json.loads(whole.text()), field: value}))
        try:
            read = State.of(record)
        except StateError as err:
            assert "state.json" in str(err)  # noqa: PT017 - it need not be raised
        else:
            assert type(getattr(read, field)) is type(getattr(whole, field)) or field == "stop_timeout"
            assert read.process == whole.process
        record.forget()


def test_a_truncated_state_at_every_length(store):
    with Record.new(store) as record:
        text = state(record).text()
        for length in range(len(text) - 2):
            record.save(text[:length])
            with pytest.raises(StateError):
                State.of(record)
        record.forget()


def test_exit_records_fit_into_their_room(store):
    big = ExitRecord(**dict.fromkeys(ExitRecord._fields, -(2**62)))
    assert len(big.text()) <= EXIT_ROOM
    with Record.new(store) as record:
        assert record.exit_record() is None
        os.close(record.make_exit_room())
        assert record.exit_record() is None
        record.write_exit(ExitRecord(9, 100, 1, 2, 3, 4))
        assert record.exit_record() == ExitRecord(9, 100, 1, 2, 3, 4)
        record.write_exit(ExitRecord())
        assert record.exit_record() == ExitRecord()
        record.forget()


def test_who_is_who(sleeper):
    who = ProcessIdentity.of(sleeper.pid)
    assert who.alive
    os.close(who.pidfd())
    assert not who.replace(start=who.start + 1).alive
    assert not who.replace(boot="another").alive
    with pytest.raises(ProcessLookupError):
        who.replace(start=who.start - 1).pidfd()
    sleeper.kill()
    deadline = time.monotonic() + 5
    while who.alive and time.monotonic() < deadline:  # a zombie does not live
        time.sleep(0.01)
    assert not who.alive


# --- the sweep ---


def test_what_has_an_owner_is_left_alone(store, sleeper):
    with Record.new(store, "lab") as record:
        who = ProcessIdentity.of(sleeper.pid)
        record.write_ahead(("process", who.pid, who.start, who.boot))
        assert sweep(store) == []
        assert sleeper.poll() is None
        record.forget("lab")


def test_a_start_that_was_never_finished_is_ended_and_removed(store, sleeper):
    record = Record.new(store, "lab")
    who = ProcessIdentity.of(sleeper.pid)
    record.write_ahead(("process", who.pid, who.start, who.boot))
    record.close()
    told = sweep(store)
    assert any(f"process {sleeper.pid}" in line for line in told)
    assert sleeper.wait(5) == -9
    assert store.ids() == []
    assert os.listdir(store.names) == []
    assert sweep(store) == []


def test_a_process_of_the_same_number_is_left_alone(store, sleeper):
    record = Record.new(store)
    who = ProcessIdentity.of(sleeper.pid)
    record.write_ahead(("process", who.pid, who.start + 1, who.boot))
    record.close()
    sweep(store)
    assert sleeper.poll() is None
    assert store.ids() == []


def test_a_kept_one_goes_on_without_its_monitor_and_ends_unknown(store, sleeper):
    record = Record.new(store)
    who = ProcessIdentity.of(sleeper.pid)
    record.write_ahead(("process", who.pid, who.start, who.boot), ("committed",))
    record.save(state(record, detached=True, process=who).text())
    record.close()
    assert sweep(store) == []
    assert sleeper.poll() is None
    sleeper.kill()
    sleeper.wait()
    sweep(store)
    with Record.at(store, record.id) as again:
        assert again.exit_record().status is None
        assert again.rows() == [("committed",)]
        assert sweep(store) == []
        again.forget()


def test_a_row_that_is_not_known_stops_the_sweep_of_that_one_only(store):
    strange, plain = Record.new(store), Record.new(store)
    strange.write_ahead(("wormhole", "x"))
    strange.close()
    plain.close()
    told = sweep(store)
    assert any("wormhole" in line and "newer minictr" in line for line in told)
    assert store.ids() == [strange.id]
    with Record.at(store, strange.id) as again:
        again.forget()


def test_a_foreign_directory_is_not_ours_to_sweep(store):
    store.ensure()
    os.mkdir(os.path.join(store.containers, "precious"))
    assert sweep(store) == []
    assert os.path.isdir(os.path.join(store.containers, "precious"))


def test_a_read_only_state_directory_is_a_clear_error(store, tmp_path):
    """Also for root, who is not stopped by mode bits: the directory is a file of /proc."""
    with pytest.raises(StateError, match="make state directory /proc/minictr"):
        Record.new(Store("/proc/minictr"))


def test_a_full_disk_is_told(store):
    with Record.new(store) as record:
        limit = resource.RLIMIT_FSIZE
        before = resource.getrlimit(limit)
        previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(limit, (0, before[1]))
        try:
            with pytest.raises(StepFailed, match=r"journal"):
                record.write_ahead(("directory", "/x"))
            with pytest.raises(StepFailed, match=r"state.json"):
                record.save("{}")
        finally:
            resource.setrlimit(limit, before)
            signal.signal(signal.SIGXFSZ, previous)
        assert record.rows() == []
        record.forget()
