"""What the observer is asked to look for, by the spec: errno values, and paths that are masked."""

from __future__ import annotations

from minictr.bpf import RET, instructions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minictr.spec import Spec

__all__ = ["BASE", "errnos_of", "landlock_paths_of", "masked_of"]

EPERM, EACCES, EROFS, EXDEV, ENOSPC = 1, 13, 30, 18, 28
BASE = frozenset((EPERM, EACCES, EROFS))
RET_ERRNO, RET_DATA = 0x00050000, 0xFFFF  # SECCOMP_RET_*, linux/seccomp.h


def errnos_of(spec: Spec) -> set[int]:
    """How a denied call may fail: as the kernel's own checks do, and with what the filter returns."""
    feature: Any = spec.get("seccomp")
    found = set(BASE)
    if feature is not None and isinstance(feature.program, bytes):
        for code, _, _, k in instructions(feature.program):
            if code & 7 == RET and not code & 0x18 and k & 0xFFFF0000 == RET_ERRNO:
                found.add(k & RET_DATA)
    if "landlock" in spec.names:
        found.add(EXDEV)  # renames into another directory
    if "disable_userns" in spec.names:
        found.add(ENOSPC)  # the limit's answer
    return found - {0}


def masked_of(spec: Spec) -> tuple[str, ...]:
    """The paths that an empty file or directory lies over."""
    feature: Any = spec.get("masked_paths")
    return () if feature is None else tuple(feature.paths)


def landlock_paths_of(spec: Spec) -> tuple[str, ...]:
    """The paths that Landlock's rules name: they may be links."""
    feature: Any = spec.get("landlock")
    return () if feature is None else tuple(dict.fromkeys(path for path, _, _ in feature.path_rows()))
