"""Profiles: tuples of features to begin with. Leave out with ``.without``, add with ``.with_``.

``bare``     chroot-like: the root file system as /, a clean environment, and nothing else. Not a wall: what
             containment costs is measured against it.
``lxc``      what Debian's lxc-start gives as root with its common configuration: made for system containers.
``docker``   what Docker 24 and later gives to ``docker run --network none`` as root.
``default``  stricter than Docker's, and still runs ordinary images.
``landlock`` no container at all: a program of the host, in its own root, that may reach only the files and TCP ports
             named. For anybody, anywhere: no privilege, no namespace.

A profile is made when it is first asked for, and imports no feature but its own: ``minictr run`` needs one of them.

Not in them: a network beyond loopback, which ``--network bridge`` adds (Docker's default; with ``lxc`` as lxc-net's, no
wall and the image's own /etc/hosts): docs/features/network.md puts them side by side. Nor
labels of security modules: only the host knows which there are (Docker loads a profile of its own, docker-default).
Known differences: Docker's groups of hugetlb, rdma, perf_event and the network classes, which nothing is set in, are
not made; LXC leaves /sys/fs/cgroup to the container's init where there are cgroup namespaces (its cgroup:mixed without
":force"), here it is mounted as cgroup:mixed:force does. Docker's overlay is made by its daemon (add ``Overlay()`` to
have one); LXC has four ttys beside the console, binds /sys/fs/fuse/connections, and its Debian configuration may add a
veth.
"""

from __future__ import annotations

import os
from _collections_abc import Mapping

import minictr.features as f

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from minictr.steps import Feature

    Profile = tuple[Feature, ...]

HOSTNAME = "minictr"

# moby: oci/caps/defaults.go
DOCKER_CAPABILITIES = (
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
)
NOT_BY_DEFAULT = ("MKNOD", "NET_RAW", "AUDIT_WRITE", "SETFCAP")
DEFAULT_CAPABILITIES = tuple(name for name in DOCKER_CAPABILITIES if name not in NOT_BY_DEFAULT)
# lxc: config/templates/common.conf.in
LXC_DROPPED = ("MAC_ADMIN", "MAC_OVERRIDE", "SYS_TIME", "SYS_MODULE", "SYS_RAWIO")

# moby: oci/defaults.go
DOCKER_MASKED = (
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)
DOCKER_READONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
# Interrupt counts and thermal events tell of the keys pressed and the work done elsewhere (moby
# hides them since 28). One path for each processor that may be there, those that are off now too: numbers of processors
# that are on can have holes. A look at this machine, once, as moby does when it starts.
DEFAULT_MASKED = (
    *DOCKER_MASKED,
    "/proc/interrupts",
    *(f"/sys/devices/system/cpu/cpu{number}/thermal_throttle" for number in range(os.sysconf("SC_NPROCESSORS_CONF"))),
)
# moby: daemon/oci_linux.go, in a private network: ping without raw sockets, low ports for everybody
NETWORK_SYSCTLS = (("net.ipv4.ping_group_range", "0 2147483647"), ("net.ipv4.ip_unprivileged_port_start", "0"))
PIDS_LIMIT = 1024


def namespaces() -> Profile:
    """A new one of each, but for users and time."""
    return (
        f.MountNamespace(),
        f.PidNamespace(),
        f.NetNamespace(),
        f.IpcNamespace(),
        f.UtsNamespace(),
        f.CgroupNamespace(),
    )


def controllers() -> Profile:
    """What dockerd and lxc-start make for every container: a group in each hierarchy, without limits."""
    return f.Memory(), f.Cpu(), f.Cpuset(), f.Pids(), f.Io(), f.Freezer()


def bare() -> Profile:
    return f.Chroot(), f.Env()


def lxc() -> Profile:
    from minictr.features.capabilities import CAPABILITIES
    from minictr.features.cgroup_devices import LXC_RULES

    return (
        *namespaces()[1:],
        f.MountNamespace("shared"),  # services with mount tables of their own see what is mounted later: conf.c
        f.PivotRoot(),
        f.Proc(),
        f.Sysfs(),
        f.Dev(inodes=0),
        f.Devpts(),
        f.Shm(size="", inodes=0),
        f.Mqueue(),
        f.ReadonlyPaths(("/proc/sys", "/proc/sysrq-trigger"), writable=("/proc/sys/net", "/sys/devices/virtual/net")),
        f.BootId(),
        f.Hostname(HOSTNAME),
        f.Loopback(),
        f.Env((("container", "lxc"),)),
        f.Keyring(),
        f.Session(),
        f.Identity(),
        f.Capabilities(tuple(name for name in CAPABILITIES if name not in LXC_DROPPED), drop_only=True),
        f.Seccomp("lxc"),
        f.Init(),
        *controllers(),
        f.Devices(LXC_RULES),
        f.NamedCgroup("systemd", required=False),
        f.NamedCgroup("unified", required=False),
        f.Cgroupfs("rw"),
    )


def docker() -> Profile:
    return (
        *namespaces(),
        f.PivotRoot(),
        f.Proc(),
        f.Sysfs(),
        f.Dev(inodes=0),
        f.Devpts(max=0),
        f.Shm(inodes=0),
        f.Mqueue(),
        f.MaskedPaths(DOCKER_MASKED),
        f.ReadonlyPaths(DOCKER_READONLY),
        f.Hostname(HOSTNAME),
        f.HostnameFile(),
        f.Hosts(),
        f.ResolvConf(),
        f.Sysctl(NETWORK_SYSCTLS),
        f.Loopback(),
        f.Env(),
        f.Umask(),
        f.Keyring(),
        f.Session(),
        f.Identity(),
        f.Capabilities(DOCKER_CAPABILITIES),
        f.Seccomp("docker"),
        *controllers(),
        f.Devices(),
        f.Cgroupfs(),
    )


def default() -> Profile:
    return (
        *namespaces(),
        f.PivotRoot(),
        f.NoDev(),
        f.Proc(),
        f.Sysfs(),
        f.Dev(),
        f.Devpts(),
        f.Shm(),
        f.Mqueue(),
        f.MaskedPaths(DEFAULT_MASKED),
        f.ReadonlyPaths(DOCKER_READONLY),
        f.Hostname(HOSTNAME),
        f.Sysctl(NETWORK_SYSCTLS),
        f.Loopback(),
        f.Env(),
        f.Umask(),
        f.Rlimits((("core", 0, 0),)),
        f.Keyring(),
        f.Session(),
        f.Identity(),
        f.Capabilities(DEFAULT_CAPABILITIES),
        f.NoNewPrivs(),
        f.Seccomp("default"),
        f.Init(),
        f.Pids(PIDS_LIMIT),
        f.Cgroupfs(),
    )


def landlock() -> Profile:
    from minictr.rights import ACCESS, SCOPES

    # a session of its own: a terminal of the caller's that it has as a stream could be typed into (TIOCSTI)
    return (
        f.Env(),
        f.Rlimits((("core", 0, 0),)),
        f.Session(),
        f.NoNewPrivs(),
        f.Landlock(access=tuple(ACCESS), bind=(), connect=(), scopes=tuple(SCOPES)),
    )


MAKERS = {function.__name__: function for function in (bare, lxc, docker, default, landlock)}


class Profiles(Mapping[str, "Profile"]):
    """Name -> features, read only; each is made once."""

    def __init__(self) -> None:
        self._made: dict[str, Profile] = {}

    def __getitem__(self, name: str) -> Profile:
        if name not in self._made:
            self._made[name] = MAKERS[name]()
        return self._made[name]

    def __contains__(self, name: object) -> bool:
        return name in MAKERS

    def __iter__(self) -> Iterator[str]:
        return iter(MAKERS)

    def __len__(self) -> int:
        return len(MAKERS)


PROFILES = Profiles()
