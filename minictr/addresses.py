"""Addresses of networks as text, numbers and bytes: for wishes and hands alike. Pure.

Not by the standard library's ``ipaddress``, which takes 6 ms to import: ``_socket`` is there already in a start.
"""

from __future__ import annotations

import _socket

from minictr.errors import SpecError

__all__ = ["AF_INET", "AF_INET6", "mac_bytes", "network_of", "number", "packed", "spelled", "split"]

AF_INET, AF_INET6 = int(_socket.AF_INET), int(_socket.AF_INET6)


def packed(address: str) -> tuple[int, bytes]:
    """(family, bytes) of an IPv4 or IPv6 ADDRESS. Raises SpecError."""
    family = AF_INET6 if ":" in address else AF_INET
    try:
        return family, _socket.inet_pton(family, address)
    except (OSError, ValueError):
        raise SpecError(f"address {address!r}: an IPv4 or IPv6 address is wanted") from None


def number(address: str) -> int:
    """ADDRESS as a number."""
    return int.from_bytes(packed(address)[1], "big")


def spelled(family: int, value: int) -> str:
    """The address that the number VALUE is."""
    return _socket.inet_ntop(family, value.to_bytes(4 if family == AF_INET else 16, "big"))


def split(cidr: str) -> tuple[int, bytes, int]:
    """(family, bytes, prefix length) of "10.7.0.1/24"; without a slash it is that one address. Raises SpecError."""
    address, slash, length = cidr.partition("/")
    family, data = packed(address)
    most = len(data) * 8
    if slash and not (length.isascii() and length.isdigit() and int(length) <= most):
        raise SpecError(f"address {cidr!r}: a prefix length of 0 to {most} is wanted")
    return family, data, int(length) if slash else most


def network_of(cidr: str) -> tuple[int, int, int]:
    """(family, first address, last address) of the network that "10.7.0.1/24" is in, as numbers. Raises SpecError."""
    family, data, length = split(cidr)
    host = (1 << len(data) * 8 - length) - 1
    first = int.from_bytes(data, "big") & ~host
    return family, first, first | host


def mac_bytes(mac: str) -> bytes:
    """The six bytes of "02:42:ac:11:00:02". Raises SpecError, for a multicast address too."""
    parts = mac.split(":")
    good = len(parts) == 6 and all(len(part) == 2 and part.isascii() for part in parts)
    try:
        data = bytes.fromhex("".join(parts)) if good else b""
    except ValueError:
        data = b""
    if len(data) != 6 or data[0] & 1 or not any(data):
        raise SpecError(f"mac address {mac!r}: six bytes as 02:00:00:00:00:01 are wanted, no multicast address")
    return data
