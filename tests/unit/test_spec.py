"""Spec: taking features out and putting them in."""

from __future__ import annotations

from importlib import import_module

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minictr.errors import SpecError
from minictr.plan import plan
from minictr.spec import Spec, label, narrowed

f = import_module("minictr.features")  # mc.features is the front door's function of that name

BOX = Spec(("true",), f.DEFAULT, "/srv/root")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (((),), "command: empty"),
        (("true",), "not a tuple"),
        ((("",),), "argument 0: empty"),
        ((("a", "b\0"),), "NUL"),
        ((("a", 1),), "argument 1 is 1, not a string"),
        ((("a",), (f.Proc,)), "call its class"),
        ((("a",), (), "/x\0"), "NUL"),
        ((("a",), (), "", "-x"), "not letters"),
        ((("a",), (), "", "x" * 65), "limit is 64"),
        ((("a",), (), "", "x/y"), "not letters"),
    ],
)
def test_what_cannot_be_right_is_refused(args: tuple[object, ...], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        Spec(*args)  # type: ignore[arg-type]


def test_lists_are_taken_and_kept_as_tuples() -> None:
    spec = Spec(["sh", "-c", "echo a\nb"], [f.Proc()])  # type: ignore[arg-type]
    assert spec.argv == ("sh", "-c", "echo a\nb")
    assert spec.features == (f.Proc(),)
    hash(spec)


def test_without_takes_names_labels_and_values() -> None:
    spec = BOX.with_(f.Tmpfs("/a"), f.Tmpfs("/b"), f.Bind("/x", "/c"))
    assert spec.without("tmpfs").names == spec.names - {"tmpfs"}
    assert [label(kept) for kept in spec.without("tmpfs:/a").features if kept.MANY] == ["tmpfs:/b", "bind:/c"]
    assert spec.without(f.Bind("/x", "/c")).get("bind") is None
    assert spec.without("proc", f.NoNewPrivs(), "tmpfs:/zzz").names == spec.names - {"proc", "no_new_privs"}
    assert BOX.without("overlay") == BOX
    with pytest.raises(SpecError, match="no feature is named 'nett': perhaps net"):
        BOX.without("nett")


def test_with_replaces_in_place_or_adds() -> None:
    spec = BOX.with_(f.Shm("1M"))
    assert [kept.name for kept in spec.features] == [kept.name for kept in BOX.features]
    assert spec.get("shm") == f.Shm("1M")
    assert BOX.with_(f.Bind("/x", "/c"), f.Bind("/y", "/c"), f.Bind("/y", "/d")).features[-2:] == (
        f.Bind("/y", "/c"),
        f.Bind("/y", "/d"),
    )
    assert BOX.without("keyring").with_("keyring").get("keyring") == f.Keyring()
    with pytest.raises(SpecError, match="call its class"):
        BOX.with_(f.Proc)  # type: ignore[arg-type]


def test_cascade_takes_along_what_cannot_stand_alone() -> None:
    host_net = BOX.without("net", cascade=True)
    assert BOX.names - host_net.names == {"net", "loopback", "sysctl"}
    plan(host_net)
    more = BOX.with_(f.Sysctl((("net.ipv4.ip_forward", "1"), ("kernel.shmmax", "1"))))
    assert more.without("net", cascade=True).get("sysctl") == f.Sysctl((("kernel.shmmax", "1"),))
    no_sys = BOX.without("sysfs", cascade=True).get("masked_paths")
    assert isinstance(no_sys, f.MaskedPaths)
    assert all(path.startswith("/proc/") for path in no_sys.paths)
    assert BOX.without("proc", cascade=True).names.isdisjoint({"proc", "readonly_paths", "sysctl"})
    assert narrowed(f.Proc(), frozenset()) is None


@pytest.mark.parametrize("profile", f.PROFILES)
def test_every_feature_of_a_profile_can_be_left_out(profile: str) -> None:
    spec = Spec(("true",), f.PROFILES[profile], "" if profile == "landlock" else "/srv/root")
    for feature in spec.features:
        if feature.name in ("pivot_root", "chroot", "mnt"):  # the root needs one, and pivot_root a mount table
            continue
        less = plan(spec.without(feature, cascade=True))
        assert feature not in less.spec.features
        assert feature.MANY or all(step.feature != feature.name for step in less)


NAMES = st.lists(st.sampled_from(list(f.REGISTRY)), max_size=6)


@given(NAMES, NAMES)
def test_without_is_order_free_and_idempotent(some: list[str], others: list[str]) -> None:
    both = BOX.without(*some, *others)
    assert BOX.without(*some).without(*others) == both
    assert BOX.without(*others).without(*some) == both
    assert both.without(*some) == both
    assert both.names.isdisjoint((*some, *others))


@given(NAMES)
def test_cascade_leaves_nothing_that_lacks_its_needs(unwanted: list[str]) -> None:
    less = BOX.without(*unwanted, cascade=True)
    assert all(less.names & set(needed.split("|")) for feature in less.features for needed, _ in feature.NEEDS)
