"""The one table of a state directory: what its chains say, and the elements that stand for a container.

::

    nat        what leaves from an address in nat4, nat6 for elsewhere gets the host's address
    conntrack  to an address in tracked4, tracked6 goes only what answers, was published, or comes from its own bridge
    publish    what comes for a port in ports4, ports6 (or one address of this host: ports4_at, ports6_at) is sent on to
               a container, from elsewhere, from this host and 127.0.0.1 too, and from other containers
    egress     what an address in egress4, egress6 begins must be allowed (egress.py); a table of the family bridge
               beside this one has the cables of such containers

Chains are made when their first element is, by nft and whole or not at all; sending them again repairs them. Nothing of
any other table is touched, and what others' tables drop stays dropped: see :func:`in_the_way`.
"""

from __future__ import annotations

import struct
from binascii import crc32

from minictr.addresses import packed
from minictr.errors import StepFailed
from minictr.kernel import nftables
from minictr.kernel.nftables import Element
from minictr.runtime.network import egress
from minictr.runtime.store import default_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from minictr.runtime.store import Store

__all__ = ["PROTOCOLS", "address_elements", "apply_parts", "device", "in_the_way", "port_element", "put", "table"]

ENOENT = 2
PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}  # netinet/in.h
IFNAMSIZ = 16
DNAT4 = "inet_proto . inet_service : ipv4_addr . inet_service"
DNAT6 = "inet_proto . inet_service : ipv6_addr . inet_service"
INSIDE = 'set inside { type ifname; comment "bridges, and cables without one"; }'
# part -> (sets and chains, rules by chain)
PARTS: dict[str, tuple[tuple[str, ...], tuple[tuple[str, str], ...]]] = {
    "nat": (
        (
            INSIDE,
            "set nat4 { type ipv4_addr; }",
            "set nat6 { type ipv6_addr; }",
            "chain nat_out { type nat hook postrouting priority srcnat; }",
        ),
        (
            ("nat_out", "ip saddr @nat4 oifname != @inside masquerade"),
            ("nat_out", "ip6 saddr @nat6 oifname != @inside masquerade"),
        ),
    ),
    "conntrack": (
        (
            "set tracked4 { type ipv4_addr; }",
            "set tracked6 { type ipv6_addr; }",
            'set neighbours { type ifname . ifname; comment "a bridge and itself: frames by br_netfilter"; }',
            "chain tracked",
            "chain tracked_in { type filter hook forward priority filter; }",
        ),
        (
            ("tracked", "ct state established,related return"),
            ("tracked", "ct status dnat return"),
            ("tracked", "iifname . oifname @neighbours return"),
            ("tracked", "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-advert } return"),
            ("tracked", "counter drop"),
            ("tracked_in", "ip daddr @tracked4 jump tracked"),
            ("tracked_in", "ip6 daddr @tracked6 jump tracked"),
        ),
    ),
    "publish": (
        (
            INSIDE,
            "set publishers4 { type ipv4_addr; }",
            "set publishers6 { type ipv6_addr; }",
            f"map ports4 {{ type {DNAT4}; }}",
            f"map ports6 {{ type {DNAT6}; }}",
            f"map ports4_at {{ type ipv4_addr . {DNAT4}; }}",
            f"map ports6_at {{ type ipv6_addr . {DNAT6}; }}",
            'set proxied { type inet_proto . inet_service; comment "on 127.0.0.0/8 a process is there for them"; }',
            "set proxied_at { type ipv4_addr . inet_proto . inet_service; }",
            "chain published",
            "chain published_martians { type filter hook prerouting priority raw; }",
            "chain published_in { type nat hook prerouting priority dstnat; }",
            "chain published_here { type nat hook output priority -100; }",
            "chain published_out { type nat hook postrouting priority srcnat; }",
        ),
        (
            ("published", "dnat ip to ip daddr . meta l4proto . th dport map @ports4_at"),
            ("published", "meta nfproto ipv4 dnat ip to meta l4proto . th dport map @ports4"),
            ("published", "dnat ip6 to ip6 daddr . meta l4proto . th dport map @ports6_at"),
            ("published", "meta nfproto ipv6 dnat ip6 to meta l4proto . th dport map @ports6"),
            # route_localnet lets 127.0.0.1 leave and come back translated; no other may send to it (CVE-2020-8558)
            ("published_martians", 'iifname != "lo" ip daddr 127.0.0.0/8 drop'),
            ("published_in", "fib daddr type local jump published"),
            ("published_here", "ip6 daddr ::1 return"),  # the kernel lets nothing from ::1 leave: ip6_route_me_harder()
            ("published_here", "ip daddr 127.0.0.0/8 meta l4proto . th dport @proxied return"),
            ("published_here", "ip daddr 127.0.0.0/8 ip daddr . meta l4proto . th dport @proxied_at return"),
            ("published_here", "fib daddr type local jump published"),
            # the answer must come back here to be translated again: from 127.0.0.1, and among containers of one bridge
            ("published_out", "oifname @inside ct status dnat ip saddr 127.0.0.0/8 masquerade"),
            # itself by its own port, where frames pass the rules of IP and the bridge translates: see links.set_hairpin
            ("published_out", "oifname @inside ct status dnat ip saddr @publishers4 masquerade"),
            ("published_out", "oifname @inside ct status dnat ip6 saddr @publishers6 masquerade"),
            ("published_out", "iifname @inside oifname @inside ct status dnat masquerade"),
        ),
    ),
    "egress": egress.PART,
}
BRIDGE_PARTS = {"egress": egress.BRIDGE_PART}  # what stands in the table of the family bridge


def table(store: Store) -> str:
    """The name of the table of STORE: minictr, and for another state directory than the usual with a mark of it."""
    return "minictr" if store.path == default_root() else f"minictr-{crc32(store.path.encode()):08x}"


def of_bridges(name: str) -> str:
    """The table beside the table NAME that sees frames of bridges."""
    return f"bridge {name}"


def apply_parts(name: str, parts: Iterable[str]) -> None:
    """The sets and chains of PARTS in the table NAME, as they are to be, whatever they were. Elements stay."""
    lines: list[str] = []
    texts, name = (BRIDGE_PARTS, name) if " " in name else (PARTS, f"inet {name}")
    for part in parts:
        if part not in texts:
            continue
        declared, rules = texts[part]
        lines.append(f"table {name} {{")
        lines += (f"  {line if line.endswith('}') else line + ' { }'}" for line in declared)
        lines.append("}")
        lines += (f"flush chain {name} {line.split()[1]}" for line in declared if line.startswith("chain"))
        lines += (f'add rule {name} {chain} {rule} comment "minictr {part}"' for chain, rule in rules)
    nftables.apply("\n".join(lines) + "\n")


def put(name: str, parts: Iterable[str], elements: Iterable[Element]) -> None:
    """ELEMENTS into the table NAME, which gets the chains of PARTS if it has not got them. Raises StepFailed."""
    elements = list(elements)
    try:
        nftables.add_elements(name, elements)
    except StepFailed as err:
        if err.errno != ENOENT:
            raise
        apply_parts(name, parts)
        nftables.add_elements(name, elements)


# --- elements ---


def device(name: str, whose: str) -> Element:
    """NAME, a bridge or a cable, in the set of what is ours."""
    return Element("inside", name.encode().ljust(IFNAMSIZ, b"\0"), b"", whose)


def neighbours(name: str, whose: str) -> Element:
    """From the bridge NAME to itself."""
    return Element("neighbours", name.encode().ljust(IFNAMSIZ, b"\0") * 2, b"", whose)


def address_elements(kind: str, addresses: Iterable[str], whose: str) -> list[Element]:
    """ADDRESSES in the sets KIND4 and KIND6."""
    return [Element(f"{kind}{6 if ':' in one else 4}", packed(one)[1], b"", whose) for one in addresses]


def port_element(protocol: str, ip: str, port: int, to: str, to_port: int, whose: str) -> Element:
    """PORT of the address IP of this host ("" for each) leads to the address TO, port TO_PORT."""
    key = (packed(ip)[1] if ip else b"") + struct.pack(">B3xH2x", PROTOCOLS[protocol], port)
    name = f"ports{6 if ':' in to else 4}" + ("_at" if ip else "")
    return Element(name, key, packed(to)[1] + struct.pack(">H2x", to_port), whose)


def proxied_element(protocol: str, ip: str, port: int, whose: str) -> Element:
    """On the loopback device PORT, of the address IP or ("") all, is the proxy's."""
    key = (packed(ip)[1] if ip else b"") + struct.pack(">B3xH2x", PROTOCOLS[protocol], port)
    return Element("proxied_at" if ip else "proxied", key, b"", whose)


# --- others ---


def in_the_way() -> list[str]:
    """What others' rules would drop of ours: a line for each chain that drops what is forwarded unless it is told
    otherwise. Docker's is one. Raises Unsupported, StepFailed."""
    found = []
    for row in nftables.listed("chains"):
        chain = row.get("chain", {})
        ours = chain.get("family") == "inet" and str(chain.get("table", "")).startswith("minictr")
        if chain.get("hook") == "forward" and chain.get("policy") == "drop" and not ours:
            where = f"chain {chain['name']} of table {chain['family']} {chain['table']}"
            cure = f"nft insert rule {chain['family']} {chain['table']} {chain['name']} iifname NAME accept"
            if chain["table"] == "filter" and chain["name"] == "FORWARD":
                cure = "with dockerd: iptables -I DOCKER-USER -i NAME -j ACCEPT, and -o NAME too"
            found.append(f"{where} drops what is forwarded; for a network NAME: {cure}")
    return found
