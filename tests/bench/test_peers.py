"""What the peers are given, and what is taken away again."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from bench import host
from bench.lifecycle import oci, peers
from bench.lifecycle.lab import Lab
from bench.lifecycle.shape import FALLBACK

HYBRID_MOUNTS = """\
31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
"""
HYBRID_OWN = "9:name=systemd:/user\n4:memory:/a/b\n1:cpu,cpuacct:/\n0::/two\n"


def test_our_own_cgroup_is_found_in_every_hierarchy() -> None:
    assert host.own_cgroups(HYBRID_MOUNTS, HYBRID_OWN) == [
        "/sys/fs/cgroup/cpu,cpuacct",
        "/sys/fs/cgroup/memory/a/b",
        "/sys/fs/cgroup/systemd/user",
        "/sys/fs/cgroup/unified/two",
    ]


def test_the_bundle_says_what_the_shape_says() -> None:
    found = oci.config(FALLBACK, "/root-fs", ("/bin/true",), "some-name")
    assert found["process"]["noNewPrivileges"]
    assert set(found["process"]["capabilities"]) == {"bounding", "effective", "permitted"}
    assert found["process"]["capabilities"]["bounding"] == [f"CAP_{name}" for name in FALLBACK.capabilities]
    assert {kind["type"] for kind in found["linux"]["namespaces"]} == {
        "mount",
        "pid",
        "network",
        "ipc",
        "uts",
        "cgroup",
    }
    assert found["linux"]["maskedPaths"] == list(FALLBACK.masks)
    assert found["linux"]["cgroupsPath"] == "some-name"
    assert not found["linux"]["cgroupsPath"].startswith("/")  # relative: below the caller's own
    assert json.loads(json.dumps(found)) == found


def test_without_a_cgroup_none_is_named() -> None:
    assert "cgroupsPath" not in oci.config(FALLBACK, "/r", ("/bin/true",))["linux"]


def test_the_profile_is_an_allow_list_of_the_size() -> None:
    profile = oci.seccomp_profile(300)
    (rule,) = profile["syscalls"]
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    assert len(rule["names"]) == 300 - oci.OVERHEAD
    assert {"execve", "exit_group", "mmap", "openat", "clone3", "rseq"} <= set(rule["names"])
    assert not oci.REFUSED.intersection(rule["names"])


def test_libseccomp_makes_about_300_instructions_of_it(tmp_path: Path) -> None:
    """The known answer behind "a profile of comparable size"."""
    pyseccomp = pytest.importorskip("pyseccomp")
    filter_ = pyseccomp.SyscallFilter(pyseccomp.ERRNO(oci.ENOSYS))
    known = 0
    for name in oci.allowed_syscalls(300):
        filter_.add_rule(pyseccomp.ALLOW, name)
        known += 1
    with open(tmp_path / "filter", "wb") as file:
        filter_.export_bpf(file)
    assert known == 300 - oci.OVERHEAD
    assert 290 <= os.path.getsize(tmp_path / "filter") // 8 <= 310


def test_an_unknown_hierarchy_is_not_ours() -> None:
    assert host.own_cgroups("35 31 0:32 / /mnt/x rw - cgroup cgroup rw,net_cls", HYBRID_OWN) == []


def test_removing_a_cgroup_that_is_not_there_is_no_error() -> None:
    assert peers.remove_cgroups("no-such-cgroup-of-ours") == []


def test_lxc_gets_every_mask(rootfs: Path, requires) -> None:
    requires.root()
    with Lab(str(rootfs), ballast=0) as lab:
        arm = peers.LxcExecute(lab)
        text = arm.configuration("/s")
    assert f"lxc.rootfs.path = dir:{rootfs}" in text
    for path in lab.shape.present((*lab.shape.masks, *lab.shape.readonlys)):
        assert f" {path[1:]} " in text
    assert "lxc.no_new_privs = 1" in text
    assert "lxc.cgroup.relative = 1" in text
