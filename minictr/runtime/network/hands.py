"""The steps of a start that are about networks; see :mod:`minictr.runtime.hands`. Each takes the start first.

PREPARE chooses and writes down (address, ports), and makes what containers share (bridge, forwarding); ATTACH, while
the child waits at the barrier, makes what is the container's own, in its network namespace from outside.
"""

from __future__ import annotations

from minictr.errors import MinictrError, SpecError, StepFailed
from minictr.kernel import links
from minictr.kernel.handles import shut
from minictr.runtime.network import ports, rules, sysctls
from minictr.runtime.network.attachment import Attachment, Nic, ensure_bridge
from minictr.runtime.network.child import namespace_of
from minictr.runtime.network.networks import Exhausted, must_be_admin
from minictr.runtime.process import is_over

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from minictr.runtime.launch import Start

    T = TypeVar("T")

ENODEV = 19


def attachment(start: Start) -> Attachment:
    """What the start has of networks so far."""
    if start.network is None:
        must_be_admin("veth")
        assert start.journal is not None
        name = start.program.plan.spec.name
        owner = start.journal.id + ("" if start.record is not None else f".{start.group.rpartition('-')[2]}")
        parts = tuple(part for part in rules.PARTS if part in start.program.plan.spec.names)
        start.network = Attachment(start.journal, owner, name or owner[:12], parts)
        start.on_failure.push(start.network.close)
    assert isinstance(start.network, Attachment)
    return start.network


def lease(start: Start, *, network: str, bridge: bool, inside: str, ip: str, ip6: str, mac: str, mtu: int) -> None:
    """An address of NETWORK. Addresses of dead owners are looked for when there is none left."""
    own = attachment(start)
    after_sweep(own, lambda: own.join(network, inside, bridge=bridge, ip=ip, ip6=ip6, mac=mac, mtu=mtu))


def after_sweep(own: Attachment, lease: Callable[[], T]) -> T:
    """What LEASE gives; where there is no address, once more when those of dead owners are back."""
    try:
        return lease()
    except (Exhausted, SpecError):
        from minictr.runtime.sweep import sweep

        sweep(own.store)
        return lease()


def bridge(start: Start, *, network: str) -> None:
    """The bridge of NETWORK, made if need be."""
    with attachment(start).networks() as networks:
        ensure_bridge(networks, networks.ensure(network))


def bridge_netfilter(start: Start, *, network: str) -> None:
    """Frames between the ports of NETWORK's bridge pass the rules of IP."""
    with attachment(start).networks():
        links.set_netfilter(links.index(network))


def forwarding(start: Start) -> None:
    """This host passes packets on."""
    own = attachment(start)
    with own.networks() as networks:
        sysctls.forwarding(networks, ipv6=any(nic.address6 for nic in own.nics))


def port(start: Start, *, protocol: str, ip: str, host: int, container: int, count: int) -> None:
    """COUNT ports of this host from HOST on are this container's; with 0 one that is free."""
    own = attachment(start)
    if ":" in ip and not own.nics[0].address6:
        cure = "give the network one: minictr network create --subnet FD00::/64"
        raise SpecError(f"--publish [{ip}]:{host}: the container has no IPv6 address: {cure}")
    with own.networks() as networks:
        first = host or ports.free_port(networks, protocol, ip)
        for place in range(count):
            ports.take(networks, own.owner, own.journal, protocol, ip, first + place)
            own.ports.append((protocol, ip, first + place, container + place))


def veth(start: Start, *, inside: str) -> None:
    """The cable: one end here, the other, with addresses and routes, in the container."""
    own = attachment(start)
    nic = next(nic for nic in own.nics if nic.inside == inside)
    netns = namespace_of(start)
    try:
        own.journal.write_ahead(("link", own.netns, nic.link))
        master = links.index(nic.network) if nic.bridge else 0
        if nic.bridge and not master:
            raise StepFailed(f"find the bridge {nic.network}", ENODEV, cure="somebody removed it: try again")
        start.on_failure.push(_remove_link, nic.link)
        links.create_veth(nic.link, inside, netns=netns, master=master, peer_mac=nic.mac, mtu=nic.mtu)
        if not nic.bridge:
            _route_to(nic)
        with links.namespace_socket(netns) as via:
            index = links.index(inside, via=via)
            addresses = [f"{nic.address}/{nic.prefix}"]
            addresses += [f"{nic.address6}/{nic.prefix6}"] if nic.address6 else []
            links.configure(via, index, addresses, _routes(nic, first=own.default == inside))
    finally:
        shut(netns)


def _routes(nic: Nic, *, first: bool) -> list[tuple[str, str]]:
    """(destination, gateway) of what is reached through NIC; with FIRST everything."""
    found = []
    for gateway, length in ((nic.gateway, 32), (nic.gateway6 if nic.address6 else "", 128)):
        if gateway and not nic.bridge:
            found.append((f"{gateway}/{length}", ""))
        if gateway and first:
            found.append(("default", gateway))
    return found


def _route_to(nic: Nic) -> None:
    """The host's end of a cable without a bridge: the gateway's address, and the way to the container's."""
    index = links.index(nic.link)
    for gateway, address, length in ((nic.gateway, nic.address, 32), (nic.gateway6, nic.address6, 128)):
        if address:
            links.add_address(index, f"{gateway}/{length}")
            links.add_route(index, f"{address}/{length}")


def _remove_link(name: str) -> None:
    links.delete(name, missing_ok=True)


def egress(start: Start, *, allow: tuple[str, ...], deny: tuple[str, ...]) -> None:
    """What the container begins must be allowed; its program does not run yet."""
    from minictr.features.egress import Egress

    own = attachment(start)
    own.egress = Egress(allow, deny)
    own.limit()


def nat(start: Start) -> None:
    """What leaves the container for elsewhere gets the host's address."""
    own = attachment(start)
    own.add(own.wanted("nat"))


def conntrack(start: Start) -> None:
    """To the container comes only what answers, was published, or is of its own bridge."""
    own = attachment(start)
    own.add(own.wanted("conntrack"))


def publish(start: Start) -> None:
    """What comes for the ports goes to the container."""
    own = attachment(start)
    nic = own.nics[0]
    if not own.proxied:
        sysctls.route_localnet(nic.outside)
    if nic.bridge:
        links.set_hairpin(links.index(nic.link))
    own.add(own.wanted("publish"))


def publish_proxy(start: Start, *, only: bool) -> None:
    """A process that binds the ports; it ends when the container's first process does."""
    from minictr.runtime.network import proxy

    own = attachment(start)
    own.proxied = True
    try:
        own.proxy, report = proxy.start(own, start.pidfd)
    except MinictrError:
        if is_over(start.pidfd, 0):
            start.await_exec()  # raises what the child died of; and so the proxy was
        raise
    start.own("proxy", report)


def proxy_bound(start: Start) -> None:
    """It has them, and no right any more."""
    from minictr.runtime.network import proxy

    proxy.until_bound(attachment(start), start.fds["proxy"], start.remaining())
