"""A feature that is not what the plan says is found out, each by what the kernel says of it."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
from places import SERVER

import minictr as mc
from bench.environments import ours
from bench.environments.base import EnvironmentBroken, Job
from bench.environments.state import differences
from bench.lan import Lan
from bench.stage import Stage


def started(it: ours.Minictr, job: Job) -> tuple[dict, dict]:
    """(plan, state) of JOB in IT, which is removed."""
    try:
        it.fresh(job)
        if job.ports:
            with it.start(job):
                pass
        else:
            it.run(job)
        return it.planned(job), it.state(job)
    finally:
        assert list(it.cleanup()) == []


LIES = {
    # feature -> what is said of an arm that has it and of which the plan says that it has it not
    "masked_paths": "masked is ",
    "readonly_paths": "readonly is ",
    "sysctl": "sysctls.net.ipv4.",
    "rlimits": "rlimits.nofile is 1234, planned was ",
    "landlock": "landlock is 1, planned was 0",
}


@pytest.mark.parametrize("name", LIES)
def test_a_feature_that_is_not_what_the_plan_says_is_found_out(stage: Stage, requires, name: str) -> None:
    """Both ways: a feature that does nothing, and one that nobody asked for. Each arm by itself is as planned."""
    requires.root()
    plain = mc.Container(stage.rootfs, features="docker")
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] != 1234, "else the limit is no difference"
    box = plain.with_(mc.NoNewPrivs(), mc.Landlock(rw=("/",)), mc.Rlimits((("nofile", 1234, 1234),)))
    job = Job(("true",))
    plan, state = started(ours.Minictr(stage, "on", features=box.features), job)
    less, without = started(ours.Minictr(stage, "off", features=box.without(name).features), job)
    assert differences(plan, state) == [] and differences(less, without) == []
    assert any(line.startswith(LIES[name]) for line in differences(less, state)), differences(less, state)
    assert differences(plan, without), "an arm whose feature does nothing is thrown away"


@pytest.mark.parametrize(
    ("rung", "below", "key"),
    [
        ("bridge_netfilter", ("veth", "bridge"), "bridge_netfilter"),
        ("conntrack", ("veth", "bridge", "publish"), "wall"),
        ("nat", ("veth", "bridge", "publish", "conntrack"), "outbound"),
        ("publish_proxy", ("veth", "bridge", "publish"), "proxy"),
    ],
)
def test_a_rung_that_is_not_what_the_plan_says_is_found_out(stage: Stage, requires, rung, below, key) -> None:
    requires.root()
    requires("socat")
    job, features = Job(SERVER, network="lan", ports=(8000,)), mc.Container(stage.rootfs).features
    upper = {"rungs": (*below, rung)}
    if rung == "publish_proxy":
        upper = {"rungs": below, "features": (*features, mc.PublishProxy())}
    plan, state = started(ours.Minictr(stage, "on", **upper), job)
    less, without = started(ours.Minictr(stage, "off", rungs=below), job)
    assert differences(plan, state) == [] and differences(less, without) == []
    assert differences(less, state) == [f"network.{key} is on, planned was off"]
    assert differences(plan, without) == [f"network.{key} is off, planned was on"]


@pytest.mark.parametrize("domains", [1, 4, 16])
def test_layers_of_landlock_are_put_on_and_counted(stage: Stage, requires, domains: int) -> None:
    """The library puts on one; the kernel has sixteen, and shows them nowhere: they are counted by adding to them."""
    requires.root()
    if not mc.support(mc.Landlock(rw=("/",))):
        pytest.skip("no Landlock in this kernel")
    features = mc.Container(stage.rootfs, features="docker").with_(mc.NoNewPrivs()).features
    plan, state = started(ours.Minictr(stage, "locked", features=features, domains=domains), Job(("true",)))
    assert state["landlock"] == domains and differences(plan, state) == []
    less, without = started(ours.Minictr(stage, "open", features=features), Job(("true",)))
    assert without["landlock"] == 0 and differences(less, without) == []
    assert differences(plan, without) == [f"landlock is 0, planned was {domains}"]


def test_more_layers_of_landlock_than_the_kernel_has_are_told(stage: Stage, requires) -> None:
    requires.root()
    if not mc.support(mc.Landlock(rw=("/",))):
        pytest.skip("no Landlock in this kernel")
    features = mc.Container(stage.rootfs, features="docker").with_(mc.NoNewPrivs()).features
    it = ours.Minictr(stage, "locked", features=features, domains=17)
    with pytest.raises(EnvironmentBroken, match="17 Landlock domains: Argument list too long"):
        started(it, Job(("true",)))


@pytest.mark.parametrize("name", ["hugetlb", "rdma", "misc"])
def test_controllers_of_no_profile_are_groups_of_their_own_where_the_kernel_has_them(stage, requires, name) -> None:
    requires.root()
    features = mc.Container(stage.rootfs, features="docker").with_(mc.features.make(name)).features
    it = ours.Minictr(stage, "grouped", features=features)
    support = mc.support(name)
    if not support:
        assert it.unavailable() == f"{name}: {support.reason}"
        pytest.skip(support.reason)
    plan, state = started(it, Job(("true",)))
    assert state["cgroups"][name] == "own" and plan["cgroups"][name] == "own" and differences(plan, state) == []


def test_bridges_of_a_lan_pass_no_rules_but_where_they_are_asked_to(requires) -> None:
    """A new network namespace has bridge-nf-call-iptables=1, for every bridge: asking for one would change nothing."""
    requires.root()
    sysctl = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
    if not sysctl.exists():
        pytest.skip("no br_netfilter in this kernel")
    before = sysctl.read_text()
    with Lan() as lan:
        with lan.inside():
            assert sysctl.read_text().strip() == "0"
        assert sysctl.read_text() == before, "this machine's own is nobody's to set"
