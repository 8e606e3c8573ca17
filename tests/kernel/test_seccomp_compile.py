"""What the compiler makes, against ``explain``: every number of every architecture."""

from __future__ import annotations

import os
import random
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minictr as mc
from minictr.bpf import answer, data, instructions
from minictr.errors import SpecError
from minictr.kernel import seccomp, seccomp_compile, seccomp_library
from minictr.kernel.capabilities import no_new_privs

pytestmark = pytest.mark.skipif(os.uname().machine != "x86_64", reason="names of x86_64")

ALL = ("x86_64", "x86", "x32")
FILTERS = {
    "docker": mc.SeccompFilter.docker(kernel=(6, 1)),
    "default": mc.SeccompFilter.default(kernel=(6, 1)),
    "docker with all capabilities": mc.SeccompFilter.docker(caps=("SYS_ADMIN", "SYS_PTRACE", "BPF"), kernel=(4, 1)),
    "lxc": mc.SeccompFilter.lxc(),
    "strict": mc.SeccompFilter.strict(),
    "nothing": mc.SeccompFilter("allow"),
    "x86 alone": mc.SeccompFilter("log", arches=("x86",), bad_arch="trap").kill("mkdir"),
    "exceptions": mc.SeccompFilter("errno", arches=ALL)
    .allow("socketcall", "ipc", "socket", "shmget", "read")
    .deny("socketcall", errno="ENOSYS", when=(0, "==", 1))
    .deny("ipc", errno="EXDEV", when=[(0, ">=", 21), (0, "<=", 24)])
    .kill("read", when=[(2, ">", 1 << 32), (0, "!=", 3)])
    .deny("socket", errno="EACCES", when=(0, "&", 0xF0, 0x20)),
}
ARGUMENTS = [(), (1,), (2, 1), (38, 5), (40,), (0x20, 1, 1 << 33), (3, 0, 1 << 33), (22,), (0x10000011,), (0xFFFFFFFF,)]
TOKENS = {"x86_64": 0xC000003E, "x86": 0x40000003, "x32": 0xC000003E, "aarch64": 0xC00000B7}


@pytest.mark.parametrize("name", FILTERS)
def test_every_number_is_as_explained(name: str) -> None:
    flt = FILTERS[name]
    rows = instructions(flt.program)
    for arch, token in TOKENS.items():
        bit = 0x40000000 if arch == "x32" else 0
        for number in range(bit, bit + 700):
            for args in ARGUMENTS:
                padded = (*args, *(0,) * (6 - len(args)))
                verdict = flt.explain(number, *padded, arch=arch)
                assert verdict.action is not None
                found = answer(rows, data(number, token, padded))
                assert found == verdict.action.ret, (str(verdict), hex(found))


def test_the_kernel_takes_them_all(in_child: Any) -> None:
    for name, flt in FILTERS.items():
        if name in ("x86 alone", "strict", "exceptions"):
            continue  # this interpreter would not survive them
        program = flt.program

        def body(program: bytes = program) -> tuple[int, int]:
            no_new_privs()
            seccomp.load(program)
            return seccomp.mode()

        assert in_child(body) == (2, 1), name


OPERATORS = st.sampled_from(["==", "!=", "<", "<=", ">", ">="])
NUMBERS = st.sampled_from([0, 1, 2, 3, 0xFFFFFFFF, 1 << 32, (1 << 32) + 1, (1 << 63), (1 << 64) - 1]) | st.integers(
    0, 9
)
COMPARED = st.tuples(st.integers(0, 2), OPERATORS, NUMBERS)
MASKED = st.tuples(st.integers(0, 2), NUMBERS, NUMBERS).map(lambda row: (row[0], "&", row[1], row[2] & row[1]))
RULES = st.lists(
    st.tuples(
        st.lists(st.sampled_from("read socket socketcall ipc mkdir recvmmsg".split()), min_size=1, max_size=3),
        st.sampled_from(["allow", "deny", "kill", "log", "trap"]),
        st.lists(COMPARED | MASKED, max_size=3),
    ),
    max_size=6,
)


@settings(max_examples=60, deadline=None)
@given(RULES, st.sampled_from(["allow", "errno", "kill_process"]), st.randoms(use_true_random=False))
def test_any_rules(rules: Any, otherwise: str, chance: random.Random) -> None:
    """The compiler proves what it makes; here it is asked again, by another way, with arguments of no plan."""
    flt = mc.SeccompFilter(otherwise, arches=ALL)
    for names, verb, when in rules:
        flt = getattr(flt, verb)(*names, when=when)
    rows = instructions(seccomp_compile.compile_filter(flt.plain()))
    values = [0, 1, 2, 3, 4, 9, 1 << 32, (1 << 32) + 1, 0xFFFFFFFF, (1 << 63) + 1, (1 << 64) - 1]
    for arch in ALL:
        for name in "read socket socketcall ipc mkdir recvmmsg".split():
            number = seccomp_library.number_of(name, arch)
            if number is None:
                continue
            for _ in range(20):
                args = tuple(chance.choice(values) for _ in range(6))
                verdict = flt.explain(name, *args, arch=arch)
                assert verdict.action is not None
                assert answer(rows, data(number, TOKENS[arch], args)) == verdict.action.ret, str(verdict)


def test_a_program_that_says_something_else_is_not_given_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proof fails when libseccomp, here in its place somebody else, answers wrongly."""
    real = seccomp_library.build

    def wrong(*args: Any, **options: Any) -> bytes:
        default, bad_arch, arches, rules = args
        return real(default, bad_arch, arches, [row for row in rules if row[0] != "mkdir"], **options)

    monkeypatch.setattr(seccomp_library, "build", wrong)
    with pytest.raises(SpecError, match=r"the program answers 83 on x86_64 .* not loaded"):
        seccomp_compile.compile_filter(mc.SeccompFilter("allow").deny("mkdir").plain())


def test_many_rules_are_a_tree() -> None:
    """The way to any number is short, or loading would take the kernel's time (docs/features/seccomp.md)."""
    program = FILTERS["docker"].program
    rows = [struct.unpack_from("=HBBI", program, place) for place in range(0, len(program), 8)]
    longest = 0
    for number in {*range(460)} - {41, 56, 135}:  # socket, clone and personality have comparisons
        steps, place = 0, 0
        while rows[place][0] & 7 != 6:
            code, yes, no, k = rows[place]
            steps += 1
            place += 1
            if code == 0x20:
                value = {0: number, 4: TOKENS["x86_64"]}.get(k, 0)
            elif code == 0x05:
                place += k
            elif code & 7 == 5:
                met = {0x15: value == k, 0x25: value > k, 0x35: value >= k}[code]
                place += yes if met else no
        longest = max(longest, steps)
    assert longest < 20


def test_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    flt = mc.SeccompFilter("errno")
    for value in range(1100):
        flt = flt.allow("ioctl", when=(1, "==", value))
    with pytest.raises(SpecError, match="instructions, the kernel takes 4096"):
        seccomp_compile.compile_filter(flt.plain())
