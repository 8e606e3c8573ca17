"""The filter of disable_userns, by what it answers: every architecture it knows, and the calls beside it."""

from __future__ import annotations

from importlib import import_module

import pytest

from minictr.bpf import answer, data
from minictr.plan import plan
from minictr.spec import Spec
from minictr.steps import EXEC, LOCK

f = import_module("minictr.features")
users = import_module("minictr.features.disable_userns")

NEWUSER, NEWNS, SIGCHLD = 0x10000000, 0x20000, 17
ALLOW, EPERM, ENOSYS = 0x7FFF0000, 0x00050001, 0x00050026
MAPS = ((0, 100000, 65536),)


@pytest.mark.parametrize("arch", users.CALLS)
def test_no_way_to_a_user_namespace(arch: int) -> None:
    clone, unshare = users.CALLS[arch]
    program = users.no_user_namespaces()
    for number in (clone, unshare):
        assert answer(program, data(number, arch, (NEWUSER,))) == EPERM
        assert answer(program, data(number, arch, (NEWUSER | NEWNS | SIGCHLD,))) == EPERM
        assert answer(program, data(number, arch, (NEWNS | SIGCHLD,))) == ALLOW
    assert answer(program, data(users.CLONE3, arch, (1, 88))) == ENOSYS
    others = set(range(500)) - {clone, unshare, users.CLONE3}
    assert all(answer(program, data(number, arch, (NEWUSER,))) == ALLOW for number in others)
    assert answer(program, data(0x40000000 | unshare, arch, (NEWUSER,))) == ENOSYS


def test_an_unknown_architecture_can_do_nothing() -> None:
    assert answer(users.no_user_namespaces(), data(1, 0x80000016)) == ENOSYS


def test_which_way_it_is_done() -> None:
    box = Spec(("true",), (*f.DEFAULT, f.DisableUserns()), "/srv/root")
    mine = [step for step in plan(box) if step.feature == "disable_userns"]
    assert [(step.call, step.phase) for step in mine] == [("seccomp", EXEC)]
    mine = [step for step in plan(box.without("no_new_privs")) if step.feature == "disable_userns"]
    assert [(step.call, step.phase) for step in mine] == [("seccomp", LOCK)]
    calls = [step.call for step in plan(box.with_(f.UserNamespace(MAPS, MAPS))) if step.feature == "disable_userns"]
    assert calls == ["write_file", "verify_no_userns"]
    assert not [step for step in plan(box.without("disable_userns")) if step.feature == "disable_userns"]


def test_before_the_programs_own_filter() -> None:
    box = Spec(("true",), (*f.DEFAULT, f.DisableUserns()), "/srv/root")
    for spec in (box, box.without("no_new_privs")):
        assert [step.feature for step in plan(spec) if step.call == "seccomp"] == ["disable_userns", "seccomp"]
