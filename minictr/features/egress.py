"""Egress: what a container may reach, by address, port and protocol. nft(8), Linux 5.9."""

from __future__ import annotations

from minictr.addresses import network_of
from minictr.errors import SpecError
from minictr.features.check import decimal, frozen, shown, word
from minictr.features.network import NEEDS_VETH, PORT_MAX, PROTOCOLS, UNDONE
from minictr.steps import ATTACH, Context, Feature, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    # family, first and last address as numbers, protocol ("" for every one), first and last port (0, PORT_MAX for all)
    Rule = tuple[int, int, int, str, int, int]

__all__ = ["Egress", "rule_of"]

RULES = 256  # of one container: each is some elements, and as many rows of its journal


def rule_of(text: str) -> Rule:
    """``CIDR[:PORT[-PORT]][/PROTOCOL]`` as numbers; an IPv6 network with a port has brackets: ``[fd00::/64]:443/tcp``.

    A port without a protocol is that of all three. Raises SpecError; for a name as well: rules go by address.
    """
    rest, slash, protocol = text.rpartition("/")
    if not slash or not protocol.isalpha():
        rest, protocol = text, ""
    elif protocol not in PROTOCOLS:
        raise SpecError(f"egress {shown(text)}: {shown(protocol)} is not one of {', '.join(PROTOCOLS)}")
    if rest.startswith("["):
        cidr, bracket, ports = rest[1:].partition("]")
        if not bracket or (ports and not ports.startswith(":")):
            raise SpecError(f"egress {shown(text)}: an IPv6 network with a port is written [CIDR]:PORT")
        colon, ports = ports[:1], ports[1:]
    elif rest.count(":") > 1:
        cidr, colon, ports = rest, "", ""
    else:
        cidr, colon, ports = rest.partition(":")
    try:
        family, first, last = network_of(cidr)
    except SpecError:
        cure = "an address or network as 10.0.0.0/8 or fd00::/64 is wanted; names are not looked up"
        raise SpecError(f"egress {shown(text)}: {shown(cidr)}: {cure}") from None
    low, dash, high = ports.partition("-")
    if not colon:
        return family, first, last, protocol, 0, PORT_MAX
    ends = [int(part) if decimal(part) else 0 for part in (low, high if dash else low)]
    if not all(0 < port <= PORT_MAX for port in ends) or ends[1] < ends[0]:
        raise SpecError(f"egress {shown(text)}: {shown(ports)} is no port, 1 to {PORT_MAX}, nor a range as 8000-8009")
    return family, first, last, protocol, ends[0], ends[1]


class Egress(Feature):
    """What the container may reach of its own accord: other containers, this host and all beyond. nft(8), Linux 5.9.

    ``allow``, ``deny``: texts as :func:`rule_of` reads them. What is in ``deny`` is refused, then what is in ``allow``
    goes; the rest goes where nothing but ``deny`` is given, and is refused otherwise: ``Egress()`` reaches nothing.
    What answers always goes: to clients of published ports, to the host, to neighbours who began. In a bridge it takes
    ``bridge_netfilter`` too, without which no rule of IP sees what goes from port to port.
    """

    NAME = "egress"
    SUMMARY = "what it may reach, by address and port"
    NEEDS = NEEDS_VETH

    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()

    def check(self) -> None:
        for field in ("allow", "deny"):
            rules = getattr(self, field)
            rules = (rules,) if isinstance(rules, str) else tuple(rules)
            if len(rules) > RULES:
                raise SpecError(f"egress: more than {RULES} rules to {field}: name larger networks")
            for text in rules:
                rule_of(word(text, f"egress {field}"))
            frozen(self, field, rules)

    @property
    def is_open(self) -> bool:
        """Whether what no rule speaks of goes."""
        return bool(self.deny) and not self.allow

    @property
    def told(self) -> str:
        """ "deny 10.0.0.0/8, all else goes"."""
        parts = [f"{verb} {', '.join(rules)}" for verb, rules in (("deny", self.deny), ("allow", self.allow)) if rules]
        return ", ".join([*parts, "all else goes" if self.is_open else "nothing else" if parts else "nothing"])

    def steps(self, ctx: Context) -> Iterator[Step]:
        yield self.step("egress", ATTACH, self.told, undo=UNDONE, allow=self.allow, deny=self.deny)
