"""Links, addresses and routes as pyroute2 reads them: for people who look and for repairs, never in a start.

pyroute2 knows hundreds of attributes that :mod:`minictr.kernel.links` does not; importing it takes 160 ms here, and a
veth by it 15 ms where links takes 1 (docs/decisions.md).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["interfaces"]

IFF_UP = 1


def interfaces() -> list[dict[str, Any]]:
    """Every device of the calling thread's network namespace, with its addresses and routes, as plain data.

    name, index, kind, up, state ("up", "down", "unknown"), mtu (bytes), mac, master (name, or ""), addresses ("A/N"),
    routes (destination, gateway), bridge (what is set of it), statistics (bytes, packets, errors, dropped, each in and
    out). Raises StepFailed.
    """
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    from minictr.errors import StepFailed

    try:
        with IPRoute() as route:
            links, addresses, routes = (
                list(route.get_links()),
                list(route.get_addr()),
                list(route.get_routes(table=254)),
            )
    except (NetlinkError, OSError) as err:
        raise StepFailed("list network devices", getattr(err, "code", None) or 0) from err
    names = {link["index"]: link.get("ifname", "") for link in links}
    return [_interface(link, names, addresses, routes) for link in links]


def _interface(link: Any, names: dict[int, str], addresses: list[Any], routes: list[Any]) -> dict[str, Any]:
    index = link["index"]
    info = link.get("linkinfo")
    kind = info.get("kind", "") if info is not None else ""
    data = info.get("data") if info is not None else None
    counters = link.get("stats64") or {}
    return {
        "name": names[index],
        "index": index,
        "kind": kind,
        "up": bool(link["flags"] & IFF_UP),
        "state": str(link.get("state", "")),
        "mtu": link.get("mtu", 0),
        "mac": link.get("address", ""),
        "master": names.get(link.get("master") or 0, ""),
        "addresses": [f"{row.get('address')}/{row['prefixlen']}" for row in addresses if row["index"] == index],
        "routes": [_route(row) for row in routes if row.get("oif") == index],
        "bridge": _bridge(data) if kind == "bridge" and data is not None else {},
        "statistics": {
            name: counters[f"{way}_{what}"]
            for way, side in (("rx", "in"), ("tx", "out"))
            for what in ("bytes", "packets", "errors", "dropped")
            for name in (f"{what}_{side}",)
            if f"{way}_{what}" in counters
        },
    }


def _route(row: Any) -> list[str]:
    to = f"{row.get('dst')}/{row['dst_len']}" if row.get("dst") else "default"
    return [to, row.get("gateway") or ""]


def _bridge(data: Any) -> dict[str, Any]:
    return {
        "stp": bool(data.get("br_stp_state")),
        "nf_call_iptables": bool(data.get("br_nf_call_iptables")),
        "nf_call_ip6tables": bool(data.get("br_nf_call_ip6tables")),
    }
