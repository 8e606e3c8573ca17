"""Capabilities: the five sets of a thread, its securebits, and no_new_privs. capabilities(7), prctl(2), capset(2).

The bounding set and keep_caps go through python-prctl; effective, permitted, inheritable and ambient, and capabilities
younger than python-prctl's headers, through the core.

A set is a tuple of names without ``CAP_``. A capability this table does not know, of a later kernel, is ``cap_41``.
"""

from __future__ import annotations

from minictr.errors import SpecError, StepFailed
from minictr.kernel import ops, procfs
from minictr.kernel.core import check, ffi, lib
from minictr.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from minictr.steps import Support

__all__ = [
    "NAMES",
    "Sets",
    "ambient",
    "bounding",
    "drop_bounding",
    "get",
    "has_no_new_privs",
    "keep_caps",
    "last_cap",
    "mask",
    "names",
    "no_new_privs",
    "probe",
    "securebits",
    "set",
    "set_securebits",
]

# linux/capability.h: the index is the number
NAMES: tuple[str, ...] = (
    *"CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE"
    " NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN"
    " SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE"
    " MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE".split(),
)
PR_CAPBSET_READ, PR_CAPBSET_DROP, PR_GET_SECUREBITS, PR_GET_NO_NEW_PRIVS = 23, 24, 27, 39  # linux/prctl.h
EPERM = 1
BITS = 64  # of a set


class Sets(Value):
    """The five sets, each a tuple of names in the order of their numbers. capabilities(7)."""

    effective: tuple[str, ...]
    permitted: tuple[str, ...]
    inheritable: tuple[str, ...]
    bounding: tuple[str, ...]
    ambient: tuple[str, ...]


def names(bits: int) -> tuple[str, ...]:
    """The names of a mask, as ``CapEff`` of /proc/PID/status shows one.

    >>> names(0x21)
    ('CHOWN', 'KILL')
    """
    return tuple(NAMES[n] if n < len(NAMES) else f"cap_{n}" for n in range(bits.bit_length()) if bits >> n & 1)


def mask(wanted: Iterable[str]) -> int:
    """The bits of names: ``NET_RAW``, ``cap_net_raw``, ``cap_41``. Raises SpecError for another word."""
    bits = 0
    for name in wanted:
        bits |= 1 << _number(name)
    return bits


def _number(name: str) -> int:
    word = name.upper().removeprefix("CAP_")
    if word in NAMES:
        return NAMES.index(word)
    if word.isascii() and word.isdigit() and len(word) < 4 and int(word) < BITS:
        return int(word)
    raise SpecError(f"capability: {name!r} is not one of capabilities(7), nor cap_ and a number below 64")


def last_cap() -> int:
    """The number of the last capability this kernel knows. Linux 3.2, /proc/sys/kernel/cap_last_cap."""
    return int(procfs.read("sys", "kernel/cap_last_cap"))


def get(pid: int | str = 0) -> Sets:
    """The sets of a process, or of the calling thread (0). /proc/PID/status; CapAmb Linux 4.3. Raises StepFailed.

    >>> "NET_ADMIN" in get().effective
    """
    rows = procfs.status(pid)
    words = ("CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb")
    return Sets(*(names(int(rows.get(word, "0"), 16)) for word in words))


def set(
    *,
    effective: Iterable[str] | None = None,
    permitted: Iterable[str] | None = None,
    inheritable: Iterable[str] | None = None,
) -> None:
    """Set the given sets of the calling thread; the others stay. Linux 2.6.25, capset(2).

    Effective must be within permitted; permitted only shrinks; inheritable stays within permitted (or bounding, with
    CAP_SETPCAP). What leaves permitted or inheritable leaves ambient too. Raises SpecError, StepFailed: EPERM.

    >>> set(effective=(), permitted=("KILL",), inheritable=())
    """
    current = ffi.new("uint64_t[3]")
    check(lib.mc_capget(0, current), "capget")
    wanted = [int(now) if new is None else mask(new) for now, new in zip(current, (effective, permitted, inheritable))]
    check(lib.mc_capset(*wanted), "capset", "a thread can only take from its permitted set, never add to it")


def bounding() -> tuple[str, ...]:
    """The bounding set of the calling thread: what execve can give at most. Linux 2.6.25, prctl(2) PR_CAPBSET_READ."""
    return names(sum(1 << number for number in range(last_cap() + 1) if _capbset_read(number)))


def _capbset_read(number: int) -> bool:
    import prctl

    try:
        return bool(prctl.capbset_read(number))
    except ValueError:  # younger than the headers python-prctl was built with
        return bool(check(lib.mc_prctl(PR_CAPBSET_READ, number, 0, 0, 0), "prctl PR_CAPBSET_READ"))


def drop_bounding(*wanted: str) -> None:
    """Take capabilities from the calling thread's bounding set, for good. Linux 2.6.25, prctl(2) PR_CAPBSET_DROP.

    Raises SpecError; StepFailed: EPERM without CAP_SETPCAP, EINVAL for one this kernel does not know.

    >>> drop_bounding("SYS_MODULE", "SYS_BOOT")
    """
    for number in sorted(dict.fromkeys(map(_number, wanted))):
        error = _capbset_drop(number)
        if error:
            cure = "needs CAP_SETPCAP" if error == EPERM else f"this kernel's last capability is {last_cap()}"
            raise StepFailed(f"drop {names(1 << number)[0]} from the bounding set", error, cure=cure)


def _capbset_drop(number: int) -> int:
    """0, or the errno."""
    import prctl

    try:
        prctl.capbset_drop(number)
    except ValueError:  # younger than the headers python-prctl was built with
        return -min(0, int(lib.mc_prctl(PR_CAPBSET_DROP, number, 0, 0, 0)))
    except OSError as err:
        return err.errno or EPERM
    return 0


def ambient(*wanted: str) -> None:
    """The ambient set of the calling thread is these and no other: kept over execve. Linux 4.3, prctl(2).

    Each must be permitted and inheritable. No names clear it. Raises SpecError, StepFailed: EPERM.
    """
    bits = mask(wanted)
    bits -= (bits >> (BITS - 1)) << BITS  # an op's argument is an int64
    cure = "an ambient capability must be permitted and inheritable, and no_cap_ambient_raise not set"
    ops.execute("ambient", cure=cure, ambient=bits)


def keep_caps(on: bool = True) -> None:
    """Keep the permitted set when all user ids change from 0; execve clears it. Linux 2.2.18, PR_SET_KEEPCAPS."""
    import prctl

    try:
        prctl.set_keepcaps(on)
    except OSError as err:
        raise StepFailed("keep capabilities", err.errno or 0, cure="SECBIT_KEEP_CAPS_LOCKED is set") from err


def securebits() -> tuple[str, ...]:
    """The securebits of the calling thread: ``noroot``, ``noroot_locked`` and so on. Linux 2.6.26, PR_GET_SECUREBITS.

    Nobody can read those of another process: /proc does not have them.
    """
    from minictr.securebits import names as words

    return words(check(lib.mc_prctl(PR_GET_SECUREBITS, 0, 0, 0, 0), "prctl PR_GET_SECUREBITS"))


def set_securebits(*on: str, off: Iterable[str] = ()) -> None:
    """Set securebits of the calling thread and clear others; the rest stays. Linux 2.6.26, prctl(2) PR_SET_SECUREBITS.

    ``noroot``: execve gives user 0 no capabilities for being user 0. ``no_setuid_fixup``: a change of user changes no
    set. ``no_cap_ambient_raise`` (4.3). ``exec_restrict_file``, ``exec_deny_interactive`` (6.14) are for interpreters,
    and anybody may set them. Each has a ``_locked``, for good. Raises SpecError; StepFailed: EPERM without CAP_SETPCAP,
    for a locked bit, and for one that this kernel does not have.

    >>> set_securebits("noroot", "noroot_locked")
    """
    from minictr.securebits import bits, normal

    cure = "needs CAP_SETPCAP, a bit that is not locked, and a kernel that has it (exec_*: Linux 6.14)"
    ops.execute("securebits", cure=cure, on=bits(normal(on)), off=bits(normal(off)))


def no_new_privs() -> None:
    """execve gives no privilege any more (set-user-id, file capabilities), for good. Linux 3.5, prctl(2).

    Of the calling thread and what it starts. Never fails on a kernel that has it.
    """
    ops.execute("no_new_privs")


def has_no_new_privs() -> bool:
    """Whether :func:`no_new_privs` holds for the calling thread."""
    return check(lib.mc_prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), "prctl PR_GET_NO_NEW_PRIVS") == 1


def probe() -> dict[str, Support]:
    """Whether capabilities can be dropped, and no_new_privs be set: done in a child that ends at once."""
    from minictr.kernel.probing import tried

    return tried("capabilities")
