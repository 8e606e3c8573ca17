"""The plan: its order, its contradictions, its words, its differences."""

from __future__ import annotations

import json
from importlib import import_module

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minictr.errors import SpecError
from minictr.features.process import PATH
from minictr.kernel.ops import MAX_SLOTS, Encoder
from minictr.plan import ORDER, Plan, plan, rank
from minictr.search import candidates
from minictr.spec import Spec
from minictr.steps import EXEC, LOCK, PARENT_PHASES, PHASES, SETUP, Feature, Step

f = import_module("minictr.features")  # mc.features is the front door's function of that name

MAPS = ((0, 100000, 65536),)
BOX = Spec(("true",), f.DEFAULT, "/srv/root")
USERNS = f.UserNamespace(MAPS, MAPS)


def position(made: Plan, call: str, feature: str = "", about: str = "") -> int:
    found = [
        index
        for index, step in enumerate(made)
        if step.call == call and feature in ("", step.feature) and about in step.about
    ]
    assert found, f"no step {call} {feature} {about}"
    return found[0]


def calls(made: Plan, phase: int | None = None) -> list[str]:
    return [step.call for step in made if phase in (None, step.phase)]


# --- order ---


def test_order_names_each_place_once_and_gives_reasons() -> None:
    places = [(phase, call) for phase, names, _ in ORDER for call in names]
    assert len(places) == len(set(places))
    assert [phase for phase, _, _ in ORDER] == sorted(phase for phase, _, _ in ORDER)
    assert all(reason for _, _, reason in ORDER)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (("pdeathsig", "start"), ("barrier", "")),
        (("barrier", ""), ("propagation", "")),
        (("propagation", ""), ("open_tree", "")),
        (("open_tree", "bind"), ("root_attach", "")),
        (("root_attach", ""), ("pivot_root", "")),
        (("pivot_root", ""), ("mount", "")),
        (("mount", "dev"), ("mknod", "")),
        (("mount", "devpts"), ("symlink", "devpts")),
        (("write_file", "sysctl"), ("mask", "")),
        (("mask", ""), ("readonly_path", "")),
        (("readonly_path", ""), ("remount", "")),
        (("chdir", ""), ("remount", "")),
        (("remount", ""), ("init", "")),
        (("init", ""), ("setsid", "")),
        (("setsid", ""), ("console", "")),
        (("bounding", ""), ("setgroups", "")),
        (("setgroups", ""), ("setresgid", "")),
        (("setresgid", ""), ("setresuid", "")),
        (("setresuid", ""), ("capset", "")),
        (("capset", ""), ("ambient", "")),
        (("ambient", ""), ("no_new_privs", "")),
        (("no_new_privs", ""), ("verify_caps", "")),
        (("verify_caps", ""), ("exec", "")),
    ],
)
def test_what_comes_before_what(before: tuple[str, str], after: tuple[str, str]) -> None:
    made = plan(BOX.with_(f.Bind("/x", "/y"), f.Cwd("/w"), f.ReadonlyRoot(), f.Tty(), f.OomScoreAdj(5)))
    assert position(made, *before) < position(made, *after)


def test_a_barrier_stands_where_there_is_something_to_attach_and_nowhere_else() -> None:
    assert "barrier" not in calls(plan(BOX))
    assert "barrier" in calls(plan(BOX.with_(USERNS)))


def test_with_no_new_privs_seccomp_is_last() -> None:
    made = plan(BOX.with_(f.Seccomp(bytes(8))))
    assert calls(made)[-2:] == ["seccomp", "exec"]
    assert made.steps[-2].phase == EXEC


def test_without_no_new_privs_seccomp_is_before_capabilities_go() -> None:
    made = plan(BOX.without("no_new_privs").with_(f.Seccomp(bytes(8))))
    assert made.steps[position(made, "seccomp")].phase == LOCK
    assert position(made, "seccomp") < position(made, "bounding") < position(made, "setresuid")
    assert "verify_no_new_privs" not in calls(made)


def test_parents_are_mounted_before_children_and_else_as_given() -> None:
    spec = BOX.with_(f.Bind("/1", "/a/b/c"), f.Tmpfs("/z"), f.Tmpfs("/a/b"), f.Bind("/2", "/a"), f.Bind("/3", "/dev/x"))
    paths = [step.args["path"] for step in plan(spec) if step.call in ("mount", "attach")]
    assert paths.index("/a") < paths.index("/a/b") < paths.index("/a/b/c")
    assert paths.index("/dev") < paths.index("/dev/x")
    assert paths.index("/z") < paths.index("/a")
    assert paths.index("/proc") < paths.index("/sys") < paths.index("/dev")


def test_a_user_namespace_opens_host_paths_before_it_changes_its_user() -> None:
    made = plan(BOX.with_(USERNS, f.Overlay(), f.Bind("/x", "/y"), f.TimeNamespace(5)))
    assert position(made, "write_file", "timens") < position(made, "setresuid", "userns")
    assert position(made, "open_tree", "bind") < position(made, "setresuid", "userns") < position(made, "overlay")
    assert "mknod" not in calls(made)
    assert [step.about for step in made if step.call == "attach" and step.feature == "dev"]
    assert position(made, "write_file", "timens") < position(made, "setns_time") < position(made, "pivot_root")


def test_mounts_a_user_namespace_cannot_make_are_bound() -> None:
    spec = BOX.with_(USERNS).without("net", "pid", cascade=True)
    made = plan(spec)
    assert {step.args["path"] for step in made if step.call == "open_tree"} >= {"/proc", "/sys"}
    assert not any(step.call == "mount" and step.args["fstype"] in ("proc", "sysfs") for step in made)


def test_a_single_id_map_denies_setgroups() -> None:
    made = plan(BOX.with_(f.UserNamespace()))
    assert made.steps[position(made, "gid_map")].args == {"map": "", "setgroups": "deny"}
    assert "setgroups" not in calls(made)
    assert "verify_ids" not in calls(made)
    assert not any("gid=" in option for step in made if step.call == "mount" for option in step.args["options"])


def test_capabilities_of_a_non_root_user_are_kept_across_the_change() -> None:
    assert "keep_caps" not in calls(plan(BOX))
    made = plan(BOX.with_(f.Identity("1000:1000")))
    assert position(made, "keep_caps") < position(made, "setresuid")


def test_drop_only_sets_nothing_but_the_bounding_set() -> None:
    made = plan(BOX.with_(f.Capabilities(("CHOWN",), drop_only=True)))
    assert "capset" not in calls(made)
    assert made.steps[position(made, "verify_caps")].args["bounding"] == 1


def test_death_signals() -> None:
    assert [step.args["signal"] for step in plan(BOX) if step.call == "pdeathsig"] == [9]
    assert plan(BOX).steps[-1].call == "exec"
    no_init = BOX.without("init")
    assert [step.args["signal"] for step in plan(no_init) if step.call == "pdeathsig"] == [9, 0]
    wish = f.Pdeathsig("TERM")
    assert [step.args["signal"] for step in plan(no_init.with_(wish)) if step.call == "pdeathsig"] == [9, 15]
    made = plan(BOX.with_(wish))
    assert [step.args["signal"] for step in made if step.call == "pdeathsig"] == [9, 15]
    assert made.steps[position(made, "init")].args["flags"] & 1
    shared = plan(BOX.without("pid").with_(wish))
    assert [(step.phase, step.args["signal"]) for step in shared if step.call == "pdeathsig"][1:] == [
        (SETUP, 15),
        (LOCK, 9),
    ]
    assert position(shared, "subreaper") < position(shared, "init")


def test_shared_mounts_are_cut_from_the_host_first() -> None:
    made = plan(BOX.with_(f.MountNamespace("shared")))
    flags = [step.args["flags"] for step in made if step.call == "propagation"]
    assert flags == [0x4000 | 1 << 18, 0x4000 | 1 << 20]


def test_joining() -> None:
    joined = Spec(
        ("sh",),
        (
            f.UserNamespace(join="/proc/7/ns/user"),
            f.MountNamespace(join="/proc/7/ns/mnt"),
            f.PidNamespace(join="/proc/7/ns/pid"),
            f.NetNamespace(join="/proc/7/ns/net"),
            f.UtsNamespace(),
        ),
    )
    made = plan(joined)
    assert calls(made)[:5] == ["open_namespace"] * 4 + ["enter_pidns"]
    assert [step.args["fd"] for step in made if step.call == "setns"] == ["ns:user", "ns:mnt", "ns:net"]
    assert "clone" not in calls(made)
    assert made.steps[position(made, "unshare")].feature == "uts"


def test_chroot_without_and_with_a_mount_table() -> None:
    bare = plan(Spec(("true",), f.BARE, "/srv/root"))
    assert calls(bare) == ["pdeathsig", "chroot", "sigreset", "stdio", "pdeathsig", "ready", "exec"]
    assert bare.steps[1].args == {"path": "/srv/root"}
    mounted = plan(Spec(("true",), (f.Chroot(), f.MountNamespace()), "/"))
    assert position(mounted, "root_attach") < position(mounted, "chroot")
    assert mounted.steps[position(mounted, "chroot")].args == {"path": "."}


# --- exec ---


def test_programs_are_looked_for_in_the_container_s_own_path() -> None:
    env = f.Env((("PATH", "/opt/bin::bin:/usr/bin/"),))
    last = plan(BOX.with_(env)).steps[-1]
    assert last.args["paths"] == ["/opt/bin/true", "./true", "bin/true", "/usr/bin/true"]
    assert candidates("./a", "/bin") == ["./a"]
    assert plan(BOX.replace(argv=("bin/true",))).steps[-1].args["paths"] == ["bin/true"]
    assert "/usr/bin/true" in plan(BOX).steps[-1].args["paths"]


def test_environment() -> None:
    def env(spec: Spec) -> dict[str, str]:
        return dict(text.split("=", 1) for text in plan(spec).steps[-1].args["env"])

    caller = BOX.replace(environ=("PATH=/x", "SECRET=1", "=broken", "none"))
    assert env(caller) == {"PATH": PATH, "HOSTNAME": "minictr"}
    assert env(caller.without("env")) == {"PATH": "/x", "SECRET": "1"}
    assert env(caller.with_(f.Env((("SECRET", "2"),), clear=False))) == {"PATH": "/x", "SECRET": "2"}
    home = f.Identity("me", 1000, 1000, home="/home/me")
    assert env(caller.with_(home, f.Tty()))["HOME"] == "/home/me"
    assert env(caller.with_(home, f.Tty()))["TERM"] == "xterm"
    assert env(caller.with_(home, f.Env((("HOME", "/"),))))["HOME"] == "/"
    assert "HOME" not in env(caller.without("env").with_(home))


# --- words ---


@pytest.mark.parametrize("profile", f.PROFILES)
def test_str_is_one_aligned_line_a_step(profile: str) -> None:
    made = plan(Spec(("sh", "-c", "a\nb" * 100), f.PROFILES[profile], "" if profile == "landlock" else "/srv/root"))
    lines = str(made).split("\n")
    assert len(lines) == len(made) == len(list(made))
    for number, (line, step) in enumerate(zip(lines, made, strict=True), 1):
        assert line.split()[:3] == [str(number), PHASES[step.phase], step.call]
        assert line.endswith(step.feature)
    starts = {line.rindex(step.feature) for line, step in zip(lines, made, strict=True)}
    assert len(starts) == 1


def test_json_is_plain_and_complete() -> None:
    made = plan(BOX.with_(f.Seccomp(bytes(16)), f.Bind("/s", "/t", "ro")))
    rows = json.loads(json.dumps(made.json()))
    assert [row["call"] for row in rows] == calls(made)
    program = next(row for row in rows if row["call"] == "seccomp")["args"]["program"]
    assert program["length"] == 16
    assert len(program["sha256"]) == 12
    assert next(row["about"] for row in rows if row["call"] == "attach") == "bind /s -> /t ro"


def test_every_step_says_what_about() -> None:
    silent = {"setsid", "no_new_privs", "verify_no_new_privs", "subreaper"}
    for name in f.PROFILES:
        for step in plan(Spec(("true",), f.PROFILES[name], "" if name == "landlock" else "/srv/root")):
            assert step.about or step.call in silent
            assert step.feature


def test_diff_is_the_ablation() -> None:
    less = BOX.without("net", cascade=True)
    diff = plan(BOX).diff(plan(less))
    assert {step.feature for step in diff.removed} == {"net", "loopback", "sysctl"}
    assert diff.added == ()
    assert str(diff).startswith("@@ step ")
    assert all(line.startswith(("@@", "-")) for line in str(diff).split("\n"))
    back = plan(less).diff(plan(BOX))
    assert (back.added, back.removed) == (diff.removed, ())
    assert not plan(BOX).diff(plan(BOX))
    assert str(plan(BOX).diff(plan(BOX))) == ""


# --- any wishes at all ---

CANDIDATES: tuple[Feature, ...] = (
    *f.DEFAULT,
    f.Chroot(),
    f.Overlay(),
    f.Overlay(("/l",), "/u"),
    f.Idmap(),
    f.ReadonlyRoot(),
    USERNS,
    f.UserNamespace(),
    f.UserNamespace(auto=65536),
    f.DisableUserns(),
    f.TimeNamespace(1),
    f.MountNamespace("slave"),
    f.Tmpfs("/a/b"),
    f.Bind("/s", "/a", "rro", propagation="slave"),
    f.Bind("/s", "/a/c", idmap=True),
    f.Domainname("d"),
    f.Cwd("/w"),
    f.OomScoreAdj(0),
    f.Personality(),
    f.Tty(),
    f.Pdeathsig(),
    f.Identity("1000:1000"),
    f.Capabilities(("KILL",), drop_only=True),
    f.Seccomp(bytes(8)),
    f.Memory("1M"),
    f.Cpu(1),
    f.Devices(),
    f.Device("/dev/a/b", "c", 1, 3),
    f.NamedCgroup("unified"),
    f.CgroupParent("a"),
    f.Cgroupfs("rw"),
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from(CANDIDATES), max_size=50, unique=True),
    st.sampled_from(("", "/srv/root")),
    st.booleans(),
)
def test_any_wishes_are_a_sound_plan_or_a_spec_error(wishes: list[Feature], rootfs: str, default: bool) -> None:
    spec = Spec(("true",), f.DEFAULT if default else (), rootfs).with_(*wishes)
    try:
        made = plan(spec)
    except SpecError:
        return
    assert list(made) == sorted(made, key=lambda step: (step.phase, *rank(step)))
    assert made == plan(spec)
    assert made.steps[-1].call == "exec"
    assert {step.feature for step in made} <= spec.names | {"start", "exec"}
    encoder = Encoder()
    opened: set[str] = set()
    for step in made:
        if step.phase in PARENT_PHASES:
            continue
        encoder.add(step.call, step.args, step.tolerate)
        opened |= {step.args["into"]} if "into" in step.args else set()
        assert step.args.get("tree", "") in opened | {""}
    assert len(encoder.slots) <= MAX_SLOTS
    no_host_path_after_the_root_changed(list(made))


def no_host_path_after_the_root_changed(steps: list[Step]) -> None:
    changed = False
    for step in steps:
        changed = changed or step.call in ("pivot_root", "chroot")
        assert not (changed and step.call in ("open_tree", "overlay", "root_attach"))


@settings(deadline=None)
@given(st.sampled_from(f.DEFAULT))
def test_leaving_a_feature_out_removes_its_steps_and_nothing_else(feature: Feature) -> None:
    try:
        less = plan(BOX.without(feature))
    except SpecError:
        return  # something stands on it
    diff = plan(BOX).diff(less)
    touched = {step.feature for step in (*diff.added, *diff.removed)}
    # what stands beside it may say so: the environment, init's flags, the last signal, the order of the filter
    # and a cgroup namespace need not wait for a group where there is none
    assert touched <= {feature.name, "exec", "init", "start", "cgroupns", "seccomp"}
    assert feature.name not in {step.feature for step in less}


def test_the_kernels_mounts_come_after_what_links_may_lead_below_them() -> None:
    """By name: /proc, /sys and /dev last, in depth, with what is wished for below them."""
    wishes = (f.Bind("/a", "/data/x"), f.Tmpfs("/devices"), f.Bind("/b", "/data"), f.Bind("/c", "/dev/shm/x"))
    made = plan(BOX.with_(*wishes))
    placed = [step.args["path"] for step in made if step.call in ("mount", "attach")]
    assert placed[:3] == ["/devices", "/data", "/data/x"]
    assert placed.index("/dev") < placed.index("/dev/shm") < placed.index("/dev/shm/x")
    calls = [step.call for step in made]
    assert calls.index("verify_mount") > max(i for i, call in enumerate(calls) if call in ("mount", "attach"))
    assert calls.count("verify_mount") == len(wishes)


@pytest.mark.parametrize(
    ("source", "kept"),
    [
        ("/dev", True),
        ("/dev/", True),
        ("/dev/snd", True),
        ("/dev/shm/x", False),
        ("/dev/../srv", False),
        ("/devil", False),
    ],
)
def test_binds_of_the_hosts_devices_keep_their_nodes(source: str, kept: bool) -> None:
    made = plan(BOX.with_(f.NoDev(), f.Bind(source, "/mnt")))
    assert ("/mnt nodev" in [step.about for step in made]) is not kept
    lifted = plan(BOX.with_(f.NoDev(), f.Bind(source, "/mnt", dev=True)))
    assert "/mnt nodev" not in [step.about for step in lifted]
