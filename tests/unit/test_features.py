"""Every feature by itself: its words, and that its steps are what the core and the executor can do."""

from __future__ import annotations

import inspect
from importlib import import_module

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minictr.errors import SpecError
from minictr.features import check
from minictr.features.contradictions import HANDLES, TARGETS
from minictr.features.namespaces import offset_row
from minictr.features.process import sysctl_owner, sysctl_path
from minictr.features.tables import RESOURCES, SIGNALS, signal_number
from minictr.kernel.ops import MAX_SLOTS, SIGNATURES
from minictr.plan import ORDER
from minictr.runtime.hands import HANDS
from minictr.steps import PARENT_PHASES, PHASES, Context, Feature, Step

f = import_module("minictr.features")  # mc.features is the front door's function of that name

MAPS = ((0, 100000, 65536),)
# One of each, with settings that make it do all it can.
SAMPLES: tuple[Feature, ...] = (
    f.MountNamespace("shared"),
    f.PidNamespace(),
    f.NetNamespace(join="/run/netns/a"),
    f.IpcNamespace(),
    f.UtsNamespace(),
    f.CgroupNamespace(),
    f.UserNamespace(MAPS, MAPS),
    f.TimeNamespace(1.5, -2),
    f.PivotRoot(),
    f.Chroot(),
    f.Overlay(("/l",), "/u"),
    f.Idmap(),
    f.ReadonlyRoot(),
    f.NoDev(),
    f.Proc(),
    f.Sysfs("rw"),
    f.Dev(),
    f.Devpts(),
    f.Shm(),
    f.Mqueue(),
    f.Tmpfs("/t", "1M", options=("exec", "uid=1")),
    f.Bind("/a", "/b", "rro", propagation="rslave", idmap=True, nosuid=True),
    f.MaskedPaths(("/proc/kcore",)),
    f.ReadonlyPaths(("/proc/sys",)),
    f.Hostname("a-b.c"),
    f.Domainname("d"),
    f.Env((("K", "v"),)),
    f.Cwd("/w"),
    f.Umask(0o77),
    f.Rlimits((("nofile", 1, 2),)),
    f.OomScoreAdj(5),
    f.Sysctl((("net.ipv4.ip_forward", "1"),)),
    f.BootId(),
    f.Keyring(),
    f.Personality(False, "linux32"),
    f.Session(),
    f.Tty(),
    f.Pdeathsig("TERM"),
    f.Init(),
    f.Identity("1000:1000", 1000, 1000, (4, 5)),
    f.DisableUserns(),
    f.Capabilities(("CHOWN", "NET_RAW"), inheritable=("CHOWN",), ambient=("CHOWN",)),
    f.Securebits(("noroot", "noroot_locked"), ("no_setuid_fixup",)),
    f.NoNewPrivs(),
    f.Landlock(("/",), ("/tmp",), (("/a", ("make-dir", "execute")),), None, (0, 80), (443,), ("signal",), True, True),
    f.Seccomp(bytes(8)),
    f.AppArmor("&lab"),
    f.SELinux("u:r:t:s0:c1,c2", "u:object_r:f:s0"),
    f.Loopback(),
    f.Veth("eth1", "lan", "10.1.0.5", "fd00::5", "02:00:00:00:00:05", 1400),
    f.Bridged(),
    f.BridgeNetfilter(),
    f.Conntrack(),
    f.Nat(),
    f.Egress(("10.0.0.0/8:53/udp",), ("10.1.0.0/16",)),
    f.Publish(8000, 80, "127.0.0.1", "udp", 3),
    f.Hosts((("db", "10.0.0.5"), ("gw", "host-gateway")), "host"),
    f.ResolvConf(("9.9.9.9", "2620:fe::9"), ("lan",), ("ndots:2",), True),
    f.HostnameFile(),
    f.Names(("www", "web.lan")),
    f.PublishProxy(True),
    f.MacvlanLink("eth0", "eth2", "vepa", "10.1.0.5", "fd00::5/64", "10.1.0.0/24", "", "10.1.0.1"),
    f.IpvlanLink("eth0", mode="l3s", ip="10.1.0.5/24"),
    f.Pasta("eth3", "10.1.0.5", prefix=24, template="eth0", family=4, map_gw=True, tcp_ns="22,80-90"),
    f.Memory("256M", 0, "200M", "1M", "1M", 10, True),
    f.Cpu(1.5, 200, burst=1000),
    f.Cpuset("0-1,3", "0", "root"),
    f.Pids(64),
    f.Io(50, {"8:0": "1M"}, {(8, 0): 1}, {"8:0": 1}, {"8:0": 1}, {"8:0": 7}),
    f.Devices(),
    f.Device("/dev/net/tun", "c", 10, 200),
    f.Hugetlb({"2MB": "64M"}),
    f.Rdma({"mlx5_0": "hca_handle=2 hca_object=max"}),
    f.Misc({"sev": 4}),
    f.Freezer(),
    f.NamedCgroup(),
    f.CgroupConf({"memory.high": "200M"}),
    f.CgroupParent("/a/b"),
    f.Cgroupfs(),
)
# Neighbours that change what a feature does.
COMPANY: tuple[tuple[Feature, ...], ...] = (
    (),
    (f.MountNamespace(), f.PidNamespace(), f.NetNamespace(), f.UserNamespace(MAPS, MAPS), f.Init(), f.NoNewPrivs()),
    (f.MountNamespace(), f.UserNamespace(), f.Overlay()),
    (f.UserNamespace(join="/proc/1/ns/user"), f.Pdeathsig()),
    (f.MountNamespace(), f.UserNamespace(auto=65536), f.Overlay(("/l",), "/u"), f.Cgroupfs("rw"), f.Idmap()),
)


def steps_of(feature: Feature, company: tuple[Feature, ...] = ()) -> list[Step]:
    others = tuple(other for other in company if other.name != feature.name)
    present = (*others, feature)
    names = frozenset(other.name for other in present)
    return list(feature.steps(Context("/srv/root", ("true",), present, names)))


def test_the_registry_holds_each_feature_once() -> None:
    assert [sample.name for sample in SAMPLES] == list(f.REGISTRY)
    assert {type(sample) for sample in SAMPLES} == set(f.REGISTRY.values())


@pytest.mark.parametrize("kind", f.REGISTRY.values(), ids=f.REGISTRY.keys())
def test_each_says_what_it_is(kind: type[Feature]) -> None:
    assert kind.NAME
    assert kind.NAME.replace("_", "").isalnum()
    assert 0 < len(kind.SUMMARY) <= 70
    assert "\n" not in kind.SUMMARY
    assert not kind.SUMMARY.endswith(".")
    assert kind.__doc__
    assert inspect.getdoc(kind) != inspect.getdoc(Feature)
    assert all(set(needed.split("|")) <= set(f.REGISTRY) and why for needed, why in kind.NEEDS)


@pytest.mark.parametrize("company", COMPANY, ids=["alone", "in-userns", "single-id", "joined", "auto"])
@pytest.mark.parametrize("feature", SAMPLES, ids=f.REGISTRY.keys())
def test_steps_are_what_the_hands_can_do(feature: Feature, company: tuple[Feature, ...]) -> None:
    if isinstance(feature, f.Bind) and not any(other.name == "userns" for other in company):
        feature = feature.replace(idmap=False)
    if isinstance(feature, f.Idmap):
        company = company or (f.UserNamespace(MAPS, MAPS),)
    for step in steps_of(feature, company):
        assert step.feature == feature.name
        assert 0 <= step.phase < len(PHASES)
        if step.phase in PARENT_PHASES:
            wanted = set(inspect.signature(HANDS[step.call]).parameters) - {"start", "options"}
            assert wanted <= set(step.args)
        else:
            assert [name.partition(":")[0] for name in SIGNATURES[step.call]] == sorted(
                step.args, key=[name.partition(":")[0] for name in SIGNATURES[step.call]].index
            )
        rows = {(phase, call) for phase, calls, _ in ORDER for call in calls}
        assert (step.phase, step.call) in rows or (step.phase, f"{step.feature}.{step.call}") in rows


def test_constants_shared_with_the_core() -> None:
    assert HANDLES == MAX_SLOTS
    assert set(TARGETS) <= set(f.REGISTRY)


@pytest.mark.parametrize("name", [name for name in f.REGISTRY if name not in ("env", "cgroup_parent")])
def test_every_feature_but_two_has_steps(name: str) -> None:
    sample = next(sample for sample in SAMPLES if sample.name == name)
    company: tuple[Feature, ...] = (f.Veth(),)  # which a bridge is about
    if name == "nodev":
        company = (f.PivotRoot(),)  # it speaks of the tree that becomes the root
    elif name == "idmap":
        company = (f.UserNamespace(MAPS, MAPS),)
    assert steps_of(sample.replace(idmap=False) if isinstance(sample, f.Bind) else sample, company)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: f.MountNamespace("loose"), "not one of private"),
        (lambda: f.UtsNamespace(join="a\0b"), "NUL"),
        (lambda: f.TimeNamespace(1, join="/x"), "fixed"),
        (lambda: f.TimeNamespace(float("nan")), "not a number of seconds"),
        (lambda: f.TimeNamespace(1e30), "not a number of seconds"),
        (lambda: f.UserNamespace(MAPS), "one of uid_map and gid_map is empty"),
        (lambda: f.UserNamespace(MAPS, MAPS, auto=5), "give auto, maps or join, one of them"),
        (lambda: f.UserNamespace(join="/n", auto=5), "give auto, maps or join, one of them"),
        (lambda: f.UserNamespace(auto=(1 << 24) + 1), "userns auto"),
        (lambda: f.UserNamespace(MAPS, MAPS, "/x"), "fixed"),
        (lambda: f.UserNamespace(((0, 1, 0),), MAPS), "not between 1"),
        (lambda: f.UserNamespace(((0, 5, 10), (9, 100, 1)), MAPS), "id 9 inside is mapped twice"),
        (lambda: f.UserNamespace(((0, 5, 10), (20, 14, 1)), MAPS), "id 14 outside is mapped twice"),
        (lambda: f.UserNamespace(((0, 5),), MAPS), r"not \(inside, outside, count\)"),  # type: ignore[arg-type]
        (lambda: f.UserNamespace(tuple((i, i, 1) for i in range(341)), MAPS), "341 rows"),
        (lambda: f.Overlay(work="/w"), "without upper"),
        (lambda: f.Overlay(upper="/w", work="/w/"), "two directories"),
        (lambda: f.Overlay(upper="/w", size="1M"), "thrown away"),
        (lambda: f.Overlay(tuple(f"/{number}" for number in range(500))), "500"),
        (lambda: f.Overlay("abc"), "not a tuple"),  # type: ignore[arg-type]
        (lambda: f.Veth("eth/0"), "cannot be a device's name"),
        (lambda: f.Veth("a-name-of-sixteen"), "the limit is 15"),
        (lambda: f.Veth(network=".."), "cannot be a device's name"),
        (lambda: f.Veth(network="lan!"), "is not letters, digits"),
        (lambda: f.Veth(ip="10.1.0.256"), "IPv4 or IPv6 address"),
        (lambda: f.Veth(ip="fd00::1"), "no IPv4 address"),
        (lambda: f.Veth(ip6="10.1.0.1"), "no IPv6 address"),
        (lambda: f.Veth(mac="01:00:00:00:00:01"), "no multicast address"),
        (lambda: f.Veth(mac="02:00:00:00:01"), "six bytes"),
        (lambda: f.Veth(mtu=67), "not between 68"),
        (lambda: f.Publish(65536, 80), "not between 0"),
        (lambda: f.Publish(65535, 80, count=2), "not between 0"),
        (lambda: f.Publish(80, 0), "not between 1"),
        (lambda: f.Publish(80, 80, "host"), "IPv4 or IPv6 address"),
        (lambda: f.Publish(80, 80, protocol="icmp"), "not one of tcp, udp, sctp"),
        (lambda: f.Publish(0, 80, count=2), "a free port is one port"),
        (lambda: f.Publish(1, 1, count=5000), "not between 1 and 4096"),
        (lambda: f.Hosts((("db",),)), "is not \\(name, address\\)"),
        (lambda: f.Hosts((("a b", "10.0.0.1"),)), "letters, digits"),
        (lambda: f.Hosts((("db", "10.0.0.256"),)), "no IPv4 or IPv6 address"),
        (lambda: f.Hosts((("db\t", "10.0.0.5"),)), "letters, digits"),
        (lambda: f.Hosts((("a", "::1"),) * 1025), "at most 1024"),
        (lambda: f.Hosts(base="image"), "not one of own, host"),
        (lambda: f.ResolvConf(("dns.lan",)), "no IPv4 or IPv6 address"),
        (lambda: f.ResolvConf(search=(".", "lan")), "name it alone"),
        (lambda: f.ResolvConf(search=("-lan",)), "letters, digits"),
        (lambda: f.ResolvConf(options=("ndots:2 rotate",)), "is not one word"),
        (lambda: f.ResolvConf(options=("a\nb",)), "newline"),
        (lambda: f.Names(("a" * 64,)), "the limit is 63"),
        (lambda: f.Names(("a_b", "x..y")), "letters, digits"),
        (lambda: f.Tmpfs("/"), "container's root itself"),
        (lambda: f.Tmpfs("//./"), "container's root itself"),
        (lambda: f.Tmpfs("run"), "relative"),
        (lambda: f.Tmpfs("/run/../x"), r"'\.\.'"),
        (lambda: f.Tmpfs("/run\n"), "newline"),
        (lambda: f.Tmpfs("/run", options=("huge",)), "not one of ro, rw"),
        (lambda: f.Tmpfs("/run", options=("uid=x",)), "not a whole number"),
        (lambda: f.Tmpfs("/run", "0"), "not between 1"),
        (lambda: f.Tmpfs("/run", mode=0o10000), "mode"),
        (lambda: f.Bind("", "/x"), "bind source: empty"),
        (lambda: f.Bind("/x", "/"), "container's root itself"),
        (lambda: f.Bind("/x", "/y", "maybe"), "not one of"),
        (lambda: f.Bind("/x", "/y", propagation="rshared"), "reach the host"),
        (lambda: f.MaskedPaths("/proc"), "not a tuple"),  # type: ignore[arg-type]
        (lambda: f.MaskedPaths(("proc",)), "relative"),
        (lambda: f.Hostname("a" * 65), "65 bytes long, the limit is 64"),
        (lambda: f.Hostname("a b"), "not letters"),
        (lambda: f.Hostname("-a"), "not letters"),
        (lambda: f.Hostname("a..b"), "not letters"),
        (lambda: f.Hostname(""), "empty"),
        (lambda: f.Env((("A=B", ""),)), "holds '='"),
        (lambda: f.Env((("", ""),)), "empty"),
        (lambda: f.Env((("A", "b\0"),)), "NUL"),
        (lambda: f.Env((("A",),)), r"not \(name, value\)"),  # type: ignore[arg-type]
        (lambda: f.Env((("A", "x" * 200000),)), "bytes long"),
        (lambda: f.Cwd("srv"), "relative"),
        (lambda: f.Umask(0o1000), "not between 0"),
        (lambda: f.Rlimits((("files", 1, 1),)), "not one of cpu"),
        (lambda: f.Rlimits((("core", 2, 1),)), "above the hard limit"),
        (lambda: f.Rlimits((("core", -1, 1),)), "above the hard limit"),
        (lambda: f.Rlimits((("core", 0, 0), ("core", 0, 0))), "twice"),
        (lambda: f.OomScoreAdj(1001), "not between -1000"),
        (lambda: f.OomScoreAdj(True), "not a whole number"),
        (lambda: f.Sysctl((("kernel.panic", "1"),)), "whole host"),
        (lambda: f.Sysctl((("kernel.hostname", "a"),)), "ask for the feature hostname"),
        (lambda: f.Sysctl((("net..x", "1"),)), "not a key"),
        (lambda: f.Sysctl((("net/../kernel/panic", "1"),)), "not a key"),
        (lambda: f.Sysctl((("net.ipv4.x", ""),)), "empty"),
        (lambda: f.Personality(persona="vax"), "not one of linux"),
        (lambda: f.Pdeathsig("NONE"), "not one of signal"),
        (lambda: f.Identity(""), "empty"),
        (lambda: f.Identity("a:b:c"), "not USER or USER:GROUP"),
        (lambda: f.Identity("a:"), "not USER or USER:GROUP"),
        (lambda: f.Identity("a/b"), "neither a name nor an id"),
        (lambda: f.Identity("4294967295"), "not between 0"),
        (lambda: f.Identity("0", uid=1), "set both"),
        (lambda: f.Identity("0", 0, 0, (-1,)), "not between 0"),
        (lambda: f.Capabilities(("ROOT",)), "not one of capabilities"),
        (lambda: f.Capabilities(("CHOWN",), effective=("KILL",)), "KILL is effective but not permitted"),
        (lambda: f.Capabilities(("CHOWN",), ambient=("CHOWN",)), "CHOWN is ambient but not inheritable"),
        (lambda: f.Capabilities(("CHOWN",), ambient=("KILL",)), "KILL is ambient but not permitted"),
        (lambda: f.Capabilities((), inheritable=("KILL",)), "KILL is inheritable but not bounding"),
        (lambda: f.Capabilities(("CHOWN",), permitted=(), effective=(), drop_only=True), "leave the other sets out"),
        (lambda: f.Seccomp(b""), "not 1 to 4096"),
        (lambda: f.Seccomp(bytes(7)), "not 1 to 4096"),
        (lambda: f.Seccomp("x"), "'x' is not one of default, docker"),
        (lambda: f.Seccomp(5), "int, not bytes, a filter"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_right_is_refused(make: object, words: str) -> None:
    with pytest.raises(SpecError, match=words) as caught:
        make()  # type: ignore[operator]
    message = str(caught.value)
    assert "\n" not in message
    assert not message.endswith(".")


def test_lists_become_tuples_and_paths_are_cleaned() -> None:
    assert f.MaskedPaths(["/proc//kcore", "/sys/./firmware/"]).paths == ("/proc/kcore", "/sys/firmware")  # type: ignore[arg-type]
    assert f.Tmpfs("//run/./x/") == f.Tmpfs("/run/x")
    assert f.Capabilities(("cap_kill", "0", "Kill")).bounding == ("CHOWN", "KILL")
    hash(f.UserNamespace([[0, 1, 2]], [[0, 1, 2]]))  # type: ignore[arg-type]


def test_make_takes_the_default_profile_s_settings() -> None:
    assert f.make("shm") in f.DEFAULT
    assert f.make("session") == f.Session()
    with pytest.raises(SpecError, match="needs settings"):
        f.make("bind")
    with pytest.raises(SpecError, match="perhaps net"):
        f.make("network")
    with pytest.raises(SpecError, match="no feature is named ''"):
        f.make("")


@given(st.integers(-(10**9), 10**9), st.integers(0, 10**6 - 1))
def test_time_offsets_keep_their_value(whole: int, micro: int) -> None:
    seconds = whole + micro / 10**6
    clock, first, second = offset_row("boottime", seconds).split()
    assert clock == "boottime"
    assert 0 <= int(second) < 10**9
    assert int(first) + int(second) / 10**9 == pytest.approx(seconds, abs=1e-6)


@pytest.mark.parametrize(
    ("key", "path", "owner"),
    [
        ("net.ipv4.ip_forward", "net/ipv4/ip_forward", "net"),
        ("net/ipv4/conf/eth0.5/forwarding", "net/ipv4/conf/eth0.5/forwarding", "net"),
        ("net.ipv4.conf.eth0/5.forwarding", "net/ipv4/conf/eth0.5/forwarding", "net"),
        ("kernel.shmmax", "kernel/shmmax", "ipc"),
        ("fs.mqueue.msg_max", "fs/mqueue/msg_max", "ipc"),
        ("kernel.panic", "kernel/panic", ""),
        ("network.x", "network/x", ""),
    ],
)
def test_sysctl_keys(key: str, path: str, owner: str) -> None:
    assert sysctl_path(key) == path
    assert sysctl_owner(key) == owner


def test_tables_are_this_machine_s() -> None:
    import resource
    import signal

    for name, number in RESOURCES.items():
        if hasattr(resource, f"RLIMIT_{name.upper()}"):
            assert getattr(resource, f"RLIMIT_{name.upper()}") == number
    for name, number in SIGNALS.items():
        if hasattr(signal, f"SIG{name}"):
            assert getattr(signal, f"SIG{name}") == number
    assert signal_number("RTMIN") == signal.SIGRTMIN
    assert signal_number("rtmax-1") == signal.SIGRTMAX - 1


def test_capability_numbers_are_the_kernel_s() -> None:
    import prctl

    from minictr.features.capabilities import NUMBERS

    for name, number in NUMBERS.items():
        assert getattr(prctl, f"CAP_{name}", number) == number


@given(st.one_of(st.text(max_size=30), st.integers(), st.none(), st.booleans(), st.binary(max_size=4), st.floats()))
def test_checks_answer_with_a_value_or_a_spec_error(value: object) -> None:
    for function in (
        check.word,
        check.inside,
        check.sequence,
        lambda value, what: check.size(value, what),
        lambda value, what: check.integer(value, what, 0, 10),
        lambda value, what: check.choice(value, what, ("a", "b")),
    ):
        message = refusal(function, value, "it")
        assert message.startswith("it: ") or not message
        assert "\n" not in message


def refusal(function: object, *args: object) -> str:
    """What FUNCTION's SpecError says; "" when there is none."""
    try:
        function(*args)  # type: ignore[operator]
    except SpecError as err:
        return str(err)
    return ""


def test_thermal_events_are_masked_for_every_processor_there_may_be():
    """Those that are off now too; numbers of those that are on can have holes (moby: daemon/pkg/oci/defaults.go)."""
    masked = next(feature for feature in f.PROFILES["default"] if feature.name == "masked_paths").paths
    with open("/sys/devices/system/cpu/possible") as file:
        last = int(file.read().strip().replace("-", ",").split(",")[-1])
    wanted = {f"/sys/devices/system/cpu/cpu{number}/thermal_throttle" for number in range(last + 1)}
    assert wanted <= set(masked)
