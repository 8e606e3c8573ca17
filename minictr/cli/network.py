"""``--network`` and what goes with it: options to features. Not read where none of them is given."""

from __future__ import annotations

from minictr.cli.given import many, said
from minictr.errors import SpecError
from minictr.features.namespaces import NetNamespace
from minictr.features.network import Bridged, Conntrack, Nat, Veth
from minictr.features.publish_proxy import PublishProxy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minictr.spec import Spec

__all__ = ["network"]

KNOWN = "none, host, bridge[:NAME], routed[:NAME], container:NAME, ns:PATH and pid:N"
CABLES = ("bridge", "routed", "default")
LATER = ("macvlan", "ipvlan", "pasta", "slirp4netns")
OF_A_CABLE = {"publish": "--publish", "publish_all": "--publish-all", "network_alias": "--network-alias"}
OF_A_CABLE |= {"egress": "--egress", "publish_proxy": "--publish-proxy"}
ADDRESSES = {"ip": "--ip", "ip6": "--ip6", "mac_address": "--mac-address"}


def network(spec: Spec, opts: dict[str, Any]) -> Spec:
    """Every ``--network``, and addresses, ports and names."""
    texts: list[str] = list(opts.get("net", ()))
    asked = [dest for dest in (*OF_A_CABLE, *ADDRESSES) if opts.get(dest, False) is not False]
    for dest, option in ADDRESSES.items():
        if opts.get(dest) == "":
            raise SpecError(f"{option}: empty: name an address")
    if not texts and asked and "veth" not in spec.names:
        texts = ["bridge"]  # what a port or an address is of, as in docker
    cables = [text for text in texts if _kind(text) in CABLES]
    if len(texts) > 1 and len(cables) < len(texts):
        other = next(text for text in texts if text not in cables)
        raise SpecError(f"--network {other} stands alone: several are bridges, or several are routed")
    if len({_kind(text) == "routed" for text in cables}) > 1:
        raise SpecError("--network: bridge and routed together: all cables end in bridges, or none does")
    if cables:
        spec = _cables(spec, cables, opts)
    elif texts:
        if asked:
            option = {**OF_A_CABLE, **ADDRESSES}[asked[0]]
            raise SpecError(f"{option} with --network {texts[0]}: it has no address of its own: use --network bridge")
        spec = _joined(spec, texts[0])
    if "egress" in opts:
        spec = _limited(spec, opts)
    wanted = many(opts, "publish", "--publish", "publish")
    exposed = [port for group in many(opts, "expose", "--expose", "expose") for port in group]
    if opts.get("publish_all"):
        if not exposed:
            raise SpecError("--publish-all: there are no images that expose ports: name them with --expose")
        taken = {(port.container + place, port.protocol) for port in wanted for place in range(port.count)}
        wanted += [port for port in exposed if (port.container, port.protocol) not in taken]
    from minictr.cli.names import names

    kind, _, name = (texts[0] if texts else "").partition(":")
    spec = names(spec, opts, _kind(kind) if kind else "", name if kind == "container" else "")
    labels = [port.label for port in wanted]
    for label in labels:
        if labels.count(label) > 1:
            raise SpecError(f"--publish {label.partition(':')[2]} is given twice")
    spec = spec.with_(*wanted) if wanted else spec
    proxy = opts.get("publish_proxy")
    if proxy not in (None, "", "only"):
        raise SpecError(f"--publish-proxy={proxy}: only, or nothing, is wanted")
    return spec if proxy is None else spec.with_(PublishProxy(proxy == "only"))


def _kind(text: str) -> str:
    """The word before the colon; a name alone is that of a bridge."""
    kind = text.partition(":")[0]
    if kind in CABLES or kind in LATER or kind in ("none", "host", "private", "container", "ns", "pid"):
        return kind
    return "bridge" if _is_made(kind) else kind


def _is_made(name: str) -> bool:
    """Whether a network of that name was made."""
    import os

    from minictr.runtime.store import root_path

    return bool(name) and "/" not in name and os.path.exists(os.path.join(root_path(), "network", name, "config"))


def _cables(spec: Spec, texts: list[str], opts: dict[str, Any]) -> Spec:
    """A veth for each of TEXTS; --ip and the like are the first one's."""
    import minictr.parse as parse

    cables: list[Veth] = []
    for place, text in enumerate(texts):
        option = f"--network {text}"
        kind, name, settings = said("--network", parse.network_words, text)
        if kind not in CABLES:
            if name:
                raise SpecError(f"{option}: {name!r} is no setting, as ip=ADDRESS is")
            kind, name = "bridge", kind
        fields = {key: settings[key] for key in ("ip", "ip6", "mac") if key in settings}
        if not place:
            fields |= {dest.removesuffix("_address"): opts[dest] for dest in ADDRESSES if opts.get(dest)}
        device = settings.get("interface_name") or settings.get("interface") or f"eth{place}"
        mtu = settings.get("mtu", "0")
        if not (mtu.isascii() and mtu.isdigit() and len(mtu) < 7):
            raise SpecError(f"{option}: mtu {mtu!r} is not a number of bytes")
        cables.append(said(option, Veth, device, name, mtu=int(mtu), **fields))
        if name and kind == "bridge" and name != "minictr0" and not _is_made(name):
            cure = f"make it with: minictr network create {name}"
            raise SpecError(f"{option}: there is no network {name}: {cure}")
    bridged = not texts[0].startswith("routed")
    spec = spec.without("net", cascade=True).with_("net") if getattr(spec.get("net"), "join", "") else spec
    if "net" not in spec.names:
        spec = spec.with_("net", "loopback")
    wall = () if opts.get("profile") == "lxc" else (Conntrack(),)  # lxc-net lets everything be forwarded
    return spec.with_(*cables, *((Bridged(),) if bridged else ()), *wall, Nat())


def _limited(spec: Spec, opts: dict[str, Any]) -> Spec:
    """All ``--egress`` together; in a bridge with what lets rules see frames to its neighbours."""
    from minictr.parse.egress import egress

    wish = said("--egress", egress, tuple(opts["egress"]))
    between = ("bridge_netfilter",) if "bridge" in spec.names and "bridge_netfilter" not in spec.names else ()
    return spec.with_(*between, wish)


def _joined(spec: Spec, text: str) -> Spec:
    """none, host, container:NAME, ns:PATH, pid:N."""
    from minictr.cli.build import namespace

    kind, _, name = text.partition(":")
    if kind in LATER:
        raise SpecError(f"--network {text}: not built yet; {KNOWN} are")
    if kind == "container":
        from minictr.runtime.instance import find

        if not name:
            raise SpecError(f"--network {text}: whose? container:NAME")
        if not find(name).pid:
            raise SpecError(f"--network {text}: that container does not run: minictr start {name}")
        return spec.without("net", cascade=True).with_(NetNamespace(join=f"container:{name}"))
    if kind not in ("none", "host", "private", "ns", "pid"):
        raise SpecError(f"--network {text}: not one of {KNOWN}, nor a network that was made (minictr network ls)")
    return namespace(spec, "--network", "net", "private" if text == "none" else text)
