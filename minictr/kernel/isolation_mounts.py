"""What a process sees of files: its root, its mounts, which paths are masked or read-only, which reach the kernel.

Paths are opened below /proc/PID/root with openat2(RESOLVE_IN_ROOT|RESOLVE_NO_MAGICLINKS), Linux 5.6: a link that the
process made leads nowhere else. Which mount a path is on is told by the descriptor (fdinfo's mnt_id), not by names.
"""

from __future__ import annotations

import os
import stat
from functools import partial

from minictr.kernel import procfs
from minictr.kernel.core import check, lib
from minictr.kernel.isolation_target import Unreadable
from minictr.kernel.isolation_values import Fixed, Root
from minictr.kernel.mountinfo import parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from minictr.kernel.isolation_target import Target
    from minictr.kernel.mountinfo import MountInfo

__all__ = ["KERNEL_FILES", "Files", "visible"]

RESOLVE_NO_MAGICLINKS, RESOLVE_IN_ROOT = 0x02, 0x10  # linux/openat2.h
NULL = os.makedev(1, 3)
ENOENT, ENOTDIR, ELOOP = 2, 20, 40
IN_MEMORY = ("tmpfs", "ramfs", "devtmpfs")
# what a process inside may serve itself: a look at it can hang for as long as it likes
FOREIGN = ("fuse", "9p", "nfs", "cifs", "smb3", "ceph", "virtiofs", "autofs", "afs", "coda")
SHOWN = ("proc", "tmpfs", "devpts", "mqueue")  # whose own options are limits, not places

# Ways from files to the kernel: settings, knobs, and what tells of the host (moby: daemon/pkg/oci/defaults.go).
KERNEL_FILES: tuple[str, ...] = (
    *"/proc /proc/sys /proc/sys/kernel /proc/sys/net /proc/sysrq-trigger /proc/bus /proc/fs /proc/irq".split(),
    *"/proc/acpi /proc/asound /proc/interrupts /proc/kcore /proc/keys /proc/kmsg /proc/latency_stats".split(),
    *"/proc/sched_debug /proc/scsi /proc/timer_list /proc/timer_stats".split(),
    *"/sys /sys/firmware /sys/fs/cgroup /sys/fs/bpf /sys/kernel/debug /sys/kernel/security /sys/kernel/tracing".split(),
    "/sys/devices/virtual/powercap",
)


class Files:
    """The mount table of a process, and its root to look below. ``paths``: looked at besides KERNEL_FILES."""

    def __init__(self, target: Target, paths: Sequence[str] = ()) -> None:
        self.target, self.paths = target, tuple(dict.fromkeys((*KERNEL_FILES, *paths)))
        self.rows = target.attempt("mounts", lambda: visible(parse(os.fsencode(target.text("mountinfo")))))
        self.root: Root | None = None
        self.kernel_files: Fixed | None = None
        self.masked: tuple[str, ...] | None = None
        self.readonly: tuple[str, ...] | None = None
        fd = target.attempt("root", self._open_root)
        if fd is None or self.rows is None:
            reason = target.unknown.get("root", target.unknown.get("mounts", ""))
            target.unknown.update(dict.fromkeys(("root", "kernel_files", "masked", "readonly"), reason))
            if fd is not None:
                os.close(fd)
            return
        try:
            self._look(fd, self.rows)
        finally:
            os.close(fd)

    def _open_root(self) -> int:
        try:
            return os.open("root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.target.fd)
        except ProcessLookupError as err:
            raise self.target.gone() from err
        except FileNotFoundError as err:  # the link of a process that has just let go of its files
            raise self.target.gone() from err

    def _look(self, fd: int, rows: tuple[MountInfo, ...]) -> None:
        by_id = {row.id: row for row in rows}
        self.root = self.target.attempt("root", lambda: _root(self.target, fd, by_id))
        states: dict[str, str | None] = {}
        for path in self.paths:
            states[path] = self.target.attempt(f"kernel_files.{path}", partial(_state, fd, path, by_id))
        self.kernel_files = Fixed(states)
        hidden = []
        for path in dict.fromkeys(row.target for row in rows if _may_mask(row)):
            if self.target.attempt(f"masked.{path}", partial(_state, fd, path, by_id)) == "masked":
                hidden.append(path)
        self.masked = tuple(sorted(hidden))
        self.readonly = tuple(sorted({row.target for row in rows if _readonly(row)}.difference(hidden)))

    def mounts(self) -> Fixed | None:
        """Mount point -> file system and options, without what names places on the host."""
        if self.rows is None:
            return None
        return Fixed({row.target: _words(row) for row in self.rows})


def visible(rows: Iterable[MountInfo]) -> tuple[MountInfo, ...]:
    """ROWS without what lies below another mount, where no name leads. Pure.

    One that lies right on another has it as its parent and the same target; what was mounted below that before has the
    same parent as the one that came over it.
    """
    rows = tuple(rows)
    below: dict[int, list[MountInfo]] = {}
    for row in rows:
        if row.parent != row.id:
            below.setdefault(row.parent, []).append(row)
    buried: set[int] = set()
    waiting = [row for row in rows if any(_above(one.target, row.target) for one in below.get(row.parent, ()))]
    while waiting:
        row = waiting.pop()
        if row.id not in buried:
            buried.add(row.id)
            waiting += below.get(row.id, ())
    covered = {row.id for row in rows if any(one.target == row.target for one in below.get(row.id, ()))}
    return tuple(row for row in rows if row.id not in buried | covered)


def _above(one: str, other: str) -> bool:
    return other != one and (one == "/" or other.startswith(one + "/"))


def _readonly(row: MountInfo) -> bool:
    return row.readonly or "ro" in row.super_options


def _words(row: MountInfo) -> str:
    options = [word for word in row.options if word not in ("relatime", "noatime", "strictatime", "nodiratime")]
    if row.fstype in SHOWN:
        options += [word for word in row.super_options if word not in ("rw", "ro", "inode64")]
    elif "ro" in row.super_options and "ro" not in options:
        options.append("ro-superblock")
    return f"{row.fstype} {','.join(options)}"


def _root(target: Target, fd: int, rows: dict[int, MountInfo]) -> Root:
    mine, its = os.stat("/"), os.fstat(fd)
    own = (mine.st_dev, mine.st_ino) != (its.st_dev, its.st_ino)
    row = rows.get(_mount_of(fd))
    if row is None:
        reason = "its root is no mount point: the mount table of a process shows what lies below its root"
        target.unknown |= {"root.fstype": reason, "root.propagation": reason}
        flags = os.fstatvfs(fd).f_flag
        return Root(own, bool(flags & os.ST_RDONLY), bool(flags & os.ST_NODEV), None, None)
    tags = {tag.partition(":")[0] for tag in row.propagation}
    propagation = "shared" if "shared" in tags else "slave" if "master" in tags else "private"
    return Root(own, _readonly(row), "nodev" in row.options, row.fstype, propagation)


def _mount_of(fd: int) -> int:
    return int(procfs.rows(procfs.read("thread-self", f"fdinfo/{fd}"))["mnt_id"])


def _may_mask(row: MountInfo) -> bool:
    """Only what hides: a device node or something in memory, outside /dev, where null is itself."""
    return row.fstype in IN_MEMORY and not row.target.startswith("/dev/") and row.target != "/"


def _state(root: int, path: str, rows: dict[int, MountInfo]) -> str:
    """How PATH is met below ROOT: "absent", "masked" (nothing can be seen there), "ro" or "rw" (by its mount)."""
    for row in rows.values():
        if row.fstype.partition(".")[0].startswith(FOREIGN) and (row.target == path or _above(row.target, path)):
            raise Unreadable(f"{row.fstype} lies over it: asking it may never end")
    fd = lib.mc_openat2(
        root, os.fsencode(path.lstrip("/") or "."), os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, 0,
        RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
    )  # fmt: skip
    if fd in (-ENOENT, -ENOTDIR):
        return "absent"
    check(fd, f"open {path} below its root")
    try:
        number = _mount_of(fd)
        found = rows.get(number)
        if found is None and number != _mount_of(root):
            raise Unreadable("it is on no mount that the process sees: mounts change while they are read")
        if _hides(fd, found):
            return "masked"
        if _of_kernel(path) and (found is None or not _of_kernel(found.target)):
            return "absent"  # a directory of its root, where nothing of the kernel's is mounted
        readonly = bool(os.fstatvfs(fd).f_flag & os.ST_RDONLY) if found is None else _readonly(found)
        return "ro" if readonly else "rw"
    finally:
        os.close(fd)


def _of_kernel(path: str) -> bool:
    return path in ("/proc", "/sys") or path.startswith(("/proc/", "/sys/"))


def _hides(fd: int, row: MountInfo | None) -> bool:
    """Whether FD is the null device, or something empty and read-only in memory."""
    found = os.fstat(fd)
    if stat.S_ISCHR(found.st_mode):
        return found.st_rdev == NULL
    if row is None or row.fstype not in IN_MEMORY or not _readonly(row):
        return False
    if stat.S_ISREG(found.st_mode):
        return found.st_size == 0
    if not stat.S_ISDIR(found.st_mode):
        return False
    inside = os.open(f"/proc/thread-self/fd/{fd}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return not os.listdir(inside)
    finally:
        os.close(inside)
