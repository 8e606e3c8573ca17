"""Unix sockets, and descriptors sent over them: unix(7), cmsg(3).

``_socket`` is the C half of :mod:`socket`, whose Python half imports enum and selectors: 5 ms of a start.
"""

from __future__ import annotations

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket as _socket
    from collections.abc import Sequence

    Socket = _socket.socket
else:
    import _socket

    Socket = _socket.socket

__all__ = ["MSG_DONTWAIT", "Socket", "receive_fds", "send_fds", "seqpacket", "seqpacket_pair"]

MSG_DONTWAIT = int(_socket.MSG_DONTWAIT)
_INT = struct.calcsize("i")


def seqpacket() -> Socket:
    """A socket whose messages keep their bounds. The caller closes it."""
    return _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)


def seqpacket_pair() -> tuple[Socket, Socket]:
    """Two ends of one connection."""
    return _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)


def send_fds(socket: Socket, data: bytes, fds: Sequence[int]) -> None:
    """DATA with FDS as one message. Raises OSError."""
    rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack(f"{len(fds)}i", *fds))
    socket.sendmsg([data], [rights])


def receive_fds(socket: Socket, size: int, most: int) -> tuple[bytes, list[int]]:
    """One message of at most SIZE bytes, and the descriptors it brought, MOST at most. Raises OSError, TimeoutError."""
    data, ancillary, _, _ = socket.recvmsg(size, _socket.CMSG_LEN(most * _INT), _socket.MSG_CMSG_CLOEXEC)
    fds: list[int] = []
    for level, kind, rights in ancillary:
        if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
            whole = len(rights) // _INT
            fds += struct.unpack(f"{whole}i", rights[: whole * _INT])
    return data, fds
