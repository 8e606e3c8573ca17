"""The steps of a start that has its network by pasta, and how it goes. See :mod:`minictr.kernel.pasta`.

Nothing of the host's network is touched: ports are sockets of pasta's, so that other programs see them as taken.
"""

from __future__ import annotations

import os

from minictr.errors import SpecError, StepFailed
from minictr.kernel import pasta as program
from minictr.kernel.handles import shut
from minictr.runtime.network import ports as sockets
from minictr.runtime.network.child import namespace_of
from minictr.runtime.store import ID_DIGITS, SHORT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from minictr.runtime.launch import Start
    from minictr.runtime.network.attachment import Nic
    from minictr.runtime.record import Record

__all__ = ["PastaNetwork"]

EACCES = 13
TIMEOUT = 2.0  # seconds that it has at least
Port = tuple[str, str, int, int]  # protocol, address or "", port here, port there


class PastaNetwork:
    """What a container has of pasta, as :class:`minictr.runtime.network.attachment.Attachment` of cables."""

    nics: tuple[Nic, ...] = ()  # no cable, and no lock of networks that was waited for
    upon: tuple[Nic, ...] = ()
    waited = 0.0

    def __init__(self, journal: Record, link: str) -> None:
        self.journal, self.link = journal, link
        self.ports: list[Port] = []
        self._rows: tuple[tuple[str, ...], ...] = ()
        self._begun = False

    def serve(self, start: Start, settings: dict[str, Any], *, userns: bool) -> None:
        """The network of the child is served, from now until :meth:`close`. Raises StepFailed, Unsupported."""
        kinds = ("net", "user") if userns else ("net",)
        spaces = [namespace_of(start, kind) for kind in kinds]
        try:
            self.journal.write_ahead(("pasta", self.link))
            self._begun = True
            owner = spaces[1] if userns else -1
            timeout = max(TIMEOUT, start.remaining())
            program.start(self.link, spaces[0], options(settings, self.ports), userns=owner, timeout=timeout)
        finally:
            for fd in spaces:
                shut(fd)
        device = settings["device"]
        self._rows = (("pasta", device, *_addresses(start.pid, device), settings["mac"], ""),)

    def rows(self) -> tuple[tuple[str, ...], ...]:
        """The device as a state has it."""
        return self._rows

    def close(self) -> None:
        """It ends, and its ports are free. A second call does nothing."""
        if self._begun:
            program.end(self.link)
            self._begun = False


def attached(start: Start) -> PastaNetwork:
    """What the start has of it so far."""
    if start.network is None:
        assert start.journal is not None
        # one directory may be that of many starts: a ledger's
        own = "" if start.record is not None else f".{start.group.rpartition('-')[2]}"
        start.network = PastaNetwork(start.journal, os.path.join(start.journal.directory, f"netns{own}"))
        start.on_failure.push(start.network.close)
    assert isinstance(start.network, PastaNetwork)
    return start.network


def pasta_ports(start: Start, *, ports: Iterable[tuple[str, str, int, int, int]], family: int) -> None:
    """What can be known before anything is made: the program, its device, and that the ports are free."""
    program.program()
    program.check_device()
    own = attached(start)
    for protocol, ip, host, container, count in ports:
        if protocol not in sockets.KINDS:
            raise SpecError(f"--publish {host}/{protocol}: pasta carries tcp and udp: use --network bridge")
        if ip and family == (4 if ":" in ip else 6):
            raise SpecError(f"--publish {sockets.told(ip, host, protocol)}: the container has IPv{family} alone")
        first = _bindable(protocol, ip, host)
        own.ports.append((protocol, ip, first, container))
        for place in range(1, count):
            own.ports.append((protocol, ip, _bindable(protocol, ip, host + place), container + place))
    _published_by_rules(own)


def _bindable(protocol: str, ip: str, port: int) -> int:
    """PORT, or for 0 one that the kernel chooses, if a socket can have it. Raises SpecError otherwise."""
    try:
        return sockets.try_to_bind(protocol, ip, port)
    except StepFailed as err:
        if err.errno != EACCES:
            raise
        cure = "publish a higher one, or as root: sysctl net.ipv4.ip_unprivileged_port_start"
        raise SpecError(
            f"--publish {sockets.told(ip, port, protocol)}: a low port is not yours to bind: {cure}"
        ) from err


def _published_by_rules(own: PastaNetwork) -> None:
    """Rules come before sockets: a port that another container has by rules would never be heard of."""
    store, path = own.journal.store, os.path.join(own.journal.store.path, "network", "ports")
    try:
        names = os.listdir(path)
    except OSError:
        return
    wanted = {(protocol, port) for protocol, _, port, _ in own.ports}
    for name in names:
        protocol, ip, port = sockets.parts(name)
        if (protocol, port) in wanted:
            holder = os.readlink(f"{path}/{name}")
            if store.has(holder[:ID_DIGITS]):
                told = sockets.told(ip, port, protocol)
                raise SpecError(f"--publish {told}: container {holder[:SHORT]} publishes it: publish another port")


def pasta(start: Start, *, settings: tuple[tuple[str, Any], ...], userns: bool) -> None:
    """The network of the child, which waits at the barrier: its user namespace has its maps by now."""
    own, wanted = attached(start), dict(settings)
    if not wanted["mac"]:  # locally administered, and what is random of the rest
        wanted["mac"] = (b"\x02\x42" + os.urandom(4)).hex(":")
    own.serve(start, wanted, userns=userns)


def options(settings: dict[str, Any], ports: Iterable[Port]) -> list[str]:
    """pasta's own words for SETTINGS, the fields of the wish, and PORTS."""
    words = ["-I", settings["device"], "--ns-mac-addr", settings["mac"]]
    for name, option in (("ip", "-a"), ("ip6", "-a"), ("gateway", "-g"), ("gateway6", "-g"), ("template", "-i")):
        words += [option, settings[name]] if settings[name] else []
    for name, option in (("prefix", "-n"), ("mtu", "-m"), ("family", "")):
        if settings[name]:
            words += [option, str(settings[name])] if option else [f"-{settings[name]}"]
    words += [] if settings["map_gw"] else ["--no-map-gw"]
    if settings["dns"] and settings["family"] != 6:
        words += ["--dns-forward", settings["dns"]]
    for protocol, option in (("tcp", "-t"), ("udp", "-u")):
        specs = [_spec(ip, host, there) for kind, ip, host, there in ports if kind == protocol]
        for spec in specs or ["none"]:  # its default is every port that the container listens at
            words += [option, spec]
    return [*words, "-T", settings["tcp_ns"] or "none", "-U", settings["udp_ns"] or "none"]


def _spec(ip: str, host: int, there: int) -> str:
    return f"{ip + '/' if ip else ''}{host}:{there}"


def _addresses(pid: int, device: str) -> tuple[str, str, str]:
    """(IPv4 address/prefix, IPv6 address/prefix, IPv4 gateway) of DEVICE in the network of PID, "" for none."""
    address = address6 = gateway = ""
    for words in _table(pid, "if_inet6"):  # address, index, prefix, scope, flags, name
        if len(words) == 6 and words[5] == device and words[3] == "00":
            import _socket

            text = _socket.inet_ntop(_socket.AF_INET6, bytes.fromhex(words[0]))
            address6 = f"{text}/{int(words[2], 16)}"
    for words in _table(pid, "route"):  # device, destination, gateway, flags ..., mask at 7
        if len(words) > 7 and words[0] == device:
            to, via, mask = (int(words[place], 16).to_bytes(4, "little") for place in (1, 2, 7))
            if any(via):
                gateway = ".".join(map(str, via))
            elif any(mask):
                address = _local(pid, to, int.from_bytes(mask, "big").bit_count())
    return address, address6, gateway


def _local(pid: int, network: bytes, length: int) -> str:
    """The address of the host in NETWORK that the process's own table has: /proc/PID/net/fib_trie."""
    last = ""
    for words in _table(pid, "fib_trie"):
        if words[0] in ("|--", "+--"):
            last = words[1]
        if words == ["/32", "host", "LOCAL"]:
            number = bytes(map(int, last.split(".")))
            if int.from_bytes(number, "big") >> 32 - length == int.from_bytes(network, "big") >> 32 - length:
                return f"{last}/{length}"
    return ""


def _table(pid: int, name: str) -> list[list[str]]:
    try:
        with open(f"/proc/{pid}/net/{name}", "rb", buffering=0) as file:
            data = b"".join(iter(lambda: file.read(1 << 16) or b"", b""))
    except OSError:
        return []  # it is over, or this kernel has no such table
    return [words for line in data.decode("ascii", "replace").splitlines() if (words := line.split())]
