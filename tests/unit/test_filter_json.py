"""Profiles as JSON: OCI's and Docker's, what they mean, and what is refused."""

from __future__ import annotations

import contextlib
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

import minictr as mc
from minictr.errors import SpecError
from minictr.features.filter_parts import ALLOW, Action
from minictr.jsontext import dumps

EPERM = Action("errno", 1)
load = mc.SeccompFilter.from_json


def profile(*syscalls, **fields):
    return {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": list(syscalls), **fields}


def row(names, action="SCMP_ACT_ALLOW", **fields):
    return {"names": names.split(), "action": action, **fields}


def arg(index, value, op="SCMP_CMP_EQ", **fields):
    return {"index": index, "value": value, "op": op, **fields}


def said(flt, name, *args):
    return flt.explain(name, *args).action


def test_oci_whole_or_in_part():
    part = profile(row("read write"), defaultErrnoRet=13)
    for source in (part, dumps(part), {"ociVersion": "1.2.0", "linux": {"seccomp": part}}):
        flt = load(source)
        assert said(flt, "read") == ALLOW
        assert said(flt, "mkdir") == Action("errno", 13)
    assert load(part).newer == Action("errno", 38)
    assert load({"defaultAction": "SCMP_ACT_KILL_PROCESS"}).newer is None


@pytest.mark.parametrize(
    ("includes", "excludes", "counts"),
    [
        ({}, {}, True),
        ({"caps": ["CAP_SYS_ADMIN"]}, {}, False),
        ({"caps": ["CAP_CHOWN"]}, {}, True),
        ({"caps": ["CAP_CHOWN", "CAP_SYS_ADMIN"]}, {}, False),
        ({}, {"caps": ["CAP_CHOWN", "CAP_SYS_ADMIN"]}, False),
        ({}, {"caps": ["CAP_SYS_ADMIN"]}, True),
        ({"minKernel": "5.10"}, {}, True),
        ({"minKernel": "5.11"}, {}, False),
        ({"minKernel": "4.99"}, {}, True),
        ({}, {"minKernel": "5.10"}, False),
        ({"arches": ["amd64", "x32"]}, {}, True),
        ({"arches": ["s390x"]}, {}, False),
        ({}, {"arches": ["amd64"]}, False),
    ],
)
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="names amd64")
def test_docker_conditions(includes, excludes, counts):
    source = profile(row("mkdir", includes=includes, excludes=excludes))
    flt = load(source, caps=("CHOWN",), kernel=(5, 10))
    assert said(flt, "mkdir") == (ALLOW if counts else EPERM)


def test_docker_architectures():
    mapped = [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]}]
    mapped.append({"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]})
    if os.uname().machine == "x86_64":
        assert load(profile(archMap=mapped)).arches == ("x86_64", "x86", "x32")
        assert load(profile(architectures=["SCMP_ARCH_X86", "SCMP_ARCH_LOONGARCH64"])).arches == ("x86_64", "x86")


def test_rules_mean_what_runc_makes_of_them():
    both = [arg(0, 5, "SCMP_CMP_GE"), arg(0, 2, "SCMP_CMP_LE")]
    flt = load(
        profile(
            row("mkdir", "SCMP_ACT_ERRNO", errnoRet=13),
            row("mkdir"),  # never asked: the first of two that cover all
            row("socket", args=[arg(0, 2)]),
            row("socket", args=[arg(0, 3), arg(1, 1)]),
            row("clone", args=[arg(0, 0x7E020000, "SCMP_CMP_MASKED_EQ", valueTwo=0)]),
            row("kill"),
            row("kill", "SCMP_ACT_KILL", args=[arg(1, 9)]),  # covered
            row("prctl", args=both),  # one argument twice: either
            row("open", "SCMP_ACT_ERRNO"),  # as the default: says nothing
            row("open"),
        )
    )
    assert said(flt, "mkdir") == Action("errno", 13)
    assert said(flt, "socket", 2, 9) == said(flt, "socket", 3, 1) == ALLOW
    assert said(flt, "socket", 3, 2) == EPERM
    assert said(flt, "clone", 0x11) == ALLOW
    assert said(flt, "clone", 0x20011) == EPERM
    assert said(flt, "kill", 1, 9) == said(flt, "open") == ALLOW
    assert said(flt, "prctl", 6) == said(flt, "prctl", 1) == ALLOW
    assert said(flt, "prctl", 3) == EPERM
    assert len(flt.notes) == 2
    assert all("never asked" in note for note in flt.notes)


def test_names_of_a_newer_libseccomp_are_reported():
    flt = load(profile(row("mkdir frobnicate_at")))
    assert flt.unknown == ("frobnicate_at",)
    assert said(flt, "frobnicate_at") == Action("errno", 38)
    assert len(flt.program) > 0


def test_notify_is_read_and_written():
    data = profile(row("mknod", "SCMP_ACT_NOTIFY"), row("mkdir", "SCMP_ACT_NOTIFY", args=[arg(1, 0o777)]))
    flt = load(data)
    assert flt.notifies
    assert said(flt, "mknod") == said(flt, "mkdir", 0, 0o777) == Action("notify")
    assert said(flt, "mkdir", 0, 0o700) == Action("errno", 1)
    assert not flt.diff(load(flt.json()))
    assert load({"defaultAction": "SCMP_ACT_NOTIFY"}).notifies
    assert not load(profile(row("mknod"))).notifies


def test_there_and_back():
    flt = mc.SeccompFilter.docker(kernel=(6, 1))
    again = load(flt.json())
    assert not flt.diff(again)
    assert again.program == flt.program
    with pytest.raises(SpecError, match="OCI's rules have no order"):
        mc.SeccompFilter("errno").allow("socket").deny("socket", when=(0, "==", 38)).json()


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("{", "no JSON"),
        ("[]", "not an object"),
        ({}, "defaultAction is missing"),
        ({"ociVersion": "1.0"}, "no linux.seccomp"),
        ({"defaultAction": "SCMP_ACT_MAYBE"}, "'SCMP_ACT_MAYBE' is not one of"),
        ({"defaultAction": 5}, "5 is not one of"),
        ({"defaultAction": "SCMP_ACT_NOTIFY", "defaultErrnoRet": 1}, "takes no errnoRet"),
        (profile(listenerPath="/x"), "listenerPath"),
        (profile("x"), r"syscalls\[0\]: 'x' is not an object"),
        (profile({"names": ["read"]}), r"syscalls\[0\]: action None"),
        (profile({"action": "SCMP_ACT_ALLOW"}), "names is missing"),
        (profile(row("read") | {"name": "write"}), "keep one"),
        (profile(row("read", args=[arg(7, 1)])), "not between 0 and 5"),
        (profile(row("read", args=[arg(0, -1)])), "not between 0 and"),
        (profile(row("read", args=[arg(0, 1, "SCMP_CMP_ABOUT")])), "operator"),
        (profile(row("read", args=[arg(0, True)])), "not a whole number"),
        (profile(row("read", errnoRet=1)), "takes no errnoRet"),
        (profile(row("read", "SCMP_ACT_ERRNO", errnoRet=99999)), "not between 0 and 4095"),
        (profile(row("read", includes={"minKernel": "six"})), "MAJOR.MINOR"),
        (profile(row("read", includes={"kernels": []})), "'kernels' is not one of"),
        (profile(row("read", includes={"caps": ["CAP_FLY"]})), "CAP_FLY"),
        (profile(flags=["SECCOMP_FILTER_FLAG_FLY"]), "flag"),
        (profile(architectures=["X86"]), "SCMP_ARCH"),
        (profile(architectures=["SCMP_ARCH_X86"], archMap=[{}]), "keep one"),
        ({"defaultAction": "SCMP_ACT_LOG", "syscalls": 5}, "not a list"),
    ],
)
def test_a_mistake_is_one_clear_error(source, words):
    with pytest.raises(SpecError, match=words) as caught:
        load(source)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(("seccomp: ", "capability: "))


def test_flags():
    flags = ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_TSYNC"]
    assert load(profile(flags=flags)).flags == ("log", "spec_allow")


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=8)
    | st.sampled_from(["SCMP_ACT_ALLOW", "read", "caps"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                "defaultAction syscalls names action args index value op includes caps archMap linux".split()
            ),
            inner,
        )
    ),
    max_leaves=20,
)


@given(JSON)
def test_anything_else_is_a_spec_error(value):
    """Any other exception would be a failure."""
    with contextlib.suppress(SpecError):
        load(value if isinstance(value, dict) else dumps(value))
