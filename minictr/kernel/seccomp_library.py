"""libseccomp, by pyseccomp: names and numbers of system calls, and programs made of rules. The only user of both.

Importing this costs 25 ms (ctypes, and a search for the library): nothing on the way of a start does, as long as the
cache (:mod:`minictr.kernel.seccomp_programs`) has the program.
"""

from __future__ import annotations

import os

from minictr.errors import SpecError, Unsupported

try:
    import pyseccomp
except (ImportError, OSError, RuntimeError) as err:  # RuntimeError: the binding is there, the library is not
    raise Unsupported("seccomp", f"libseccomp cannot be had ({err})", "apt-get install libseccomp2") from err

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

__all__ = ["TRACE", "arch_token", "build", "known", "name_and_number", "name_of", "newest", "number_of", "table"]

NOT_A_CALL = -1  # __NR_SCMP_ERROR; other negative numbers are calls that this architecture has not
NUMBERS = 1024  # no architecture of ARCHES but MIPS has larger ones
MIPS_OFFSETS = {"mips": 4000, "mipsel": 4000, "mips64": 5000, "mipsel64": 5000, "mips64n32": 6000, "mipsel64n32": 6000}
X32_BIT = 0x40000000
TREE = 2  # SCMP_FLTATR_CTL_OPTIMIZE: a binary tree of numbers
TRACE = 0x7FF00000


def arch_token(arch: str) -> int:
    """libseccomp's number of an architecture; but for x32 the kernel's AUDIT_ARCH_*. Raises SpecError."""
    found = getattr(pyseccomp.Arch, arch.upper(), None)
    if not isinstance(found, int) or arch == "native":
        raise SpecError(f"seccomp: this libseccomp does not know the architecture {arch}")
    return found


def table(arch: str) -> dict[int, str]:
    """Number -> name of ARCH's system calls, x32's with their bit.

    Asked number by number: the other way round, libseccomp gives those that i386 also has by socketcall(2) and ipc(2)
    no number at all.
    """
    if arch not in _tables:
        first = MIPS_OFFSETS.get(arch, 0) | (X32_BIT if arch == "x32" else 0)
        own = (0xF0001, 0xF0002, 0xF0003, 0xF0004, 0xF0005) if arch == "arm" else ()  # asm/unistd.h: __ARM_NR_*
        numbers = (*range(first, first + NUMBERS), *own)
        _tables[arch] = {number: name for number in numbers if (name := name_of(number, arch))}
    return _tables[arch]


_tables: dict[str, dict[int, str]] = {}


def number_of(name: str, arch: str) -> int | None:
    """The number of a system call; None where ARCH has no such call. For x32 with its bit."""
    return next((number for number, known_name in table(arch).items() if known_name == name), None)


def known(name: str) -> bool:
    """Whether libseccomp knows a system call of that name, on whatever architecture."""
    return int(pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name)) != NOT_A_CALL


def name_of(number: int, arch: str) -> str:
    """The name of a system call, "" for a number that libseccomp knows none for."""
    try:
        found = pyseccomp.resolve_syscall(arch_token(arch), number)
    except ValueError:
        return ""
    return bytes(found).decode()


def name_and_number(call: str | int, arch: str, lenient: bool = False) -> tuple[str, int | None]:
    """The name and number of CALL, given by either. LENIENT: a name that libseccomp does not know is as a call that
    ARCH has not; else that is a SpecError."""
    if isinstance(call, bool) or not isinstance(call, (str, int)):
        raise SpecError(f"seccomp: {call!r} is neither name nor number of a system call")
    if isinstance(call, int):
        name = name_of(call, arch)
        if name:
            return name, call
        beyond = (call & ~X32_BIT) > newest(arch)
        return str(call), None if beyond else call
    number = number_of(call, arch)
    if number is None and not known(call) and not lenient:
        raise SpecError(f"seccomp: libseccomp knows no system call named {call!r}")
    return call, number


def newest(arch: str) -> int:
    """The largest number of a system call that libseccomp knows, without x32's bit; arm's own are not counted."""
    return max((number & ~X32_BIT for number in table(arch) if number & ~X32_BIT < 0xF0000), default=0)


def build(
    default: int,
    bad_arch: int,
    arches: Iterable[str],
    rules: Iterable[tuple[str, int]],
    *,
    tree: bool,
) -> bytes:
    """A program of libseccomp's. RULES: (name, SECCOMP_RET_*). Raises SpecError with its reason."""
    try:
        made = pyseccomp.SyscallFilter(default)
        made.set_attr(pyseccomp.Attr.ACT_BADARCH, bad_arch)
        if tree:
            made.set_attr(pyseccomp.Attr.CTL_OPTIMIZE, TREE)
        made.remove_arch(pyseccomp.Arch.NATIVE)
        for arch in arches:
            made.add_arch(arch_token(arch))
        for name, ret in rules:
            number = pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name)
            try:
                made.add_rule(ret, number)
            except OSError as err:
                raise SpecError(f"seccomp: libseccomp refuses a rule for {name}: {err.strerror}") from None
        return _exported(made)
    except OSError as err:
        raise SpecError(f"seccomp: libseccomp refuses the filter: {err.strerror}") from None


def _exported(made: Any) -> bytes:
    fd = os.memfd_create("minictr-seccomp", os.MFD_CLOEXEC)
    with open(fd, "r+b", buffering=0) as file:
        made.export_bpf(file)
        file.seek(0)
        return file.read()
