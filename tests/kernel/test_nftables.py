"""Tables by nft, elements by netlink: each read back by the other's tool, and by packets."""

from __future__ import annotations

import socket
import struct
from typing import Any

import pytest

from minictr.errors import StepFailed, Unsupported
from minictr.kernel import links, namespaces, nftables
from minictr.kernel.nftables import Element

ENOENT, EEXIST, EPERM = 2, 17, 1
TABLE = """add table inet lab
add set inet lab friends { type ipv4_addr; }
add map inet lab ports { type inet_proto . inet_service : ipv4_addr . inet_service; }
add chain inet lab out { type nat hook output priority -100; }
flush chain inet lab out
add rule inet lab out dnat ip to meta l4proto . th dport map @ports
"""


def address(text: str) -> bytes:
    return socket.inet_pton(socket.AF_INET, text)


def port(number: int, to: int) -> Element:
    return Element("ports", struct.pack(">B3xH2x", 6, number), address("127.0.0.1") + struct.pack(">H2x", to), "web")


def elements(name: str, kind: str = "set") -> list[Any]:
    (found,) = (row[kind] for row in nftables.listed(kind, "inet", "lab", name))
    return list(found.get("elem", []))


def test_a_table_whole_or_not_at_all(in_child: Any) -> None:
    def body() -> Any:
        with namespaces.unshare("net"):
            nftables.apply(TABLE)
            nftables.apply(TABLE)
            once = [row for row in nftables.listed("table", "inet", "lab") if "rule" in row]
            with pytest.raises(StepFailed) as caught:
                nftables.apply("delete chain inet lab out\nadd rule inet lab nowhere accept")
            still = [row for row in nftables.listed("chains") if "chain" in row]
            with pytest.raises(StepFailed) as missing:
                nftables.listed("table", "inet", "nix")
            return once, str(caught.value), still, missing.value.errno

    once, told, still, errno = in_child(body)
    assert len(once) == 1
    assert "nowhere" in told
    assert [row["chain"]["name"] for row in still] == ["out"]
    assert errno == ENOENT


def test_elements_come_and_go(in_child: Any) -> None:
    def body() -> Any:
        with namespaces.unshare("net"):
            nftables.apply(TABLE)
            one, two = (Element("friends", address(f"10.0.0.{n}"), b"", f"minictr box{n}") for n in (1, 2))
            nftables.add_elements("lab", [one, two, port(80, 8080)])
            nftables.add_elements("lab", [one])
            there = elements("friends"), elements("ports", "map")
            nftables.remove_elements("lab", [one, Element("friends", address("10.9.9.9"))])
            left = elements("friends")
            nftables.remove_elements("lab", [two, port(80, 8080)])
            gone = elements("friends"), elements("ports", "map")
            nftables.remove_elements("nix", [one])
            return there, left, gone

    (friends, ports), left, gone = in_child(body)
    assert sorted(row["elem"]["val"] for row in friends) == ["10.0.0.1", "10.0.0.2"]
    assert {row["elem"]["comment"] for row in friends} == {"minictr box1", "minictr box2"}
    ((key, value),) = ports
    protocol, number = key["elem"]["val"]["concat"]
    assert protocol in ("tcp", socket.IPPROTO_TCP)  # nft has the name from /etc/protocols, which not every root has
    assert (number, key["elem"]["comment"], value) == (80, "web", {"concat": ["127.0.0.1", 8080]})
    assert [row["elem"]["val"] for row in left] == ["10.0.0.2"]
    assert gone == ([], [])


def test_all_elements_or_none(in_child: Any) -> None:
    def body() -> Any:
        with namespaces.unshare("net"):
            nftables.apply(TABLE)
            nftables.add_elements("lab", [port(80, 8080)])
            with pytest.raises(StepFailed) as taken:
                nftables.add_elements("lab", [port(81, 8081), port(80, 9999)])
            with pytest.raises(StepFailed) as nowhere:
                nftables.add_elements("lab", [port(81, 8081), Element("nix", address("10.0.0.1"))])
            return taken.value.errno, nowhere.value.errno, len(elements("ports", "map"))

    assert in_child(body) == (EEXIST, ENOENT, 1)


def test_thousands_in_one_transaction(in_child: Any) -> None:
    def body() -> int:
        with namespaces.unshare("net"):
            nftables.apply(TABLE)
            many = [port(number, number) for number in range(20000, 24000)]
            nftables.add_elements("lab", many)
            found = len(elements("ports", "map"))
            nftables.remove_elements("lab", many)
            return found - len(elements("ports", "map"))

    assert in_child(body) == 4000


def test_packets_go_where_the_map_says(in_child: Any) -> None:
    def body() -> bytes:
        with namespaces.unshare("net"):
            links.set_up(1)
            nftables.apply(TABLE)
            with socket.create_server(("127.0.0.1", 0)) as server:
                nftables.add_elements("lab", [port(80, server.getsockname()[1])])
                with socket.create_connection(("127.0.0.1", 80), 5) as client:
                    client.sendall(b"translated")
                    conversation, _ = server.accept()
                    with conversation:
                        return conversation.recv(64)

    assert in_child(body) == b"translated"


def test_without_nft(in_child: Any) -> None:
    def body() -> str:
        nftables.PATHS = ("/nowhere/nft",)
        with pytest.raises(Unsupported) as caught:
            nftables.apply(TABLE)
        return str(caught.value)

    assert in_child(body) == "nftables: the program nft is not here; apt-get install nftables"


def test_an_ordinary_user_may_not(as_nobody: Any) -> None:
    def body() -> list[int | None]:
        found = []
        for call in (lambda: nftables.add_elements("lab", [port(1, 2)]), lambda: nftables.apply(TABLE)):
            with pytest.raises(StepFailed) as caught:
                call()
            found.append(caught.value.errno)
        return found

    assert as_nobody(body) == [EPERM, EPERM]


def test_probe(in_child: Any) -> None:
    assert in_child(nftables.probe)["nftables"]
