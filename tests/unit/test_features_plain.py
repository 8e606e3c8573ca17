"""Every feature as plain data and back."""

from __future__ import annotations

import pytest

import minictr as mc
from minictr.errors import SpecError
from minictr.features import PROFILES
from minictr.features.plain import feature_from, plain_feature
from minictr.jsontext import dumps, loads

MORE = (
    mc.Bind("/a", "/b", readonly="ro"),
    mc.Tmpfs("/run", size="64M"),
    mc.Seccomp(bytes(range(16))),
    mc.Seccomp("docker", flags=("log",)),
    mc.Seccomp(bytes(8), source="profile.json"),
    mc.UserNamespace(uid_map=((0, 100000, 65536),), gid_map=((0, 100000, 65536),)),
    mc.TimeNamespace(monotonic=1.5),
    mc.Rlimits((("nofile", 64, 128),)),
    mc.Overlay(upper="/u"),
    mc.Env((("A", "b\nc"), ("caf\udce9", "x"))),
    mc.Cwd("/tmp"),
    mc.Landlock(("/usr",), rules=(("/a", ("read_file", "execute")),), bind=(), connect=(443,), scopes=("signal",)),
    mc.Landlock(access=("make_dir",), log=True),
)


@pytest.mark.parametrize(
    "feature", [*MORE, *(feature for profile in PROFILES.values() for feature in profile)], ids=repr
)
def test_round_trip(feature):
    assert feature_from(loads(dumps(plain_feature(feature)))) == feature


@pytest.mark.parametrize(
    "data",
    [
        *(None, 1, "mnt", [], {}, {"feature": 1}, {"feature": "nosuch"}, {"feature": "cwd"}),
        *({"feature": "cwd", "path": "x"}, {"feature": "cwd", "path": "/", "colour": 1}),
        *({"feature": "seccomp", "program": {"hex": "zz"}}, {"feature": "rlimits", "limits": [["nofile", "1", 2]]}),
        {"feature": "hostname", "hostname": ["a"]},
    ],
    ids=repr,
)
def test_anything_else_is_refused(data):
    with pytest.raises(SpecError):
        feature_from(data)
