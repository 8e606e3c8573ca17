"""The network of an ordinary user: pasta(1) carries what the container sends and gets over sockets of the caller's own.

No privilege over the host's network is needed: a tap device inside, and outside nothing but sockets. Debian: passt.
"""

from __future__ import annotations

from minictr.errors import SpecError
from minictr.features.check import frozen, integer, shown, word
from minictr.features.network import MTU_MAX, MTU_MIN, PORT_MAX, Publish, device_name
from minictr.steps import ATTACH, PREPARE, Context, Feature, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

UNDONE = "ended with the container, by its journal where that was killed"


class Pasta(Feature):
    """A network by pasta(1): the device ``device`` inside, connections outside are made by a process of the caller's.

    It has the host's own addresses, unless ``ip``, ``ip6`` (with ``prefix``, bits of the IPv4 network), ``gateway`` and
    ``gateway6`` name others. ``template``: the device of the host whose addresses and routes it takes ("": that of the
    default route). ``family``: 4 or 6 alone, 0 both. ``mac``: six bytes; ``mtu`` in bytes, 0 for pasta's 65520.
    ``map_gw``: what is sent to the gateway reaches the host's own 127.0.0.1. ``tcp_ns``, ``udp_ns``: ports of the
    container's 127.0.0.1 that lead to the host's, as pasta's -T and -U have them. ``dns``: an address inside that
    stands for the first resolver of the host's /etc/resolv.conf, 127.0.0.53 too; "" for none.
    """

    NAME = "pasta"
    SUMMARY = "a network by a process of the caller's own, for anybody"
    NEEDS = (("net", "there is no network of its own that pasta could serve"),)

    device: str = "eth0"
    ip: str = ""
    ip6: str = ""
    prefix: int = 0
    gateway: str = ""
    gateway6: str = ""
    mac: str = ""
    mtu: int = 0
    template: str = ""
    family: int = 0
    map_gw: bool = False
    tcp_ns: str = ""
    udp_ns: str = ""
    dns: str = "169.254.1.1"

    def check(self) -> None:
        from minictr.addresses import AF_INET6, mac_bytes, packed

        device_name(self.device, "pasta device")
        if self.template:
            device_name(self.template, "pasta template")
        for field, six in (("ip", False), ("ip6", True), ("gateway", False), ("gateway6", True), ("dns", False)):
            text = word(getattr(self, field), f"pasta {field}", empty=True)
            if text and (packed(text)[0] == AF_INET6) is not six:
                raise SpecError(f"pasta {field}: {shown(text)} is no {'IPv6' if six else 'IPv4'} address")
        if self.mac:
            frozen(self, "mac", mac_bytes(word(self.mac, "pasta mac")).hex(":"))
        if self.mtu:
            integer(self.mtu, "pasta mtu", MTU_MIN, MTU_MAX)
        integer(self.prefix, "pasta prefix", 0, 32)
        if self.family not in (0, 4, 6):
            raise SpecError(f"pasta family: {shown(self.family)} is not 4, 6, or 0 for both")
        for field, mine in (("ip", 4), ("gateway", 4), ("ip6", 6), ("gateway6", 6)):
            if getattr(self, field) and self.family not in (0, mine):
                raise SpecError(f"pasta {field}: an address of IPv{mine}, and IPv{self.family} alone is wanted")
        for field in ("tcp_ns", "udp_ns"):
            port_spec(word(getattr(self, field), f"pasta {field}", empty=True), f"pasta {field}")

    def steps(self, ctx: Context) -> Iterator[Step]:
        wanted = [one for one in ctx.features if isinstance(one, Publish)]
        ports = tuple((one.protocol, one.ip, one.host, one.container, one.count) for one in wanted)
        about = ", ".join((self.device, *(one.told for one in wanted)))
        yield self.step("pasta_ports", PREPARE, about, undo=UNDONE, ports=ports, family=self.family)
        settings = tuple((name, getattr(self, name)) for name in self._fields)
        userns = ctx.has("userns")
        yield self.step("pasta", ATTACH, about, undo=UNDONE, settings=settings, userns=userns)


def port_spec(text: str, what: str) -> str:
    """TEXT if it is ports as pasta's -T takes them: "", none, or 22,80-90,8080:80."""
    for part in text.split(",") if text and text != "none" else ():
        ends = [end for side in part.split(":", 1) for end in side.split("-", 1)]
        if not all(end.isascii() and end.isdigit() and 0 < int(end[:6]) <= PORT_MAX for end in ends):
            raise SpecError(f"{what}: {shown(part)} is no port, as 22, 80-90 or 8080:80")
    return text
