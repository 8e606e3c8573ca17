"""The classes of escape that the report tries: what each is called, where it is known from, and how bad it is.

The severities are gVisor's (SECURITY.md): what an attacker has when it succeeds. SURFACE is ours: nothing yet but a
door to kernel code with a long history of holes, each of which would be an escape.
"""

from __future__ import annotations

from typing import NamedTuple

ESCAPE = "Escape"  # code, or a sure way to it, on the host
HOST_LEAK = "HostLeak"  # data of the host that were not given
LATERAL = "Lateral"  # other containers, or their traffic
HOST_DOS, PEER_DOS = "HostDoS", "PeerDoS"  # what the host, or all containers together, cannot do without
INTERNAL = "InternalEsc"  # more privilege inside
SURFACE = "Surface"


class Class(NamedTuple):
    """``name`` is attempts/main.c's; ``known`` a CVE, or a page."""

    name: str
    severity: str
    title: str
    known: str


CLASSES = (
    Class("runtime_binary", ESCAPE, "overwrite the runtime by /proc/PID/exe", "CVE-2019-5736"),
    Class("descriptors", ESCAPE, "descriptors of the host, left open by a caller", "CVE-2024-21626"),
    Class("walk_out", ESCAPE, "walk out of a chroot", "chroot(2)"),
    Class("handle", ESCAPE, "open the host's files by handle", "open_by_handle_at(2), 'Shocker'"),
    Class("make_device", ESCAPE, "make a node of a host's device, read it", "mknod(2)"),
    Class("devices", ESCAPE, "device files: memory, disks, fuse, kvm", "docker's device list"),
    Class("settings", ESCAPE, "core_pattern, modprobe, sysctls, sysrq", "core(5)"),
    Class("proc_again", ESCAPE, "a second /proc without read-only parts", "proc(5), mount_too_revealing()"),
    Class("unmask", ESCAPE, "unmount or remount what protects /proc", "moby: masked paths"),
    Class("release_agent", ESCAPE, "cgroup v1 release_agent", "CVE-2022-0492"),
    Class("module", ESCAPE, "load a kernel module", "init_module(2)"),
    Class("host_process", ESCAPE, "signal and trace processes of the host", "pid_namespaces(7)"),
    Class("tiocsti", ESCAPE, "type into the caller's terminal", "CVE-2017-5226"),
    Class("abstract_socket", ESCAPE, "abstract unix sockets of the host", "CVE-2020-15257"),
    Class("keyring", HOST_LEAK, "keys of the caller's session", "keyrings(7)"),
    Class("secrets", HOST_LEAK, "/proc/keys, timer_list, kcore, firmware", "moby: masked paths"),
    Class("interrupts", HOST_LEAK, "/proc/interrupts, a side channel", "moby 28"),
    Class("kernel_log", HOST_LEAK, "the kernel's log", "syslog(2)"),
    Class("cgroup_write", HOST_DOS, "groups without limits of one's own", "cgroups(7)"),
    Class("mount", SURFACE, "mount a file system", "mount(2)"),
    Class("user_namespace", SURFACE, "a user namespace, and all privilege in it", "CVE-2022-0185"),
    Class("setgroups", INTERNAL, "give up a group that denies", "CVE-2014-8989"),
    Class("set_user_id", INTERNAL, "become root by a set-user-ID program", "no_new_privs: prctl(2)"),
    Class("inheritable", INTERNAL, "inheritable capabilities", "CVE-2022-24769"),
    Class("io_uring", SURFACE, "io_uring", "CVE-2022-29582"),
    Class("userfaultfd", SURFACE, "userfaultfd", "CVE-2021-22555"),
    Class("bpf", SURFACE, "bpf", "CVE-2021-3490"),
    Class("perf", SURFACE, "perf_event_open", "CVE-2022-1729"),
    Class("keyctl", SURFACE, "keys: add_key, keyctl", "CVE-2016-0728"),
    Class("i386", SURFACE, "round the filter by int 0x80", "seccomp(2), caveats"),
    Class("socketcall", SURFACE, "round the filter by socketcall", "socketcall(2)"),
    Class("x32", SURFACE, "round the filter by x32", "seccomp(2), caveats"),
    Class("af_alg", SURFACE, "AF_ALG sockets", "CVE-2026-31431"),
    Class("af_vsock", SURFACE, "AF_VSOCK sockets, to the hypervisor", "CVE-2021-26708"),
    Class("raw_socket", LATERAL, "raw sockets", "CVE-2020-10749"),
    Class("packet_socket", SURFACE, "packet sockets", "CVE-2020-14386"),
    Class("processes", PEER_DOS, "1,200 processes", "pids.max"),
    Class("memory", PEER_DOS, "128 MiB of memory", "memory.max"),
    Class("shm", PEER_DOS, "96 MiB of /dev/shm", "tmpfs(5) size"),
    Class("shm_inodes", PEER_DOS, "20,000 files in /dev/shm", "tmpfs(5) nr_inodes"),
    Class("dev_inodes", PEER_DOS, "20,000 files in /dev", "tmpfs(5) nr_inodes"),
    Class("terminals", PEER_DOS, "1,100 pseudo terminals", "devpts max"),
)
