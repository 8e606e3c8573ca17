"""Limits as wishes: their normal form, what is refused, and the steps that each adds and nothing else."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minictr.errors import SpecError
from minictr.features.cgroup_devices import DOCKER_RULES, allowed, rule
from minictr.features.controllers import Controller
from minictr.features.namespaces import GROUPED
from minictr.plan import plan
from minictr.spec import Spec, label
from minictr.steps import CLONE, PREPARE, SETUP, Feature

f = import_module("minictr.features")  # mc.features is the front door's function of that name

BARE = Spec(("true",), f.DEFAULT, "/srv/root").without("pids", "cgroupfs")
HYBRID = (
    (1, "cpu,cpuacct", ("cpu", "cpuacct")),
    (1, "memory", ("memory",)),
    (1, "blkio", ("io",)),
    (1, "systemd", ("named:systemd",)),
    (2, "unified", ("pids",)),
)
LIMITS: tuple[Feature, ...] = (
    f.Memory("256M", swap=0),
    f.Cpu(1.5, weight=100),
    f.Cpuset("0"),
    f.Pids(64),
    f.Io(read_bps={"8:0": "1M"}),
    f.Devices(),
    f.Hugetlb({"2MB": 0}),
    f.Rdma(),
    f.Misc(),
    f.Freezer(),
    f.NamedCgroup(),
    f.CgroupConf({"memory.high": "1G"}),
)


def settings_of(feature: Feature, position: int = 0) -> dict[str, Any]:
    """What the hand of its first group is told to write."""
    made = [step for step in plan(BARE.with_(feature)) if step.call == "cgroup"]
    return dict(made[position].args["settings"])


def test_the_controllers_are_known_to_the_namespace() -> None:
    assert {kind.NAME for kind in f.REGISTRY.values() if issubclass(kind, Controller)} == GROUPED - {"cgroup"}


# --- normal form ---


@pytest.mark.parametrize(
    ("feature", "wanted"),
    [
        (f.Memory(), {}),
        (f.Memory("256M", swap=0), {"max": 256 << 20, "swap": 0}),
        (f.Memory("max"), {"max": -1}),
        (f.Memory(4096, swap="unlimited", high=4096), {"max": 4096, "swap": -1, "high": 4096}),
        (f.Memory(low="1g", min=0, swappiness=0), {"low": 1 << 30, "min": 0, "swappiness": 0}),
        (f.Memory(oom_group=False), {"oom_group": 0}),
        (f.Memory("1g", oom_kill=False), {"max": 1 << 30, "oom_kill_disable": 1}),
        (f.Cpu(), {}),
        (f.Cpu(1.5), {"quota": 150000, "period": 100000}),
        (f.Cpu(0.5, period=50000, burst=10), {"quota": 25000, "period": 50000, "burst": 10}),
        (f.Cpu(quota=-1), {"quota": -1}),
        (f.Cpu(quota=2000, period=4000, shares=2), {"quota": 2000, "period": 4000, "shares": 2}),
        (f.Cpu(idle=True), {"idle": 1}),
        (f.Cpuset("0-3,5", "0", "isolated"), {"cpus": "0-3,5", "mems": "0", "partition": "isolated"}),
        (f.Pids(), {}),
        (f.Pids("max"), {"max": -1}),
        (f.Io(500), {"weight": 500}),
        (f.Io(write_iops={(8, 16): 5, "8:0": "2k"}), {"write_iops": (((8, 16), 5), ((8, 0), 2048))}),
        (f.Devices(()), {}),
        (f.Devices(("c *:* rm",)), {"rules": ((True, "c", -1, -1, "rm"),)}),
        (f.Hugetlb({"2MB": "64M", "1GB": "max"}), {"limits": (("2MB", 64 << 20), ("1GB", -1))}),
        (f.Misc({"sev": 4, "sev_es": -1}), {"limits": (("sev", 4), ("sev_es", -1))}),
        (f.CgroupConf({"memory.high": "1G"}), {"files": (("memory.high", "1G"),)}),
    ],
)  # fmt: skip
def test_settings_are_canonical(feature: Feature, wanted: dict[str, Any]) -> None:
    assert settings_of(feature) == wanted
    assert hash(feature) == hash(feature.replace())
    assert feature.replace() == feature


def test_a_size_and_its_bytes_are_one_wish() -> None:
    assert f.Memory("256M") == f.Memory(256 << 20)
    assert f.Io(read_bps={"8:0": "1M"}) == f.Io(read_bps=(((8, 0), 1 << 20),))
    assert f.Cgroupfs() in f.DOCKER
    assert repr(f.Devices()) == "Devices()"
    assert f.CgroupParent("/a//./b/").path == "/a/b"
    assert f.CgroupParent("a/b/").path == "a/b"


def test_docker_s_rules_written_as_text() -> None:
    assert rule("deny a *:* rwm") == DOCKER_RULES[0]
    assert rule("c *:* m") == DOCKER_RULES[1]
    assert rule("allow c 5:1 mwr") == (True, "c", 5, 1, "rwm")


@pytest.mark.parametrize(
    ("device", "wanted"),
    [
        (("c", 1, 3, "rwm"), True),
        (("c", 10, 229, "m"), True),
        (("c", 10, 229, "r"), False),
        (("b", 8, 0, "m"), True),
        (("b", 8, 0, "rm"), False),
        (("c", 136, 7, "rw"), True),
    ],
)
def test_what_docker_s_list_lets_pass(device: Any, wanted: bool) -> None:
    assert allowed(DOCKER_RULES, *device) is wanted
    assert allowed((), *device)
    assert not allowed((*DOCKER_RULES, rule("deny a *:* rwm")), *device)


# --- what cannot be right ---


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: f.Memory("lots"), "memory max: 'lots' is not a size"),
        (lambda: f.Memory(0), "not between 4096"),
        (lambda: f.Memory(-2), "not between"),
        (lambda: f.Memory(True), "not a string"),
        (lambda: f.Memory(1.5), "not a string"),
        (lambda: f.Memory(swap=0), "give max as well"),
        (lambda: f.Memory("max", swap=0), "give max as well"),
        (lambda: f.Memory("1M", low="2M"), "low 2097152 is above max 1048576"),
        (lambda: f.Memory(swappiness=201), "not between 0 and 200"),
        (lambda: f.Memory("1M", oom_group=1), "not True or False"),
        (lambda: f.Memory(oom_kill=False), "give max"),
        (lambda: f.Memory("1M", oom_group=True, oom_kill=False), "no oom_group"),
        (lambda: f.Cpu(0), "not a number of processors"),
        (lambda: f.Cpu("2"), "not a number of processors"),
        (lambda: f.Cpu(float("nan")), "not a number of processors"),
        (lambda: f.Cpu(0.001), "less than the kernel gives"),
        (lambda: f.Cpu(1, quota=5000), "cpus and quota say the same"),
        (lambda: f.Cpu(weight=1, shares=2), "weight and shares say the same"),
        (lambda: f.Cpu(weight=0), "not between 1 and 10000"),
        (lambda: f.Cpu(shares=1), "not between 2 and 262144"),
        (lambda: f.Cpu(quota=0), "not between 1000"),
        (lambda: f.Cpu(period=999), "not between 1000 and 1000000"),
        (lambda: f.Cpu(idle=True, weight=5), "idle has no share"),
        (lambda: f.Cpu(burst=5), "saved up from quota"),
        (lambda: f.Cpu(1, burst=200000), "less burst"),
        (lambda: f.Cpuset("a"), "not a list such as 0-3,5"),
        (lambda: f.Cpuset("3-1"), "not a range that goes up"),
        (lambda: f.Cpuset("0,"), "not a list"),
        (lambda: f.Cpuset("0-99999"), "8191 at most"),
        (lambda: f.Cpuset(mems="-1"), "not a list"),
        (lambda: f.Cpuset(partition="all"), "not one of"),
        (lambda: f.Pids(0), "not between 1"),
        (lambda: f.Pids("64"), "not a whole number"),
        (lambda: f.Io(0), "not between 1 and 10000"),
        (lambda: f.Io(read_bps={"sda": 1}), "write /dev/sda, or MAJOR:MINOR"),
        (lambda: f.Io(read_bps={"8:x": 1}), "write /dev/sda, or MAJOR:MINOR"),
        (lambda: f.Io(read_bps={"8:0": 0}), "not between 1"),
        (lambda: f.Io(read_bps={"8:0": None}), "no number is given"),
        (lambda: f.Io(read_bps={"8:0": 1, (8, 0): 2}), "given twice"),
        (lambda: f.Io(read_bps={(8, 0, 1): 1}), "not .major, minor"),
        (lambda: f.Io(read_bps=7), "not a tuple"),
        (lambda: f.Devices("c 1:3 rwm"), "not a tuple"),
        (lambda: f.Devices(("c 1:3",)), "not KIND MAJOR:MINOR ACCESS"),
        (lambda: f.Devices(("c 1:3 rwx",)), "not made of r"),
        (lambda: f.Devices(("c 1:3 rr",)), "not made of r"),
        (lambda: f.Devices(("x 1:3 r",)), "not one of a, b, c"),
        (lambda: f.Devices(("c x:3 r",)), "write a number or"),
        (lambda: f.Devices(("a 1:* r",)), "kind a is every device"),
        (lambda: f.Devices(("c 4096:1 r",)), "not between"),
        (lambda: f.Devices(((True, "c", 1, 3),)), "not .allow, kind"),
        (lambda: f.Device("/etc/x", "c", 1, 3), "not below /dev"),
        (lambda: f.Device("/dev/x", "p", 1, 3), "not one of b, c"),
        (lambda: f.Hugetlb({"2M": 1}), "not the size of a page"),
        (lambda: f.Hugetlb({"2MB": "x"}), "not a size"),
        (lambda: f.Rdma({"mlx": "hca=1"}), "not hca_handle=N"),
        (lambda: f.Rdma({"m x": "hca_handle=1"}), "not the name of a device"),
        (lambda: f.Misc({"sev": "4"}), "not a whole number"),
        (lambda: f.NamedCgroup("a/b"), "not the name of a hierarchy"),
        (lambda: f.NamedCgroup(""), "empty"),
        (lambda: f.CgroupConf({}), "empty"),
        (lambda: f.CgroupConf({"../x.y": "1"}), "not a file of a group"),
        (lambda: f.CgroupConf({"memory": "1"}), "not a file of a group"),
        (lambda: f.CgroupConf({"cgroup.procs": "1"}), "no limit"),
        (lambda: f.CgroupConf({"memory.high": ""}), "empty"),
        (lambda: f.CgroupConf((("a.b", "1"), ("a.b", "2"))), "given twice"),
        (lambda: f.CgroupParent(".."), "holds '..'"),
        (lambda: f.CgroupParent("/a/../../b"), "holds '..'"),
        (lambda: f.CgroupParent("."), "names no group"),
        (lambda: f.CgroupParent("a" * 256), "255 bytes"),
        (lambda: f.Cgroupfs("wo"), "not one of ro, rw"),
        (lambda: f.Cgroupfs("ro", ((1, "a/b", ()),)), "not .version, directory"),
    ],
)
def test_what_cannot_be_right_is_refused(make: Any, words: str) -> None:
    with pytest.raises(SpecError, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)
    assert not str(caught.value).endswith(".")


SIMPLE = (st.none(), st.integers(), st.text(max_size=8), st.booleans(), st.floats())
ANYTHING = st.one_of(*SIMPLE, st.sampled_from(["64M", "max", -1]))
KINDS = [kind for kind in f.REGISTRY.values() if issubclass(kind, Controller)]


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(KINDS), st.data())
def test_any_argument_is_a_wish_or_a_spec_error(kind: type[Controller], data: st.DataObject) -> None:
    rows = st.dictionaries(st.one_of(ANYTHING, st.just("8:0")), ANYTHING, max_size=2)
    arguments = {name: data.draw(st.one_of(ANYTHING, rows)) for name in kind._fields if data.draw(st.booleans())}
    try:
        feature = kind(**arguments)
        made = feature.settings()
    except SpecError as err:
        message = str(err)
        assert len(message.splitlines()) == 1
    except TypeError:
        assert kind is f.CgroupConf  # without its files
        assert not arguments
    else:
        hash(feature)
        assert all(isinstance(name, str) and value is not None for name, value in made)


# --- the plan ---


@pytest.mark.parametrize("feature", LIMITS, ids=lambda feature: feature.name)
def test_a_controller_is_its_own_steps_and_no_other(feature: Feature) -> None:
    whole = BARE.with_(*LIMITS)
    diff = plan(whole).diff(plan(whole.without(feature.name)))
    assert not diff.added
    assert {step.feature for step in diff.removed} == {feature.name}
    pair = ["cgroup", "cgroup_enter"]
    assert sorted({step.call for step in diff.removed}) == pair
    controllers = [step.args["controller"] for step in diff.removed if step.call == "cgroup"]
    entered = [step.args["fd"] for step in diff.removed if step.call == "cgroup_enter"]
    assert entered == [f"cgroup:{controller}" for controller in controllers]


def test_order() -> None:
    made = list(plan(BARE.with_(f.Pids(1), f.Cpu(1), f.UserNamespace(), f.CgroupParent("x"))))
    calls = [step.call for step in made]
    assert [step.args["parent"] for step in made if step.call == "cgroup"] == ["x"] * 3
    assert all(step.phase == PREPARE and step.undo == "rmdir" for step in made if step.call == "cgroup")
    enter, unshare = calls.index("cgroup_enter"), calls.index("unshare")
    assert calls.index("barrier") < enter < unshare < calls.index("pivot_root")
    assert calls[enter : enter + 3] == ["cgroup_enter"] * 3
    assert {step.phase for step in made if step.call == "cgroup_enter"} == {SETUP}


def test_the_namespace_is_made_inside_the_group() -> None:
    """As a flag of the clone its root would be the caller's own group."""

    def how(spec: Spec) -> list[tuple[str, int]]:
        return [(step.call, step.phase) for step in plan(spec) if step.feature == "cgroupns"]

    assert how(BARE) == [("clone", CLONE)]
    for feature in LIMITS:
        assert how(BARE.with_(feature)) == [("unshare", SETUP)]
    joined = how(BARE.with_(f.Pids(1), f.CgroupNamespace(join="/proc/1/ns/cgroup")))
    assert joined == [("open_namespace", PREPARE), ("setns", SETUP)]


def mounts(spec: Spec) -> list[str]:
    return [step.about for step in plan(spec) if step.feature == "cgroupfs"]


def test_the_groups_as_files() -> None:
    assert mounts(BARE.with_(f.Pids(), f.Cgroupfs())) == ["cgroup2 on /sys/fs/cgroup ro"]
    wish = f.Cgroupfs("ro", HYBRID)
    assert mounts(BARE.with_(f.Memory(), wish)) == [
        "tmpfs on /sys/fs/cgroup",
        "cgroup on /sys/fs/cgroup/memory ro",
        "/sys/fs/cgroup ro",
    ]
    assert mounts(BARE.with_(f.Pids(), wish))[1] == "cgroup2 on /sys/fs/cgroup/unified ro"
    assert "cgroup on /sys/fs/cgroup/blkio ro" in mounts(BARE.with_(f.Io(), wish))
    systemd = mounts(BARE.with_(f.NamedCgroup(), wish.replace(mode="rw")))
    assert systemd == ["tmpfs on /sys/fs/cgroup", "cgroup on /sys/fs/cgroup/systemd rw"]
    both = mounts(BARE.with_(f.Cpu(), wish))
    assert both[1:4] == [
        "cgroup on /sys/fs/cgroup/cpu,cpuacct ro",
        "/sys/fs/cgroup/cpu -> cpu,cpuacct",
        "/sys/fs/cgroup/cpuacct -> cpu,cpuacct",
    ]
    step = next(step for step in plan(BARE.with_(f.NamedCgroup(), wish)) if step.about.endswith("systemd ro"))
    assert step.args["options"] == ["name=systemd"]


def test_a_device_is_a_node_and_in_a_user_namespace_the_host_s() -> None:
    tun = f.Device("/dev/net/tun", "c", 10, 200, 0o600)
    steps = [step for step in plan(BARE.with_(tun)) if step.feature == "device"]
    assert [(step.call, step.about) for step in steps] == [("mkdir", "/dev/net"), ("mknod", "/dev/net/tun 10:200")]
    assert steps[1].args["mode"] == 0o020600
    mapped = plan(BARE.with_(tun, f.UserNamespace()))
    assert [step.call for step in mapped if step.feature == "device"] == ["open_tree", "attach"]


def test_several_of_a_kind_stand_side_by_side() -> None:
    named = BARE.with_(f.NamedCgroup("systemd"), f.NamedCgroup("unified"))
    assert sum(feature.name == "named_cgroup" for feature in named.features) == 2
    assert "named_cgroup:unified" in map(label, named.features)
    assert "named_cgroup:systemd" not in map(label, named.without("named_cgroup:systemd").features)


def test_profiles() -> None:
    names = {name: {feature.name for feature in features} for name, features in f.PROFILES.items()}
    everything = {"memory", "cpu", "cpuset", "pids", "io", "devices", "freezer", "cgroupfs"}
    assert everything <= names["docker"]
    assert everything | {"named_cgroup"} <= names["lxc"]
    assert not GROUPED & names["bare"]
    assert next(feature for feature in f.DEFAULT if feature.name == "pids") == f.Pids(1024)
