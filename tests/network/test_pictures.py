"""Docker's network and LXC's, each rebuilt by its profile and one option; every rung is there, and what is not."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parent))

from world import HERE, THERE, World

DOCKER = {"veth", "bridge", "conntrack", "nat", "publish", "hosts", "resolv_conf", "hostname_file", "names"}
LXC = {"veth", "bridge", "nat"}


def rungs(net: World, *options: object) -> set[str]:
    """The features of networks and names in the plan of OPTIONS."""
    plan = json.loads(net.minictr("plan", "--format", "json", "--rootfs", net.rootfs, *options, "--", "true"))
    steps = plan["steps"] if isinstance(plan, dict) else plan
    return {step["feature"] for step in steps} & (DOCKER | {"bridge_netfilter"})


def test_dockers(net: World) -> None:
    """A private namespace, a cable to a bridge, a wall, NAT, a published port, the files, and names on a made one."""
    options = ("--profile", "docker", "--network", "bridge")
    assert rungs(net, *options, "-p", "8080:80") == DOCKER
    assert rungs(net, *options, "--with", "bridge_netfilter", "--without", "names") == (
        DOCKER - {"publish", "names"} | {"bridge_netfilter"}
    )
    for rung in DOCKER - {"veth", "bridge", "publish"}:
        assert rungs(net, *options, "-p", "8080:80", "--without", rung) == DOCKER - {rung}
    net.run("ip", "route", "add", "10.90.0.0/24", "via", HERE, pid=net.remote)
    pid = net.start("web", *options, "-p", "8080:80")
    rows = {row["ifname"]: row for row in net.ip("link")}
    assert rows["minictr0"]["linkinfo"]["info_kind"] == "bridge"
    assert net.elements()["tracked4"] == net.elements()["nat4"]
    etc = {line.split()[4] for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines() if " /etc/" in line}
    assert etc == {"/etc/hosts", "/etc/resolv.conf", "/etc/hostname"}
    with net.server(pid, 80), net.server(net.remote, 81):
        assert net.ask(net.remote, HERE, 8080) == THERE
        assert net.ask(pid, THERE, 81) == HERE
        assert net.ask(net.remote, net.address("web"), 80, seconds=0.5) == "TimeoutError"  # the wall
    net.minictr("network", "create", "lan")
    net.start("db", "--profile", "docker", "--network", "lan", "--network-alias", "base")
    net.start("app", "--profile", "docker", "--network", "lan")
    assert f"{net.address('db')}\tdb base" in net.minictr("exec", "app", "cat", "/etc/hosts")
    assert "base" not in net.minictr("exec", "web", "cat", "/etc/hosts")


def test_lxcs(net: World) -> None:
    """A private namespace, one cable to a NAT bridge; no wall, and /etc is the image's."""
    options = ("--profile", "lxc", "--network", "bridge")
    assert rungs(net, *options) == LXC
    assert rungs(net, *options, "--add-host", "db:192.0.2.5", "--dns", "192.0.2.53") == LXC | {"hosts", "resolv_conf"}
    net.minictr("network", "create", "lxcbr0", "--subnet", "10.0.3.0/24")
    net.run("ip", "route", "add", "10.0.3.0/24", "via", HERE, pid=net.remote)
    pid = net.start("sys", "--profile", "lxc", "--network", "lxcbr0")
    assert [row["ifname"] for row in net.ip("link", pid=pid)] == ["lo", "eth0"]
    assert " /etc" not in Path(f"/proc/{pid}/mountinfo").read_text()
    assert net.elements().get("tracked4", []) == []
    with net.server(pid, 80), net.server(net.remote, 81):
        assert net.ask(pid, THERE, 81) == HERE  # NAT
        assert net.ask(net.remote, net.address("sys"), 80) == THERE  # lxc-net lets it through
    net.minictr("rm", "-f", "sys")
    net.minictr("network", "rm", "lxcbr0")
    net.nothing_left()


@pytest.mark.parametrize("profile", ["docker", "lxc", "default"])
def test_without_a_network(net: World, profile: str) -> None:
    """Docker gives the files with its network none as well."""
    files = {"hosts", "resolv_conf", "hostname_file"} if profile == "docker" else set()
    assert rungs(net, "--profile", profile) == files
