"""Netlink: many requests to the kernel in one system call, and its answers. netlink(7), Linux 2.2.

On ``_socket``, the C half of :mod:`socket`, as :mod:`minictr.kernel.packets` is. Bytes are laid out by the kernel's
headers: ``struct nlmsghdr``, then a family's own header, then attributes (``struct nlattr``), padded to four.
"""

from __future__ import annotations

import _socket
import struct

from minictr.errors import StepFailed
from minictr.kernel.handles import Handle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    Request = tuple[str, int, int, bytes, frozenset[int]]

__all__ = ["NETFILTER", "ROUTE", "Netlink", "attribute", "attributes", "nest", "request", "text", "u16", "u32"]

ROUTE, NETFILTER = 0, 12  # linux/netlink.h: NETLINK_ROUTE, NETLINK_NETFILTER
AF_NETLINK = 16  # linux/socket.h
SOL_NETLINK, CAP_ACK, EXT_ACK = 270, 10, 11  # linux/netlink.h; Linux 4.3, 4.12
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_ACK_TLVS = 0x1, 0x4, 0x300, 0x10, 0x200
NLMSG_ERROR, NLMSG_DONE = 2, 3
ATTR_MSG = 1  # NLMSGERR_ATTR_MSG: the kernel's own words
NESTED, TYPE_MASK = 0x8000, 0x3FFF  # linux/netlink.h: NLA_F_NESTED, NLA_TYPE_MASK
SO_SNDBUFFORCE = 33  # asm-generic/socket.h: needs CAP_NET_ADMIN
EPROTONOSUPPORT = 93
HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
ATTRIBUTE = struct.Struct("=HH")  # struct nlattr
ROOM = 1 << 16
DUMPS = 5  # tries of a list that changes while it is read
NONE: frozenset[int] = frozenset()


def attribute(kind: int, data: bytes) -> bytes:
    """One attribute, padded."""
    return ATTRIBUTE.pack(4 + len(data), kind) + data + b"\0" * (-len(data) % 4)


def nest(kind: int, *inside: bytes) -> bytes:
    """An attribute made of attributes."""
    return attribute(kind | NESTED, b"".join(inside))


def text(kind: int, value: str) -> bytes:
    """A string, with its closing NUL."""
    return attribute(kind, value.encode("utf-8", "surrogateescape") + b"\0")


def u32(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=I", value))


def u16(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=H", value))


def attributes(data: bytes, offset: int = 0) -> dict[int, bytes]:
    """The attributes in DATA from OFFSET on, by kind; of equal kinds the last."""
    found: dict[int, bytes] = {}
    while offset + 4 <= len(data):
        length, kind = ATTRIBUTE.unpack_from(data, offset)
        if length < 4:
            break
        found[kind & TYPE_MASK] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


def request(what: str, kind: int, flags: int, body: bytes, tolerate: Iterable[int] = ()) -> Request:
    """One request: WHAT in words for errors, message KIND, FLAGS (NLM_F_*), BODY; errno values that count as done."""
    return what, kind, flags, body, frozenset(tolerate) if tolerate else NONE


class Netlink(Handle):
    """A netlink socket of the network namespace that the calling thread is in; it stays there.

    Nothing waits: the kernel works while it is told to, and has answered when the call returns. Raises StepFailed.
    """

    def __init__(self, protocol: int = ROUTE) -> None:
        try:
            self._socket = _socket.socket(AF_NETLINK, _socket.SOCK_RAW, protocol)
        except OSError as err:
            cure = "this kernel has no netfilter netlink" if err.errno == EPROTONOSUPPORT else ""
            raise StepFailed("open a netlink socket", err.errno or 0, cure=cure) from err
        self._open, self._last = True, 0
        try:
            for option in (CAP_ACK, EXT_ACK):
                self._socket.setsockopt(SOL_NETLINK, option, 1)
        except OSError:
            pass  # an older kernel says less

    def run(self, *requests: Request) -> None:
        """All REQUESTS in one message. Raises StepFailed for the first that the kernel refused, when all were tried."""
        data, first = bytearray(), self._last + 1
        for place, (_, kind, flags, body, _) in enumerate(requests):
            self._last += 1
            # a refusal is always answered: only the last need say that it was done
            flags |= NLM_F_REQUEST | (NLM_F_ACK if place == len(requests) - 1 else 0)
            data += HEADER.pack(HEADER.size + len(body), kind, flags, self._last, 0) + body
            data += b"\0" * (-len(data) % 4)
        if requests:
            self.exchange(bytes(data), {first + place: request for place, request in enumerate(requests)}, self._last)

    def exchange(self, data: bytes, asked: dict[int, Request], last: int, *, first: int = -1) -> None:
        """DATA as it is, and answers until that to LAST. ASKED: requests by number. FIRST: the request that begins a
        transaction, and is answered in place of all when that fails."""
        failed: StepFailed | None = None
        self._send(data, asked[last][0])
        done = False
        while not done:
            for kind, _, number, payload in self._receive(asked[last][0]):
                if kind != NLMSG_ERROR or number not in asked:
                    continue
                what, _, _, _, tolerate = asked[number]
                (code,) = struct.unpack_from("=i", payload)
                if code and -code not in tolerate:
                    failed = failed or StepFailed(what, -code, cure=words(payload))
                done = done or number in (first, last)
        if failed is not None:
            raise failed

    def dump(self, what: str, kind: int, body: bytes) -> list[bytes]:
        """The bodies of all that the kernel lists for KIND. Raises StepFailed."""
        for _ in range(DUMPS):
            self._last += 1
            header = HEADER.pack(HEADER.size + len(body), kind, NLM_F_REQUEST | NLM_F_DUMP, self._last, 0)
            self._send(header + body, what)
            found, torn = self._dumped(what, self._last)
            if not torn:
                break
        return found

    def _dumped(self, what: str, number: int) -> tuple[list[bytes], bool]:
        """What is listed, and whether it changed meanwhile."""
        found: list[bytes] = []
        torn = False
        while True:
            for kind, flags, told, payload in self._receive(what):
                if told != number:
                    continue
                torn = torn or bool(flags & NLM_F_DUMP_INTR)
                if kind == NLMSG_DONE:
                    return found, torn
                if kind == NLMSG_ERROR:
                    raise StepFailed(what, -struct.unpack_from("=i", payload)[0], cure=words(payload))
                found.append(payload)

    def _send(self, data: bytes, what: str) -> None:
        try:
            if len(data) > ROOM:  # one transaction is one message, however long
                self._socket.setsockopt(_socket.SOL_SOCKET, SO_SNDBUFFORCE, 2 * len(data))
            self._socket.send(data)
        except OSError as err:
            raise StepFailed(what, err.errno or 0) from err

    def _receive(self, what: str) -> list[tuple[int, int, int, bytes]]:
        """(kind, flags, number, payload) of one datagram."""
        try:
            data = self._socket.recv(ROOM, _socket.MSG_DONTWAIT)
        except OSError as err:
            raise StepFailed(f"{what}: no answer", err.errno or 0) from err
        found, offset = [], 0
        while offset + HEADER.size <= len(data):
            length, kind, flags, number, _ = HEADER.unpack_from(data, offset)
            payload = data[offset + HEADER.size : offset + length]
            tlvs = b"\1" if kind == NLMSG_ERROR and flags & NLM_F_ACK_TLVS else b"\0"
            found.append((kind, flags, number, payload + tlvs if kind == NLMSG_ERROR else payload))
            offset += max((length + 3) & ~3, HEADER.size)
        return found

    def lend(self) -> None:
        """It stays open until this process ends: nobody is warned that it was not closed."""
        import atexit

        atexit.register(self._socket.detach)
        self._open = False

    def close(self) -> None:
        """Give it back, one that was lent too."""
        self._open = False
        self._close()

    def _close(self) -> None:
        self._socket.close()


def words(payload: bytes) -> str:
    """What the kernel says of an error beyond its number; "" before Linux 4.12."""
    if payload[-1:] != b"\1":
        return ""
    message = attributes(payload[:-1], 4 + HEADER.size).get(ATTR_MSG, b"")
    return message.rstrip(b"\0").decode("ascii", "replace")
