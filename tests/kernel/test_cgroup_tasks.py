"""The processes of a group: moved, frozen, killed, and by whom. Live, on whichever version the machine has."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from cgrouptools import outcome, start, text
from waiting import eventually

from minictr.errors import StepFailed
from minictr.kernel import cgroup_tasks, cgroups
from minictr.kernel.cgroups import Place

COUNT = """
import os, sys
count = 0
while True:
    count += 1
    os.pwrite({fd}, b"%20d" % count, 0)
"""
# forks as fast as it can, but never more than the pids group allows; each child lives on
BOMB = "import os, time\nwhile True:\n    try: os.fork()\n    except OSError: time.sleep(0.001)"
VFORK = "import os\nos.posix_spawn('/bin/sleep', ['sleep', '60'], {})\nimport time\ntime.sleep(60)"


def freezers(group: Any) -> Place:
    return group("freezer")


def test_a_frozen_group_makes_no_progress(group: Any, tmp_path: Path) -> None:
    place = freezers(group)
    with open(tmp_path / "count", "w+b") as file:

        def count() -> int:
            return int(os.pread(file.fileno(), 20, 0) or 0)

        with start(COUNT.format(fd=file.fileno()), place, pass_fds=(file.fileno(),)) as process:
            eventually(lambda: count() > 10, 5)
            cgroups.freeze(place)
            assert cgroups.frozen(place)
            before = count()
            time.sleep(0.1)
            assert count() == before
            cgroups.freeze(place)  # again is nothing
            cgroups.thaw(place)
            assert not cgroups.frozen(place)
            eventually(lambda: count() > before, 5)
            process.kill()


def test_freeze_takes_those_below_along(group: Any, tmp_path: Path) -> None:
    place, inner = freezers(group), group("freezer", "inner")
    with start("import time; time.sleep(60)", inner) as process:
        cgroups.freeze(place)
        assert cgroups.frozen(inner)
        if inner.version == 1:
            with pytest.raises(StepFailed, match=f"thaw .*a group above is frozen: {place.directory}"):
                cgroups.thaw(inner)
        cgroups.kill([place])
        assert process.wait(5) == -9
    assert not cgroups.frozen(place)


def test_what_does_not_stand_still_is_thawed_and_named(group: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A group above that thaws meanwhile, or a dead disk: here the answer of the kernel is made up."""
    place = freezers(group)
    real = cgroup_tasks.read
    monkeypatch.setattr(cgroup_tasks, "read", lambda d, f: "FREEZING\n" if f == "freezer.state" else real(d, f))
    if place.version == 2:
        pytest.skip("on v2 nothing short of a dead disk stays unfrozen")
    with pytest.raises(StepFailed, match=r"freeze .*: ETIMEDOUT .*something cannot be stopped"):
        cgroups.freeze(place, timeout=0.05)
    monkeypatch.undo()
    assert text(place, "freezer.state") == "THAWED"


@pytest.mark.parametrize("frozen", [False, True])
def test_kill(group: Any, frozen: bool) -> None:
    """Children, grandchildren in groups below, and one that ignores every signal it can; frozen or not."""
    place, inner = freezers(group), group("freezer", "inner")
    stubborn = "import signal, time\nfor n in range(1, 32):\n    n in (9, 19) or signal.signal(n, signal.SIG_IGN)\n"
    with start(stubborn + "time.sleep(60)", place) as one, start("import time; time.sleep(60)", inner) as two:
        if frozen:
            cgroups.freeze(place)
        cgroups.kill([place])
        assert (one.wait(5), two.wait(5)) == (-9, -9)
    assert cgroups.processes(place.directory) == ()
    assert not cgroups.frozen(place)
    cgroups.kill([place])


def test_no_fork_escapes(group: Any) -> None:
    """A fork bomb, held by a pids limit that was read back first."""
    pids = group("pids", max=24)
    assert text(pids, "pids.max") == "24"
    freezer = freezers(group)
    with start(BOMB, pids, freezer):
        eventually(lambda: len(cgroups.processes(pids.directory)) == 24, 10)
        cgroups.kill([pids, freezer])
        assert cgroups.processes(pids.directory) == ()
    assert text(pids, "pids.max") == "24"


def test_no_fork_escapes_without_a_freezer(group: Any) -> None:
    pids = group("pids", max=24)
    assert text(pids, "pids.max") == "24"
    with start(BOMB, pids):
        eventually(lambda: len(cgroups.processes(pids.directory)) > 10, 10)
        cgroups.kill([pids])
        assert cgroups.processes(pids.directory) == ()
    assert text(pids, "pids.max") == "24", "the limit is as it was"


def test_kill_where_cgroup_kill_is_missing(group: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux before 5.14: by pidfd, one after the other."""
    place = group("unified")
    real = cgroup_tasks.put

    def put(directory: str, file: str, words: str) -> None:
        if file == "cgroup.kill":
            raise FileNotFoundError(2, "No such file or directory")
        real(directory, file, words)

    monkeypatch.setattr(cgroup_tasks, "put", put)
    with start(VFORK, place) as process:
        eventually(lambda: len(cgroups.processes(place.directory)) == 2, 5)
        cgroups.freeze(place)
        cgroups.kill([place])
        assert process.wait(5) == -9
    assert cgroups.processes(place.directory) == ()


def test_who_is_left_is_named(group: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    place = group("pids")
    with start("import time; time.sleep(60)", place) as process:
        monkeypatch.setattr(cgroup_tasks, "_kill_one", lambda *_: None)
        monkeypatch.setattr(cgroup_tasks, "_kill2", lambda *_: None)
        with pytest.raises(StepFailed, match=rf"kill all in .*: ETIMEDOUT .*still there: {process.pid}"):
            cgroups.kill([place], timeout=0.05)
        process.kill()


def test_add(group: Any) -> None:
    place = group("pids")
    with start("import time; time.sleep(60)") as process:
        cgroup_tasks.add(place, process.pid)
        assert cgroups.processes(place.directory) == (process.pid,)
        process.kill()
    with pytest.raises(StepFailed, match=rf"write '{process.pid}' to .*cgroup.procs: ESRCH .*is gone"):
        cgroup_tasks.add(place, process.pid)


def test_a_cpuset_without_cpus_takes_nobody(group: Any) -> None:
    place = group("cpuset")
    if place.version == 2:
        pytest.skip("v2 takes the parent's")
    os.mkdir(f"{place.directory}/empty")
    with start("import time; time.sleep(60)") as process:
        with pytest.raises(StepFailed, match="ENOSPC .*a cpuset without cpus"):
            cgroup_tasks.add(place.replace(directory=f"{place.directory}/empty"), process.pid)
        process.kill()


THREAD = """
import threading, time
thread = threading.Thread(target=time.sleep, args=(60,), daemon=True)
thread.start()
print(thread.native_id, flush=True)
time.sleep(60)
"""


def test_threads(group: Any) -> None:
    """v1: any thread anywhere. v2: into a threaded group below the one its process is in."""
    controller = next((name for name in ("pids", "cpu") if cgroups.has(name)), "pids")
    place = group(controller)
    below = group(controller, "below") if place.version == 1 else Place(2, "unified", f"{place.directory}/below")
    if place.version == 2:
        os.mkdir(below.directory)
    with start(THREAD, place) as process:
        assert process.stdout is not None
        thread = int(process.stdout.readline())
        if place.version == 2:
            with pytest.raises(StepFailed, match=r"cgroup.threads: ENOTSUP .*cgroup.type says"):
                cgroup_tasks.add_thread(below, thread)
        cgroup_tasks.set_threaded(below)
        cgroup_tasks.add_thread(below, thread)
        file = "tasks" if below.version == 1 else "cgroup.threads"
        assert text(below, file).split() == [str(thread)]
        assert process.pid in cgroups.processes(place.directory)
        cgroups.kill([place])


def test_threads_on_v2_of_a_hybrid_host(group: Any) -> None:
    place = group("unified")
    below = Place(2, "unified", f"{place.directory}/below")
    os.mkdir(below.directory)
    cgroup_tasks.set_threaded(below)
    assert text(below, "cgroup.type") == "threaded"
    with start(THREAD, place) as process:
        assert process.stdout is not None
        cgroup_tasks.add_thread(below, int(process.stdout.readline()))
        assert text(below, "cgroup.threads")
        assert cgroups.processes(place.directory) == (process.pid,), "told by the domain, not by the threaded group"
        cgroups.kill([place])


def test_delegation(group: Any, as_nobody: Any) -> None:
    """An ordinary user may make groups below, and move its own processes there, and not touch the limit above."""
    place = group("pids", max=10)
    cgroup_tasks.delegate(place, 65534, 65534)
    below = place.replace(directory=f"{place.directory}/own")

    def body() -> str:
        assert cgroups.create(below)
        cgroups.write(below, max=5)
        with pytest.raises(StepFailed) as caught:
            cgroups.write(place, max=100)
        cgroups.remove(below.directory)
        return str(caught.value)

    if place.version == 2:
        Path(place.directory, "cgroup.subtree_control").write_text("+pids")
        assert as_nobody(body).startswith(f"write '100' to {place.directory}/pids.max: EACCES")
    else:  # v1's files of a new group are root's; what an ordinary user makes is its own
        assert "EACCES" in as_nobody(body)
    assert text(place, "pids.max") == "10"


def test_processes_of_another_pid_namespace(group: Any) -> None:
    """v2 tells them as 0, which is never signalled: kill(0) would be this very process group. v1 tells none."""
    place = group("unified") if cgroups.has("unified") else group("pids")
    with start("import time; time.sleep(60)", place) as process:
        program = f"import sys; sys.path[:0] = {sys.path!r}\n"
        program += "from minictr.errors import StepFailed\nfrom minictr.kernel import cgroups, cgroup_tasks\n"
        program += f"place = cgroups.{place!r}\nprint(cgroups.processes(place.directory), flush=True)\n"
        program += "cgroup_tasks._kill2 = lambda directory: None\n"
        program += "try: cgroups.kill([place], 0.05)\nexcept StepFailed as err: print(err)\n"
        command = ["unshare", "--pid", "--fork", sys.executable, "-c", program]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert process.poll() is None
        process.kill()
    if place.version == 1:
        assert done.stdout == "()\n"
    else:
        assert done.stdout.startswith("(0,)\n")
        assert "still there: one of another pid namespace" in done.stdout


def test_readings_of_a_killed_group_stay(group: Any) -> None:
    place = group("pids")
    outcome("pass", place)
    found = cgroups.usage([place]).pids
    assert found is not None and found.peak in (None, 1)
