"""Links, addresses and routes by rtnetlink: what the kernel then has, as pyroute2 and sockets tell it."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from minictr import addresses
from minictr.errors import MinictrError, StepFailed, Unsupported
from minictr.kernel import iproute, links, namespaces, netlink

ENODEV, EEXIST = 19, 17


@contextmanager
def another() -> Iterator[int]:
    """A descriptor of a network namespace that nothing is in."""
    with namespaces.unshare("net"):
        links.set_up(1)
        fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)


def interface(name: str) -> dict[str, Any]:
    return next(row for row in iproute.interfaces() if row["name"] == name)


def echo_server(fd: int, family: int, kind: int, address: str) -> tuple[int, threading.Thread]:
    """Answers one message with itself, in the network namespace FD: its port."""
    with namespaces.enter(0, "net", fd=fd):
        server = socket.socket(family, kind)
        server.bind((address, 0))
        server.settimeout(5)
    if kind == socket.SOCK_STREAM:
        server.listen()

    def answer() -> None:
        with server:
            if kind == socket.SOCK_DGRAM:
                data, peer = server.recvfrom(64)
                server.sendto(data, peer)
            else:
                conversation, _ = server.accept()
                with conversation:
                    conversation.sendall(conversation.recv(64))

    thread = threading.Thread(target=answer)
    thread.start()
    return server.getsockname()[1], thread


def exchange(fd: int, family: int, kind: int, address: str) -> bytes:
    """What comes back of a message to ADDRESS in the namespace FD."""
    port, thread = echo_server(fd, family, kind, address)
    with socket.socket(family, kind) as client:
        client.settimeout(5)
        client.connect((address, port))
        client.sendall(b"there and back")
        got = client.recv(64)
    thread.join()
    return got


def test_a_veth_a_bridge_and_traffic(in_child: Any) -> None:
    """One message makes the pair, puts one end in a bridge and the other in a namespace; TCP, UDP, IPv4 and IPv6."""

    def body() -> Any:
        with namespaces.unshare("net"), another() as fd:
            links.create_bridge("br0", mac="02:00:00:00:00:01", mtu=1400)
            bridge = links.index("br0")
            links.add_address(bridge, "10.7.0.1/24")
            links.add_address(bridge, "fd00:7::1/64")
            links.create_veth("v0", "eth0", netns=fd, master=bridge, peer_mac="02:00:00:00:00:02", mtu=1400)
            with links.namespace_socket(fd) as via:
                routes = [("default", "10.7.0.1"), ("default", "fd00:7::1")]
                links.configure(via, links.index("eth0", via=via), ["10.7.0.2/24", "fd00:7::2/64"], routes)
            got = [
                exchange(fd, family, kind, address)
                for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)
                for family, address in ((socket.AF_INET, "10.7.0.2"), (socket.AF_INET6, "fd00:7::2"))
            ]
            with namespaces.enter(0, "net", fd=fd):
                inside = interface("eth0")
            return got, interface("br0"), interface("v0"), inside

    got, bridge, outer, inner = in_child(body)
    assert got == [b"there and back"] * 4
    assert (bridge["kind"], bridge["up"], bridge["mtu"], bridge["mac"]) == ("bridge", True, 1400, "02:00:00:00:00:01")
    assert {"10.7.0.1/24", "fd00:7::1/64"} <= set(bridge["addresses"])
    assert bridge["bridge"] == {"stp": False, "nf_call_iptables": False, "nf_call_ip6tables": False}
    assert (outer["kind"], outer["master"], outer["up"], outer["mtu"]) == ("veth", "br0", True, 1400)
    assert (inner["mac"], inner["up"], inner["mtu"]) == ("02:00:00:00:00:02", True, 1400)
    assert {"10.7.0.2/24", "fd00:7::2/64"} <= set(inner["addresses"])
    assert ["default", "10.7.0.1"] in inner["routes"]
    assert ["default", "fd00:7::1"] in inner["routes"]
    assert inner["statistics"]["packets_in"] > 0


def test_routed_without_a_bridge(in_child: Any) -> None:
    """Each end knows the other's single address: nothing is on the cable but these two."""

    def body() -> Any:
        with namespaces.unshare("net"), another() as fd:
            links.create_veth("v0", "eth0", netns=fd)
            outer = links.index("v0")
            links.add_address(outer, "10.8.0.1/32")
            links.add_route(outer, "10.8.0.2/32")
            with links.namespace_socket(fd) as via:
                routes = [("10.8.0.1/32", ""), ("default", "10.8.0.1")]
                links.configure(via, links.index("eth0", via=via), ["10.8.0.2/32"], routes)
            return exchange(fd, socket.AF_INET, socket.SOCK_STREAM, "10.8.0.2"), links.routes()

    got, routes = in_child(body)
    assert got == b"there and back"
    assert ("10.8.0.2/32", "", 2) in routes


def test_what_is_read_is_what_pyroute2_reads(in_child: Any) -> None:
    def body() -> Any:
        with namespaces.unshare("net"):
            links.set_up(1)
            links.create_bridge("br0", netfilter=True)
            links.create_veth("v0", "v1", master=links.index("br0"))
            links.add_address(links.index("v1"), "192.0.2.1/25")
            links.set_up(links.index("v1"))
            return links.links(), links.addresses(), links.routes(), iproute.interfaces()

    found, addresses, routes, told = in_child(body)
    names = {link.index: link.name for link in found} | {0: ""}
    assert [(link.index, link.name, link.kind, link.mtu, link.mac, names[link.master]) for link in found] == [
        (row["index"], row["name"], row["kind"], row["mtu"], row["mac"], row["master"]) for row in told
    ]
    for row in told:
        ours = {f"{item.address}/{item.prefix}" for item in addresses if item.index == row["index"]}
        # link-local ones come by themselves, when the kernel has time
        assert [one for one in ours if one[:4] != "fe80"] == [one for one in row["addresses"] if one[:4] != "fe80"]
    assert ("192.0.2.0/25", "", next(link.index for link in found if link.name == "v1")) in routes
    assert next(row for row in told if row["name"] == "br0")["bridge"]["nf_call_iptables"] is True


def test_netfilter_of_a_bridge_is_a_switch(in_child: Any) -> None:
    def body() -> list[bool]:
        with namespaces.unshare("net"):
            links.create_bridge("br0")
            found = []
            for on in (True, False):
                links.set_netfilter(links.index("br0"), on)
                found.append(interface("br0")["bridge"]["nf_call_iptables"])
            return found

    assert in_child(body) == [True, False]


def test_move_down_and_away(in_child: Any) -> None:
    def body() -> Any:
        with namespaces.unshare("net"), another() as fd:
            links.create_veth("v0", "v1")
            links.move(links.index("v1"), fd)
            links.set_up(links.index("v0"), False)
            here = {link.name: link.flags & 1 for link in links.links()}
            with links.namespace_socket(fd) as via:
                there = [link.name for link in links.links(via=via)]
            links.delete("v0")
            with links.namespace_socket(fd) as via:
                left = [link.name for link in links.links(via=via)]
            links.delete("v0", missing_ok=True)
            with pytest.raises(StepFailed) as caught:
                links.delete("v0")
            return here, there, left, caught.value.errno

    here, there, left, errno = in_child(body)
    assert (here["v0"], "v1" in here) == (0, False)
    assert there == ["lo", "v1"]
    assert left == ["lo"]
    assert errno == ENODEV


def test_macvlan(in_child: Any) -> None:
    """A child of one end of a cable answers at the other end, by a MAC address of its own."""

    def body() -> Any:
        with namespaces.unshare("net"), another() as fd:
            links.create_veth("wire0", "wire1")
            links.set_up(links.index("wire1"))
            links.add_address(links.index("wire0"), "10.9.0.1/24")
            links.create_macvlan("mv0", links.index("wire1"), mac="02:00:00:00:00:09", netns=fd)
            with links.namespace_socket(fd) as via:
                links.configure(via, links.index("mv0", via=via), ["10.9.0.9/24"], [])
                row = next(link for link in links.links(via=via) if link.name == "mv0")
            return exchange(fd, socket.AF_INET, socket.SOCK_STREAM, "10.9.0.9"), row

    got, link = in_child(body)
    assert got == b"there and back"
    assert (link.kind, link.mac) == ("macvlan", "02:00:00:00:00:09")


def test_ipvlan_or_the_reason(in_child: Any) -> None:
    def body() -> Any:
        with namespaces.unshare("net"):
            links.create_veth("wire0", "wire1")
            try:
                links.create_ipvlan("ip0", links.index("wire1"), mode="l3")
            except Unsupported as err:
                return str(err), links.probe()["ipvlan"]
            return links.links()[-1].kind, links.probe()["ipvlan"]

    told, support = in_child(body)
    assert (told == "ipvlan") is bool(support)
    if not support:
        assert told == "ipvlan: this kernel has no ipvlan devices; needs CONFIG_IPVLAN"


@pytest.mark.parametrize(
    ("call", "errno", "words"),
    [
        (lambda: links.create_veth("v0", "v1"), EEXIST, "make veth v0"),
        (lambda: links.create_bridge("x" * 16), 34, "policy"),  # ERANGE
        (lambda: links.add_address(77, "10.7.0.1/24"), ENODEV, "10.7.0.1/24"),
        (lambda: links.add_route(1, "default", "10.99.0.1"), 101, "via 10.99.0.1"),  # ENETUNREACH
        (lambda: links.add_address(1, "10.7.0.0.1/24"), None, "IPv4 or IPv6"),
        (lambda: links.add_address(1, "10.7.0.1/33"), None, "0 to 32"),
        (lambda: links.create_veth("v2", "v3", mac="03:00:00:00:00:01"), None, "multicast"),
        (lambda: links.create_veth("v2", "v3", mac="nonsense"), None, "six bytes"),
        (lambda: links.create_macvlan("m0", 1, mode="both"), None, "private"),
    ],
)
def test_refused(in_child: Any, call: Any, errno: int | None, words: str) -> None:
    def body() -> Any:
        with namespaces.unshare("net"):
            links.set_up(1)
            links.create_veth("v0", "v1")
            before = links.links(), links.addresses()
            with pytest.raises(MinictrError) as caught:
                call()
            assert (links.links(), links.addresses()) == before
            return getattr(caught.value, "errno", None), str(caught.value)

    told = in_child(body)
    assert told[0] == errno
    assert words in told[1]


def test_several_requests_are_one_message_and_the_first_failure_is_told(in_child: Any) -> None:
    def body() -> Any:
        with namespaces.unshare("net"), netlink.Netlink() as via:
            links.create_veth("v0", "v1")
            with pytest.raises(StepFailed) as caught:
                links.configure(via, links.index("v1"), ["10.1.0.1/24", "10.1.0.1/24", "10.1.0.3/24"], [])
            return str(caught.value), sorted(row.address for row in links.addresses() if ":" not in row.address)

    told, addresses = in_child(body)
    assert "add address 10.1.0.1/24: EEXIST" in told
    assert addresses == ["10.1.0.1", "10.1.0.3"]


def test_an_ordinary_user_may_not(as_nobody: Any) -> None:
    def body() -> str:
        with pytest.raises(StepFailed) as caught:
            links.create_veth("minictr-v0", "minictr-v1")
        return str(caught.value)

    told = as_nobody(body)
    assert "EPERM" in told
    assert "CAP_NET_ADMIN" in told


def test_networks_as_numbers() -> None:
    family, first, last = addresses.network_of("10.7.0.9/24")
    assert (family, first, last) == (socket.AF_INET, 0x0A070000, 0x0A0700FF)
    assert addresses.network_of("fd00::1")[1:] == ((0xFD << 120) + 1,) * 2


def test_probe(in_child: Any) -> None:
    found = in_child(links.probe)
    assert set(found) == {"veth", "bridge", "macvlan", "ipvlan"}
    assert found["veth"]
    assert found["bridge"]
