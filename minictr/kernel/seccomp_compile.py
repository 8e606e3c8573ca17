"""A seccomp filter's rules as a BPF program: numbers by libseccomp, arguments by this module, and what comes out is
compared with the rules before anybody may load it.

libseccomp finds the way to a system call's number, as a chain or as a binary tree, on several architectures. Rules
with conditions are not given to it: it has them without order (a rule without conditions swallows the others, of two
that overlap either may answer), refuses exceptions on socketcall, and 2.5.4 does not come back from some. So each
system call gets an answer of its own from it, a placeholder, and in the placeholder's place stands what was meant: a
return, or a jump to the comparisons of its arguments, which follow at the end.
"""

from __future__ import annotations

import struct

from minictr.bpf import answer, data, instructions
from minictr.errors import SpecError
from minictr.kernel import seccomp_library as library

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from minictr.bpf import Row

    Condition = tuple[int, str, int, int]  # argument, operator, value, mask
    Case = tuple[tuple[Condition, ...], int]  # conditions, SECCOMP_RET_*
    Call = tuple[tuple[Case, ...], int]  # cases in the order asked, and what else is

__all__ = ["compile_filter"]

TREE_FROM = 16  # system calls: below, a chain loads as fast (docs/decisions.md)
MULTIPLEXED = ("socketcall", "ipc")  # on 32 bits libseccomp writes rules for these on its own, unless they have some
BPF_MAXINSNS = 4096  # linux/bpf_common.h
INSTRUCTION = struct.Struct("=HBBI")  # struct sock_filter
LOW, HIGH = (16, 20) if INSTRUCTION.pack(1, 0, 0, 0)[0] else (20, 16)  # of args[0] in struct seccomp_data
WORD = (1 << 64) - 1
# linux/bpf_common.h: BPF_LD|BPF_W|BPF_ABS, BPF_ALU|BPF_AND|BPF_K, BPF_JMP|..., BPF_RET|BPF_K
LOAD, AND, JUMP, EQUAL, GREATER, NOT_LESS, RETURN = 0x20, 0x54, 0x05, 0x15, 0x25, 0x35, 0x06
NEXT, PASS, FAIL = 0, -1, -2  # where a comparison leads: to the next instruction, condition or case

# operator -> (high words greater, equal, neither; then the low words' comparison, met, not met)
COMPARISONS = {
    "==": (FAIL, NEXT, FAIL, EQUAL, PASS, FAIL),
    "!=": (PASS, NEXT, PASS, EQUAL, FAIL, PASS),
    ">": (PASS, NEXT, FAIL, GREATER, PASS, FAIL),
    ">=": (PASS, NEXT, FAIL, NOT_LESS, PASS, FAIL),
    "<": (FAIL, NEXT, PASS, NOT_LESS, FAIL, PASS),
    "<=": (FAIL, NEXT, PASS, GREATER, FAIL, PASS),
}


def compile_filter(plain: tuple[Any, ...]) -> bytes:
    """The program of a filter, as ``SeccompFilter.plain()`` tells it. Raises SpecError, Unsupported."""
    default, bad_arch, newer, arches, lenient, rules = plain
    calls = by_call(rules, default)
    for name in [name for name in calls if not library.known(name)]:
        if not lenient:
            raise SpecError(f"seccomp: libseccomp knows no system call named {name!r}")
        del calls[name]
    answers: list[Call] = [((), default), ((), bad_arch)]  # by placeholder, from 1
    rows = []
    for name in (*MULTIPLEXED, *(name for name in calls if name not in MULTIPLEXED)):
        call = calls.get(name, ((), default))
        if call == answers[0] and name not in MULTIPLEXED:
            continue
        # the first two have placeholders of their own: libseccomp refuses rules that say what its default says
        place = answers.index(call, 2) if call in answers[2:] else len(answers)
        answers[place:] = answers[place:] or [call]
        rows.append((name, library.TRACE | place + 1))
    made = library.build(library.TRACE | 1, library.TRACE | 2, arches, rows, tree=len(rows) > TREE_FROM)
    program = prologue(arches, newer) + finished(made, answers)
    if len(program) > BPF_MAXINSNS * INSTRUCTION.size:
        raise SpecError(f"seccomp: {len(program) // INSTRUCTION.size} instructions, the kernel takes {BPF_MAXINSNS}")
    prove(program, plain, calls)
    return program


def by_call(rules: tuple[Any, ...], default: int) -> dict[str, Call]:
    """For each system call the cases with conditions in the order asked (the last given first), and what else is."""
    found: dict[str, Call] = {}
    done: set[str] = set()
    for names, ret, conditions in reversed(rules):
        for name in names:
            if name in done:
                continue
            cases, final = found.get(name, ((), default))
            if conditions:
                found[name] = ((*cases, (conditions, ret)), final)
            else:
                found[name] = (cases, ret)
                done.add(name)
    return found


def finished(program: bytes, answers: list[Call]) -> bytes:
    """PROGRAM with what was meant in the place of the placeholders."""
    rows = list(INSTRUCTION.iter_unpack(program))
    tail: list[Row] = []
    begins: dict[int, int] = {}
    for place, (code, _, _, k) in enumerate(rows):
        if code != RETURN or k & 0xFFFF0000 != library.TRACE:
            continue
        number = (k & 0xFFFF) - 1
        cases, final = answers[number]
        if not cases:
            rows[place] = (RETURN, 0, 0, final)
            continue
        if number not in begins:
            begins[number] = len(rows) + len(tail)
            tail += comparisons(cases, final)
        rows[place] = (JUMP, 0, 0, begins[number] - place - 1)
    return b"".join(INSTRUCTION.pack(*row) for row in (*rows, *tail))


def comparisons(cases: tuple[Case, ...], final: int) -> list[Row]:
    """The cases of one system call, asked in order, each ending in a return."""
    found: list[Row] = []
    for conditions, ret in cases:
        parts = [compared(condition) for condition in conditions]
        length = sum(map(len, parts))
        place = 0
        for part in parts:
            end = place + len(part)
            for code, yes, no, k in part:
                place += 1
                # PASS: behind this condition; FAIL: behind the return that ends the case
                to = {NEXT: 0, PASS: end - place, FAIL: length + 1 - place}
                found.append((code, to[yes], to[no], k))
        found.append((RETURN, 0, 0, ret))
    return [*found, (RETURN, 0, 0, final)]


def compared(condition: Condition) -> list[Row]:
    """One comparison of 64 bits by words of 32."""
    index, op, value, mask = condition
    low, high = value & 0xFFFFFFFF, value >> 32
    if op == "&":
        rows: list[Row] = []
        for offset, bits, wanted in ((HIGH, mask >> 32, high), (LOW, mask & 0xFFFFFFFF, low)):
            rows += [(LOAD, 0, 0, offset + 8 * index), (AND, 0, 0, bits), (EQUAL, NEXT, FAIL, wanted)]
        return rows
    greater, equal, less, code, met, unmet = COMPARISONS[op]
    rows = [(LOAD, 0, 0, HIGH + 8 * index)]
    if greater != less:
        rows.append((GREATER, greater, NEXT, high))
    rows += [(EQUAL, equal, less, high), (LOAD, 0, 0, LOW + 8 * index), (code, met, unmet, low)]
    return rows


def prologue(arches: tuple[str, ...], newer: int) -> bytes:
    """What comes before libseccomp's part: numbers beyond those it knows get NEWER (-1: nothing of the kind).

    runc does so with ENOSYS: a program that is told EPERM for a call of a newer kernel does not try the older one.
    """
    if newer < 0:
        return b""
    # x32's numbers are those of x86_64 and a bit
    limits = [(library.arch_token(arch), library.newest(arch)) for arch in arches if arch != "x32"]
    rows = [(LOAD, 0, 0, 4)]
    for place, (token, newest) in enumerate(limits):
        left = 5 * (len(limits) - place - 1)
        # x32's numbers, and -1 which a tracer leaves behind, are left to what follows
        rows += [(EQUAL, 0, 4, token), (LOAD, 0, 0, 0), (GREATER, left + 2, 0, library.X32_BIT - 1)]
        rows += [(GREATER, 0, left + 1, newest), (RETURN, 0, 0, newer)]
    return b"".join(INSTRUCTION.pack(*row) for row in rows)


# --- the proof ---


def prove(program: bytes, plain: tuple[Any, ...], calls: dict[str, Call]) -> None:
    """Raise SpecError where PROGRAM answers otherwise than the rules: for every number of every architecture, with
    arguments at and beside every number that a condition names."""
    default, bad_arch, newer, arches, _, _ = plain
    made = instructions(program)
    for arch in arches:
        bit = library.X32_BIT if arch == "x32" else 0
        token = library.arch_token("x86_64" if bit else arch)
        names = library.table(arch)
        newest = library.newest(arch) | bit
        for number in {*range(bit, newest + 8), *names}:
            cases, final = calls.get(names.get(number, ""), ((), default))
            if newer >= 0 and not bit and number > newest:
                cases, final = (), newer
            for args in samples(cases):
                wanted = next((ret for conditions, ret in cases if holds(conditions, args)), final)
                _compare(made, number, token, args, wanted, arch)
    if "x32" not in arches and "x86_64" in arches:
        for number in (library.X32_BIT, library.X32_BIT | 1, library.X32_BIT | 59):
            _compare(made, number, library.arch_token("x86_64"), (), bad_arch, "x32")
    _compare(made, 1, 0x7FFFFFFF, (), bad_arch, "an unknown architecture")


def samples(cases: tuple[Case, ...]) -> Iterator[tuple[int, ...]]:
    """Arguments at, below and above every number that conditions name: each varied alone, the others 0 or as wanted."""
    interesting: dict[int, set[int]] = {}
    for conditions, _ in cases:
        for index, _, value, mask in conditions:
            near = {value - 1, value, value + 1, mask, value ^ (mask & -mask), value | ~mask, 0, WORD, value ^ 1 << 32}
            interesting.setdefault(index, set()).update(each & WORD for each in near)
    yield (0,) * 6
    wanted = [next((c[2] for conditions, _ in cases for c in conditions if c[0] == index), 0) for index in range(6)]
    for start in ([0] * 6, wanted):
        for index, values in interesting.items():
            for value in values:
                yield tuple(value if place == index else start[place] for place in range(6))


def holds(conditions: tuple[Condition, ...], args: tuple[int, ...]) -> bool:
    """Whether all CONDITIONS do, with Python's own arithmetic."""
    return all(
        {
            "==": args[index] == value,
            "!=": args[index] != value,
            "<": args[index] < value,
            "<=": args[index] <= value,
            ">": args[index] > value,
            ">=": args[index] >= value,
            "&": args[index] & mask == value,
        }[op]
        for index, op, value, mask in conditions
    )


def _compare(program: list[Row], number: int, token: int, args: tuple[int, ...], wanted: int, arch: str) -> None:
    found = answer(program, data(number, token, args))
    if found != wanted:
        told = f"{number} on {arch} with {', '.join(map(hex, args)) or 'any arguments'}"
        raise SpecError(f"seccomp: the program answers {told} by {found:#x}, the rules {wanted:#x}: not loaded")
