"""System calls and sockets that are doors to much of the kernel: each closed by default, and open where it is let.

The attempts are tests/security/attempts/calls.c; each is made again in a container that is weakened by one thing.
"""

from __future__ import annotations

import os

import compiled
import pytest
from hostile import powerful

import minictr as mc
from minictr.features import policies

X86 = pytest.mark.skipif(os.uname().machine != "x86_64", reason="not exercisable here: a way into x86-64 only")


def test_io_uring(hostile, walls):
    """Work queued to the kernel's own threads, past the filter: CVE-2022-29582, CVE-2023-2598 and many more."""
    walls(hostile, hostile.without("seccomp"), "io_uring")


def test_userfaultfd(hostile, walls):
    """Stops the kernel in the middle of a copy, which makes races certain: how CVE-2021-22555 is exploited."""
    walls(hostile, hostile.without("seccomp"), "userfaultfd")


def test_bpf(hostile, walls):
    """The verifier's mistakes are the kernel's memory: CVE-2020-8835, CVE-2021-3490. CAP_BPF lets it."""
    walls(hostile, powerful(hostile, "BPF"), "bpf")
    walls(hostile, powerful(hostile, "SYS_ADMIN"), "bpf")


def test_bpf_is_the_filters_and_the_kernels(hostile, tried):
    """Without the filter it is the missing capability that stands, where kernel.unprivileged_bpf_disabled says so."""
    with open("/proc/sys/kernel/unprivileged_bpf_disabled") as setting:
        closed = setting.read().strip() != "0"
    assert (tried(hostile.without("seccomp"), "bpf").result == compiled.BLOCKED) == closed


def test_perf_event_open(hostile, walls):
    """CVE-2013-2094, CVE-2022-1729; and counters that tell of other programs' work."""
    walls(hostile, hostile.without("seccomp"), "perf")


def test_keyctl(hostile, walls):
    """Keys are in no namespace. CVE-2016-0728, CVE-2017-6951."""
    walls(hostile, hostile.without("seccomp"), "keyctl")


def test_modules(hostile, walls):
    """A module is the kernel. init_module(2) wants CAP_SYS_MODULE, and the filter says so before the kernel looks."""
    walls(hostile, powerful(hostile, "SYS_MODULE"), "module")


def test_the_kernels_log(hostile, walls):
    """Addresses, and what other containers did: CVE-2018-17972's kind. syslog(2), kernel.dmesg_restrict."""
    walls(hostile, powerful(hostile, "SYSLOG"), "kernel_log")


def test_af_alg(hostile, walls):
    """The kernel's cryptography for everybody: CVE-2026-31431."""
    walls(hostile, hostile.without("seccomp"), "af_alg")


def test_af_vsock(hostile, walls):
    """To the hypervisor and what listens there: in no namespace that a container has. CVE-2021-26708."""
    walls(hostile, hostile.without("seccomp"), "af_vsock")


def test_raw_sockets(hostile, walls):
    """Answers in other containers' names on a shared bridge: CVE-2020-10749, CVE-2020-13401. CAP_NET_RAW lets it."""
    walls(hostile, powerful(hostile, "NET_RAW"), "raw_socket")


def test_packet_sockets(hostile, walls):
    """CVE-2017-7308, CVE-2020-14386."""
    walls(hostile, powerful(hostile, "NET_RAW"), "packet_socket")


@X86
def test_int_0x80_is_no_way_round_the_filter(hostile, walls):
    """i386's entry has other numbers: a filter that knows x86-64's only judges keyctl(2) as something else.

    seccomp(2), caveats.
    """
    walls(hostile, hostile.without("seccomp"), "i386")
    # a filter for x86-64 that answers other architectures with "allow" is open, however much it denies
    blind = mc.SeccompFilter("allow").deny("keyctl", errno="EPERM")
    blind = blind.replace(arches=("x86_64",), bad_arch=policies.ALLOW)
    walls(hostile, hostile.with_(mc.Seccomp(blind)), "i386")


@X86
def test_socketcall_is_no_way_round_the_filter(hostile, walls):
    """Its family of sockets is in memory, where no filter looks; the policy ``docker`` lets it (moby, 2026)."""
    walls(hostile, hostile.with_(mc.Seccomp("docker")), "socketcall", "ENOSYS")


@X86
def test_x32_is_no_way_round_the_filter(hostile, tried):
    """x86-64's numbers with one bit more: a deny list without them is none. seccomp(2), caveats."""
    verdict = mc.SeccompFilter.default().explain("keyctl", arch="x32")
    assert verdict.action.kind == "errno", verdict
    answer = tried(hostile, "x32")
    assert answer.result != compiled.SUCCEEDED
    weak = tried(hostile.without("seccomp"), "x32")
    if weak.result == compiled.NOT_EXERCISABLE:
        pytest.skip(f"not exercisable here: {weak.how}")
    assert answer.how.startswith("ENOSYS") and weak.result == compiled.SUCCEEDED


def test_user_namespaces_inside(hostile, walls):
    """Every privilege over a new world, and so the kernel's code behind it: CVE-2022-0185, CVE-2023-32233.

    By clone(2), clone3(2), whose flags no filter sees, and unshare(2).
    """
    walls(hostile, hostile.without("seccomp"), "user_namespace")
    walls(hostile, powerful(hostile, "SYS_ADMIN"), "user_namespace")


def test_setgroups(hostile, tried):
    """CVE-2014-8989: a group that only takes access away is given up in a namespace of one's own.

    By default there is no such namespace. Where there is one, the kernel (3.19) wants setgroups(2) denied first.
    """
    assert "unshare" in tried(hostile, "setgroups").how
    second = tried(hostile.without("seccomp"), "setgroups")
    assert second.errno == "EPERM" and "gid_map" in second.how, second


def test_setgroups_in_a_container_of_one_id(hostile, walls):
    """The same for what starts the container, where it has a user namespace: groups stay, unless root gave a range."""
    one, many = ((0, 0, 1),), ((0, 100_000, 65536),)
    single = hostile.with_(mc.UserNamespace(uid_map=one, gid_map=one))
    walls(single, hostile.with_(mc.UserNamespace(uid_map=many, gid_map=many)), "setgroups", here=1)
