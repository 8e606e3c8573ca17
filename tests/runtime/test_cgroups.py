"""Limits as the kernel has them while the program runs, each with its feature on and off; and what is left: nothing.

Files are read from outside, at the group that /proc/PID/cgroup names, whatever the host has of v1 and v2.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

import minictr as mc
from minictr.kernel import cgroups
from minictr.runtime.resolve import resolve

# controller -> v1 file, v2 file
FILES = {
    "memory": ("memory.limit_in_bytes", "memory.max"),
    "pids": ("pids.max", "pids.max"),
    "cpuset": ("cpuset.cpus", "cpuset.cpus"),
    "weight": ("cpu.shares", "cpu.weight"),
    "low": ("memory.soft_limit_in_bytes", "memory.low"),
}
MEMORY = str(64 << 20)


@pytest.fixture
def plain(box):
    """The default profile without any group."""
    return box.without("pids", "cgroupfs")


def group(process: mc.Process, controller: str) -> Path:
    """The directory of PROCESS's group, as the host sees it."""
    home = cgroups.home(controller)
    for line in Path(f"/proc/{process.pid}/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        words = {"blkio": "io"}.get(names, names).replace("name=", "named:").split(",")
        if controller in words if home.version == 1 else not names:
            return Path(home.mount + path)
    raise AssertionError(f"no {controller} in /proc/{process.pid}/cgroup")


def read(process: mc.Process, controller: str, what: str = "") -> str:
    file = FILES[what or controller][cgroups.home(controller).version - 1]
    return (group(process, controller) / file).read_text().strip()


def test_limits_are_the_kernel_s(plain):
    wishes = {"memory": mc.Memory("64M", low="8M"), "pids": mc.Pids(20), "cpu": mc.Cpu(0.5, weight=200)}
    if cgroups.has("cpuset"):
        wishes["cpuset"] = mc.Cpuset("0")
    with plain.with_(*wishes.values()).popen(["sleep", "60"]) as process:
        assert read(process, "memory") == MEMORY
        assert read(process, "memory", "low") == str(8 << 20)
        assert read(process, "pids") == "20"
        assert "cpuset" not in wishes or read(process, "cpuset") == "0"
        where = group(process, "cpu")
        if cgroups.home("cpu").version == 1:
            assert (where / "cpu.cfs_quota_us").read_text().strip() == "50000"
            assert int((where / "cpu.shares").read_text()) > 1024
        else:
            assert (where / "cpu.max").read_text().strip() == "50000 100000"
            assert (where / "cpu.weight").read_text().strip() == "200"
        places = [group(process, name) for name in wishes]
        assert all(process.pid in cgroups.processes(str(place)) for place in places)
    assert not any(place.exists() for place in places)


@pytest.mark.filterwarnings("ignore:.*is still running:ResourceWarning")
def test_the_groups_of_a_dropped_process_go_with_the_next_start(box):
    process = box.popen(["sleep", "60"])
    pid, where = process.pid, group(process, "pids")
    del process
    assert where.is_dir()
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    box.run(["true"])
    assert not where.exists()


@pytest.mark.parametrize("name", ["memory", "pids", "cpuset", "freezer", "io", "devices"])
def test_a_group_alone_and_without_it_none(plain, name):
    if not cgroups.has(name):
        pytest.skip(f"this machine has no {name} controller")
    wish = {"memory": mc.Memory, "pids": mc.Pids, "cpuset": mc.Cpuset, "freezer": mc.Freezer, "io": mc.Io}
    boxed = plain.with_(wish.get(name, mc.Devices)())
    with boxed.popen(["sleep", "60"]) as process:
        where = group(process, name)
        assert where != Path(cgroups.home(name).own)
    assert not where.exists()
    with boxed.without(name).popen(["sleep", "60"]) as process:
        assert group(process, name) == Path(cgroups.home(name).own)


def test_all_processes_are_inside(plain):
    """Init, the program and its children: nobody is counted elsewhere."""
    with plain.with_(mc.Pids(20)).popen(["bash", "-c", "sleep 60 & wait"]) as process:
        where = group(process, "pids")
        assert len(cgroups.processes(str(where))) >= 2
        assert process.pid in cgroups.processes(str(where))


def test_the_pids_limit_bites(plain):
    done = plain.with_(mc.Pids(4)).run(["sh", "-c", "for i in 1 2 3 4 5 6; do sleep 9 & done"], capture_output=True)
    assert b"fork" in done.stderr
    assert plain.run(["bash", "-c", "for i in 1 2 3 4 5 6; do sleep 0 & done; wait"]).returncode == 0


def test_the_group_is_the_root_inside(plain, sh):
    wishes = (mc.Memory(), mc.Pids())
    inside = sh(plain.with_(*wishes), "cat /proc/self/cgroup").splitlines()
    paths = {line.split(":")[1]: line.split(":", 2)[2] for line in inside}
    names = {
        "memory" if cgroups.home("memory").version == 1 else "",
        "pids" if cgroups.home("pids").version == 1 else "",
    }
    assert {paths[name] for name in names} == {"/"}
    shown = sh(plain.with_(*wishes).without("cgroupns"), "cat /proc/self/cgroup")
    assert "minictr" in shown


def test_the_files_inside_are_its_own_and_read_only(plain, sh, mountinfo):
    boxed = plain.with_(mc.Memory("64M"), mc.Pids(20), mc.Cgroupfs())
    place = cgroups.home("pids").mount  # the same place inside
    assert sh(boxed, f"cat {place}/pids.max") == "20"
    for path, fields in mountinfo(boxed).items():
        if path.startswith("/sys/fs/cgroup"):
            assert {"ro", "nosuid", "nodev", "noexec"} <= set(fields[5].split(",")), path
    assert "Read-only" in sh(boxed, f"LC_ALL=C; echo 5 2>&1 > {place}/pids.max || mkdir {place}/x 2>&1", code=1)
    assert "/sys/fs/cgroup" not in mountinfo(boxed.without("cgroupfs"))


def test_writable_where_asked_for(plain, sh):
    boxed = plain.with_(mc.Pids(20), mc.Cgroupfs("rw"))
    place = cgroups.home("pids").mount  # the same place inside
    script = (
        f"mkdir {place}/sub && echo $$ > {place}/sub/cgroup.procs && cat {place}/sub/cgroup.procs /proc/self/cgroup"
    )
    assert "/sub" in sh(boxed, script)


def test_only_its_own_hierarchies_are_there(plain):
    legacy = [found for found in cgroups.hierarchies() if found.version == 1 and found.mount]
    resolved = resolve(plain.with_(mc.Pids(), mc.Cgroupfs()).spec())
    made = plain.with_(mc.Pids(), mc.Cgroupfs()).plan()
    mounts = [step for step in made if step.feature == "cgroupfs" and step.call == "mount"]
    assert len(mounts) == (2 if legacy else 1)
    assert len(resolved.get("cgroupfs").hierarchies) >= len(legacy)


def test_devices_that_are_not_listed_cannot_be_opened(plain, sh):
    caps = mc.Capabilities((*plain.spec().get("capabilities").bounding, "MKNOD"))
    boxed = plain.with_(mc.Devices(), caps, mc.Tmpfs("/t", options=("dev",)))
    script = "LC_ALL=C; mknod /t/mem c 1 1; mknod /t/zero c 1 5; head -c 1 /t/zero | wc -c; head -c 1 /t/mem 2>&1"
    assert sh(boxed, script, code=1).endswith("Operation not permitted")
    if cgroups.home("devices").version == 1:
        kmsg = plain.with_(mc.Devices().allowing("c 1:11 r"), mc.Device("/dev/kmsg", "c", 1, 11))
        with kmsg.popen(["sleep", "60"]) as process:
            listed = (group(process, "devices") / "devices.list").read_text().splitlines()
        assert {"c *:* m", "c 1:3 rwm", "c 136:* rwm", "c 1:11 r"} <= set(listed)


def test_a_device_node(plain, sh):
    boxed = plain.with_(mc.Device("/dev/net/x", "c", 1, 5, 0o640))
    assert (
        sh(boxed, "stat -c '%F %t:%T %a' /dev/net/x; head -c 1 /dev/net/x | wc -c")
        == "character special file 1:5 640\n1"
    )


def test_a_parent_is_made_and_stays_empty(plain):
    home = Path(cgroups.home("pids").own)
    parent = home / f"minictr-test-{os.getpid()}"
    parent.mkdir()
    try:
        with plain.with_(mc.Pids(7), mc.CgroupParent(parent.name)).popen(["sleep", "60"]) as process:
            assert group(process, "pids").parent == parent
        assert [path for path in parent.iterdir() if path.is_dir()] == []
    finally:
        parent.rmdir()


def test_parents_that_were_not_there_go_with_the_last_below_them(plain):
    """Made by the first, used by the second, removed by the last; what somebody made by hand stays."""
    home = Path(cgroups.home("pids").own)
    hand = home / f"minictr-test-{os.getpid()}"
    hand.mkdir()
    try:
        boxed = plain.with_(mc.Pids(7), mc.CgroupParent(f"{hand.name}/way/deep"))
        with boxed.popen(["sleep", "60"]) as first:
            deep = group(first, "pids").parent
            assert deep == hand / "way" / "deep"
            with boxed.popen(["sleep", "60"]) as second:
                assert group(second, "pids").parent == deep
                first.close()
                assert deep.is_dir()
        assert not (hand / "way").exists()
    finally:
        hand.rmdir()


def test_a_group_of_the_callers_is_no_way(box, requires):
    requires.root()
    with mc.Cgroup("lab-way", pids=20) as cg:
        box.run(["true"], cgroup=cg)
        assert all(os.path.isdir(place.directory) for place in cg.places.values())


def test_what_the_host_has_not_is_told(plain):
    with pytest.raises(mc.Unsupported, match="named_cgroup: no such v1 hierarchy") as caught:
        plain.with_(mc.NamedCgroup("minictr-nosuch")).run(["true"])
    assert caught.value.feature == "named_cgroup"
    assert plain.with_(mc.NamedCgroup("minictr-nosuch", required=False)).run(["true"]).returncode == 0


def test_best_effort_leaves_out_what_cannot_be_had(plain):
    boxed = plain.with_(mc.NamedCgroup("minictr-nosuch"), mc.Pids(9))
    told: list[str] = []
    done, left = mc.best_effort(
        lambda out: boxed.without(*out).run(["true"]), ["named_cgroup", "pids"], lambda item: told.append(item.name)
    )
    assert done.returncode == 0
    assert [item.name for item in left] == told == ["named_cgroup"]
    assert "no such v1 hierarchy" in str(left[0])
    with pytest.raises(mc.Unsupported):
        mc.best_effort(lambda out: boxed.without(*out).run(["true"]), ["pids"])
    with pytest.raises(mc.SpecError, match="no feature is named"):
        mc.best_effort(lambda out: None, ["nosuch"])


@pytest.mark.parametrize("profile", ["docker", "lxc"])
def test_profiles(lab, sh, profile):
    if not cgroups.has("cpuset"):
        pytest.skip("this machine has no cpuset controller, which the profiles ask for")
    boxed = mc.Container(lab, features=profile)
    for name in ("memory", "cpu", "cpuset", "pids", "io", "devices", "freezer"):
        assert boxed.spec().get(name) is not None
    assert sh(boxed, "cat /proc/self/cgroup | cut -d: -f3 | sort -u") == "/"
    assert (
        sh(boxed, "head -c 1 /dev/zero | wc -c; echo > /dev/null; test -d /sys/fs/cgroup && echo there") == "1\nthere"
    )


def test_a_cgroup_of_the_callers_holds_programs_and_containers(box, requires):
    """Without features the program is in the group itself; a container's own is below it, and both limits hold."""
    requires.root()
    with mc.Cgroup("lab-run", memory="64M", pids=20) as cg:
        done = mc.run(["cat", "/proc/self/cgroup"], cgroup=cg, capture_output=True, text=True)
        pids, memory = (name if cgroups.home(name).version == 1 else "" for name in ("pids", "memory"))
        assert any(line.endswith("/lab-run") and f":{pids}:" in line for line in done.stdout.splitlines())
        contained = box.without("cgroupns")
        done = contained.run(["cat", "/proc/self/cgroup"], cgroup=cg, capture_output=True, text=True)
        rows = {line.split(":")[1]: line.split(":")[2] for line in done.stdout.splitlines()}
        assert "/lab-run/minictr-" in rows[pids]
        assert rows[memory].endswith("/lab-run") or memory == pids
        assert cg.processes() == ()
        assert cg.memory.peak > 0
    assert mc.run(["cat", "/proc/self/cgroup"], capture_output=True, text=True).stdout.count("lab-run") == 0
