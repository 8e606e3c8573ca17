"""Names in networks: who is called what, and the hosts files that tell it. The steps of a start take the start first.

::

    ROOT/network/NAME/names/ADDRESS   symbolic link to the owner and the names that ADDRESS has, after its cable is up
    ROOT/network/NAME/hosts/OWNER     hosts file of a container in that network; a container in several has one file by
                                      as many links

Both go with the lease of the address, under the network's lock, by whoever takes that back: a container's end, or the
sweep after a kill. Nothing of a container's root is ever looked at: the file that it has mounted is this one.
"""

from __future__ import annotations

import os

from minictr.errors import StateError, StepFailed, WrongStatus
from minictr.features.names import GATEWAY, LOCALHOST, OWN, own_lines
from minictr.kernel.handles import shut
from minictr.runtime.store import SHORT, unlink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minictr.runtime.launch import Start
    from minictr.runtime.network.networks import Networks
    from minictr.runtime.store import Store

NEW = ".new"  # ends what is only being made
KEPT_FLAGS = 0x1 | 0x2 | 0x4 | 0x8  # MOUNT_ATTR_RDONLY, NOSUID, NODEV, NOEXEC: linux/mount.h

__all__ = ["announce", "hosts", "hosts_path", "names_of", "renamed", "resolv_conf", "withdraw"]


# --- steps ---


def hosts(start: Start, *, entries: tuple[tuple[str, str], ...], base: str, share: str, hostname: str) -> None:
    """/etc/hosts as the descriptor "hosts": a mount of the file that is kept for it, or a memory file."""
    from minictr.runtime.network.resolver import host_file

    if share:
        start.own("hosts", _clone(_shared(start, share)))
        return
    nics = () if start.network is None else tuple(start.network.nics)
    gateway = nics[0].gateway if nics else "127.0.0.1"
    own = [f"{gateway if at == GATEWAY else at} {name}" for name, at in entries]
    if not nics:
        lines = host_file("/etc/hosts").splitlines() if base == "host" else list(LOCALHOST)
        known = {word for line in lines for word in line.partition("#")[0].split()[1:]}
        lines += [line for line in own_lines(OWN, hostname) if hostname not in known]
        start.own("hosts", _memory_file("hosts", "".join(f"{line}\n" for line in (*lines, *own))))
        return
    lines = host_file("/etc/hosts").expandtabs(1).splitlines() if base == "host" else list(LOCALHOST)
    for at in nics[0].addresses:
        lines += own_lines(at, hostname)
    start.own("hosts", _kept(start, [*lines, *own]))


def resolv_conf(
    start: Start, *, servers: tuple[str, ...], search: tuple[str, ...], options: tuple[str, ...], loopback: bool
) -> None:
    """/etc/resolv.conf as the descriptor "resolv_conf", a memory file."""
    devices = () if start.network is None else (*start.network.nics, *start.network.upon)
    six = not devices or any(nic.address6 for nic in devices)
    from minictr.runtime.network.resolver import resolver_text

    text = resolver_text(servers, search, options, loopback=loopback, six=six)
    start.own("resolv_conf", _memory_file("resolv.conf", text))


def announce(start: Start, *, aliases: tuple[str, ...]) -> None:
    """The container's name, its ALIASES and the first digits of its id stand for its addresses."""
    from minictr.runtime.network.hands import attachment

    own, words = attachment(start), _words(start, aliases)
    if not words:
        return
    with own.networks() as networks:
        for nic in own.nics:
            for at in nic.addresses:
                _tell(networks, nic.network, at, own.owner, words, knows="hosts" in start.fds)


def _words(start: Start, aliases: tuple[str, ...]) -> list[str]:
    """What the container is called by its neighbours."""
    name = start.program.plan.spec.name
    return [*filter(None, (name,)), *aliases, *((start.record.id[:SHORT],) if start.record is not None else ())]


# --- what is kept ---


def _kept(start: Start, lines: list[str]) -> int:
    """A mount of a new hosts file that begins with LINES and tells who is in the container's networks."""
    from minictr.runtime.network.hands import attachment
    from minictr.runtime.network.hostsfile import beginning, entry

    own = attachment(start)
    networks_of = list(dict.fromkeys(nic.network for nic in own.nics))
    with own.networks() as networks:
        data = beginning(lines)
        for network in networks_of:
            for at, (_, *words) in names_of(networks, network).items():
                data += b"".join(entry(at, words))
        told: Any = start.program.plan.spec.get("names")
        for at in (at for nic in own.nics for at in nic.addresses if told is not None):
            data += b"".join(entry(at, _words(start, told.aliases)))  # its own: nobody need tell it that
        paths = [_directory(networks, network, "hosts", own.owner) for network in networks_of]
        try:
            for path in paths:
                if os.path.lexists(path):  # of a start that was killed, and is swept later than this one
                    os.unlink(path)
            fd = os.open(paths[0], os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                os.fchmod(fd, 0o644)
                os.write(fd, data)
            finally:
                shut(fd)
            for path in paths[1:]:
                os.link(paths[0], path)
        except OSError as err:
            raise StepFailed(f"write {paths[0]}", err.errno or 0) from err
        return _clone(paths[0])


def _clone(path: str) -> int:
    """A mount of the file PATH, read-only; nothing that is mounted over it reaches the host's own tree."""
    from minictr.kernel import trees

    tree = trees.clone(path, recursive=False)
    try:
        trees.make_private(tree, KEPT_FLAGS, what=path)
    except BaseException:
        shut(tree)
        raise
    return tree


def _shared(start: Start, name: str) -> str:
    """The hosts file of the container NAME, which runs."""
    from minictr.runtime.instance import find

    instance = find(name, start.record.store.path if start.record is not None else "")
    path = hosts_path(instance.store, instance.id)
    if not path:
        raise WrongStatus(f"hosts of container {name}: it has none: start it first", instance.status)
    return path


def hosts_path(store: Store, owner: str) -> str:
    """The file that is kept for OWNER; "" where there is none."""
    top = os.path.join(store.path, "network")
    try:
        names = sorted(os.listdir(top))
    except OSError:
        return ""
    return next((path for name in names if os.path.exists(path := f"{top}/{name}/hosts/{owner}")), "")


def names_of(networks: Networks, network: str) -> dict[str, list[str]]:
    """Address -> the owner and the names that it has in NETWORK."""
    top = f"{networks.path}/{network}/names"
    try:
        return {at: os.readlink(f"{top}/{at}").split() for at in sorted(os.listdir(top)) if not at.endswith(NEW)}
    except FileNotFoundError:
        return {}


def _tell(networks: Networks, network: str, at: str, owner: str, words: list[str], *, knows: bool = False) -> None:
    """AT is called WORDS by all of NETWORK from now on, and by nothing else. KNOWS: its OWNER is told already."""
    from minictr.runtime.network.hostsfile import entry, put

    link = _directory(networks, network, "names", at)
    unlink(link + NEW)
    try:
        os.symlink(" ".join((owner, *words)), link + NEW)
        os.rename(link + NEW, link)
    except OSError as err:
        raise StateError(f"write {link}: {os.strerror(err.errno or 0)}") from err
    lines = entry(at, words)
    for path in _files(networks, network):
        if not (knows and path.endswith(owner)):
            put(path, at, lines)


def withdraw(networks: Networks, network: str, at: str, owner: str) -> None:
    """OWNER gives the address AT of NETWORK back: nobody is told its names any more, and its own file goes."""
    from minictr.runtime.network.hostsfile import put

    own = f"{networks.path}/{network}/hosts/{owner}"
    try:
        put(own, "", [])  # somebody in its mount namespace may live on, and those addresses may get other owners
    except FileNotFoundError:
        pass
    unlink(own)
    link = f"{networks.path}/{network}/names/{at}"
    try:
        if os.readlink(link).split()[0] != owner:
            return
    except (OSError, IndexError):
        return
    for path in _files(networks, network):
        put(path, at, [])
    unlink(link)  # last: whoever is killed before is swept, and this done again


def forget(networks: Networks, network: str) -> None:
    """Nobody is in NETWORK any more: what is written of names goes."""
    for kind in ("names", "hosts"):
        top = f"{networks.path}/{network}/{kind}"
        try:
            for entry in os.listdir(top):
                unlink(f"{top}/{entry}")
            os.rmdir(top)
        except FileNotFoundError:
            pass
        except OSError as err:
            raise StateError(f"remove {top}: {os.strerror(err.errno or 0)}") from err


def renamed(store: Store, owner: str, old: str, new: str) -> None:
    """The container OWNER, called OLD until now, is called NEW by its neighbours."""
    from minictr.runtime.network.networks import Networks

    with Networks(store) as networks:
        for network in networks.names():
            for at, (whose, *words) in names_of(networks, network).items():
                if whose == owner:
                    kept = [word for word in words if word != old]
                    _tell(networks, network, at, owner, [new, *kept])


def _files(networks: Networks, network: str) -> list[str]:
    top = f"{networks.path}/{network}/hosts"
    try:
        return [f"{top}/{name}" for name in os.listdir(top)]
    except FileNotFoundError:
        return []


def _directory(networks: Networks, network: str, kind: str, name: str) -> str:
    """The path of NAME in the directory KIND of NETWORK, which is made."""
    top = f"{networks.path}/{network}/{kind}"
    try:
        os.mkdir(top, 0o700)
    except FileExistsError:
        pass
    except OSError as err:
        raise StateError(f"make {top}: {os.strerror(err.errno or 0)}") from err
    return f"{top}/{name}"


def _memory_file(name: str, text: str) -> int:
    """A descriptor of TEXT."""
    fd = os.memfd_create(f"minictr-{name}", os.MFD_CLOEXEC)
    os.write(fd, text.encode("utf-8", "surrogateescape"))
    return fd
