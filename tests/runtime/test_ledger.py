"""What the library's own runs write down: one journal a process, taken back by others if it is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from waiting import eventually

import minictr as mc
from minictr.kernel import cgroups
from minictr.runtime.store import Store
from minictr.runtime.sweep import sweep

HOLDER = """
import sys, os
import minictr as mc
box = mc.Container(sys.argv[1], features=[*mc.profiles.DEFAULT])
box.run(["true"])
process = box.popen(["sleep", "60"])
print(process.pid, flush=True)
sys.stdin.readline()
process.close()
"""


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("MINICTR_ROOT", str(tmp_path / "state"))
    return Store()


@pytest.fixture
def holder(store, lab, requires):
    requires.root()
    environment = {**os.environ, "PYTHONPATH": str(Path(mc.__file__).parent.parent)}
    command = [sys.executable, "-P", "-c", HOLDER, str(lab)]
    with subprocess.Popen(command, env=environment, text=True, stdin=-1, stdout=-1) as process:
        yield process
        process.kill()


def groups(store: Store) -> list[str]:
    """The directories that the store's journals announce and that are there."""
    found = []
    for identity in store.ids():
        with open(f"{store.containers}/{identity}/journal") as file:
            rows = [line.rstrip("\n").split("\t") for line in file]
        found += [row[3] for row in rows if row[0] == "cgroup" and os.path.isdir(row[3])]
    return found


def test_one_ledger_a_process_and_none_at_its_end(store, holder):
    pid = int(holder.stdout.readline())
    assert len(store.ids()) == 1
    (directory,) = groups(store)
    assert pid in cgroups.processes(directory)
    holder.stdin.write("go\n")
    holder.stdin.flush()
    assert holder.wait(10) == 0
    assert store.ids() == []
    assert not os.path.exists(directory)


def test_what_a_killed_process_ran_is_ended_by_the_next_sweep(store, holder):
    pid = int(holder.stdout.readline())
    (directory,) = groups(store)
    assert sweep(store) == []  # it has an owner
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    told = sweep(store)
    assert any(directory in line for line in told)
    eventually(lambda: not os.path.exists(f"/proc/{pid}"), 5)
    assert not os.path.exists(directory)
    assert store.ids() == []


def test_a_forked_child_has_a_ledger_of_its_own(store, box):
    box.run(["true"])
    before = set(store.ids())
    child = os.fork()
    if not child:
        try:
            ok = box.run(["true"]).returncode == 0 and len(store.ids()) == len(before) + 1
        except BaseException:
            ok = False
        os._exit(0 if ok else 1)  # as a worker does: what it leaves is for the sweep
    assert os.waitpid(child, 0)[1] == 0
    assert before <= set(store.ids())
    sweep(store)
    assert set(store.ids()) == before
    assert box.run(["true"]).returncode == 0


def test_threads_share_it(store, box):
    results: list[int] = []
    threads = [threading.Thread(target=lambda: results.append(box.run(["true"]).returncode)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [0] * 8
    journals = [
        os.readlink(f"/proc/self/fd/{fd}")
        for fd in os.listdir("/proc/self/fd")
        if os.path.exists(f"/proc/self/fd/{fd}")
    ]
    assert sum(path == f"{store.containers}/{store.ids()[0]}/journal" for path in journals) == 1
    assert len(store.ids()) == 1
    assert groups(store) == []


def test_a_store_that_was_removed_is_made_anew(store, box):
    import shutil

    box.run(["true"])
    shutil.rmtree(store.path)
    assert box.run(["true"]).returncode == 0
    assert len(store.ids()) == 1


def test_it_does_not_grow_for_ever(store, box):
    from minictr.runtime import ledger

    limit, ledger.LONG = ledger.LONG, 200
    try:
        for _ in range(6):
            box.run(["true"])
        (identity,) = store.ids()
        assert os.stat(f"{store.containers}/{identity}/journal").st_size < 600
    finally:
        ledger.LONG = limit


def test_a_run_without_groups_writes_nothing_down(store, box):
    assert box.without("pids").run(["true"]).returncode == 0
    assert not os.path.exists(store.path)
