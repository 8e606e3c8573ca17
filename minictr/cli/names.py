"""``--add-host``, ``--dns``, ``--network-alias``, and what a network gives without them: options to features."""

from __future__ import annotations

from minictr.cli.given import many, said
from minictr.errors import SpecError
from minictr.features.names import HostnameFile, Hosts, Names, ResolvConf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minictr.spec import Spec
    from minictr.steps import Feature

__all__ = ["names"]

RESOLVER = {"dns": "--dns", "dns_search": "--dns-search", "dns_option": "--dns-option"}
# What is given unasked, by the first word of --network
CABLE = ("hosts", "resolv_conf", "hostname_file", "names")
ALONE = ("hosts", "resolv_conf", "hostname_file")  # no neighbours that could call it
UNASKED: dict[str, tuple[str, ...]] = {
    "": (),
    "none": ("hosts", "hostname_file"),
    "private": ("hosts", "hostname_file"),
    "host": ALONE,
    "macvlan": ALONE,
    "ipvlan": ALONE,
    "pasta": ALONE,
    "container": ("hostname_file",),
    "ns": (),
    "pid": (),
}


def names(spec: Spec, opts: dict[str, Any], kind: str, joined: str = "") -> Spec:
    """SPEC with the files that fit its network, which is of KIND ("" when nobody named one), and what options say of
    them. JOINED: the container whose network it has."""
    unasked = UNASKED.get(kind, CABLE)
    # LXC leaves these files to the container's own system
    if _mounts(spec) and (kind in UNASKED or opts.get("profile") != "lxc"):
        spec = _given(spec, unasked, kind, joined)
    _contradict(opts)
    spec = _hosts(_resolver(spec, opts, kind), opts, kind)
    if opts.get("network_alias"):
        spec = spec.with_(said("--network-alias", Names, tuple(opts["network_alias"])))
    return spec.without("hostname_file") if opts.get("no_hostname") else spec


def _mounts(spec: Spec) -> bool:
    """Whether there is a mount table of its own, in which something can lie over the image's files."""
    table: Any = spec.get("mnt")
    return table is not None and not table.join


def _given(spec: Spec, unasked: tuple[str, ...], kind: str, joined: str) -> Spec:
    wanted: list[Feature] = []
    if "hosts" in unasked:
        wanted.append(Hosts(base="host" if kind == "host" else "own"))
    if "resolv_conf" in unasked:
        wanted.append(_resolv_conf(spec, kind))
    if "hostname_file" in unasked and "hostname" in spec.names:
        wanted.append(HostnameFile())
    if "names" in unasked:
        wanted.append(Names())
    return spec.with_(*wanted, *(_shared(joined) if joined else ()))


def _resolv_conf(spec: Spec, kind: str) -> ResolvConf:
    """That fits the network KIND. pasta has an address that stands for the host's own server, a loopback one too."""
    pasta: Any = spec.get("pasta")
    servers = (pasta.dns,) if pasta is not None and pasta.dns else ()
    return ResolvConf(servers, loopback=kind == "host")


def _shared(name: str) -> list[Feature]:
    """What the container NAME has of them: whose network it is, his are the names."""
    from minictr.runtime.instance import find
    from minictr.runtime.network.names import hosts_path

    instance = find(name)
    other = instance.state.spec
    hosts = Hosts(share=name) if hosts_path(instance.store, instance.id) else other.get("hosts")
    return [feature for feature in (hosts, other.get("resolv_conf")) if feature is not None]


def _contradict(opts: dict[str, Any]) -> None:
    if opts.get("no_hosts") and opts.get("add_host"):
        raise SpecError("--no-hosts and --add-host: the file is the image's, or has that host: keep one")
    servers = opts.get("dns", ())
    if "none" in servers:
        others = [option for dest, option in RESOLVER.items() if dest in opts and dest != "dns"]
        if others or len(servers) > 1:
            raise SpecError(f"--dns none: the file is the image's: leave {(others or ['the other --dns'])[0]} out")


def _resolver(spec: Spec, opts: dict[str, Any], kind: str) -> Spec:
    asked = [dest for dest in RESOLVER if dest in opts]
    if not asked:
        return spec
    if opts.get("dns") == ["none"]:
        return spec.without("resolv_conf")
    present: Any = spec.get("resolv_conf") or _resolv_conf(spec, kind)
    fields = {"dns": "servers", "dns_search": "search", "dns_option": "options"}
    return spec.with_(said(RESOLVER[asked[0]], present.replace, **{fields[dest]: tuple(opts[dest]) for dest in asked}))


def _hosts(spec: Spec, opts: dict[str, Any], kind: str) -> Spec:
    if opts.get("no_hosts"):
        return spec.without("hosts")
    rows = sum(many(opts, "add_host", "--add-host", "add_host"), ())
    if not rows:
        return spec
    present: Any = spec.get("hosts") or Hosts(base="host" if kind == "host" else "own")
    if present.share:
        raise SpecError(f"--add-host with --network container:{present.share}: it has that one's hosts file")
    return spec.with_(said("--add-host", present.replace, entries=rows))
