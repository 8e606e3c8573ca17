"""Whether this kernel and this user can have networks: each thing is made in a network namespace that goes at once."""

from __future__ import annotations

import os

from minictr.errors import MinictrError, StepFailed, Unsupported, errno_name
from minictr.steps import Support

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["links_probe", "nftables_probe", "supports"]

TABLE = """table inet minictr-probe {
  map ports { type inet_proto . inet_service : ipv4_addr . inet_service; }
  chain in { dnat ip to meta l4proto . th dport map @ports; }
  chain pre { type nat hook prerouting priority dstnat; fib daddr type local jump in; }
  chain post { type nat hook postrouting priority srcnat; masquerade; }
  chain forward { type filter hook forward priority filter; ct state established accept; }
}
"""
# feature -> what it takes
NEEDED = {
    "veth": ("veth",),
    "bridge": ("veth", "bridge"),
    "bridge_netfilter": ("veth", "bridge"),
    "conntrack": ("veth", "nftables"),
    "nat": ("veth", "nftables"),
    "publish": ("veth", "nftables"),
}


def links_probe() -> dict[str, Support]:
    """veth, bridge, macvlan, ipvlan."""
    from minictr.kernel import links

    trials: dict[str, Callable[[], None]] = {
        "veth": lambda: links.create_veth("probe0", "probe1"),
        "bridge": lambda: links.create_bridge("probe0"),
        "macvlan": lambda: _on_veth(links.create_macvlan),
        "ipvlan": lambda: _on_veth(links.create_ipvlan),
    }
    return {name: _tried(name, trial) for name, trial in trials.items()}


def _on_veth(create: Callable[..., None]) -> None:
    from minictr.kernel import links

    links.create_veth("probe0", "probe1")
    create("probe2", links.index("probe0"))


def nftables_probe() -> dict[str, Support]:
    """nftables: nft, maps, address translation, connection tracking."""
    from minictr.kernel import nftables

    return {"nftables": _tried("nftables", lambda: nftables.apply(TABLE))}


def supports() -> dict[str, Support]:
    """The features of a network, by what they take."""
    found = {**links_probe(), **nftables_probe()}
    return {
        feature: next((found[part] for part in parts if not found[part]), Support(True))
        for feature, parts in NEEDED.items()
    }


def _tried(name: str, trial: Callable[[], None]) -> Support:
    from minictr.kernel.namespaces import unshare

    try:
        with unshare("net"):
            trial()
    except Unsupported as err:
        return Support(False, err.reason, err.cure)
    except StepFailed as err:
        number = err.errno or 0
        cure = "be root: a link between two networks needs privilege over both" if number == 1 else err.cure
        return Support(False, f"{err.what}: {errno_name(number)} ({os.strerror(number)})", cure, number)
    except MinictrError as err:
        return Support(False, str(err))
    return Support(True)
