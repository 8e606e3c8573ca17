"""Devices that share one of the host's: macvlan with a MAC address of its own, ipvlan with the parent's. ip-link(8).

The container is a neighbour of the host in the parent's own network: no bridge, no rules, and the host itself does not
reach it through the parent.
"""

from __future__ import annotations

from minictr.errors import SpecError
from minictr.features.check import choice, frozen, integer, shown, word
from minictr.features.network import MTU_MAX, MTU_MIN, UNDONE, device_name
from minictr.steps import ATTACH, PREPARE, Context, Feature, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import ClassVar

FAMILIES = (("ip", "subnet", "gateway", "IPv4"), ("ip6", "subnet6", "gateway6", "IPv6"))


class Upon(Feature):
    """What macvlan and ipvlan have in common.

    ``ip``, ``ip6``: "10.1.0.9/24", or without the length where ``subnet``, ``subnet6`` say it. With a ``subnet`` the
    address is leased, and chosen where none is named; without either the device has none (DHCP). ``gateway``,
    ``gateway6``: of the default route, if it is the first device that has one. ``mtu`` in bytes, 0 for the parent's.
    """

    MANY = True
    NEEDS = (("net", "there is no network of its own that it could be in"),)
    MODES: ClassVar[tuple[str, ...]] = ()

    parent: str
    device: str = "eth0"
    mode: str = ""
    ip: str = ""
    ip6: str = ""
    subnet: str = ""
    subnet6: str = ""
    gateway: str = ""
    gateway6: str = ""
    mac: str = ""
    mtu: int = 0

    def check(self) -> None:
        from minictr.addresses import mac_bytes, network_of, number, packed

        device_name(self.parent, f"{self.name} parent")
        device_name(self.device, f"{self.name} device")
        choice(self.mode or self.MODES[0], f"{self.name} mode", self.MODES)
        frozen(self, "mode", self.mode or self.MODES[0])
        for field, net, via, told in FAMILIES:
            ip, subnet, gateway = (
                word(getattr(self, key), f"{self.name} {key}", empty=True) for key in (field, net, via)
            )
            six = told == "IPv6"
            for key, text in ((field, ip.partition("/")[0]), (net, subnet.partition("/")[0]), (via, gateway)):
                if text and (":" in text) != six:
                    raise SpecError(f"{self.name} {key}: {shown(text)} is no {told} address")
            if ip and not subnet and "/" not in ip:
                raise SpecError(
                    f"{self.name} {field}: {shown(ip)}: give it a length ({ip}/{64 if six else 24}), or {net}="
                )
            for text in filter(None, (ip if "/" in ip else "", subnet)):
                network_of(text)
            for key, text in ((field, ip.partition("/")[0]), (via, gateway)):
                if text:
                    packed(text)
                if text and subnet and not network_of(subnet)[1] < number(text) <= network_of(subnet)[2]:
                    raise SpecError(f"{self.name} {key}: {shown(text)} is not in {net} {subnet}")
        if self.subnet6 and not self.subnet:
            raise SpecError(
                f"{self.name} subnet6: addresses are leased by subnet: give it one too, or ip6 with a length"
            )
        if self.mac:
            frozen(self, "mac", mac_bytes(word(self.mac, f"{self.name} mac")).hex(":"))
        if self.mtu:
            integer(self.mtu, f"{self.name} mtu", MTU_MIN, MTU_MAX)

    @property
    def label(self) -> str:
        return f"{self.name}:{self.device}"

    def steps(self, ctx: Context) -> Iterator[Step]:
        yield self.step(
            "lease_upon",
            PREPARE,
            f"{self.ip or (f'an address of {self.subnet}' if self.subnet else 'no address')} on {self.parent}",
            undo=UNDONE,
            parent=self.parent,
            inside=self.device,
            ip=self.ip,
            ip6=self.ip6,
            subnets=(self.subnet, self.subnet6),
            gateways=(self.gateway, self.gateway6),
            mac=self.mac,
            mtu=self.mtu,
            routing=self.mode in ("l3", "l3s"),
        )
        about = f"{self.device} on {self.parent}, {self.mode}"
        yield self.step("upon", ATTACH, about, kind=self.name, parent=self.parent, inside=self.device, mode=self.mode)


class MacvlanLink(Upon):
    """A device with a MAC address of its own on the host's device ``parent``. Linux 2.6.23.

    ``mode``: bridge (they reach each other), private (not even by a switch that sends back), vepa (by such a switch
    only), passthru (the parent is all this one's).
    """

    NAME = "macvlan"
    SUMMARY = "a device on the host's, with a MAC address of its own"
    MODES = ("bridge", "private", "vepa", "passthru")


class IpvlanLink(Upon):
    """A device with the MAC address of the host's device ``parent``. Linux 3.19, CONFIG_IPVLAN.

    ``mode``: l2, l3 (the parent routes; no broadcasts), l3s (as l3, through the rules of the host). It has no MAC
    address of its own.
    """

    NAME = "ipvlan"
    SUMMARY = "a device on the host's, with the same MAC address"
    MODES = ("l2", "l3", "l3s")

    def check(self) -> None:
        super().check()
        if self.mac:
            raise SpecError("ipvlan mac: it has the parent's: use macvlan for one of its own")
