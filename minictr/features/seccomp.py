"""Seccomp: a filter over system calls. seccomp(2), Linux 3.5 (filters).

This feature loads a program as it is; policies that write such programs stand elsewhere.
"""

from __future__ import annotations

from minictr.errors import SpecError
from minictr.steps import EXEC, LOCK, Context, Feature, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

SOCK_FILTER = 8  # sizeof(struct sock_filter), linux/filter.h
BPF_MAXINSNS = 4096  # linux/bpf_common.h


class Seccomp(Feature):
    """A BPF program judges every system call of the payload. Linux 3.5, seccomp(2).

    ``program`` is an array of struct sock_filter. With ``no_new_privs`` it is loaded last, just before execve;
    without, loading needs CAP_SYS_ADMIN, so it is loaded before the capabilities go (as in runc), and the program must
    then allow what the later steps do.
    """

    NAME = "seccomp"
    SUMMARY = "a BPF program judges every system call"

    program: bytes

    def check(self) -> None:
        if not isinstance(self.program, bytes):
            raise SpecError(f"seccomp: the program is {type(self.program).__name__}, not bytes")
        count, rest = divmod(len(self.program), SOCK_FILTER)
        if rest or not 1 <= count <= BPF_MAXINSNS:
            told = f"{len(self.program)} bytes"
            raise SpecError(f"seccomp: {told} is not 1 to {BPF_MAXINSNS} instructions of {SOCK_FILTER} bytes")

    def steps(self, ctx: Context) -> Iterator[Step]:
        phase = EXEC if ctx.has("no_new_privs") else LOCK
        about = f"{len(self.program) // SOCK_FILTER} instructions"
        yield self.step("seccomp", phase, about, program=self.program, flags=0)

    def __repr__(self) -> str:
        return f"Seccomp(<{len(self.program) // SOCK_FILTER} instructions>)"
