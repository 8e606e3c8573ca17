"""Capabilities and securebits as wishes: names and numbers, what a start then does, and what a command line says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import minictr as mc
from minictr import features as f
from minictr import parse
from minictr.cli.build import build
from minictr.errors import SpecError
from minictr.features.capabilities import CAPABILITIES, canonical, mask, number_of, ordered, signed
from minictr.kernel import capabilities as kernel
from minictr.kernel.ops import Encoder
from minictr.plan import plan
from minictr.securebits import SECUREBITS, bits, names, normal
from minictr.spec import Spec
from minictr.steps import PARENT_PHASES

BOX = Spec(("true",), mc.profiles.DEFAULT, "/srv/root").without("seccomp")
ROWS = ("known_capabilities", "bounding", "keep_caps", "setresuid", "capset", "ambient", "securebits")


def made(*wanted: f.Feature) -> list[mc.Step]:
    """The steps that matter here."""
    return [step for step in plan(BOX.with_(*wanted)) if step.call in (*ROWS, "verify_caps", "verify_securebits")]


def args(*wanted: f.Feature) -> dict[str, dict[str, object]]:
    return {f"{step.feature}.{step.call}": step.args for step in made(*wanted)}


@given(st.integers(0, 63), st.sampled_from(("", "CAP_", "cap_", "Cap_")))
def test_a_number_is_a_capability_whether_it_has_a_name_or_not(number: int, prefix: str) -> None:
    name = canonical(f"{prefix}{number}")
    assert name == (CAPABILITIES[number] if number <= 40 else f"cap_{number}")
    assert number_of(name) == number and canonical(name) == name
    assert mask((name,)) == 1 << number == kernel.mask((name,)) and kernel.names(1 << number) == (name,)


@pytest.mark.parametrize("name", ["64", "cap_64", "cap_", "cap_4x", "0041", "+41", "41 ", "9" * 5000, 41, None])
def test_what_is_no_capability(name: object) -> None:
    with pytest.raises(SpecError, match="^capability: ") as caught:
        canonical(name)
    assert len(str(caught.value)) < 200
    if isinstance(name, str):
        with pytest.raises(SpecError):
            kernel.mask((name,))


def test_the_two_tables_are_one() -> None:
    assert kernel.NAMES == CAPABILITIES


@given(st.sets(st.integers(0, 63)))
def test_any_set_fits_into_an_op(numbers: set[int]) -> None:
    wish = f.Capabilities(tuple(map(str, numbers)))
    assert [number_of(name) for name in wish.bounding] == sorted(numbers) and ordered(wish.bounding) == wish.bounding
    encoder = Encoder()
    for step in made(wish):
        if step.phase not in PARENT_PHASES:
            encoder.add(step.call, step.args)
    assert signed(mask(wish.bounding)) % (1 << 64) == sum(1 << number for number in numbers)


def test_what_the_kernel_may_not_have_is_asked_first() -> None:
    assert "capabilities.known_capabilities" not in args(f.Capabilities(CAPABILITIES[:38]))
    assert args(f.Capabilities(("BPF", "KILL", "41")))["capabilities.known_capabilities"] == {
        "names": ("BPF", "cap_41")
    }
    # all but a few: all that there are
    assert "capabilities.known_capabilities" not in args(f.Capabilities(CAPABILITIES, drop_only=True))
    broad = f.Capabilities((*CAPABILITIES, "50"), drop_only=True)
    assert args(broad)["capabilities.known_capabilities"] == {"names": ("cap_50",)}


def test_one_capability_is_a_part() -> None:
    wish = f.Capabilities(("KILL", "41"), inheritable=("41",), ambient=("41",))
    assert wish.parts == ("KILL", "cap_41")
    assert wish.without_part("cap_41") == f.Capabilities(("KILL",))
    assert wish.without_part("CHOWN") == wish
    assert BOX.without("capabilities:KILL").get("capabilities").bounding == tuple(  # type: ignore[union-attr]
        name
        for name in BOX.get("capabilities").bounding
        if name != "KILL"  # type: ignore[union-attr]
    )
    sets = f.Capabilities(("KILL",), effective=(), permitted=("KILL",))
    assert sets.without_part("KILL") == f.Capabilities((), effective=(), permitted=())


# --- securebits ---


def test_securebits_have_the_numbers_of_the_header() -> None:
    # linux/securebits.h: SECURE_NOROOT 0, NO_SETUID_FIXUP 2, KEEP_CAPS 4, NO_CAP_AMBIENT_RAISE 6, EXEC_RESTRICT_FILE 8,
    # EXEC_DENY_INTERACTIVE 10, each with its lock one above
    assert list(SECUREBITS.values()) == [1 << n for n in range(12)]
    assert SECUREBITS["noroot_locked"] == 0x2 and SECUREBITS["no_cap_ambient_raise"] == 0x40
    assert names(0x2F) == ("noroot", "noroot_locked", "no_setuid_fixup", "no_setuid_fixup_locked", "keep_caps_locked")
    assert names(1 << 12) == ("bit_12",)
    assert bits(normal(("SECBIT_NOROOT", "no-setuid-fixup"))) == 0x5


@pytest.mark.parametrize("word", ["", "root", "keep_caps", "keep-caps", "noroot ", "0x1", None, "x" * 500])
def test_what_is_no_securebit(word: object) -> None:
    with pytest.raises(SpecError, match="^securebits: ") as caught:
        normal((word,))
    assert len(str(caught.value)) < 400


def test_securebits_that_say_nothing_or_two_things() -> None:
    for on, off in (((), ()), (("noroot",), ("noroot",))):
        with pytest.raises(SpecError, match="securebits: "):
            f.Securebits(on, off)


def test_setpcap_is_left_for_securebits_and_then_goes() -> None:
    wish = f.Securebits(("no_cap_ambient_raise",))
    for capabilities in (f.Capabilities(("KILL",)), f.Capabilities(("KILL",), drop_only=True)):
        for user in ("0", "1000"):
            found = [f"{step.feature}.{step.call}" for step in made(capabilities, wish, f.Identity(user))]
            if capabilities.drop_only and user == "0":
                assert "capabilities.capset" not in found and "securebits.capset" not in found
                continue
            assert found[-6:-2] == [
                f"capabilities.{ROWS[4]}",
                "capabilities.ambient",
                *(f"securebits.{call}" for call in ("securebits", "capset")),
            ]
            sets = args(capabilities, wish, f.Identity(user))
            kept = 1 << 5 if user == "0" else 0
            assert sets["capabilities.capset"]["permitted"] == kept | 1 << 8
            assert sets["securebits.capset"]["permitted"] == kept == sets["capabilities.verify_caps"]["permitted"]


def test_under_noroot_root_begins_with_what_execve_would_leave() -> None:
    wish = f.Capabilities(("KILL", "CHOWN"), inheritable=("KILL",), ambient=("KILL",))
    assert args(wish)["capabilities.capset"]["effective"] == 0x21
    assert args(wish, f.Securebits(("noroot",)))["securebits.capset"]["effective"] == 0x20
    assert args(wish, f.Securebits(("noroot_locked",)))["securebits.capset"]["effective"] == 0x21


# --- the command line ---


def spec(*options: tuple[str, object]) -> Spec:
    return build({"rootfs": "/", **dict(options)}, ("true",), terminal=False)


@pytest.mark.parametrize(
    ("user", "ambient"),
    [("", ()), ("0", ()), ("00:5", ()), ("root", ()), ("1000", ("NET_RAW",)), ("alice:0", ("NET_RAW",))],
)
@pytest.mark.parametrize("profile", ["default", "docker", "lxc"])
def test_what_is_added_for_a_user_is_ambient(profile: str, user: str, ambient: tuple[str, ...]) -> None:
    opts = [("profile", profile), ("cap_add", ["net_raw"]), *([("user", user)] if user else [])]
    found = spec(*opts).get("capabilities")
    assert isinstance(found, f.Capabilities)
    assert "NET_RAW" in found.bounding and found.ambient == found.inheritable == ambient
    assert found.drop_only is (profile == "lxc" and not ambient)


def test_all_is_never_ambient() -> None:
    found = spec(("cap_add", ["ALL"]), ("user", "1000")).get("capabilities")
    assert isinstance(found, f.Capabilities) and found.drop_only and found.ambient == ()
    found = spec(("cap_add", ["ALL", "kill"]), ("cap_drop", ["chown"]), ("user", "1000")).get("capabilities")
    assert isinstance(found, f.Capabilities) and found.ambient == ("KILL",) and "CHOWN" not in found.bounding


def test_securebits_as_setpriv_has_them() -> None:
    wish = parse.securebits(["+noroot,+noroot-locked", "-no_setuid_fixup,-NOROOT"])
    assert wish == f.Securebits(("noroot_locked",), ("noroot", "no_setuid_fixup"))
    assert spec(("securebits", ["+noroot"])).get("securebits") == f.Securebits(("noroot",))
    assert spec(("securebits", ["+noroot"]), ("privileged", True)).get("securebits") == f.Securebits(("noroot",))
    for text, told in (
        ("noroot", "has no sign"),
        ("", "has no sign"),
        ("+", "is not one of"),
        ("+keep_caps", "execve"),
    ):
        with pytest.raises(SpecError, match=f"^--securebits: securebits: .*{told}"):
            spec(("securebits", [text]))
