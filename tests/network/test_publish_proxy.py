"""Published ports by a process: which client comes by it and which by address translation, and its life."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parent))

from world import HERE, HERE6, THERE, World

GATEWAY = "10.90.0.1"  # whom the container sees of who comes by the proxy, or from the host


def proxies(net: World) -> list[int]:
    """The proxies of the host's network."""
    own, found = os.readlink(f"/proc/{net.host}/ns/net"), []
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            name, state = Path(f"/proc/{pid}/comm").read_text().strip(), Path(f"/proc/{pid}/stat").read_text()
            if name == "minictr-proxy" and os.readlink(f"/proc/{pid}/ns/net") == own and ") Z " not in state:
                found.append(int(pid))
        except OSError:
            pass
    return found


def gone(net: World) -> bool:
    deadline = time.monotonic() + 10
    while proxies(net) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not proxies(net)


def test_beside_dnat(net: World) -> None:
    """From elsewhere by dnat: the container sees who it was. 127.0.0.1 and ::1 by the proxy, without route_localnet."""
    pid = net.start("web", "-p", "8080:80", "-p", "8080:80/udp", "-p", "127.0.0.5:9000:80", "--publish-proxy")
    assert len(proxies(net)) == 1
    with net.server(pid, 80):
        for kind in ("tcp", "udp"):
            assert net.ask(net.remote, HERE, 8080, kind) == THERE
            for address in ("127.0.0.1", "127.0.0.9", "::1", HERE, HERE6):
                assert net.ask(net.host, address, 8080, kind) in (GATEWAY, HERE), (address, kind)
            assert net.ask(net.remote, HERE6, 8080, kind) == GATEWAY  # the container has no IPv6
        assert net.ask(net.host, "127.0.0.5", 9000) == GATEWAY
        assert net.ask(net.host, "127.0.0.6", 9000) == "ConnectionRefusedError"
        assert net.stream(net.host, "::1", 8080, 16 << 20)
        assert net.stream(net.remote, HERE, 8080, 16 << 20)
    assert net.sysctl("net.ipv4.conf.minictr0.route_localnet") == "0"
    assert {row["elem"]["val"]["concat"][1] for row in net.elements()["proxied"]} == {8080}
    net.minictr("rm", "-f", "web")
    assert proxies(net) == []
    net.nothing_left()


def test_alone(net: World) -> None:
    """Without any translation: all clients come by it, none is seen, and no rule, no setting is there for it."""
    pid = net.start(
        "web",
        "-p",
        "8080:80",
        "-p",
        "8080:80/udp",
        "--publish-proxy=only",
        "--without",
        "nat",
        "--without",
        "conntrack",
    )
    with net.server(pid, 80):
        for kind in ("tcp", "udp"):
            for client, addresses in ((net.remote, (HERE, HERE6)), (net.host, ("127.0.0.1", "::1", HERE, HERE6))):
                for address in addresses:
                    assert net.ask(client, address, 8080, kind) == GATEWAY, (address, kind)
        assert net.stream(net.remote, HERE, 8080, 16 << 20)
    assert net.nft("tables") == []
    assert net.sysctl("net.ipv4.ip_forward") == "0"
    assert net.tracked() == 0
    net.minictr("rm", "-f", "web")
    net.nothing_left()


def test_off_there_is_none(net: World) -> None:
    pid = net.start("web", "-p", "8080:80")
    assert proxies(net) == []
    with net.server(pid, 80):
        assert net.ask(net.host, "::1", 8080) == "ConnectionRefusedError"
        assert net.ask(net.remote, HERE6, 8080) == "ConnectionRefusedError"
    assert net.sysctl("net.ipv4.conf.minictr0.route_localnet") == "1"


def test_ipv6_to_ipv6(net: World) -> None:
    net.minictr("network", "create", "six", "--subnet", "10.66.0.0/24", "--ipv6", "fd00:66::/64")
    pid = net.start("web", "--network", "six", "-p", "8080:80", "-p", f"[{HERE6}]:9000:80", "--publish-proxy=only")
    with net.server(pid, 80):
        assert net.ask(net.remote, HERE6, 8080) == "fd00:66::1"
        assert net.ask(net.host, "::1", 8080) == "fd00:66::1"
        assert net.ask(net.remote, HERE, 8080) == "10.66.0.1"
        assert net.ask(net.remote, HERE6, 9000) == "fd00:66::1"
        assert net.ask(net.host, "::1", 9000) == "ConnectionRefusedError"
        assert net.ask(net.remote, HERE, 9000) == "ConnectionRefusedError"


@pytest.mark.parametrize("whom", ["init", "monitor and init", "stop"])
def test_it_ends_with_its_container(net: World, whom: str) -> None:
    pid = net.start("web", "-p", "8080:80", "--publish-proxy")
    (proxy,) = proxies(net)
    if whom == "stop":
        net.minictr("stop", "-t", "0", "web")
    elif whom == "init":
        os.kill(pid, signal.SIGKILL)
    else:
        for one in (int(net.minictr("inspect", "-f", "{{.Monitor.Pid}}", "web")), pid):
            os.kill(one, signal.SIGKILL)
    assert gone(net)
    assert not Path(f"/proc/{proxy}/fd").exists() or not os.listdir(f"/proc/{proxy}/fd")
    net.minictr("gc")
    if whom == "stop":  # and is there again with it
        net.minictr("start", "web")
        with net.server(net.pid("web"), 80):
            assert net.ask(net.host, "::1", 8080) == GATEWAY
    net.minictr("rm", "-f", "web")
    assert gone(net)
    net.nothing_left()


def test_the_port_is_free_when_rm_is_over(net: World) -> None:
    for _ in range(5):
        net.start("web", "-p", "8080:80", "-p", "8080:80/udp", "--publish-proxy")
        net.minictr("rm", "-f", "web")
    net.minictr("run", "--rootfs", net.rootfs, "-p", "8080:80", "--publish-proxy", "--", "true")
    assert proxies(net) == []
    net.nothing_left()


def test_others_hear_that_the_port_is_taken(net: World) -> None:
    """A socket is bound for real: a program that comes later is told, which by rules alone it is not."""
    bind = "import socket; s = socket.socket(); s.bind(('', 8080)); s.listen()"
    net.start("web", "-p", "8080:80")
    net.run(sys.executable, "-c", bind)
    net.minictr("rm", "-f", "web")
    net.start("web", "-p", "8080:80", "--publish-proxy")
    assert "Address already in use" in net.run(sys.executable, "-c", bind, check=False)
    told = net.minictr("run", "--rootfs", net.rootfs, "-p", "8080:81", "--", "true", check=False)
    assert "publishes it" in told


def test_repair_starts_it_again(net: World) -> None:
    pid = net.start("web", "-p", "8080:80", "--publish-proxy")
    (proxy,) = proxies(net)
    os.kill(proxy, signal.SIGKILL)
    assert gone(net)
    with net.server(pid, 80):
        assert net.ask(net.host, "::1", 8080) == "ConnectionRefusedError"
        assert "its proxy runs again" in net.minictr("network", "repair")
        assert net.ask(net.host, "::1", 8080) == GATEWAY
        assert "its proxy runs again" not in net.minictr("network", "repair")
    net.minictr("rm", "-f", "web")
    assert gone(net)
    net.nothing_left()


def test_with_egress(net: World) -> None:
    """Who is answered by way of the proxy is not what it began."""
    pid = net.start("web", "-p", "8080:80", "--publish-proxy=only", "--egress", "none")
    with net.server(pid, 80), net.server(net.remote, 81):
        assert net.ask(net.remote, HERE, 8080) == GATEWAY
        assert net.ask(net.host, "::1", 8080) == GATEWAY
        assert net.ask(pid, THERE, 81, "tcp", 1) in ("OSError", "TimeoutError")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("-p", "80:80/sctp", "--publish-proxy"), "passes on TCP and UDP"),
        (("-p", "80:80", "--publish-proxy=some"), "only, or nothing, is wanted"),
        (("--publish-proxy",), "publish"),
        (("--network", "host", "--publish-proxy"), "has no address of its own"),
    ],
)
def test_bad_input(net: World, options: tuple[str, ...], words: str) -> None:
    told = net.minictr("run", "--rootfs", net.rootfs, *options, "--", "true", check=False)
    assert told.startswith("125 minictr run: ") and words in told and "\n" not in told, told
    assert net.links() == set()
