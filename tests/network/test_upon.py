"""macvlan for containers: on the wire beside the host, addresses leased or named, alone and beside a bridge."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).resolve().parent))

from world import HERE, THERE, World

SUBNET = "subnet=192.0.2.0/24,gateway=192.0.2.2"
NAMED = f"{SUBNET},ip=192.0.2.50"


def device(net: World, name: str, inside: str = "eth0") -> dict[str, Any]:
    (row,) = (row for row in net.ip("address", pid=net.pid(name)) if row["ifname"] == inside)
    return row


def answers(net: World, source: int, address: str, port: int) -> bool:
    return "Error" not in net.ask(source, address, port, seconds=2)


def test_on_the_wire(net: World) -> None:
    """The remote machine and the container see each other as neighbours; the host is no part of it."""
    net.start("one", "--network", f"macvlan:wire0:{NAMED},mac=02:00:00:00:00:50,mtu=1300")
    row = device(net, "one")
    assert row["linkinfo"]["info_kind"] == "macvlan"
    assert row["linkinfo"]["info_data"]["mode"] == "bridge"
    assert (row["address"], row["mtu"]) == ("02:00:00:00:00:50", 1300)
    routes = net.ip("route", pid=net.pid("one"))
    assert [route["gateway"] for route in routes if route["dst"] == "default"] == ["192.0.2.2"]
    with net.server(net.pid("one"), 80), net.server(net.remote, 81):
        assert net.ask(net.remote, "192.0.2.50", 80) == THERE
        assert net.ask(net.pid("one"), THERE, 81) == "192.0.2.50"
        assert not answers(net, net.host, "192.0.2.50", 80)
        assert not answers(net, net.pid("one"), HERE, 80)
    told = json.loads(net.minictr("inspect", "-f", "{{json .NetworkSettings.Networks}}", "one"))
    assert told["on-wire0"]["IPAddress"] == "192.0.2.50"
    assert told["on-wire0"]["Gateway"] == "192.0.2.2"
    net.minictr("rm", "-f", "one")
    net.nothing_left()


@pytest.mark.parametrize(("mode", "reached"), [("bridge", True), ("private", False), ("vepa", False)])
def test_modes(net: World, mode: str, reached: bool) -> None:
    """Two on one parent: through it in the mode bridge, and by a switch that sends back, which a cable is not, else."""
    for name, host in (("one", 50), ("two", 51)):
        net.start(name, "--network", f"macvlan:wire0:ip=192.0.2.{host}/24,mode={mode}")
        assert device(net, name)["linkinfo"]["info_data"]["mode"] == mode
    with net.server(net.pid("one"), 80):
        assert answers(net, net.pid("two"), "192.0.2.50", 80) is reached
    for name in ("one", "two"):
        net.minictr("rm", "-f", name)
    net.nothing_left()


def test_passthru_is_alone(net: World) -> None:
    net.start("one", "--network", "macvlan:wire0:mode=passthru")
    assert [row["family"] for row in device(net, "one")["addr_info"]] in ([], ["inet6"])  # no address was asked for
    words = ("run", "--rootfs", net.rootfs, "--network", "macvlan:wire0", "--", "true")
    told = net.minictr(*words, check=False)
    assert told.startswith("125 minictr run: ") and told.count("\n") == 0
    net.minictr("rm", "-f", "one")
    net.nothing_left()


def test_leases(net: World) -> None:
    """Addresses are given out once, come back, and end; another subnet on the same device is refused."""
    small = "macvlan:wire0:subnet=10.5.0.0/29,gateway=10.5.0.1"
    for number in range(5):
        net.start(f"c{number}", "--network", small)
    assert len({net.address(f"c{number}") for number in range(5)}) == 5
    run = ("run", "--rootfs", net.rootfs, "--network")
    assert "all 5 addresses" in net.minictr(*run, small, "--", "true", check=False)
    assert "name that subnet" in net.minictr(*run, f"macvlan:wire0:{SUBNET}", "--", "true", check=False)
    assert "has it" in net.minictr(*run, f"{small},ip={net.address('c1')}", "--", "true", check=False)
    net.minictr("rm", "-f", "c0")
    net.minictr(*run, small, "--", "true")
    for number in range(1, 5):
        net.minictr("rm", "-f", f"c{number}")
    net.nothing_left()


def test_beside_a_bridge(net: World) -> None:
    """The first that leads anywhere has the default route; ports are the bridge's."""
    names = ("--network", f"macvlan:wire0:{NAMED}", "--network", "bridge", "-p", "8080:80")
    net.start("both", *names)
    pid = net.pid("both")
    assert device(net, "both", "eth1")["linkinfo"]["info_kind"] == "veth"
    defaults = [route for route in net.ip("route", pid=pid) if route["dst"] == "default"]
    assert [route["dev"] for route in defaults] == ["eth0"]
    with net.server(pid, 80):
        assert answers(net, net.host, "127.0.0.1", 8080)
        assert answers(net, net.remote, "192.0.2.50", 80)
    found = json.loads(net.minictr("inspect", "-f", "{{json .NetworkSettings.Networks}}", "both"))
    assert [found[name]["Interface"] for name in ("on-wire0", "minictr0")] == ["eth0", "eth1"]
    net.minictr("rm", "-f", "both")
    net.start("both", "--network", "macvlan:wire0:ip=192.0.2.50/24", "--network", "bridge")
    defaults = [route for route in net.ip("route", pid=net.pid("both")) if route["dst"] == "default"]
    assert [route["dev"] for route in defaults] == ["eth1"]
    net.minictr("rm", "-f", "both")
    net.nothing_left()
