"""What a guest does not have, by the reasons its skipped tests give: any other skip hides something.

Patterns for a whole reason, by guest. A guest that is not named skips nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

# User-mode Linux: one processor, no cpuset, hugetlb, PSI; /tmp is a tmpfs
SMALL = (
    r"this machine has no (cpuset|hugetlb) controller(, which the profiles ask for)?",
    r"no hugetlb",
    r"this guest has one processor",
    r"this kernel has no PSI",
    r"temporary files are not on a disk",
)
NO_V2 = (r"this machine has no (unified|raw) controller", r"no cgroup v2 with a controller here")
ONLY_V2 = (
    r"this machine has no named:systemd controller",
    r"v2's device program: test_cgroup_device_program",
    r"on v2 nothing short of a dead disk stays unfrozen",
)
OTHER_ABI = (  # of calls; User-mode Linux is x86_64 alone
    r"not exercisable here: no i386 emulation in this kernel",
    r"not exercisable here: ENOSYS: (perf_event_open|keyctl by x32) is not in this kernel, or a filter says so",
)
NO_SWITCH = (r"this kernel has no kernel\.apparmor_restrict_unprivileged_userns",)  # Ubuntu's
ORDINARY = (r"no Landlock in this kernel: .*", r"fuse-overlayfs or /dev/fuse is not here", *NO_SWITCH)
ABSENT: dict[str, tuple[str, ...]] = {
    "unified": (*SMALL, *ONLY_V2, *ORDINARY),
    "v1": (*SMALL, *NO_V2, *OTHER_ABI),
    "hybrid": SMALL,
    "apparmor": (r"apparmor is live here",),
    "selinux": (r"selinux is live here",),
    "bookworm": (
        r"overlayfs here takes no lowerdir\+ \(Linux 6\.5\): fsmount: EINVAL \(Invalid argument\)",
        r"this kernel has Landlock ABI 2, the test needs [3-9]",
        *ONLY_V2,
        *NO_SWITCH,
    ),
    "bookworm-backports": (r"this kernel has Landlock ABI 6, the test needs [7-9]",),
    "bookworm-v1": NO_V2,
}


def unexpected(mode: str, skipped: Mapping[str, str]) -> dict[str, str]:
    """Of SKIPPED, name to reason, what MODE is not known to lack."""
    known = [re.compile(pattern) for pattern in ABSENT.get(mode, ())]
    return {name: reason for name, reason in skipped.items() if not any(one.fullmatch(reason) for one in known)}
