"""The ladder: each rung with what the kernel has of it, and what gets through, on and off."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent))

from world import HERE, HERE6, THERE, THERE6, World

NO_RULES = ("--without", "conntrack", "--without", "nat")


def test_loopback_only(net: World) -> None:
    pid = net.start("one", "--network", "none")
    assert [row["ifname"] for row in net.ip("link", pid=pid)] == ["lo"]
    assert net.ip("route", pid=pid) == []
    assert net.ask(pid, HERE, 80) == "OSError"
    assert net.links() == set()
    assert not (net.state / "network").exists()


def test_veth_routed(net: World) -> None:
    """A cable and two addresses; no bridge, no rule, no tracking, and no setting of the host changed."""
    pid = net.start("one", "--network", "routed", *NO_RULES)
    address = net.address("one")
    (cable,) = net.links()
    inside = next(row for row in net.ip("address", pid=pid) if row["ifname"] == "eth0")
    assert inside["linkinfo"]["info_kind"] == "veth"
    assert [(row["local"], row["prefixlen"]) for row in inside["addr_info"] if row["family"] == "inet"] == [
        (address, 32)
    ]
    assert {row["dst"]: row.get("gateway") for row in net.ip("route", pid=pid)} == {
        "default": "10.90.0.1",
        "10.90.0.1": None,
    }
    assert [row["dst"] for row in net.ip("route") if row["dev"] == cable] == [address]
    with net.server(pid, 80), net.server(net.host, 81):
        assert net.ask(net.host, address, 80) == "10.90.0.1"
        assert net.ask(net.host, address, 80, "udp") == "10.90.0.1"
        assert net.ask(pid, "10.90.0.1", 81) == address
    assert net.nft("tables") == []
    assert net.tracked() == 0
    assert net.sysctl("net.ipv4.ip_forward") == "0"
    net.minictr("rm", "-f", "one")
    net.nothing_left()


def test_bridge(net: World) -> None:
    """Containers reach each other by it; still no rule and no tracking."""
    one, two = net.start("one", "--network", "bridge", *NO_RULES), net.start("two", "--network", "bridge", *NO_RULES)
    addresses = net.address("one"), net.address("two")
    rows = {row["ifname"]: row for row in net.ip("link")}
    assert rows["minictr0"]["linkinfo"]["info_kind"] == "bridge"
    assert rows["minictr0"]["linkinfo"]["info_data"]["nf_call_iptables"] == 0
    assert [row["master"] for name, row in rows.items() if name.startswith("mc")] == ["minictr0"] * 2
    assert {row["dst"]: row.get("gateway") for row in net.ip("route", pid=one)}["default"] == "10.90.0.1"
    with net.server(one, 80):
        assert net.ask(two, addresses[0], 80) == addresses[1]
        assert net.ask(two, addresses[0], 80, "udp") == addresses[1]
        assert net.ask(net.host, addresses[0], 80) == "10.90.0.1"
    assert net.nft("tables") == []
    assert net.tracked() == 0
    net.minictr("rm", "-f", "one")
    assert "minictr0" in net.links()  # the other is in it
    net.minictr("rm", "-f", "two")
    net.nothing_left()


def test_bridge_netfilter(net: World) -> None:
    """Frames from port to port pass the rules of IP: a rule of somebody's counts them. Without it, none."""
    net.run("sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=0")
    net.run(
        "nft",
        "add table ip seen; add chain ip seen f { type filter hook forward priority 0; }; add rule ip seen f counter",
    )
    counted = []
    for extra in ((), ("--with", "bridge_netfilter")):
        one = net.start("one", "--network", "bridge", *NO_RULES, *extra)
        two = net.start("two", "--network", "bridge", *NO_RULES)
        with net.server(one, 80):
            assert net.ask(two, net.address("one"), 80, "udp") == net.address("two")
        (rule,) = (row["rule"] for row in net.nft("table", "ip", "seen") if "rule" in row)
        counted.append(rule["expr"][0]["counter"]["packets"])
        bridge = next(row for row in net.ip("link") if row["ifname"] == "minictr0")
        assert bridge["linkinfo"]["info_data"]["nf_call_iptables"] == len(extra) // 2
        net.minictr("rm", "-f", "one", "two")
    assert counted[0] == 0
    assert counted[1] >= 2  # there and back


def test_conntrack_is_a_wall(net: World) -> None:
    """A remote machine that knows the way gets in without it, and not with it; answers come in all the same."""
    net.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    net.run("ip", "route", "add", "10.90.0.0/24", "via", HERE, pid=net.remote)
    seen = []
    for extra in (("--without", "conntrack"), ()):
        pid = net.start("one", "--network", "bridge", "--without", "nat", *extra)
        address = net.address("one")
        with net.server(pid, 80), net.server(net.remote, 81):
            seen.append((net.ask(net.remote, address, 80, seconds=0.5), net.ask(pid, THERE, 81)))
            assert net.ask(net.host, address, 80) == "10.90.0.1"
        seen.append(net.tracked() > 0)
        net.minictr("rm", "-f", "one")
    addresses = "10.90.0.2", "10.90.0.2"
    assert seen[0] == (THERE, addresses[0])
    assert seen[1] is False
    assert seen[2] == ("TimeoutError", "10.90.0.2")
    assert seen[3] is True
    assert net.sysctl("net.ipv4.ip_forward") == "1"  # it was so before


def test_nat(net: World) -> None:
    """The remote machine, which knows no way back, sees the host; without it nothing comes back."""
    pid = net.start("one", "--network", "bridge")
    without = net.start("two", "--network", "bridge", "--without", "nat")
    with net.server(net.remote, 80):
        assert net.ask(pid, THERE, 80) == HERE
        assert net.ask(pid, THERE, 80, "udp") == HERE
        assert net.ask(without, THERE, 80, seconds=0.5) == "TimeoutError"
        assert net.stream(pid, THERE, 80, 16 << 20)
    assert net.elements()["nat4"] == [{"elem": {"val": net.address("one"), "comment": "minictr one"}}]
    assert net.sysctl("net.ipv4.ip_forward") == "1"
    net.minictr("rm", "-f", "one", "two")
    net.nothing_left()


def test_publish(net: World) -> None:
    """Every way in: from elsewhere, from the host by any of its addresses, from a neighbour, from itself."""
    pid = net.start("web", "-p", "8080:80", "-p", "8080:80/udp", "-p", "127.0.0.1:9000:80", "-p", f"{HERE}:9001:80")
    two = net.start("two", "--network", "bridge")
    with net.server(pid, 80):
        assert net.ask(net.remote, HERE, 8080) == THERE  # the container sees who it was
        assert net.ask(net.remote, HERE, 8080, "udp") == THERE
        for address in ("127.0.0.1", HERE, "10.90.0.1"):
            assert net.ask(net.host, address, 8080) in ("10.90.0.1", address)
            assert net.ask(net.host, address, 8080, "udp") in ("10.90.0.1", address)
        assert net.ask(two, HERE, 8080) in ("10.90.0.1", net.address("two"))  # hairpin
        # where frames pass the rules of IP, it is the bridge that translates, and they never come up to the host
        assert net.ask(pid, HERE, 8080) in ("10.90.0.1", net.address("web"))
        assert net.ask(net.host, "127.0.0.1", 9000) == "10.90.0.1"
        assert net.ask(net.remote, HERE, 9000) == "ConnectionRefusedError"
        assert net.ask(net.remote, HERE, 9001) == THERE
        assert net.ask(net.host, "127.0.0.1", 9001) == "ConnectionRefusedError"
        assert net.ask(net.remote, HERE, 80) == "ConnectionRefusedError"  # not a port of the host
        assert net.stream(net.remote, HERE, 8080, 64 << 20)
    ports = net.elements()["ports4"]
    assert [{"concat": ["tcp", 8080]}, {"concat": [net.address("web"), 80]}] == [
        ports[0][0]["elem"]["val"],
        ports[0][1],
    ] or len(ports) == 2
    assert "0.0.0.0:8080->80/tcp" in net.minictr("ps")
    net.minictr("rm", "-f", "web", "two")
    net.nothing_left()


def test_without_publish_nothing_gets_in(net: World) -> None:
    pid = net.start("web", "--network", "bridge", "-p", "8080:80", "--without", "publish")
    with net.server(pid, 80):
        assert net.ask(net.remote, HERE, 8080) == "ConnectionRefusedError"
        assert net.ask(net.host, "127.0.0.1", 8080) == "ConnectionRefusedError"
    assert "ports4" not in net.elements()


def test_ipv6(net: World) -> None:
    """All of it once more, in a network with IPv6."""
    net.minictr("network", "create", "six", "--subnet", "10.66.0.0/24", "--ipv6", "fd00:66::/64")
    pid = net.start("web", "--network", "six", "-p", "8080:80", "-p", "8080:80/udp", "-p", f"[{HERE6}]:9001:80")
    two = net.start("two", "--network", "bridge:six")
    address = net.address("web", "GlobalIPv6Address")
    assert address == "fd00:66::2"
    with net.server(pid, 80), net.server(net.remote, 81):
        assert net.ask(two, address, 80) == "fd00:66::3"
        assert net.ask(pid, THERE6, 81) == HERE6
        assert net.ask(pid, THERE, 81) == HERE
        assert net.ask(net.remote, HERE6, 8080) == THERE6
        assert net.ask(net.remote, HERE6, 8080, "udp") == THERE6
        assert net.ask(net.remote, HERE6, 9001) == THERE6
        assert net.ask(net.host, "::1", 8080) == "ConnectionRefusedError"  # what nat cannot do: 127.0.0.1 is there
        assert net.ask(pid, HERE6, 8080) in ("fd00:66::1", "fd00:66::2")
        assert net.ask(net.host, HERE6, 8080) in (HERE6, "fd00:66::1")
        assert net.ask(two, HERE6, 8080) in ("fd00:66::1", "fd00:66::3")
        assert net.ask(net.remote, address, 80, seconds=0.5) in ("TimeoutError", "OSError")
    assert net.sysctl("net.ipv6.conf.all.forwarding") == "1"
    net.minictr("rm", "-f", "web", "two")
    net.minictr("network", "rm", "six")
    assert net.sysctl("net.ipv6.conf.all.forwarding") == "0"
    net.nothing_left()


def test_several_networks(net: World) -> None:
    """Two cables, two bridges; the first has the default route, and a wall is between the networks."""
    net.minictr("network", "create", "lan")
    one = net.start("one", "--network", "bridge", "--network", "bridge:lan:mtu=1400", "-p", "80:80")
    two = net.start("two", "--network", "lan")
    devices = {row["ifname"]: row for row in net.ip("address", pid=one)}
    assert (devices["eth0"]["mtu"], devices["eth1"]["mtu"]) == (1500, 1400)
    default = next(row for row in net.ip("route", pid=one) if row["dst"] == "default")
    assert default["dev"] == "eth0"
    with net.server(one, 80):
        lan = next(row["local"] for row in devices["eth1"]["addr_info"] if row["family"] == "inet")
        assert net.ask(two, lan, 80) == net.address("two")
        assert net.ask(two, net.address("one"), 80, seconds=0.5) in ("TimeoutError", net.address("two"))


def test_nobody_outside_reaches_the_hosts_loopback(net: World) -> None:
    """route_localnet, which publishing sets on our bridge, opens 127.0.0.1 of the host to its neighbours but for a rule
    of ours (CVE-2020-8558). Weakened, without that rule: it is reached."""
    pid = net.start("bad", "-p", "8080:80")
    net.run("ip", "route", "delete", "local", "127.0.0.1", "table", "local", pid=pid)
    net.run("ip", "route", "delete", "local", "127.0.0.0/8", "table", "local", pid=pid)
    net.run("ip", "route", "add", "127.0.0.0/8", "via", "10.90.0.1", pid=pid)
    net.run("sysctl", "-qw", "net.ipv4.conf.all.route_localnet=1", "net.ipv4.conf.eth0.route_localnet=1", pid=pid)
    net.run(
        "nft",
        "add table ip seen; add chain ip seen i { type filter hook input priority 0; };"
        ' add rule ip seen i iifname "minictr0" ip daddr 127.0.0.1 counter',
    )

    def arrived() -> int:
        net.ask(pid, "127.0.0.1", 6000, seconds=0.3)
        (rule,) = (row["rule"] for row in net.nft("table", "ip", "seen") if "rule" in row)
        return int(next(part["counter"]["packets"] for part in rule["expr"] if "counter" in part))

    assert net.sysctl("net.ipv4.conf.minictr0.route_localnet") == "1"
    assert arrived() == 0
    (name,) = (row["table"]["name"] for row in net.nft("tables") if row["table"]["name"] != "seen")
    net.run("nft", "flush", "chain", "inet", name, "published_martians")
    assert arrived() > 0
