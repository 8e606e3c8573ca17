"""Networks as somebody makes, looks at, repairs and removes them: what ``minictr network`` and ``mc.Bridge`` do."""

from __future__ import annotations

import os

from minictr.errors import MinictrError, SpecError, StateError, StepFailed, Unsupported
from minictr.kernel import links
from minictr.runtime.network import proxy, rules, sysctls
from minictr.runtime.network.attachment import Attachment, Nic, ensure_bridge, tear_down
from minictr.runtime.network.networks import Network, Networks, must_be_admin, own_netns
from minictr.runtime.record import Record
from minictr.runtime.state import State
from minictr.runtime.store import SHORT, Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

__all__ = ["create", "inspect", "listing", "remove", "repair"]


def create(
    name: str, *, subnet: str = "", subnet6: str = "", mtu: int = 0, bridge: bool = True, root: str = ""
) -> Network:
    """A network that stays, with its bridge. SUBNET as "10.7.0.0/24" ("": one that nobody here uses); SUBNET6 as
    "fd00:7::/64" ("": no IPv6). Raises SpecError for one that is there, or that overlaps what is in use."""
    from minictr.features.network import network_name

    network_name(name, "network")
    must_be_admin("bridge")
    with Networks(Store(root)) as networks:
        if networks.load(name) is not None:
            raise SpecError(f"network {name} is there already: minictr network rm {name} removes it")
        network = networks.planned(name, bridge=bridge, subnet=subnet, subnet6=subnet6, mtu=mtu, kept=True)
        networks.save(network)
        try:
            if bridge:
                ensure_bridge(networks, network)
        except BaseException:
            networks.forget(name)
            raise
    return network


def existing(networks: Networks, name: str) -> Network:
    """The network NAME. SpecError where there is none."""
    network = networks.load(name) if "/" not in name else None
    if network is None:
        known = ", ".join(networks.names()) or "there are none"
        raise SpecError(f"no network {name}: {known} (below {networks.path})")
    return network


def remove(name: str, *, root: str = "") -> None:
    """The network NAME goes, with its bridge. Raises SpecError while a container is in it."""
    with Networks(Store(root)) as networks:
        network = existing(networks, name)
        users = sorted({owner[:SHORT] for owner in networks.living(name).values()})
        if users:
            raise SpecError(f"network {name}: containers are in it ({', '.join(users[:4])}): end them first")
        if network.netns != own_netns() and os.path.isdir(f"{networks.path}/{name}"):
            networks.forget(name)  # its bridge is, or was, in another network namespace
            return
        networks.save(network.replace(kept=False))
        tear_down(networks, name)


def listing(root: str = "") -> list[dict[str, Any]]:
    """Every network: Name, Driver ("bridge", "routed"), Subnet, Gateway, Subnet6, Gateway6, Mtu, Kept, Up (whether its
    bridge is there), Containers (how many addresses are leased)."""
    found = []
    with Networks(Store(root)) as networks:
        for name in networks.names():
            network = networks.load(name)
            if network is not None:
                leases = networks.leases(name)
                leases.pop(network.gateway, "")  # a Bridge of Python's: no container
                found.append(_plain(network, len(set(leases.values()))))
    return found


def _plain(network: Network, containers: int) -> dict[str, Any]:
    here = network.netns == own_netns()
    return {
        "Name": network.name,
        "Driver": "bridge" if network.bridge else "routed",
        "Subnet": network.subnet,
        "Gateway": network.gateway,
        "Subnet6": network.subnet6,
        "Gateway6": network.gateway6,
        "Mtu": network.mtu,
        "Kept": network.kept,
        "Up": here and (not network.bridge or bool(links.index(network.name))),
        "Containers": containers,
    }


def inspect(name: str, root: str = "") -> dict[str, Any]:
    """All that is known of the network NAME: :func:`listing`'s, Containers as address -> owner, Names as address ->
    what its neighbours call it, its Device and Ports as the kernel has them (``kernel.iproute``), the Table its rules
    are in, and what is InTheWay."""
    from minictr.kernel.iproute import interfaces
    from minictr.runtime.network.names import names_of

    with Networks(Store(root)) as networks:
        network = existing(networks, name)
        found = _plain(network, 0) | {"Containers": dict(sorted(networks.leases(name).items()))}
        found["Names"] = {at: words for at, (_, *words) in names_of(networks, name).items()}
        table = rules.table(networks.store)
    devices = interfaces()
    found["Device"] = next((row for row in devices if row["name"] == name and network.bridge), None)
    found["Ports"] = [row for row in devices if row["master"] == name] if network.bridge else []
    found["Table"] = f"inet {table}"
    found["InTheWay"] = obstacles()
    return found


def obstacles() -> list[str]:
    """What keeps packets from being forwarded; no nft, or no right to ask it, is not that."""
    found = []
    try:
        with open("/proc/sys/net/ipv4/ip_forward", encoding="ascii") as file:
            if file.read().strip() != "1":
                found.append("net.ipv4.ip_forward is 0: set with the first container that has nat or publishes a port")
        found += crowded(*map(_number, ("nf_conntrack_count", "nf_conntrack_max")))
        found += rules.in_the_way()
    except (Unsupported, StepFailed, OSError):
        pass
    return found


def _number(name: str) -> int:
    """A setting of connection tracking; 0 in a kernel without."""
    try:
        with open(f"/proc/sys/net/netfilter/{name}", encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return 0


def crowded(count: int, most: int) -> list[str]:
    """A line when of MOST connections that can be tracked nine in ten are: the kernel drops what begins beyond that."""
    if count * 10 < most * 9 or not most:
        return []
    cure = f"sysctl -w net.netfilter.nf_conntrack_max={most * 2}, on the host"
    return [f"{count} connections are tracked, of {most}: what begins beyond that is dropped: {cure}"]


# --- repair ---


def repair(root: str = "") -> list[str]:
    """What somebody else removed is there again: bridges, their addresses and ports, chains and elements of the table,
    settings of the host. A line for each thing that was repaired, or cannot be.

    The containers are those that are written down: what one process runs for itself (``Container.run``) is not.
    """
    store, told = Store(root), []
    with Networks(store) as networks:
        for name in networks.names():
            network = networks.load(name)
            if network is not None and network.bridge and network.netns == own_netns() and not links.index(name):
                ensure_bridge(networks, network)
                told.append(f"bridge {name}: made again")
        for record, state in _running(store):
            with record:
                told += _restore(networks, record, state)
    return told


def _running(store: Store) -> Iterator[tuple[Record, State]]:
    """The containers with a network that run."""
    for identity in store.ids():
        try:
            record = Record.at(store, identity)
            state = State.of(record)
        except (StateError, MinictrError):
            continue  # damaged, or gone this moment: ps tells of it
        if state.nics and state.process.alive:
            yield record, state
        else:
            record.close()


def _restore(networks: Networks, record: Record, state: State) -> list[str]:
    """One container's ports of bridges and elements of the table."""
    from minictr.features.egress import Egress

    names = state.spec.names
    parts = tuple(part for part in rules.PARTS if part in names)
    own = Attachment(record, record.id, state.name or record.id[:SHORT], parts)
    own.nics, own.ports = [nic for row in state.nics if (nic := _nic(networks, row))], list(state.ports)
    told = []
    masters = {link.name: link.master for link in links.links()}
    for nic in own.nics:
        if nic.link not in masters:
            told.append(f"container {state.name or record.id[:SHORT]}: its cable {nic.link} is gone: start it again")
            continue
        master = links.index(nic.network) if nic.bridge else 0
        if masters[nic.link] != master:
            links.set_master(links.index(nic.link), master)
            told.append(f"container {state.name or record.id[:SHORT]}: {nic.link} is a port of {nic.network} again")
    if "bridge_netfilter" in names:
        for name in {nic.network for nic in own.nics if nic.bridge}:
            links.set_netfilter(links.index(name))
    if parts and own.nics:
        if {"nat", "publish"} & set(parts):
            sysctls.forwarding(networks, ipv6=any(nic.address6 for nic in own.nics))
        own.proxied = "publish_proxy" in names
        if own.proxied and proxy.restart(own, state.process):
            told.append(f"container {state.name or record.id[:SHORT]}: its proxy runs again")
        if "publish" in parts:
            if not own.proxied:
                sysctls.route_localnet(own.nics[0].outside)
            if own.nics[0].bridge:
                links.set_hairpin(links.index(own.nics[0].link))
        rules.apply_parts(own.table, parts)
        if "egress" in parts:
            own.egress = next(wish for wish in state.spec.features if isinstance(wish, Egress))
            if any(nic.bridge for nic in own.nics):
                rules.apply_parts(rules.of_bridges(own.table), parts)
            own.limit()
        for part in parts:
            if part != "egress":
                rules.put(own.table, parts, own.wanted(part))
        told.append(f"container {state.name or record.id[:SHORT]}: rules ({', '.join(parts)})")
    return told


def _nic(networks: Networks, row: tuple[str, ...]) -> Nic | None:
    """The device that a state's ROW tells of; None where its network is gone."""
    name, inside, address, address6, gateway, mac, link = row
    network = networks.load(name)
    if network is None or network.netns != own_netns():
        return None
    (ip, _, length), (ip6, _, length6) = (text.partition("/") for text in (address, address6))
    numbers = int(length or 0), int(length6 or 0)
    return Nic(
        name, inside, ip, numbers[0], ip6, numbers[1], gateway, network.gateway6, mac, link, network.bridge, network.mtu
    )
