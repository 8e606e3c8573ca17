"""The steps of a start that are about macvlan and ipvlan; see :mod:`minictr.runtime.network.hands`.

Addresses of a subnet are leased below ROOT/network as those of a bridge are: a network called after the parent, which
has no bridge, no rules and no part in the host's routes. The device goes with the container's network namespace.
"""

from __future__ import annotations

from binascii import crc32

from minictr.errors import SpecError, StepFailed
from minictr.kernel import links
from minictr.kernel.handles import shut
from minictr.runtime.network.attachment import Nic
from minictr.runtime.network.child import namespace_of
from minictr.runtime.network.hands import after_sweep, attachment
from minictr.runtime.network.networks import IFNAMSIZ, Network, own_netns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minictr.runtime.launch import Start
    from minictr.runtime.network.attachment import Attachment

__all__ = ["lease_upon", "upon"]

EBUSY = 16


def network_of_parent(parent: str) -> str:
    """The name of the network that leases on PARENT are of: "on-eth0"."""
    name = f"on-{parent}"
    return name if len(name) < IFNAMSIZ else f"on-{crc32(parent.encode()):08x}"


def lease_upon(
    start: Start,
    *,
    parent: str,
    inside: str,
    ip: str,
    ip6: str,
    subnets: tuple[str, str],
    gateways: tuple[str, str],
    mac: str,
    mtu: int,
    routing: bool,
) -> None:
    """The addresses of the device INSIDE, leased where SUBNETS are given. The device PARENT must be there.
    ROUTING: it is the router itself."""
    own = attachment(start)
    if not links.index(parent):
        some = ", ".join(link.name for link in links.links() if link.name != "lo")
        raise SpecError(f"--network on {parent}: there is no device {parent} here: there are {some or 'none but lo'}")
    name = network_of_parent(parent)
    found = [ip, ip6]
    if subnets[0]:
        found = after_sweep(own, lambda: _leased(own, name, subnets, gateways, ip, ip6))
    (address, _, length), (address6, _, length6) = (text.partition("/") for text in found)
    numbers = int(length or 0), int(length6 or 0)
    own.upon.append(
        Nic(name, inside, address, numbers[0], address6, numbers[1], *gateways, mac, "", False, mtu),
    )
    own.added(inside, routes=bool(any(gateways) or (routing and address)))


def _leased(
    own: Attachment, name: str, subnets: tuple[str, str], gateways: tuple[str, str], ip: str, ip6: str
) -> list[str]:
    """ "ADDRESS/LENGTH" of both kinds; "" for none."""
    lengths = [subnet.partition("/")[2] for subnet in subnets]
    with own.networks() as networks:
        network = networks.load(name)
        wanted = Network(name, subnets[0], gateways[0], False, subnets[1], gateways[1], netns=own_netns())
        if network is not None and (network.subnet, network.netns) != (wanted.subnet, wanted.netns):
            raise SpecError(
                f"--network: containers on that device have addresses of {network.subnet}: name that subnet"
            )
        networks.save(wanted)
        leasing = ip6.partition("/")[0] if subnets[1] else ""
        try:
            _, address, address6 = networks.lease(wanted, own.owner, own.journal, ip.partition("/")[0], leasing)
        except BaseException:
            own.give_up(networks, name)
            raise
    own.leased += ((name, one) for one in (address, address6) if one)
    return [f"{address}/{lengths[0]}", f"{address6}/{lengths[1]}" if address6 else ip6]


def upon(start: Start, *, kind: str, parent: str, inside: str, mode: str) -> None:
    """The device, made in the container's network, with addresses and, if it is the first, the default route."""
    own = attachment(start)
    nic = next(nic for nic in own.upon if nic.inside == inside)
    netns = namespace_of(start)
    try:
        _create(kind, nic, parent, mode, netns)
        addresses = [f"{nic.address}/{nic.prefix}"] if nic.address else []
        addresses += [f"{nic.address6}/{nic.prefix6}"] if nic.address6 else []
        with links.namespace_socket(netns) as via:
            index = links.index(inside, via=via)
            links.configure(via, index, addresses, _routes(nic, mode) if own.default == inside else [])
    finally:
        shut(netns)


def _create(kind: str, nic: Nic, parent: str, mode: str, netns: int) -> None:
    index = links.index(parent)
    try:
        if kind == "macvlan":
            links.create_macvlan(nic.inside, index, mode=mode, mac=nic.mac, mtu=nic.mtu, netns=netns)
        else:
            links.create_ipvlan(nic.inside, index, mode=mode, mtu=nic.mtu, netns=netns)
    except StepFailed as err:
        if err.errno != EBUSY:
            raise
        cure = f"{parent} is a port of a bridge, or the parent of another kind or of a passthru: choose another"
        raise StepFailed(f"make {kind} {nic.inside} on {parent}", EBUSY, cure=cure) from err


def _routes(nic: Nic, mode: str) -> list[tuple[str, str]]:
    """(destination, gateway); in the l3 modes the parent is the router, whatever the gateway."""
    if mode in ("l3", "l3s") and nic.address:
        return [("default", "")]
    pairs = ((nic.gateway, nic.address), (nic.gateway6, nic.address6))
    return [("default", gateway) for gateway, address in pairs if gateway and address]
