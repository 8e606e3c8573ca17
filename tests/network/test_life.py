"""Addresses, ports, rules from the first container to the last: leases, conflicts, deaths, repairs, others' things."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parent))

from world import HERE, THERE, World


def leases(net: World) -> dict[str, set[str]]:
    """Network -> the addresses that are leased."""
    return {path.parent.name: {one.name for one in path.iterdir()} for path in (net.state / "network").glob("*/leases")}


def test_addresses_are_leased_and_come_back(net: World) -> None:
    net.start("one", "--network", "bridge", "--ip", "10.90.0.77", "--mac-address", "02:00:00:00:00:77")
    net.start("two", "--network", "bridge")
    assert leases(net) == {"minictr0": {"10.90.0.77", net.address("two")}}
    assert net.address("one", "MacAddress") == "02:00:00:00:00:77"
    (inside,) = (row for row in net.ip("link", pid=net.pid("one")) if row["ifname"] == "eth0")
    assert inside["address"] == "02:00:00:00:00:77"
    refused = net.minictr("run", "--rootfs", net.rootfs, "--ip", "10.90.0.77", "--", "true", check=False)
    assert refused.startswith("125 minictr run: ") and "has it" in refused
    for bad in ("10.90.0.1", "10.90.0.0", "10.90.0.255", "10.91.0.5", "fd00::1"):
        told = net.minictr("run", "--rootfs", net.rootfs, "--ip", bad, "--", "true", check=False)
        assert told.startswith("125 minictr run: "), told
        assert told.count("\n") == 0
    assert leases(net) == {"minictr0": {"10.90.0.77", net.address("two")}}
    net.minictr("rm", "-f", "one")
    net.minictr("run", "--rootfs", net.rootfs, "--ip", "10.90.0.77", "--", "true")
    net.minictr("rm", "-f", "two")
    net.nothing_left()


def test_exhausted_and_swept(net: World) -> None:
    """A network of five addresses: the sixth container is told so; killed owners give theirs back."""
    net.minictr("network", "create", "tiny", "--subnet", "10.77.0.0/29")
    for number in range(5):
        net.start(f"c{number}", "--network", "tiny", "--rm")
    told = net.minictr("run", "--rootfs", net.rootfs, "--network", "tiny", "--", "true", check=False)
    assert "all 5 addresses of 10.77.0.0/29 are in use" in told
    instances = json.loads(net.minictr("inspect", "c0", "c1"))
    for instance in instances:  # monitor and container, at once: nobody is left to clean up
        for pid in (instance["Monitor"]["Pid"], instance["State"]["Pid"]):
            os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while net.minictr("run", "--rootfs", net.rootfs, "--network", "tiny", "--", "true", check=False) != "0":
        assert time.monotonic() < deadline
    net.minictr("gc")
    for number in range(2, 5):
        net.minictr("rm", "-f", f"c{number}")
    assert leases(net) == {"tiny": set()}
    assert "tiny" in net.links()
    assert "containers are in it" not in net.minictr("network", "rm", "tiny")
    net.nothing_left()


def test_a_port_that_is_taken(net: World) -> None:
    """By a container of ours, by another program, by an address of one or all: an error before anything is made."""
    net.start("web", "-p", "8080:80", "-p", "127.0.0.1:9000:90", "-p", "7000-7003:7000-7003/udp")
    before = net.links(), net.elements(), leases(net)
    with net.server(net.host, 5000):
        for text, words in {
            "8080:81": "publishes it",
            "127.0.0.1:8080:81": "publishes it",
            "9000:81": "publishes it",
            "7002:1/udp": "publishes it",
            "5000:1": "another program has it",
            "127.0.0.1:5000:1/udp": "another program has it",
            "192.0.2.99:6000:1": "no address of this host",
        }.items():
            told = net.minictr("run", "--rootfs", net.rootfs, "-p", text, "--", "true", check=False)
            assert told.startswith("125 minictr run: ") and words in told, told
        for text in ("192.0.2.1:9000:81", "8080:80/udp"):  # other addresses, another protocol
            net.minictr("run", "--rootfs", net.rootfs, "-p", text, "--", "true")
    assert (net.links() & {"minictr0"}, leases(net)) == (before[0] & {"minictr0"}, before[2])
    assert net.elements() == before[1]
    net.minictr("rm", "-f", "web")
    net.nothing_left()


def test_ports_that_are_free(net: World) -> None:
    pid = net.start("web", "-p", "80", "-p", f"{HERE}::81", "--expose", "90-91", "-P")
    ports = json.loads(net.minictr("inspect", "-f", "{{json .NetworkSettings.Ports}}", "web"))
    assert set(ports) == {"80/tcp", "81/tcp", "90/tcp", "91/tcp"}
    assert ports["81/tcp"][0]["HostIp"] == HERE
    with net.server(pid, 91):
        assert net.ask(net.remote, HERE, int(ports["91/tcp"][0]["HostPort"])) == THERE


@pytest.mark.parametrize("seconds", [0.05, 0.1, 0.3])
def test_killed_amid_a_start(net: World, seconds: float) -> None:
    """SIGKILL to the runtime: the next gc takes back address, port, cable, rules, bridge and setting."""
    command = [*net.cli, "run", "--rootfs", str(net.rootfs), "-p", "8080:80", "--", "sleep", "1000"]
    with subprocess.Popen(net.inside(net.host, command), env=net.environment) as process:
        time.sleep(seconds)
        process.kill()
    deadline = time.monotonic() + 10
    while net.minictr("gc") or any(leases(net).values()):
        assert time.monotonic() < deadline
    net.nothing_left()


def test_many_at_once(net: World) -> None:
    """Twenty start and end on one bridge together: each its own address and port, nothing left."""

    def one(number: int) -> str:
        words = ("--network", "bridge", "-p", f"{9100 + number}:80")
        return net.minictr("run", "--rootfs", net.rootfs, *words, "--", "cat", "/proc/net/fib_trie", check=False)

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(one, range(20)))
    assert [text.split(maxsplit=1)[0] for text in found] == ["0"] * 20, [text for text in found if text[0] != "0"][:2]
    addresses = {line.split()[-1] for text in found for line in text.splitlines() if "10.90.0." in line} - {
        "10.90.0.0/24",
        "10.90.0.0",
        "10.90.0.255",
        "10.90.0.1",
    }
    assert len({word for word in addresses if not word.endswith("/0")}) >= 8
    net.nothing_left()


def test_foreign_things_are_left_alone(net: World) -> None:
    net.run(
        "nft",
        "add table inet theirs; add chain inet theirs c { type filter hook forward priority 0; policy drop; };"
        " add rule inet theirs c ct state established accept",
    )
    net.run("ip", "link", "add", "minictr1", "type", "bridge")
    before = net.nft("ruleset"), net.ip("link")
    told = net.minictr("network", "create", "minictr1", check=False)
    assert told.startswith("125 minictr network: ") and "is there" in told
    pid = net.start("one", "--network", "bridge")
    found = json.loads(net.minictr("network", "inspect", "minictr0"))[0]
    assert any("chain c of table inet theirs drops what is forwarded" in line for line in found["InTheWay"])
    with net.server(net.remote, 80):
        assert net.ask(pid, THERE, 80, seconds=0.5) == "TimeoutError"  # what theirs drops stays dropped
    net.minictr("rm", "-f", "one")
    deadline = time.monotonic() + 5
    while net.ip("link") != before[1] and time.monotonic() < deadline:
        time.sleep(0.05)
    assert (net.nft("ruleset"), {row["ifname"] for row in net.ip("link")}) == (
        before[0],
        {row["ifname"] for row in before[1]},
    )
    net.run("ip", "link", "delete", "minictr1")
    net.run("nft", "delete", "table", "inet", "theirs")
    net.nothing_left()


def test_repair(net: World) -> None:
    """Bridge deleted, rules flushed, forwarding off under a container that runs: all is back, and traffic with it."""
    pid = net.start("web", "-p", "8080:80")
    with net.server(pid, 80):
        assert net.ask(net.remote, HERE, 8080) == THERE
        before = net.elements()
        net.run("ip", "link", "delete", "minictr0")
        net.run("nft", "flush", "ruleset")
        net.run("sysctl", "-qw", "net.ipv4.ip_forward=0")
        assert net.ask(net.remote, HERE, 8080, seconds=0.5) != THERE
        told = net.minictr("network", "repair").splitlines()
        assert [line.split(":")[0] for line in told] == ["bridge minictr0", "container web", "container web"]
        assert net.ask(net.remote, HERE, 8080) == THERE
        assert net.ask(net.host, "127.0.0.1", 8080) == "10.90.0.1"
        assert net.elements() == before
    net.minictr("rm", "-f", "web")
    net.nothing_left()


def test_joined_by_another_container(net: World) -> None:
    """--network container:NAME has its devices, and its ports lead to whoever of both listens."""
    net.start("web", "-p", "8080:80")
    two = net.start("two", "--network", "container:web")
    assert os.readlink(f"/proc/{two}/ns/net") == os.readlink(f"/proc/{net.pid('web')}/ns/net")
    with net.server(two, 80):
        assert net.ask(net.remote, HERE, 8080) == THERE
    told = net.minictr("run", "--rootfs", net.rootfs, "--network", "container:nix", "--", "true", check=False)
    assert told.startswith("125 ")
    net.minictr("rm", "-f", "two", "web")
    net.nothing_left()


def test_started_again(net: World) -> None:
    """stop gives everything back, start takes it anew."""
    net.start("web", "-p", "8080:80")
    net.minictr("stop", "-t", "0", "web")
    assert net.minictr("ps", "-a", "--format", "{{.Ports}}") == ""
    net.minictr("start", "web")
    pid = net.pid("web")
    with net.server(pid, 80):
        assert net.ask(net.remote, HERE, 8080) == THERE
    assert "0.0.0.0:8080->80/tcp" in net.minictr("ps")
    net.minictr("rm", "-f", "web")
    net.nothing_left()


def test_exec_is_in_the_same_network(net: World) -> None:
    net.start("web", "-p", "8080:80")
    assert net.address("web") in net.minictr("exec", "web", "cat", "/proc/net/fib_trie")


def test_settings_of_before_are_left(net: World) -> None:
    """Forwarding that was on before us stays on."""
    net.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    net.minictr("run", "--rootfs", net.rootfs, "--network", "bridge", "--", "true")
    assert net.sysctl("net.ipv4.ip_forward") == "1"
    net.run("sysctl", "-qw", "net.ipv4.ip_forward=0")
    net.nothing_left()
