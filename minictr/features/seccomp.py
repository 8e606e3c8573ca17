"""Seccomp: a filter over system calls. seccomp(2), Linux 3.5 (filters).

What is loaded is a program; a :class:`minictr.features.filters.SeccompFilter`, or the name of a ready-made one, becomes
a program when a start is prepared (:mod:`minictr.runtime.filters`), for it may hang on the capabilities and the kernel.
"""

from __future__ import annotations

import os

from minictr.bpf import answer, data, instructions
from minictr.errors import SpecError
from minictr.features.check import frozen, sequence, shown, word
from minictr.steps import EXEC, LOCK, Context, Feature, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from minictr.features.filters import SeccompFilter

__all__ = ["CONTENT", "FLAGS", "POLICIES", "Seccomp"]

RET_USER_NOTIF = 0x7FC00000  # linux/seccomp.h
NEW_LISTENER, WAIT_KILLABLE_RECV = 8, 32  # SECCOMP_FILTER_FLAG_*: Linux 5.0 and 5.19
SOCK_FILTER = 8  # sizeof(struct sock_filter), linux/filter.h
BPF_MAXINSNS = 4096  # linux/bpf_common.h
FLAGS = {"log": 2, "spec_allow": 4}  # SECCOMP_FILTER_FLAG_*, linux/seccomp.h
POLICIES = ("default", "docker", "lxc", "strict")
# What the policies say: the beginning of the SHA-256 of policies.py. It is part of the keys of the cache, so that a
# start need not read them; tests/unit/test_policies.py holds it to the file.
CONTENT = "f63b810cd02a73e1"
# prctl(2)'s number, and AUDIT_ARCH_*, by machine: linux/audit.h
PRCTL = {"x86_64": (157, 0xC000003E), "aarch64": (167, 0xC00000B7), "riscv64": (167, 0xC00000F3)}
PR_GET_SECCOMP = 21  # linux/prctl.h
NOTHING, MODE, ERROR = 0, 1, 2  # enum mc_seccomp_ask
SENDMSG = {"x86_64": 46, "aarch64": 211, "riscv64": 211}
ARGUMENTS = 16  # where they begin in struct seccomp_data, linux/seccomp.h
RET_ERRNO, RET_LOG, RET_ALLOW = 0x00050000, 0x7FFC0000, 0x7FFF0000  # SECCOMP_RET_*
DONE = (RET_ALLOW, RET_LOG)


class Seccomp(Feature):
    """A BPF program judges every system call of the payload. Linux 3.5, seccomp(2).

    ``program``: a :class:`SeccompFilter`, one of "default", "docker", "lxc", "strict", or an array of struct
    sock_filter as bytes. ``flags``: "log" writes what is not allowed to the kernel's log (Linux 4.14), "spec_allow"
    does without the mitigation of speculative store bypass (4.17). ``source``: where a program comes from, for people.

    A program that notifies is asked for by ``on_syscall=`` of a run (Linux 5.0): the step's listener is a socket then.

    With ``no_new_privs`` it is loaded last, just before execve; without, loading needs CAP_SYS_ADMIN, so it is loaded
    before the capabilities go (as in runc), and the program must then allow what the later steps do. Either way it must
    allow execve. The mode is read back where the program itself lets prctl(2) answer.
    """

    NAME = "seccomp"
    SUMMARY = "a BPF program judges every system call"

    program: bytes | SeccompFilter | str
    flags: tuple[str, ...] = ()
    source: str = ""

    def check(self) -> None:
        for flag in sequence(self.flags, "seccomp: flags"):
            if flag not in FLAGS:
                raise SpecError(f"seccomp: flag {shown(flag)} is not one of {', '.join(FLAGS)}")
        frozen(self, "flags", tuple(flag for flag in FLAGS if flag in self.flags))
        word(self.source, "seccomp: source", empty=True)
        if isinstance(self.program, str):
            if self.program not in POLICIES:
                raise SpecError(f"seccomp: {shown(self.program)} is not one of {', '.join(POLICIES)}")
        elif isinstance(self.program, bytes):
            count, rest = divmod(len(self.program), SOCK_FILTER)
            if rest or not 1 <= count <= BPF_MAXINSNS:
                told = f"{len(self.program)} bytes"
                raise SpecError(f"seccomp: {told} is not 1 to {BPF_MAXINSNS} instructions of {SOCK_FILTER} bytes")
        else:
            from minictr.features.filters import SeccompFilter

            given: object = self.program
            if not isinstance(given, SeccompFilter):
                kind = type(given).__name__
                raise SpecError(f"seccomp: the program is {kind}, not bytes, a filter or a policy's name")

    def steps(self, ctx: Context) -> Iterator[Step]:
        phase = EXEC if ctx.has("no_new_privs") else LOCK
        bits = 0
        for flag in self.flags:
            bits |= FLAGS[flag]
        program = self.program if isinstance(self.program, bytes) else b""  # not yet; the kernel refuses to load that
        args = {"program": program, "flags": bits, "ask": expected(program), "listener": -1, "direct": 0}
        about = self.told()
        if self.notifies:
            about += ", notifies"
            args |= {
                "flags": bits | NEW_LISTENER | WAIT_KILLABLE_RECV,
                "listener": "listener",
                "direct": int(self.sends),
            }
        yield Step("seccomp", phase, args, self.name, about)

    @property
    def notifies(self) -> bool:
        """Whether the program asks a function of the caller's about some calls."""
        if isinstance(self.program, bytes):
            return notifying(self.program)
        return not isinstance(self.program, str) and self.program.notifies

    @property
    def sends(self) -> bool:
        """Whether sendmsg(2) is done whatever its arguments are: then the start sends a listener by itself."""
        if isinstance(self.program, bytes):
            return sending(self.program)
        return not isinstance(self.program, str) and self.program.lets("sendmsg")

    def told(self) -> str:
        """What it is, in a few words."""
        if isinstance(self.program, bytes):
            size = f"{len(self.program) // SOCK_FILTER} instructions"
            return f"{self.source}, {size}" if self.source else size
        return self.program if isinstance(self.program, str) else repr(self.program)

    def __repr__(self) -> str:
        told = f"<{self.told()}>" if isinstance(self.program, bytes) else repr(self.program)
        return f"Seccomp({told}{f', flags={self.flags!r}' if self.flags else ''})"


def notifying(program: bytes) -> bool:
    """Whether PROGRAM returns SECCOMP_RET_USER_NOTIF somewhere."""
    if b"\xc0\x7f" not in program and b"\x7f\xc0" not in program:  # in either byte order: most have it nowhere
        return False
    return any(code & 0x1F == 0x06 and k & 0xFFFF0000 == RET_USER_NOTIF for code, _, _, k in instructions(program))


def sending(program: bytes) -> bool:
    """Whether PROGRAM lets sendmsg(2) be done, without a look at its arguments."""
    number = SENDMSG.get(os.uname().machine, -1)
    try:
        return number >= 0 and answer(program, data(number, PRCTL[os.uname().machine][1])[:ARGUMENTS]) in DONE
    except (SpecError, KeyError):
        return False  # they are looked at, or it is no program


def expected(program: bytes) -> int:
    """What the question which mode is in force must be answered with, once PROGRAM is: MODE, ERROR, or NOTHING where it
    must not be put."""
    number, arch = PRCTL.get(os.uname().machine, (-1, 0))
    if number < 0:
        return NOTHING
    try:
        ret = answer(program, data(number, arch, (PR_GET_SECCOMP,)))
    except (SpecError, KeyError):
        return NOTHING  # the kernel will refuse it, and say so
    if ret in DONE:
        return MODE
    return ERROR if ret & 0xFFFF0000 == RET_ERRNO and ret != RET_ERRNO else NOTHING
