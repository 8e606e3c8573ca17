"""Seccomp: load a filter over system calls. seccomp(2), Linux 3.5 (filters), 3.17 (this call).

The program is bytes: an array of ``struct sock_filter`` as libseccomp's export_bpf or an assembler makes it.
"""

from __future__ import annotations

from minictr.errors import SpecError, StepFailed
from minictr.kernel import ops, procfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minictr.steps import Support

__all__ = [
    "LOG",
    "NEW_LISTENER",
    "SPEC_ALLOW",
    "TSYNC",
    "TSYNC_ESRCH",
    "WAIT_KILLABLE_RECV",
    "actions_available",
    "load",
    "mode",
    "probe",
    "validate",
]

# SECCOMP_FILTER_FLAG_*, linux/seccomp.h
TSYNC = 1  # every thread of the process; Linux 3.17
LOG = 2  # log what is not allowed; Linux 4.14
SPEC_ALLOW = 4  # without the speculative store bypass mitigation; Linux 4.17
NEW_LISTENER = 8  # answer with a descriptor for SECCOMP_RET_USER_NOTIF (seccomp_notify); Linux 5.0
TSYNC_ESRCH = 16  # TSYNC fails by ESRCH, and so goes with NEW_LISTENER; Linux 5.7
WAIT_KILLABLE_RECV = 32  # no signal but a fatal one interrupts a call that its listener has received; Linux 5.19

INSTRUCTION = 8  # sizeof(struct sock_filter), linux/filter.h
BPF_MAXINSNS = 4096  # linux/bpf_common.h
EACCES, EBUSY, EINVAL, ESRCH = 13, 16, 22, 3
_CURES = {
    EACCES: "set no_new_privs first (capabilities.no_new_privs), or have CAP_SYS_ADMIN",
    EBUSY: "a filter of this thread has a listener already: one is all that the kernel lets it have",
    EINVAL: "not a valid seccomp program: an unknown instruction or flag, a jump out of it, or no return at its end",
}


def validate(program: bytes) -> int:
    """The number of instructions of PROGRAM. Raises SpecError unless they are 1 to 4096 of 8 bytes each.

    The kernel checks the rest when it loads it.
    """
    if not isinstance(program, bytes | bytearray | memoryview):
        raise SpecError(f"seccomp: the program is {type(program).__name__}, not bytes")
    count, rest = divmod(len(program), INSTRUCTION)
    if rest or not 1 <= count <= BPF_MAXINSNS:
        told = f"{len(program)} bytes"
        raise SpecError(f"seccomp: {told} are not 1 to {BPF_MAXINSNS} instructions of {INSTRUCTION} bytes")
    return count


def load(program: bytes, *, flags: int = 0) -> int:
    """Every system call of the calling thread is judged by PROGRAM from now on, for good. seccomp(2).

    ``flags``: of TSYNC, LOG, SPEC_ALLOW, NEW_LISTENER, TSYNC_ESRCH, WAIT_KILLABLE_RECV. 0, or with NEW_LISTENER a
    descriptor for the caller to close. Python itself needs system calls: a filter that kills is for a child process.
    Raises SpecError; StepFailed: EACCES without no_new_privs or CAP_SYS_ADMIN, EBUSY for a second listener, EINVAL,
    ESRCH where TSYNC met a thread with another filter.

    >>> capabilities.no_new_privs()
    >>> load(struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000))  # BPF_RET|BPF_K, SECCOMP_RET_ALLOW
    """
    count = validate(program)
    if flags & TSYNC and flags & NEW_LISTENER and not flags & TSYNC_ESRCH:
        raise SpecError(
            "seccomp: TSYNC with NEW_LISTENER needs TSYNC_ESRCH: which thread differs would be a descriptor"
        )
    about = f"{count} instructions"
    try:
        result = ops.execute("seccomp", about=about, program=bytes(program), flags=flags, ask=0, listener=-1, direct=0)
    except StepFailed as err:
        number = err.errno or 0
        raise StepFailed(err.what, number, cure=_CURES.get(number, "")) from err
    if flags & TSYNC and not flags & NEW_LISTENER and result > 0:
        raise StepFailed(f"seccomp {about}", ESRCH, cure=f"thread {result} has a filter that this one lacks")
    return result


def actions_available() -> tuple[str, ...]:
    """What this kernel lets a filter answer: kill_process, kill_thread, trap, errno, user_notif, trace, log, allow.

    /proc/sys/kernel/seccomp/actions_avail, Linux 4.14 (the list behind SECCOMP_GET_ACTION_AVAIL). Raises StepFailed:
    ENOENT where the kernel has no filters.
    """
    return tuple(procfs.read("sys", "kernel/seccomp/actions_avail").split())


def mode(pid: int | str = 0) -> tuple[int, int]:
    """(mode, number of filters) of a process, or of the calling thread (0): mode 0 none, 1 strict, 2 filter.

    /proc/PID/status; the number Linux 5.9, -1 before.
    """
    rows = procfs.status(pid)
    return int(rows["Seccomp"]), int(rows.get("Seccomp_filters", "-1"))


def probe() -> dict[str, Support]:
    """Whether a filter can be loaded: one that allows everything, in a child that ends at once."""
    from minictr.kernel.probing import tried

    return tried("seccomp")
