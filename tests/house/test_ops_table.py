"""The op table of Python and the enum of C are one table: the same names, the same order, each interpreted."""

from __future__ import annotations

import re

import pytest
import sources

from minictr.kernel import ops

SIGNATURES = ops.SIGNATURES
CORE = sources.ROOT / "minictr" / "_core"
TYPES = set(re.findall(r"^([a-z])     ", ops.__doc__ or "", re.MULTILINE))  # the rows of its table


def enumerators() -> list[str]:
    """The calls in the order of C's enum, in lower case."""
    text = re.sub(r"/\*.*?\*/|//[^\n]*", "", (CORE / "core.h").read_text(), flags=re.DOTALL)
    bodies = [body for body in re.findall(r"enum\s*\w*\s*\{(.*?)\}", text, re.DOTALL) if "MC_OP_" in body]
    assert len(bodies) == 1, "core.h should hold one enum of MC_OP_*"
    entries = [entry.strip() for entry in bodies[0].split(",") if entry.strip()]
    assert not any("=" in entry for entry in entries[1:]), "an enumerator with a value of its own breaks the order"
    return [entry.partition("=")[0].strip().removeprefix("MC_OP_").lower() for entry in entries]


def test_the_enum_is_the_table() -> None:
    found = enumerators()
    if found and found[-1] in ("count", "max", "end"):
        found.pop()
    assert found == list(SIGNATURES)


@pytest.mark.parametrize("call", SIGNATURES)
def test_the_interpreter_has_a_case(call: str) -> None:
    """A row of the interpreter's table, ``X(CALL, call)``, and the function it names."""
    row = re.compile(rf"\bX\({call.upper()}, {call}\)")
    function = re.compile(rf"^(?:long|_Noreturn|static|\s)* ?mc_op_{call}\(struct mc_machine \*", re.MULTILINE)
    core = [path.read_text() for path in sources.files(".c", under=("minictr/_core",))]
    assert sum(len(row.findall(text)) for text in core) == 1
    assert sum(len(function.findall(text)) for text in core) >= 1  # `init` and `exec` differ in the extension module


@pytest.mark.parametrize("call", SIGNATURES)
def test_a_signature_is_well_formed(call: str) -> None:
    names = []
    for parameter in SIGNATURES[call]:
        name, colon, kind = parameter.partition(":")
        assert name.isidentifier(), parameter
        assert colon, parameter
        assert kind in TYPES, parameter
        names.append(name)
    assert len(names) == len(set(names)), "a parameter stands twice"
