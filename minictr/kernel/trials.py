"""What is done to find out whether a feature can be had: for each, the ops of a throwaway child. Data for ``probing``.

Mounts are made in a mount namespace of the child's own, in an empty root made for it: nothing is created on the host.
"""

from __future__ import annotations

import struct

from minictr.kernel import process
from minictr.kernel.core import check, lib
from minictr.kernel.ops import MKDIR, NOFOLLOW, RECURSIVE
from minictr.kernel.procfs import MAGIC

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Ops = list[tuple[str, dict[str, Any]]]

__all__ = ["TRIALS", "Trial"]

# linux/sched.h
NEWTIME, NEWNS, NEWCGROUP, NEWUTS = 0x80, 0x20000, 0x02000000, 0x04000000
NEWIPC, CLONE_NEWUSER, NEWPID, NEWNET = 0x08000000, 0x10000000, 0x20000000, 0x40000000
MS_REC_PRIVATE = 0x4000 | 1 << 18  # linux/mount.h
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NODEV, PLAIN = 0x1, 0x4, 0x2 | 0x4 | 0x8  # linux/mount.h
AT_RECURSIVE = 0x8000  # linux/fcntl.h
S_IFCHR = 0o020000  # linux/stat.h
RLIMIT_CORE = 4  # asm-generic/resource.h
ADDR_NO_RANDOMIZE = 0x0040000  # linux/personality.h
NOROOT = {"on": 0x3, "off": 0}  # SECBIT_NOROOT and its lock, linux/securebits.h
SIGKILL, NOBODY = 9, 65534
ALLOW = struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000)  # BPF_RET|BPF_K, SECCOMP_RET_ALLOW
OVERLAID = "/sys"  # a directory every host has, covered in the child's own mount namespace only
MASKED = "an outer container covers parts of /proc or /sys: let it leave them as they are"
FILTERED = "the outer container's seccomp filter refuses it: allow it there"


class Trial:
    """OPS in a child with FLAGS; ``inside_ops`` instead of them in a user namespace, where a feature does other things.

    ``since`` and ``config``: the kernel that has it. ``refused``: the cure for EPERM. ``outside``: done to the child's
    pid before its ops. ``sockets``: ops name one end of a socket pair so. ``told``: the words that go with a yes.
    """

    def __init__(
        self,
        ops: Ops,
        flags: int = 0,
        *,
        since: str = "",
        config: str = "",
        refused: str = "",
        inside_ops: Ops | None = None,
        outside: Callable[[int], None] | None = None,
        sockets: str = "",
        told: Callable[[], str] | None = None,
    ) -> None:
        self.ops, self.flags, self.since, self.config, self.refused = ops, flags, since, config, refused
        self.inside_ops, self.outside, self._sockets = inside_ops, outside, sockets
        self.told = told

    def descriptors(self) -> dict[str, int]:
        """The descriptors ops mention, by parameter name, and our end under ""; the caller closes them."""
        if not self._sockets:
            return {}
        import socket

        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        ours.send(b"g")  # the op "console" waits for it: the window size is set
        return {self._sockets: theirs.detach(), "": ours.detach()}


def mounted(fstype: str, *options: str, path: str = "/there", attr: int = 0) -> tuple[str, dict[str, Any]]:
    """The op that mounts a new FSTYPE on PATH inside the root."""
    args = {"fstype": fstype, "path": path, "options": list(options), "attr": attr, "flags": MKDIR | NOFOLLOW}
    return "mount", args


def tree(fstype: str, into: str, *options: str, attr: int = 0) -> tuple[str, dict[str, Any]]:
    """The op that makes a new FSTYPE that hangs nowhere."""
    return "fsmount", {"into": into, "fstype": fstype, "options": list(options), "attr": attr}


def attached(name: str, path: str = "/there") -> tuple[str, dict[str, Any]]:
    return "attach", {"tree": name, "path": path, "flags": MKDIR | NOFOLLOW}


def in_empty_root(*then: tuple[str, dict[str, Any]], before: Ops | None = None) -> Ops:
    """THEN, in an empty tmpfs as root; BEFORE, still in the host's, on trees of the child's own mount namespace."""
    return [
        ("propagation", {"path": "/", "flags": MS_REC_PRIVATE}),
        *(before or []),
        tree("tmpfs", "root", "size=1M"),
        ("root_attach", {"tree": "root", "path": "/"}),
        ("pivot_root", {}),
        *then,
    ]


def revealing(fstype: str) -> Ops:
    """proc and sysfs: the kernel compares a new one with what is mounted already, so it is made while that is there."""
    return in_empty_root(attached("fs"), before=[tree(fstype, "fs", attr=PLAIN)])


def host_tree(path: str) -> tuple[str, dict[str, Any]]:
    return "open_tree", {"into": "host", "path": path, "flags": AT_RECURSIVE}


def raise_oom_score(pid: int) -> None:
    """The child's score up to the highest: what every user may do."""
    process.set_oom_score_adj(pid, 1000)


def landlock_abi() -> str:
    """How much of Landlock this kernel has."""
    return f"ABI {check(lib.mc_landlock_abi(), 'landlock_create_ruleset')}"


READONLY = {"tree": "host", "set": MOUNT_ATTR_RDONLY, "clear": 0, "propagation": 0, "userns": -1, "flags": 0}
NODEV = {**READONLY, "set": MOUNT_ATTR_NODEV, "flags": RECURSIVE}
DIRECTORY = ("mkdir", {"path": "/there", "mode": 0o755, "uid": 0, "gid": 0})
NULL = ("mknod", {"path": "/null", "mode": S_IFCHR | 0o666, "major": 1, "minor": 3})
TERMINAL = [
    mounted("devpts", "newinstance", "ptmxmode=0666", "mode=0620", path="/dev/pts"),
    ("setsid", {}),
    ("console", {"socket": -1, "uid": 0, "flags": 0}),
]
OVERLAY = [
    tree("tmpfs", "layer"),
    ("root_attach", {"tree": "layer", "path": OVERLAID}),
    ("overlay", {"into": "all", "lower": [OVERLAID], "upper": "", "work": "", "options": [], "attr": 0}),
]
MANY_LAYERS = Trial(
    in_empty_root(
        *(("mkdir", {"path": path, "mode": 0o755, "uid": 0, "gid": 0}) for path in ("/a", "/b")),
        tree("overlay", "all", "lowerdir+=/a", "lowerdir+=/b"),
    ),
    NEWNS,
    since="6.5",
    config="CONFIG_OVERLAY_FS",
)
CLOCKS = {"path": "/proc/self/timens_offsets", "data": b"monotonic 1 0\n", "magic": MAGIC}
NO_USERNS = {"path": "/proc/sys/user/max_user_namespaces", "data": b"0\n", "magic": MAGIC}
NET_SETTING = {"path": "/proc/sys/net/ipv4/ip_unprivileged_port_start", "data": b"0\n", "magic": MAGIC}


def notification() -> str:
    """Whether calls can be decided by a function (on_syscall)."""
    from minictr.kernel.seccomp_notify import probe

    found = probe()["seccomp_notify"]
    return "; ".join(filter(None, ("notify" if found else "without notify", found.reason)))


HOSTS = {"path": "/hosts", "data": b"\n", "dir": "/", "source": -1, "flags": 0, "beside": []}
OVER_A_FILE = in_empty_root(("etc_file", HOSTS))
TRIALS: dict[str, dict[str, Trial]] = {
    "namespaces": {
        "mnt": Trial([("propagation", {"path": "/", "flags": MS_REC_PRIVATE})], NEWNS, since="2.4.19"),
        "uts": Trial([], NEWUTS, since="2.6.19", config="CONFIG_UTS_NS"),
        "ipc": Trial([], NEWIPC, since="2.6.19", config="CONFIG_IPC_NS"),
        "pid": Trial([], NEWPID, since="2.6.24", config="CONFIG_PID_NS"),
        "net": Trial([], NEWNET, since="2.6.29", config="CONFIG_NET_NS"),
        # privilege inside is what it is for: AppArmor may grant the namespace and no privilege in it
        "userns": Trial(
            [("sethostname", {"hostname": "probe"})], CLONE_NEWUSER | NEWUTS, since="3.8", config="CONFIG_USER_NS"
        ),
        "cgroupns": Trial([], NEWCGROUP, since="4.6", config="CONFIG_CGROUPS"),
        "timens": Trial(
            [("unshare", {"flags": NEWTIME}), ("write_file", CLOCKS)], since="5.6", config="CONFIG_TIME_NS"
        ),
    },
    "mounts": {
        "proc": Trial(revealing("proc"), NEWNS | NEWPID, since="5.2", refused=MASKED),
        "sysfs": Trial(revealing("sysfs"), NEWNS | NEWNET, since="5.2", refused=MASKED),
        "dev": Trial(
            in_empty_root(NULL),
            NEWNS,
            since="5.2",
            inside_ops=in_empty_root(attached("host"), before=[host_tree("/dev/null")]),
            refused="a device filter of the outer container refuses mknod: add the userns feature",
        ),
        "device": Trial(
            in_empty_root(NULL),
            NEWNS,
            since="5.2",
            inside_ops=in_empty_root(attached("host"), before=[host_tree("/dev/null")]),
            refused="a device filter of the outer container refuses mknod: add the userns feature",
        ),
        "cgroupfs": Trial(in_empty_root(mounted("cgroup2")), NEWNS | NEWCGROUP, since="5.2", config="CONFIG_CGROUPS"),
        "devpts": Trial(in_empty_root(TERMINAL[0]), NEWNS, since="5.2", config="CONFIG_UNIX98_PTYS"),
        "shm": Trial(in_empty_root(mounted("tmpfs", "size=64k", path="/dev/shm")), NEWNS, since="5.2"),
        "mqueue": Trial(in_empty_root(mounted("mqueue")), NEWNS | NEWIPC, since="5.2", config="CONFIG_POSIX_MQUEUE"),
        "tmpfs": Trial(in_empty_root(mounted("tmpfs", "size=64k")), NEWNS, since="5.2", config="CONFIG_TMPFS"),
        "bind": Trial(
            in_empty_root(attached("host"), before=[host_tree("/proc"), ("setattr", READONLY)]), NEWNS, since="5.12"
        ),
        "masked_paths": Trial(in_empty_root(DIRECTORY, ("mask", {"path": "/there"})), NEWNS, since="5.12"),
        "readonly_paths": Trial(in_empty_root(DIRECTORY, ("readonly_path", {"path": "/there"})), NEWNS, since="5.12"),
    },
    "rootfs": {
        "pivot_root": Trial(in_empty_root(), NEWNS, since="5.2", refused="a chroot cannot: use the chroot feature"),
        "chroot": Trial([("chroot", {"path": "/proc"})], since="1.0"),
        "overlay": Trial(
            in_empty_root(attached("all"), before=OVERLAY),
            NEWNS,
            since="5.2 (in a user namespace 5.11; a layer that is thrown away 6.15)",
            config="CONFIG_OVERLAY_FS",
        ),
        "readonly": Trial(
            in_empty_root(("remount", {"path": "/", "set": MOUNT_ATTR_RDONLY, "clear": 0, "flags": 0})),
            NEWNS,
            since="5.12",
        ),
        "nodev": Trial(in_empty_root(before=[host_tree("/"), ("setattr", NODEV)]), NEWNS, since="5.12"),
    },
    "process": {
        "hostname": Trial([("sethostname", {"hostname": "probe"})], NEWUTS, since="2.6.19", config="CONFIG_UTS_NS"),
        "domainname": Trial(
            [("setdomainname", {"domainname": "probe"})], NEWUTS, since="2.6.19", config="CONFIG_UTS_NS"
        ),
        "env": Trial([]),
        "cwd": Trial([("chdir", {"path": "/", "flags": 0})]),
        "umask": Trial([("umask", {"mask": 0o077})]),
        "rlimits": Trial([("rlimit", {"resource": RLIMIT_CORE, "soft": 0, "hard": 0})]),
        "oom_score_adj": Trial([("umask", {"mask": 0})], outside=raise_oom_score),
        "sysctl": Trial([("write_file", NET_SETTING)], NEWNET, since="4.11", config="CONFIG_SYSCTL and IPv4"),
        "boot_id": Trial(
            in_empty_root(attached("fs", "/proc"), ("boot_id", {"path": "/id"}), before=[tree("proc", "fs")]),
            NEWNS | NEWPID,
            since="5.12",
            refused=MASKED,
        ),
        "keyring": Trial([("keyring", {"keyring": ""})], since="2.6.10", config="CONFIG_KEYS", refused=FILTERED),
        "personality": Trial([("personality", {"persona": ADDR_NO_RANDOMIZE})], since="2.6.12", refused=FILTERED),
        "session": Trial([("setsid", {})]),
        "tty": Trial(in_empty_root(*TERMINAL), NEWNS, since="5.2", config="CONFIG_UNIX98_PTYS", sockets="socket"),
        "pdeathsig": Trial([("pdeathsig", {"signal": SIGKILL})]),
        "init": Trial([("subreaper", {}), ("init", {"status_fd": -1, "flags": 0})], since="3.5", sockets="status_fd"),
    },
    "users": {
        "user": Trial(
            [("setgroups", {"groups": b""}), ("setresgid", {"gid": NOBODY}), ("setresuid", {"uid": NOBODY})],
            inside_ops=[("setresgid", {"gid": 0}), ("setresuid", {"uid": 0})],
        ),
        "disable_userns": Trial(
            [("write_file", NO_USERNS), ("verify_no_userns", {})],
            CLONE_NEWUSER,
            since="4.9",
            config="CONFIG_USER_NS and CONFIG_SYSCTL",
        ),
    },
    "capabilities": {
        "capabilities": Trial(
            [
                ("bounding", {"keep": 0}),
                ("capset", {"effective": 0, "permitted": 0, "inheritable": 0}),
                ("ambient", {"ambient": 0}),
            ],
            since="4.3",
            refused="dropping from the bounding set needs CAP_SETPCAP",
        ),
        "securebits": Trial(
            [("securebits", NOROOT), ("verify_securebits", NOROOT)],
            since="2.6.26",
            refused="setting them needs CAP_SETPCAP, and that the caller's own are not locked",
        ),
        "no_new_privs": Trial([("no_new_privs", {})], since="3.5"),
    },
    "seccomp": {
        "seccomp": Trial(
            [("no_new_privs", {}), ("seccomp", {"program": ALLOW, "flags": 0, "ask": 1, "listener": -1, "direct": 0})],
            since="3.17",
            config="CONFIG_SECCOMP_FILTER",
            told=notification,
        ),
    },
    "landlock": {
        "landlock": Trial(
            [
                ("no_new_privs", {}),
                ("landlock_ruleset", {"into": "rules", "fs": 1, "net": 0, "scoped": 0}),
                ("landlock_path", {"ruleset": "rules", "path": "/", "rights": 1, "flags": 0}),
                ("landlock_restrict", {"ruleset": "rules", "flags": 0}),
            ],
            since="5.13",
            config="CONFIG_SECURITY_LANDLOCK and landlock in its list of security modules (lsm=)",
            refused=FILTERED,
            told=landlock_abi,
        ),
    },
    "names": {
        **dict.fromkeys(("hosts", "resolv_conf", "hostname_file"), Trial(OVER_A_FILE, NEWNS, since="5.12")),
        "names": Trial([]),
    },
    "network": {"loopback": Trial([("loopback_up", {})], NEWNET, since="2.6.29", config="CONFIG_NET_NS")},
}
