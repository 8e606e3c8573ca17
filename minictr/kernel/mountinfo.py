"""The mount table of a process, read from /proc/PID/mountinfo. proc_pid_mountinfo(5), Linux 2.6.26."""

from __future__ import annotations

import os

from minictr.errors import StepFailed
from minictr.values import Value

__all__ = ["MountInfo", "mountinfo", "parse"]


class MountInfo(Value):
    """One mount. ``id`` and ``parent`` are numbers of this table, used again after an unmount.

    ``device`` is "MAJOR:MINOR"; ``root`` what of the file system is mounted; ``options`` are the mount's own
    (``ro``, ``nosuid``, ...), ``super_options`` the file system's; ``propagation`` holds ``shared:N``, ``master:N``,
    ``propagate_from:N`` and ``unbindable``, and is empty for a private mount.
    """

    id: int
    parent: int
    device: str
    root: str
    target: str
    options: tuple[str, ...]
    propagation: tuple[str, ...]
    fstype: str
    source: str
    super_options: tuple[str, ...]

    @property
    def readonly(self) -> bool:
        """Whether the mount itself is read-only; the file system below it may be so as well."""
        return "ro" in self.options


def mountinfo(pid: int | str = "thread-self") -> tuple[MountInfo, ...]:
    """The mounts that PID sees, in the kernel's order. Raises StepFailed when the process is gone.

    >>> [mount.target for mount in mountinfo() if mount.fstype == "tmpfs"]
    """
    path = f"/proc/{pid or 'self'}/mountinfo"
    try:
        with open(path, "rb") as file:
            return parse(file.read())
    except OSError as err:
        raise StepFailed(f"read {path}", err.errno or 0) from err


def parse(data: bytes) -> tuple[MountInfo, ...]:
    """The rows of a mountinfo file."""
    return tuple(_row(line) for line in data.split(b"\n") if line)


def _row(line: bytes) -> MountInfo:
    """``36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw``: any number of tags before the dash."""
    fields = [_unescaped(field) for field in line.split(b" ")]
    dash = fields.index("-", 6)
    fstype, source, super_options = (*fields[dash + 1 :], "", "")[:3]
    return MountInfo(
        id=int(fields[0]),
        parent=int(fields[1]),
        device=fields[2],
        root=fields[3],
        target=fields[4],
        options=tuple(fields[5].split(",")),
        propagation=tuple(fields[6:dash]),
        fstype=fstype,
        source=source,
        super_options=tuple(super_options.split(",")),
    )


def _unescaped(field: bytes) -> str:
    r"""``\040`` and its like (blank, tab, newline, backslash, #) as the bytes they stand for."""
    first, *rest = field.split(b"\\")
    for part in rest:
        octal = part[:3]
        known = len(octal) == 3 and octal[0] in b"0123" and not octal.translate(None, b"01234567")
        first += bytes([int(octal, 8)]) + part[3:] if known else b"\\" + part
    return os.fsdecode(first)
