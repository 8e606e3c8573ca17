"""The two filters: they decide the same, and the tree walks a short way."""

from __future__ import annotations

import struct

import pytest

from bench.lifecycle import bpf

NUMBERS = [*range(600), 1 << 30, 0xFFFFFFFF]  # x32's bit and the greatest one are numbers too


def test_the_straight_one_has_300_instructions_and_walks_them_all() -> None:
    program = bpf.straight()
    assert len(program) == 300 * 8
    assert {bpf.walk(program, number) for number in NUMBERS} == {(bpf.ALLOW, 300)}


def test_the_tree_allows_the_same_by_a_short_way() -> None:
    walks = [bpf.walk(bpf.tree(), number) for number in NUMBERS]
    assert {verdict for verdict, _ in walks} == {bpf.ALLOW}
    assert max(length for _, length in walks) <= 16


def test_the_tree_compares_every_number_of_the_straight_one() -> None:
    def compared(program: bytes) -> set[int]:
        return {k for code, _, _, k in struct.iter_unpack("=HBBI", program) if code == bpf.JUMP_EQUAL}

    assert compared(bpf.tree()) == compared(bpf.straight()) == set(range(298))


@pytest.mark.parametrize("instructions", [2, 3, 7, 50, 300, 2000])
def test_every_size_is_a_sound_program(instructions: int) -> None:
    """Every jump stays inside, forwards; the kernel refuses anything else (seccomp_check_filter)."""
    for program in (bpf.straight(instructions), bpf.tree(instructions)):
        code = list(struct.iter_unpack("=HBBI", program))
        for place, (operation, if_true, if_false, k) in enumerate(code):
            farthest = k if operation == bpf.JUMP else max(if_true, if_false)
            assert operation == bpf.RETURN or place + 1 + farthest < len(code)
        assert code[-1][0] == bpf.RETURN


def test_wrong_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 instructions"):
        bpf.straight(1)
    with pytest.raises(ValueError, match="no tree of"):
        bpf.tree(300, leaf=0)


def test_the_bytes_are_sock_filters() -> None:
    # struct sock_filter { __u16 code; __u8 jt; __u8 jf; __u32 k; }
    assert bpf.encode([(0x15, 1, 2, 3)]) == struct.pack("=HBBI", 0x15, 1, 2, 3)
