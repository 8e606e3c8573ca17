"""Who the program is and what it may: user, groups, five capability sets, no_new_privs, seccomp."""

from __future__ import annotations

import os
import struct

import pytest

import minictr as mc
from minictr.features.capabilities import CAPABILITIES, NUMBERS

SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


def mask(*names: str) -> str:
    return f"{sum(1 << NUMBERS[name] for name in names):016x}"


def host_bounding() -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1], 16) for line in file if line.startswith("CapBnd"))


# --- user ---


@pytest.mark.parametrize(
    ("user", "uid", "gid", "groups"),
    [
        ("0", 0, 0, []),
        ("root", 0, 0, []),
        ("alice", 1000, 1001, [2001, 2002]),
        ("1000", 1000, 1001, [2001, 2002]),
        ("alice:staff-b", 1000, 2002, []),
        ("alice:2345", 1000, 2345, []),
        ("4321", 4321, 0, []),
        ("4321:9", 4321, 9, []),
    ],
)
def test_user_group_and_supplementary_groups(box, status, user, uid, gid, groups):
    found = status(box.with_(mc.Identity(user)))
    assert found["Uid"].split() == [str(uid)] * 4
    assert found["Gid"].split() == [str(gid)] * 4
    assert sorted(map(int, found["Groups"].split())) == groups


def test_more_groups_by_number(box, status):
    found = status(box.with_(mc.Identity("alice", groups=(7, 8, 1001))))
    assert found["Groups"].split() == ["7", "8", "2001", "2002"]


def test_without_a_user_it_is_the_callers(box, status):
    assert status(box.without("user"))["Uid"].split() == ["0"] * 4


@pytest.mark.parametrize(("user", "told"), [("nobody-here", "no such user"), ("alice:nogroup-x", "no such group")])
def test_unknown_names(box, user, told):
    with pytest.raises(mc.SpecError, match=told):
        box.with_(mc.Identity(user)).run(["true"])


def test_home_is_the_users(box, sh):
    assert sh(box.with_(mc.Identity("alice")), "echo $HOME") == "/home/alice"
    assert sh(box.with_(mc.Identity("4321")), "echo $HOME") == "/"
    assert sh(box, "echo $HOME") == "/root"


def test_nobody_has_capabilities_as_another_user(box, status):
    found = status(box.with_(mc.Identity("alice"), mc.Capabilities(("CHOWN", "KILL"))))
    assert found["CapEff"] == found["CapPrm"] == mask()  # execve of a user other than root (capabilities(7))
    assert found["CapBnd"] == mask("CHOWN", "KILL")


# --- capabilities ---


def test_the_default_profiles(box, status):
    kept = mask(*next(f for f in box.features if f.name == "capabilities").bounding)
    found = status(box)
    assert [found[name] for name in SETS] == [mask(), kept, kept, kept, mask()]


def test_without_it_root_keeps_what_the_caller_has(box, status):
    found = status(box.without("capabilities"))
    assert int(found["CapBnd"], 16) == host_bounding()
    assert int(found["CapEff"], 16) == host_bounding()
    assert (found["CapInh"], found["CapAmb"]) == (mask(), mask())


def test_five_sets_exactly(box, status):
    sets = mc.Capabilities(
        ("CHOWN", "KILL", "NET_RAW", "SYS_CHROOT"),
        permitted=("CHOWN", "KILL", "NET_RAW"),
        effective=("CHOWN",),
        inheritable=("KILL", "NET_RAW"),
        ambient=("NET_RAW",),
    )
    found = status(box.with_(sets, mc.Identity("alice")))
    # execve of an ordinary user: permitted and effective are what is ambient (capabilities(7))
    assert [found[name] for name in SETS] == [
        mask("KILL", "NET_RAW"), mask("NET_RAW"), mask("NET_RAW"), mask("CHOWN", "KILL", "NET_RAW", "SYS_CHROOT"),
        mask("NET_RAW"),
    ]  # fmt: skip


def test_none_at_all(box, status):
    found = status(box.with_(mc.Capabilities(())))
    assert [found[name] for name in SETS] == [mask()] * 5


def test_ambient_works_for_a_user(box, sh):
    may = box.with_(mc.Identity("alice"), mc.Capabilities(("NET_RAW",), inheritable=("NET_RAW",), ambient=("NET_RAW",)))
    assert sh(may, "exec probe raw-socket").startswith("ok")
    assert "not permitted" in sh(box.with_(mc.Identity("alice")), "exec probe raw-socket", code=1)


@pytest.mark.parametrize("name", [name for name in CAPABILITIES if host_bounding() >> NUMBERS[name] & 1])
def test_one_at_a_time(box, status, name):
    found = status(box.with_(mc.Capabilities((name,))))
    assert [found[set_] for set_ in SETS] == [mask(), mask(name), mask(name), mask(name), mask()]


def test_one_that_the_caller_lacks_is_not_given(box):
    lacking = [name for name in CAPABILITIES if not host_bounding() >> NUMBERS[name] & 1]
    if not lacking:
        pytest.skip("this root has every capability")
    with pytest.raises(mc.StepFailed, match="capset"):
        box.with_(mc.Capabilities((lacking[0],))).run(["true"])


# --- no_new_privs ---


def test_no_new_privs(box, status, sh):
    assert status(box)["NoNewPrivs"] == "1"
    assert status(box.without("no_new_privs"))["NoNewPrivs"] == "0"


def test_a_set_user_id_program_gains_nothing(box, sh):
    alice = box.with_(mc.Identity("alice"))
    assert sh(alice, "exec suid user") == "ok 1000 1000"
    assert sh(alice.without("no_new_privs"), "exec suid user") == "ok 1000 0"


# --- seccomp ---

MKDIR, EPERM = 83, 1  # x86_64; arm64 has mkdirat only
MKDIRAT = {"x86_64": 258, "aarch64": 34}


def deny(*numbers: int, action: int = 0x00050000 | EPERM) -> bytes:
    """A struct sock_filter array: ACTION (SECCOMP_RET_ERRNO) for these system calls, allow for all others."""
    rows = [(0x20, 0, 0, 0)]  # ld nr
    for number in numbers:
        rows += [(0x15, 0, 1, number), (0x06, 0, 0, action)]
    rows.append((0x06, 0, 0, 0x7FFF0000))
    return b"".join(struct.pack("=HBBI", *row) for row in rows)


@pytest.mark.parametrize("without", [(), ("no_new_privs",), ("init",), ("pid",)])
def test_a_filter_denies_mkdir(box, sh, status, without):
    judged = box.without(*without).with_(mc.Tmpfs("/tmp"), mc.Seccomp(deny(MKDIR, 258, 34)))
    assert "not permitted" in sh(judged, "mkdir /tmp/x 2>&1", code=1)
    assert sh(judged.without("seccomp"), "mkdir /tmp/x; echo $?") == "0"
    found = status(judged)
    assert (found["Seccomp"], found["Seccomp_filters"]) == ("2", "1")
    assert status(judged.without("seccomp"))["Seccomp"] == "0"


def test_a_filter_that_kills_the_program(box):
    judged = box.with_(mc.Seccomp(deny(MKDIR, 258, 34, action=0x80000000)))  # SECCOMP_RET_KILL_PROCESS
    done = judged.run(["bash", "-c", "exec mkdir /tmp/x"])
    assert done.signal == 31


def test_a_filter_that_kills_execve_itself(box):
    """With no_new_privs it is loaded last: the one call it can hit of ours is execve."""
    judged = box.with_(mc.Seccomp(deny(59, 221, 322, action=0x80000000)))
    assert judged.run(["true"], timeout=10).signal == 31


@pytest.mark.parametrize("without", [(), ("init",)])
def test_a_filter_need_not_allow_any_step_of_ours(box, without):
    """What the start itself calls last, killed by the filter: it is over before the filter is there."""
    ours = {
        "x86_64": (202, 271, 436, 228, 157, 79),  # futex ppoll close_range clock_gettime prctl getcwd
        "aarch64": (98, 73, 436, 113, 167, 17),
    }[os.uname().machine]
    judged = box.without(*without).with_(mc.Seccomp(deny(*ours, action=0x80000000)))
    done = judged.run(["true"], timeout=10)
    assert (done.returncode, done.signal) == (0, 0)
    assert done.timeline.by_feature()["seccomp"] > 0  # told without asking for the time
    with pytest.raises(mc.CommandNotFound):
        judged.with_(mc.Tmpfs("/tmp")).run(["/tmp/missing"])  # nor does a failure need one


def test_a_filter_that_is_no_program(box):
    with pytest.raises(mc.StepFailed, match="seccomp"):
        box.with_(mc.Seccomp(b"\xff" * 16)).run(["true"])


def test_many_filters_fit(box, status):
    assert status(box.with_(mc.Seccomp(deny(*[MKDIRAT.get("none", 9999)] * 150))))["Seccomp"] == "2"
