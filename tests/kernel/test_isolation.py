"""The reader of isolation by itself: somebody else's processes, limits up the tree, devices, an ordinary reader."""

from __future__ import annotations

import os
import subprocess
import time

import pytest

from minictr.errors import StepFailed
from minictr.kernel import cgroup_places, cgroups, core, isolation, isolation_cgroups, isolation_mounts, namespaces
from minictr.kernel.isolation_target import Target
from minictr.kernel.isolation_values import Reading

PRIVATE = ("namespaces.net", "namespaces.mnt", "namespaces.userns", "root", "kernel_files", "masked", "personality")


def read(pid: int = 0, **options: object) -> Reading:
    return Reading(**isolation.read_isolation(pid, **options))


def test_of_somebody_else_what_is_private_is_none_with_its_reason(as_nobody):
    with subprocess.Popen(["sleep", "1000"]) as root_owned:
        found = as_nobody(read_plain, root_owned.pid)
        root_owned.kill()
    told = found["unknown"]
    for name in PRIVATE:
        assert "CAP_SYS_PTRACE" in told[name], name
        value = found
        for part in name.split("."):
            value = value[part]
        assert value is None, name
    # what everybody may see: proc(5)
    assert found["capabilities"] == read().capabilities.effective
    assert (found["uid"], found["no_new_privs"], found["rlimits"]) == (0, False, read().rlimits["nofile"])


def read_plain(pid: int) -> dict[str, object]:
    """What can be carried out of a child."""
    found = read(pid)
    rows = {name: getattr(found, name) for name in ("root", "kernel_files", "masked", "personality", "no_new_privs")}
    return {
        **rows,
        "namespaces": dict.fromkeys(found.namespaces) | {k: v and v.id for k, v in found.namespaces.items()},
        "unknown": dict(found.unknown),
        "capabilities": found.capabilities.effective,
        "uid": found.user.uid,
        "rlimits": found.rlimits["nofile"],
    }


def own_and_dumpable(dumpable: int) -> tuple[object, object, object]:
    core.check(core.lib.mc_prctl(4, dumpable, 0, 0, 0), "prctl")
    found = read()
    return found.dumpable, found.user.uid, found.unknown.get("dumpable")


def test_whether_an_ordinary_process_is_dumpable(as_nobody):
    assert as_nobody(own_and_dumpable, 1) == (True, 65534, None)


def test_a_process_that_is_not_dumpable_is_seen_from_outside():
    """Its files are root's: so somebody else, who may, tells by the owner."""
    pid = os.fork()
    if pid == 0:
        os.setresuid(65534, 65534, 65534)  # clears the flag: prctl(2), PR_SET_DUMPABLE
        time.sleep(100)
        os._exit(0)
    try:
        deadline = time.monotonic() + 10
        while read(pid).user.uid == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert (read(pid).dumpable, read(pid).user.uid) == (False, 65534)
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


def test_of_root_it_cannot_be_told():
    found = read()
    if os.geteuid() == 0:
        assert found.dumpable is None and "runs as root" in found.unknown["dumpable"]


def test_the_nearest_limit_is_in_force_whoever_set_it(requires):
    """A group without a limit, below one that has it."""
    requires.root()
    if not cgroup_places.has("pids"):
        pytest.skip("no pids controller here")
    outer = cgroups.locate("pids", f"minictr-isolation-{os.getpid()}")
    inner = cgroups.locate("pids", f"minictr-isolation-{os.getpid()}/below")
    cgroups.create(inner)
    try:
        (_write(outer, "40"), _write(inner, "max"))
        with subprocess.Popen(["sleep", "1000"]) as child:
            try:
                _enter(inner, child.pid)
                assert read(child.pid).limits["pids.max"] == 40
                _write(inner, "30")
                assert read(child.pid).limits["pids.max"] == 30
                assert read(child.pid).cgroups["pids"].own
                (_write(outer, "max"), _write(inner, "max"))
                assert read(child.pid).limits["pids.max"] == -1
            finally:
                child.kill()
                child.wait()
    finally:
        cgroups.remove(inner.directory)
        if os.path.isdir(outer.directory):
            cgroups.remove(outer.directory)
    assert not os.path.exists(outer.directory)


def _write(place: cgroups.Place, text: str) -> None:
    with open(f"{place.directory}/pids.max", "w") as file:
        file.write(text)


def _enter(place: cgroups.Place, pid: int) -> None:
    with open(f"{place.directory}/cgroup.procs", "w") as file:
        file.write(str(pid))


def test_devices_by_list_or_by_programs():
    found = read()
    assert found.devices.restricted in (True, False)
    with Target(0) as target:
        groups = isolation_cgroups.Groups(target)
    listed = any(one.version == 1 and "devices" in one.controllers for one, _ in groups.hierarchies)
    assert (found.devices.rules is not None) == listed


def test_a_device_list_or_a_program_in_force(requires):
    """v1 shows its rules, v2 how many programs there are: on the group itself, and on one below it."""
    requires.root()
    if not cgroup_places.has("devices"):
        pytest.skip("no devices controller here")
    outer, inner = (cgroups.locate("devices", f"minictr-isolation-{os.getpid()}{end}") for end in ("", "/below"))
    before = read().devices
    cgroups.create(outer)
    try:
        cgroups.write(outer, rules=((False, "a", -1, -1, "rwm"), (True, "c", 1, 3, "rwm")))
        cgroups.create(inner)
        with subprocess.Popen(["sleep", "1000"]) as child:
            try:
                assert read(child.pid).devices == before
                _enter(inner, child.pid)
                found = read(child.pid).devices
                assert found.restricted is True
                if outer.version == 1:
                    assert found.rules == ("c 1:3 rwm",)
                else:
                    assert (found.rules, found.programs) == (None, (before.programs or 0) + 1)
            finally:
                child.kill()
                child.wait()
    finally:
        for place in (inner, outer):
            if os.path.isdir(place.directory):
                cgroups.remove(place.directory)


def see_from_a_new_namespace() -> tuple[dict[str, bool], dict[str, bool]]:
    before = read().namespaces
    with namespaces.unshare("uts", "ipc", "net"):
        inside = read(os.getppid())  # the reader is elsewhere: what it reads of is not
        mine = {kind: one.own for kind, one in read().namespaces.items() if one}
    assert not any(one.own for one in before.values() if one)  # None: a kind that this kernel has not
    return {kind: one.own for kind, one in inside.namespaces.items() if one}, mine


def test_own_is_other_than_the_readers(in_child):
    """And of the calling thread: its namespaces may not be its process's first thread's."""
    other, mine = in_child(see_from_a_new_namespace, mount_namespace=False)
    assert [kind for kind, own in other.items() if own] == ["uts", "ipc", "net"]
    assert not any(mine.values())


def hide(directory: str) -> tuple[object, ...]:
    """Masks, and what only looks like one, in a mount namespace of this child's."""
    for name in ("null", "empty", "full", "writable"):
        os.makedirs(f"{directory}/{name}")
    with open(f"{directory}/file", "w") as file:
        file.write("secret")
    for command in (
        f"mount --bind /dev/null {directory}/file",
        f"mount -t tmpfs -o ro none {directory}/empty",
        f"mount -t tmpfs none {directory}/full && touch {directory}/full/x && mount -o remount,ro {directory}/full",
        f"mount -t tmpfs none {directory}/writable",
    ):
        subprocess.run(command, shell=True, check=True)
    names = ("file", "empty", "full", "writable", "null", "nothing")
    found = read(paths=[f"{directory}/{name}" for name in names])
    return found.masked, [found.kernel_files[f"{directory}/{name}"] for name in names]


def test_what_is_a_mask_and_what_only_looks_like_one(in_child, tmp_path):
    masked, states = in_child(hide, str(tmp_path))
    assert states == ["masked", "masked", "ro", "rw", "rw", "absent"]
    assert {f"{tmp_path}/file", f"{tmp_path}/empty"} <= set(masked)
    assert not {f"{tmp_path}/full", f"{tmp_path}/writable"} & set(masked)


def cover(directory: str) -> object:
    """The null device below something that lies over it: hidden itself, it hides nothing."""
    os.makedirs(f"{directory}/a/b")
    with open(f"{directory}/a/b/file", "w") as file:
        file.write("secret")
    for command in (
        f"mount --bind /dev/null {directory}/a/b/file",
        f"mount -t tmpfs none {directory}/a && mkdir {directory}/a/b && echo other > {directory}/a/b/file",
    ):
        subprocess.run(command, shell=True, check=True)
    found = read(paths=[f"{directory}/a/b/file"])
    return found.kernel_files[f"{directory}/a/b/file"], f"{directory}/a/b/file" in found.masked


def test_a_mask_that_something_lies_over(in_child, tmp_path):
    assert in_child(cover, str(tmp_path)) == ("rw", False)


def test_a_file_system_that_may_not_answer_is_not_asked(monkeypatch):
    """FUSE over /proc/sys: the process serves it itself, and would hold us for ever."""
    row = isolation_mounts.parse(b"9 1 0:9 / /proc/sys rw - fuse.evil evil rw\n")
    with pytest.raises(isolation_mounts.Unreadable, match=r"fuse.evil lies over it"):
        isolation_mounts._state(-1, "/proc/sys/kernel", {9: row[0]})


def test_something_else_on_proc(in_child):
    def body() -> str:
        subprocess.run("mount -t tmpfs none /proc && mkdir /proc/1", shell=True, check=True)
        try:
            read(1)
        except StepFailed as err:
            return str(err)
        return ""

    assert "something else than procfs is mounted on /proc" in in_child(body)
