"""Two seccomp programs that decide the same and cost differently to load.

Both look every system call number of a fixed list up and allow everything, so that they change nothing but the time:

``straight``  300 instructions in one line, walked to the end whatever the number is (the worst a linear policy does)
``tree``      the same comparisons as leaves of a balanced binary search: nine decisions for any number

Since Linux 5.11 the kernel *emulates* a filter once for every system call number while it loads it, to learn which
numbers are allowed whatever their arguments (``seccomp_cache_prepare`` in kernel/seccomp.c). So the length of the path
through the filter is paid some 900 times at load (native and compat numbers), and no longer at the call.
"""

from __future__ import annotations

import struct

# linux/bpf_common.h, linux/seccomp.h
LOAD_WORD = 0x20  # BPF_LD | BPF_W | BPF_ABS
JUMP = 0x05  # BPF_JMP | BPF_JA
JUMP_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
JUMP_NOT_LESS = 0x35  # BPF_JMP | BPF_JGE | BPF_K
RETURN = 0x06  # BPF_RET | BPF_K
ALLOW = 0x7FFF0000  # SECCOMP_RET_ALLOW
NUMBER_OFFSET = 0  # offsetof(struct seccomp_data, nr)
FARTHEST = 255  # jt and jf are bytes

INSTRUCTIONS = 300  # of the straight program: load, 298 comparisons, return
LEAF = 4  # comparisons in a leaf of the tree, as libseccomp groups them

Instruction = tuple[int, int, int, int]  # code, jt, jf, k of struct sock_filter


def encode(program: list[Instruction]) -> bytes:
    """The bytes of an array of ``struct sock_filter``."""
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def straight(instructions: int = INSTRUCTIONS) -> bytes:
    """One line of comparisons: every system call walks all of it."""
    if instructions < 2:
        raise ValueError(f"a filter needs at least 2 instructions, not {instructions}")
    compare = [(JUMP_EQUAL, 0, 0, number) for number in range(instructions - 2)]
    return encode([(LOAD_WORD, 0, 0, NUMBER_OFFSET), *compare, (RETURN, 0, 0, ALLOW)])


def tree(instructions: int = INSTRUCTIONS, leaf: int = LEAF) -> bytes:
    """The comparisons of ``straight(instructions)`` as a balanced binary search."""
    if instructions < 2 or leaf < 1:
        raise ValueError(f"no tree of {instructions} instructions with {leaf} in a leaf")
    return encode([(LOAD_WORD, 0, 0, NUMBER_OFFSET), *_subtree(list(range(instructions - 2)), leaf)])


def _subtree(numbers: list[int], leaf: int) -> list[Instruction]:
    if len(numbers) <= leaf:
        return [*((JUMP_EQUAL, 0, 0, number) for number in numbers), (RETURN, 0, 0, ALLOW)]
    middle = len(numbers) // 2
    low, high = _subtree(numbers[:middle], leaf), _subtree(numbers[middle:], leaf)
    if len(low) <= FARTHEST:
        return [(JUMP_NOT_LESS, len(low), 0, numbers[middle]), *low, *high]
    return [(JUMP_NOT_LESS, 0, 1, numbers[middle]), (JUMP, 0, 0, len(low)), *low, *high]


def walk(program: bytes, number: int) -> tuple[int, int]:
    """Run PROGRAM on a system call number: its verdict and how many instructions that took. What the kernel does."""
    code = list(struct.iter_unpack("=HBBI", program))
    accumulator = at = taken = 0
    while True:
        operation, if_true, if_false, k = code[at]
        taken += 1
        at += 1
        if operation == LOAD_WORD:
            accumulator = number
        elif operation == RETURN:
            return k, taken
        elif operation == JUMP:
            at += k
        else:
            true = accumulator == k if operation == JUMP_EQUAL else accumulator >= k
            at += if_true if true else if_false
