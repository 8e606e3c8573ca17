"""One container's part in networks: its cables, addresses, ports and elements of the table; and how all of it goes."""

from __future__ import annotations

import os
import time

from minictr.addresses import packed
from minictr.errors import MinictrError
from minictr.kernel import links, nftables
from minictr.kernel.nftables import Element
from minictr.runtime.network import egress, proxy, rules, sysctls
from minictr.runtime.network.networks import NOT_NETWORKS, Networks, host_end, own_netns
from minictr.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minictr.features.egress import Egress
    from minictr.runtime.identity import ProcessIdentity
    from minictr.runtime.network.networks import Network
    from minictr.runtime.record import Record
    from minictr.runtime.store import Store

__all__ = ["Attachment", "Nic", "ensure_bridge", "release", "tear_down"]

MAC_BEGIN = "02:42"  # locally administered, and the container's IPv4 address after it, as docker's


class Nic(Value):
    """One device of a container. ``link``: the host's end. ``address``, ``address6``: "" where it has none."""

    network: str
    inside: str
    address: str
    prefix: int
    address6: str
    prefix6: int
    gateway: str
    gateway6: str
    mac: str
    link: str
    bridge: bool
    mtu: int

    @property
    def addresses(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.address, self.address6)))

    @property
    def outside(self) -> str:
        """The device that the host reaches it by: its bridge, or its own cable."""
        return self.network if self.bridge else self.link


class Attachment:
    """What OWNER has of networks; written into JOURNAL before it is had. WHOSE: words for comments.
    PARTS: what it needs of the table."""

    def __init__(self, journal: Record, owner: str, whose: str, parts: tuple[str, ...]) -> None:
        self.store, self.journal, self.owner, self.whose = journal.store, journal, owner, f"minictr {whose}"
        self.parts = parts
        self.table = rules.table(self.store)
        self.nics: list[Nic] = []  # cables
        self.upon: list[Nic] = []  # devices on one of the host's
        self.order: list[str] = []  # names of all, as they were wished for
        self.default = ""  # the first that leads anywhere: it has the default route
        self.ports: list[tuple[str, str, int, int]] = []  # protocol, address, port here, port there
        self.egress: Egress | None = None  # what it may reach
        self.proxied = False  # a proxy serves its ports too
        self.proxy: ProcessIdentity | None = None
        self.elements: list[tuple[str, Element]] = []  # by table
        self.leased: list[tuple[str, str]] = []  # network, address
        self.netns = own_netns()
        self.waited = 0.0  # seconds, for the lock

    def networks(self) -> Networks:
        """The lock. That others had it is no time of this start's."""
        begin = time.monotonic()
        networks = Networks(self.store)
        self.waited += time.monotonic() - begin
        return networks

    def join(
        self, name: str, inside: str, *, bridge: bool, ip: str = "", ip6: str = "", mac: str = "", mtu: int = 0
    ) -> None:
        """An address of the network NAME, for the device INSIDE. Nothing of the kernel's is touched yet."""
        with self.networks() as networks:
            try:
                network = networks.ensure(name, bridge=bridge)
                host, address, address6 = networks.lease(network, self.owner, self.journal, ip, ip6)
            except BaseException:
                self.give_up(networks, name)
                raise
            self.leased += ((name, one) for one in (address, address6) if one)
        self.nics.append(
            Nic(
                name,
                inside,
                address,
                network.prefix if bridge else 32,
                address6,
                (network.prefix6 if bridge else 128) if address6 else 0,
                network.gateway,
                network.gateway6,
                mac or f"{MAC_BEGIN}:{packed(address)[1].hex(':')}",
                host_end(self.store, name, host),
                bridge,
                mtu or network.mtu,
            )
        )
        self.added(inside, routes=True)

    def give_up(self, networks: Networks, name: str) -> None:
        """What it has leased of the network NAME, and that network too if nobody else is in it."""
        for one in networks.leases(name):
            networks.release(name, one, self.owner)
        tear_down(networks, name)

    def added(self, inside: str, *, routes: bool) -> None:
        """The device INSIDE is one of its; ROUTES: there is a way out by it."""
        self.order.append(inside)
        if routes and not self.default:
            self.default = inside

    def rows(self) -> tuple[tuple[str, ...], ...]:
        """The devices as a state has them."""
        return tuple(
            (
                nic.network,
                nic.inside,
                f"{nic.address}/{nic.prefix}" if nic.address else "",
                f"{nic.address6}/{nic.prefix6}" if nic.address6 else "",
                nic.gateway,
                nic.mac,
                nic.link,
            )
            for nic in sorted((*self.nics, *self.upon), key=lambda nic: self.order.index(nic.inside))
        )

    def wanted(self, part: str) -> list[Element]:
        """The elements that PART of the table has for this container."""
        whose = self.whose
        if part == "publish":
            nic = self.nics[0]
            found = [rules.device(nic.outside, whose), *rules.address_elements("publishers", nic.addresses, whose)]
            found += (
                rules.port_element(protocol, ip, port, to, to_port, whose)
                for to in nic.addresses
                for protocol, ip, port, to_port in self.ports
                if not ip or (":" in ip) == (":" in to)
            )
            if self.proxied:
                found += (
                    rules.proxied_element(protocol, ip, port, whose)
                    for protocol, ip, port, _ in self.ports
                    if not ip or ip.startswith("127.")
                )
            return sorted(found, key=lambda item: item.set)
        if part == "nat":
            found = [rules.device(nic.outside, whose) for nic in self.nics]
        else:
            found = [rules.neighbours(nic.network, whose) for nic in self.nics if nic.bridge]
        kind = "nat" if part == "nat" else "tracked"
        return found + [item for nic in self.nics for item in rules.address_elements(kind, nic.addresses, whose)]

    def add(self, elements: list[Element], table: str = "") -> None:
        """ELEMENTS into the table, or TABLE; those that are this container's alone are its own."""
        table = table or self.table
        shared = frozenset({"inside", "neighbours"})
        own = [item for item in elements if item.set not in shared or not self._of_bridge(item)]
        self.journal.write_ahead(*(("element", self.netns, table, item.set, _written(item)) for item in own))
        self.elements += ((table, item) for item in own)
        rules.put(table, self.parts, elements)

    def limit(self) -> None:
        """What the wish ``egress`` says is in force; cables are bound to their addresses first."""
        for table, bridge in ((rules.of_bridges(self.table), True), (self.table, False)):
            nics = [nic for nic in self.nics if nic.bridge is bridge]
            if nics:
                self.add(egress.own_addresses(nics, self.whose), table)
        if self.egress is not None:
            addresses = [address for nic in self.nics for address in nic.addresses]
            self.add(egress.limits(self.egress, addresses, self.whose))

    def _of_bridge(self, item: Element) -> bool:
        return item.key.rstrip(b"\0").split(b"\0")[0].decode() in {nic.network for nic in self.nics if nic.bridge}

    def close(self) -> None:
        """All of it goes; the cables with the container's network namespace. A second call does what is left to do."""
        if self.proxy is not None:
            proxy.end(self.proxy)
            self.proxy = None
        for table in dict.fromkeys(table for table, _ in self.elements):
            nftables.remove_elements(table, [item for other, item in self.elements if other == table])
        self.elements.clear()
        if not self.leased and not self.ports:
            return
        with self.networks() as networks:
            for protocol, ip, port, _ in self.ports:
                networks.drop(f"ports/{protocol}:{ip or '*'}:{port}", self.owner)
            for name, address in self.leased:
                networks.release(name, address, self.owner)
            self.ports.clear()
            tear_down(networks, *dict.fromkeys(name for name, _ in self.leased))
            self.leased.clear()


def _written(item: Element) -> str:
    """The key of ITEM in a journal."""
    return f"{item.key.hex()}-{item.end.hex()}" if item.end else item.key.hex()


def ensure_bridge(networks: Networks, network: Network) -> None:
    """The bridge of NETWORK, with the host's addresses, made if it is not there."""
    if links.index(network.name):
        return
    mac = f"{MAC_BEGIN}:{packed(network.gateway)[1].hex(':')}"  # its own, or it changes with its ports'
    links.create_bridge(network.name, mac=mac, mtu=network.mtu)
    index = links.index(network.name)
    try:
        links.add_address(index, f"{network.gateway}/{network.prefix}")
        if network.subnet6:
            links.add_address(index, f"{network.gateway6}/{network.prefix6}")
    except BaseException:
        links.delete(network.name, missing_ok=True)
        raise


def tear_down(networks: Networks, *names: str) -> None:
    """What the networks NAMES have of the kernel, if nobody is in them and they are not kept; and what all have when no
    container is in any: the table, and what was changed of the host's settings."""
    for name in names:
        try:
            network = networks.load(name)
        except MinictrError:
            continue  # damaged: network rm says so
        if name in NOT_NETWORKS or networks.leases(name):
            continue
        if network is None:
            networks.forget(name)  # the rest of one that was being forgotten
            continue
        if network.netns != own_netns() or network.kept:
            continue
        if network.bridge:
            links.delete(name, missing_ok=True)  # not looked for first: that it is not there may be a failure
            shared = [rules.device(name, ""), rules.neighbours(name, "")]
            nftables.remove_elements(rules.table(networks.store), shared)
        networks.forget(name)
    if not networks.in_use():
        name = rules.table(networks.store)
        for table in (name, rules.of_bridges(name)):
            nftables.delete_table(table)
        sysctls.put_back(networks)


def settle(store: Store) -> None:
    """Networks that nobody is in, left by one who was killed amid their end, go."""
    if os.path.isdir(os.path.join(store.path, "network")):
        with Networks(store) as networks:
            tear_down(networks, *networks.names())


# --- after a death: rows of a journal, taken back by runtime/reclaim.py ---


def release(record: Record, rows: list[tuple[str, ...]]) -> list[str]:
    """What ROWS of RECORD's journal announce goes, and with the last container what all of them share: a line for each
    thing there was.

    Devices and elements are the kernel's of one network namespace: where that is not ours, they are gone with it, or
    are left to who sweeps there.
    """
    told, here = [], str(own_netns())
    tables: dict[str, list[Element]] = {}
    for kind, *words in rows:
        if kind == "proxy" and proxy.end(proxy.identity(words)):
            told.append(f"process {words[0]}")
        if kind == "element" and words[0] == here:
            key, _, end = words[3].partition("-")
            found = Element(words[2], bytes.fromhex(key), end=bytes.fromhex(end))
            tables.setdefault(words[1], []).append(found)
        if kind == "link" and words[0] == here and links.index(words[1]):
            links.delete(words[1], missing_ok=True)
            told.append(f"link {words[1]}")
    for table, elements in tables.items():
        nftables.remove_elements(table, elements)
    if not os.path.isdir(os.path.join(record.store.path, "network")):
        return told
    names: dict[str, None] = {}
    with Networks(record.store) as networks:
        for kind, *words in rows:
            if kind == "port" and networks.drop(f"ports/{words[0]}", words[1]):
                told.append(f"port {words[0]}")
            if kind == "lease":
                names[words[0]] = None
                if networks.release(*words):
                    told.append(f"address {words[1]} of network {words[0]}")
        tear_down(networks, *names)
    return told
