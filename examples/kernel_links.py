"""A bridge, a cable into another network namespace, and a rule of nftables. Needs root, and changes nothing here.

Proves: one message makes the pair, a connection reaches the other end, and a port of this end leads there by a map.
"""

from __future__ import annotations

import os
import socket
import struct

from minictr.kernel import links, nftables
from minictr.kernel.namespaces import enter, unshare

RULES = """add table inet lab
add map inet lab ports { type inet_proto . inet_service : ipv4_addr . inet_service; }
add chain inet lab out { type nat hook output priority -100; }
add rule inet lab out fib daddr type local dnat ip to meta l4proto . th dport map @ports
"""


def main() -> None:
    with unshare("net"):  # the other end
        there = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    with unshare("net"):
        links.set_up(1)
        links.create_bridge("br0", mac="02:00:00:00:00:01")
        bridge = links.index("br0")
        links.add_address(bridge, "10.7.0.1/24")
        links.create_veth("v0", "eth0", netns=there, master=bridge)
        with links.namespace_socket(there) as via:
            links.configure(via, links.index("eth0", via=via), ["10.7.0.2/24"], [("default", "10.7.0.1")])
        with enter(0, "net", fd=there):
            server = socket.create_server(("10.7.0.2", 80))
        nftables.apply(RULES)
        to = socket.inet_aton("10.7.0.2") + struct.pack(">H2x", 80)
        nftables.add_elements(
            "lab", [nftables.Element("ports", struct.pack(">B3xH2x", 6, 8080), to, "kernel_links.py")]
        )
        with server:
            for address in (("10.7.0.2", 80), ("10.7.0.1", 8080)):
                with socket.create_connection(address, 5) as client:
                    conversation, _ = server.accept()
                    conversation.close()
                    print(f"{address[0]}:{address[1]} answers as {client.getpeername()[0]}")
        for link in links.links():
            print(link.index, link.name, link.kind or "device", link.mac)
    os.close(there)


if __name__ == "__main__":
    main()
