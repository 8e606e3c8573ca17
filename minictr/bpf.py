"""Classic BPF as seccomp has it: what a program answers, worked out without the kernel. Pure.

Only what the kernel itself lets a seccomp program hold (``seccomp_check_filter`` in kernel/seccomp.c): loads of words
of ``struct seccomp_data``, arithmetic, jumps forward, returns.
"""

from __future__ import annotations

import struct

from minictr.errors import SpecError

__all__ = ["DATA", "answer", "data", "instructions"]

DATA = struct.Struct("=iIQ6Q")  # struct seccomp_data, linux/seccomp.h: nr, arch, instruction pointer, args
_INSTRUCTION = struct.Struct("=HBBI")  # struct sock_filter, linux/filter.h
_WORD = (1 << 32) - 1

# linux/bpf_common.h: the class of an instruction, and where its operand comes from
LD, LDX, ST, STX, ALU, JMP, RET, MISC = range(8)
ABS, IMM, MEM, LEN = 0x20, 0x00, 0x60, 0x80


def data(number: int, arch: int, args: tuple[int, ...] = ()) -> bytes:
    """The ``struct seccomp_data`` of a system call."""
    filled = (*args, *(0,) * (6 - len(args)))
    return DATA.pack(number - (1 << 32) if number >> 31 else number, arch, 0, *(arg % (1 << 64) for arg in filled))


Row = tuple[int, int, int, int]  # code, jump if true, jump if false, operand


def instructions(program: bytes) -> list[Row]:
    """PROGRAM taken apart, for many an :func:`answer`."""
    return list(_INSTRUCTION.iter_unpack(program))


def answer(program: bytes | list[Row], call: bytes) -> int:
    """SECCOMP_RET_* and its data, as PROGRAM (or its instructions) answers CALL (:func:`data`). SpecError where the
    kernel would refuse it."""
    accumulator = index = place = 0
    memory = [0] * 16
    whole = isinstance(program, bytes)
    length = len(program) // _INSTRUCTION.size if whole else len(program)
    while place < length:
        code, yes, no, k = _INSTRUCTION.unpack_from(program, place * 8) if whole else program[place]  # type: ignore
        place += 1
        kind = code & 0x07
        if kind == RET:
            return accumulator if code & 0x18 == 0x10 else k
        if kind == JMP:
            place += _jump(code, accumulator, index if code & 0x08 else k, k, yes, no)
        elif kind in (LD, LDX):
            value = _load(code & 0xE0, k, call, memory)
            accumulator, index = (value, index) if kind == LD else (accumulator, value)
        elif kind in (ST, STX):
            memory[k & 15] = accumulator if kind == ST else index
        elif kind == ALU:
            accumulator = _compute(code & 0xF0, accumulator, index if code & 0x08 else k)
        else:
            accumulator, index = (index, index) if code & 0x80 else (accumulator, accumulator)
    raise SpecError("seccomp: the program ends without a return")


def _jump(code: int, accumulator: int, operand: int, k: int, yes: int, no: int) -> int:
    kind = code & 0xF0
    if kind == 0x00:
        return k
    met = {
        0x10: accumulator == operand,
        0x20: accumulator > operand,
        0x30: accumulator >= operand,
        0x40: bool(accumulator & operand),
    }
    return yes if met[kind] else no


def _load(mode: int, k: int, call: bytes, memory: list[int]) -> int:
    if mode == ABS:
        if k % 4 or k + 4 > len(call):
            raise SpecError(f"seccomp: the program loads from {k}, which is no word of the system call")
        return int.from_bytes(call[k : k + 4], "little" if _LITTLE else "big")
    if mode == LEN:
        return len(call)
    return memory[k & 15] if mode == MEM else k


def _compute(kind: int, left: int, right: int) -> int:
    if kind == 0x30:
        return left // right if right else 0
    values = {
        0x00: left + right,
        0x10: left - right,
        0x20: left * right,
        0x40: left | right,
        0x50: left & right,
        0x60: left << (right & 31),
        0x70: left >> (right & 31),
        0x80: -left,
        0xA0: left ^ right,
    }
    return values[kind] & _WORD


_LITTLE = struct.pack("=H", 1) == b"\x01\x00"
