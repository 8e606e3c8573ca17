"""Networks by themselves, without a container: ``Bridge``, ``Netns``, ``Veth``, ``Publish``, ``Macvlan``, ``Ipvlan``.

Each is a handle: ``with`` makes it and takes it back, ``make()`` twice makes it once.

What lives in a network namespace of its own (Veth, Macvlan, Ipvlan) goes with that if this process is killed. A bridge
and its rules are written down as every network is: ``minictr gc`` takes back those of a dead process, as it does for a
published port.
"""

from __future__ import annotations

import os

from minictr.addresses import AF_INET6, network_of, spelled, split
from minictr.errors import SpecError, StepFailed
from minictr.features import network as wishes
from minictr.kernel import links
from minictr.kernel.handles import Handle, shut
from minictr.kernel.namespaces import enter, unshare
from minictr.runtime import ledger
from minictr.runtime.network import sysctls
from minictr.runtime.network.attachment import Attachment, Nic, ensure_bridge, tear_down
from minictr.runtime.network.networks import Network, Networks, must_be_admin, own_netns
from minictr.runtime.store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

    from minictr.kernel.namespaces import Inside
    from minictr.runtime.record import Record
    from minictr.steps import Feature

__all__ = ["Bridge", "Ipvlan", "Macvlan", "Netns", "Publish", "Veth"]


class Made(Handle):
    """A handle that is made by ``with`` or ``make()``, once however often it is asked."""

    def make(self) -> Self:
        """Make it, if it is not made yet. Raises StepFailed, SpecError, Unsupported."""
        if not self._open:
            self._make()
            self._open = True
        return self

    def _make(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self.make()


class Netns(Made):
    """A network namespace with nothing in it but its loopback, which is up; held by a descriptor.

    ``fd``: for links, ``path``: for others, as ``--network ns:PATH`` (while this process lives). network_namespaces(7).

    >>> with mc.Netns() as lab, lab.inside():
    ...     print(links.links())
    """

    def __init__(self) -> None:
        self.fd = -1

    def _make(self) -> None:
        with unshare("net"):
            links.set_up(1)
            self.fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    @property
    def path(self) -> str:
        return f"/proc/{os.getpid()}/fd/{self.fd}"

    def inside(self) -> Inside:
        """``with netns.inside():`` the calling thread is in it."""
        return enter(0, "net", fd=self.fd)

    def _close(self) -> None:
        shut(self.fd)
        self.fd = -1

    def __repr__(self) -> str:
        return f"<Netns {self.fd}>"


class Veth(Made):
    """A cable: ``name`` here, ``peer`` here or in ``netns`` (a :class:`Netns`, or a process id), both up.

    ``addresses`` of the end here, ``peer_addresses`` of the other, as "10.7.0.1/24"; ``gateway``: of the peer's default
    route. ``bridge``: a :class:`Bridge`, or a device's name, that the end here is a port of. ``mtu`` in bytes.
    """

    def __init__(
        self,
        name: str,
        peer: str = "eth0",
        *,
        netns: Netns | int | None = None,
        addresses: tuple[str, ...] | list[str] = (),
        peer_addresses: tuple[str, ...] | list[str] = (),
        gateway: str = "",
        bridge: Bridge | str = "",
        mac: str = "",
        mtu: int = 0,
    ) -> None:
        self.name, self.peer = wishes.device_name(name, "veth"), wishes.device_name(peer, "veth peer")
        self.netns, self.gateway, self.mac, self.mtu = netns, gateway, mac, mtu
        self.addresses, self.peer_addresses = tuple(addresses), tuple(peer_addresses)
        self.bridge = bridge if isinstance(bridge, str) else bridge.name
        for cidr in (*self.addresses, *self.peer_addresses):
            split(cidr)

    def _make(self) -> None:
        master = links.index(self.bridge) if self.bridge else 0
        if self.bridge and not master:
            raise SpecError(f"veth {self.name}: there is no bridge {self.bridge}: make it first")
        fd = _namespace(self.netns)
        try:
            links.create_veth(self.name, self.peer, netns=fd, master=master, peer_mac=self.mac, mtu=self.mtu)
            try:
                for cidr in self.addresses:
                    links.add_address(links.index(self.name), cidr)
                with links.namespace_socket(fd) if fd >= 0 else links.Netlink() as via:
                    to = [("default", self.gateway)] if self.gateway else []
                    links.configure(via, links.index(self.peer, via=via), self.peer_addresses, to)
            except BaseException:
                links.delete(self.name, missing_ok=True)
                raise
        finally:
            if fd >= 0:
                shut(fd)

    def _close(self) -> None:
        links.delete(self.name, missing_ok=True)

    def __repr__(self) -> str:
        return f"<Veth {self.name} - {self.peer}>"


def _namespace(whose: Netns | int | None) -> int:
    """A descriptor of the network namespace of WHOSE, the caller's; -1 for none."""
    if whose is None:
        return -1
    try:
        return os.dup(whose.fd) if isinstance(whose, Netns) else os.open(f"/proc/{whose}/ns/net", os.O_RDONLY)
    except OSError as err:
        raise StepFailed(f"open the network namespace of {whose}", err.errno or 0) from err


class _Upon(Made):
    """A device that shares another: what macvlan and ipvlan have in common."""

    def __init__(
        self,
        name: str,
        parent: str,
        *,
        netns: Netns | int | None = None,
        addresses: tuple[str, ...] | list[str] = (),
        gateway: str = "",
        mode: str = "",
        mac: str = "",
        mtu: int = 0,
    ) -> None:
        self.name, self.parent = wishes.device_name(name, "device"), wishes.device_name(parent, "parent")
        self.netns, self.gateway, self.mode, self.mac, self.mtu = netns, gateway, mode, mac, mtu
        self.addresses = tuple(addresses)

    def _make(self) -> None:
        parent = links.index(self.parent)
        if not parent:
            raise SpecError(f"{type(self).__name__.lower()} {self.name}: there is no device {self.parent}")
        fd = _namespace(self.netns)
        try:
            self._create(parent, fd)
            with links.namespace_socket(fd) if fd >= 0 else links.Netlink() as via:
                to = [("default", self.gateway)] if self.gateway else []
                try:
                    links.configure(via, links.index(self.name, via=via), self.addresses, to)
                except BaseException:
                    links.delete(self.name, missing_ok=True, via=via)
                    raise
        finally:
            if fd >= 0:
                shut(fd)

    def _create(self, parent: int, fd: int) -> None:
        raise NotImplementedError

    def _close(self) -> None:
        fd = _namespace(self.netns)
        try:
            with links.namespace_socket(fd) if fd >= 0 else links.Netlink() as via:
                links.delete(self.name, missing_ok=True, via=via)
        finally:
            if fd >= 0:
                shut(fd)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} on {self.parent}>"


class Macvlan(_Upon):
    """The device ``name``, with a MAC address of its own, on ``parent``; in ``netns`` if given. Linux 2.6.23.

    ``mode``: bridge (also ""), private, vepa, passthru. The host does not reach it through ``parent``."""

    def _create(self, parent: int, fd: int) -> None:
        links.create_macvlan(self.name, parent, mode=self.mode or "bridge", mac=self.mac, mtu=self.mtu, netns=fd)


class Ipvlan(_Upon):
    """The device ``name``, with the MAC address of ``parent``; in ``netns`` if given. Linux 3.19, CONFIG_IPVLAN.

    ``mode``: l2 (also ""), l3, l3s. Raises Unsupported where the kernel has none."""

    def _create(self, parent: int, fd: int) -> None:
        links.create_ipvlan(self.name, parent, mode=self.mode or "l2", mtu=self.mtu, netns=fd)


class Bridge(Made):
    """A network with a bridge called ``name``: ``address`` is the host's own in it, as "10.7.0.1/24", ``address6`` as
    "fd00:7::1/64". ``nat``: containers of :meth:`features` have a way out. Gone at the end, unless it was there before.

    Raises SpecError for one that is there with another subnet, or that overlaps what is in use.

    >>> with mc.Bridge("mc0", "10.7.0.1/24") as lan:
    ...     mc.Container(root).with_(*lan.features()).run(["ip", "address"])
    """

    def __init__(self, name: str, address: str = "", *, address6: str = "", nat: bool = True, mtu: int = 0) -> None:
        self.name = wishes.network_name(name, "bridge")
        self.nat, self.mtu, self.store = nat, mtu, Store()
        self.subnet, self.subnet6 = _network(address), _network(address6)
        self.network: Network | None = None
        self._journal: Record | None = None
        self._owner = ""

    def _make(self) -> None:
        must_be_admin("bridge")
        with Networks(self.store) as networks:
            network = networks.load(self.name)
            if network is None:
                network = networks.planned(self.name, subnet=self.subnet, subnet6=self.subnet6, mtu=self.mtu)
                networks.save(network)
                self._hold(networks, network)
            elif self.subnet not in ("", network.subnet) or network.netns != own_netns():
                raise SpecError(f"bridge {self.name}: is there, with the subnet {network.subnet}: name another")
            try:
                ensure_bridge(networks, network)
            except BaseException:
                self._let_go(networks)
                raise
        self.network = network

    def _hold(self, networks: Networks, network: Network) -> None:
        """The gateway's address is ours as long as we are there: the network goes with its last address."""
        self._journal, group = ledger.open_entry()
        self._owner = f"{self._journal.id}.{group.rpartition('-')[2]}"
        self._journal.write_ahead(("lease", network.name, network.gateway, self._owner))
        networks.take(f"{network.name}/leases/{network.gateway}", self._owner)

    def _let_go(self, networks: Networks) -> None:
        journal, self._journal = self._journal, None
        if journal is None:
            return
        network = networks.load(self.name)
        if network is not None:
            networks.release(self.name, network.gateway, self._owner)
        tear_down(networks, self.name)
        ledger.close_entry(journal)

    def features(
        self, *, ip: str = "", ip6: str = "", mac: str = "", device: str = "eth0", names: bool = True
    ) -> tuple[Feature, ...]:
        """What a container in it is given: a cable, the wall, with ``nat`` the way out, and with ``names`` the files
        that names are looked up in, for which it needs a mount namespace and a host name of its own."""
        cable = wishes.Veth(device, self.name, ip, ip6, mac)
        more: tuple[Feature, ...] = (wishes.Nat(),) if self.nat else ()
        if names:
            from minictr.features.names import HostnameFile, Hosts, Names, ResolvConf

            more += (Hosts(), ResolvConf(), HostnameFile(), Names())
        return (cable, wishes.Bridged(), wishes.Conntrack(), *more)

    def _close(self) -> None:
        """A bridge that containers are in stays until the last of them is gone."""
        if self._journal is not None:
            with Networks(self.store) as networks:
                self._let_go(networks)

    def __repr__(self) -> str:
        return f"<Bridge {self.name}{f' {self.network.subnet}' if self.network else ''}>"


def _network(address: str) -> str:
    """The subnet that ADDRESS, the first host's, is in."""
    if not address:
        return ""
    family, first, _ = network_of(address)
    if int.from_bytes(split(address)[1], "big") != first + 1:
        cure = f"the host has the first one, {spelled(family, first + 1)}/{split(address)[2]}"
        raise SpecError(f"bridge address {address}: {cure}")
    return f"{spelled(family, first)}/{split(address)[2]}"


class Publish(wishes.Publish):
    """A port of this host that leads to a container's: a feature, and by itself with ``to``, an address.

    >>> mc.Container(root).with_(*lan.features(), mc.Publish(8080, 80))
    >>> with mc.Publish(8080, 80, to="10.7.0.2", device="mc0"): ...

    ``device``: that leads to that address (for 127.0.0.1); "" where it may not be reached from there.
    """

    NAME = "publish"
    SUMMARY = wishes.Publish.SUMMARY
    MANY = True
    NEEDS = wishes.Publish.NEEDS

    to: str = ""
    device: str = ""

    def __enter__(self) -> Self:
        if not self.to:
            raise SpecError("publish: by itself it leads to an address: give it to=")
        if self not in _published:
            must_be_admin("publish")
            journal, group = ledger.open_entry()
            own = Attachment(journal, f"{journal.id}.{group.rpartition('-')[2]}", f"port {self.host}", ("publish",))
            try:
                self._publish(own, journal)
            except BaseException:
                own.close()
                ledger.close_entry(journal)
                raise
            _published[self] = own
        return self

    def _publish(self, own: Attachment, journal: Record) -> None:
        from minictr.runtime.network import ports

        family = network_of(self.to)[0]
        address, address6 = ("", self.to) if family == AF_INET6 else (self.to, "")
        own.nics.append(Nic("", "", address, 32, address6, 128, "", "", "", self.device or "lo", False, 0))
        with own.networks() as networks:
            first = self.host or ports.free_port(networks, self.protocol, self.ip)
            for place in range(self.count):
                ports.take(networks, own.owner, journal, self.protocol, self.ip, first + place)
                own.ports.append((self.protocol, self.ip, first + place, self.container + place))
            sysctls.forwarding(networks, ipv6=bool(address6))
        if self.device:
            sysctls.route_localnet(self.device)
        own.add(own.wanted("publish"))

    def __exit__(self, *_exception: object) -> None:
        own = _published.pop(self, None)
        if own is not None:
            own.close()
            ledger.close_entry(own.journal)

    @property
    def ports(self) -> tuple[int, ...]:
        """The host's ports, while it is made."""
        own = _published.get(self)
        return () if own is None else tuple(port for _, _, port, _ in own.ports)


_published: dict[Publish, Attachment] = {}
