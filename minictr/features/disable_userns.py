"""No user namespaces inside: by the limit of the container's own one, or by a filter. namespaces(7), seccomp(2)."""

from __future__ import annotations

import struct

from minictr.features.namespaces import CLONE_NEWUSER, PROC_SUPER_MAGIC, own
from minictr.features.seccomp import MODE, RET_ALLOW, RET_ERRNO
from minictr.steps import EXEC, LOCK, SETUP, VERIFY, Context, Feature, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any


class DisableUserns(Feature):
    """No further user namespace can be made inside, by anybody. Linux 4.9 (user.max_user_namespaces), namespaces(7).

    In a user namespace of its own that one's limit becomes 0 (ENOSPC inside). Who has CAP_SYS_RESOURCE in it could
    raise the limit again, so that one may not be kept. Without one the limit would be the host's: there a filter of its
    own, below the program's, answers EPERM to unshare(2) and clone(2) with CLONE_NEWUSER, and ENOSYS to clone3(2) as
    no filter can see its flags; C libraries then use clone.
    """

    NAME = "disable_userns"
    SUMMARY = "no further user namespace can be made inside"

    def steps(self, ctx: Context) -> Iterator[Step]:
        joins = ctx.has("join")
        if own(ctx, "userns") and not joins:
            args: dict[str, Any] = {
                "path": "/proc/sys/user/max_user_namespaces",
                "data": b"0\n",
                "magic": PROC_SUPER_MAGIC,
            }
            yield self.step("write_file", SETUP, "user.max_user_namespaces = 0", **args)
            yield self.step("verify_no_userns", VERIFY, "unshare is refused")
        elif not (joins and ctx.has("userns")):  # who joins a container is below its limit
            phase = EXEC if ctx.has("no_new_privs") else LOCK
            args = {"program": no_user_namespaces(), "flags": 0, "ask": MODE, "listener": -1, "direct": 0}
            yield self.step("seccomp", phase, "no CLONE_NEWUSER", **args)


EPERM, ENOSYS = 1, 38
LOAD, AND_IS, EQUAL, ABOVE, RETURN = 0x20, 0x45, 0x15, 0x35, 0x06  # BPF_LD|W|ABS, BPF_JMP|JSET, |JEQ, |JGE; BPF_RET|K
NUMBER, ARCH, FLAGS = 0, 4, 16  # in struct seccomp_data; the low half of the first argument, little-endian
X32 = 0x40000000  # __X32_SYSCALL_BIT, asm/unistd.h
CLONE3 = 435  # the same everywhere, asm-generic/unistd.h
# AUDIT_ARCH_* of linux/audit.h: (clone, unshare)
CALLS = {
    0xC000003E: (56, 272),  # x86_64
    0x40000003: (120, 310),  # i386
    0xC00000B7: (220, 97),  # aarch64
    0x40000028: (120, 337),  # arm
    0xC00000F3: (220, 97),  # riscv64
}


def no_user_namespaces() -> bytes:
    """The filter as an array of struct sock_filter. An architecture that it does not know can do nothing at all."""
    rows: list[tuple[int, int, int, int]] = [(LOAD, 0, 0, ARCH)]
    for arch, (clone, unshare) in CALLS.items():
        rows += [
            (EQUAL, 0, 11, arch),  # else the next architecture
            (LOAD, 0, 0, NUMBER),
            (ABOVE, 7, 0, X32),
            (EQUAL, 6, 0, CLONE3),
            (EQUAL, 2, 0, clone),
            (EQUAL, 1, 0, unshare),
            (RETURN, 0, 0, RET_ALLOW),
            (LOAD, 0, 0, FLAGS),
            (AND_IS, 2, 0, CLONE_NEWUSER),
            (RETURN, 0, 0, RET_ALLOW),
            (RETURN, 0, 0, RET_ERRNO | ENOSYS),
            (RETURN, 0, 0, RET_ERRNO | EPERM),
        ]
    return b"".join(struct.pack("=HBBI", *row) for row in (*rows, (RETURN, 0, 0, RET_ERRNO | ENOSYS)))
