"""What is written down of networks: their configuration, and who has which address.

::

    ROOT/network/             its flock is taken for every change: short, and by one process at a time
        NAME/config           what the network is; written before its bridge is made
        NAME/leases/ADDRESS   symbolic link to the owner: making it is what takes the address
        NAME/names, hosts     who is called what, and who is told (names.py)
        NAME/next             the host number that is tried first: an address is not given out again at once
        ports/PROTO:IP:PORT   symbolic link to the owner (ports.py)
        sysctls/KEY           symbolic link to the value that KEY had before us (sysctls.py)

An owner is a container's id, or the id of a ledger with a number: it is gone when that directory is. A lease is
announced in the owner's journal first, so a sweep takes back what a killed one had.
"""

from __future__ import annotations

import fcntl
import os
import time
from binascii import crc32

from minictr.addresses import AF_INET, AF_INET6, network_of, number, spelled, split
from minictr.errors import MinictrError, SpecError, StateError, StepFailed, Unsupported
from minictr.jsontext import dumps, loads
from minictr.kernel import links
from minictr.kernel.handles import Handle, shut
from minictr.runtime.store import ID_DIGITS, SHORT, Store, read_text, replace_text, unlink
from minictr.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minictr.runtime.record import Record

__all__ = ["DEFAULT", "ROUTED", "Exhausted", "Network", "Networks", "host_end"]

DEFAULT, ROUTED = "minictr0", "routed"  # names of the networks nobody named: with a bridge, and without
POOL = "10.90.{}.0/24"  # where subnets are taken from that nobody named
IFNAMSIZ = 16  # linux/if.h, the closing NUL included
LOCK_TIMEOUT = 60.0  # seconds: a hundred may start at once, and each has it for some milliseconds
PAUSE, PAUSES = 0.0005, 0.02  # seconds between two tries, at first and at most
EAGAIN, EEXIST, ENOENT, EINVAL = 11, 17, 2, 22
CONFIG_MAX = 1 << 16
NOT_NETWORKS = frozenset({"ports", "sysctls", "users"})


class Exhausted(MinictrError):
    """A network has no address left."""


class Network(Value):
    """A network: ``name``, that of its bridge too, or with ``bridge`` false of none: containers are routed then.

    ``subnet``, ``subnet6``: "10.90.0.0/24", "" for no IPv6; ``gateway``, ``gateway6``: the host's own address in it.
    ``mtu`` in bytes, 0 for the kernel's. ``kept``: it stays when no container is in it any more. ``netns``: the inode
    of the network namespace that it is in.
    """

    name: str
    subnet: str
    gateway: str
    bridge: bool = True
    subnet6: str = ""
    gateway6: str = ""
    mtu: int = 0
    kept: bool = False
    netns: int = 0

    @property
    def prefix(self) -> int:
        return split(self.subnet)[2]

    @property
    def prefix6(self) -> int:
        return split(self.subnet6)[2]

    def address(self, host: int) -> str:
        """The IPv4 address of the host number HOST."""
        return spelled(AF_INET, network_of(self.subnet)[1] + host)

    def address6(self, host: int) -> str:
        """The IPv6 address of the same number; "" in a network without."""
        return spelled(AF_INET6, network_of(self.subnet6)[1] + host) if self.subnet6 else ""

    def host(self, address: str) -> int:
        """The host number of ADDRESS. Raises SpecError for one that is not in the subnet, or is no host's."""
        _, first, last = network_of(self.subnet)
        value = number(address)
        if ":" in address or not first < value < last:
            raise SpecError(f"--ip {address}: not a host's address in {self.subnet} of network {self.name}")
        if address == self.gateway:
            raise SpecError(f"--ip {address}: is the gateway of network {self.name}")
        return value - first

    @property
    def hosts(self) -> int:
        """How many host numbers there are, the last of them being a broadcast address."""
        _, first, last = network_of(self.subnet)
        return last - first


def valid_name(name: str) -> str:
    """NAME if it can be a network's. SpecError otherwise."""
    plain = name.replace("-", "").replace("_", "").replace(".", "")
    if not (plain.isascii() and plain.isalnum() and name[0].isalnum() and len(name) < IFNAMSIZ):
        raise SpecError(f"network {name!r}: 1 to 15 letters, digits, '-', '_', '.', beginning with one of the first")
    if name in NOT_NETWORKS:
        raise SpecError(f"network {name!r}: that word means something else: choose another")
    return name


def must_be_admin(feature: str) -> None:
    """Raise Unsupported for an ordinary user: said before anything is made, the kernel would say EPERM amid it."""
    if os.geteuid() == 0:
        return
    from minictr.kernel import capabilities

    if "NET_ADMIN" not in capabilities.get().effective:
        reason = "a link between two networks needs CAP_NET_ADMIN over both"
        raise Unsupported(feature, reason, "use --network pasta, which needs none, or be root")


def own_netns() -> int:
    """The network namespace of the calling thread, by its inode."""
    return os.stat("/proc/thread-self/ns/net").st_ino


def host_end(store: Store, network: str, host: int) -> str:
    """The name of the host's end of a container's cable: one name for one address, so that the kernel itself refuses to
    have two of them."""
    return f"mc{crc32(f'{store.path} {network}'.encode()) & 0xFFFF:04x}-{host:x}"


class Networks(Handle):
    """The networks of one state directory; ``with Networks(store) as networks:`` holds the lock.

    Raises StateError when it cannot be had.
    """

    def __init__(self, store: Store) -> None:
        self.store, self.path = store, os.path.join(store.path, "network")
        store.ensure()
        try:
            for path in (self.path, f"{self.path}/ports", f"{self.path}/sysctls"):
                try:
                    os.mkdir(path, 0o700)
                except FileExistsError:
                    pass
            self.fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as err:
            raise StateError(f"make {self.path}: {os.strerror(err.errno or 0)}") from err
        self._open = True
        deadline, pause = time.monotonic() + LOCK_TIMEOUT, PAUSE
        while True:
            try:
                fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except OSError as err:
                if err.errno != EAGAIN or time.monotonic() >= deadline:
                    self.close()
                    why = "another process holds it" if err.errno == EAGAIN else os.strerror(err.errno or 0)
                    raise StateError(f"lock {self.path}: {why}") from err
                time.sleep(pause)
                pause = min(pause * 2, PAUSES)

    def _close(self) -> None:
        shut(self.fd)

    # --- configurations ---

    def names(self) -> list[str]:
        """The names of all networks."""
        return sorted(name for name in os.listdir(self.path) if name not in NOT_NETWORKS)

    def load(self, name: str) -> Network | None:
        """The network NAME, None where there is none. StateError for a file that is not ours."""
        path = f"{self.path}/{name}/config"
        text = read_text(self.fd, f"{name}/config", path, CONFIG_MAX)
        if not text:
            return None
        try:
            network = Network(**loads(text))
            network_of(network.subnet)
        except (TypeError, ValueError, MinictrError) as err:
            raise StateError(f"{path}: is not as minictr writes it: {err}") from err
        return network

    def save(self, network: Network) -> None:
        """Write NETWORK down."""
        path = os.path.join(self.path, network.name)
        is_new = not os.path.isdir(path)
        try:
            os.makedirs(f"{path}/leases", 0o700, exist_ok=True)
            replace_text(
                self.fd,
                f"{network.name}/config",
                dumps({name: getattr(network, name) for name in network._fields}) + "\n",
            )
        except OSError as err:
            if is_new:
                self.forget(network.name)
            raise StateError(f"write {path}/config: {os.strerror(err.errno or 0)}") from err

    def forget(self, name: str) -> None:
        """What is written of the network NAME goes."""
        from minictr.runtime.network import names

        path = os.path.join(self.path, name)
        names.forget(self, name)
        for entry in ("leases", "config", "next", "config.new", "next.new"):
            unlink(f"{path}/{entry}", directory=entry == "leases")
        unlink(path, directory=True)

    def ensure(self, name: str, *, bridge: bool = True) -> Network:
        """The network NAME: as it is written down, or a new one with a subnet that nobody here uses.

        Raises SpecError for one that is of the other kind or in another network namespace.
        """
        network = self.load(valid_name(name))
        if network is None:
            network = self.planned(name, bridge=bridge)
            self.save(network)
        if network.netns != own_netns():
            raise SpecError(
                f"network {name} is in another network namespace (inode {network.netns}): use another --root here"
            )
        if network.bridge is not bridge:
            kinds = ("has a bridge", "has none") if network.bridge else ("has no bridge", "has one")
            raise SpecError(f"network {name} {kinds[0]}, and one that {kinds[1]} is wanted: name another")
        return network

    def planned(
        self, name: str, *, bridge: bool = True, subnet: str = "", subnet6: str = "", **more: object
    ) -> Network:
        """A network as it would be: subnet and gateways chosen. SpecError for what cannot be."""
        if bridge and links.index(name):
            cure = f"choose another name, or remove it (ip link delete {name})"
            raise SpecError(
                f"network {name}: a device of that name is there, which {self.store.path} knows not: {cure}"
            )
        taken = self._taken()
        subnet = subnet or self._free_subnet(taken)
        family, first, last = network_of(subnet)
        if family != AF_INET or last - first < 3:
            raise SpecError(f"--subnet {subnet}: an IPv4 network of at least four addresses is wanted")
        for other_family, low, high, what in taken:
            if other_family == family and low <= last and first <= high:
                raise SpecError(f"--subnet {subnet}: overlaps {what}: choose another")
        text = f"{spelled(AF_INET, first)}/{split(subnet)[2]}"
        network = Network(name, text, spelled(AF_INET, first + 1), bridge, netns=own_netns())
        if subnet6:
            family, first, _ = network_of(subnet6)
            if family != AF_INET6 or split(subnet6)[2] > 112:
                raise SpecError(f"--subnet {subnet6}: an IPv6 network of /112 or larger is wanted")
            text = f"{spelled(AF_INET6, first)}/{split(subnet6)[2]}"
            network = network.replace(subnet6=text, gateway6=spelled(AF_INET6, first + 1))
        return network.replace(**more)

    def _taken(self) -> list[tuple[int, int, int, str]]:
        """What is in use: (family, first, last, words) of routes, addresses and other networks."""
        names = {link.index: link.name for link in links.links()}
        found = [
            (*network_of(to), f"the route to {to} by {names.get(index, index)}")
            for to, _, index in links.routes()
            if to != "default"
        ]
        found += [
            (*network_of(f"{row.address}/{row.prefix}"), f"{row.address}/{row.prefix} of {names.get(row.index)}")
            for row in links.addresses()
        ]
        for name in self.names():
            network = self.load(name)
            if network is not None:
                found.append((*network_of(network.subnet), f"network {name}"))
        return found

    def _free_subnet(self, taken: list[tuple[int, int, int, str]]) -> str:
        for place in range(256):
            subnet = POOL.format(place)
            _, first, last = network_of(subnet)
            if not any(family == AF_INET and low <= last and first <= high for family, low, high, _ in taken):
                return subnet
        raise SpecError(f"network: every subnet from {POOL.format(0)} on is in use: name one with --subnet")

    # --- leases ---

    def leases(self, name: str) -> dict[str, str]:
        """Address -> owner, of the network NAME."""
        path = f"{self.path}/{name}/leases"
        found = {}
        try:
            for address in os.listdir(path):
                found[address] = os.readlink(f"{path}/{address}")
        except FileNotFoundError:
            pass
        return found

    def lease(self, network: Network, owner: str, journal: Record, ip: str = "", ip6: str = "") -> tuple[int, str, str]:
        """(host number, IPv4 address, IPv6 address or "") for OWNER; IP, IP6: these and no other. Written into JOURNAL
        first. Raises SpecError for an address that is taken, Exhausted when there is none left."""
        taken = self.living(network.name)
        if ip6 and not network.subnet6:
            raise SpecError(
                f"--ip6 {ip6}: network {network.name} has no IPv6: minictr network create --subnet FD00::/64"
            )
        if ip:
            host = network.host(ip)
            if ip in taken:
                raise SpecError(f"--ip {ip}: container {taken[ip][:SHORT]} has it")
            if not self._free(network, host):
                raise SpecError(f"--ip {ip}: its last owner's network is still there: try again")
        else:
            host = self._next(network, taken)
        address, address6 = network.address(host), spelled(AF_INET6, number(ip6)) if ip6 else network.address6(host)
        if ip6:
            _, first, last = network_of(network.subnet6)
            if not first < number(ip6) <= last or address6 in taken or address6 == network.gateway6:
                raise SpecError(f"--ip6 {ip6}: taken, or not in {network.subnet6} of network {network.name}")
        for one in filter(None, (address, address6)):
            journal.write_ahead(("lease", network.name, one, owner))
            self.take(f"{network.name}/leases/{one}", owner)
        replace_text(self.fd, f"{network.name}/next", str(host + 1))
        return host, address, address6

    def living(self, name: str) -> dict[str, str]:
        """The leases whose owner is there; others are dropped."""
        found = self.leases(name)
        for address, owner in list(found.items()):
            if not self.store.has(owner[:ID_DIGITS]):
                self.release(name, address, owner)
                del found[address]
        return found

    def _next(self, network: Network, taken: dict[str, str]) -> int:
        text = read_text(self.fd, f"{network.name}/next", f"{self.path}/{network.name}/next", 64)
        begin = int(text) if text.isascii() and text.isdigit() else 2
        count = network.hosts
        for step in range(count - 1):
            host = 1 + (begin - 1 + step) % (count - 1)
            address = network.address(host)
            if address == network.gateway or address in taken or network.address6(host) in taken:
                continue
            if self._free(network, host):
                return host
        cure = "end a container, or make a larger network: minictr network create --subnet"
        raise Exhausted(f"network {network.name}: all {count - 2} addresses of {network.subnet} are in use: {cure}")

    def _free(self, network: Network, host: int) -> bool:
        """Whether the cable of the host number HOST is not there: a namespace can outlive its container."""
        return not links.index(host_end(self.store, network.name, host))

    def take(self, name: str, owner: str) -> None:
        """The link NAME leads to OWNER from now on. StepFailed EEXIST when it is there."""
        try:
            os.symlink(owner, f"{self.path}/{name}")
        except OSError as err:
            raise StepFailed(f"write {self.path}/{name}", err.errno or 0) from err

    def release(self, name: str, address: str, owner: str) -> bool:
        """ADDRESS of the network NAME is free again, if it was OWNER's, and its names with it; whether it was."""
        from minictr.runtime.network import names

        names.withdraw(self, name, address, owner)
        return self.drop(f"{name}/leases/{address}", owner)

    def drop(self, name: str, owner: str) -> bool:
        """The link NAME goes, if it leads to OWNER."""
        path = f"{self.path}/{name}"
        try:
            if os.readlink(path) != owner:
                return False
            os.unlink(path)
        except OSError as err:
            if err.errno in (ENOENT, EINVAL, 20):
                return False
            raise StateError(f"remove {path}: {os.strerror(err.errno or 0)}") from err
        return True

    def in_use(self) -> bool:
        """Whether any address or port is anybody's, or a network is kept."""
        if os.listdir(f"{self.path}/ports") or any(self.leases(name) for name in self.names()):
            return True
        found = map(self.load, self.names())
        return any(network is not None and network.kept and network.netns == own_netns() for network in found)
