"""Errors a person can act on: the step that failed, why, and the cure. Imported only when something failed."""

from __future__ import annotations

import errno
import os
import struct

from minictr.errors import CommandNotExecutable, CommandNotFound, MinictrError, SpecError, StepFailed
from minictr.features.capabilities import Capabilities
from minictr.kernel.core import lib
from minictr.kernel.handles import shut
from minictr.kernel.ops import what_failed
from minictr.runtime.resolve import machines, open_inside, open_regular

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from minictr.runtime.program import Outcome, Program
    from minictr.spec import Spec
    from minictr.steps import Step

MACHINES = {
    3: "i386",
    8: "mips",
    20: "ppc",
    21: "ppc64",
    22: "s390x",
    40: "arm",
    62: "x86_64",
    183: "aarch64",
    243: "riscv",
}
PT_INTERP = 3  # elf.h
UNTOLD = 125  # how the stub leaves when its region says why

# (call, errno) -> cure
CURES: dict[tuple[str, int], str] = {
    ("cgroup_enter", errno.ENOSPC): "the cpuset has no processors or no memory nodes: give it both, as its parent has",
    (
        "cgroup_enter",
        errno.EINVAL,
    ): "the group takes no processes of this kind: it is threaded, or its cpuset is invalid",
    ("cgroup_enter", errno.EBUSY): "no-internal-process rule of cgroups(7): groups below it have controllers enabled",
    ("cgroup_enter", errno.EOPNOTSUPP): "a threaded or invalid v2 group takes no whole process: cgroup.type says which",
    ("cgroup_enter", errno.EACCES): "entering needs write permission on the group and on the one above both",
    ("cgroup_enter", errno.EPERM): "entering needs to own the group: have it delegated, or be root",
    ("cgroup_enter", errno.EAGAIN): "the pids limit of a group above is reached",
    ("cgroup_enter", errno.ENOENT): "the group lies outside the cgroup namespace of the caller",
    ("cgroup_enter", errno.ENODEV): "the group was removed meanwhile",
    ("mknod", errno.EPERM): "a device list forbids to make that node: allow it with --device-cgroup-rule 'c *:* m'",
    ("mount", errno.EPERM): "an outer container may mask /proc or /sys, or the user namespace may not mount this type",
    ("mount", errno.ENODEV): "this kernel does not have that file system",
    ("mount", errno.ENOENT): "the mount point is missing in the root and could not be made",
    ("mount", errno.ELOOP): "a symbolic link stands in the way inside the root: remove it",
    ("attach", errno.ELOOP): "a symbolic link stands in the way inside the root: remove it",
    (
        "mount",
        errno.EROFS,
    ): "the mount point is missing and the root is read-only: make the directory, or use --overlay",
    ("attach", errno.EROFS): "the mount point is missing and the root is read-only: make it, or use --overlay",
    ("attach", errno.ENOENT): "the mount point could not be made: a symbolic link on the way leads nowhere in the root",
    ("attach", errno.EINVAL): "a directory can only be mounted on a directory, a file on a file",
    ("attach", errno.ENOTDIR): "a directory can only be mounted on a directory, a file on a file",
    ("etc_file", errno.ELOOP): "/etc is a symbolic link in the root: make it a directory, or leave this feature out",
    ("etc_file", errno.ENOENT): "/etc is missing, and the root is read-only: make it in the image, or use --overlay",
    ("etc_file", errno.ENOTDIR): "it, or /etc, is no such thing in the root: make it a file, or leave this feature out",
    ("etc_file", errno.EINVAL): "it is a directory in the root: make it a file, or leave this feature out",
    ("etc_file", errno.EROFS): "it is missing, and the root is read-only: make it in the image, or use --overlay",
    ("mkdir", errno.EROFS): "the root is read-only: make the directory in the image, or use --overlay",
    ("open_tree", errno.ENOENT): "the source does not exist on the host",
    ("open_tree", errno.EINVAL): "the source lies below a mount that the kernel does not let be cloned",
    (
        "overlay",
        errno.EINVAL,
    ): "upper and work must be on one file system that supports overlay (not overlay itself, NFS)",
    (
        "overlay",
        errno.EACCES,
    ): "root of the user namespace may not walk there: add idmap (--with idmap), or let others search the directories",
    (
        "overlay",
        errno.EPERM,
    ): "this kernel lets no ordinary user mount one: mount it by fuse-overlayfs and give its directory as --rootfs, "
    "or give a copy (cp -a)",
    ("overlay", errno.ENODEV): "this kernel has no overlay file system",
    ("pivot_root", errno.EINVAL): "the root must not be shared, nor be an initramfs: use the chroot feature there",
    ("rlimit", errno.EPERM): "raising a hard limit needs CAP_SYS_RESOURCE: ask for less",
    ("landlock_path", errno.ENOENT): "allow what is there, or give --landlock-ignore-missing",
    ("landlock_path", errno.EINVAL): "rights of a directory (read_dir, make_reg, refer ...) for what is none",
    ("landlock_path", errno.ELOOP): "magic links of procfs are not followed: name what they mean",
    ("landlock_path", errno.EBADFD): "that is no file of a file system",
    ("landlock_port", errno.EAFNOSUPPORT): "this kernel has no TCP",
    ("landlock_restrict", errno.EPERM): "restricting itself needs no_new_privs or CAP_SYS_ADMIN",
    ("landlock_restrict", errno.E2BIG): "16 domains in one another are the kernel's limit",
    ("seccomp", errno.EACCES): "loading a filter needs no_new_privs or CAP_SYS_ADMIN",
    (
        "seccomp",
        errno.EBUSY,
    ): "a filter that notifies is in force already, in the caller: one is all that the kernel lets be",
    ("seccomp", errno.EAGAIN): "at its limit of processes: a filter that notifies needs one more while it is loaded",
    ("seccomp", errno.EINVAL): "the program is not valid seccomp BPF, or longer than 4096 instructions",
    ("setgroups", errno.EPERM): "setgroups is denied in this user namespace: map more than one group",
    ("setresuid", errno.EINVAL): "that user is not mapped in the user namespace: extend --uidmap",
    ("setresgid", errno.EINVAL): "that group is not mapped in the user namespace: extend --gidmap",
    ("setattr", errno.EINVAL): "this file system cannot be id-mapped, or a flag is not supported by this kernel",
    ("capset", errno.EPERM): "a capability was asked for that this user does not have",
    ("ambient", errno.EPERM): "an ambient capability must be permitted and inheritable too",
    (
        "securebits",
        errno.EPERM,
    ): "needs CAP_SETPCAP, a bit that the caller has not locked, and a kernel that has it (exec_*: Linux 6.14)",
    ("verify_securebits", errno.EPERM): "the securebits are not those asked for: refused",
    ("bounding", errno.EPERM): "dropping from the bounding set needs CAP_SETPCAP: be root, or add userns",
    ("chdir", errno.ENOENT): "the directory does not exist in the container",
    ("chdir", errno.ESTALE): "the working directory would be outside the root (CVE-2024-21626): refused",
    ("write_file", errno.EMEDIUMTYPE): "something is mounted over /proc inside the root (CVE-2019-16884): refused",
    ("write_file", errno.EINVAL): "the kernel does not accept that value",
    ("write_file", errno.ENOENT): "this kernel does not have that setting",
    ("console", errno.EMEDIUMTYPE): "/dev/pts is not a devpts: keep the devpts feature",
    ("verify_caps", errno.EPERM): "the process holds more capabilities than asked for: refused",
    ("verify_ids", errno.EPERM): "the process is not the user asked for: refused",
    ("verify_no_userns", errno.EPERM): "a user namespace could be made inside all the same: refused",
    ("verify_root", errno.EXDEV): "the root is not a mount of its own, or another lies over it: refused",
    ("exec_label", errno.ENOENT): "no such AppArmor profile is loaded (apparmor_parser -r FILE), or there is no /proc",
    ("exec_label", errno.EACCES): "the caller is confined itself, and its own policy does not let it give that label",
    ("exec_label", errno.EINVAL): "the security module is not live, or its policy has no such label",
    ("exec_label", errno.EPERM): "what was read back is not the label that was asked for: refused",
    ("exec_label", errno.EMEDIUMTYPE): "something that is not procfs is mounted over /proc: refused",
    ("exec_label", errno.EXDEV): "something is mounted over a part of /proc (CVE-2019-16884): refused",
    (
        "verify_label",
        errno.EACCES,
    ): "Landlock, in force already, denies /proc: allow reading it, or add no_new_privs: then it comes last",
    ("verify_label", errno.EPERM): "the label is gone, or another: was its profile removed? refused",
    ("verify_label", errno.EINVAL): "the label is gone: was its profile removed? refused",
    (
        "verify_mount",
        errno.EPERM,
    ): "a symbolic link led it to where something else is mounted now, /dev for one: remove the link, or name its end",
    ("verify_mount", errno.ENOENT): "the way to it changed meanwhile: a link on it leads elsewhere now",
    ("verify_paths", errno.EPERM): "something was mounted over a masked or read-only path: refused",
    ("hold", errno.EPIPE): "the container's monitor is gone: remove the container and create it anew",
    ("keyring", errno.EDQUOT): "the user's key quota is used up: kernel.keys.maxkeys",
    ("console", errno.ENOENT): "the container has no /dev/pts: it was started without the feature devpts",
    ("fork", errno.EAGAIN): "the container is at its limit of processes: --without pids enters it all the same",
    ("enter_root", errno.EPERM): "entering a root by name needs CAP_SYS_CHROOT",
    ("setns", errno.EPERM): "joining needs CAP_SYS_ADMIN over that namespace",
    ("idmap_tree", errno.EPERM): "id-mapped mounts need privilege over the file system: be root, or do without idmap",
    ("idmap_upper", errno.EPERM): "id-mapped mounts need privilege over the file system: be root, or do without idmap",
    ("uid_map", errno.EPERM): "mapping other ids than one's own needs privilege, or newuidmap and /etc/subuid",
    ("gid_map", errno.EPERM): "mapping other ids than one's own needs privilege, or newgidmap and /etc/subgid",
}


def _cure(call: str, number: int) -> str:
    return CURES.get((call, number), "")


def parent_failed(step: Step, err: StepFailed, index: int, total: int) -> StepFailed:
    """A parent's step failed: the same error, with its place in the plan."""
    number = err.errno or 0
    cure = err.cure or _cure(step.call, number)
    if step.feature == "idmap" and number == errno.EINVAL:
        cure = f"{cure}; or do without (--without idmap): files whose owner has no row are nobody's then"
    if step.call == "cgroup" and number in (errno.EACCES, errno.EPERM, errno.EROFS):
        cure = f"{cure}, or do without (--without {step.feature})".removeprefix(", ")
    return StepFailed(err.what, number, index=index, total=total, feature=step.feature, cure=cure)


def clone_failed(err: StepFailed, words: Sequence[str]) -> StepFailed:
    """clone3 itself, or the exec of the stub, failed."""
    if err.cure:
        return err
    cure = {
        errno.EPERM: "new namespaces need root, or a user namespace (--userns private) where the host allows it",
        errno.ENOSPC: "a limit of namespaces is reached: user.max_*_namespaces, or 32 nested ones",
        errno.EAGAIN: "a process limit is reached: RLIMIT_NPROC or the pids cgroup",
        errno.ENOSYS: "clone3 needs Linux 5.5; an outer container's seccomp filter may also hide it",
        errno.EINVAL: "this kernel was built without one of these namespaces",
    }.get(err.errno or 0, "")
    if os.geteuid() and "userns" in words:
        from minictr.kernel.restricted import cure_of_clone

        cure = cure_of_clone(err.errno or 0) or cure
    made = f" (new {' '.join(words)})" if words else ""
    return StepFailed(f"{err.what}{made}", err.errno or 0, cure=cure)


def child_failed(program: Program, outcome: Outcome, status: int) -> MinictrError:
    """What ended the child, from its region and its wait STATUS."""
    index, step = program.steps[min(outcome.current, len(program.steps) - 1)]
    if outcome.state == lib.MC_STATE_RUNNING:
        signal, code = status & 0x7F, status >> 8
        if not signal and 0 < code < UNTOLD:  # nothing of the region was mapped: see map_region of _core/stub.c
            return StepFailed(
                "mmap of the start's memory file", code, index=index, total=program.total, feature="start"
            )
        how = f"killed by signal {signal}" if signal else f"left with status {status >> 8}"
        cure = (
            "the filter forbids what the start itself still needs"
            if signal == 31
            else "out of memory, or killed from outside"
        )
        return StepFailed(f"{step}: {how}", 0, index=index, total=program.total, feature=step.feature, cure=cure)
    if step.call == "exec" and outcome.error != errno.EPIPE:
        return exec_failed(program.plan.spec, tuple(step.args["paths"]), outcome.error, index, program.total)
    what = what_failed(step.call, outcome.failed_nr, step.about)
    cure = _cure(step.call, outcome.error)
    if os.geteuid() and "userns" in program.plan.spec.names:
        from minictr.kernel.restricted import cure_of_privilege

        cure = cure_of_privilege(outcome.error) or cure
    return StepFailed(what, outcome.error, index=index, total=program.total, feature=step.feature, cure=cure)


def exec_failed(spec: Spec, paths: tuple[str, ...], number: int, index: int, total: int) -> StepFailed:
    """Why no program runs: the candidates are looked at once more, in the root, and the first reason is told."""
    place = {"index": index, "total": total, "feature": "exec"} if index else {}
    reasons = [(path, reason) for path in paths if (reason := _problem(spec.rootfs, path))]
    name = spec.argv[0]
    if reasons or number not in (0, errno.ENOENT, errno.ENOTDIR):
        path, (code, why) = reasons[0] if reasons else (paths[0] if len(paths) == 1 else name, (number, ""))
        why = why or _landlock_cure(spec, number) or _capability_cure(spec, paths, number) or _label_cure(spec, number)
        return CommandNotExecutable(f"exec {path}", number or code, cure=why, **place)  # type: ignore[arg-type]
    if "/" in name:
        return CommandNotFound(f"exec {name}", errno.ENOENT, cure="no such file in the container", **place)  # type: ignore[arg-type]
    searched = ":".join(os.path.dirname(path) for path in paths)
    return CommandNotFound(f"exec {name}", errno.ENOENT, cure=f"not found in PATH={searched}", **place)  # type: ignore[arg-type]


def _landlock_cure(spec: Spec, number: int) -> str:
    if number != errno.EACCES or "landlock" not in spec.names:
        return ""
    return "no rule of landlock lets it, its interpreter or its loader be executed: --ro allows that"


def _capability_cure(spec: Spec, paths: tuple[str, ...], number: int) -> str:
    """execve refuses a program that wants to begin with more than the bounding set has, and one whose attribute it
    cannot read. capabilities(7)."""
    wish = spec.get("capabilities")
    if number not in (errno.EPERM, errno.EINVAL):
        return ""
    from minictr.kernel.file_capabilities import get

    for path in paths:
        try:
            fd = open_inside(spec.rootfs, path, os.O_PATH)
        except OSError:
            continue
        try:
            has = get(fd)
        except SpecError as err:
            return f"{err}: setcap -r it"
        finally:
            shut(fd)
        if has is None or not has.effective or not isinstance(wish, Capabilities):
            return ""
        lacking = [name for name in has.permitted if name not in wish.bounding]
        words = " ".join(f"--cap-add {name}" for name in lacking)
        return f"its file capabilities want {' '.join(lacking)}: {words}, or setcap -r it" if lacking else ""
    return ""


def _label_cure(spec: Spec, number: int) -> str:
    """What may stand behind an exec that is refused though nothing is wrong with the file."""
    if number not in (errno.EPERM, errno.EACCES) or spec.names.isdisjoint(("apparmor", "selinux")):
        return ""
    return (
        "the label may forbid it: dmesg tells (DENIED, avc); with no_new_privs a confined caller can only stack a "
        "profile (&NAME), and SELinux wants process2:nnp_transition"
    )


def _problem(root: str, path: str) -> tuple[int, str] | None:
    """(errno, why) of a file that is there and cannot run; None when it is missing, or nothing is wrong."""
    try:
        fd = open_inside(root, path, os.O_PATH)
    except OSError as err:
        return (errno.EACCES, "permission denied on the way to it") if err.errno == errno.EACCES else None
    try:
        mode = os.fstat(fd).st_mode
    finally:
        shut(fd)
    if mode >> 12 == 0o04:
        return errno.EACCES, "is a directory"
    if mode >> 12 != 0o10:
        return errno.EACCES, "is not a regular file"
    if not mode & 0o111:
        return errno.EACCES, "not executable: chmod +x it"
    try:
        fd = open_regular(root, path)
    except OSError:
        return None  # ours to execute is not ours to read
    with open(fd, "rb") as file:
        return _format_problem(root, path, file.read(4096))


def _format_problem(root: str, path: str, head: bytes) -> tuple[int, str] | None:
    if head[:2] == b"#!":
        words = head.split(b"\n", 1)[0][2:].split()
        interpreter = os.fsdecode(words[0]) if words else ""
        if not interpreter or not _exists(root, interpreter):
            return errno.ENOENT, f"its interpreter {interpreter or '(none)'} is missing in the container"
        return None
    if head[:4] != b"\x7fELF":
        return errno.ENOEXEC, "is neither a program nor a script with #!"
    machine = int.from_bytes(head[18:20], "little" if head[5] == 1 else "big")
    if machine not in machines():
        return (
            errno.ENOEXEC,
            f"is a program for {MACHINES.get(machine, f'machine {machine}')}, this is {os.uname().machine}",
        )
    loader = _loader(head)
    if loader and not _exists(root, loader):
        return errno.ENOENT, f"its dynamic loader {loader} is missing in the container"
    return None


def _loader(head: bytes) -> str:
    """PT_INTERP of an ELF file, 64 or 32 bits, as far as its first page tells."""
    wide = head[4] == 2
    try:
        offset = struct.unpack_from("<Q" if wide else "<I", head, 32 if wide else 28)[0]
        size, count = struct.unpack_from("<HH", head, 54 if wide else 42)
        for i in range(count):
            at = offset + i * size
            if struct.unpack_from("<I", head, at)[0] != PT_INTERP:
                continue
            start = struct.unpack_from("<Q" if wide else "<I", head, at + (8 if wide else 4))[0]
            length = struct.unpack_from("<Q" if wide else "<I", head, at + (32 if wide else 16))[0]
            return os.fsdecode(head[start : start + length].split(b"\0")[0])
    except struct.error:
        pass
    return ""


def _exists(root: str, path: str) -> bool:
    try:
        shut(open_inside(root, path, os.O_PATH))
    except OSError:
        return False
    return True
