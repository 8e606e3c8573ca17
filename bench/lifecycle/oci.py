"""The shape as an OCI bundle: config.json and a seccomp profile of the filter's size."""

from __future__ import annotations

import json
import os
import re
from typing import Any

from bench.lifecycle.shape import FILTER_INSTRUCTIONS, Shape

# What libseccomp puts around the comparisons of an allow list: load and check the architecture, refuse x32, load the
# number, two returns, and runc's own prologue for numbers newer than the list.
OVERHEAD = 9
ENOSYS = 38

# What moby's policy refuses without further capabilities, or the kernel no longer has.
_REFUSED_WORDS = (
    "kexec_load kexec_file_load init_module finit_module delete_module create_module query_module get_kernel_syms "
    "nfsservctl uselib ustat sysfs _sysctl iopl ioperm swapon swapoff reboot settimeofday clock_settime acct "
    "quotactl quotactl_fd lookup_dcookie perf_event_open bpf userfaultfd open_by_handle_at add_key request_key keyctl "
    "vserver security tuxcall afs_syscall getpmsg putpmsg epoll_ctl_old epoll_wait_old io_uring_setup io_uring_enter "
    "io_uring_register move_mount open_tree fsopen fsconfig fsmount fspick pivot_root mount_setattr setns unshare "
    "vhangup process_vm_readv process_vm_writev kcmp name_to_handle_at get_mempolicy set_mempolicy mbind move_pages "
    "migrate_pages set_mempolicy_home_node fanotify_init syslog adjtimex clock_adjtime personality"
)
REFUSED = frozenset(_REFUSED_WORDS.split())


def syscall_numbers(header: str = "") -> dict[str, int]:
    """The kernel's names and numbers, by number, from the C library's headers.

    Raises FileNotFoundError where the headers are not installed.
    """
    x86 = os.uname().machine == "x86_64"
    header = header or f"/usr/include/{'x86_64-linux-gnu/asm/unistd_64.h' if x86 else 'asm-generic/unistd.h'}"
    with open(header, encoding="utf-8") as file:
        found = re.findall(r"^#define __NR_(\w+)\s+(\d+)$", file.read(), re.MULTILINE)
    return {name: int(number) for name, number in sorted(found, key=lambda pair: int(pair[1]))}


def allowed_syscalls(instructions: int = FILTER_INSTRUCTIONS) -> list[str]:
    """So many names that libseccomp makes about INSTRUCTIONS of them."""
    return [name for name in syscall_numbers() if name not in REFUSED][: instructions - OVERHEAD]


def allowed_numbers(instructions: int = FILTER_INSTRUCTIONS) -> list[int]:
    """Their numbers, for LXC's own format."""
    numbers = syscall_numbers()
    return [numbers[name] for name in allowed_syscalls(instructions)]


def seccomp_profile(instructions: int = FILTER_INSTRUCTIONS) -> dict[str, Any]:
    """An allow list; one architecture, as the floor's program has none to tell apart."""
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": ENOSYS,
        "architectures": ["SCMP_ARCH_X86_64" if os.uname().machine == "x86_64" else "SCMP_ARCH_AARCH64"],
        "syscalls": [{"names": allowed_syscalls(instructions), "action": "SCMP_ACT_ALLOW"}],
    }


def _mount(kind: str, where: str, *options: str) -> dict[str, Any]:
    return {"type": kind, "source": kind, "destination": where, "options": list(options)}


def config(
    shape: Shape,
    rootfs: str,
    argv: tuple[str, ...],
    cgroups_path: str = "",
    mounts: tuple[dict[str, Any], ...] = (),
) -> dict[str, Any]:
    """The whole config.json; MOUNTS come last."""
    quiet = ("nosuid", "noexec", "nodev")
    capabilities = [f"CAP_{name}" for name in shape.capabilities]
    linux: dict[str, Any] = {
        "namespaces": [{"type": kind} for kind in ("mount", "pid", "network", "ipc", "uts", "cgroup")],
        "maskedPaths": list(shape.masks),
        "readonlyPaths": list(shape.readonlys),
        "rootfsPropagation": "private",
        "seccomp": seccomp_profile(),
        "sysctl": dict(shape.sysctls),
    }
    if cgroups_path:
        linux["cgroupsPath"] = cgroups_path
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": list(argv),
            "env": [f"{name}={value}" for name, value in shape.env],
            "cwd": "/",
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), capabilities),
            "rlimits": [{"type": "RLIMIT_CORE", "hard": 0, "soft": 0}],
            "noNewPrivileges": True,
        },
        "root": {"path": rootfs, "readonly": False},
        "hostname": shape.hostname,
        "mounts": [
            _mount("proc", "/proc", *quiet),
            _mount("sysfs", "/sys", *quiet, "ro"),
            _mount("tmpfs", "/dev", "nosuid", "mode=755", "size=65536k"),
            _mount("devpts", "/dev/pts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
            _mount("tmpfs", "/dev/shm", *quiet, *shape.shm_options),
            _mount("mqueue", "/dev/mqueue", *quiet),
            *mounts,
        ],
        "linux": linux,
    }


def write_bundle(directory: str, **wishes: Any) -> None:
    """DIRECTORY with a config.json made of the arguments of :func:`config`."""
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, "config.json"), "w", encoding="utf-8") as file:
        json.dump(config(**wishes), file)
