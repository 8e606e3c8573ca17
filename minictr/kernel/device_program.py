"""Which device nodes a cgroup v2 group may use: a BPF program made from rules. bpf(2), Linux 4.15.

v2 has no list of devices: a program of type cgroup/device is asked at every open and mknod of a device node, and by the
programs of all groups above as well. It needs CAP_BPF and CAP_NET_ADMIN, or CAP_SYS_ADMIN, in the first user namespace.
It works on any v2 directory, on a hybrid host too.

Rules are (allow, type, major, minor, access) as in cgroups: type "a", "b" or "c", -1 for any number, access of "rwm".
For each kind of access asked for, the last rule that matches decides; what none matches is denied.
"""

from __future__ import annotations

import os
import struct

from minictr.errors import SpecError
from minictr.kernel.core import check, ffi, lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    Rule = tuple[bool, str, int, int, str]

__all__ = ["attach", "attached", "compile_rules", "detach", "load", "replace"]

# linux/bpf.h
PROG_LOAD, PROG_ATTACH, PROG_DETACH, PROG_GET_FD_BY_ID, PROG_QUERY = 5, 8, 9, 13, 16
TYPE_CGROUP_DEVICE, ATTACH_CGROUP_DEVICE, ALLOW_MULTI = 15, 6, 2
KINDS = {"b": 1, "c": 2}  # BPF_DEVCG_DEV_*
ACCESS = {"m": 1, "r": 2, "w": 4}  # BPF_DEVCG_ACC_*
ATTR = 128  # bytes handed over for union bpf_attr: what the calls below do not use must be 0
QUERIED = 64  # programs of one group looked at
NUMBER_MAX = (1 << 20) - 1  # MINORBITS, linux/kdev_t.h
ENOENT, EPERM = 2, 1

# struct bpf_insn: code, registers (source << 4 | destination), offset, immediate
INSTRUCTION = struct.Struct("=BBhi")
LOAD_WORD, MOVE, MOVE_REGISTER, EXIT, JUMP = 0x61, 0xB7, 0xBF, 0x95, 0x05
SHIFT_RIGHT, AND = 0x77, 0x57
JUMP_IF_NOT, JUMP_IF_BITS = 0x55, 0x45  # BPF_JNE, BPF_JSET, with an immediate
ANSWER, CONTEXT, KIND, WANTED, MAJOR, MINOR = 0, 1, 2, 3, 4, 5  # registers

_CURE = "this needs CAP_SYS_ADMIN (or CAP_BPF and CAP_NET_ADMIN) in the first user namespace, and CONFIG_CGROUP_BPF"


def compile_rules(rules: Sequence[Rule]) -> bytes:
    """The program for RULES, as an array of struct bpf_insn. Pure. Raises SpecError.

    Rules are looked at from the last to the first. WANTED holds the kinds of access that no rule has decided yet: one
    that denies ends it if it concerns any of them, one that allows takes its own out and ends it when none is left.
    """
    program = [
        (LOAD_WORD, CONTEXT << 4 | KIND, 0, 0),  # access_type: kind of access << 16 | kind of device
        (MOVE_REGISTER, KIND << 4 | WANTED, 0, 0),
        (SHIFT_RIGHT, WANTED, 0, 16),
        (AND, KIND, 0, 0xFFFF),
        (LOAD_WORD, CONTEXT << 4 | MAJOR, 4, 0),
        (LOAD_WORD, CONTEXT << 4 | MINOR, 8, 0),
    ]
    for rule in reversed(rules):
        program += _one(*rule)
    program += [(MOVE, ANSWER, 0, 0), (EXIT, 0, 0, 0)]
    return b"".join(INSTRUCTION.pack(*row) for row in program)


def _one(allow: bool, kind: str, major: int, minor: int, access: str) -> list[tuple[int, int, int, int]]:
    """The instructions of one rule; each way out that does not decide jumps behind its end."""
    bits = sum(ACCESS.get(letter, 8) for letter in set(access))
    if kind not in ("a", *KINDS) or not 0 < bits < 8:
        raise SpecError(f"devices: {kind} {major}:{minor} {access}: a, b or c, and of rwm")
    if not (-1 <= major <= NUMBER_MAX and -1 <= minor <= NUMBER_MAX):
        raise SpecError(f"devices: {kind} {major}:{minor}: no device has that number")
    tests = [(KIND, KINDS[kind])] if kind in KINDS else []
    tests += [(register, number) for register, number in ((MAJOR, major), (MINOR, minor)) if number >= 0]
    if allow:
        decide = [(AND, WANTED, 0, 7 & ~bits), (JUMP_IF_NOT, WANTED, 2, 0)]
    else:
        decide = [(JUMP_IF_BITS, WANTED, 1, bits), (JUMP, 0, 2, 0)]
    answer = [(MOVE, ANSWER, 0, int(allow)), (EXIT, 0, 0, 0)]
    behind = len(tests) + len(decide) + len(answer)
    return [
        *((JUMP_IF_NOT, register, behind - place - 1, number) for place, (register, number) in enumerate(tests)),
        *decide,
        *answer,
    ]


def _bpf(command: int, what: str, attr: bytes) -> tuple[int, bytes]:
    """(result, union bpf_attr as the kernel left it). Raises StepFailed."""
    memory = bytearray(attr.ljust(ATTR, b"\0"))
    result = lib.mc_bpf(command, ffi.from_buffer(memory), ATTR)
    return check(result, what, _CURE if result == -EPERM else ""), bytes(memory)


def load(program: bytes) -> int:
    """A descriptor of the loaded program; the caller closes it. Raises StepFailed: EPERM, EINVAL, E2BIG."""
    instructions, license = ffi.from_buffer(program), ffi.new("char[]", b"GPL")
    addresses = (int(ffi.cast("uintptr_t", instructions)), int(ffi.cast("uintptr_t", license)))
    count = len(program) // INSTRUCTION.size
    attr = struct.pack("=IIQQIIQII16sII", TYPE_CGROUP_DEVICE, count, *addresses, 0, 0, 0, 0, 0, b"minictr", 0, 0)
    attr = attr[:-4] + struct.pack("=I", ATTACH_CGROUP_DEVICE)
    return _bpf(PROG_LOAD, f"bpf: load a device program of {count} instructions", attr)[0]


def attach(directory: str, program: int) -> None:
    """Let PROGRAM (a descriptor) judge the v2 group DIRECTORY, beside those that do already. Raises StepFailed.

    It stays until it is detached or the group is gone.
    """
    _with_group(PROG_ATTACH, directory, "attach a device program to", program, ALLOW_MULTI)


def detach(directory: str, program: int) -> None:
    """Take PROGRAM off the group again. Raises StepFailed: ENOENT when it is not there."""
    _with_group(PROG_DETACH, directory, "detach a device program from", program, 0)


def _with_group(command: int, directory: str, words: str, program: int, flags: int) -> None:
    fd = _open(directory)
    try:
        attr = struct.pack("=IIII", fd, program, ATTACH_CGROUP_DEVICE, flags)
        _bpf(command, f"bpf: {words} {directory}", attr)
    finally:
        os.close(fd)


def _open(directory: str) -> int:
    try:
        return os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as err:
        from minictr.kernel.cgroup_files import refused

        raise refused(directory, "", None, err.errno or 0) from err


def attached(directory: str) -> tuple[int, ...]:
    """The ids of the device programs of this very group, in the order they were attached. Linux 4.15. StepFailed."""
    ids = ffi.new(f"uint32_t[{QUERIED}]")
    fd = _open(directory)
    try:
        address = int(ffi.cast("uintptr_t", ids))
        attr = struct.pack("=IIIIQI", fd, ATTACH_CGROUP_DEVICE, 0, 0, address, QUERIED)
        _, answer = _bpf(PROG_QUERY, f"bpf: query the device programs of {directory}", attr)
    finally:
        os.close(fd)
    return tuple(ids[place] for place in range(struct.unpack_from("=I", answer, 24)[0]))


def replace(directory: str, rules: Sequence[Rule]) -> None:
    """RULES instead of all device programs of this group: the new one comes first, so it is never open in between.

    Raises SpecError before anything is done, StepFailed.
    """
    program = load(compile_rules(rules))
    try:
        old = attached(directory)
        attach(directory, program)
        for number in old:
            fd, _ = _bpf(PROG_GET_FD_BY_ID, f"bpf: program {number}", struct.pack("=I", number))
            try:
                detach(directory, fd)
            finally:
                os.close(fd)
    finally:
        os.close(program)
