"""The ready-made policies: what they allow, and that the cache's keys know their text."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

import minictr as mc
from minictr.features import policies, seccomp
from minictr.features.filter_parts import ALLOW, Action

pytestmark = pytest.mark.skipif(os.uname().machine != "x86_64", reason="names of x86_64")
EPERM, ENOSYS = Action("errno", 1), Action("errno", 38)
KERNEL = (6, 1)


def test_content_is_the_files_digest():
    text = Path(policies.__file__).read_bytes()
    assert hashlib.sha256(text).hexdigest()[:16] == seccomp.CONTENT, "CONTENT in features/seccomp.py has to follow"


def action(flt, name, *args, arch="x86_64"):
    return flt.explain(name, *args, arch=arch).action


@pytest.mark.parametrize("name", ["default", "docker"])
def test_what_both_say(name):
    flt = mc.SeccompFilter.named(name, kernel=KERNEL)
    for allowed in ("read", "openat", "execve", "ptrace", "chroot", "mknod", "seccomp"):
        assert action(flt, allowed) == ALLOW, allowed
    closed = (
        "io_uring_setup io_uring_enter io_uring_register bpf mount umount2 unshare setns keyctl add_key userfaultfd"
    )
    for denied in f"{closed} perf_event_open kexec_load init_module open_by_handle_at reboot settimeofday".split():
        assert action(flt, denied) == EPERM, denied
    assert action(flt, "clone3") == ENOSYS
    assert action(flt, "clone", 0x11) == ALLOW
    assert action(flt, "clone", 0x10000011) == EPERM
    for family, wanted in ((1, ALLOW), (2, ALLOW), (10, ALLOW), (16, ALLOW), (38, EPERM), (40, EPERM), (99, EPERM)):
        assert action(flt, "socket", family, 1, 0) == wanted, family
    assert action(flt, "personality", 0xFFFFFFFF) == ALLOW
    assert action(flt, "personality", 0x40000) == EPERM  # ADDR_NO_RANDOMIZE


def test_where_they_part():
    docker, default = mc.SeccompFilter.docker(kernel=KERNEL), mc.SeccompFilter.default(kernel=KERNEL)
    assert action(docker, "read", arch="x32") == ALLOW
    assert action(default, "read", arch="x32") == ENOSYS
    assert action(docker, "socketcall", 1, arch="x86") == ALLOW
    assert action(default, "socketcall", 1, arch="x86") == ENOSYS
    assert action(default, "socketcall", 2, arch="x86") == ALLOW


@pytest.mark.parametrize(
    ("capability", "name"),
    [
        ("SYS_ADMIN", "mount"),
        ("SYS_BOOT", "reboot"),
        ("SYS_MODULE", "init_module"),
        ("SYS_PTRACE", "kcmp"),
        ("SYS_TIME", "settimeofday"),
        ("SYS_NICE", "mbind"),
        ("BPF", "bpf"),
        ("PERFMON", "perf_event_open"),
        ("DAC_READ_SEARCH", "open_by_handle_at"),
        ("SYSLOG", "syslog"),
        ("SYS_CHROOT", "chroot"),
        ("SYS_TTY_CONFIG", "vhangup"),
        ("SYS_RAWIO", "iopl"),
        ("SYS_PACCT", "acct"),
    ],
)
def test_a_capability_opens_its_calls(capability, name):
    assert action(mc.SeccompFilter.docker(caps=(), kernel=KERNEL), name) == EPERM
    assert action(mc.SeccompFilter.docker(caps=(f"CAP_{capability}",), kernel=KERNEL), name) == ALLOW


def test_an_old_kernel_has_no_ptrace():
    assert action(mc.SeccompFilter.docker(kernel=(4, 7)), "ptrace") == EPERM


def test_every_call_is_named_once():
    names = policies.ALWAYS.split()
    assert len(names) == len(set(names))
    assert not set(names).intersection(" ".join(policies.OF_CAPABILITY.values()).split())


def test_lxc_and_strict():
    lxc, strict = mc.SeccompFilter.lxc(), mc.SeccompFilter.strict()
    assert action(lxc, "kexec_load") == EPERM
    assert action(lxc, "umount2", 0, 1) == Action("errno", 13)
    assert action(lxc, "umount2", 0, 2) == action(lxc, "mount") == ALLOW
    assert action(strict, "write") == action(strict, "execve") == ALLOW
    assert action(strict, "open") == Action("kill_process")


def test_what_libseccomp_does_not_know_is_told():
    unknown = mc.SeccompFilter.docker(kernel=KERNEL).unknown
    from minictr.kernel import seccomp_library

    assert all(not seccomp_library.known(name) for name in unknown)
    assert mc.SeccompFilter("allow").deny("mkdir").unknown == ()
