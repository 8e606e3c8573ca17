"""Probes, compared with reality: where something cannot be had, they say so, why, and what helps."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from minictr.errors import SpecError
from minictr.features import REGISTRY
from minictr.kernel import (
    capabilities,
    core,
    landlock,
    mounts,
    namespaces,
    network,
    probing,
    process,
    procfs,
    rootfs,
    seccomp,
    trials,
    users,
)
from minictr.kernel.child import Child
from minictr.kernel.mountinfo import mountinfo
from minictr.runtime.support import ALONE, GROUPS, NETWORK, support, supports
from minictr.steps import Support

MODULES = (namespaces, mounts, rootfs, process, users, capabilities, seccomp, landlock, network)
FSOPEN, MOUNT_SETATTR, CLONE3 = 430, 442, 435  # asm-generic/unistd.h
CLONE_NEWUSER = 0x10000000  # linux/sched.h
KEYCTL = {"x86_64": 250, "aarch64": 219}[os.uname().machine]


def look() -> tuple[Any, ...]:
    """Everything a probe could have changed of this process and its host."""
    return (
        mountinfo(),
        {kind: namespaces.identify("thread-self", kind=kind) for kind in namespaces.KINDS},
        capabilities.get(),
        seccomp.mode(),
        process.gethostname(),
        process.get_umask(),
        process.get_personality(),
        process.get_rlimit("core"),
        process.get_oom_score_adj(),
        process.has_no_new_privs(),
        os.getcwd(),
        len(os.listdir("/proc/self/fd")),
        procfs.read("thread-self", "children"),
        sorted(os.listdir("/sys")),
        sorted(os.listdir("/dev")),
    )


def test_every_feature_has_a_trial() -> None:
    tried = {name for names in trials.TRIALS.values() for name in names}
    assert tried | GROUPS.keys() | {"cgroup_parent", *ALONE, *NETWORK} == set(REGISTRY)
    assert not tried & {*GROUPS, *ALONE, *NETWORK}


def test_as_root_on_this_kernel(requires: Any) -> None:
    """The tests of these modules do each of these things: none was found missing here."""
    requires.root()
    requires.landlock()
    support("umask")  # the first child of a process leaves the sealed program open, for all that follow
    before = look()
    began = time.monotonic()
    found = supports()
    took = time.monotonic() - began
    assert look() == before
    assert list(found) == list(REGISTRY)
    refused = {name: str(answer) for name, answer in found.items() if not answer}
    rarely = {name: reason for name, reason in refused.items() if name in ("rdma", "misc", "hugetlb", "ipvlan")}
    modules = {name: refused.pop(name) for name in ALONE if name in refused}  # at most one is live on any kernel
    assert all(" is not live: " in reason for reason in modules.values())
    assert refused == rarely
    assert all("no such controller" in why or "no ipvlan devices" in why for why in rarely.values())
    assert took < 5, "some hundred milliseconds are expected"


def test_each_module_probes_what_is_its_own() -> None:
    for module in MODULES:
        name = module.__name__.rpartition(".")[2]
        assert set(module.probe()) == set(trials.TRIALS[name])


def test_an_ordinary_user_gets_most_with_a_user_namespace(as_nobody: Any, requires: Any) -> None:
    requires.landlock()

    def body() -> dict[str, Support]:
        before = look()
        found = {name: probing.support(trial) for tried in trials.TRIALS.values() for name, trial in tried.items()}
        assert look() == before
        return found

    found = as_nobody(body)
    assert {name: str(answer) for name, answer in found.items() if not answer} == {}
    assert found["umask"] == found["no_new_privs"] == found["userns"] == Support(True)
    for name in ("mnt", "net", "proc", "dev", "pivot_root", "hostname", "loopback", "user"):
        assert "user namespace" in found[name].reason, name


def become_nobody() -> None:
    """From here on an ordinary user, whose /proc files are still its own (PR_SET_DUMPABLE, linux/prctl.h)."""
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
    core.check(core.lib.mc_prctl(4, 1, 0, 0, 0), "prctl")


def limited(sysctl: str, name: str) -> Support:
    """The answer for NAME below a user namespace that may have no more of SYSCTL: its own setting, not the host's."""
    with Child(CLONE_NEWUSER) as holder:
        users.write_uid_map(holder.pid, "0 0 4294967295\n")
        users.write_gid_map(holder.pid, "0 0 4294967295\n")
        fd = os.open(f"/proc/{holder.pid}/ns/user", os.O_RDONLY)
        core.check(core.lib.mc_setns(fd, CLONE_NEWUSER), "setns")
        os.close(fd)
    process.set_sysctl(sysctl, "0")
    return support(name)


@pytest.mark.parametrize(
    ("sysctl", "name"),
    [
        ("user.max_net_namespaces", "net"),
        ("user.max_user_namespaces", "userns"),
        ("user.max_uts_namespaces", "hostname"),
    ],
)
def test_a_limit_that_is_reached(in_child: Any, sysctl: str, name: str) -> None:
    answer = in_child(limited, sysctl, name)
    assert not answer
    assert answer.reason == "clone3: ENOSPC (No space left on device)"
    assert sysctl in answer.cure
    assert support(name), "the host's own setting was not touched"


def test_an_ordinary_user_without_user_namespaces(in_child: Any) -> None:
    """The sysctl is set in a namespace of the test's own; what is asked afterwards is asked without privilege."""

    def body() -> dict[str, Support]:
        limited("user.max_user_namespaces", "cwd")
        become_nobody()
        return {name: support(name) for name in ("net", "proc", "umask")}

    found = in_child(body)
    assert found["umask"]
    for name in ("net", "proc"):
        assert not found[name]
        assert "max_user_namespaces" in found[name].cure, found[name]


@pytest.mark.parametrize(
    ("errno", "number", "names", "reason", "cure"),
    [
        (38, FSOPEN, ("tmpfs", "proc", "pivot_root", "overlay"), "ENOSYS", "needs Linux 5.2"),
        (38, MOUNT_SETATTR, ("readonly", "nodev", "bind", "readonly_paths"), "ENOSYS", "needs Linux 5.12"),
        (1, KEYCTL, ("keyring",), "EPERM", "seccomp filter"),
        (38, KEYCTL, ("keyring",), "ENOSYS", "CONFIG_KEYS"),
        (1, CLONE3, ("net", "umask"), "EPERM", "be root"),
    ],
)
def test_an_older_kernel_or_an_outer_container(
    in_child: Any, refusing: Any, errno: int, number: int, names: tuple[str, ...], reason: str, cure: str
) -> None:
    def body() -> dict[str, Support]:
        process.no_new_privs()
        seccomp.load(refusing(errno, number))
        return {name: support(name) for name in (*names, "env")}

    found = in_child(body)
    assert found.pop("env")
    for name, answer in found.items():
        assert not answer, name
        assert reason in answer.reason, (name, answer)
        assert cure in answer.cure, (name, answer)


def test_a_masked_proc_is_told(in_child: Any, place: Path) -> None:
    """As in docker: where parts of /proc are covered, a user namespace gets no fresh one."""

    def body() -> Support:
        mounts.tmpfs("/proc/sys").keep()
        become_nobody()
        return support("proc")

    answer = in_child(body)
    assert not answer
    assert "EPERM" in answer.reason
    assert "covers parts of /proc" in answer.cure


def test_support_of_a_word_that_is_none() -> None:
    with pytest.raises(SpecError, match="no feature is called nut"):
        support("nut")
