"""What a container may reach: real traffic that is allowed and that is refused, with the feature and without."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parent))

from world import HERE, HERE6, THERE, THERE6, World

REFUSED = (
    "OSError",
    "TimeoutError",
    "ConnectionRefusedError",
    "PermissionError",
)  # the error is an ICMP message, of which some get lost
# an echo request; prints the type of what comes back: 0 is the answer, 3 that it was refused
PING = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP); s.settimeout(float(sys.argv[2]))
s.sendto(bytes.fromhex("0800f7fd00010001"), (sys.argv[1], 0))
try:
    print(s.recv(1500)[20])
except OSError as err:
    print(type(err).__name__)
"""


def table(net: World, family: str) -> list[str]:
    return [row["table"]["name"] for row in net.nft("tables") if row["table"]["family"] == family]


def test_none_answers_and_reaches_nothing(net: World) -> None:
    """Published ports and whoever begins are answered; what it begins is refused, to neighbours and the host too."""
    pid = net.start("web", "-p", "8080:80", "--egress", "none")
    two = net.start("two", "--network", "bridge")
    with net.server(pid, 80), net.server(net.remote, 81), net.server(net.host, 82), net.server(two, 83):
        assert net.ask(net.remote, HERE, 8080) == THERE
        assert net.ask(net.host, "127.0.0.1", 8080) == "10.90.0.1"
        assert net.ask(net.host, net.address("web"), 80, "udp") == "10.90.0.1"
        assert net.ask(two, net.address("web"), 80) == net.address("two")
        assert net.stream(net.remote, HERE, 8080, 8 << 20)
        for kind in ("tcp", "udp"):
            assert net.ask(pid, THERE, 81, kind, 1) in REFUSED
            assert net.ask(pid, "10.90.0.1", 82, kind, 1) in REFUSED
            assert net.ask(pid, HERE, 82, kind, 1) in REFUSED
            assert net.ask(pid, net.address("two"), 83, kind, 1) in REFUSED
            assert net.ask(two, THERE, 81, kind) == HERE  # who was not limited
    assert net.elements()["egress4"] == [{"elem": {"val": net.address("web"), "comment": "minictr web"}}]
    net.minictr("rm", "-f", "web", "two")
    net.nothing_left()


def test_off_everything_is_reached(net: World) -> None:
    pid, two = net.start("one", "--network", "bridge"), net.start("two", "--network", "bridge")
    with net.server(net.remote, 81), net.server(net.host, 82), net.server(two, 83):
        assert net.ask(pid, THERE, 81) == HERE
        assert net.ask(pid, "10.90.0.1", 82) == net.address("one")
        assert net.ask(pid, net.address("two"), 83) == net.address("one")
    assert not [name for name in net.elements() if name.startswith("egress")]
    assert table(net, "bridge") == []


def test_allow_by_address_port_and_protocol(net: World) -> None:
    rules = f"allow={THERE}:81/tcp,{THERE}:85-86,{THERE}:86-90/udp,10.90.0.0/24"
    pid = net.start("one", "--network", "bridge", "--egress", rules, "--egress", "deny=10.90.0.1:82/udp")
    two = net.start("two", "--network", "bridge")
    with net.server(net.remote, 81), net.server(net.remote, 86), net.server(net.remote, 88), net.server(net.host, 82):
        assert net.ask(pid, THERE, 81) == HERE
        assert net.ask(pid, THERE, 81, "udp", 1) in REFUSED
        assert (net.ask(pid, THERE, 86), net.ask(pid, THERE, 86, "udp")) == (HERE, HERE)
        assert net.ask(pid, THERE, 88, "tcp", 1) in REFUSED
        assert net.ask(pid, THERE, 88, "udp") == HERE
        assert net.ask(pid, "10.90.0.1", 82) == net.address("one")
        assert net.ask(pid, "10.90.0.1", 82, "udp", 1) in REFUSED
        assert net.ask(pid, HERE, 82, "tcp", 1) in REFUSED
        with net.server(two, 83):
            assert net.ask(pid, net.address("two"), 83) == net.address("one")
    assert net.run(sys.executable, "-c", PING, "10.90.0.1", "5", pid=pid) == "0"  # a whole network: all its protocols
    assert net.run(sys.executable, "-c", PING, THERE, "1", pid=pid) != "0"


def test_deny_alone_leaves_the_rest_open(net: World) -> None:
    pid = net.start("one", "--network", "bridge", "--egress", f"deny={THERE}/32:81,10.90.0.0/25")
    two = net.start("two", "--network", "bridge")
    with net.server(net.remote, 81), net.server(net.remote, 82), net.server(two, 83), net.server(net.host, 84):
        assert net.ask(pid, THERE, 82) == HERE
        assert net.ask(pid, THERE, 81, "tcp", 1) in REFUSED
        assert net.ask(pid, net.address("two"), 83, "tcp", 1) in REFUSED
        assert net.ask(pid, HERE, 84) in (HERE, net.address("one"))


def test_ipv6(net: World) -> None:
    """Also under its link-local address, which nobody gave it."""
    net.minictr("network", "create", "six", "--subnet", "10.66.0.0/24", "--ipv6", "fd00:66::/64")
    rules = f"allow=[{THERE6}]:81/tcp,fd00:66::/112"
    pid = net.start("one", "--network", "six", "-p", "8080:80", "--egress", rules)
    two = net.start("two", "--network", "six")
    (link_local,) = (
        address["local"]
        for row in net.ip("-6", "address", "show", "dev", "six")
        for address in row["addr_info"]
        if address["scope"] == "link"
    )
    with net.server(pid, 80), net.server(net.remote, 81), net.server(two, 83), net.server(net.host, 84):
        assert net.ask(net.remote, HERE6, 8080) == THERE6
        assert net.ask(pid, THERE6, 81) == HERE6
        assert net.ask(pid, THERE6, 81, "udp", 1) in REFUSED
        assert net.ask(pid, THERE, 81, "tcp", 1) in REFUSED
        assert net.ask(pid, net.address("two", "GlobalIPv6Address"), 83) == "fd00:66::2"
        assert net.ask(pid, HERE6, 84, "tcp", 1) in REFUSED
        assert net.ask(pid, f"{link_local}%eth0", 84, "udp", 1) in REFUSED
        assert net.ask(two, f"{link_local}%eth0", 84, "udp").startswith("fe80::")


def test_routed(net: World) -> None:
    pid = net.start("one", "--network", "routed", "--egress", f"allow={THERE}")
    with net.server(net.remote, 81), net.server(net.host, 82):
        assert net.ask(pid, THERE, 81) == HERE
        assert net.ask(pid, "10.90.0.1", 82, "tcp", 1) in REFUSED
    assert table(net, "bridge") == []
    net.run("ip", "address", "add", "10.90.0.200/32", "dev", "eth0", pid=pid)
    net.run("ip", "route", "replace", "default", "via", "10.90.0.1", "src", "10.90.0.200", pid=pid)
    with net.server(net.host, 82):
        assert net.ask(pid, "10.90.0.1", 82, "tcp", 1) in REFUSED


def test_another_address_leads_nowhere(net: World) -> None:
    """Rules go by address, so a frame under any other is not taken from its cable. Weakened, without that: it is."""
    pid = net.start("one", "--network", "bridge", "--egress", "none")
    net.run("ip", "address", "add", "10.90.0.200/24", "dev", "eth0", pid=pid)
    net.run("ip", "route", "replace", "10.90.0.0/24", "dev", "eth0", "src", "10.90.0.200", pid=pid)
    with net.server(net.host, 82):
        assert net.ask(pid, "10.90.0.1", 82, "tcp", 1) in REFUSED
        (name,) = table(net, "bridge")
        net.run("nft", "flush", "chain", "bridge", name, "egress_own_in")
        net.run("ip", "neigh", "flush", "dev", "eth0", pid=pid)
        assert net.ask(pid, "10.90.0.1", 82, "tcp", 5) == "10.90.0.200"
        net.minictr("network", "repair")
        assert net.ask(pid, "10.90.0.1", 82, "tcp", 1) in REFUSED


def test_in_force_before_the_program_runs(net: World) -> None:
    """A start that is held just before its program has the rules already; they go with it."""
    net.minictr("create", "--name", "one", "--rootfs", net.rootfs, "--egress", "none", "--", "sleep", "1000")
    elements = net.elements()
    assert [row["elem"]["comment"] for row in elements["egress4"]] == ["minictr one"]
    plan = net.minictr("plan", "--rootfs", net.rootfs, "--egress", "none", "--", "true")
    lines = [line for line in plan.splitlines() if " egress " in f"{line} " or "barrier" in line]
    assert len(lines) >= 2
    net.minictr("rm", "-f", "one")
    net.nothing_left()


def test_repaired_and_swept(net: World) -> None:
    rules = ("--egress", f"allow={THERE}:81/tcp,10.0.0.0/8:53,10.90.0.0/24:50-60/udp,[2001:db8::/32]:443")
    pid = net.start("one", "--network", "bridge", *rules)
    before = {name: sorted(map(str, rows)) for name, rows in net.elements().items()}
    assert before["egress_allowed_ports4"]
    net.run("nft", "flush", "ruleset")
    with net.server(net.remote, 82):
        net.minictr("network", "repair")
        assert net.ask(pid, THERE, 82, "tcp", 1) in REFUSED
    assert {name: sorted(map(str, rows)) for name, rows in net.elements().items()} == before
    for one in (net.minictr("inspect", "-f", "{{.Monitor.Pid}}", "one"), pid):
        os.kill(int(one), signal.SIGKILL)
    deadline = time.monotonic() + 10
    while net.minictr("gc") or any(rows for name, rows in net.elements().items() if name.startswith("egress")):
        assert time.monotonic() < deadline
    net.minictr("rm", "-f", "one")
    net.nothing_left()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--egress", "allow=example.com"), "names are not looked up"),
        (("--egress", "allow=10.0.0.0/33"), "network as 10.0.0.0/8"),
        (("--egress", "allow=10.0.0.1:0"), "is no port"),
        (("--egress", "allow=10.0.0.1/icmp"), "not one of tcp, udp, sctp"),
        (("--egress", "allow=10.0.0.1,"), "empty rule"),
        (("--egress", "some"), "none, deny, allow="),
        (("--egress", "none", "--egress", "deny=10.0.0.0/8"), "nothing is allowed"),
        (("--egress", "none", "--network", "host"), "has no address of its own"),
        (("--egress", "none", "--without", "bridge_netfilter"), "add bridge_netfilter"),
    ],
)
def test_bad_input(net: World, options: tuple[str, ...], words: str) -> None:
    told = net.minictr("run", "--rootfs", net.rootfs, *options, "--", "true", check=False)
    assert told.startswith("125 minictr run: ") and words in told and "\n" not in told, told
    assert net.links() == set()
