"""The judges of denials on facts made by hand: modes, capabilities, Landlock's rights, lists of devices."""

from __future__ import annotations

import os

import pytest

from minictr.features.capabilities import NUMBERS
from minictr.features.cgroup_devices import Devices
from minictr.runtime.observed import calls, layers, permissions, privileges
from minictr.runtime.observed.case import Case
from minictr.runtime.observed.permissions import READ, SEARCH, WRITE

ALL = [[0, 0, 4294967295]]
HIGH = [[0, 100_000, 65_536]]


def who(uid=0, gid=0, groups=(), caps=(), rows=ALL):
    mask = sum(1 << NUMBERS[name] for name in caps)
    return {
        "uids": [uid] * 4, "gids": [gid] * 4, "groups": list(groups), "caps": mask, "uid_map": rows, "gid_map": rows,
        "initial": rows is ALL,
    }  # fmt: skip


def node(mode, uid=0, gid=0, path="/f", kind="file", dirs=(), **more):
    return {"path": path, "there": True, "kind": kind, "mode": mode, "uid": uid, "gid": gid, "dirs": list(dirs), **more}


@pytest.mark.parametrize(
    ("person", "mode", "wanted", "refused"),
    [
        (who(), 0o400, READ, False),
        (who(), 0o400, WRITE, True),
        (who(caps=["DAC_OVERRIDE"]), 0o400, WRITE, False),
        (who(caps=["DAC_READ_SEARCH"]), 0o000, READ, False),
        (who(caps=["DAC_READ_SEARCH"]), 0o000, WRITE, True),
        (who(caps=["DAC_OVERRIDE"]), 0o600, SEARCH, True),  # nobody executes what has no x bit at all
        (who(caps=["DAC_OVERRIDE"]), 0o100, SEARCH, False),
        (who(5, 6), 0o044, READ, False),
        (who(5, 0), 0o604, READ, True),  # the group's bits decide for its members, though others may
        (who(5, 6, groups=[0]), 0o604, READ, True),
        (who(5, 0), 0o640, READ, False),
    ],
)
def test_a_mode_refuses_as_the_kernel_does(person, mode, wanted, refused):
    assert (permissions.refusal(person, node(mode), wanted) is not None) is refused


def test_the_first_directory_that_refuses_is_named():
    dirs = [node(0o755, path="/", kind="dir"), node(0o700, path="/root", kind="dir"), node(0o000, path="/root/x")]
    found = permissions.refusal(who(7, 7), node(0o644, dirs=dirs), READ)
    assert (found.path, found.what, found.caps) == ("/root", "search", ("DAC_READ_SEARCH", "DAC_OVERRIDE"))


def test_a_list_decides_and_is_not_looked_into():
    assert permissions.refusal(who(7, 7), node(0o600, acl=True), READ) is None


def test_no_capability_counts_on_an_owner_who_is_nobody():
    found = permissions.refusal(who(100_000, 100_000, caps=["DAC_OVERRIDE"], rows=HIGH), node(0o600), READ)
    assert (found.unmapped, found.owner) == (True, "0 of the host")


@pytest.mark.parametrize(
    ("call", "args", "more", "name"),
    [
        ("mount", (), {}, "SYS_ADMIN"),
        ("unshare", (0x20000,), {}, "SYS_ADMIN"),
        ("unshare", (0x10020000,), {}, ""),
        ("clone", (17,), {}, ""),
        ("mknod", (0, 0o020666, 0), {}, "MKNOD"),
        ("mknod", (0, 0o010666, 0), {}, ""),
        ("chown", (0, 5, 5), {}, "CHOWN"),
        ("chown", (0, 0, 0), {}, ""),
        ("chown", (0, 2**32 - 1, 2**32 - 1), {}, ""),
        ("setuid", (0,), {}, ""),
        ("setuid", (9,), {}, "SETUID"),
        ("setresgid", (2**32 - 1, 0, 9), {}, "SETGID"),
        ("kill", (3, 9), {"owner": [0, 0, 0, 0]}, ""),
        ("kill", (3, 9), {"owner": [8, 8, 8, 8]}, "KILL"),
        ("bind", (3, 0, 16), {"family": 2, "port": 80}, "NET_BIND_SERVICE"),
        ("bind", (3, 0, 16), {"family": 2, "port": 8080}, ""),
        ("socket", (17, 3, 0), {}, "NET_RAW"),
        ("socket", (2, 0o2000003, 1), {}, "NET_RAW"),
        ("socket", (2, 1, 0), {}, ""),
        ("getpid", (), {}, ""),
    ],
)
def test_a_capability_is_needed_where_the_kernel_asks_for_it(call, args, more, name):
    six = [*args, *(0,) * (6 - len(args))]
    row = {"call": call, "args": six, "errno": 13 if call == "bind" else 1, "extra": more, "places": [node(0o644)]}
    assert privileges.needed({**row, "told": ""}, who()) == name


@pytest.mark.parametrize(
    ("call", "flags", "there", "wanted"),
    [
        ("openat", os.O_RDONLY, True, ("self", ("read_file",))),
        ("openat", os.O_RDWR | os.O_TRUNC, True, ("self", ("read_file", "write_file", "truncate"))),
        ("openat", os.O_WRONLY | os.O_CREAT, False, ("parent", ("make_reg", "write_file"))),
        ("openat", os.O_PATH, True, ("", ())),
        ("execve", 0, True, ("self", ("execute", "read_file"))),
        ("unlink", 0, True, ("parent", ("remove_file",))),
        ("newfstatat", 0, True, ("", ())),
    ],
)
def test_landlocks_rights_of_a_call(call, flags, there, wanted):
    assert calls.rights_of(call, (0,) * 6, flags, False, there) == wanted


def test_the_last_rule_of_a_device_list_decides():
    rules = Devices(("c 1:3 rwm", "c 10:* rw", "deny c 10:229 w")).rules
    assert layers.device_allowed(rules, "c", 10, 5, "w") and not layers.device_allowed(rules, "c", 10, 229, "w")
    assert layers.device_allowed(rules, "c", 10, 229, "r") and not layers.device_allowed(rules, "b", 1, 3, "r")


@pytest.mark.parametrize(
    ("label", "layer"),
    [
        ("lab (enforce)", "lsm"),
        ("unconfined", None),
        ("", None),
        ("a:b:unconfined_t:s0", None),
        ("a:b:lab_t:s0", "lsm"),
    ],
)
def test_a_label_is_named_where_it_confines(label, layer):
    row = {"call": "openat", "args": [0] * 6, "errno": 13, "extra": {}, "places": []}
    found = layers.security_module(Case(row, {"label": label}, None, None))
    assert (found and found.layer) == layer


def test_every_shape_is_of_known_words():
    known = {"path", "dirfd", "at", "fd", "int", "hex", "oct", "str", "flags", "how", "addr", "-"}
    assert {word.rstrip("!") for shape in calls.SHAPES.values() for word in shape} == known


def test_every_call_of_the_tables_exists():
    from minictr.kernel.seccomp_library import known

    assert [name for name in (*calls.SHAPES, *privileges.TABLE) if not known(name)] == []
