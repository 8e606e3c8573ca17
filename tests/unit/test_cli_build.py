"""Parsed options -> Spec, without a kernel: what each option changes, and that both parsers give the same spec."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from minictr.cli import build as build_module
from minictr.cli import options
from minictr.cli import plan as plan_module
from minictr.cli import settings as settings_module
from minictr.cli.build import build
from minictr.cli.fastparse import parse
from minictr.cli.main import HotVerb, parsed
from minictr.cli.settings import Settings, settings
from minictr.errors import SpecError
from minictr.features import DEFAULT, REGISTRY
from minictr.features.capabilities import CAPABILITIES
from minictr.features.mounts import Bind, Tmpfs
from minictr.features.profiles import DEFAULT_CAPABILITIES, DOCKER_CAPABILITIES
from minictr.plan import plan
from minictr.spec import Spec

RUN = options.RUN_OPTIONS


def spec(line: str, terminal: bool = False) -> Spec:
    opts, command = parse([*line.split(), "--rootfs", "/image", "--", "cmd"], RUN)
    return build(opts, command, terminal)


def test_nothing_said_is_the_default_profile():
    assert spec("") == Spec(("cmd",), DEFAULT, "/image")


LINES = [
    "--profile docker --name box --without mqueue",
    "-e A=1 -e B=2 --clearenv -w /srv -u 1:2 -h lab --domainname nis",
    "-v /tmp:/mnt:ro --tmpfs /run:size=1m --mount type=tmpfs,target=/x --read-only --overlay --shm-size 1m",
    "--cap-add ALL --cap-drop CHOWN --privileged --ulimit nofile=1:2 --sysctl net.ipv4.ip_forward=1",
    "--security-opt no-new-privileges=false --oom-score-adj -5 --uidmap 0:1:2 --gidmap 0:3:4 --time-offset boottime=5",
    "--pid host --net none --ipc private --uts host --cgroupns host --no-init -it --rm --timeout 5 --trace",
    "--die-with-parent --stop-signal INT --with readonly --with chroot",
]


@pytest.mark.parametrize("line", LINES)
def test_both_parsers_lead_to_one_spec(line):
    words = [*line.split(), "--rootfs=/image", "cmd", "-x"]
    with HotVerb("run", RUN).make_context("run", list(words)) as ctx:
        by_click = parsed(ctx.params)
    by_us = parse(words, RUN)
    assert build(*by_click, terminal=False) == build(*by_us, terminal=False)
    assert settings(by_click[0]) == settings(by_us[0])


@pytest.mark.parametrize("line", LINES)
def test_what_is_built_can_be_planned(line):
    assert len(plan(spec(line)).steps) > 10


def test_every_option_is_read():
    """No option of the table is parsed and then forgotten."""
    say_what_is_so_anyway = {"rm", "interactive"}
    code = "".join(Path(module.__file__ or "").read_text() for module in (build_module, settings_module, plan_module))
    unread = {row[1] for row in options.PLAN_OPTIONS + RUN if f'"{row[1]}"' not in code}
    assert unread == say_what_is_so_anyway


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


NEED_SETTINGS = {"bind", "tmpfs", "hostname", "domainname", "cwd", "oom_score_adj", "seccomp"}


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
