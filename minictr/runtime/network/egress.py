"""What a container may reach: its part of the table. docs/features/network.md.

Who sends is told by its address, which a process inside can choose. So, first, nothing leaves a limited container's
cable but under the addresses it was given: ``egress_own`` in the table of the family bridge for ports of bridges, where
the device of a frame is the cable itself, and in ours for cables without one. Then, behind connection tracking and
before any translation, ``egress`` looks at what begins a connection.

Sets of intervals take no overlapping ones, so rules become disjoint boxes first.
"""

from __future__ import annotations

import struct

from minictr.addresses import packed
from minictr.features.egress import rule_of
from minictr.features.network import PORT_MAX, PROTOCOLS
from minictr.kernel.nftables import Element

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from minictr.features.egress import Egress, Rule
    from minictr.runtime.network.attachment import Nic

__all__ = ["BRIDGE_PART", "PART", "limits", "own_addresses"]

NUMBERS = dict(zip(PROTOCOLS, (6, 17, 132), strict=True))  # netinet/in.h
IFNAMSIZ = 16
# neighbours are found, and groups joined, under link-local addresses or none; DAD too
ND = (
    "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, mld-listener-report, mld-listener-done,"
    " mld2-listener-report } return"
)
BOUND = (
    "set egress_ports { type ifname; }",
    "set egress_bound4 { type ifname . ipv4_addr; }",
    "set egress_bound6 { type ifname . ipv6_addr; }",
    "chain egress_own",
    "chain egress_own_in { type filter hook prerouting priority -300; }",
)
OWN = (
    ("egress_own", "iifname . ip saddr @egress_bound4 return"),
    ("egress_own", "iifname . ip6 saddr @egress_bound6 return"),
    ("egress_own", ND),
    ("egress_own", "counter drop"),
    ("egress_own_in", "iifname @egress_ports jump egress_own"),
)
BRIDGE_PART: tuple[tuple[str, ...], tuple[tuple[str, str], ...]] = (
    BOUND,
    (("egress_own", "iifname . arp saddr ip @egress_bound4 return"), *OWN),
)


def _sets(version: int) -> Iterable[str]:
    address = f"ipv{version}_addr"
    yield f"set egress{version} {{ type {address}; }}"
    yield f"set egress_open{version} {{ type {address}; }}"
    for verb in ("denied", "allowed"):
        yield f"set egress_{verb}{version} {{ type {address} . {address}; flags interval; }}"
        ports = f"{address} . {address} . inet_proto . inet_service"
        yield f"set egress_{verb}_ports{version} {{ type {ports}; flags interval; }}"


def _looks(ip: str, version: int) -> Iterable[tuple[str, str]]:
    pair = f"{ip} saddr . {ip} daddr"
    for verb, verdict in (("denied", "goto egress_refused"), ("allowed", "return")):
        yield "egress", f"{pair} @egress_{verb}{version} {verdict}"
        yield "egress", f"{pair} . meta l4proto . th dport @egress_{verb}_ports{version} {verdict}"
    yield "egress", f"{ip} saddr @egress_open{version} return"


PART: tuple[tuple[str, ...], tuple[tuple[str, str], ...]] = (
    (
        *BOUND,
        *_sets(4),
        *_sets(6),
        "chain egress_refused",
        "chain egress",
        "chain egress_in { type filter hook prerouting priority mangle; }",
    ),
    (
        *OWN,
        ("egress_refused", "counter reject with icmpx admin-prohibited"),
        ("egress", "ct state established,related return"),
        ("egress", ND),
        *_looks("ip", 4),
        *_looks("ip6", 6),
        ("egress", "goto egress_refused"),
        ("egress_in", "ip saddr @egress4 jump egress"),
        ("egress_in", "ip6 saddr @egress6 jump egress"),
    ),
)


# --- elements ---


def own_addresses(nics: Iterable[Nic], whose: str) -> list[Element]:
    """Each cable of NICS, bound to its addresses."""
    found = []
    for nic in nics:
        name = nic.link.encode().ljust(IFNAMSIZ, b"\0")
        found.append(Element("egress_ports", name, b"", whose))
        found += (Element(f"egress_bound{_version(ip)}", name + packed(ip)[1], b"", whose) for ip in nic.addresses)
    return sorted(found, key=lambda item: item.set)


def limits(wish: Egress, addresses: Iterable[str], whose: str) -> list[Element]:
    """What WISH says of who sends under ADDRESSES."""
    found = []
    for address in addresses:
        version, (family, sender) = _version(address), packed(address)
        found.append(Element(f"egress{version}", sender, b"", whose))
        if wish.is_open:
            found.append(Element(f"egress_open{version}", sender, b"", whose))
        for verb, texts in (("denied", wish.deny), ("allowed", wish.allow)):
            rules = [rule for rule in map(rule_of, texts) if rule[0] == family]
            for key, end in _intervals(rules, sender):
                name = f"egress_{verb}{'' if len(key) == 2 * len(sender) else '_ports'}{version}"
                found.append(Element(name, key, b"", whose, end))
    return sorted(found, key=lambda item: item.set)


def _version(address: str) -> int:
    return 6 if ":" in address else 4


def _intervals(rules: list[Rule], sender: bytes) -> Iterable[tuple[bytes, bytes]]:
    """First and last key of each box that RULES make, without protocol where all are meant."""
    size = len(sender)
    whole = [(first, last) for _, first, last, name, low, high in rules if not name and (low, high) == (0, PORT_MAX)]
    for first, last in merged(whole):
        yield sender + first.to_bytes(size, "big"), sender + last.to_bytes(size, "big")
    for name, number in NUMBERS.items():
        boxes = [
            (first, last, low, high)
            for _, first, last, protocol, low, high in rules
            if protocol in ("", name) and (protocol or (low, high) != (0, PORT_MAX))
        ]
        for first, last, low, high in disjoint(boxes):
            ends = (
                sender + at.to_bytes(size, "big") + struct.pack(">B3xH2x", number, port)
                for at, port in ((first, low), (last, high))
            )
            yield next(ends), next(ends)


def merged(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """RANGES, both ends included, as few that do not touch."""
    found: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if found and first <= found[-1][1] + 1:
            found[-1] = found[-1][0], max(last, found[-1][1])
        else:
            found.append((first, last))
    return found


def disjoint(boxes: list[tuple[int, int, int, int]]) -> list[tuple[int, int, int, int]]:
    """BOXES (first and last address, first and last port) as others that cover the same and do not overlap."""
    cuts = sorted({first for first, _, _, _ in boxes} | {last + 1 for _, last, _, _ in boxes})
    found: list[tuple[int, int, int, int]] = []
    before: list[tuple[int, int]] = []
    for first, after in zip(cuts, cuts[1:]):
        ports = merged((low, high) for begin, last, low, high in boxes if begin <= first <= last)
        if ports and ports == before and found[-1][1] + 1 == first:
            found[-len(ports) :] = [(row[0], after - 1, *row[2:]) for row in found[-len(ports) :]]
        else:
            found += [(first, after - 1, *row) for row in ports]
        before = ports
    return found
