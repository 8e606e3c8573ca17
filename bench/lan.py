"""Two machines and a cable, in network namespaces: the one where jobs run, and the client's.

::

    the machine ("host")                         the client
    10.99.0.1  bench0 ------------- veth ------- eth0  10.99.0.2, default route by 10.99.0.1
    bridges, rules, published ports of one environment

The machine's namespace is not the real host's: dockerd's rules and bridges, LXC's and ours are made in it and vanish
with it, whoever was killed; nothing of the real host's network is read or changed. It costs what the first network
namespace costs: the kernel has one code for all. Packets are forwarded there in every arm alike (ip_forward=1), so
that containers without a published port are reached by their own address. What crosses a bridge passes the rules of IP
only where an arm asks for it (bridge-nf-call-iptables=0, which is 1 in a new namespace: then every bridge would). Both
namespaces live by descriptors of this process.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from typing import Any

import minictr as mc

NETWORK = "10.99.0"
CABLE = "bench0"
# Of the network namespace of the thread that opens them; Linux 5.3 for the second, which is there with br_netfilter
FORWARDING = "/proc/sys/net/ipv4/ip_forward"
BRIDGES = tuple(f"/proc/sys/net/bridge/bridge-nf-call-{kind}" for kind in ("iptables", "ip6tables", "arptables"))


def _write(path: str, value: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(value)


def _own_bridges() -> bool:
    """Whether BRIDGES are the namespace's own here: before Linux 5.3 they are the whole host's, and not ours to set."""
    release = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])
    return release >= (5, 3) and os.path.exists(BRIDGES[0])


class Lan:
    """A context manager, that can be entered again when it was left.

    ``host_address``, ``client_address``: of the two ends of the cable.
    """

    host_address, client_address = f"{NETWORK}.1", f"{NETWORK}.2"

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._namespaces: dict[str, mc.Netns] = {}

    def __enter__(self) -> Lan:
        with contextlib.ExitStack() as stack:  # survives a failure half-way
            host, client = stack.enter_context(mc.Netns()), stack.enter_context(mc.Netns())
            with host.inside():
                cable = mc.Veth(
                    CABLE,
                    netns=client,
                    addresses=[f"{self.host_address}/24"],
                    peer_addresses=[f"{self.client_address}/24"],
                    gateway=self.host_address,
                )
                cable.make()
                stack.callback(self._unplug, host, cable)
                _write(FORWARDING, "1")
                self._filter_bridges("0")
            self._namespaces = {"host": host, "client": client}
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: Any) -> None:
        self._namespaces = {}
        self._stack.close()

    @staticmethod
    def _unplug(host: mc.Netns, cable: mc.Veth) -> None:
        with host.inside():
            cable.close()

    @staticmethod
    def _filter_bridges(value: str) -> None:
        for path in BRIDGES if _own_bridges() else ():
            _write(path, value)

    def filter_bridges(self) -> bool:
        """From now on what crosses any bridge of the machine passes the rules of IP, as on every host that has
        br_netfilter, which dockerd loads. False where that cannot be said of this machine alone."""
        with self.inside():
            self._filter_bridges("1")
        return _own_bridges()

    def inside(self, where: str = "host") -> Any:
        """``with lan.inside():`` the calling thread, and what it starts, is on the machine, or the "client"."""
        return self._namespaces[where].inside()

    def path(self, where: str = "host") -> str:
        """The namespace as a path, for as long as this process lives."""
        return self._namespaces[where].path

    def command(self, argv: Sequence[str], where: str = "client") -> list[str]:
        """ARGV as it is started to run on the client, or on the machine ("host")."""
        return ["nsenter", f"--net={self.path(where)}", "--", *argv]

    def id(self, where: str = "host") -> int:
        """The number of the namespace, as /proc/PID/ns/net tells it."""
        return os.stat(self.path(where)).st_ino
