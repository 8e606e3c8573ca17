"""A seccomp filter's rules as a BPF program: numbers by libseccomp, arguments by this module, and what comes out is
compared with the rules before anybody may load it.

libseccomp knows which number a name is on which architecture. Rules with conditions are not given to it: it has them
without order (a rule without conditions swallows the others, of two that overlap either may answer), refuses exceptions
on socketcall, and 2.5.4 does not come back from some. So each system call gets an answer of its own from it, a
placeholder. Its program, which has a leaf for each number, is read out and said again as a search among ranges of
numbers, half as long and half the time to load; in the placeholders' places stands what was meant: a return, or a jump
to the comparisons of the call's arguments, which follow at the end.
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

TREE_FROM = 16  # system calls: from then on libseccomp makes a tree, which is read out sooner
MULTIPLEXED = ("socketcall", "ipc")  # on 32 bits libseccomp writes rules for these on its own, unless they have some
BPF_MAXINSNS = 4096  # linux/bpf_common.h
INSTRUCTION = struct.Struct("=HBBI")  # struct sock_filter
LOW, HIGH = (16, 20) if INSTRUCTION.pack(1, 0, 0, 0)[0] else (20, 16)  # of args[0] in struct seccomp_data
WORD = (1 << 64) - 1
# linux/bpf_common.h: BPF_LD|BPF_W|BPF_ABS, BPF_ALU|BPF_AND|BPF_K, BPF_JMP|..., BPF_RET|BPF_K
LOAD, AND, JUMP, EQUAL, GREATER, NOT_LESS, RETURN = 0x20, 0x54, 0x05, 0x15, 0x25, 0x35, 0x06
NO_ARCH = 0x7FFFFFFF  # of no machine
NEWER = 0x7FF0FFFF  # the placeholder of what is beyond libseccomp's numbers
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
    program = finished(searched(made, arches, newer), answers, newer)
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


def table(program: bytes, arch: str) -> list[tuple[int, int]]:
    """What PROGRAM, libseccomp's, answers the numbers of an architecture: (first number, answer), ascending; each holds
    up to the next. x86_64's with those of x32, which are its own and a bit."""
    numbers = {0, *range(library.newest(arch) + 2), *(n + more for n in library.table(arch) for more in (0, 1))}
    if arch == "x86_64":
        bit = library.X32_BIT
        numbers |= {bit, *range(bit, bit + library.newest("x32") + 2), 0xFFFFFFFF}  # -1: a tracer skipped the call
    rows = instructions(program)
    found: list[tuple[int, int]] = []
    for number in sorted(numbers):
        ret = answer(rows, data(number, library.arch_token(arch)))
        if not found or found[-1][1] != ret:
            found.append((number, ret))
    return found


def tree(ranges: list[tuple[int, int]]) -> list[Row]:
    """A search among RANGES, with the number in the accumulator; leaves are returns of what they answer."""
    if len(ranges) == 1:
        return [(RETURN, 0, 0, ranges[0][1])]
    middle = len(ranges) // 2
    below, above = tree(ranges[:middle]), tree(ranges[middle:])
    if len(below) < 256:
        return [(NOT_LESS, len(below), 0, ranges[middle][0]), *below, *above]
    return [(NOT_LESS, 0, 1, ranges[middle][0]), (JUMP, 0, 0, len(below)), *below, *above]


def searched(program: bytes, arches: tuple[str, ...], newer: int) -> list[Row]:
    """What PROGRAM answers, said shorter: a search among ranges for each architecture, -1 for what NEWER is for."""
    rows: list[Row] = [(LOAD, 0, 0, 4)]
    foreign = answer(instructions(program), data(0, NO_ARCH))
    for arch in arches:
        if arch == "x32":
            continue
        ranges = table(program, arch)
        if newer >= 0:
            ranges = with_newer(ranges, library.newest(arch) + 1)
        part = [(LOAD, 0, 0, 0), *tree(ranges)]
        rows += [(EQUAL, 1, 0, library.arch_token(arch)), (JUMP, 0, 0, len(part)), *part]
    return [*rows, (RETURN, 0, 0, foreign)]


def with_newer(ranges: list[tuple[int, int]], first: int) -> list[tuple[int, int]]:
    """RANGES with another answer from FIRST up to the numbers of x32, or to arm's own.

    runc does so with ENOSYS: a program that is told EPERM for a call of a newer kernel does not try the older one.
    """
    after = [row for row in ranges if row[0] > first]
    if not after:
        after = [(library.X32_BIT, next(ret for number, ret in reversed(ranges) if number <= first))]
    return [*(row for row in ranges if row[0] < first), (first, NEWER), *after]


def finished(rows: list[Row], answers: list[Call], newer: int) -> bytes:
    """ROWS with what was meant in the place of the placeholders."""
    tail: list[Row] = []
    begins: dict[int, int] = {}
    rows = [*rows]
    for place, (code, _, _, k) in enumerate(rows):
        if code != RETURN:
            continue
        if k == NEWER:
            rows[place] = (RETURN, 0, 0, newer)
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
        for number in {*range(bit, newest + 8), *names, *(() if bit else (library.X32_BIT - 1,))}:
            cases, final = calls.get(names.get(number, ""), ((), default))
            if newer >= 0 and not bit and number > newest and number not in names:
                cases, final = (), newer
            for args in samples(cases):
                wanted = next((ret for conditions, ret in cases if holds(conditions, args)), final)
                _compare(made, number, token, args, wanted, arch)
    if "x32" not in arches and "x86_64" in arches:
        for number in (library.X32_BIT, library.X32_BIT | 1, library.X32_BIT | 59):
            _compare(made, number, library.arch_token("x86_64"), (), bad_arch, "x32")
    _compare(made, 1, NO_ARCH, (), bad_arch, "an unknown architecture")


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
