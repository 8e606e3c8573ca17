"""The interpreter of classic BPF: what the kernel's documentation says of each instruction."""

from __future__ import annotations

import struct

import pytest

from minictr.bpf import answer, data, instructions
from minictr.errors import SpecError


def program(*rows: tuple[int, int, int, int]) -> bytes:
    return b"".join(struct.pack("=HBBI", *row) for row in rows)


CALL = data(0xFFFFFFFF, 0xC000003E, (1 << 40 | 7, 2, 3, 4, 5, 6))
RETURN_A = (0x16, 0, 0, 0)


@pytest.mark.parametrize(
    ("rows", "wanted"),
    [
        ([(0x06, 0, 0, 5)], 5),
        ([(0x20, 0, 0, 0), RETURN_A], 0xFFFFFFFF),
        ([(0x20, 0, 0, 4), RETURN_A], 0xC000003E),
        ([(0x20, 0, 0, 16), RETURN_A], 7),
        ([(0x20, 0, 0, 20), RETURN_A], 1 << 8),
        ([(0x00, 0, 0, 9), (0x54, 0, 0, 3), RETURN_A], 1),
        ([(0x00, 0, 0, 1), (0x14, 0, 0, 2), RETURN_A], 0xFFFFFFFF),
        ([(0x00, 0, 0, 8), (0x02, 0, 0, 3), (0x01, 0, 0, 5), (0x60, 0, 0, 3), (0x0C, 0, 0, 0), RETURN_A], 13),
        ([(0x00, 0, 0, 8), (0x07, 0, 0, 0), (0x00, 0, 0, 1), (0x87, 0, 0, 0), RETURN_A], 8),
        ([(0x80, 0, 0, 0), RETURN_A], 64),
        ([(0x05, 0, 0, 1), (0x06, 0, 0, 1), (0x06, 0, 0, 2)], 2),
        ([(0x00, 0, 0, 5), (0x15, 0, 1, 5), (0x06, 0, 0, 1), (0x06, 0, 0, 2)], 1),
        ([(0x00, 0, 0, 5), (0x25, 0, 1, 5), (0x06, 0, 0, 1), (0x06, 0, 0, 2)], 2),
        ([(0x00, 0, 0, 5), (0x35, 0, 1, 5), (0x06, 0, 0, 1), (0x06, 0, 0, 2)], 1),
        ([(0x00, 0, 0, 5), (0x45, 0, 1, 2), (0x06, 0, 0, 1), (0x06, 0, 0, 2)], 2),
    ],
)
def test_an_answer(rows, wanted):
    made = program(*rows)
    assert answer(made, CALL) == answer(instructions(made), CALL) == wanted


@pytest.mark.parametrize("rows", [[(0x00, 0, 0, 1)], [(0x20, 0, 0, 64), RETURN_A], [(0x20, 0, 0, 2), RETURN_A], []])
def test_what_is_no_program(rows):
    with pytest.raises(SpecError, match="seccomp: the program"):
        answer(program(*rows), CALL)
