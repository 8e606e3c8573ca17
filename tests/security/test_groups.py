"""Control groups as a way out: writing to them, and release_agent. attempts/groups.c"""

from __future__ import annotations

import secrets
import subprocess
from pathlib import Path

import compiled
import pytest
from hostile import powerful
from waiting import eventually

import minictr as mc


def test_writing_to_cgroups(hostile, walls):
    """A group beside one's own has no limits, and devices.allow in it: cgroups(7), CVE-2021-4154's neighbourhood.

    By default its groups are on a read-only mount, and no other can be mounted.
    """
    walls(hostile, hostile.with_(mc.Cgroupfs("rw")), "cgroup_write", "EROFS")
    walls(hostile, powerful(hostile, "SYS_ADMIN").without("cgroupfs"), "cgroup_write", "EROFS")


def test_raising_its_own_limit(hostile, sh):
    """The limit that was given stands, for root inside too: only the host writes it."""
    place = "/sys/fs/cgroup/pids/pids.max"
    if sh(hostile, f"test -e {place}; echo $?") != "0":
        place = "/sys/fs/cgroup/pids.max"
    small = hostile.with_(mc.Pids(77))
    script = f"echo 999 2>/dev/null >{place}; cat {place}"
    assert sh(small, script) == "77"
    assert sh(small.with_(mc.Cgroupfs("rw")), script) == "999"


def test_release_agent_cannot_be_written(hostile, tried):
    """CVE-2022-0492: in what is mounted, in a mount of one's own, and in that of a user namespace."""
    assert tried(hostile, "release_agent").result == compiled.BLOCKED
    weak = powerful(hostile, "SYS_ADMIN").without("cgroupns", "seccomp")
    if not any(" - cgroup " in line for line in Path("/proc/self/mountinfo").read_text().splitlines()):
        pytest.skip("not exercisable here: no cgroup v1 on this host")
    assert tried(weak, "release_agent").result == compiled.SUCCEEDED


def test_release_agent_is_run_by_the_hosts_root(hostile, tried, tmp_path):
    """The whole of CVE-2022-0492, in a hierarchy made for it: a script of the attacker's runs on the host, as root."""
    if not any(" - cgroup " in line for line in Path("/proc/self/mountinfo").read_text().splitlines()):
        pytest.skip("not exercisable here: no cgroup v1 on this host")
    proof, agent = tmp_path / "proof", tmp_path / "agent"
    agent.write_text(f"#!/bin/sh\nid -u >{proof}\n")
    agent.chmod(0o755)
    facts = {"agent": agent, "name": f"minictr-{secrets.token_hex(4)}"}
    assert tried(hostile, "run_release_agent", **facts).errno == "EPERM"
    assert not proof.exists()
    weak = powerful(hostile, "SYS_ADMIN").without("cgroupns", "seccomp")
    try:
        assert tried(weak, "run_release_agent", **facts).result == compiled.SUCCEEDED
        eventually(lambda: proof.exists() and proof.read_text() == "0\n", 5)
    finally:
        forget(facts["name"])


def forget(name: str) -> None:
    """The kernel keeps a hierarchy that had a group at its last umount, until the next, and forgets it some time after:
    that umount is made here, in a mount namespace that ends with it."""

    def forgotten() -> bool:
        return f"name={name}:" not in Path("/proc/self/cgroup").read_text()

    if not forgotten():
        again = f"mount -t cgroup -o none,name={name} cgroup /mnt && sleep 0.3 && umount /mnt"
        subprocess.run(["unshare", "-m", "sh", "-c", again], check=True)
    eventually(forgotten, 20)
