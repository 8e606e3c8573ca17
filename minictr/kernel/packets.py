"""Packets with descriptors over Unix sockets: SOCK_SEQPACKET and SCM_RIGHTS. unix(7), Linux 2.6.4.

On ``_socket``, the C half of :mod:`socket`: its Python half imports enum and selectors, which cost more than a start.
"""

from __future__ import annotations

import _socket
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Socket", "connected_pair", "receive", "send", "unbound"]

Socket = _socket.socket
DONTWAIT = int(_socket.MSG_DONTWAIT)


def unbound() -> Socket:
    """A socket of no address yet."""
    return _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)


def connected_pair() -> tuple[Socket, Socket]:
    """Two sockets, each the other's peer. socketpair(2)."""
    return _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)


def send(socket: Socket, data: bytes, fds: Sequence[int] = ()) -> None:
    """One packet, with FDS. Raises OSError."""
    rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack(f"={len(fds)}i", *fds))] if fds else []
    socket.sendmsg([data], rights)


def receive(socket: Socket, size: int, n_fds: int = 0) -> tuple[bytes, list[int]]:
    """One packet of at most SIZE bytes, and the descriptors that came with it, close-on-exec; b"" at the end. Raises
    OSError, TimeoutError."""
    data, rights, _, _ = socket.recvmsg(size, _socket.CMSG_SPACE(4 * n_fds) if n_fds else 0, _socket.MSG_CMSG_CLOEXEC)
    fds: list[int] = []
    for level, kind, content in rights:
        if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS):
            fds += struct.unpack(f"={len(content) // 4}i", content[: len(content) // 4 * 4])
    return data, fds
