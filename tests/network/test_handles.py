"""Networks by themselves, from Python, in the small world of world.py; what they make, and that it goes."""

from __future__ import annotations

import sys
import tempfile
import textwrap
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent))

from world import HERE, THERE, World

BEGIN = """
import os, signal, socket, sys, threading
import minictr as mc
from minictr.kernel import links

def serve(netns, address, port):
    with netns.inside():
        server = socket.create_server((address, port))
    def answer():
        with server:
            peer, who = server.accept()
        with peer:  # who has read this can bind the port again
            peer.sendall(who[0].encode())
    threading.Thread(target=answer, daemon=True).start()

def ask(address, port, say=b""):
    with socket.create_connection((address, port), 5) as client:
        client.sendall(say)
        return client.recv(64).decode()
"""


def python(net: World, body: str, *arguments: object, check: bool = True) -> list[str]:
    code = BEGIN + textwrap.dedent(body)
    return net.run(sys.executable, "-P", "-W", "error", "-c", code, *arguments, check=check).splitlines()


def test_bridge_netns_and_veth(net: World) -> None:
    said = python(
        net,
        """
        with mc.Bridge("mc0", "10.7.0.1/24", address6="fd00:7::1/64") as lan, mc.Netns() as lab:
            with mc.Veth("v0", netns=lab, peer_addresses=["10.7.0.2/24"], gateway="10.7.0.1", bridge=lan) as cable:
                lan.make(), lab.make(), cable.make()
                serve(lab, "10.7.0.2", 80)
                print(ask("10.7.0.2", 80))
                with lab.inside():
                    print(*(link.name for link in links.links()))
            print(*sorted(link.name for link in links.links()))
        print(*sorted(link.name for link in links.links()))
        """,
    )
    assert said == ["10.7.0.1", "lo eth0", "lo mc0 wire0", "lo wire0"]
    net.nothing_left()


def test_a_container_in_a_bridge_of_ones_own(net: World) -> None:
    said = python(
        net,
        """
        with mc.Bridge("mc0", "10.7.0.1/24", nat=True) as lan:
            box = mc.Container(sys.argv[1]).with_(*lan.features(ip="10.7.0.9"), mc.Publish(8080, 80))
            done = box.run(["cat", "/proc/net/fib_trie"], capture_output=True, text=True)
            print(done.returncode, "10.7.0.9" in done.stdout)
            print(sorted(set(done.timeline.by_feature()) & {"veth", "bridge", "conntrack", "nat", "publish"}))
        """,
        net.rootfs,
    )
    assert said == ["0 True", "['bridge', 'conntrack', 'nat', 'publish', 'veth']"]
    net.nothing_left()


def test_publish_by_itself(net: World) -> None:
    said = python(
        net,
        """
        ends = {"addresses": ["10.7.0.1/24"], "peer_addresses": ["10.7.0.2/24"]}
        with mc.Netns() as lab, mc.Veth("v0", netns=lab, gateway="10.7.0.1", **ends):
            with mc.Publish(8080, 80, to="10.7.0.2", device="v0") as port, port:
                for address in ("127.0.0.1", sys.argv[1]):
                    serve(lab, "10.7.0.2", 80)
                    print(port.ports, ask(address, 8080))
            try:
                ask("127.0.0.1", 8080)
            except ConnectionRefusedError:
                print("refused")
        """,
        HERE,
    )
    assert said[:2] == ["(8080,) 10.7.0.1", f"(8080,) {HERE}"]
    assert said[2] == "refused"
    net.nothing_left()


def test_macvlan_and_ipvlan(net: World) -> None:
    """macvlan: a container's device on the wire itself: the remote machine sees its own address and MAC."""
    with net.server(net.remote, 80):
        said = python(
            net,
            """
        with mc.Netns() as lab:
            with mc.Macvlan("mv0", "wire0", netns=lab, addresses=["192.0.2.9/24"], mac="02:00:00:00:00:09") as one:
                one.make()
                with lab.inside():
                    print(ask(sys.argv[1], 80, b"hello").split()[0], links.links()[-1].mac)
            with lab.inside():
                print(*(link.name for link in links.links()))
            try:
                with mc.Ipvlan("ip0", "wire0", netns=lab, addresses=["192.0.2.8/24"]):
                    with lab.inside():
                        print(ask(sys.argv[1], 80, b"hello").split()[0])
            except mc.Unsupported as err:
                print(err)
        """,
            THERE,
        )
    assert said[:2] == ["192.0.2.9 02:00:00:00:00:09", "lo"]
    assert said[2] in ("192.0.2.8", "ipvlan: this kernel has no ipvlan devices; needs CONFIG_IPVLAN")


def test_killed_with_a_bridge_open(net: World) -> None:
    """SIGKILL: gc takes back the bridge, the port and the setting of the process that had them."""
    told = python(
        net,
        """
        lan = mc.Bridge("mc0", "10.7.0.1/24").make()
        port = mc.Publish(8080, 80, to="10.7.0.2")
        port.__enter__()
        os.kill(os.getpid(), signal.SIGKILL)
        """,
        check=False,
    )
    assert told[0].startswith("-9")
    assert "mc0" in net.links()
    lines = net.minictr("gc").splitlines()
    assert any("10.7.0.1 of network mc0" in line for line in lines)
    assert any(line == "port tcp:*:8080" for line in lines)
    net.nothing_left()


ORDINARY = """
        import minictr.kernel.capabilities, minictr.runtime.network.hands, minictr.runtime.network.attachment
        box = mc.Container(features=[mc.NetNamespace(), mc.UserNamespace(), mc.features.Veth()])
        lan, port = mc.Bridge("mc0", "10.7.0.1/24"), mc.Publish(80, 80, to="10.7.0.2")
        box.run(["true"])
        os.environ["MINICTR_ROOT"] = sys.argv[1]
        os.chown(sys.argv[1], 65534, 65534)
        lan = mc.Bridge("mc0", "10.7.0.1/24")
        os.setgroups([]), os.setresgid(65534, 65534, 65534), os.setresuid(65534, 65534, 65534)
        for make in (lan.make, port.__enter__, lambda: box.run(["true"])):
            try:
                make()
            except mc.Unsupported as err:
                print(err)
        print(*os.listdir(os.environ["MINICTR_ROOT"]))
"""


def test_an_ordinary_user_is_told(net: World) -> None:
    """Before anything is made."""
    with tempfile.TemporaryDirectory() as root:  # one that an ordinary user may reach
        said = python(net, ORDINARY, root)
    assert len(said) == 4, said
    assert all("needs CAP_NET_ADMIN over both; use --network pasta" in line for line in said[:3]), said
    assert "network" not in said[3]
    net.minictr("gc")  # the first run's, by root, whose process was an ordinary user's at its end
    net.nothing_left()


def test_refused(net: World) -> None:
    said = python(
        net,
        """
        def tried(make):
            try:
                make()
            except mc.MinictrError as err:
                print(type(err).__name__, err)
        tried(lambda: mc.Bridge("mc0", "192.0.2.1/24").make())
        tried(lambda: mc.Bridge("mc0", "10.7.0.9/24"))
        tried(lambda: mc.Bridge("a name", "10.7.0.1/24"))
        tried(lambda: mc.Veth("v0", bridge="nix").make())
        tried(lambda: mc.Veth("v0", "v0").make())
        tried(lambda: mc.Macvlan("m0", "nix").make())
        tried(lambda: mc.Macvlan("m0", "wire0", mode="both").make())
        tried(lambda: mc.Publish(80, 80).__enter__())
        """,
    )
    words = ["overlaps the route", "the host has the first one", "cannot be a device's name", "there is no bridge nix"]
    words += ["make veth v0", "there is no device nix", "mode 'both'", "give it to="]
    assert len(said) == len(words)
    assert all(part in line for part, line in zip(words, said)), said
    net.nothing_left()
