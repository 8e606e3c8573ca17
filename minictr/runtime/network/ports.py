"""Ports of this host that containers publish: who has which, so that a conflict is an error before the start.

A port is looked at twice: by our own leases, for a rule of ours binds no socket that anybody could see, and by binding
it for a moment, for another program's socket has no lease. A program that binds it later hears nothing: the rules are
first.
"""

from __future__ import annotations

import _socket
import os

from minictr.addresses import AF_INET, AF_INET6
from minictr.errors import SpecError, StepFailed
from minictr.runtime.store import ID_DIGITS, SHORT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minictr.runtime.network.networks import Networks
    from minictr.runtime.record import Record

__all__ = ["free_port", "take"]

KINDS = {"tcp": _socket.SOCK_STREAM, "udp": _socket.SOCK_DGRAM}
EADDRINUSE, EADDRNOTAVAIL, EACCES, EPROTONOSUPPORT, EAFNOSUPPORT = 98, 99, 13, 93, 97
IPV6_V6ONLY = 26  # linux/in6.h
TRIES = 32


def words(protocol: str, ip: str, port: int) -> str:
    """The name of a lease: "tcp:0.0.0.0:80"."""
    return f"{protocol}:{ip or '*'}:{port}"


def told(ip: str, port: int, protocol: str) -> str:
    host = f"[{ip}]" if ":" in ip else ip
    return f"{host + ':' if host else ''}{port}/{protocol}"


def take(networks: Networks, owner: str, journal: Record, protocol: str, ip: str, port: int) -> None:
    """PORT of the address IP ("" for all of this host) is OWNER's; written into JOURNAL first.

    Raises SpecError for one that another container, or another program, has.
    """
    for name in os.listdir(f"{networks.path}/ports"):
        other_protocol, other_ip, other_port = parts(name)
        if (other_protocol, other_port) != (protocol, port) or (ip and other_ip and ip != other_ip):
            continue
        path = f"{networks.path}/ports/{name}"
        holder = os.readlink(path)
        if networks.store.has(holder[:ID_DIGITS]):
            cure = "publish another port, or end that one"
            raise SpecError(f"--publish {told(ip, port, protocol)}: container {holder[:SHORT]} publishes it: {cure}")
        os.unlink(path)
    try_to_bind(protocol, ip, port)
    name = words(protocol, ip, port)
    journal.write_ahead(("port", name, owner))
    networks.take(f"ports/{name}", owner)


def parts(name: str) -> tuple[str, str, int]:
    """(protocol, address or "", port) of a lease's name."""
    protocol, _, rest = name.partition(":")
    ip, _, port = rest.rpartition(":")
    return protocol, "" if ip == "*" else ip, int(port) if port.isdigit() else 0


def try_to_bind(protocol: str, ip: str, port: int) -> int:
    """PORT, or one the kernel chooses for 0, bound for a moment. Raises SpecError when somebody has it."""
    kind = KINDS.get(protocol)
    if kind is None:
        return port  # this kernel may have no such sockets, which rules do not need
    found = port
    for family in (AF_INET6,) if ":" in ip else (AF_INET,) if ip else (AF_INET, AF_INET6):
        try:
            found = _bound(family, kind, ip or ("::" if family == AF_INET6 else "0.0.0.0"), found)
        except OSError as err:
            if family == AF_INET6 and not ip and err.errno in (EAFNOSUPPORT, EADDRNOTAVAIL):
                continue  # a host without IPv6
            where = f"--publish {told(ip, port, protocol)}"
            if err.errno == EADDRINUSE:
                whose = f"another program has it (EADDRINUSE; ss -lnp 'sport = {port}')"
                cure = f"{whose}: publish another port, or end that program"
                raise SpecError(f"{where}: {cure}") from err
            if err.errno == EADDRNOTAVAIL:
                raise SpecError(f"{where}: {ip} is no address of this host") from err
            raise StepFailed(f"bind {told(ip, port, protocol)}", err.errno or 0) from err
    return found


def _bound(family: int, kind: int, ip: str, port: int) -> int:
    """The port that a socket had for a moment. Raises OSError."""
    socket = _socket.socket(family, kind)
    try:
        if kind == _socket.SOCK_STREAM:  # connections that are over are in nobody's way
            socket.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
        if family == AF_INET6:
            socket.setsockopt(_socket.IPPROTO_IPV6, IPV6_V6ONLY, 1)
        socket.bind((ip, port))
        return int(socket.getsockname()[1])
    finally:
        socket.close()


def free_port(networks: Networks, protocol: str, ip: str) -> int:
    """A port that nobody has, of those the kernel gives out (ip_local_port_range)."""
    taken = {parts(name)[2] for name in os.listdir(f"{networks.path}/ports")}
    for _ in range(TRIES):
        try:
            port = try_to_bind("udp" if protocol == "udp" else "tcp", ip, 0)
        except SpecError:
            continue  # free for one family and taken for the other
        if port not in taken:
            return port
    raise SpecError("--publish: no free port was found: name one")
