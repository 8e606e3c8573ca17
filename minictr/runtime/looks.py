"""What is looked at each time before something that was found out earlier is believed again."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

__all__ = ["MOUNTED_BY", "fingerprint", "frozen"]

MOUNTED_BY = {"/proc": "proc", "/sys": "sysfs", "/dev": "dev"}  # feature by its mount point
LOOKED_AT = ("", *MOUNTED_BY, "/etc")  # of which only matters what they are
READ = ("/etc/passwd", "/etc/group")  # and of which the content does


def fingerprint(rootfs: str) -> tuple[int, ...]:
    """Identity and age of all that :func:`minictr.runtime.resolve.resolve` looks at in ROOTFS; () where links make that
    a longer matter."""
    marks: list[int] = []
    for place in (*LOOKED_AT, *READ):
        try:
            stat = os.lstat(rootfs + place)
        except OSError:
            marks.append(-1)
            continue
        if stat.st_mode >> 12 == 0o12:
            return ()  # what a link leads to may change without it
        marks += (stat.st_dev, stat.st_ino)
        if place in READ:
            marks += (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    return tuple(marks)


def frozen(groups: Iterable[Any]) -> bool:
    """Whether one of GROUPS (rows of controller, version, directory) is frozen, or about to be.

    freezer.state, cgroup.freeze: read here, for the cgroup modules cost more to import than ps does all in all. On a
    hybrid host a container may have both, and pause writes one of them.
    """
    for controller, version, directory in groups:
        if controller == "freezer" or version == 2:
            name, marks = ("cgroup.freeze", ("1",)) if version == 2 else ("freezer.state", ("FROZEN", "FREEZING"))
            try:
                with open(f"{directory}/{name}", "rb", buffering=0) as file:
                    if (file.read(16) or b"").decode().strip() in marks:
                        return True
            except OSError:
                continue
    return False
