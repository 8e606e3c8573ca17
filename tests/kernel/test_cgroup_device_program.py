"""The BPF program of a v2 group: against a model for any rules, and against the kernel."""

from __future__ import annotations

import os
import struct
from typing import Any

import pytest
from cgrouptools import outcome
from hypothesis import given
from hypothesis import strategies as st
from test_cgroup_limits import DEVICES, TRY

from minictr.errors import MinictrError, SpecError, StepFailed, Unsupported
from minictr.kernel import cgroup1, device_program

Rule = tuple[bool, str, int, int, str]
NUMBERS = st.sampled_from([-1, 0, 1, 2, 7])
ACCESS = st.sampled_from(["r", "w", "m", "rw", "rm", "wm", "rwm"])
RULES = st.lists(st.tuples(st.booleans(), st.sampled_from("abc"), NUMBERS, NUMBERS, ACCESS), max_size=6)
ASKED = st.tuples(st.sampled_from("bc"), st.integers(0, 2), st.integers(0, 2), ACCESS)


def expected(rules: list[Rule], kind: str, major: int, minor: int, access: str) -> bool:
    """For each letter the last rule that matches; none is a denial."""

    def one(letter: str) -> bool:
        for allow, of_kind, of_major, of_minor, of_access in reversed(rules):
            if of_kind in ("a", kind) and of_major in (-1, major) and of_minor in (-1, minor) and letter in of_access:
                return allow
        return False

    return all(map(one, access))


def emulate(program: bytes, kind: str, major: int, minor: int, access: str) -> int:
    """Run it as the kernel would: the few instructions it is made of."""
    bits = sum(device_program.ACCESS[letter] for letter in access)
    context = {0: bits << 16 | device_program.KINDS[kind], 4: major, 8: minor}
    rows = [struct.unpack_from("=BBhi", program, at) for at in range(0, len(program), 8)]
    registers, place = {1: 0}, 0
    while True:
        code, sides, offset, number = rows[place]
        left, right, place = sides & 15, sides >> 4, place + 1
        if code == device_program.EXIT:
            return registers[0]
        if code == device_program.LOAD_WORD:
            registers[left] = context[offset]
        elif code == device_program.MOVE:
            registers[left] = number
        elif code == device_program.MOVE_REGISTER:
            registers[left] = registers[right]
        elif code == device_program.SHIFT_RIGHT:
            registers[left] >>= number
        elif code == device_program.AND:
            registers[left] &= number
        elif code == device_program.JUMP:
            place += offset
        elif code == device_program.JUMP_IF_NOT:
            place += offset if registers[left] != number else 0
        else:
            assert code == device_program.JUMP_IF_BITS
            place += offset if registers[left] & number else 0


@given(RULES, ASKED)
def test_the_program_means_the_rules(rules: list[Rule], asked: Any) -> None:
    assert emulate(device_program.compile_rules(rules), *asked) == int(expected(rules, *asked))


@given(RULES, ASKED)
def test_the_list_of_v1_means_the_same_or_is_refused(rules: list[Rule], asked: Any) -> None:
    """Fail closed: what the kernel's list cannot say is never written."""
    try:
        default, exceptions = cgroup1.device_list(rules)
    except Unsupported:
        return
    kind, major, minor, access = asked
    hits = [
        have
        for (of_kind, of_major, of_minor), have in exceptions.items()
        if of_kind == kind and of_major in (-1, major) and of_minor in (-1, minor)
    ]
    # security/device_cgroup.c: an exception from "deny all" must hold all that is asked for, one from "allow all" any
    if default:
        assert all(set(have).isdisjoint(access) for have in hits) == expected(rules, *asked)
    elif any(set(access) <= set(have) for have in hits):
        assert expected(rules, *asked)


@pytest.mark.parametrize(
    "rule", [(True, "x", 1, 1, "r"), (True, "c", 1, 1, ""), (True, "c", 1, 1, "q"), (True, "c", -2, 1, "r")]
)
def test_what_is_no_rule(rule: Rule) -> None:
    with pytest.raises(SpecError, match="devices: "):
        device_program.compile_rules([rule])


def test_a_child_cannot_open_what_is_denied(group: Any) -> None:
    """On any v2 group, on a hybrid host as well; on and off."""
    place = group("unified")
    try:
        device_program.replace(place.directory, DEVICES)
    except MinictrError as err:
        if "EINVAL" in str(err) or "ENOSYS" in str(err):
            pytest.skip(f"this kernel has no device programs: {err}")
        raise
    assert outcome(TRY, place) == (0, "yes yes 1 1 ")
    first = device_program.attached(place.directory)
    assert len(first) == 1
    device_program.replace(place.directory, [(True, "a", -1, -1, "rwm"), (False, "c", 1, 7, "r")])
    assert outcome(TRY, place) == (0, "yes yes yes 1 ")
    assert len(device_program.attached(place.directory)) == 1 and device_program.attached(place.directory) != first
    inner = group("unified", "inner")
    device_program.replace(inner.directory, [(True, "a", -1, -1, "rwm")])
    assert outcome(TRY, inner) == (0, "yes yes yes 1 "), "those above are asked as well"


def test_programs_add_up(group: Any) -> None:
    place = group("unified")
    programs = []
    try:
        for number in (3, 5):
            rules = [(True, "a", -1, -1, "rwm"), (False, "c", 1, number, "rw")]
            programs.append(device_program.load(device_program.compile_rules(rules)))
            device_program.attach(place.directory, programs[-1])
        assert outcome(TRY, place) == (0, "1 1 1 yes ")
        device_program.detach(place.directory, programs[0])
        assert outcome(TRY, place) == (0, "yes 1 1 yes ")
        with pytest.raises(StepFailed, match="detach a device program from .*: ENOENT"):
            device_program.detach(place.directory, programs[0])
    except StepFailed as err:
        if err.errno in (22, 38):
            pytest.skip(f"this kernel has no device programs: {err}")
        raise
    finally:
        for program in programs:
            os.close(program)


def test_it_needs_privilege(as_nobody: Any) -> None:
    def body() -> str:
        with pytest.raises(StepFailed) as caught:
            device_program.load(device_program.compile_rules([]))
        return str(caught.value)

    words = as_nobody(body)
    assert "ENOSYS" in words or "CAP_SYS_ADMIN" in words


def test_a_directory_that_is_none(group: Any, tmp_path: Any) -> None:
    group("unified")
    with pytest.raises(StepFailed, match="bpf: query the device programs of|ENOSYS"):
        device_program.attached(str(tmp_path))
