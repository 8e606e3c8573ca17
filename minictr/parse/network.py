"""Text of network options: ``--network``, ``--publish``, ``--expose``."""

from __future__ import annotations

from minictr.errors import SpecError
from minictr.features.check import decimal, shown
from minictr.features.network import PORT_MAX, PROTOCOLS, Publish

__all__ = ["expose", "network_words", "publish"]

KEYS = ("ip", "ip6", "mac", "mtu", "interface_name", "interface")  # podman's words, and docker's interface name
UPON_KEYS = (*KEYS, "mode", "subnet", "subnet6", "gateway", "gateway6")
PASTA_KEYS = (*KEYS, "prefix", "gateway", "gateway6", "template", "tcp_ns", "udp_ns", "dns")
PASTA_FLAGS = ("ipv4_only", "ipv6_only", "map_gw")


def network_words(text: str) -> tuple[str, str, dict[str, str]]:
    """(kind, name, settings) of ``KIND[:NAME][:KEY=VALUE,...]``, as ``bridge:lan:ip=10.1.0.5,mac=...``."""
    kind, _, rest = text.partition(":")
    if kind == "pasta":  # podman's commas, and no name
        return kind, "", _settings(text, rest, PASTA_KEYS, PASTA_FLAGS)
    name, _, more = rest.partition(":")
    if "=" in name:  # bridge:ip=10.1.0.5
        name, more = "", rest
    return kind, name, _settings(text, more, UPON_KEYS if kind in ("macvlan", "ipvlan") else KEYS)


def _settings(text: str, words: str, keys: tuple[str, ...], flags: tuple[str, ...] = ()) -> dict[str, str]:
    settings: dict[str, str] = {}
    for part in words.split(",") if words else ():
        key, equals, value = part.partition("=")
        if part in flags:
            key, equals, value = part, "=", "yes"
        if (key not in keys and part not in flags) or not equals:
            known = ", ".join((*flags, *(f"{key}=" for key in keys)))
            raise SpecError(f"network {shown(text)}: {shown(part)} is not one of {known} with a value")
        if not value:
            raise SpecError(f"network {shown(text)}: {key}= without a value")
        if key in settings:
            raise SpecError(f"network {shown(text)}: {key} is given twice")
        settings[key] = value
    return settings


def publish(text: str) -> Publish:
    """``[[IP:]HOST:]CONTAINER[/PROTOCOL]``; ports may be ranges, as 8000-8009:80-89, an IPv6 address has brackets.

    Without HOST, or with an empty one, a free port of the host.
    """
    ports, slash, protocol = text.partition("/")
    if slash and protocol not in PROTOCOLS:
        raise SpecError(f"{shown(text)}: {shown(protocol)} is not one of {', '.join(PROTOCOLS)}")
    ip, host, container = _parts(text, ports)
    first, last = _range(container, text)
    if not host:
        if last > first:
            raise SpecError(f"{shown(text)}: a range of free ports: name the host's ports too")
        return Publish(0, first, ip, protocol or "tcp")
    begin, end = _range(host, text)
    if end - begin != last - first:
        cure = "both ranges must be of one length"
        raise SpecError(
            f"{shown(text)}: {end - begin + 1} ports of the host, {last - first + 1} of the container: {cure}"
        )
    return Publish(begin, first, ip, protocol or "tcp", last - first + 1)


def _parts(text: str, ports: str) -> tuple[str, str, str]:
    if ports.startswith("["):
        ip, bracket, rest = ports[1:].partition("]:")
        if not bracket or not ip:
            raise SpecError(f"{shown(text)}: an IPv6 address is written [ADDRESS]:HOST:CONTAINER")
        host, _, container = rest.rpartition(":")
    else:
        before, _, container = ports.rpartition(":")
        ip, _, host = before.rpartition(":")
        if ":" in ip:
            raise SpecError(f"{shown(text)}: too many colons: an IPv6 address is written [ADDRESS]:HOST:CONTAINER")
    return ip, host, container


def _range(text: str, whole: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    ends = [int(part) if decimal(part) else 0 for part in (first, last if dash else first)]
    if not all(0 < port <= PORT_MAX for port in ends) or ends[1] < ends[0]:
        raise SpecError(f"{shown(whole)}: {shown(text)} is no port, 1 to {PORT_MAX}, nor a range of them as 8000-8009")
    return ends[0], ends[1]


def expose(text: str) -> tuple[Publish, ...]:
    """``PORT[-PORT][/PROTOCOL]``: what ``--publish-all`` publishes at free ports."""
    ports, _, protocol = text.partition("/")
    first, last = _range(ports, text)
    return tuple(publish(f"{port}/{protocol or 'tcp'}") for port in range(first, last + 1))
