"""Network: what a network namespace is given. netdevice(7), veth(4), nft(8).

Each rung of the ladder is a feature: ``loopback`` alone (in a module of its own, for every start has it); ``veth``, a
cable to the host, routed; ``bridge``, its end in a bridge with those of others; ``bridge_netfilter``, frames among them
pass the rules of IP; ``conntrack``, a wall that lets answers in; ``nat``, a way out under the host's address;
``publish``, a way in by ports of the host.
"""

from __future__ import annotations

from minictr.errors import SpecError
from minictr.features.check import choice, frozen, integer, shown, word
from minictr.steps import ATTACH, PREPARE, Context, Feature, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

NAME_MAX = 15  # of a device: IFNAMSIZ of linux/if.h, less its closing NUL
BRIDGED, ROUTED = "minictr0", "routed"  # the networks nobody named
PROTOCOLS = ("tcp", "udp", "sctp")
PORT_MAX = (1 << 16) - 1
PORTS = 4096  # ports of one container: each is a line of its journal, and a socket for a moment
NEEDS_VETH = (("veth", "there is no cable that it could be about"),)
MTU_MIN, MTU_MAX = 68, 65535  # RFC 791; IP_MAX_MTU of include/net/ip.h
UNDONE = "removed with the container, by its journal where that was killed"


def device_name(value: object, what: str) -> str:
    """VALUE if a network device can be called so: dev_valid_name() of net/core/dev.c."""
    name = word(value, what, limit=NAME_MAX)
    if name in (".", "..") or "/" in name or ":" in name or not name.isprintable() or " " in name:
        raise SpecError(f"{what}: {shown(name)} cannot be a device's name")
    return name


def network_name(value: object, what: str) -> str:
    """VALUE if a network can be called so, and its bridge with it."""
    name = device_name(value, what)
    plain = name.replace("-", "").replace("_", "").replace(".", "")
    if not (plain.isascii() and plain.isalnum() and name[0].isalnum()):
        raise SpecError(f"{what}: {shown(name)} is not letters, digits, '-', '_', '.', beginning with one of the first")
    return name


class Veth(Feature):
    """A cable between the host and the container, whose end inside is called ``device``. veth(4), Linux 2.6.24.

    Its address is one of ``network`` that nobody has, leased as long as the container lives; ``ip``, ``ip6`` name one,
    ``mac`` one of six bytes, ``mtu`` in bytes (0: the network's). ``network`` "" is the one that is made for those who
    name none. Without the feature ``bridge`` it is routed: a single address at each end. The first has the default
    route.
    """

    NAME = "veth"
    SUMMARY = "a cable to the host, with an address"
    MANY = True
    NEEDS = (("net", "the host's own network needs no cable"),)

    device: str = "eth0"
    network: str = ""
    ip: str = ""
    ip6: str = ""
    mac: str = ""
    mtu: int = 0

    def check(self) -> None:
        from minictr.addresses import AF_INET, AF_INET6, mac_bytes, packed

        device_name(self.device, "veth device")
        if self.network:
            network_name(self.network, "veth network")
        for field, family, told in (("ip", AF_INET, "IPv4"), ("ip6", AF_INET6, "IPv6")):
            text = word(getattr(self, field), f"veth {field}", empty=True)
            if text and packed(text)[0] != family:
                raise SpecError(f"veth {field}: {shown(text)} is no {told} address")
        if self.mac:
            frozen(self, "mac", mac_bytes(word(self.mac, "veth mac")).hex(":"))
        if self.mtu:
            integer(self.mtu, "veth mtu", MTU_MIN, MTU_MAX)

    @property
    def label(self) -> str:
        return f"veth:{self.device}"

    def net(self, ctx: Context) -> str:
        """The network it is in."""
        return self.network or (BRIDGED if ctx.has("bridge") else ROUTED)

    def steps(self, ctx: Context) -> Iterator[Step]:
        network = self.net(ctx)
        yield self.step(
            "lease",
            PREPARE,
            f"{self.ip or 'an address'} of {network}",
            undo=UNDONE,
            network=network,
            bridge=ctx.has("bridge"),
            inside=self.device,
            ip=self.ip,
            ip6=self.ip6,
            mac=self.mac,
            mtu=self.mtu,
        )
        yield self.step("veth", ATTACH, f"{self.device} in {network}", undo=UNDONE, inside=self.device)


def networks(ctx: Context) -> tuple[str, ...]:
    """The networks of all cables, each once."""
    return tuple(dict.fromkeys(cable.net(ctx) for cable in ctx.features if isinstance(cable, Veth)))


class Bridged(Feature):
    """The host's end of each cable is a port of its network's bridge, which has the network's name. Linux 2.4.

    Made with the first container and removed with the last, unless ``minictr network create`` made it."""

    NAME = "bridge"
    SUMMARY = "its cable ends in a bridge, with those of others"
    NEEDS = NEEDS_VETH

    def steps(self, ctx: Context) -> Iterator[Step]:
        for network in networks(ctx):
            yield self.step("bridge", PREPARE, network, undo="removed with the last container", network=network)


class BridgeNetfilter(Feature):
    """Frames between containers of one bridge pass the rules of IP as well. IFLA_BR_NF_CALL_IPTABLES, Linux 3.9.

    The host's sysctl net.bridge.bridge-nf-call-iptables=1 means it for every bridge, whether asked for here or not."""

    NAME = "bridge_netfilter"
    SUMMARY = "rules of IP for what goes through its bridge"
    NEEDS = (("bridge", "there is no bridge that frames could go through"),)

    def steps(self, ctx: Context) -> Iterator[Step]:
        for network in networks(ctx):
            yield self.step("bridge_netfilter", PREPARE, network, undo="removed with the bridge", network=network)


class Conntrack(Feature):
    """Connections are tracked, and forwarded to the container is what answers, was published, or is of its own bridge.

    From the host itself everything still reaches it. nft(8): ct state, ct status."""

    NAME = "conntrack"
    SUMMARY = "a wall: answers and published ports get in"
    NEEDS = NEEDS_VETH

    def steps(self, ctx: Context) -> Iterator[Step]:
        yield self.step("conntrack", ATTACH, "established, related, dnat", undo=UNDONE)


class Nat(Feature):
    """A way out: packets are forwarded, under the host's own address. net.ipv4.ip_forward is put back with the last
    container. nft(8): masquerade."""

    NAME = "nat"
    SUMMARY = "a way out, under the host's address"
    NEEDS = NEEDS_VETH

    def steps(self, ctx: Context) -> Iterator[Step]:
        yield self.step("forwarding", PREPARE, "ip_forward", undo="put back with the last container")
        yield self.step("nat", ATTACH, "masquerade", undo=UNDONE)


class Publish(Feature):
    """What comes for port ``host`` of this host goes to port ``container`` of the container. nft(8): dnat.

    From elsewhere, from the host itself by any of its addresses (127.0.0.1 too, without a proxy), and from containers.
    ``host`` 0: one that is free. ``ip``: of this address of the host alone, "" each. ``protocol``: tcp, udp or sctp.
    ``count``: as many ports from there on.
    """

    NAME = "publish"
    SUMMARY = "a port of the host leads to one of its own"
    MANY = True
    NEEDS = (("veth|pasta", "there is no network that could lead to it"),)

    host: int
    container: int
    ip: str = ""
    protocol: str = "tcp"
    count: int = 1

    def check(self) -> None:
        from minictr.addresses import packed, spelled

        integer(self.count, "publish count", 1, PORTS)
        choice(self.protocol, "publish protocol", PROTOCOLS)
        integer(self.host, "publish host port", 0, PORT_MAX + 1 - self.count)
        integer(self.container, "publish container port", 1, PORT_MAX + 1 - self.count)
        if not self.host and self.count > 1:
            raise SpecError("publish: a free port is one port: give each a feature of its own")
        if word(self.ip, "publish ip", empty=True):
            family, data = packed(self.ip)  # 0.0.0.0 and :: are all addresses, which here are of both kinds
            frozen(self, "ip", spelled(family, int.from_bytes(data, "big")) if any(data) else "")

    @property
    def label(self) -> str:
        host = f"[{self.ip}]" if ":" in self.ip else self.ip
        to = "" if self.host else f":{self.container}"
        return f"publish:{host + ':' if host else ''}{self.host or 'free'}{to}/{self.protocol}"

    @property
    def told(self) -> str:
        """ "8080-8089 -> 80-89/tcp"."""
        last = self.count - 1
        ends = [f"{port}-{port + last}" if last else str(port or "free") for port in (self.host, self.container)]
        return f"{self.ip + ' ' if self.ip else ''}{ends[0]} -> {ends[1]}/{self.protocol}"

    def steps(self, ctx: Context) -> Iterator[Step]:
        if ctx.has("pasta"):
            return  # its own steps take the ports
        yield self.step(
            "port",
            PREPARE,
            self.told,
            undo=UNDONE,
            protocol=self.protocol,
            ip=self.ip,
            host=self.host,
            container=self.container,
            count=self.count,
        )
        if ctx.get("publish") is self and not getattr(ctx.get("publish_proxy"), "only", False):  # once for all of them
            yield self.step("forwarding", PREPARE, "ip_forward", undo="put back with the last container")
            yield self.step("publish", ATTACH, "dnat", undo=UNDONE)
