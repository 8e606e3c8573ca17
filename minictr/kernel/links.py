"""Links, addresses and routes by rtnetlink, told in as few messages as the kernel takes. rtnetlink(7), netdevice(7).

Every verb acts in the network namespace of the calling thread, or through ``via``, a :class:`Netlink` that was opened
in another. What is made is refused if its name is taken (EEXIST). Kinds: veth(4); bridge, macvlan, ipvlan: ip-link(8).
"""

from __future__ import annotations

import _socket
import struct

from minictr.addresses import AF_INET, AF_INET6, mac_bytes, packed, split
from minictr.errors import SpecError, StepFailed, Unsupported
from minictr.kernel.netlink import ROUTE, Netlink, attribute, attributes, nest, request, text, u16, u32
from minictr.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from minictr.kernel.netlink import Request
    from minictr.steps import Support

__all__ = [
    "Address",
    "Link",
    "Netlink",
    "add_address",
    "add_route",
    "addresses",
    "create_bridge",
    "create_ipvlan",
    "create_macvlan",
    "create_veth",
    "delete",
    "index",
    "links",
    "move",
    "namespace_socket",
    "probe",
    "routes",
    "set_hairpin",
    "set_master",
    "set_netfilter",
    "set_up",
]

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_NEWADDR, RTM_GETADDR, RTM_NEWROUTE, RTM_GETROUTE = 16, 17, 18, 20, 22, 24, 26
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE = 0x100, 0x200, 0x400
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_MASTER = 1, 3, 4, 5, 10
IFLA_LINKINFO, IFLA_NET_NS_FD, IFLA_INFO_KIND, IFLA_INFO_DATA, VETH_INFO_PEER = 18, 28, 1, 2, 1
IFLA_BR_NF_CALL_IPTABLES, IFLA_BR_NF_CALL_IP6TABLES = 36, 37
IFLA_MACVLAN_MODE, IFLA_IPVLAN_MODE = 1, 1
RTM_SETLINK, AF_BRIDGE, IFLA_PROTINFO, IFLA_BRPORT_MODE = 19, 7, 12, 4  # linux/rtnetlink.h, if_link.h
MACVLAN_MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}  # linux/if_link.h
IPVLAN_MODES = {"l2": 0, "l3": 1, "l3s": 2}  # linux/if_link.h
IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST, IFA_FLAGS, IFA_F_NODAD = 1, 2, 4, 8, 2
RTA_DST, RTA_OIF, RTA_GATEWAY = 1, 4, 5
RT_TABLE_MAIN, RTPROT_STATIC, RT_SCOPE_LINK, RTN_UNICAST, RTNH_F_ONLINK = 254, 4, 253, 1, 4
IFF_UP = 1
LINK, ADDRESS, ROUTE_HEADER = struct.Struct("=BxHiII"), struct.Struct("=BBBBI"), struct.Struct("=BBBBBBBBI")
CLONE_NEWNET = 0x40000000  # linux/sched.h
EEXIST, ENODEV, EOPNOTSUPP, EPERM = 17, 19, 95, 1
NEEDS_ADMIN = "needs CAP_NET_ADMIN over this network namespace"


class Link(Value):
    """A network device. ``flags`` IFF_*, ``mtu`` in bytes, ``master`` and ``parent`` indices (0 for none), ``kind`` as
    "veth" ("" for hardware)."""

    index: int
    name: str
    flags: int
    mtu: int
    mac: str
    master: int = 0
    parent: int = 0
    kind: str = ""


class Address(Value):
    """An address of the device ``index``, with the length of its network's prefix."""

    index: int
    address: str
    prefix: int


# --- make ---


def _new(name: str, flags: int = IFF_UP, *more: bytes, mac: str = "", mtu: int = 0) -> bytes:
    """The body of a new link's message."""
    parts = [LINK.pack(0, 0, 0, flags, flags), text(IFLA_IFNAME, name)]
    if mac:
        parts.append(attribute(IFLA_ADDRESS, mac_bytes(mac)))
    if mtu:
        parts.append(u32(IFLA_MTU, mtu))
    return b"".join((*parts, *more))


def _info(kind: str, *data: bytes) -> bytes:
    inside = [attribute(IFLA_INFO_KIND, kind.encode())]
    if data:
        inside.append(nest(IFLA_INFO_DATA, *data))
    return nest(IFLA_LINKINFO, *inside)


def _make(what: str, body: bytes, via: Netlink | None, kind: str) -> None:
    try:
        _run(via, request(what, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body))
    except StepFailed as err:
        if err.errno == EOPNOTSUPP:
            raise Unsupported(kind, f"this kernel has no {kind} devices", f"needs CONFIG_{kind.upper()}") from err
        if err.errno == EPERM and not err.cure:
            raise StepFailed(what, EPERM, cure=NEEDS_ADMIN) from err
        raise


def _run(via: Netlink | None, *requests: Request) -> None:
    if via is not None:
        via.run(*requests)
        return
    with Netlink(ROUTE) as own:
        own.run(*requests)


def create_veth(
    name: str,
    peer: str,
    *,
    netns: int = -1,
    master: int = 0,
    mac: str = "",
    peer_mac: str = "",
    mtu: int = 0,
    via: Netlink | None = None,
) -> None:
    """A pair of devices, each the other end of the cable: NAME here, up, PEER here or in the namespace NETNS, down.

    NETNS: a descriptor of a network namespace. ``master``: index of the bridge that NAME is a port of. ``mtu`` in
    bytes, 0 for the kernel's 1500. One message. veth(4), Linux 2.6.24. Raises StepFailed: EEXIST for a name in use.
    """
    end = _new(peer, 0, mac=peer_mac, mtu=mtu)  # up is refused (ENOTCONN): its own end is not there yet
    if netns >= 0:
        end += u32(IFLA_NET_NS_FD, netns)
    more = [_info("veth", attribute(VETH_INFO_PEER, end))]
    if master:
        more.append(u32(IFLA_MASTER, master))
    _make(f"make veth {name}", _new(name, IFF_UP, *more, mac=mac, mtu=mtu), via, "veth")


def create_bridge(
    name: str, *, mac: str = "", mtu: int = 0, netfilter: bool = False, via: Netlink | None = None
) -> None:
    """A bridge, up, without spanning tree. ``netfilter``: frames between its ports pass the rules of IP as well (the
    bridge's own nf_call_iptables, nf_call_ip6tables; Linux 3.9). Give it a ``mac``, or it takes its ports'."""
    data = [attribute(kind, bytes([netfilter])) for kind in (IFLA_BR_NF_CALL_IPTABLES, IFLA_BR_NF_CALL_IP6TABLES)]
    _make(f"make bridge {name}", _new(name, IFF_UP, _info("bridge", *data), mac=mac, mtu=mtu), via, "bridge")


def create_macvlan(
    name: str, parent: int, *, mode: str = "bridge", mac: str = "", mtu: int = 0, netns: int = -1
) -> None:
    """A device with a MAC address of its own on the device PARENT (an index), up; in NETNS, a descriptor, if given.

    ``mode``: private, vepa, bridge or passthru. Linux 2.6.23. The host cannot reach it through PARENT itself.
    """
    if mode not in MACVLAN_MODES:
        raise SpecError(f"macvlan mode {mode!r}: one of {', '.join(MACVLAN_MODES)} is wanted")
    _on(name, parent, "macvlan", u32(IFLA_MACVLAN_MODE, MACVLAN_MODES[mode]), mac, mtu, netns)


def create_ipvlan(name: str, parent: int, *, mode: str = "l2", mtu: int = 0, netns: int = -1) -> None:
    """A device that shares the MAC address of the device PARENT (an index), up; in NETNS, a descriptor, if given.

    ``mode``: l2, l3 or l3s. Linux 3.19. Raises Unsupported where the kernel has none.
    """
    if mode not in IPVLAN_MODES:
        raise SpecError(f"ipvlan mode {mode!r}: one of {', '.join(IPVLAN_MODES)} is wanted")
    _on(name, parent, "ipvlan", u16(IFLA_IPVLAN_MODE, IPVLAN_MODES[mode]), "", mtu, netns)


def _on(name: str, parent: int, kind: str, mode: bytes, mac: str, mtu: int, netns: int) -> None:
    more = [u32(IFLA_LINK, parent), _info(kind, mode)]
    if netns >= 0:
        more.append(u32(IFLA_NET_NS_FD, netns))
    _make(f"make {kind} {name}", _new(name, IFF_UP, *more, mac=mac, mtu=mtu), None, kind)


def delete(name: str, *, missing_ok: bool = False, via: Netlink | None = None) -> None:
    """The device NAME goes, and with a veth its peer. Raises StepFailed: ENODEV, unless ``missing_ok``."""
    body = LINK.pack(0, 0, 0, 0, 0) + text(IFLA_IFNAME, name)
    _run(via, request(f"remove link {name}", RTM_DELLINK, 0, body, (ENODEV,) if missing_ok else ()))


# --- change ---


def set_up(index: int, up: bool = True, *, via: Netlink | None = None) -> None:
    """The device INDEX up, or down."""
    _run(via, request(f"set link {index} {'up' if up else 'down'}", RTM_NEWLINK, 0, _flags(index, up)))


def _flags(index: int, up: bool) -> bytes:
    return LINK.pack(0, 0, index, IFF_UP if up else 0, IFF_UP)


def move(index: int, netns: int) -> None:
    """The device INDEX into the network namespace NETNS, a descriptor."""
    body = LINK.pack(0, 0, index, 0, 0) + u32(IFLA_NET_NS_FD, netns)
    _run(None, request(f"move link {index}", RTM_NEWLINK, 0, body))


def set_master(index: int, master: int) -> None:
    """The device INDEX is a port of the bridge MASTER, an index; of none with 0."""
    body = LINK.pack(0, 0, index, 0, 0) + u32(IFLA_MASTER, master)
    _run(None, request(f"put link {index} into bridge {master}", RTM_NEWLINK, 0, body))


def set_hairpin(index: int, on: bool = True) -> None:
    """Whether the bridge port INDEX is sent frames that came from it: a machine behind it reaches itself by a
    translated address when frames pass the rules of IP. IFLA_BRPORT_MODE, Linux 2.6.32."""
    body = LINK.pack(AF_BRIDGE, 0, index, 0, 0) + nest(IFLA_PROTINFO, attribute(IFLA_BRPORT_MODE, bytes([on])))
    _run(None, request(f"set hairpin of port {index}", RTM_SETLINK, 0, body))


def set_netfilter(index: int, on: bool = True, *, via: Netlink | None = None) -> None:
    """Whether frames between the ports of the bridge INDEX pass the rules of IP too. See create_bridge."""
    data = [attribute(kind, bytes([on])) for kind in (IFLA_BR_NF_CALL_IPTABLES, IFLA_BR_NF_CALL_IP6TABLES)]
    body = LINK.pack(0, 0, index, 0, 0) + _info("bridge", *data)
    _run(via, request(f"bridge {index} netfilter", RTM_NEWLINK, 0, body))


def address_request(index: int, cidr: str) -> Request:
    """The request that gives the device INDEX the address CIDR, "10.7.0.2/24"."""
    family, data, length = split(cidr)
    parts = [ADDRESS.pack(family, length, 0, 0, index), attribute(IFA_LOCAL, data), attribute(IFA_ADDRESS, data)]
    if family == AF_INET and length < 31:
        host = (1 << 32 - length) - 1
        parts.append(attribute(IFA_BROADCAST, (int.from_bytes(data, "big") | host).to_bytes(4, "big")))
    if family == AF_INET6:  # it was given out by us: nobody else has it, and one second is long
        parts.append(u32(IFA_FLAGS, IFA_F_NODAD))
    return request(f"add address {cidr}", RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, b"".join(parts))


def route_request(index: int, destination: str, gateway: str = "", *, onlink: bool = False) -> Request:
    """The request for a route to DESTINATION (a network, or "default") through the device INDEX."""
    if destination == "default":
        family, data, length = packed(gateway)[0] if gateway else AF_INET, b"", 0
    else:
        family, data, length = split(destination)
    scope = 0 if gateway or family == AF_INET6 else RT_SCOPE_LINK
    flags = RTNH_F_ONLINK if onlink else 0
    parts = [ROUTE_HEADER.pack(family, length, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, scope, RTN_UNICAST, flags)]
    if data:
        parts.append(attribute(RTA_DST, data))
    parts.append(u32(RTA_OIF, index))
    if gateway:
        parts.append(attribute(RTA_GATEWAY, packed(gateway)[1]))
    what = f"add route {destination}" + (f" via {gateway}" if gateway else "")
    return request(what, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, b"".join(parts))


def add_address(index: int, cidr: str, *, via: Netlink | None = None) -> None:
    """The device INDEX has the address CIDR, "10.7.0.1/24" or "fd00::1/64" (without duplicate address detection)."""
    _run(via, address_request(index, cidr))


def add_route(index: int, destination: str, gateway: str = "", *, via: Netlink | None = None) -> None:
    """A route to DESTINATION (a network, an address, or "default") through the device INDEX, by GATEWAY if given."""
    _run(via, route_request(index, destination, gateway))


def configure(
    via: Netlink, index: int, addresses: Sequence[str], routes: Sequence[tuple[str, str]], *, loopback: bool = False
) -> None:
    """The device INDEX is up and has ADDRESSES, and ROUTES of (destination, gateway) go through it; in one message.
    ``loopback``: lo is brought up too. Where one fails, those before it stay: undo it with the device."""
    requests = [request(f"set link {index} up", RTM_NEWLINK, 0, _flags(index, True))]
    requests += [address_request(index, cidr) for cidr in addresses]
    requests += [route_request(index, destination, gateway) for destination, gateway in routes]
    if loopback:
        requests.append(request("set lo up", RTM_NEWLINK, 0, _flags(1, True)))
    via.run(*requests)


def namespace_socket(fd: int) -> Netlink:
    """A netlink socket in the network namespace of FD: a pidfd, or a descriptor of a namespace.

    The calling thread goes in for the moment. Needs CAP_SYS_ADMIN. setns(2), by pidfd Linux 5.8. Raises StepFailed.
    """
    from minictr.kernel.namespaces import enter

    with enter(0, "net", fd=fd):
        return Netlink(ROUTE)


# --- look ---


def index(name: str, *, via: Netlink | None = None) -> int:
    """The index of the device NAME, 0 where there is none."""
    if via is not None:
        return next((link.index for link in links(via=via) if link.name == name), 0)
    try:
        return _socket.if_nametoindex(name)
    except OSError:  # Python says no more than "no interface with this name"
        return 0


def links(*, via: Netlink | None = None) -> tuple[Link, ...]:
    """All devices, by index."""
    found = []
    for body in _dump(via, "list links", RTM_GETLINK, LINK.pack(0, 0, 0, 0, 0)):
        _, _, number, flags, _ = LINK.unpack_from(body)
        have = attributes(body, LINK.size)
        kind = attributes(have.get(IFLA_LINKINFO, b"")).get(IFLA_INFO_KIND, b"")
        name, mtu = have[IFLA_IFNAME].rstrip(b"\0"), _number(have.get(IFLA_MTU))
        found.append(
            Link(
                number,
                name.decode("utf-8", "surrogateescape"),
                flags,
                mtu,
                have.get(IFLA_ADDRESS, b"").hex(":"),
                _number(have.get(IFLA_MASTER)),
                _number(have.get(IFLA_LINK)),
                kind.rstrip(b"\0").decode("ascii", "replace"),
            )
        )
    return tuple(sorted(found, key=lambda link: link.index))


def addresses(*, via: Netlink | None = None) -> tuple[Address, ...]:
    """All addresses of all devices."""
    found = []
    for body in _dump(via, "list addresses", RTM_GETADDR, ADDRESS.pack(0, 0, 0, 0, 0)):
        family, length, _, _, number = ADDRESS.unpack_from(body)
        have = attributes(body, ADDRESS.size)
        data = have.get(IFA_LOCAL) or have.get(IFA_ADDRESS)
        if family in (AF_INET, AF_INET6) and data:
            found.append(Address(number, _socket.inet_ntop(family, data), length))
    return tuple(found)


def routes(*, via: Netlink | None = None) -> tuple[tuple[str, str, int], ...]:
    """(destination, gateway, index) of the main table's routes; the destination of a default route is "default"."""
    found = []
    header = ROUTE_HEADER.pack(0, 0, 0, 0, 0, 0, 0, 0, 0)
    for body in _dump(via, "list routes", RTM_GETROUTE, header):
        family, length, _, _, table, _, _, kind, _ = ROUTE_HEADER.unpack_from(body)
        if table != RT_TABLE_MAIN or kind != RTN_UNICAST or family not in (AF_INET, AF_INET6):
            continue
        have = attributes(body, ROUTE_HEADER.size)
        to = f"{_socket.inet_ntop(family, have[RTA_DST])}/{length}" if RTA_DST in have else "default"
        gateway = _socket.inet_ntop(family, have[RTA_GATEWAY]) if RTA_GATEWAY in have else ""
        found.append((to, gateway, _number(have.get(RTA_OIF))))
    return tuple(found)


def _dump(via: Netlink | None, what: str, kind: int, body: bytes) -> list[bytes]:
    if via is not None:
        return via.dump(what, kind, body)
    with Netlink(ROUTE) as own:
        return own.dump(what, kind, body)


def _number(data: bytes | None) -> int:
    return int(struct.unpack("=I", data)[0]) if data else 0


def probe() -> dict[str, Support]:
    """Whether veth, bridge, macvlan and ipvlan can be had: each made once in a network namespace that goes at once."""
    from minictr.kernel.network_probes import links_probe

    return links_probe()
