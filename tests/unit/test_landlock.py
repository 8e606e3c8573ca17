"""The wish landlock, its options and its place in a plan: pure, no kernel needed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import minictr as mc
from minictr import rights
from minictr.cli import options
from minictr.cli.build import build
from minictr.cli.fastparse import parse
from minictr.errors import SpecError
from minictr.parse import landlock as words
from minictr.plan import plan
from minictr.rights import ACCESS, NETWORK, READ, SCOPES
from minictr.spec import Spec
from minictr.steps import EXEC, LOCK, PREPARE

RUN = options.TABLES["run"]


def steps(wish: mc.Feature, *others: mc.Feature) -> list[mc.Step]:
    """What WISH adds to the plan of a program in the host's root."""
    return [step for step in plan(Spec(("true",), (*others, wish))) if step.feature == "landlock"]


def built(line: str, rootfs: str = "") -> Spec:
    given = [*line.split(), *(("--rootfs", rootfs) if rootfs else ()), "--", "cmd"]
    opts, command = parse(given, RUN)
    return build(opts, command, False)


def wish(line: str, rootfs: str = "/image") -> mc.Landlock:
    return built(line, rootfs).get("landlock")


# --- the wish ---


def test_paths_deny_everything_else() -> None:
    assert mc.Landlock(ro=("/usr",)).denied == tuple(ACCESS)
    assert mc.Landlock(rules=(("/usr", ("execute",)),)).denied == tuple(ACCESS)
    assert mc.Landlock(bind=()).denied == ()
    assert mc.Landlock(bind=(), connect=(80,)).network == ("bind_tcp", "connect_tcp")
    assert mc.Landlock(access=("make-dir", "execute")).access == ("execute", "make_dir")


def test_the_steps() -> None:
    made = steps(mc.Landlock(("/usr",), ("/tmp",), (("/a", ("make-dir",)),), None, (80,), (80, 443), ("signal",)))
    assert [(step.call, step.about) for step in made] == [
        ("landlock_abi", " ".join((*ACCESS, *NETWORK, "signal"))),
        ("landlock_ruleset", " ".join((*ACCESS, *NETWORK, "signal"))),
        ("landlock_path", "/usr: execute read_file read_dir"),
        ("landlock_path", "/tmp: all"),
        ("landlock_path", "/a: make_dir"),
        ("landlock_port", "80: bind_tcp connect_tcp"),
        ("landlock_port", "443: connect_tcp"),
        ("landlock_restrict", "for good"),
    ]
    assert made[1].args == {"into": "landlock", "fs": (1 << 16) - 1, "net": 3, "scoped": 2}
    assert [step.args["rights"] for step in made[2:7]] == [0b1101, (1 << 16) - 1, 1 << 7, 3, 2]
    assert [step.args["flags"] for step in made[2:5]] == [1, 1, 0], "a right by name is never left out by itself"
    assert all(not step.tolerate for step in made)
    assert all(step.tolerate == (2,) for step in steps(mc.Landlock(("/a",), ignore_missing=True))[2:3])


def test_only_the_rights_that_are_denied_are_allowed() -> None:
    made = steps(mc.Landlock(("/usr",), ("/tmp",), access=("read_dir", "make_reg")))
    assert [step.about for step in made if step.call == "landlock_path"] == ["/usr: read_dir", "/tmp: all"]
    made = steps(mc.Landlock(("/usr",), access=("make_reg",)))
    assert not [step for step in made if step.call == "landlock_path"], "reading is free everywhere"


def test_with_no_new_privs_it_is_last_but_the_filter() -> None:
    made = list(plan(Spec(("true",), (mc.NoNewPrivs(), mc.Seccomp(bytes(8)), mc.Landlock(("/",))))))
    assert [step.call for step in made[-4:]] == ["landlock_restrict", "ready", "seccomp", "exec"]
    assert made[-4].phase == EXEC
    assert made[0].phase == PREPARE and made[0].args["admin"] is False


def test_without_no_new_privs_it_is_before_the_filter_and_before_capabilities_go() -> None:
    features = [f for f in mc.profiles.DEFAULT if f.name not in ("no_new_privs", "seccomp")]
    made = list(plan(Spec(("true",), (*features, mc.Seccomp(bytes(8)), mc.Landlock(("/",))), "/srv/root")))
    calls = [step.call for step in made]
    places = [calls.index(call) for call in ("landlock_path", "landlock_restrict", "seccomp", "bounding", "setresuid")]
    assert places == sorted(places)
    assert made[calls.index("landlock_restrict")].phase == LOCK
    assert made[calls.index("landlock_abi")].args["admin"] is True
    inside = plan(Spec(("true",), (mc.UserNamespace(), mc.Landlock(("/",)))))
    assert next(step for step in inside if step.call == "landlock_abi").args["admin"] is False


def test_paths_are_opened_before_the_user_changes_and_after_the_last_mount() -> None:
    made = plan(Spec(("true",), (*mc.profiles.DEFAULT, mc.Landlock(("/",), log=True)), "/srv/root"))
    calls = [step.call for step in made]
    order = ["landlock_abi", "pivot_root", "readonly_path", "landlock_ruleset", "landlock_path", "setresuid"]
    assert [calls.index(call) for call in order] == sorted(calls.index(call) for call in order)
    assert next(step for step in made if step.call == "landlock_restrict").args["flags"] == 2


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: mc.Landlock(), "nothing is denied"),
        (lambda: mc.Landlock(access=()), "nothing is denied"),
        (lambda: mc.Landlock(ignore_missing=True), "nothing is denied"),
        (lambda: mc.Landlock(("/a",), access=(), bind=()), "no access is denied"),
        (lambda: mc.Landlock("/a"), "not a tuple"),
        (lambda: mc.Landlock(("a",)), "relative"),
        (lambda: mc.Landlock(rw=("/a/../b",)), r"'\.\.'"),
        (lambda: mc.Landlock(rw=("/a\0",)), "NUL"),
        (lambda: mc.Landlock(rules=(("/a", ()),)), "allows nothing"),
        (lambda: mc.Landlock(rules=("/a",)), "not a tuple"),
        (lambda: mc.Landlock(rules=(("/a",),)), "not .path, rights."),
        (lambda: mc.Landlock(rules=(("/a", ("read",)),)), "rule /a: 'read' is not one of execute, write_file"),
        (lambda: mc.Landlock(rules=(("/a", ("execute",)),), access=("make_dir",)), "execute is not denied by access"),
        (lambda: mc.Landlock(access=("net",)), "not one of"),
        (lambda: mc.Landlock(access="execute"), "not a tuple"),
        (lambda: mc.Landlock(access=(1,)), "not one of"),
        (lambda: mc.Landlock(bind=(65536,)), "not between 0 and 65535"),
        (lambda: mc.Landlock(bind=80), "not a tuple"),
        (lambda: mc.Landlock(connect=("80",)), "not a whole number"),
        (lambda: mc.Landlock(scopes=("ptrace",)), "not one of abstract_unix_socket, signal"),
    ],
)
def test_what_cannot_be_right(make: object, told: str) -> None:
    with pytest.raises(SpecError, match=f"landlock.*{told}"):
        make()  # type: ignore[operator]


FULL = mc.Landlock(
    ("/r",), ("/w",), (("/x", ("execute", "refer")),), tuple(ACCESS), (1,), (2,), tuple(SCOPES), log=True
)


@pytest.mark.parametrize("part", FULL.parts)
def test_each_part_can_be_left_out(part: str) -> None:
    less = FULL.without_part(part)
    assert less is not None
    assert set(FULL.parts) - set(less.parts) == {part}
    assert all(part not in allowed for _, allowed in less.rules)
    assert less.without_part(part) is less
    spec = Spec(("true",), (FULL,)).without(f"landlock:{part}")
    assert spec.features == (less,)


def test_when_nothing_is_left_the_wish_is_gone() -> None:
    assert mc.Landlock(bind=()).without_part("bind_tcp") is None
    assert mc.Landlock(access=("refer",)).without_part("refer") is None
    assert mc.Landlock(scopes=("signal",), log=True).without_part("signal") is None
    assert Spec(("true",), (mc.Landlock(bind=(80,)),)).without("landlock:bind_tcp").features == ()
    whole = Spec(("true",), (FULL,))
    assert whole.without("landlock:nosuch") == whole
    assert whole.without(*(f"landlock:{part}" for part in FULL.parts)).features == ()


@given(st.sets(st.sampled_from(FULL.parts)), st.sets(st.sampled_from(FULL.parts)))
def test_parts_leave_in_any_order(some: set[str], others: set[str]) -> None:
    def without(spec: Spec, parts: set[str]) -> Spec:
        return spec.without(*(f"landlock:{part}" for part in parts))

    whole = Spec(("true",), (FULL,))
    assert without(without(whole, some), others) == without(whole, some | others)


def test_other_features_have_no_parts() -> None:
    spec = Spec(("true",), (mc.Tmpfs("/run"), mc.NoNewPrivs()))
    assert spec.without("tmpfs:/nosuch", "no_new_privs:x") == spec
    assert all(feature.parts == () for feature in spec.features)


# --- the table ---


def test_the_table() -> None:
    assert [bit for bit, _ in ACCESS.values()] == list(range(16))
    assert set(READ) | set(rights.OF_FILES) <= set(ACCESS)
    assert all(rights.names(rights.bits((name,), table), table) == (name,) for table in TABLES for name in table)
    needed = {abi for table in TABLES for _, abi in table.values()} | {rights.LOG_ABI}
    assert needed <= set(rights.LINUX)
    assert rights.abi_of("refer") == 2 and rights.abi_of("signal") == 6 and rights.abi_of("log") == 7


TABLES = (ACCESS, NETWORK, SCOPES)


# --- options ---


def test_access_and_rule_as_setpriv_has_them() -> None:
    assert words.access("fs") == tuple(ACCESS)
    assert words.access("fs:remove-file,remove-dir,make_dir") == ("remove_dir", "remove_file", "make_dir")
    assert words.rule("path-beneath:read-file:/boot") == ("/boot", ("read_file",))
    assert words.rule("path-beneath::/a:b") == ("/a:b", ())


def test_what_the_options_make() -> None:
    assert wish("") is None
    assert wish("--ro /usr --ro /etc --rw /tmp") == mc.Landlock(("/usr", "/etc"), ("/tmp",))
    assert wish("--landlock-bind 80 --landlock-bind 81 --landlock-connect none") == mc.Landlock(
        bind=(80, 81), connect=()
    )
    assert wish("--landlock-connect 443 --landlock-connect 80") == mc.Landlock(connect=(80, 443))
    assert wish("--landlock-bind none --landlock-bind 80") == mc.Landlock(bind=(80,))
    assert wish("--landlock-scope signal --landlock-scope abstract-unix-socket").scopes == tuple(SCOPES)
    assert wish("--ro /a --landlock-ignore-missing --landlock-log") == mc.Landlock(
        ("/a",), ignore_missing=True, log=True
    )
    assert wish("--landlock-access fs:make-dir --landlock-access fs:make-reg").access == ("make_dir", "make_reg")
    rule = wish("--landlock-access fs:make-dir,execute --landlock-rule path-beneath::/tmp")
    assert rule.rules == (("/tmp", ("execute", "make_dir")),)


def test_the_profile_is_closed_and_opened_by_name() -> None:
    closed = wish("--profile landlock", "")
    assert (closed.denied, closed.bind, closed.connect, closed.scopes) == (tuple(ACCESS), (), (), tuple(SCOPES))
    more = wish("--profile landlock --ro / --landlock-connect 443 --landlock-scope signal", "")
    assert more == closed.replace(ro=("/",), connect=(443,))
    less = wish("--profile landlock --ro / --without landlock:connect_tcp", "")
    assert less == closed.replace(ro=("/",), connect=None)
    assert wish("--profile landlock --without landlock", "") is None


def test_paths_of_the_hosts_root_may_be_relative(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/usr")
    line = "--profile landlock --ro lib --rw ./share/../bin --landlock-rule path-beneath:execute:sbin"
    for rootfs in ("", "/"):
        made = wish(line, rootfs)
        assert (made.ro, made.rw, made.rules) == (("/usr/lib",), ("/usr/bin",), (("/usr/sbin", ("execute",)),))
        plan(built(line, rootfs))
    with pytest.raises(SpecError, match=r"--ro.*landlock ro: 'lib' is relative"):
        wish("--ro lib")


def test_another_root_must_be_entered() -> None:
    with pytest.raises(SpecError, match="is not entered without pivot_root or chroot"):
        plan(built("--profile landlock --ro /", "/image"))
    assert "chroot" in built("--profile landlock --with chroot --ro /", "/image").names


def test_privileged_has_none_but_what_is_named() -> None:
    assert "landlock" not in built("--profile landlock --privileged").names
    assert wish("--privileged --ro /usr") == mc.Landlock(("/usr",))


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("--ro / --without landlock:nosuch", "no such mount, nor such a part of a feature"),
        ("--without landlock:refer", "no such mount, nor such a part of a feature"),
        ("--landlock-ignore-missing", "nothing is denied"),
        ("--landlock-access fs:execute --landlock-rule path-beneath:make-dir:/", "make_dir is not denied by access"),
        ("--with landlock", "needs settings: use --ro"),
    ],
)
def test_options_that_cannot_be_right(line: str, told: str) -> None:
    with pytest.raises(SpecError, match=told):
        built(line, "/image")
