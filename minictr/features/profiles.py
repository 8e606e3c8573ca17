"""Profiles: tuples of features to begin with. Leave out with ``.without``, add with ``.with_``.

``bare``     chroot-like: the root file system as /, a clean environment, and nothing else. Not a wall: what
             containment costs is measured against it.
``lxc``      what Debian's lxc-start gives as root with its common configuration: made for system containers.
``docker``   what Docker 24 and later gives to ``docker run --network none`` as root.
``default``  stricter than Docker's, and still runs ordinary images.
``landlock`` no container at all: a program of the host, in its own root, that may reach only the files and TCP ports
             named. For anybody, anywhere: no privilege, no namespace.

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

from minictr.features.capabilities import CAPABILITIES, Capabilities, NoNewPrivs
from minictr.features.cgroup_devices import LXC_RULES, Devices, Io
from minictr.features.cgroupfs import Cgroupfs
from minictr.features.cgroups import Cpu, Cpuset, Freezer, Memory, NamedCgroup, Pids
from minictr.features.landlock import Landlock
from minictr.features.masks import MaskedPaths, ReadonlyPaths
from minictr.features.mounts import Dev, Devpts, Mqueue, Proc, Shm, Sysfs
from minictr.features.names import HostnameFile, Hosts, ResolvConf
from minictr.features.namespaces import (
    CgroupNamespace,
    IpcNamespace,
    MountNamespace,
    NetNamespace,
    PidNamespace,
    UtsNamespace,
)
from minictr.features.network import Loopback
from minictr.features.process import BootId, Env, Hostname, Init, Keyring, Rlimits, Session, Sysctl, Umask
from minictr.features.rootfs import Chroot, NoDev, PivotRoot
from minictr.features.seccomp import Seccomp
from minictr.features.users import Identity
from minictr.rights import ACCESS, SCOPES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minictr.steps import Feature

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

# What dockerd and lxc-start make for every container: a group in each hierarchy, without limits
CONTROLLERS = (Memory(), Cpu(), Cpuset(), Pids(), Io(), Freezer())
PIDS_LIMIT = 1024

NAMESPACES = (
    MountNamespace(),
    PidNamespace(),
    NetNamespace(),
    IpcNamespace(),
    UtsNamespace(),
    CgroupNamespace(),
)

BARE: tuple[Feature, ...] = (Chroot(), Env())

LXC: tuple[Feature, ...] = (
    *NAMESPACES[1:],
    MountNamespace("shared"),  # services with mount tables of their own see what is mounted later: conf.c
    PivotRoot(),
    Proc(),
    Sysfs(),
    Dev(inodes=0),
    Devpts(),
    Shm(size="", inodes=0),
    Mqueue(),
    ReadonlyPaths(("/proc/sys", "/proc/sysrq-trigger"), writable=("/proc/sys/net", "/sys/devices/virtual/net")),
    BootId(),
    Hostname(HOSTNAME),
    Loopback(),
    Env((("container", "lxc"),)),
    Keyring(),
    Session(),
    Identity(),
    Capabilities(tuple(name for name in CAPABILITIES if name not in LXC_DROPPED), drop_only=True),
    Seccomp("lxc"),
    Init(),
    *CONTROLLERS,
    Devices(LXC_RULES),
    NamedCgroup("systemd", required=False),
    NamedCgroup("unified", required=False),
    Cgroupfs("rw"),
)

DOCKER: tuple[Feature, ...] = (
    *NAMESPACES,
    PivotRoot(),
    Proc(),
    Sysfs(),
    Dev(inodes=0),
    Devpts(max=0),
    Shm(inodes=0),
    Mqueue(),
    MaskedPaths(DOCKER_MASKED),
    ReadonlyPaths(DOCKER_READONLY),
    Hostname(HOSTNAME),
    HostnameFile(),
    Hosts(),
    ResolvConf(),
    Sysctl(NETWORK_SYSCTLS),
    Loopback(),
    Env(),
    Umask(),
    Keyring(),
    Session(),
    Identity(),
    Capabilities(DOCKER_CAPABILITIES),
    Seccomp("docker"),
    *CONTROLLERS,
    Devices(),
    Cgroupfs(),
)

DEFAULT: tuple[Feature, ...] = (
    *NAMESPACES,
    PivotRoot(),
    NoDev(),
    Proc(),
    Sysfs(),
    Dev(),
    Devpts(),
    Shm(),
    Mqueue(),
    MaskedPaths(DEFAULT_MASKED),
    ReadonlyPaths(DOCKER_READONLY),
    Hostname(HOSTNAME),
    Sysctl(NETWORK_SYSCTLS),
    Loopback(),
    Env(),
    Umask(),
    Rlimits((("core", 0, 0),)),
    Keyring(),
    Session(),
    Identity(),
    Capabilities(DEFAULT_CAPABILITIES),
    NoNewPrivs(),
    Seccomp("default"),
    Init(),
    Pids(PIDS_LIMIT),
    Cgroupfs(),
)

# A session of its own: a terminal of the caller's that it has as a stream could be typed into (TIOCSTI).
LANDLOCK: tuple[Feature, ...] = (
    Env(),
    Rlimits((("core", 0, 0),)),
    Session(),
    NoNewPrivs(),
    Landlock(access=tuple(ACCESS), bind=(), connect=(), scopes=tuple(SCOPES)),
)

PROFILES: dict[str, tuple[Feature, ...]] = {
    "bare": BARE,
    "lxc": LXC,
    "docker": DOCKER,
    "default": DEFAULT,
    "landlock": LANDLOCK,
}
