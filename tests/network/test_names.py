"""Names in containers: the files that tell them, over whatever the image has, and neighbours that find each other."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parent))

from world import World, hosts, listing, mounts


def test_a_bridge_gives_all_three(net: World, own_rootfs: Path) -> None:
    """Over the image's own, which is as before; /etc/hosts read-only, for the runtime keeps it."""
    before = listing(own_rootfs)
    net.rootfs = own_rootfs
    pid = net.start("web", "--network", "bridge", "--hostname", "web.lan")
    assert set(mounts(net, pid)) == {"/etc/hosts", "/etc/resolv.conf", "/etc/hostname"}
    for path, row in mounts(net, pid).items():
        assert {"nosuid", "nodev", "noexec"} <= set(row[5].split(","))
        assert ("ro" in row[5].split(",")) == (path == "/etc/hosts")
        assert not any(word.startswith(("shared:", "master:")) for word in row[6:])
    assert net.minictr("exec", "web", "cat", "/etc/hostname") == "web.lan"
    address = net.address("web")
    found = hosts(net, "web")
    assert found["localhost"] == {"127.0.0.1", "::1"}
    assert found["web.lan"] == found["web"] == {address}
    net.minictr("exec", "web", "sh", "-c", "echo nameserver 192.0.2.53 >/etc/resolv.conf; echo x >/etc/hostname")
    assert "nameserver 192.0.2.53" in net.minictr("exec", "web", "cat", "/etc/resolv.conf")
    net.minictr("rm", "-f", "web")
    assert listing(own_rootfs) == before
    net.nothing_left()


@pytest.mark.parametrize(
    ("options", "there"),
    [
        ((), set()),
        (("--network", "none"), {"hosts", "hostname"}),
        (("--network", "host"), {"hosts", "hostname", "resolv.conf"}),
        (("--network", "bridge"), {"hosts", "hostname", "resolv.conf"}),
        (("--network", "routed"), {"hosts", "hostname", "resolv.conf"}),
        (("--network", "bridge", "--no-hosts"), {"hostname", "resolv.conf"}),
        (("--network", "bridge", "--dns", "none", "--no-hostname"), {"hosts"}),
        (("--network", "bridge", "--without", "hosts", "--without", "resolv_conf"), {"hostname"}),
        (("--network", "bridge", "--without", "hostname_file", "--without", "names"), {"hosts", "resolv.conf"}),
        (("--network", "bridge", "--without", "dev"), {"hosts", "hostname", "resolv.conf"}),
        (("--network", "bridge", "--read-only", "--overlay"), {"hosts", "hostname", "resolv.conf"}),
        (("--add-host", "db:192.0.2.5"), {"hosts"}),
        (("--dns", "192.0.2.53"), {"resolv.conf"}),
        (("--profile", "docker"), {"hosts", "hostname", "resolv.conf"}),
        (("--profile", "lxc", "--network", "bridge"), set()),
        (("--profile", "bare", "--network", "host"), set()),
        (("--network", "bridge", "--userns", "auto"), {"hosts", "hostname", "resolv.conf"}),
    ],
)
def test_what_each_way_gives(net: World, options: tuple[str, ...], there: set[str]) -> None:
    pid = net.start("one", *options)
    assert {path.removeprefix("/etc/") for path in mounts(net, pid)} == there
    assert not list(Path(f"/proc/{pid}/root/dev").glob(".etc*"))
    net.minictr("rm", "-f", "one")


def test_options(net: World) -> None:
    words = ["--network-alias", "www", "--add-host", "db:192.0.2.5", "--add-host", "six=[2001:db8::5]"]
    words += ["--add-host", "host.docker.internal:host-gateway", "--dns", "192.0.2.53", "--dns", "192.0.2.54"]
    words += ["--dns-search", "lan", "--dns-option", "ndots:2", "--dns-option", "rotate"]
    net.start("web", *words)  # an alias alone means a bridge
    found = hosts(net, "web")
    assert (found["db"], found["six"], found["host.docker.internal"]) == (
        {"192.0.2.5"},
        {"2001:db8::5"},
        {"10.90.0.1"},
    )
    text = net.minictr("exec", "web", "cat", "/etc/resolv.conf").splitlines()
    assert text == ["nameserver 192.0.2.53", "nameserver 192.0.2.54", "search lan", "options ndots:2 rotate"]
    inspected = json.loads(net.minictr("inspect", "web"))[0]
    assert inspected["HostConfig"] == {
        "Dns": ["192.0.2.53", "192.0.2.54"],
        "DnsSearch": ["lan"],
        "DnsOptions": ["ndots:2", "rotate"],
        "ExtraHosts": ["db:192.0.2.5", "six:2001:db8::5", "host.docker.internal:host-gateway"],
    }
    (network,) = inspected["NetworkSettings"]["Networks"].values()
    assert network["Aliases"] == ["www"]
    assert network["DNSNames"] == ["web", "www", inspected["Id"][:12]]
    assert Path(inspected["HostsPath"]).read_text() == Path(f"/proc/{net.pid('web')}/root/etc/hosts").read_text()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--add-host", "db"], "NAME:IP is wanted"),
        (["--add-host", "db:1.2.3"], "no IPv4 or IPv6 address"),
        (["--add-host", "a b:1.2.3.4"], "letters, digits"),
        (["--add-host", "a:1.2.3.4", "--no-hosts"], "keep one"),
        (["--add-host", "h:host-gateway", "--network", "none"], "no network that the host is in"),
        (["--dns", "one.one"], "no IPv4 or IPv6 address"),
        (["--dns", "none", "--dns-search", "lan"], "leave --dns-search out"),
        (["--dns", "none", "--dns", "192.0.2.5"], "leave the other --dns out"),
        (["--dns-option", "a b"], "is not one word"),
        (["--network-alias", "x y"], "letters, digits"),
        (["--network-alias", "x", "--network", "host"], "--network-alias with --network host"),
        (["--link", "db"], "--network-alias"),
        (["--net-alias", "db"], "--network-alias"),
    ],
)
def test_refused(net: World, options: list[str], words: str) -> None:
    told = net.minictr("run", "--rootfs", net.rootfs, *options, "--", "true", check=False)
    assert told.startswith("125 ") and words in told, told
    assert told.count("\n") == 0
    assert not list((net.state).glob("network/*/leases/*"))


def test_neighbours_find_each_other(net: World) -> None:
    """From the start of each to its end, whichever end that is; other networks hear nothing."""
    net.minictr("network", "create", "lan")
    one, two = net.start("one", "--network", "bridge"), net.start("two", "--network", "bridge", "--network-alias", "db")
    net.start("far", "--network", "lan")
    both = net.start("both", "--network", "bridge", "--network", "lan")
    addresses = {name: net.address(name) for name in ("one", "two", "far", "both")}
    assert hosts(net, "one")["db"] == hosts(net, "both")["two"] == {addresses["two"]}
    assert hosts(net, "one")["one"] == hosts(net, "two")["one"] == {addresses["one"]}
    assert "far" not in hosts(net, "one")
    assert "one" not in hosts(net, "far")
    assert hosts(net, "both").keys() >= {"one", "two", "far"}
    assert len(hosts(net, "both")["both"]) == 2
    assert hosts(net, "far")["both"] != hosts(net, "one")["both"]
    (inspected,) = json.loads(net.minictr("network", "inspect", "minictr0"))
    assert [words[0] for words in inspected["Names"].values()] == ["one", "two", "both"]
    net.minictr("rename", "two", "second")
    assert hosts(net, "one")["second"] == {addresses["two"]}
    assert "two" not in hosts(net, "one")
    os.kill(one, signal.SIGKILL)  # its monitor takes it back
    wait_for(lambda: "one" not in hosts(net, "second"))
    monitor = json.loads(net.minictr("inspect", "second"))[0]["Monitor"]["Pid"]
    os.kill(monitor, signal.SIGKILL)
    os.kill(two, signal.SIGKILL)  # and here a sweep
    wait_for(lambda: not Path(f"/proc/{two}").exists())
    net.minictr("gc")
    assert hosts(net, "both").keys() & {"one", "second", "db"} == set()
    net.minictr("start", "one")
    assert hosts(net, "both")["one"] == {net.address("one")}
    assert hosts(net, "one")["both"] == {net.address("both")}
    assert Path(f"/proc/{both}").exists()
    net.minictr("rm", "-f", "one", "second", "far", "both")
    net.minictr("network", "rm", "lan")
    net.nothing_left()


def wait_for(truth: object) -> None:
    deadline = time.monotonic() + 20
    while not truth():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_ipv6_names(net: World) -> None:
    net.minictr("network", "create", "six", "--subnet", "10.66.0.0/24", "--ipv6", "fd00:66::/64")
    net.start("one", "--network", "six")
    net.start("two", "--network", "six")
    assert hosts(net, "two")["one"] == {"10.66.0.2", "fd00:66::2"}
    net.minictr("rm", "-f", "one")
    assert "one" not in hosts(net, "two")


def test_containers_that_share_a_network_share_its_names(net: World) -> None:
    net.start("web", "--network", "bridge", "--dns", "192.0.2.53")
    net.start("aside", "--network", "container:web")
    net.start("later", "--network", "bridge")
    assert hosts(net, "aside") == hosts(net, "web")
    assert hosts(net, "aside")["later"] == {net.address("later")}
    assert net.minictr("exec", "aside", "cat", "/etc/resolv.conf") == "nameserver 192.0.2.53"
    told = net.minictr(
        "run", "--rootfs", net.rootfs, "--network", "container:web", "--add-host", "a:::1", "--", "true", check=False
    )
    assert "it has that one's hosts file" in told
    net.minictr("rm", "-f", "web")
    assert "later" not in hosts(net, "aside")  # it is in no network any more


# --- what else looks at files ---


def test_diff_commit_and_cp(net: World, own_rootfs: Path, etc: Path, tmp_path: Path) -> None:
    """As in docker: the files are no part of what the container changed, and cp gets what the program sees."""
    (etc / "hosts").unlink()
    net.rootfs = own_rootfs
    net.start("one", "--network", "bridge", "--overlay")
    net.minictr("exec", "one", "sh", "-c", "echo x >/new")
    assert net.minictr("diff", "one").splitlines() == ["A /new"]
    net.minictr("commit", "one", tmp_path / "layer")
    assert {path.name for path in (tmp_path / "layer").rglob("*")} - {"etc"} == {"new"}
    net.minictr("commit", "--whole", "one", tmp_path / "whole")
    assert (tmp_path / "whole" / "etc" / "hostname").read_text() == (etc / "hostname").read_text()
    assert not (tmp_path / "whole" / "etc" / "hosts").exists()
    net.minictr("cp", "one:/etc/hosts", tmp_path / "copied")
    assert f"{net.address('one')} one" in (tmp_path / "copied").read_text()
    net.minictr("stop", "-t", "0", "one")
    assert net.minictr("diff", "one").splitlines() == ["A /new"]
    net.minictr("start", "one")
    assert hosts(net, "one")["one"] == {net.address("one")}


def test_many_at_once(net: World) -> None:
    """Thirty start together: in the end each file has all of them, and when they have gone none."""
    with ThreadPoolExecutor(6) as pool:
        list(
            pool.map(
                lambda number: net.minictr(
                    "run", "-d", "--name", f"c{number}", "--network", "bridge", "--rootfs", net.rootfs, "sleep", "1000"
                ),
                range(30),
            )
        )
    wanted = {f"c{number}" for number in range(30)}
    for number in (0, 13, 29):
        found = hosts(net, f"c{number}")
        assert wanted <= set(found)
        assert len({next(iter(found[name])) for name in wanted}) == 30
    net.minictr("rm", "-f", *(f"c{number}" for number in range(1, 30)))
    assert wanted & set(hosts(net, "c0")) == {"c0"}
    net.minictr("rm", "-f", "c0")
    net.nothing_left()


def test_python_finds_its_own_name_at_once(net: World, tmp_path: Path) -> None:
    """getfqdn, which http.server calls, asks no name server: there is one that never answers."""
    from minictr.images.minimal import minimal

    root = tmp_path / "getent"
    minimal(str(root), ("sh", "sleep", "getent"))
    net.rootfs = root
    net.start("one", "--dns", "192.0.2.2", "--network", "bridge", "--hostname", "one.example")
    net.start("two", "--dns", "192.0.2.2", "--network", "bridge")
    began = time.monotonic()
    assert net.minictr("exec", "one", "getent", "hosts", "one.example").split()[:2] == [
        net.address("one"),
        "one.example",
    ]
    assert net.minictr("exec", "one", "getent", "hosts", net.address("one")).split()[1] == "one.example"
    assert net.minictr("exec", "two", "getent", "ahosts", "one").split()[0] == net.address("one")
    assert time.monotonic() - began < 5  # a resolver's first timeout, five seconds for each


def test_from_python(net: World) -> None:
    code = """
import sys
import minictr as mc
with mc.Bridge("mc0", "10.7.0.1/24") as lan:
    box = mc.Container(sys.argv[1], name="lab").with_(*lan.features(ip="10.7.0.9"))
    print(box.run(["cat", "/etc/hosts", "/etc/hostname"], capture_output=True, text=True).stdout)
    plain = mc.Container(sys.argv[1]).with_(*lan.features(names=False))
    print({"hosts", "names"} & {feature.name for feature in plain.features})
"""
    said = net.run(sys.executable, "-P", "-W", "error", "-c", code, net.rootfs)
    assert "10.7.0.9 minictr" in said
    assert "10.7.0.9\tlab" in said
    assert said.endswith("set()")
    net.nothing_left()
