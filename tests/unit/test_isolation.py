"""Isolation without a kernel: the readers on texts as the kernel writes them, and the order of every field."""

from __future__ import annotations

import copy
import pickle

import pytest

import minictr as mc
from minictr.errors import SpecError, WeakerIsolation
from minictr.features import PROFILES, REGISTRY
from minictr.kernel import isolation as reader
from minictr.kernel.capabilities import Sets
from minictr.kernel.isolation_cgroups import _rates, _settings, smallest
from minictr.kernel.isolation_mounts import visible
from minictr.kernel.isolation_values import (
    Devices,
    Fixed,
    Init,
    Membership,
    Namespace,
    Root,
    Seccomp,
    Session,
    Speculation,
    User,
)
from minictr.kernel.mountinfo import parse
from minictr.runtime.isolation_order import RULES, flat, rule_of, told_apart, weaker
from minictr.runtime.isolation_wanted import NOTHING, PROMISES, rows_of

CAPS = ("CHOWN", "KILL")
BASE = mc.Isolation(
    pid=100,
    start=5,
    command="job",
    threads=1,
    thread_differences=(),
    namespaces=Fixed(net=Namespace(1, True, False), pid=Namespace(2, True, False)),
    user=User(1000, 1000, (1000,) * 4, (1000,) * 4, (5, 7), ((0, 1000, 1),), ((0, 1000, 1),), True, False, "deny"),
    capabilities=Sets(CAPS, CAPS, (), CAPS, ()),
    securebits=None,
    no_new_privs=True,
    seccomp=Seccomp("filter", 2),
    landlock=None,
    lsm_label="box (enforce)",
    dumpable=False,
    speculation=Speculation("thread mitigated", "conditional disabled"),
    root=Root(True, True, True, "overlay", "private"),
    kernel_files=Fixed({"/proc/sys": "ro", "/proc/kcore": "masked", "/sys": "ro"}),
    masked=("/proc/kcore",),
    readonly=("/proc/sys", "/sys"),
    mounts=Fixed({"/": "overlay ro", "/data": "ext4 ro,nosuid", "/proc": "proc rw"}),
    links=("lo",),
    cgroups=Fixed(memory=Membership("/a", True), pids=Membership("/a", True)),
    limits=Fixed({"memory.max": 1 << 20, "pids.max": 10, "cpuset.cpus": "0-1", "cpu.cpus": 0.5}),
    devices=Devices(("c 1:3 rwm", "c *:* m"), 1, True),
    rlimits=Fixed(core=(0, 0), nofile=(64, 128), nproc=(-1, -1)),
    oom_score_adj=100,
    umask=0o022,
    personality=0,
    cpus="0-1",
    mems="0",
    session=Session(True, False),
    init=Init(2, "init", True),
    keyring=None,
    unknown=Fixed(landlock="not shown", keyring="not shown"),
)


def change(name: str, value: object) -> mc.Isolation:
    """BASE with one field, by its dotted name, changed."""
    top, _, rest = name.partition(".")
    if not rest:
        return BASE.replace(**{top: value})
    old = getattr(BASE, top)
    if not isinstance(old, dict):
        return BASE.replace(**{top: old.replace(**{rest: value})})
    key, _, field = rest.rpartition(".") if top in ("namespaces", "cgroups") else (rest, "", "")
    return BASE.replace(**{top: Fixed({**old, key: old[key].replace(**{field: value}) if field else value})})


# field -> (a weaker value, a stronger or another value that is no weaker)
ORDER = {
    "namespaces.net.own": (False, True),
    "user.uid": (0, 1001),
    "user.groups": ((5, 7, 9), (5,)),
    "user.root_is_root": (True, False),
    "user.root_mapped": (True, False),
    "user.setgroups": ("allow", "deny"),
    "capabilities.effective": (("CHOWN", "SYS_ADMIN"), ()),
    "capabilities.bounding": (("CHOWN", "KILL", "MKNOD"), ("KILL",)),
    "capabilities.ambient": (("CHOWN",), ()),
    "thread_differences": (("CapEff",), ()),
    "no_new_privs": (False, True),
    "seccomp.mode": ("none", "strict"),
    "seccomp.filters": (1, 3),
    "lsm_label": ("", "box (enforce)"),
    "dumpable": (True, False),
    "speculation.store_bypass": ("vulnerable", "thread force mitigated"),
    "speculation.indirect_branch": ("always enabled", "always disabled"),
    "root.own": (False, True),
    "root.readonly": (False, True),
    "root.nodev": (False, True),
    "root.propagation": ("shared", "private"),
    "kernel_files./proc/sys": ("rw", "masked"),
    "kernel_files./proc/kcore": ("ro", "absent"),
    "links": (("eth0", "lo"), ()),
    "cgroups.memory.own": (False, True),
    "limits.memory.max": (2 << 20, 4096),
    "limits.pids.max": (-1, 1),
    "limits.cpu.cpus": (0.6, 0.5),
    "limits.cpuset.cpus": ("0-2", "1"),
    "devices.rules": (("c 1:3 rwm", "b 8:0 r"), ("c 1:3 r", "c 5:0 m")),
    "devices.programs": (0, 2),
    "devices.restricted": (False, True),
    "rlimits.nofile": ((64, 129), (1, 2)),
    "rlimits.core": ((-1, -1), (0, 0)),
    "oom_score_adj": (99, 1000),
    "personality": (0x0040000, 0x0008),
    "cpus": ("0-3", "0"),
    "mems": ("0-1", "0"),
    "session.own": (False, True),
    "init.reaper": (False, True),
}


@pytest.mark.parametrize("name", ORDER)
def test_one_field_weaker_is_named_and_stronger_is_not(name):
    worse, better = ORDER[name]
    base = change("user.root_mapped", False) if name == "user.root_mapped" else BASE
    with pytest.raises(WeakerIsolation) as caught:
        change(name, worse).assert_at_least(base)
    assert name in [point.partition(":")[0] for point in caught.value.points]
    change(name, better).assert_at_least(base if name != "user.root_mapped" else BASE)


@pytest.mark.parametrize("name", [name for name in ORDER if name.partition(".")[0] not in ("kernel_files", "limits")])
def test_what_cannot_be_told_is_not_taken_for_granted(name):
    unread = BASE.replace(root=None) if name.startswith("root.") else change(name, None)
    wanted = change(name, False) if name == "user.root_mapped" else BASE
    with pytest.raises(WeakerIsolation, match=f"{name}: cannot be told"):
        unread.assert_at_least(wanted)


def test_every_rule_is_tried_above():
    assert [pattern for pattern, rule in RULES if not any(rule_of(name) is rule for name in ORDER)] == []


def test_masked_and_read_only_paths():
    bare = BASE.replace(masked=(), kernel_files=Fixed({**BASE.kernel_files, "/proc/kcore": "rw"}))
    assert weaker(bare, {"masked": ("/proc/kcore",)}) == ("masked: /proc/kcore is rw",)
    gone = BASE.replace(masked=(), kernel_files=Fixed({**BASE.kernel_files, "/proc/kcore": "absent"}))
    assert weaker(gone, {"masked": ("/proc/kcore",)}) == ()
    assert weaker(BASE, {"masked": ("/proc/keys",)}) == ("masked: /proc/keys is not known to be so",)
    assert weaker(BASE, {"readonly": ("/proc/sys", "/data", "/proc/kcore")}) == ()
    assert weaker(BASE, {"readonly": ("/proc",)}) == ("readonly: /proc is not known to be so",)
    unread = BASE.replace(kernel_files=None, unknown=Fixed(masked="no privilege"))
    assert weaker(unread, {"masked": ("/proc/kcore",)}) == ("masked: cannot be told: no privilege",)


def test_a_limit_that_is_not_there_is_none():
    missing = BASE.replace(limits=Fixed({}))
    assert weaker(missing, {"limits.pids.max": 10}) == ("limits.pids.max: -1, wanted 10",)
    hidden = missing.replace(unknown=Fixed({"limits.pids": "not mounted"}))
    assert weaker(hidden, {"limits.pids.max": 10}) == ("limits.pids.max: cannot be told: not mounted",)


@pytest.mark.parametrize(
    ("label", "wanted", "holds"),
    [
        ("box (enforce)", "box", True),
        ("box (complain)", "box", False),
        ("outer//&box (enforce)", "box", True),
        ("boxer (enforce)", "box", False),
        ("unconfined", "box", False),
        ("", "box", False),
        ("u:r:t:s0", "u:r:t:s0", True),
        ("u:r:other:s0", "u:r:t:s0", False),
        ("", "unconfined", True),
    ],
)
def test_labels(label, wanted, holds):
    assert (weaker(BASE.replace(lsm_label=label), {"lsm_label": wanted}) == ()) is holds


def test_memory_with_swap_is_counted_as_the_kernel_does():
    rows = rows_of((mc.Memory("1M", swap="1M"),))
    v1 = BASE.replace(limits=Fixed({"memory.max": 1 << 20, "memory.memsw": 2 << 20}), cgroups=BASE.cgroups)
    v2 = BASE.replace(limits=Fixed({"memory.max": 1 << 20, "memory.swap": 1 << 20}))
    neither = BASE.replace(limits=Fixed({"memory.max": 1 << 20}))
    assert weaker(v1, rows) == weaker(v2, rows) == ()
    assert len(weaker(neither, rows)) == 2


def test_every_feature_promises_something_or_is_known_to_promise_nothing():
    assert set(REGISTRY) <= set(PROMISES) | NOTHING, set(REGISTRY) - set(PROMISES) - NOTHING
    assert not set(PROMISES) & NOTHING


def test_features_as_rows():
    rows = rows_of(
        (
            mc.NetNamespace(),
            mc.UtsNamespace(join="/run/ns/uts"),
            mc.UserNamespace(((0, 100000, 65536),), ((0, 100000, 65536),)),
            mc.Identity("1000"),
            mc.Capabilities(("KILL",)),
            mc.Rlimits((("nofile", 64, 64),)),
            mc.MaskedPaths(("/proc/kcore",)),
            mc.Cpu(cpus=1.5),
            mc.Pids(5),
            mc.Devices(),
            mc.Personality(aslr=False),
        )
    )
    assert rows["namespaces.net.own"] is True
    assert "namespaces.uts.own" not in rows
    assert (rows["user.root_is_root"], rows["user.uid"]) == (False, 1)
    assert rows["capabilities.bounding"] == rows["capabilities.effective"] == ("KILL",)
    assert rows["rlimits.nofile"] == (64, 64)
    assert rows["masked"] == ("/proc/kcore",)
    assert (rows["limits.cpu.cpus"], rows["limits.pids.max"], rows["devices.restricted"]) == (1.5, 5, True)
    assert "personality" not in rows


def test_a_profile_by_its_name():
    with pytest.raises(SpecError, match="'strict' is not one of bare, lxc, docker, default"):
        BASE.assert_at_least("strict")
    BASE.assert_at_least("bare")
    with pytest.raises(WeakerIsolation, match=r"namespaces.uts.own: cannot be told"):
        BASE.assert_at_least("default")
    assert set(rows_of(PROFILES["default"])) > {"no_new_privs", "masked", "limits.pids.max", "init.reaper"}


def test_diff_is_by_field():
    other = change("seccomp.filters", 9).replace(pid=7, links=("lo", "eth0"))
    assert [(row.name, row.mine, row.other) for row in BASE.diff(other)] == [
        ("seccomp.filters", 2, 9),
        ("links", ("lo",), ("lo", "eth0")),
    ]
    assert BASE.diff(BASE) == ()
    assert [row.name for row in BASE.diff(BASE.replace(pid=7), identity=True)] == ["pid"]
    assert told_apart("namespaces.net.id") and not told_apart("namespaces.net.own")


def test_it_is_a_value():
    assert hash(BASE) == hash(BASE.replace()) and BASE.replace() == BASE
    with pytest.raises(AttributeError):
        BASE.namespaces["net"] = None
    with pytest.raises(AttributeError):
        BASE.rlimits.update(core=(1, 1))
    assert pickle.loads(pickle.dumps(BASE)) == copy.deepcopy(BASE) == BASE
    assert repr(BASE).startswith("<Isolation of 100 job: own net pid, uid 1000, 2 capabilities, no_new_privs, seccomp")
    plain = BASE.to_dict()
    assert plain["capabilities"]["effective"] == ["CHOWN", "KILL"] and plain["namespaces"]["net"]["own"] is True
    assert list(plain) == list(BASE._fields)
    assert "unknown" not in flat(BASE)


# --- texts of the kernel ---

STACKED = b"""\
20 1 8:1 / / rw - ext4 /dev/sda1 rw
21 20 0:5 / /dev rw - devtmpfs udev rw
22 21 0:6 / /dev/shm rw - tmpfs tmpfs rw
23 21 0:7 / /dev rw - tmpfs tmpfs rw
24 23 0:8 / /dev/pts rw - devpts devpts rw
25 20 0:9 / /sys rw - sysfs sysfs rw
26 25 0:10 / /sys/fs/cgroup rw - tmpfs tmpfs rw
27 26 0:11 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu
28 25 0:12 / /sys/fs ro - tmpfs tmpfs ro
19 25 0:13 / /sys/fs ro - tmpfs tmpfs ro
"""


def test_mounts_below_other_mounts_are_not_shown():
    rows = visible(parse(STACKED))
    assert [row.id for row in rows if row.target.startswith("/dev")] == [23, 24]
    assert "/sys/fs/cgroup/cpu" not in [row.target for row in rows]
    assert rows[0].target == "/"


def test_the_order_of_rows_means_nothing():
    lines = STACKED.splitlines()[:-1]
    forward, backward = (visible(parse(b"\n".join(order))) for order in (lines, reversed(lines)))
    assert {row.id for row in forward} == {row.id for row in backward} == {20, 23, 24, 25, 28}


LIMITS = """\
Limit                     Soft Limit           Hard Limit           Units     
Max cpu time              unlimited            unlimited            seconds   
Max file size             1024                 unlimited            bytes     
Max data size             unlimited            unlimited            bytes     
"""  # noqa: W291 - as the kernel pads it


def test_limits_of_a_process():
    assert reader._rlimits(LIMITS) == {"cpu": (-1, -1), "fsize": (1024, -1), "data": (-1, -1)}


def test_the_smallest_limit_on_the_way_up():
    levels = [{"max": 100, "swap": -1}, {"max": 50}, {"max": -1, "high": 10}, {"cpus": "0"}, {"cpus": "0-3"}]
    assert smallest("memory", levels) == {"max": 50, "swap": -1, "high": 10, "cpus": "0"}


def write(directory, **files):
    for name, text in files.items():
        (directory / name.replace("__", ".")).write_text(text)
    return str(directory)


def test_limit_files_of_both_versions(tmp_path):
    for part in ("cpu1", "cpu2", "memory1", "io2", "io1", "pages"):
        (tmp_path / part).mkdir()
    one = write(tmp_path / "cpu1", cpu__cfs_quota_us="-1\n", cpu__cfs_period_us="100000\n", cpu__shares="2\n")
    assert _settings("cpu", 1, one) == {"cpus": -1}
    assert _settings("cpu", 2, write(tmp_path / "cpu2", cpu__max="50000 100000\n")) == {"cpus": 0.5}
    memory = write(tmp_path / "memory1", memory__limit_in_bytes=f"{(1 << 63) - 4096}\n")
    assert _settings("memory", 1, memory) == {"max": -1}
    io = write(tmp_path / "io2", io__max="8:0 rbps=1000 wbps=max riops=5 wiops=max\n", io__weight="default 100\n")
    assert _settings("io", 2, io) == {"read_bps.8:0": 1000, "read_iops.8:0": 5}
    rows = write(tmp_path / "io1", blkio__throttle__read_bps_device="8:0 77\n")
    assert _settings("io", 1, rows) == {"read_bps.8:0": 77}
    assert dict(_rates("write_bps", "8:16 9\n8:0 5\n")) == {"write_bps.8:16": 9, "write_bps.8:0": 5}
    pages = write(tmp_path / "pages", hugetlb__2MB__max="max\n", hugetlb__2MB__rsvd__max="7\n", hugetlb__1GB__max="5\n")
    assert _settings("hugetlb", 2, pages) == {"1GB": 5, "2MB": -1}
    assert _settings("memory", 2, str(tmp_path / "nothing")) == {}
