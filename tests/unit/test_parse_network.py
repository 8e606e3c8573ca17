"""``--publish``, ``--expose``, ``--network`` as values."""

from __future__ import annotations

import pytest

from minictr import addresses, parse
from minictr.cli.ps import ports
from minictr.errors import SpecError
from minictr.features.network import Publish
from minictr.runtime.listing import Glance


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("80", Publish(0, 80)),
        ("80/udp", Publish(0, 80, protocol="udp")),
        ("8080:80", Publish(8080, 80)),
        ("8080:80/sctp", Publish(8080, 80, protocol="sctp")),
        ("127.0.0.1:8080:80", Publish(8080, 80, "127.0.0.1")),
        ("127.0.0.1::80", Publish(0, 80, "127.0.0.1")),
        ("0.0.0.0:8080:80", Publish(8080, 80)),
        ("[::]:8080:80", Publish(8080, 80)),
        ("[2001:db8:0::1]:8080:80", Publish(8080, 80, "2001:db8::1")),
        ("[::1]::80", Publish(0, 80, "::1")),
        ("8000-8009:80-89", Publish(8000, 80, count=10)),
    ],
)
def test_publish(text: str, value: Publish) -> None:
    assert parse.publish(text) == value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no port"),
        ("8000-8001:80", "2 ports of the host, 1 of the container"),
        ("80-81", "name the host's ports too"),
        ("::1:80:80", r"\[ADDRESS\]:HOST:CONTAINER"),
        ("80/icmp", "tcp, udp, sctp"),
        ("\u0668\u0660:80", "no port"),
    ],
)
def test_publish_refused(text: str, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        parse.publish(text)


def test_expose() -> None:
    assert parse.expose("90-91/udp") == (Publish(0, 90, protocol="udp"), Publish(0, 91, protocol="udp"))


def test_network_words() -> None:
    assert parse.network_words("bridge") == ("bridge", "", {})
    assert parse.network_words("bridge:lan") == ("bridge", "lan", {})
    assert parse.network_words("bridge:ip=10.1.0.5,mtu=1400") == ("bridge", "", {"ip": "10.1.0.5", "mtu": "1400"})
    assert parse.network_words("bridge:lan:ip6=fd00::5") == ("bridge", "lan", {"ip6": "fd00::5"})
    for bad in ("bridge:lan:ip", "bridge:color=red", "bridge:ip=1,ip=2"):
        with pytest.raises(SpecError):
            parse.network_words(bad)


def test_ports_as_ps_shows_them() -> None:
    rows = (("udp", "::1", 9, 9), ("tcp", "", 8001, 81), ("tcp", "", 8000, 80), ("tcp", "", 8002, 99))
    shown = ports(Glance("", "", ports=rows))
    assert shown == "[::1]:9->9/udp, 0.0.0.0:8000->80/tcp, 0.0.0.0:8001->81/tcp, 0.0.0.0:8002->99/tcp"


def test_addresses() -> None:
    assert addresses.network_of("10.7.0.9/24")[1:] == (0x0A070000, 0x0A0700FF)
    assert addresses.spelled(addresses.AF_INET6, addresses.number("fd00::1") + 1) == "fd00::2"
    assert addresses.mac_bytes("02:00:00:00:00:FF") == b"\2\0\0\0\0\xff"
    for bad in ("0:0:0:0:0:1", "02-00-00-00-00-01", "", "00:00:00:00:00:00", "+2:00:00:00:00:01"):
        with pytest.raises(SpecError):
            addresses.mac_bytes(bad)
