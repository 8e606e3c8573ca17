"""The shape of the container that every arm starts, as plain data.

One value, so that no two arms can drift apart: the floor, the OCI bundle, the LXC configuration and the bubblewrap
arguments are all made from it. Its content is what minictr's default profile says; a test holds the two together.
"""

from __future__ import annotations

import dataclasses
import os
from typing import Any

COMMAND = ("/bin/true",)
HOSTNAME = "minictr"
FILTER_INSTRUCTIONS = 300

# clone(2) flag words as /proc/PID/ns names them
NAMESPACES = ("mnt", "pid", "net", "ipc", "uts", "cgroup")

# linux/capability.h, in the order of their numbers
_CAPABILITY_WORDS = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
    "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN "
    "SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE "
    "MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
)
CAPABILITY_NAMES = tuple(_CAPABILITY_WORDS.split())

DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
MOUNT_POINTS = ("/", "/proc", "/sys", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue")


@dataclasses.dataclass(frozen=True)
class Shape:
    """What one container has. Paths are inside it; capability names without ``CAP_``."""

    capabilities: tuple[str, ...]
    masks: tuple[str, ...]
    readonlys: tuple[str, ...]
    sysctls: tuple[tuple[str, str], ...] = ()
    shm_bytes: int = 64 << 20
    shm_inodes: int = 16384
    hostname: str = HOSTNAME
    command: tuple[str, ...] = COMMAND

    @property
    def capability_mask(self) -> int:
        """The bits of ``capabilities``, as in the Cap lines of /proc/PID/status."""
        return sum(1 << CAPABILITY_NAMES.index(name) for name in self.capabilities)

    @property
    def env(self) -> tuple[tuple[str, str], ...]:
        """Docker's: what a program finds without any wish."""
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return ("PATH", path), ("HOSTNAME", self.hostname), ("HOME", "/root")

    @property
    def shm_options(self) -> tuple[str, ...]:
        """The tmpfs options of /dev/shm."""
        return "mode=1777", f"size={self.shm_bytes}", f"nr_inodes={self.shm_inodes}"

    def present(self, paths: tuple[str, ...]) -> tuple[str, ...]:
        """Those of PATHS that this kernel has: the host's /proc and /sys answer for the container's."""
        return tuple(path for path in paths if os.path.lexists(path))


# moby's profile (oci/defaults.go), capabilities less MKNOD, NET_RAW, AUDIT_WRITE and SETFCAP.
FALLBACK = Shape(
    capabilities=(
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "SETGID",
        "SETUID",
        "SETPCAP",
        "NET_BIND_SERVICE",
        "SYS_CHROOT",
    ),
    masks=(
        "/proc/acpi",
        "/proc/asound",
        "/proc/interrupts",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/sched_debug",
        "/proc/scsi",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/sys/devices/virtual/powercap",
        "/sys/firmware",
    ),
    readonlys=("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"),
    sysctls=(("net.ipv4.ping_group_range", "0 2147483647"), ("net.ipv4.ip_unprivileged_port_start", "0")),
)

# Features of minictr's default profile that every arm is asked for. A test fails when the profile has one more.
COVERED = frozenset(
    "mnt pid net ipc uts cgroupns pivot_root proc sysfs dev devpts shm mqueue masked_paths readonly_paths hostname "
    "nodev sysctl loopback env umask rlimits keyring session user capabilities no_new_privs seccomp init".split()
)

# And those that none is asked for: bubblewrap and the floor know no control groups, crun makes none on a hybrid host,
# and runc and LXC make one in every hierarchy. Their cost is a row each of minictr's own time line.
APART = ("pids", "cgroupfs")


def from_minictr() -> Shape:
    """The shape of minictr's default profile; the fallback above where minictr is not installed."""
    try:
        import minictr

        mc: Any = minictr
        features = tuple(mc.profiles.DEFAULT)
    except (ImportError, AttributeError):
        return FALLBACK
    return from_features(features)


def from_features(features: tuple[Any, ...]) -> Shape:
    """What FEATURES say about the parts of the shape; what they do not say stays as in the fallback."""
    by_name = {feature.name: feature for feature in features}
    changes: dict[str, Any] = {}
    for name, field, attribute in (
        ("capabilities", "capabilities", "bounding"),
        ("masked_paths", "masks", "paths"),
        ("readonly_paths", "readonlys", "paths"),
        ("sysctl", "sysctls", "settings"),
        ("hostname", "hostname", "hostname"),
        ("shm", "shm_inodes", "inodes"),
    ):
        if name in by_name:
            changes[field] = getattr(by_name[name], attribute)
    return dataclasses.replace(FALLBACK, **changes)
