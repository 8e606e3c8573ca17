"""Each namespace: its own, the host's, and one that is joined."""

from __future__ import annotations

import ctypes
import os
import time

import pytest

import minictr as mc

KINDS = {
    "mnt": ("mnt", mc.MountNamespace),
    "pid": ("pid", mc.PidNamespace),
    "net": ("net", mc.NetNamespace),
    "ipc": ("ipc", mc.IpcNamespace),
    "uts": ("uts", mc.UtsNamespace),
    "cgroupns": ("cgroup", mc.CgroupNamespace),
    "timens": ("time", mc.TimeNamespace),
}
BY_DEFAULT = ("mnt", "pid", "net", "ipc", "uts", "cgroupns")


def inside(process: mc.Process, kind: str) -> str:
    """The namespace of a running container's program, as the host sees it: init's only child, or itself."""
    with open(f"/proc/{process.pid}/task/{process.pid}/children") as file:
        pid = file.read().split()[0]
    return os.readlink(f"/proc/{pid}/ns/{kind}")


@pytest.mark.parametrize("name", KINDS)
def test_own_or_absent(box, name):
    kind, feature = KINDS[name]
    with box.with_(feature()).popen(["sleep", "100"]) as process:
        assert inside(process, kind) != os.readlink(f"/proc/self/ns/{kind}")
    less = box.without(name) if name != "mnt" else mc.Container(features=())
    with less.with_(mc.Init()).popen(["sleep", "100"]) as process:
        assert inside(process, kind) == os.readlink(f"/proc/self/ns/{kind}")


def test_without_any_it_is_the_hosts_world(box):
    less = mc.Container(box.rootfs, features="bare")
    with less.popen(["sleep", "100"]) as process:
        for kind in os.listdir("/proc/self/ns"):
            assert os.readlink(f"/proc/{process.pid}/ns/{kind}") == os.readlink(f"/proc/self/ns/{kind}")


@pytest.mark.parametrize("name", ["net", "ipc", "uts", "cgroupns", "pid"])
def test_joined(box, name):
    """By the file of a running container's namespace."""
    kind, feature = KINDS[name]
    needing = {
        "uts": ("hostname",),
        "net": ("sysctl", "loopback", "sysfs"),
        "ipc": ("mqueue",),
        "cgroupns": ("cgroupfs",),
    }
    drop = needing.get(name, ())
    with box.popen(["sleep", "100"]) as first:
        joining = box.without(*drop).with_(feature(join=f"/proc/{first.pid}/ns/{kind}"))
        with joining.popen(["sleep", "100"]) as second:
            assert inside(second, kind) == inside(first, kind)
            others = [KINDS[other][0] for other in BY_DEFAULT if other != name]
            assert all(inside(second, other) != inside(first, other) for other in others)


def test_joined_pid_sees_its_processes(box, sh):
    with box.popen(["sleep", "1234"]) as first:
        joining = box.with_(mc.PidNamespace(join=f"/proc/{first.pid}/ns/pid"))
        assert "sleep 1234" in sh(joining, "ps ax")
        assert "sleep 1234" not in sh(box, "ps ax")


def test_the_caller_stays_where_it_was(box):
    before = {kind: os.readlink(f"/proc/thread-self/ns/{kind}") for kind in os.listdir("/proc/thread-self/ns")}
    with box.popen(["sleep", "100"]) as first:
        box.with_(mc.PidNamespace(join=f"/proc/{first.pid}/ns/pid")).run(["true"])
        with pytest.raises(mc.CommandNotFound):
            box.with_(mc.PidNamespace(join=f"/proc/{first.pid}/ns/pid")).run(["nosuch"])
    after = {kind: os.readlink(f"/proc/thread-self/ns/{kind}") for kind in os.listdir("/proc/thread-self/ns")}
    assert after == before


def test_joined_mnt_and_no_root(box):
    """``exec`` into a running container: its mount table, nothing of ours mounted there."""
    with box.with_(mc.Tmpfs("/run/only-here")).popen(["sleep", "100"]) as first:
        features = [
            mc.MountNamespace(join=f"/proc/{first.pid}/ns/mnt"),
            mc.PidNamespace(join=f"/proc/{first.pid}/ns/pid"),
            mc.Env(),
        ]
        done = mc.Container(features=features).run(["/bin/sh", "-c", "ls -d /run/*; ls /"], stdout=mc.PIPE, text=True)
    assert "/run/only-here" in done.stdout
    assert "probe" not in done.stdout and "work" not in done.stdout.split()


@pytest.mark.parametrize("wrong", ["/nowhere", "/etc/passwd", "/proc/self/ns/uts"])
def test_joining_what_is_no_such_namespace(box, wrong):
    with pytest.raises(mc.MinictrError) as caught:
        box.with_(mc.NetNamespace(join=wrong)).without("loopback", "sysctl").run(["true"])
    assert wrong in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("without", [(), ("init",), ("pid",)])
def test_time_offsets(box, sh, without):
    moved = box.without(*without).with_(mc.TimeNamespace(monotonic=1_000_000, boottime=5_000_000.5))
    monotonic, boottime = map(int, sh(moved, "exec probe clocks").split())
    assert monotonic == pytest.approx(time.clock_gettime(time.CLOCK_MONOTONIC) + 1_000_000, abs=5)
    assert boottime == pytest.approx(time.clock_gettime(time.CLOCK_BOOTTIME) + 5_000_000.5, abs=5)
    monotonic, _ = map(int, sh(box, "exec probe clocks").split())
    assert monotonic == pytest.approx(time.clock_gettime(time.CLOCK_MONOTONIC), abs=5)


@pytest.mark.parametrize("without", [(), ("init",)], ids=["with init", "without init"])
def test_moved_clocks_do_not_move_the_timeline(box, without):
    """Stamps are of the caller's clock from the first to the last, whatever the program's own clocks say."""
    moved = box.without(*without).with_(mc.TimeNamespace(monotonic=-3 if without else 1_000_000))
    begin = time.monotonic()
    rows = moved.run(["true"]).timeline.rows
    took_us = (time.monotonic() - begin) * 1e6
    assert "setns_time" in [row.call for row in rows]
    assert all(0 <= row.start_us <= took_us and -1 <= row.duration_us <= took_us for row in rows)


def test_net_is_empty_but_for_loopback(box, sh):
    assert sh(box, "ls /sys/class/net") == "lo"
    assert sh(box, "cat /sys/class/net/lo/operstate") == "unknown"  # what an lo that is up says of itself
    assert sh(box.without("loopback"), "cat /sys/class/net/lo/operstate") == "down"
    # sysfs without a network of its own still is one of the host's
    assert set(sh(box.without("net"), "ls /sys/class/net").split()) == set(os.listdir("/sys/class/net"))


def test_loopback_carries_packets(box, sh):
    listens = "exec 3<>/dev/tcp/127.0.0.1/9"
    assert "refused" in sh(box, f"({listens}) 2>&1; true")
    assert "unreachable" in sh(box.without("loopback"), f"({listens}) 2>&1; true")


def test_ipc_objects_are_apart(box, sh):
    """A System V queue of the host's is seen without the namespace only."""
    libc = ctypes.CDLL(None)
    queue = libc.msgget(0, 0o600)
    try:
        rows = {name: sh(box.without(*name), "cat /proc/sysvipc/msg").splitlines()[1:] for name in ((), ("ipc",))}
    finally:
        libc.msgctl(queue, 0, None)
    assert rows[()] == []
    assert str(queue) in [row.split()[1] for row in rows["ipc",]]
    assert sh(box, "ls -A /dev/mqueue") == ""


def test_host_and_domain_name(box, sh):
    named = box.with_(mc.Hostname("judge-7.example"), mc.Domainname("nis.example"))
    assert sh(named, "uname -n; cat /proc/sys/kernel/domainname") == "judge-7.example\nnis.example"
    assert sh(box.without("hostname"), "uname -n") == os.uname().nodename
    with pytest.raises(mc.SpecError, match="uts"):
        mc.Container(box.rootfs, features=[f for f in named.features if f.name != "uts"]).run(["true"])
    assert os.uname().nodename != "judge-7.example"


def test_cgroups_are_shown_from_their_own_root(box, sh):
    rows = sh(box, "cat /proc/self/cgroup").splitlines()
    assert {row.split(":")[2] for row in rows} == {"/"}


def test_propagation(box, mountinfo):
    """Nothing mounted inside reaches the host, whatever is asked for; private by default."""
    for word, tag in (("private", ""), ("slave", "master:"), ("shared", "shared:")):
        root = mountinfo(box.with_(mc.MountNamespace(propagation=word)))["/proc"]
        optional = " ".join(root[6 : root.index("-")])
        assert (tag == "shared:") == ("shared:" in optional)


def test_a_user_namespace_with_maps(box, sh, status):
    rows = ((0, 100_000, 65_536),)
    mapped = box.with_(mc.UserNamespace(uid_map=rows, gid_map=rows))
    assert sh(mapped, "id -u; cat /proc/self/uid_map /proc/self/gid_map").split() == [
        "0", *("0", "100000", "65536") * 2
    ]  # fmt: skip
    assert status(mapped)["CapEff"] == status(box)["CapEff"]
    with mapped.popen(["sleep", "100"]) as process, open(f"/proc/{process.pid}/status") as file:
        rows = [line.split()[1:] for line in file if line.startswith(("Uid:", "Gid:"))]
    assert rows == [["100000"] * 4] * 2


def test_a_user_namespace_of_a_single_id(box, sh):
    alone = box.with_(mc.UserNamespace())
    assert sh(alone, "cat /proc/self/uid_map /proc/self/setgroups; id -u").split() == ["0", "0", "1", "deny", "0"]
    assert sh(alone, "ls -ld /dev/null /proc/1 | wc -l") == "2"


def test_a_user_of_a_user_namespace(box, sh):
    rows = ((0, 100_000, 65_536),)
    mapped = box.with_(mc.UserNamespace(uid_map=rows, gid_map=rows), mc.Identity("alice"))
    assert sh(mapped, "id -u; id -g; id -G").split() == ["1000", "1001", "1001", "2001", "2002"]


def test_an_unmapped_user_is_refused(box):
    with pytest.raises(mc.SpecError, match="1000"):
        box.with_(mc.UserNamespace(), mc.Identity("alice")).run(["true"])
