"""What goes wrong around containers with networks: many at once, nft gone, devices gone, kills, another's changes.

``MINICTR_AT_ONCE=100`` starts and stops so many at once; 12 otherwise.
"""

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

from minictr.runtime.network.manage import crowded

AT_ONCE = int(os.environ.get("MINICTR_AT_ONCE", "12"))
WITHOUT_NFT = 'mount --make-rprivate /; mount --bind /dev/null "$0"; exec "$@"'


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_many_started_and_stopped_on_one_bridge(net: World) -> None:
    """All at once in the background, each with a port, a proxy and limits; each answers by its port, all addresses are
    different; then all are removed at once, and nothing is left."""

    def start(number: int) -> str:
        words = ("--network", "bridge", "-p", f"{9100 + number}:80", "--publish-proxy", "--egress", "none")
        command = ("run", "-d", "--name", f"c{number}", "--rootfs", net.rootfs, *words, "--", "sleep", "1000")
        return net.minictr(*command, check=False, timeout=300)

    def stop(number: int) -> str:
        return net.minictr("rm", "-f", f"c{number}", check=False, timeout=300)

    begin = time.monotonic()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        told = list(pool.map(start, range(AT_ONCE)))
    assert [text for text in told if not text.startswith("0 ")] == []
    started = time.monotonic()
    addresses = {net.address(f"c{number}") for number in range(AT_ONCE)}
    assert len(addresses) == AT_ONCE
    assert len(net.links()) == AT_ONCE + 1
    assert len(net.elements()["ports4"]) == len(net.elements()["egress4"]) == AT_ONCE
    for number in range(0, AT_ONCE, max(1, AT_ONCE // 6)):
        with net.server(net.pid(f"c{number}"), 80):
            assert net.ask(net.remote, HERE, 9100 + number) == THERE
            assert net.ask(net.host, "::1", 9100 + number) == "10.90.0.1"
    looked = time.monotonic()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        told = list(pool.map(stop, range(AT_ONCE)))
    assert [text for text in told if not text.startswith("0 ")] == []
    print(f"{AT_ONCE} started in {started - begin:.1f} s, removed in {time.monotonic() - looked:.1f} s")
    net.nothing_left()


def test_without_nft(net: World) -> None:
    """What needs its chains is refused in one line that says what to install, and nothing is left; what does not, runs;
    and who started with it comes to an end without."""
    nft = "/usr/sbin/nft"

    def without(*words: object, check: bool = False) -> str:
        hidden = ("unshare", "-m", "sh", "-c", WITHOUT_NFT, os.path.realpath(nft))
        return net.run(*hidden, *net.cli, *words, check=check)

    told = without("run", "--rootfs", net.rootfs, "-p", "8080:80", "--egress", "none", "--", "true")
    assert told.startswith("125 minictr run: ") and "apt-get install nftables" in told and "\n" not in told, told
    assert net.links() == set() or net.nothing_left() is None
    plain = ("--network", "bridge", "--without", "conntrack", "--without", "nat")
    assert without("run", "--rootfs", net.rootfs, *plain, "--", "true") == "0"
    proxied = ("-p", "8080:80", "--publish-proxy=only", *plain[2:])
    assert without("run", "--rootfs", net.rootfs, *proxied, "--", "true") == "0"
    net.start("web", "-p", "8080:80", "--egress", "none")
    assert "\n" not in without("network", "inspect", "-f", "{{.InTheWay}}", "minictr0")
    assert without("rm", "-f", "web").startswith("0")
    net.nothing_left()


@pytest.mark.parametrize("what", ["bridge", "cable", "rules", "everything"])
def test_it_comes_to_its_end_though_its_things_are_gone(net: World, what: str) -> None:
    net.start("web", "-p", "8080:80", "--egress", "none", "--publish-proxy")
    if what in ("bridge", "everything"):
        net.run("ip", "link", "delete", "minictr0")
    if what in ("cable", "everything"):
        for name in net.links() - {"minictr0"}:
            net.run("ip", "link", "delete", name)
    if what in ("rules", "everything"):
        net.run("nft", "flush", "ruleset")
    net.minictr("rm", "-f", "web")
    net.start("web", "-p", "8080:80", "--egress", "none", "--publish-proxy")  # and the next finds all of it
    net.minictr("rm", "-f", "web")
    net.nothing_left()


def test_forwarding_switched_off(net: World) -> None:
    """By somebody else, under containers that run: it is told what is in the way, and the next start switches it on."""
    pid = net.start("one", "--network", "bridge")
    net.run("sysctl", "-qw", "net.ipv4.ip_forward=0")
    with net.server(net.remote, 81):
        assert net.ask(pid, THERE, 81, seconds=0.5) == "TimeoutError"
        (found,) = json.loads(net.minictr("network", "inspect", "minictr0"))
        assert any("ip_forward is 0" in line for line in found["InTheWay"])
        net.start("two", "--network", "bridge")
        assert net.ask(pid, THERE, 81) == HERE
    net.minictr("rm", "-f", "one", "two")
    net.nothing_left()


def test_tracked_connections_near_their_limit_are_told(net: World) -> None:
    """The limit is the whole machine's, and not a test's to change: what is told of it, and that here nothing is."""
    assert crowded(90, 100)[0].startswith("90 connections are tracked, of 100")
    assert crowded(89, 100) == crowded(0, 0) == []
    net.start("one", "--network", "bridge")
    assert int(net.sysctl("net.netfilter.nf_conntrack_max")) > 0
    assert json.loads(net.minictr("network", "inspect", "minictr0"))[0]["InTheWay"] == []


@pytest.mark.slow
@pytest.mark.parametrize("detached", [False, True])
def test_killed_at_moments_of_a_start(net: World, detached: bool) -> None:
    """SIGKILL spread over the duration of a start with all of it; after each, gc alone cleans up."""
    words = ["--name", "try", "-p", "8080:80", "--publish-proxy", "--egress", "none", "--rootfs", str(net.rootfs)]
    command = [*net.cli, "run", *(("-d",) if detached else ()), *words, "--", "sleep", "1000"]
    net.minictr("network", "create", "warm")  # what is measured is a start on a host that has had one
    begin = time.monotonic()
    net.minictr("run", *words, "--", "true")
    whole = time.monotonic() - begin
    for part in range(10):
        with subprocess.Popen(
            net.inside(net.host, command), env=net.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            time.sleep(whole * (part + 0.5) / 10)
            process.send_signal(signal.SIGKILL)
        net.minictr("gc")
        if net.minictr("ps", "-aq"):  # it was handed over before
            net.minictr("rm", "-f", "try")
        deadline = time.monotonic() + 10
        while (left := remains(net)) and time.monotonic() < deadline:
            net.minictr("gc")
        assert left == [], f"killed after {part + 0.5} tenths of a start"
    net.minictr("network", "rm", "warm")
    net.nothing_left()


def remains(net: World) -> list[str]:
    found = [f"link {name}" for name in net.links() - {"warm"}]
    found += [f"{name}: {rows}" for name, rows in net.elements().items() if rows]
    found += [str(path) for path in (net.state / "network" / "ports").glob("*")]
    return found + [str(path) for path in (net.state / "network").glob("*/leases/*")]
