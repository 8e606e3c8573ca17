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
    from minictr.steps import Feature

__all__ = ["network"]

KNOWN = "none, host, bridge[:NAME], routed[:NAME], macvlan:PARENT, ipvlan:PARENT, pasta, container:NAME, ns:PATH, pid:N"
CABLES = ("bridge", "routed", "default")
UPON = ("macvlan", "ipvlan")
LATER = ("slirp4netns",)
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
    if not texts and asked and spec.names.isdisjoint(("veth", "pasta")):
        texts = [_usual()]  # what a port or an address is of, as in docker
    cables = [text for text in texts if _kind(text) in CABLES + UPON]
    if len(texts) > 1 and len(cables) < len(texts):
        other = next(text for text in texts if text not in cables)
        raise SpecError(f"--network {other} stands alone: several are bridges, routed, or devices on the host's")
    if len({_kind(text) == "routed" for text in cables if _kind(text) in CABLES}) > 1:
        raise SpecError("--network: bridge and routed together: all cables end in bridges, or none does")
    if cables:
        spec = _cables(spec, cables, opts)
    elif texts and _kind(texts[0]) == "pasta":
        spec = _own(spec).with_(_pasta(texts[0], opts))
    elif texts:
        if asked:
            option = {**OF_A_CABLE, **ADDRESSES}[asked[0]]
            raise SpecError(f"{option} with --network {texts[0]}: it has no address of its own: use --network bridge")
        spec = _joined(spec, texts[0])
    if "egress" in opts:
        spec = _limited(spec, opts)
    from minictr.cli.names import names

    kind, _, name = (texts[0] if texts else "").partition(":")
    spec = names(spec, opts, _kind(kind) if kind else "", name if kind == "container" else "")
    return _published(spec, opts)


def _usual() -> str:
    """The network of who asks for a port or an address alone: a bridge is root's."""
    import os

    return "pasta" if os.geteuid() else "bridge"


def _published(spec: Spec, opts: dict[str, Any]) -> Spec:
    """Every ``--publish``, and what ``--publish-all`` makes of ``--expose``."""
    wanted = many(opts, "publish", "--publish", "publish")
    exposed = [port for group in many(opts, "expose", "--expose", "expose") for port in group]
    if opts.get("publish_all"):
        if not exposed:
            raise SpecError("--publish-all: there are no images that expose ports: name them with --expose")
        taken = {(port.container + place, port.protocol) for port in wanted for place in range(port.count)}
        wanted += [port for port in exposed if (port.container, port.protocol) not in taken]
    labels = [port.label for port in wanted]
    for label in labels:
        if labels.count(label) > 1:
            raise SpecError(f"--publish {label.partition(':')[2]} is given twice")
    if wanted and spec.names.isdisjoint(("veth", "pasta")):
        raise SpecError("--publish: a device on one of the host's has its own address for all: add --network bridge")
    spec = spec.with_(*wanted) if wanted else spec
    proxy = opts.get("publish_proxy")
    if proxy not in (None, "", "only"):
        raise SpecError(f"--publish-proxy={proxy}: only, or nothing, is wanted")
    return spec if proxy is None else spec.with_(PublishProxy(proxy == "only"))


def _kind(text: str) -> str:
    """The word before the colon; a name alone is that of a bridge."""
    kind = text.partition(":")[0]
    if kind in (*CABLES, *UPON, *LATER, "pasta", "none", "host", "private", "container", "ns", "pid"):
        return kind
    return "bridge" if _is_made(kind) else kind


def _is_made(name: str) -> bool:
    """Whether a network of that name was made."""
    import os

    from minictr.runtime.store import root_path

    return bool(name) and "/" not in name and os.path.exists(os.path.join(root_path(), "network", name, "config"))


def _own(spec: Spec) -> Spec:
    """SPEC with a network of its own."""
    spec = spec.without("net", cascade=True).with_("net") if getattr(spec.get("net"), "join", "") else spec
    return spec if "net" in spec.names else spec.with_("net", "loopback")


def _cables(spec: Spec, texts: list[str], opts: dict[str, Any]) -> Spec:
    """A device for each of TEXTS; --ip and the like are the first one's."""
    import minictr.parse as parse

    devices: list[Feature] = []
    for place, text in enumerate(texts):
        option = f"--network {text}"
        kind, name, settings = said("--network", parse.network_words, text)
        if kind not in CABLES + UPON:
            if name:
                raise SpecError(f"{option}: {name!r} is no setting, as ip=ADDRESS is")
            kind, name = "bridge", kind
        fields = _fields(option, settings, opts if not place else {})
        fields.setdefault("device", f"eth{place}")
        if kind in UPON:
            from minictr.features import feature_class

            if not name:
                raise SpecError(f"{option}: on which device of the host? {kind}:PARENT")
            devices.append(said(option, feature_class(kind), parent=name, **fields))
            continue
        devices.append(said(option, Veth, network=name, **fields))
        if name and kind == "bridge" and name != "minictr0" and not _is_made(name):
            cure = f"make it with: minictr network create {name}"
            raise SpecError(f"{option}: there is no network {name}: {cure}")
    spec = _own(spec).with_(*devices)
    kinds = {_kind(text) for text in texts} - {*UPON}
    if not kinds:
        return spec
    wall = () if opts.get("profile") == "lxc" else (Conntrack(),)  # lxc-net lets everything be forwarded
    return spec.with_(*(() if "routed" in kinds else (Bridged(),)), *wall, Nat())


def _limited(spec: Spec, opts: dict[str, Any]) -> Spec:
    """All ``--egress`` together; in a bridge with what lets rules see frames to its neighbours."""
    from minictr.parse.egress import egress

    wish = said("--egress", egress, tuple(opts["egress"]))
    between = ("bridge_netfilter",) if "bridge" in spec.names and "bridge_netfilter" not in spec.names else ()
    return spec.with_(*between, wish)


def _fields(option: str, settings: dict[str, str], opts: dict[str, Any]) -> dict[str, Any]:
    """SETTINGS, and those that have options of their own, as fields of a feature."""
    fields: dict[str, Any] = {key: value for key, value in settings.items() if not key.startswith("interface")}
    fields |= {dest.removesuffix("_address"): opts[dest] for dest in ADDRESSES if opts.get(dest)}
    if device := settings.get("interface_name") or settings.get("interface"):
        fields["device"] = device
    for key in ("mtu", "prefix"):
        if key in fields:
            if not (fields[key].isascii() and fields[key].isdigit() and len(fields[key]) < 7):
                raise SpecError(
                    f"{option}: {key} {fields[key]!r} is not a number of {'bits' if key == 'prefix' else 'bytes'}"
                )
            fields[key] = int(fields[key])
    return fields


def _pasta(text: str, opts: dict[str, Any]) -> Feature:
    import minictr.parse as parse
    from minictr.features.pasta import Pasta

    option = f"--network {text}"
    fields = _fields(option, said("--network", parse.network_words, text)[2], opts)
    only = [family for family in (4, 6) if fields.pop(f"ipv{family}_only", "")]
    if len(only) > 1:
        raise SpecError(f"{option}: ipv4_only and ipv6_only together leave nothing: leave one of them out")
    if fields.get("dns") == "none":
        fields["dns"] = ""
    fields["map_gw"] = bool(fields.get("map_gw"))
    return said(option, Pasta, family=only[0] if only else 0, **fields)  # type: ignore[no-any-return]


def _is_his_alone(spec: Spec) -> bool:
    """Whether SPEC is an ordinary user's, in a user namespace of its own."""
    import os

    userns = spec.get("userns")
    return bool(os.geteuid()) and userns is not None and not getattr(userns, "join", "")


def _joined(spec: Spec, text: str) -> Spec:
    """none, host, container:NAME, ns:PATH, pid:N."""
    from minictr.cli.namespaces import namespace

    kind, _, name = text.partition(":")
    if kind in LATER:
        raise SpecError(f"--network {text}: pasta does what it did, faster: use --network pasta; {KNOWN} are there")
    if kind == "container":
        from minictr.runtime.instance import find

        if not name:
            raise SpecError(f"--network {text}: whose? container:NAME")
        if not find(name).pid:
            raise SpecError(f"--network {text}: that container does not run: minictr start {name}")
        if _is_his_alone(spec):
            cure = f"run the program in that one: minictr exec {name}"
            raise SpecError(f"--network {text}: its network is of its own user namespace: {cure}")
        return spec.without("net", cascade=True).with_(NetNamespace(join=f"container:{name}"))
    if kind not in ("none", "host", "private", "ns", "pid"):
        raise SpecError(f"--network {text}: not one of {KNOWN}, nor a network that was made (minictr network ls)")
    return namespace(spec, "--network", "net", "private" if text == "none" else text)
