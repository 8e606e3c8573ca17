"""The loopback device of a new network namespace. Needs root.

Proves: before it is brought up nothing goes through, afterwards a datagram does.
"""

from __future__ import annotations

import socket

from minictr.kernel import network
from minictr.kernel.namespaces import unshare


def exchange() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(2)
        try:
            sock.sendto(b"hello", sock.getsockname())
        except OSError as err:
            return err.strerror
        return sock.recv(16).decode()


def main() -> None:
    with unshare("net"):
        print(f"down: {exchange()}")
        network.loopback_up()
        lo = network.interfaces()[0]
        print(f"up: {exchange()} ({lo.name}, mtu {lo.mtu})")


if __name__ == "__main__":
    main()
