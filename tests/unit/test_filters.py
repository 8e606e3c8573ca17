"""``SeccompFilter`` as a value: what it says, how it is told, compared and refused."""

from __future__ import annotations

import pytest

import minictr as mc
from minictr.errors import SpecError
from minictr.features.filter_parts import ALLOW, Action, Condition, Rule

BASE = mc.SeccompFilter("allow", arches=("x86_64", "x86"))


def test_builders_return_new_values():
    built = BASE.deny("mkdir").kill("reboot").log("open").trap("bpf", number=3).trace("ptrace", number=4).allow("read")
    assert BASE.rules == ()
    told = [str(rule.action) for rule in built.rules]
    assert told == ["errno EPERM", "kill_process", "log", "trap 3", "trace 4", "allow"]
    assert str(BASE.kill("reboot", thread=True).rules[0].action) == "kill_thread"
    assert BASE.deny("mkdir", errno="EACCES") == BASE.deny("mkdir", errno=13) != BASE.deny("mkdir")


def test_notify():
    flt = BASE.deny("mkdir").notify("mkdir", when=(1, "==", 0o777)).notify("mknod")
    assert flt.notifies
    assert not BASE.deny("mkdir").notifies
    assert all(mc.SeccompFilter(**{"otherwise": "allow", field: "notify"}).notifies for field in ("newer", "bad_arch"))
    assert str(flt.explain("mknod")) == "mknod on x86_64: notify, by rule 3 (notify)"
    assert str(flt.explain("mkdir")) == "mkdir on x86_64: notify if arg1 == 511; errno EPERM otherwise"
    assert "  3 notify\n    mknod\n" in flt.dump() + "\n"
    assert str(BASE.diff(BASE.notify("mknod"))) == "mknod: allow -> notify"
    assert BASE.log("mknod") != BASE.notify("mknod") != BASE
    # the kernel's own words, linux/seccomp.h; it ranks below errno and above trace
    assert Action("notify").ret == 0x7FC00000
    assert Action.of(0x7FC00005) == Action("notify")


def test_whether_a_program_notifies():
    """By the program itself, where there is no filter to ask: of what is written down, and of what others compiled."""
    for notifies in (BASE.notify("mknod"), BASE.notify("socket", when=(0, "==", 38)), mc.SeccompFilter("notify")):
        assert mc.Seccomp(notifies).notifies
        assert mc.Seccomp(notifies.program).notifies
    in_a_number = BASE.deny("socket", when=(0, "==", 0x7FC00000))
    for silent in (BASE.deny("mknod"), in_a_number, mc.SeccompFilter.default()):
        assert not mc.Seccomp(silent).notifies
        assert not mc.Seccomp(silent.program).notifies
    assert b"\xc0\x7f" in in_a_number.program
    assert not mc.Seccomp("default").notifies
    assert not mc.Seccomp(b"\x06\x00\x00\x00\x00\x00\xff\x7f").notifies


def test_whether_a_call_is_done_whatever_its_arguments():
    """Of sendmsg it is what a start asks: with the filter in force it sends the listener, if it can."""
    base = BASE.notify("mknod")
    for flt, lets in (
        (base, True),
        (base.log("sendmsg"), True),
        (base.deny("sendmsg").allow("sendmsg"), True),
        (mc.SeccompFilter.docker().notify("mknod"), True),
        (base.notify("sendmsg"), False),
        (base.deny("sendmsg"), False),
        (base.kill("sendmsg", when=(0, "==", 12345)), False),
        (mc.SeccompFilter("notify"), False),
        (mc.SeccompFilter("errno").notify("mknod").allow("sendmsg", when=(0, "<", 100)), False),
    ):
        assert flt.lets("sendmsg") is lets, flt.dump()
        assert mc.Seccomp(flt).sends is lets
        assert mc.Seccomp(flt.program).sends is lets, flt.dump()
    looks = base.log("sendmsg", when=(2, "==", 1))
    assert mc.Seccomp(looks).sends
    assert not mc.Seccomp(looks.program).sends  # a program that looks at arguments is not followed any further
    assert not mc.Seccomp("default").sends
    assert not mc.Seccomp(b"\x06\x00\x00\x00\x00\x00\xc0\x7f").sends


def test_the_last_word_counts():
    flt = BASE.deny("socket").allow("socket", when=(0, "==", 2)).deny("socket", errno="EACCES", when=(1, ">", 5))
    assert str(flt.explain("socket", 2, 9).action) == "errno EACCES"
    assert flt.explain("socket", 2, 5).action == ALLOW
    assert str(flt.explain("socket", 1, 5).action) == "errno EPERM"
    assert flt.allow("socket").explain("socket", 1, 9).action == ALLOW


def test_explain_names_the_rule():
    flt = BASE.deny("mkdir", "mkdirat").deny("socket", errno="EACCES", when=(0, "==", 38))
    assert str(flt.explain("mkdir", 0)) == "mkdir on x86_64: errno EPERM, by rule 1 (errno EPERM)"
    assert str(flt.explain("socket", 38)) == "socket on x86_64: errno EACCES, by rule 2 (errno EACCES if arg0 == 38)"
    assert str(flt.explain("socket", 2)) == "socket on x86_64: allow, by default"
    verdict = flt.explain("socket")
    assert verdict.action is None
    assert str(verdict) == "socket on x86_64: errno EACCES if arg0 == 38; allow otherwise"
    assert flt.explain(83).name == "mkdir"
    assert flt.explain(39, arch="x86").name == "mkdir"
    assert flt.explain("mkdir", arch="arm").action == Action("kill_process")
    with pytest.raises(SpecError, match="knows no system call named 'mkdirr'"):
        flt.explain("mkdirr")
    with pytest.raises(SpecError, match="neither name nor number"):
        flt.explain(None)  # type: ignore[arg-type]


def test_values_are_compared_by_what_they_say():
    one, other = BASE.deny("mkdir").replace(name="a"), BASE.deny("mkdir").replace(name="b", notes=("x",))
    assert one == other
    assert hash(one) == hash(other)
    assert len({one, other, BASE}) == 2
    assert one != BASE.deny("mkdir").replace(flags=("log",))
    assert one != "x"


def test_diff():
    one = BASE.deny("mkdir").deny("socket", when=(0, "==", 38))
    other = BASE.replace(otherwise=Action("log"), arches=("x86_64",)).deny("socket").allow("mkdir")
    difference = one.diff(other)
    assert str(difference).splitlines() == [
        "otherwise: allow -> log",
        "arches: x86_64 x86 -> x86_64",
        "mkdir: errno EPERM -> allow",
        "socket: errno EPERM if arg0 == 38; else allow -> errno EPERM",
    ]
    assert not one.diff(one)


def test_dump_and_repr():
    flt = mc.SeccompFilter.docker(kernel=(6, 1))
    lines = flt.dump().splitlines()
    assert max(map(len, lines)) < 80
    assert lines[0] == "default       errno EPERM"
    assert "arg0 & 0x7e020000 == 0x0" in flt.dump()
    assert repr(flt).startswith("SeccompFilter(<docker: ")
    assert "for 0 system calls, else allow" in repr(BASE)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: mc.SeccompFilter("refuse"), "action 'refuse' is not one of"),
        (lambda: mc.SeccompFilter(5), "otherwise: 5 is not an action"),
        (lambda: mc.SeccompFilter(arches=("z80",)), "architecture 'z80' is not one of"),
        (lambda: mc.SeccompFilter(flags=("tsync",)), "flag 'tsync' is not one of"),
        (lambda: mc.SeccompFilter(rules=("x",)), "'x' is not a rule"),
        (lambda: BASE.deny(), "a rule for no system call"),
        (lambda: BASE.deny(["mkdir"]), "is no name of a system call"),
        (lambda: BASE.deny("mk dir"), "is no name of a system call"),
        (lambda: BASE.deny("mkdir", errno="ENOTHING"), "no name of errno"),
        (lambda: BASE.deny("mkdir", errno=5000), "not between 0 and 4095"),
        (lambda: BASE.deny("mkdir", errno="path"), "no name of errno"),
        (lambda: BASE.allow("mkdir", when=(6, "==", 1)), "not between 0 and 5"),
        (lambda: BASE.allow("mkdir", when=(0, "=", 1)), "operator '='"),
        (lambda: BASE.allow("mkdir", when=(0, "==", -1)), "not between 0 and"),
        (lambda: BASE.allow("mkdir", when=(0, "==")), "is not (argument, operator, value)"),
        (lambda: BASE.allow("mkdir", when=(0, "&", 1)), "is not (argument, operator, value)"),
        (lambda: BASE.allow("mkdir", when=(0, "&", 1, 2)), "bits outside its mask"),
        (lambda: BASE.allow("mkdir", when="x"), "is not a tuple"),
        (lambda: Condition(0, "==", 1, 1), "a mask goes with &"),
        (lambda: Rule(("mkdir",), "allow"), "is not an action"),  # type: ignore[arg-type]
        (lambda: BASE.trap("mkdir", number=70000), "not between 0 and 65535"),
        (lambda: mc.SeccompFilter.allowlist("read"), "is not a list of names"),
        (lambda: mc.SeccompFilter.named("dokcer"), "is not one of default, docker"),
        (lambda: BASE.deny("mkdirr").program, "knows no system call named 'mkdirr'"),
    ],
)
def test_a_mistake_is_one_clear_error(wrong, words):
    with pytest.raises(SpecError, match=words.replace("(", r"\(").replace(")", r"\)")) as caught:
        wrong()
    assert "\n" not in str(caught.value)


def test_the_feature_takes_filters_names_and_bytes():
    assert mc.Seccomp("docker") == mc.Seccomp("docker")
    assert repr(mc.Seccomp("docker", flags=("log",))) == "Seccomp('docker', flags=('log',))"
    assert repr(mc.Seccomp(bytes(16), source="mine")) == "Seccomp(<mine, 2 instructions>)"
    assert mc.Seccomp(BASE).program == BASE
    for wrong in (5, None, b"", "nothing"):
        with pytest.raises(SpecError, match="seccomp: "):
            mc.Seccomp(wrong)  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="flag 'x'"):
        mc.Seccomp("docker", flags=("x",))
