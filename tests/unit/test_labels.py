"""Labels as wishes: their words, their steps and where these stand, and what options make of them."""

from __future__ import annotations

import contextlib
from importlib import import_module

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minictr.cli import labels as cli_labels
from minictr.cli.build import build
from minictr.cli.labels import exec_labels
from minictr.errors import SpecError
from minictr.features.lsm import AppArmor, SELinux, checked_context
from minictr.parse.labels import apparmor, selinux
from minictr.plan import HOLD, plan
from minictr.runtime.join import Target, exec_spec
from minictr.spec import Spec
from minictr.steps import PREPARE, SETUP, VERIFY, Feature

f = import_module("minictr.features")  # mc.features is the front door's function of that name

LAB = "system_u:system_r:container_t:s0:c1,c2"
FILES = "system_u:object_r:container_file_t:s0:c1,c2"
KNOWN = {"process": "system_u:system_r:container_t:s0", "file": "system_u:object_r:container_file_t:s0"}
BOX = Spec(("true",), f.DEFAULT, "/srv/root")


# --- the features ---


@pytest.mark.parametrize("profile", ["docker-default", "&lab", "/usr/bin/man", "a b (c)", "a//child", ":other:lab"])
def test_names_of_profiles(profile: str) -> None:
    assert AppArmor(profile).profile == profile


@pytest.mark.parametrize("profile", ["", "&", " a", "a ", "a\nb", "a\0", "a//&b", "&&a", "x" * 4001, "& a"])
def test_what_is_no_name_of_a_profile(profile: str) -> None:
    with pytest.raises(SpecError, match="^apparmor profile: "):
        AppArmor(profile)


@pytest.mark.parametrize("context", [LAB, FILES, "u:r:t", "user_1:object_r:a-b.c:s0-s15:c0.c1023"])
def test_contexts(context: str) -> None:
    assert SELinux(context, context).mount == context


@pytest.mark.parametrize(
    "context",
    ["", "u", "u:r", "u:r:", ":r:t", "u:r:t:", "u:r:t t", "u:r:t\n", 'u:r:t:s0"', "u:r,x:t", "ü:r:t", "a" * 248],
)
def test_what_is_no_context(context: str) -> None:
    with pytest.raises(SpecError, match="^selinux context: "):
        SELinux(context)
    if context:
        with pytest.raises(SpecError, match="^selinux mount: "):
            SELinux(LAB, context)


@given(st.text())
def test_any_text_is_a_context_or_a_mistake(text: str) -> None:
    with contextlib.suppress(SpecError):
        assert checked_context(text, "x") == text
        assert text.count(":") >= 2


@pytest.mark.parametrize(
    ("feature", "order", "label"),
    [
        (AppArmor("lab"), "exec lab", "lab"),
        (AppArmor("&lab"), "stack lab", "lab"),
        (SELinux(LAB), LAB, LAB),
    ],
)
def test_a_label_is_looked_at_set_and_verified(feature: Feature, order: str, label: str) -> None:
    steps = [step for step in plan(BOX.with_(feature)) if step.feature == feature.name]
    module = feature.name
    assert [(step.call, step.phase, step.args) for step in steps] == [
        ("check_label", PREPARE, {"module": module, "label": label}),
        ("exec_label", SETUP, {"module": module, "order": order, "label": label}),
        ("verify_label", VERIFY, {"module": module, "label": label}),
    ]


def test_without_its_own_proc_it_is_verified_once() -> None:
    bare = Spec(("true",), (*f.BARE, AppArmor("lab")), "/srv/root")
    assert [step.call for step in plan(bare) if step.feature == "apparmor"] == ["check_label", "exec_label"]


def test_created_now_and_started_later_it_needs_its_own_proc() -> None:
    less = Spec(("true",), (*f.BARE, AppArmor("lab")), "/srv/root")
    assert plan(less)
    with pytest.raises(SpecError, match="apparmor in a container that is created now and started later needs proc"):
        plan(less, (HOLD,))
    assert plan(less.without("apparmor"), (HOLD,))


def test_leaving_it_out_leaves_nothing_else_out() -> None:
    for feature in (AppArmor("lab"), SELinux(LAB, FILES)):
        assert plan(BOX.with_(feature).without(feature.name)) == plan(BOX)


def test_the_label_is_set_before_the_root_changes_and_verified_last() -> None:
    calls = [step.call for step in plan(BOX.with_(AppArmor("lab")), (HOLD,))]
    assert calls[0] == "check_label"
    assert calls.index("exec_label") < min(calls.index(call) for call in ("open_tree", "pivot_root", "mount", "init"))
    assert calls.index("hold") + 1 == calls.index("verify_label")
    assert calls.index("verify_label") + 1 == calls.index("ready")


def test_mounts_that_are_made_have_the_label_of_mounts() -> None:
    everything = (f.Overlay(), f.Tmpfs("/run"), f.Bind("/a", "/b"))
    made = plan(BOX.with_(SELinux(LAB, FILES), *everything))
    with_label = {step.about.split()[2] for step in made if f"context={FILES}" in step.args.get("options", ())}
    assert {"/dev", "/dev/pts", "/dev/shm", "/run"} <= with_label
    assert len(with_label) == 5, "and the overlay"
    plain = plan(BOX.with_(SELinux(LAB), *everything))
    assert not any("context=" in str(step.args) for step in plain)


# --- options ---


def parsed(*texts: str, present: SELinux | None = None, known: dict[str, str] | None = None) -> SELinux | None:
    return selinux(texts, present, KNOWN if known is None else known)


def test_apparmor_unconfined_is_dockers_word_for_nothing() -> None:
    assert apparmor("unconfined") is None
    assert apparmor("lab") == AppArmor("lab")


@pytest.mark.parametrize(
    ("texts", "context", "mount"),
    [
        ((LAB,), LAB, FILES),
        (("type:spc_t",), "system_u:system_r:spc_t:s0", KNOWN["file"]),
        (("level:s0:c1,c2",), LAB, FILES),
        (("user:a", "role:b", "type:c", "level:s1"), "a:b:c:s1", "system_u:object_r:container_file_t:s1"),
        ((LAB, "filetype:lab_t"), LAB, "system_u:object_r:lab_t:s0:c1,c2"),
        (("level:s0:c3", "level:s0:c4"), "system_u:system_r:container_t:s0:c4", f"{KNOWN['file']}:c4"),
    ],
)
def test_parts_of_a_label(texts: tuple[str, ...], context: str, mount: str) -> None:
    assert parsed(*texts) == SELinux(context, mount)


def test_a_host_that_knows_no_contexts() -> None:
    assert parsed("a:b:c", known={}) == SELinux("a:b:c")
    assert parsed("user:a", "role:b", "type:c", known={}) == SELinux("a:b:c")
    assert parsed("a:b:c:s0", "filetype:f", known={}) == SELinux("a:b:c:s0", "a:object_r:f:s0")
    with pytest.raises(SpecError, match=r"add label=user:\.\.\., label=role:\.\.\., or give it whole"):
        parsed("type:c", known={})


def test_what_is_there_already_is_the_base() -> None:
    present = SELinux("a:b:c:s0", "a:object_r:f:s0")
    assert parsed("type:d", present=present) == SELinux("a:b:d:s0", "a:object_r:f:s0")
    assert parsed("disable", "disable", present=present) is None


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (("",), "are known"),
        (("nope",), "are known"),
        (("type",), "are known"),
        (("type:",), "empty"),
        (("disable", "type:x"), "goes with no other"),
        (("a:b:c d",), "is not USER:ROLE:TYPE"),
        (("type:c d",), "is not USER:ROLE:TYPE"),
    ],
)
def test_what_is_no_label(texts: tuple[str, ...], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        parsed(*texts)


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli_labels, "container_contexts", lambda: KNOWN)


def built(*texts: str, **more: object) -> Spec:
    return build({"rootfs": "/image", "security_opt": list(texts), **more}, ("cmd",), False)


@pytest.mark.usefixtures("known")
def test_security_options_make_features() -> None:
    assert built("apparmor=lab").get("apparmor") == built("apparmor:lab").get("apparmor") == AppArmor("lab")
    assert built("label=type:spc_t", "no-new-privileges=false", "label:level:s0:c1").get("selinux") == SELinux(
        "system_u:system_r:spc_t:s0:c1", f"{KNOWN['file']}:c1"
    )
    assert "apparmor" not in built("apparmor=lab", "apparmor=unconfined").names
    assert built("label=disable") == built() == built("apparmor=unconfined")
    assert {"apparmor", "no_new_privs"} & built("apparmor=lab", "no-new-privileges=false").names == {"apparmor"}
    assert "apparmor" in built("apparmor=lab", privileged=True).names


@pytest.mark.parametrize("text", ["apparmor", "apparmor=", "apparmor= x", "label", "label=", "label=x", "label=a:b:"])
@pytest.mark.usefixtures("known")
def test_a_mistake_names_the_option(text: str) -> None:
    with pytest.raises(SpecError, match="^--security-opt"):
        built(text)


# --- exec ---

HELD = BOX.with_(AppArmor("lab"), SELinux(LAB, FILES))


def labels_of(spec: Spec) -> list[Feature]:
    return [feature for feature in spec.features if feature.name in ("apparmor", "selinux")]


def test_exec_repeats_the_labels_of_the_container() -> None:
    target = Target(1, HELD)
    assert labels_of(exec_spec(target, ["true"])) == [AppArmor("lab"), SELinux(LAB, FILES)]
    assert labels_of(exec_spec(target, ["true"], without=["apparmor"])) == [SELinux(LAB, FILES)]
    assert labels_of(exec_spec(target, ["true"], privileged=True)) == []
    other = exec_spec(target, ["true"], privileged=True, labels=[AppArmor("other")])
    assert labels_of(other) == [AppArmor("other")]
    calls = [step.call for step in plan(exec_spec(target, ["true"]))]
    assert calls.index("exec_label") < calls.index("setns"), "by the caller's /proc, which no container can change"


@pytest.mark.usefixtures("known")
def test_exec_with_other_labels() -> None:
    assert exec_labels(HELD, ["apparmor=other"]) == ((AppArmor("other"),), ())
    assert exec_labels(HELD, ["apparmor=unconfined"]) == ((), ("apparmor",))
    assert exec_labels(BOX, ["apparmor=unconfined", "label=disable"]) == ((), ())
    given, out = exec_labels(HELD, ["label=level:s0:c9", "label=type:spc_t"])
    assert (given[0].context, out) == ("system_u:system_r:spc_t:s0:c9", ())  # type: ignore[attr-defined]
    for text in ("seccomp=unconfined", "apparmor", "", "nope=x"):
        with pytest.raises(SpecError, match="--security-opt"):
            exec_labels(HELD, [text])
