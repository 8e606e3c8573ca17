"""Names: /etc/hosts, /etc/resolv.conf and /etc/hostname of its own, and what others call it. hosts(5), resolv.conf(5).

Each file lies over the image's, which is not written; see :class:`EtcFile`. Where a container has a cable, its hosts
file also tells the names of all containers in its networks, and is kept current while it runs.
"""

from __future__ import annotations

from minictr.errors import SpecError
from minictr.features.check import choice, frozen, sequence, shown, word
from minictr.features.mounts import NEEDS_MNT
from minictr.steps import ATTACH, PREPARE, SETUP, Context, Feature, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, ClassVar

ETC_TREE, ETC_SEALED = 1, 2  # flags of etc_file: enum mc_etc_flag of the core
HOST_NAME_MAX = 253  # of a host in a hosts file: RFC 1035, 2.3.4
ALIAS_MAX = 63  # of one that others know it by: a line of theirs holds it whole
GATEWAY = "host-gateway"  # docker's word for the host's own address in the container's network
ALIASES, ENTRIES, SERVERS = 64, 1024, 16
LOCALHOST = (
    "127.0.0.1 localhost",
    "::1 localhost ip6-localhost ip6-loopback",
    "ff02::1 ip6-allnodes",
    "ff02::2 ip6-allrouters",
)
OWN = "127.0.1.1"  # of its own name where it has no address: as Debian's installer has it
OVER = ("bind", "tmpfs")
PLACES = frozenset({("etc", "hosts"), ("etc", "resolv.conf"), ("etc", "hostname")})


def host_name(value: object, what: str, limit: int = HOST_NAME_MAX) -> str:
    """VALUE if it can stand for a host in a hosts file: letters, digits, '-', '_' between dots."""
    name = word(value, what, limit=limit)
    for label in name.split("."):
        letters = label.replace("-", "").replace("_", "")
        if not label or not letters.isascii() or not letters.isalnum() or label[0] == "-" or label[-1] == "-":
            raise SpecError(f"{what}: {shown(name)} is not letters, digits, '-' and '_' between dots")
    return name


def address(value: object, what: str) -> str:
    """An IPv4 or IPv6 address in its usual spelling."""
    from minictr.addresses import packed, spelled

    try:
        family, data = packed(word(value, what))
    except SpecError:
        raise SpecError(f"{what}: {shown(value)} is no IPv4 or IPv6 address") from None
    return spelled(family, int.from_bytes(data, "big"))


def own_lines(at: str, hostname: str) -> list[str]:
    """The line of a hosts file for its own name; of a full one the short one too, as hostname(1) wants it."""
    short = hostname.partition(".")[0]
    return [f"{at} {hostname}" + (f" {short}" if short != hostname else "")] if hostname else []


class EtcFile(Feature):
    """What the files have in common: where they are, and how they get there.

    The image's own is covered, whatever it is; a link of the image is covered itself, wherever it leads. One that is
    missing is made, empty, for a mount needs a place; where the root is read-only /etc is shown with it instead. A
    volume at that path, or over all of /etc, is what counts: then there is nothing to do.
    """

    PATH: ClassVar[str] = ""
    NEEDS: ClassVar[tuple[tuple[str, str], ...]] = (NEEDS_MNT,)

    def covered(self, ctx: Context) -> bool:
        """Whether a volume of the user's is there."""
        return any(one.name in OVER and getattr(one, "target", "") in ("/etc", self.PATH) for one in ctx.features)

    def place(self, ctx: Context, *, data: str = "", fd: str = "", tree: bool = False) -> Step:
        """The step that puts it there: DATA, or what the descriptor FD has, or with TREE is."""
        sealed = ctx.has("readonly") and not ctx.has("overlay")
        return self.step(
            "etc_file",
            SETUP,
            self.PATH,
            path=self.PATH,
            data=data.encode(),
            dir="/dev" if ctx.has("dev") else "",
            source=fd or -1,
            beside=sorted(
                one.PATH.rpartition("/")[2] for one in ctx.features if isinstance(one, EtcFile) and not one.covered(ctx)
            ),
            flags=(ETC_TREE if tree else 0) | (ETC_SEALED if sealed else 0),
        )


class HostnameFile(EtcFile):
    """/etc/hostname says its host name. hostname(5)."""

    NAME = "hostname_file"
    SUMMARY = "/etc/hostname says its host name"
    PATH = "/etc/hostname"
    NEEDS = (NEEDS_MNT, ("hostname", "it has no name of its own that could be told"))

    def steps(self, ctx: Context) -> Iterator[Step]:
        if not self.covered(ctx):
            yield self.place(ctx, data=f"{getattr(ctx.get('hostname'), 'hostname', '')}\n")


class Hosts(EtcFile):
    """/etc/hosts: localhost, its own name, ``entries`` as (name, address), and the containers of its networks.

    ``entries``: "host-gateway" as an address is the host's in the first of its networks. ``base``: "own", or "host" for
    what the host's file says first. ``share``: the name of a container whose file it has, for one in that one's
    network. Where it has a cable the file is kept current, and read-only; else it is its own. hosts(5).
    """

    NAME = "hosts"
    SUMMARY = "/etc/hosts of its own, with the names of its neighbours"
    PATH = "/etc/hosts"

    entries: tuple[tuple[str, str], ...] = ()
    base: str = "own"
    share: str = ""

    def check(self) -> None:
        choice(self.base, "hosts base", ("own", "host"))
        rows = []
        for row in sequence(self.entries, "hosts entries"):
            if not isinstance(row, (tuple, list)) or len(row) != 2:
                raise SpecError(f"hosts entries: {shown(row)} is not (name, address)")
            name, at = host_name(row[0], "hosts name"), row[1]
            rows.append((name, GATEWAY if at == GATEWAY else address(at, f"hosts {name}")))
        if len(rows) > ENTRIES:
            raise SpecError(f"hosts: {len(rows)} entries, at most {ENTRIES} are read by all programs")
        frozen(self, "entries", tuple(rows))
        word(self.share, "hosts share", empty=True)

    def steps(self, ctx: Context) -> Iterator[Step]:
        if self.covered(ctx):
            return
        named = ctx.get("hostname")
        hostname = named.hostname if named is not None else ""
        kept, asked = ctx.has("veth"), any(at == GATEWAY for _, at in self.entries)
        if kept or self.share or asked or self.base == "host":
            about = f"of {self.share}" if self.share else "its names and its neighbours'" if kept else "the host's"
            args: dict[str, Any] = {name: getattr(self, name) for name in self._fields} | {"hostname": hostname}
            yield self.step("hosts", PREPARE, about, undo="removed with the container", **args)
            yield self.place(ctx, fd="hosts", tree=kept or bool(self.share))
            return
        lines = [*LOCALHOST, *own_lines(OWN, hostname), *(f"{at} {name}" for name, at in self.entries)]
        yield self.place(ctx, data="".join(f"{line}\n" for line in lines))


class ResolvConf(EtcFile):
    """/etc/resolv.conf: the host's at the start, less name servers that are not to be reached from its network.

    ``servers``, ``search``, ``options`` take the place of the host's; ``search`` (".",) is none. ``loopback``: those
    at 127.0.0.1 and its like are reached, for its network is the host's own. resolv.conf(5).
    """

    NAME = "resolv_conf"
    SUMMARY = "/etc/resolv.conf that fits its network"
    PATH = "/etc/resolv.conf"

    servers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    loopback: bool = False

    def check(self) -> None:
        for field in ("servers", "search", "options"):
            words = sequence(getattr(self, field), f"resolv_conf {field}")
            if len(words) > SERVERS:
                raise SpecError(f"resolv_conf {field}: {len(words)} of them, at most {SERVERS} are read by any program")
            frozen(self, field, words)
        frozen(self, "servers", tuple(address(one, "resolv_conf server") for one in self.servers))
        for one in self.search:
            if one != ".":
                host_name(one, "resolv_conf search")
        if "." in self.search and len(self.search) > 1:
            raise SpecError("resolv_conf search: . means none: name it alone")
        for one in self.options:
            if " " in word(one, "resolv_conf option", limit=HOST_NAME_MAX) or "\t" in one or not one.isprintable():
                raise SpecError(f"resolv_conf option: {shown(one)} is not one word, as ndots:2")

    def steps(self, ctx: Context) -> Iterator[Step]:
        if self.covered(ctx):
            return
        about = ", ".join(self.servers) or "the host's"
        args = {name: getattr(self, name) for name in self._fields}
        yield self.step("resolv_conf", PREPARE, about, **args)
        yield self.place(ctx, fd="resolv_conf")


class Names(Feature):
    """Containers of its networks find it by its name, its ``aliases``, and the first digits of its id.

    They do by their hosts files (:class:`Hosts`), which are kept current: from its start to its end."""

    NAME = "names"
    SUMMARY = "its neighbours find it by name"
    NEEDS = (("veth", "it is in no network whose containers could call it"),)

    aliases: tuple[str, ...] = ()

    def check(self) -> None:
        words = sequence(self.aliases, "names aliases")
        if len(words) > ALIASES:
            raise SpecError(f"names: {len(words)} aliases, at most {ALIASES} are kept")
        frozen(self, "aliases", tuple(dict.fromkeys(host_name(one, "alias", ALIAS_MAX) for one in words)))

    def steps(self, ctx: Context) -> Iterator[Step]:
        yield self.step(
            "announce", ATTACH, " ".join(self.aliases) or "its name", undo="taken back with it", aliases=self.aliases
        )
