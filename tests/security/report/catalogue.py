"""The classes of escape that the report tries: what each is called, where it is known from, and how bad it is.

Severity is what an attacker has when it succeeds: "host" is the host itself or a sure way to it, "reach" things of the
host that were not given, "kernel" a door to kernel code with a long history of holes, "service" the host's resources.
"""

from __future__ import annotations

from typing import NamedTuple

HOST, REACH, KERNEL, SERVICE = "host", "reach", "kernel", "service"


class Class(NamedTuple):
    """``name`` is attempts/main.c's; ``known`` a CVE, or a page."""

    name: str
    severity: str
    title: str
    known: str


CLASSES = (
    Class("runtime_binary", HOST, "overwrite the runtime by /proc/PID/exe", "CVE-2019-5736"),
    Class("descriptors", HOST, "descriptors of the host left open", "CVE-2024-21626"),
    Class("walk_out", HOST, "walk out of a chroot", "chroot(2)"),
    Class("handle", HOST, "open the host's files by handle", "open_by_handle_at(2), 'Shocker'"),
    Class("make_device", HOST, "make a node of the host's disk, read it", "mknod(2)"),
    Class("devices", HOST, "device files: memory, disks, fuse, kvm", "docker's device list"),
    Class("settings", HOST, "core_pattern, modprobe, sysctls, sysrq", "core(5)"),
    Class("proc_again", HOST, "a second /proc without read-only parts", "CVE-2016-3697's kind"),
    Class("unmask", HOST, "unmount or remount what protects /proc", "CVE-2023-27561's kind"),
    Class("release_agent", HOST, "cgroup v1 release_agent", "CVE-2022-0492"),
    Class("module", HOST, "load a kernel module", "init_module(2)"),
    Class("host_process", REACH, "signal and trace processes of the host", "pid_namespaces(7)"),
    Class("tiocsti", REACH, "type into the caller's terminal", "CVE-2017-5226"),
    Class("abstract_socket", REACH, "abstract unix sockets of the host", "CVE-2020-15257"),
    Class("keyring", REACH, "keys of the caller's session", "keyrings(7)"),
    Class("secrets", REACH, "/proc/keys, timer_list, kcore, firmware", "moby: masked paths"),
    Class("interrupts", REACH, "/proc/interrupts, a side channel", "moby 28"),
    Class("kernel_log", REACH, "the kernel's log", "syslog(2)"),
    Class("cgroup_write", REACH, "groups without limits of one's own", "cgroups(7)"),
    Class("mount", KERNEL, "mount a file system", "mount(2)"),
    Class("user_namespace", KERNEL, "a user namespace, and all privilege in it", "CVE-2022-0185"),
    Class("setgroups", REACH, "give up a group that denies", "CVE-2014-8989"),
    Class("set_user_id", REACH, "become root by a set-user-ID program", "no_new_privs: prctl(2)"),
    Class("inheritable", REACH, "inheritable capabilities", "CVE-2022-24769"),
    Class("io_uring", KERNEL, "io_uring", "CVE-2022-29582"),
    Class("userfaultfd", KERNEL, "userfaultfd", "CVE-2021-22555's tool"),
    Class("bpf", KERNEL, "bpf", "CVE-2021-3490"),
    Class("perf", KERNEL, "perf_event_open", "CVE-2022-1729"),
    Class("keyctl", KERNEL, "keys: add_key, keyctl", "CVE-2016-0728"),
    Class("i386", KERNEL, "round the filter by int 0x80", "seccomp(2), caveats"),
    Class("socketcall", KERNEL, "round the filter by socketcall", "socketcall(2)"),
    Class("x32", KERNEL, "round the filter by x32", "seccomp(2), caveats"),
    Class("af_alg", KERNEL, "AF_ALG sockets", "CVE-2026-31431"),
    Class("af_vsock", KERNEL, "AF_VSOCK sockets, to the hypervisor", "CVE-2021-26708"),
    Class("raw_socket", REACH, "raw sockets", "CVE-2020-10749's kind"),
    Class("packet_socket", KERNEL, "packet sockets", "CVE-2020-14386"),
    Class("processes", SERVICE, "1,200 processes", "pids.max"),
    Class("memory", SERVICE, "128 MiB of memory", "memory.max"),
    Class("shm", SERVICE, "96 MiB of /dev/shm", "tmpfs(5) size"),
    Class("shm_inodes", SERVICE, "20,000 files in /dev/shm", "tmpfs(5) nr_inodes"),
    Class("dev_inodes", SERVICE, "20,000 files in /dev", "tmpfs(5) nr_inodes"),
    Class("terminals", SERVICE, "1,100 pseudo terminals", "devpts max"),
)
