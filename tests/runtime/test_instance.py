"""A container's whole life from Python, each step with what the kernel and the disk say of it."""

from __future__ import annotations

import os
import tarfile
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from waiting import eventually

import minictr as mc
from minictr.runtime.store import Store


@pytest.fixture
def store(tmp_path, monkeypatch, requires):
    requires.root()
    monkeypatch.setenv("MINICTR_ROOT", str(tmp_path / "state"))
    yield Store()
    for instance in mc.containers(all=True):
        instance.remove(force=True)


@pytest.fixture
def box(own_rootfs):
    return mc.Container(own_rootfs, name="lab").with_(mc.Overlay())


def actions(instance: mc.Instance) -> list[str]:
    return [event["action"] for event in instance.events()]


def test_a_life(box, store, tmp_path):
    c = box.create(["bash", "-c", "echo begun; echo wrong >&2; sleep 60"])
    assert (c.status, c.running, mc.containers()) == ("created", False, [])
    with pytest.raises(mc.WrongStatus, match="minictr start lab first"):
        c.exec(["true"])
    c.start()
    assert c.status == "running"
    assert mc.containers() == [c] == [mc.container("lab")] == [mc.container(c.id[:12])]
    assert c.exec(["cat", "/proc/1/comm"], capture_output=True, text=True, check=True).stdout == "minictr-init\n"
    with c.popen(["sleep", "60"]) as process:
        assert process.pid in c.processes()
    assert [row.command.split()[0] for row in c.top()][-1] == "sleep"
    assert c.stats().memory.current > 0
    c.pause()
    assert c.status == "paused"
    c.unpause()
    c.update(memory="64M", pids=50)
    directory = c.places()["memory"].directory
    assert Path(directory, "memory.limit_in_bytes").read_text() == f"{64 << 20}\n"
    c.rename("other")
    assert mc.container("other") == c
    c.stop(timeout=5)
    assert (c.status, c.returncode) == ("exited", -15)
    assert [(stream, data) for _, stream, data in c.logs()] == [("stdout", b"begun\n"), ("stderr", b"wrong\n")]
    assert not os.path.exists(directory)
    told = actions(c)
    for action in ("create", "start", "pause", "unpause", "update", "rename", "stop", "die"):
        assert action in told, told
    c.remove()
    assert mc.containers(all=True) == []
    with pytest.raises(mc.NoSuchContainer):
        mc.container("other")


def test_files_and_layers(box, store, tmp_path):
    c = box.start(["sleep", "60"])
    source = tmp_path / "hello"
    source.write_text("hello\n")
    c.copy_in(str(source), "/etc/hello")
    assert c.exec(["cat", "/etc/hello"], capture_output=True).stdout == b"hello\n"
    assert "A /etc/hello" in map(str, c.diff())
    c.stop(0)
    c.copy_out("/etc/hello", str(tmp_path / "back"))
    assert (tmp_path / "back").read_text() == "hello\n"
    c.commit(str(tmp_path / "layer.tar"))
    with tarfile.open(tmp_path / "layer.tar") as layer:
        assert "etc/hello" in layer.getnames()
    c.start()  # once more, on the same layer
    assert c.exec(["cat", "/etc/hello"], capture_output=True).stdout == b"hello\n"


def test_how_it_ended(box, store):
    c = box.start(["bash", "-c", "exit 7"])
    assert (c.wait(10), c.exit_code, c.status) == (7, 7, "exited")
    c.remove()
    c = box.start(["bash", "-c", "kill -9 $$"])
    assert (c.wait(10), c.exit_code) == (-9, 137)


def test_a_wait_that_is_too_long(box, store):
    c = box.start(["sleep", "60"])
    with pytest.raises(TimeoutError):
        c.wait(0.05)
    assert c.running


def test_out_of_memory_is_told(box, store):
    c = box.with_(mc.Memory("24M", swap=0)).start(["bash", "-c", "x=$(head -c 100M /dev/zero | tr '\\0' x)"])
    c.wait(20)
    c.settle()
    assert c.stats().oom_kills > 0
    assert c.inspect()["State"]["OOMKilled"] is True


def test_removed_with_its_end(box, store):
    c = box.start(["true"], remove=True)
    eventually(lambda: not os.path.exists(c.directory), 5)
    assert store.ids() == []
    assert mc.containers(all=True) == []


def test_no_accounting_is_less(box, store):
    plain = box.without("pids", "cgroupfs").start(["sleep", "60"], accounting=False)
    assert plain.places() == {}
    with pytest.raises(mc.SpecError, match="freezer"):
        plain.pause()
    assert plain.processes()
    plain.stop(0)


def test_a_name_is_taken_once(box, store):
    box.start(["sleep", "60"])
    with pytest.raises(mc.SpecError, match="is taken"):
        box.start(["sleep", "60"])
    assert len(store.ids()) == 1


def test_a_program_that_is_not_there_leaves_nothing(box, store):
    bare = mc.Container(box.rootfs, name="lab")
    with pytest.raises(mc.CommandNotFound):
        bare.start(["nosuch"])
    assert store.ids() == []


def test_a_start_that_fails_leaves_a_kept_one_as_it_was(box, store, own_rootfs):
    c = mc.Container(own_rootfs, name="lab").start(["bash", "-c", "exit 3"])
    assert c.wait(10) == 3
    c.settle()
    os.rename(own_rootfs / "bin", own_rootfs / "away") if not (own_rootfs / "bin").is_symlink() else os.rename(
        own_rootfs / "usr" / "bin", own_rootfs / "usr" / "away"
    )
    with pytest.raises(mc.MinictrError):
        c.start()
    assert mc.container("lab").status == "exited"
    assert time.time_ns() > c.state.created


def test_a_list_makes_no_features(box, store, monkeypatch):
    """What is listed is read without its spec, and is the same as what all of the state says."""
    c = box.start(["sleep", "60"])
    with monkeypatch.context() as patch:
        patch.setattr("minictr.runtime.state.feature_from", lambda plain: pytest.fail("a feature was made"))
        (listed,) = mc.containers()
        assert (listed.name, listed.status, listed.pid) == ("lab", "running", c.pid)
        c.pause()
        assert [one.status for one in mc.containers()] == ["paused"]
        c.unpause()
    assert listed.state == c.state
    assert (listed.name, listed.process, listed.brief) == (c.name, c.process, c.state)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"held": false', '"held": 0'),
        ('"created": ', '"created": "'),
        ('"process": [', '"process": ["'),
        ('"groups": [[', '"groups": [[7, '),
        ('"name": "lab"', '"name": 7'),
        ('"groups": ', '"group": '),
    ],
)
def test_a_list_leaves_out_what_cannot_be_read(box, store, old, new):
    c = box.start(["sleep", "60"])
    path = Path(c.directory, "state.json")
    text = path.read_text()
    changed = text.replace(old, new)
    assert changed != text
    path.write_text(changed)
    try:
        assert mc.containers() == []
        (listed,) = mc.containers(all=True)
        for act in (lambda: listed.status, listed.kill, listed.pause, listed.stop, listed.remove, listed.wait):
            with pytest.raises(mc.StateError, match=r"/state\.json: "):
                act()
    finally:
        path.write_text(text)
    assert mc.containers() == [c]


def test_what_is_listed_is_not_acted_on_when_its_features_cannot_be_read(box, store):
    c = box.start(["sleep", "60"])
    path = Path(c.directory, "state.json")
    text = path.read_text()
    path.write_text(text.replace('"feature": "umask"', '"feature": "umask2"'))
    try:
        (listed,) = mc.containers()
        assert (listed.name, listed.status) == ("lab", "running")
        for act in (listed.kill, listed.pause, listed.stop, listed.remove, listed.wait, lambda: listed.exec(["true"])):
            with pytest.raises(mc.StateError, match="umask2"):
                act()
    finally:
        path.write_text(text)
    assert c.status == "running"


def test_a_life_that_another_process_began(box, store):
    """What was read of it is of its last life: who holds it sees the new one, and acts on that."""
    first = box.start(["bash", "-c", "sleep 60"])
    held, also = mc.container("lab"), mc.container("lab")
    assert (held.pid, also.pid) == (first.pid, first.pid)
    first.kill()
    first.wait(10)
    first.settle()
    assert held.status == "exited"
    mc.container("lab").start()
    assert held.status == "running"
    assert held.pid == mc.container("lab").pid != 0
    assert held.exec(["echo", "here"], capture_output=True, text=True).stdout == "here\n"
    with pytest.raises(mc.WrongStatus, match="it is running"):
        also.remove()
    with pytest.raises(TimeoutError):
        first.wait(0.2)
    also.stop(timeout=5)
    assert (first.status, held.pid) == ("exited", 0)


def test_a_start_that_was_cut_short_is_finished_by_the_next(box, store, monkeypatch):
    """Killed when all was written down, and just before it let the program run."""
    box.create(["sleep", "60"])

    class Killed(BaseException):
        pass

    def cut(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("minictr.runtime.attach.os", SimpleNamespace(**{**vars(os), "write": cut}))
        with pytest.raises(Killed):
            mc.container("lab").start()
    assert "sleep" not in str(mc.container("lab").top())
    mc.container("lab").start()
    assert "sleep 60" in str(mc.container("lab").top())
    with pytest.raises(mc.WrongStatus, match="running"):
        mc.container("lab").start()


def test_stop_of_one_that_was_started_again_meanwhile(box, store):
    """As a reboot may: between the look at its state and the lock."""
    c = box.start(["bash", "-c", "sleep 60"])
    held = mc.container("lab")
    assert held.state.process == c.process
    c.kill()
    c.wait(10)
    c.settle()
    c.start()
    held.stop(timeout=5)
    assert c.status == "exited"
