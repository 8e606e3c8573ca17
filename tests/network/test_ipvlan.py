"""ipvlan for containers. Most kernels of small machines have none: this runs in the guest `unified` as well."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parent))

from world import HERE, THERE, World

from minictr.kernel import links

NAMED = "subnet=192.0.2.0/24,gateway=192.0.2.2,ip=192.0.2.50"


@pytest.mark.parametrize("mode", ["l2", "l3", "l3s"])
def test_ipvlan(net: World, mode: str) -> None:
    """Where the kernel has it; where not, the reason is told before anything is made."""
    words = ("--network", f"ipvlan:wire0:{NAMED},mode={mode}")
    if not links.probe()["ipvlan"]:
        told = net.minictr("run", "--rootfs", net.rootfs, *words, "--", "true", check=False)
        assert told.startswith("125 minictr run: ipvlan: this kernel has no ipvlan devices; needs CONFIG_IPVLAN")
        net.nothing_left()
        return
    net.start("one", *words)
    (row,) = (row for row in net.ip("address", pid=net.pid("one")) if row["ifname"] == "eth0")
    assert row["linkinfo"]["info_kind"] == "ipvlan"
    assert row["linkinfo"]["info_data"]["mode"] == mode
    assert row["address"] == net.ip("link", "show", "wire0")[0]["address"]
    (route,) = (route for route in net.ip("route", pid=net.pid("one")) if route["dst"] == "default")
    assert route.get("gateway") == ("192.0.2.2" if mode == "l2" else None)
    if mode != "l2":  # no ARP there: others are told the way, by the host
        net.run("ip", "route", "add", "192.0.2.50/32", "via", HERE, pid=net.remote)
    with net.server(net.remote, 81):
        assert net.ask(net.pid("one"), THERE, 81) == "192.0.2.50"
    net.minictr("rm", "-f", "one")
    net.nothing_left()
