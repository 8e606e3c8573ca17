"""Parsed options -> Spec, without a kernel: what each option changes, and that both parsers give the same spec."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from minictr.cli import build as build_module
from minictr.cli import confinement as confinement_module
from minictr.cli import create as create_module
from minictr.cli import given as given_module
from minictr.cli import landlock as landlock_module
from minictr.cli import limits as limits_module
from minictr.cli import mounts as mounts_module
from minictr.cli import names as names_module
from minictr.cli import namespaces as namespaces_module
from minictr.cli import network as network_module
from minictr.cli import options
from minictr.cli import plan as plan_module
from minictr.cli import run as run_module
from minictr.cli import settings as settings_module
from minictr.cli.build import build
from minictr.cli.fastparse import parse
from minictr.cli.main import HotVerb, parsed
from minictr.cli.settings import Settings, settings
from minictr.errors import SpecError
from minictr.features import DEFAULT, REGISTRY
from minictr.features.capabilities import CAPABILITIES
from minictr.features.cgroup_devices import DOCKER_RULES, RATES, Device, Io
from minictr.features.cgroups import CgroupConf, Cpu, Cpuset, Memory
from minictr.features.controllers import Pids
from minictr.features.mounts import Bind, Tmpfs
from minictr.features.profiles import DEFAULT_CAPABILITIES, DOCKER_CAPABILITIES
from minictr.plan import plan
from minictr.spec import Spec

RUN = options.TABLES["run"]


def spec(line: str, terminal: bool = False) -> Spec:
    words = (word.replace("_", " ") if ":*" in word else word for word in line.split())
    opts, command = parse([*words, "--rootfs", "/image", "--", "cmd"], RUN)
    return build(opts, command, terminal)


def test_nothing_said_is_the_default_profile():
    assert spec("") == Spec(("cmd",), DEFAULT, "/image")


LINES = [
    "--profile docker --name box --without mqueue",
    "-e A=1 -e B=2 --clearenv -w /srv -u 1:2 -h lab --domainname nis",
    "-v /tmp:/mnt:ro --tmpfs /run:size=1m --mount type=tmpfs,target=/x --read-only --overlay --shm-size 1m",
    "--cap-add ALL --cap-drop CHOWN --privileged --ulimit nofile=1:2 --sysctl net.ipv4.ip_forward=1",
    "--security-opt no-new-privileges=false --oom-score-adj -5 --uidmap 0:1:2 --gidmap 0:3:4 --time-offset boottime=5",
    "--userns auto:size=5 --disable-userns --overlay",
    "--pid host --net none --ipc private --uts host --cgroupns host --no-init -it --rm --timeout 5 --trace",
    "--die-with-parent --stop-signal INT --with readonly --with chroot",
    "-m 256m --memory-swap 512m --memory-reservation 100m --memory-swappiness 0 --oom-kill-disable --best-effort io",
    "--cpus 1.5 -c 512 --cpuset-cpus 0-1 --cpuset-mems 0 --pids-limit -1 --cgroup-parent /a/b --cgroup-conf a.b=c",
    "--blkio-weight 500 --device-read-bps 8:0:1mb --device-write-iops 8:0:5 --blkio-weight-device 8:0:10",
    "--device /dev/null:/dev/a/nothing:rw --device-cgroup-rule c_1:*_rwm --cpu-quota 5000 --cpu-period 10000",
    "--network bridge --network bridge:mtu=1400 -p 8080:80 --expose 90-91/udp -P --ip 10.90.0.9",
    "--mac-address 02:00:00:00:00:09 -p [::1]:70:70/sctp",
    "--net routed --ip6 fd00::9 -p 80 --publish 127.0.0.1:70-79:70-79/udp --without nat",
    "--profile lxc --device /dev/zero --pids-limit 5 --with cgroupfs --without named_cgroup:unified",
]


@pytest.mark.parametrize("line", LINES)
def test_both_parsers_lead_to_one_spec(line):
    words = [
        *(word.replace("_", " ") if ":*" in word else word for word in line.split()),
        "--rootfs=/image",
        "cmd",
        "-x",
    ]
    with HotVerb("run").make_context("run", list(words)) as ctx:
        by_click = parsed(ctx.params)
    by_us = parse(words, RUN)
    assert build(*by_click, terminal=False) == build(*by_us, terminal=False)
    assert settings(by_click[0]) == settings(by_us[0])


@pytest.mark.parametrize("line", LINES)
def test_what_is_built_can_be_planned(line):
    assert len(plan(spec(line)).steps) > 10


def test_every_option_is_read():
    """No option of the table is parsed and then forgotten."""
    modules = (build_module, given_module, settings_module, plan_module, limits_module, landlock_module)
    modules += (run_module, create_module, network_module, names_module)
    modules += (confinement_module, mounts_module, namespaces_module)
    code = "".join(Path(module.__file__ or "").read_text() for module in modules)
    unread = {row[1] for row in options.PLAN_OPTIONS + RUN if f'"{row[1]}"' not in code}
    unread -= {f"device_{rate}" for rate in RATES}  # a loop reads them
    assert unread == set()


# --- capabilities ---


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ("--cap-add net_raw", {*DEFAULT_CAPABILITIES, "NET_RAW"}),
        ("--cap-drop CAP_CHOWN", set(DEFAULT_CAPABILITIES) - {"CHOWN"}),
        ("--cap-drop ALL", set()),
        ("--cap-drop ALL --cap-add CHOWN", {"CHOWN"}),
        ("--cap-add CHOWN --cap-drop all", {"CHOWN"}),
        ("--cap-add ALL --cap-drop SYS_ADMIN", set(CAPABILITIES) - {"SYS_ADMIN"}),
        ("--profile docker --cap-add NET_RAW", set(DOCKER_CAPABILITIES)),
        ("--profile bare --cap-drop KILL", set(CAPABILITIES) - {"KILL"}),
        ("--privileged --cap-drop KILL", set(CAPABILITIES) - {"KILL"}),
    ],
)
def test_capabilities(line, kept):
    found = spec(line).get("capabilities")
    assert set(found.bounding) == kept


@pytest.mark.parametrize(
    ("line", "narrowed"),
    [
        ("--cap-add NET_RAW", False),
        ("--cap-add ALL", True),
        ("--privileged", True),
        ("--cap-drop ALL --privileged", False),
    ],
)
def test_all_means_what_the_caller_has(line, narrowed):
    assert spec(line).get("capabilities").drop_only is narrowed


# --- features by name ---


def test_privileged_hides_and_filters_nothing():
    assert not {"no_new_privs", "seccomp", "masked_paths", "readonly_paths"} & spec("--privileged").names


def test_one_root_only():
    assert "pivot_root" not in spec("--with chroot").names
    assert "chroot" not in spec("--profile bare --with pivot_root --with mnt").names


def test_without_is_last():
    assert "hostname" not in spec("--without hostname -h lab").names
    assert spec("--tmpfs /a --tmpfs /b --without tmpfs:/a").features[-1] == Tmpfs("/b")
    with pytest.raises(SpecError, match="no such mount"):
        spec("--tmpfs /a --without tmpfs:/b")


@pytest.mark.parametrize("name", REGISTRY)
def test_every_feature_can_be_left_out_by_name(name):
    assert name not in spec(f"--without {name}").names


NEED_SETTINGS = {"bind", "tmpfs", "hostname", "domainname", "cwd", "oom_score_adj"}
NEED_SETTINGS |= {"device", "cgroup_conf", "cgroup_parent", "landlock", "apparmor", "selinux", "securebits", "publish"}
NEED_SETTINGS |= {"macvlan", "ipvlan"}


@pytest.mark.parametrize("name", sorted(REGISTRY.keys() - NEED_SETTINGS))
def test_every_feature_can_be_put_in_by_name(name):
    assert name in spec(f"--profile lxc --with {name}").names


@pytest.mark.parametrize("name", sorted(NEED_SETTINGS))
def test_a_feature_with_settings_names_its_option(name):
    with pytest.raises(SpecError, match=f"the feature {name} needs settings: use "):
        spec(f"--with {name}")


# --- namespaces ---


def test_what_stands_on_a_namespace_leaves_with_it():
    assert not {"net", "loopback", "sysctl"} & spec("--net host").names
    assert not {"uts", "hostname"} & spec("--uts host").names
    assert "hostname" not in spec(f"--uts pid:{os.getpid()}").names
    assert {"pid", "proc"} & spec("--pid host").names == {"proc"}


def test_namespaces_joined():
    me = os.getpid()
    assert spec(f"--net pid:{me}").get("net").join == f"/proc/{me}/ns/net"
    assert spec(f"--time pid:{me}").get("timens").join == f"/proc/{me}/ns/time"
    assert spec("--userns ns:/proc/self/ns/user").get("userns").join == "/proc/self/ns/user"


def test_maps_make_a_user_namespace():
    found = spec("--uidmap 0:1000:1 --uidmap 1:2000:5").get("userns")
    assert found.uid_map == found.gid_map == ((0, 1000, 1), (1, 2000, 5))
    found = spec("--uidmap 0:1000:1 --gidmap 0:7:2").get("userns")
    assert (found.uid_map, found.gid_map) == (((0, 1000, 1),), ((0, 7, 2),))


def test_automatic_ids_show_the_root_through_them(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert {"userns", "idmap"} <= spec("--userns auto").names
    assert spec("--userns auto:size=9").get("userns").auto == 9
    assert all("idmap" not in spec(line).names for line in ("--userns auto --without idmap", "--userns private"))


# --- files ---


def test_sources_become_absolute_and_must_be_there(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    assert spec("-v data:/mnt").features[-1] == Bind(f"{tmp_path}/data", "/mnt")
    with pytest.raises(SpecError, match="no such file or directory"):
        spec("-v nothing:/mnt")
    assert spec("--upper up").get("overlay").upper == f"{tmp_path}/up"


def test_what_is_said_twice_is_refused():
    with pytest.raises(SpecError, match="tmpfs on /x is given twice"):
        spec("--tmpfs /x --mount type=tmpfs,target=/x")


def test_limits_and_sysctls_add_to_the_profiles():
    assert spec("--ulimit nofile=1:2").get("rlimits").limits == (("core", 0, 0), ("nofile", 1, 2))
    assert spec("--ulimit core=1").get("rlimits").limits == (("core", 1, 1),)
    settings_ = dict(spec("--sysctl net.ipv4.ip_unprivileged_port_start=80 --sysctl net.a.b=1").get("sysctl").settings)
    assert settings_["net.ipv4.ip_unprivileged_port_start"] == "80"
    assert settings_["net.a.b"] == "1"
    assert "net.ipv4.ping_group_range" in settings_


# --- resources ---


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("-m 256m", Memory("256M", swap="256M")),
        ("-m 256m --memory-swap 0", Memory("256M", swap="256M")),
        ("-m 256m --memory-swap 256m", Memory("256M", swap=0)),
        ("-m 256m --memory-swap 300m", Memory("256M", swap="44M")),
        ("-m 256m --memory-swap -1", Memory("256M", swap=-1)),
        ("-m 1g --memory-reservation 512m", Memory("1g", swap="1g", low="512m")),
        ("--memory 0 --memory-reservation 1m", Memory(low="1m")),
        ("--memory-swappiness 60", Memory(swappiness=60)),
        ("-m 1g --memory-swappiness -1 --oom-kill-disable", Memory("1g", swap="1g", oom_kill=False)),
        ("--cpus 1.5", Cpu(1.5)),
        ("--cpus 0", Cpu()),
        ("-c 512 --cpu-quota 50000 --cpu-period 25000", Cpu(quota=50000, period=25000, shares=512)),
        ("--cpu-quota -1", Cpu(quota=-1)),
        ("--cpus 2 --cpu-shares 0", Cpu(2.0)),
        ("--cpuset-cpus 0-1,3 --cpuset-mems 0", Cpuset("0-1,3", "0")),
        ("--pids-limit 64", Pids(64)),
        ("--pids-limit -1", Pids(-1)),
        ("--pids-limit 0", Pids(-1)),
        ("--profile lxc --pids-limit 7", Pids(7)),
        ("--blkio-weight 10", Io(1)),
        ("--blkio-weight 500", Io(4950)),
        ("--blkio-weight 1000", Io(10000)),
        ("--blkio-weight 0", Io()),
        ("--blkio-weight-device 8:0:1000", Io(weight_device={"8:0": 10000})),
        ("--device-read-bps 8:0:1mb --device-read-bps 8:1:5", Io(read_bps={"8:0": "1m", "8:1": 5})),
        ("--device-write-iops 8:0:100", Io(write_iops={"8:0": 100})),
        ("--cgroup-conf memory.high=1G --cgroup-conf a.b=c=d", CgroupConf({"memory.high": "1G", "a.b": "c=d"})),
    ],
)
def test_limits_mean_what_they_mean_to_docker(line, wanted):
    assert spec(line).get(wanted.name) == wanted


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--memory-swap 1g", "give --memory as well"),
        ("-m 1g --memory-swap 512m", "less than --memory"),
        ("-m 100", "--memory: 100 is not between 4096"),
        ("-m 1m --memory-reservation 2m", "above max"),
        ("--oom-kill-disable", "give --memory as well"),
        ("--cpus 1 --cpu-quota 5000", "--cpus and --cpu-quota"),
        ("--cpus 1e3", "not a number of processors"),
        ("--cpu-shares 1", "not between 2"),
        ("--blkio-weight 5", "not between 10 and 1000"),
        ("--device-read-bps /dev/null:1mb", "--device-read-bps /dev/null: is no block device"),
        ("--device-read-bps /dev/nosuch:1mb", "No such file"),
        ("--device /etc/passwd", "--device /etc/passwd: is no device"),
        ("--device /dev/null:/etc/x", "not below /dev"),
        ("--device /etc", "no device is in that directory"),
        ("--device vendor.com/gpu=all", "begins with /dev/"),
        ("--cgroup-parent ../x", "--cgroup-parent: .*'..'"),
        ("--best-effort nosuch", "--best-effort nosuch: no feature is named"),
    ],
)
def test_limits_that_cannot_be(line, words):
    with pytest.raises(SpecError, match=words):
        spec(line)


def test_devices_are_made_and_allowed():
    made = spec("--device /dev/zero:/dev/x/zero:r --profile docker")
    assert Device("/dev/x/zero", "c", 1, 5, 0o666, "/dev/zero") in made.features
    assert made.get("devices").rules == (*DOCKER_RULES, (True, "c", 1, 5, "r"))
    assert "devices" not in spec("--device /dev/zero").names
    ruled = spec("--device-cgroup-rule c_10:*_rw")
    assert ruled.get("devices").rules == (*DOCKER_RULES, (True, "c", 10, -1, "rw"))
    assert spec("--profile docker --privileged --device /dev/zero:/dev/z").get("devices").rules == ()
    assert spec("--device /dev/zero:m").get("device").path == "/dev/zero"


def test_a_directory_of_devices(tmp_path, requires):
    requires.root()
    for name, minor in (("b/one", 3), ("a", 5)):
        path = tmp_path / "lot" / name
        path.parent.mkdir(exist_ok=True, parents=True)
        os.mknod(path, 0o020600, os.makedev(1, minor))
    (tmp_path / "lot" / "note").write_text("")
    made = [feature for feature in spec(f"--device {tmp_path}/lot:/dev/lot").features if feature.name == "device"]
    assert [(node.path, node.minor, node.mode) for node in made] == [
        ("/dev/lot/a", 5, 0o600),
        ("/dev/lot/b/one", 3, 0o600),
    ]


@pytest.mark.parametrize("name", ["memory", "cpu", "pids", "io", "cpuset", "devices"])
def test_without_removes_exactly_that_controller(name):
    line = "-m 1g --cpus 1 --cpuset-cpus 0 --blkio-weight 500 --device-cgroup-rule c_1:*_r"
    whole, less = plan(spec(line)), plan(spec(f"{line} --without {name}"))
    diff = whole.diff(less)
    assert {step.feature for step in diff.removed} == {name}
    assert {step.call for step in diff.removed} == {"cgroup", "cgroup_enter"}
    assert not diff.added


# --- the terminal ---


@pytest.mark.parametrize(
    ("line", "terminal", "wanted"),
    [
        ("", False, False),
        ("", True, True),
        ("-t", False, True),
        ("--no-tty", True, False),
        ("--without devpts", True, False),
        ("--without session", True, False),
        ("--profile bare", True, False),
        ("-t --without tty", True, False),
    ],
)
def test_terminal(line, terminal, wanted):
    assert ("tty" in spec(line, terminal).names) is wanted


# --- settings of the command itself ---


def test_settings():
    assert settings({}) == Settings(timeout=0.0, stop_signal=15)
    assert settings({"timeout": "1m30s", "stop_signal": "SIGINT"}) == Settings(timeout=90.0, stop_signal=2)
    assert settings({"trace": ""}).trace == ""
