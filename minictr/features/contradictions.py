"""Contradictions: wishes that are right alone and wrong together. Each check is small and names both sides and a cure.

The plan runs all of :data:`CHECKS` before it asks any feature for steps, so a mistake is found before anything is
touched, and a feature's ``steps`` need not look for it again.
"""

from __future__ import annotations

from minictr.errors import SpecError
from minictr.features.masks import MaskedPaths, ReadonlyPaths
from minictr.features.mounts import DEVICES, Bind, Tmpfs
from minictr.features.namespaces import GROUPED, OF_GROUPS, own
from minictr.features.process import sysctl_owner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from minictr.features.namespaces import MountNamespace, UserNamespace
    from minictr.features.users import Identity
    from minictr.steps import Context, Feature

# What mounts something at a place of its own.
TARGETS = {
    "proc": "/proc",
    "sysfs": "/sys",
    "dev": "/dev",
    "devpts": "/dev/pts",
    "shm": "/dev/shm",
    "mqueue": "/dev/mqueue",
    "cgroupfs": "/sys/fs/cgroup",
}
HANDLES = 64  # MC_MAX_SLOTS of the core


def check_given_once(ctx: Context) -> None:
    seen: dict[str, Feature] = {}
    for feature in ctx.features:
        if not feature.MANY and feature.name in seen:
            raise SpecError(f"{feature.name} is given twice, as {seen[feature.name]} and {feature}: keep one")
        seen[feature.name] = feature


def check_needs(ctx: Context) -> None:
    for feature in ctx.features:
        for needed, why in feature.NEEDS:
            ways = needed.split("|")
            if ctx.names.isdisjoint(ways):
                told = " or ".join(ways)
                raise SpecError(f"{feature.name} needs {told}: {why}: add {ways[0]}, or leave {feature.name} out")


def check_root(ctx: Context) -> None:
    ways = [name for name in ("pivot_root", "chroot") if ctx.has(name)]
    if len(ways) == 2:
        raise SpecError("pivot_root and chroot both change the root: keep one")
    if ctx.rootfs.strip("/") and not ways and not ctx.has("join"):  # "/" is the host's own
        raise SpecError(f"rootfs {ctx.rootfs} is not entered without pivot_root or chroot: add one, or give no rootfs")
    if not ctx.rootfs:
        for name in (*ways, "overlay", "idmap"):
            if ctx.has(name):
                raise SpecError(f"{name} needs a root file system: give rootfs, or leave {name} out")


def check_joined_mounts(ctx: Context) -> None:
    mount_table: MountNamespace | None = ctx.get("mnt")
    if mount_table is None or not mount_table.join:
        return
    for feature in ctx.features:
        if any(needed == "mnt" for needed, _ in feature.NEEDS):
            raise SpecError(
                f"{feature.name} in a joined mount namespace ({mount_table.join}) would stay there when the program "
                f"is gone: leave {feature.name} out, or make a mount namespace of its own"
            )


def mount_targets(ctx: Context) -> Iterator[tuple[str, Feature]]:
    """Every place something is mounted at, and by whom."""
    for feature in ctx.features:
        if isinstance(feature, (Bind, Tmpfs)):
            yield feature.target, feature
        elif feature.name in TARGETS:
            yield TARGETS[feature.name], feature


def check_targets(ctx: Context) -> None:
    seen: dict[str, Feature] = {}
    for target, feature in mount_targets(ctx):
        other = seen.setdefault(target, feature)
        if other is not feature:
            raise SpecError(f"{other.name} and {feature.name} are both mounted at {target}: leave one of them out")


def check_handles(ctx: Context) -> None:
    held = {"bind", "device"} if ctx.has("userns") else {"bind"}  # a device is a bind there, else a node
    binds = sum(1 for feature in ctx.features if feature.name in held)
    others = 1 + ctx.has("landlock") + (8 if ctx.has("userns") else 0)
    overlay = ctx.get("overlay")
    if ctx.has("idmap") and overlay is not None:
        others += 1 + (3 if overlay.upper else 0)
        room = HANDLES - others - binds  # each layer is mapped by itself, and held until all are
        if len(overlay.lower) > room:
            raise SpecError(
                f"overlay lower: {len(overlay.lower)} layers, at most {max(room, 0)} go below the root with idmap here:"
                " merge some, or leave idmap out"
            )
        others += len(overlay.lower)
    if binds + others > HANDLES:
        raise SpecError(f"bind: {binds} of them, at most {HANDLES - others} go in: bind a directory above them")


def check_groups(ctx: Context) -> None:
    """Where groups are made, and where they are shown, says nothing without one."""
    for name in sorted(OF_GROUPS):
        if ctx.has(name) and GROUPED.isdisjoint(ctx.names):
            cure = f"add memory, pids or another controller, or leave {name} out"
            raise SpecError(f"{name} without any controller: the container has no group of its own: {cure}")
    if ctx.has("cgroupfs") and not own(ctx, "cgroupns"):
        raise SpecError("cgroupfs in a joined cgroup namespace would show groups of others: leave cgroupfs out")
    named = [feature.label for feature in ctx.features if feature.name == "named_cgroup"]
    for label in named:
        if named.count(label) > 1:
            raise SpecError(f"{label.replace(':', ' ')} is given twice: keep one")


def check_notify(ctx: Context) -> None:
    """A program that joins can only be asked about by who waits for it, and once it is born where it will be."""
    wish, join = ctx.get("seccomp"), ctx.get("join")
    if join is None or wish is None or not wish.notifies:
        return
    if join.detached:
        raise SpecError("seccomp: notify: a detached program outlives the function that decides: do not detach it")
    if any(kind.name == "pid" for kind in join.kinds) and not ctx.has("no_new_privs") and not wish.sends:
        cure = "give exec no_new_privs=True, or let sendmsg be"
        raise SpecError(f"seccomp: notify without no_new_privs and sendmsg cannot join a pid namespace: {cure}")


def check_devices(ctx: Context) -> None:
    """A node that may not be made ends the start, and one that may not be opened is no wish of anybody."""
    nodes: dict[str, tuple[str, int, int]] = {}
    if ctx.has("dev"):
        nodes = {f"/dev/{name}": ("c", major, minor) for name, major, minor in DEVICES}
    for node in ctx.all("device"):
        numbers = (node.kind, node.major, node.minor)
        if nodes.setdefault(node.path, numbers) != numbers:
            raise SpecError(f"device {node.path} is made twice, with different numbers: keep one")
    rules = ctx.get("devices")
    if rules is None:
        return
    from minictr.features.cgroup_devices import allowed

    for path, (kind, major, minor) in nodes.items():
        told = f"{kind} {major}:{minor}"
        if not ctx.has("userns") and not allowed(rules.rules, kind, major, minor, "m"):
            cure = "add the rule 'c *:* m', or leave devices out"
            raise SpecError(f"devices: {path} ({told}) may not be made by these rules: {cure}")
        if not any(allowed(rules.rules, kind, major, minor, letter) for letter in "rw"):
            cure = f"add the rule '{told} rwm', or leave {path} out"
            raise SpecError(f"devices: {path} ({told}) may neither be read nor written by these rules: {cure}")


def check_paths(ctx: Context) -> None:
    """Masks and read-only paths of a file system that is not mounted would hide nothing, or the image's own files."""
    for feature in ctx.features:
        if not isinstance(feature, (MaskedPaths, ReadonlyPaths)):
            continue
        for top, name in (("/proc", "proc"), ("/sys", "sysfs")):
            found = next((path for path in feature.paths if path == top or path.startswith(top + "/")), None)
            if found and not ctx.has(name):
                cure = f"add {name}, or leave {found} out"
                raise SpecError(f"{feature.name} names {found} but {name} is not mounted: {cure}")


def check_sysctl(ctx: Context) -> None:
    sysctl = ctx.get("sysctl")
    for key, _ in sysctl.settings if sysctl is not None else ():
        owner = sysctl_owner(key)
        if not own(ctx, owner):
            whose = "a joined namespace" if ctx.has(owner) else "the host"
            cure = f"add {owner}, or leave {key} out"
            raise SpecError(f"sysctl {key} without an own {owner} namespace would set up {whose}: {cure}")


def check_names(ctx: Context) -> None:
    uts = ctx.get("uts")
    for name in ("hostname", "domainname"):
        if uts is not None and uts.join and ctx.has(name):
            raise SpecError(f"{name} in a joined uts namespace ({uts.join}) would rename those in it: leave {name} out")


def check_user_namespace(ctx: Context) -> None:
    user: UserNamespace | None = ctx.get("userns")
    if user is None:
        for feature in ctx.features:
            if isinstance(feature, Bind) and feature.idmap:
                raise SpecError(f"bind {feature.target}: idmap means the maps of userns: add userns with maps")
        return
    shown = [feature.label for feature in ctx.features if feature.name == "idmap" or getattr(feature, "idmap", False)]
    if shown and not user.changes_ids:
        what = "" if shown[0] == "idmap" else f"{shown[0].replace(':', ' ', 1)}: "
        raise SpecError(f"{what}idmap needs the maps of userns: give it uid_map and gid_map, or auto")
    if ctx.has("idmap") and not ctx.rootfs.strip("/"):
        cure = "leave idmap out, or give a root of its own"
        raise SpecError(f"idmap of the host's own root: root inside would be root of all the host's files: {cure}")
    overlay = ctx.get("overlay")
    if user.auto and overlay is not None and overlay.upper and not ctx.has("idmap"):
        raise SpecError(
            "overlay: what is kept in upper would belong to ids that userns auto gives back: add idmap, or give userns "
            "its maps"
        )
    if ctx.has("mqueue") and not own(ctx, "ipc"):
        raise SpecError("mqueue in a user namespace needs an own ipc namespace: add ipc, or leave mqueue out")
    # setns(2) into a user namespace comes after the clone, and these two reach only children made by one
    for name in ("pid", "timens"):
        if user.join and own(ctx, name):
            raise SpecError(f"{name} cannot be new inside a joined userns: join one made in it, or make both new")


def check_disabled_userns(ctx: Context) -> None:
    """The limit of a user namespace is its own root's, unless he has not the capability for it."""
    user: UserNamespace | None = ctx.get("userns")
    if user is None or not ctx.has("disable_userns") or ctx.has("join"):
        return
    if user.join:
        cure = "leave one of them out"
        raise SpecError(f"disable_userns in a joined userns ({user.join}) would limit those in it: {cure}")
    kept = ctx.get("capabilities")
    if kept is None or "SYS_RESOURCE" in kept.bounding:
        cure = "drop it (--cap-drop SYS_RESOURCE)" if kept is not None else "add capabilities without it"
        raise SpecError(f"disable_userns: root of userns could undo it with CAP_SYS_RESOURCE: {cure}")


def check_ids(ctx: Context) -> None:
    who: Identity | None = ctx.get("user")
    if who is None:
        return
    who = who.resolved()
    user: UserNamespace | None = ctx.get("userns")
    if user is None:
        return
    if not user.maps_uid(who.uid):
        raise SpecError(f"user {who.uid} is not in the uid_map of userns: map it, or be a user that is")
    for group in (who.gid, *who.groups):
        if not user.maps_gid(group):
            raise SpecError(f"group {group} is not in the gid_map of userns: map it, or be in groups that are")
    if who.groups and not user.setgroups:
        raise SpecError("user: groups cannot be set in a userns that maps one group: map more, or give none")


def check_propagation(ctx: Context) -> None:
    table: MountNamespace | None = ctx.get("mnt")
    for feature in ctx.features:
        if not isinstance(feature, Bind) or not feature.propagation.endswith("slave") or table is None:
            continue
        if not table.propagation.endswith("slave"):
            raise SpecError(
                f"bind {feature.target}: {feature.propagation} receives nothing while mnt is {table.propagation}: "
                f"give mnt the propagation slave, or the bind none"
            )


def check_securebits(ctx: Context) -> None:
    """Who leaves user 0 loses the privilege that setting them needs, but for what capabilities keep meanwhile."""
    who: Identity | None = ctx.get("user")
    if ctx.has("securebits") and not ctx.has("capabilities") and who is not None and who.resolved().uid != 0:
        cure = "add capabilities, or be user 0"
        raise SpecError(f"securebits of user {who.user} need capabilities, which keep CAP_SETPCAP until then: {cure}")


def check_held(ctx: Context) -> None:
    """For a start in two halves. A profile that is removed in between confines nothing, and only /proc would tell."""
    for name in ("apparmor", "selinux"):
        if ctx.has(name) and not ctx.has("proc"):
            raise SpecError(
                f"{name} in a container that is created now and started later needs proc, by which its label is read "
                f"back: add proc, leave {name} out, or start it at once"
            )


def check_hosts(ctx: Context) -> None:
    """The host is called by the address that it has in a network of the container's."""
    hosts = ctx.get("hosts")
    if hosts is None or not own(ctx, "net") or ctx.has("veth"):
        return
    from minictr.features.names import GATEWAY

    if any(at == GATEWAY for _, at in hosts.entries):
        cure = "use --network bridge, or name an address"
        raise SpecError(f"{GATEWAY}: the container has no network that the host is in: {cure}")


def check_network(ctx: Context) -> None:
    """A cable leads into a network of the container's own, and every device, address and port is one."""
    cables = [name for name in ("veth", "macvlan", "ipvlan") if ctx.has(name)]
    for name in cables:
        if not own(ctx, "net"):
            cure = f"leave {name} out"
            raise SpecError(f"{name} in a joined network namespace would stay there when the program is gone: {cure}")
    if ctx.has("pasta"):
        check_pasta(ctx, cables)
    if ctx.has("egress") and ctx.has("bridge") and not ctx.has("bridge_netfilter"):
        cure = "add bridge_netfilter, or be routed (--network routed)"
        raise SpecError(
            f"egress in a bridge without bridge_netfilter: no rule sees what goes to its neighbours: {cure}"
        )
    ports = ctx.all("publish")
    if ctx.has("publish_proxy") and any(port.protocol == "sctp" for port in ports):
        raise SpecError("publish_proxy passes on TCP and UDP: publish SCTP without it, by address translation")
    seen: dict[str, str] = {}
    for feature in ctx.features:
        if feature.name in cables or feature.name == "publish":
            device = getattr(feature, "device", "") or feature.label
            if device in seen:
                both = f"{seen[device]} and {feature.label}" if seen[device] != feature.label else feature.label
                raise SpecError(f"{both.replace(':', ' ', 1)} is given twice: keep one, or name another device")
            seen[device] = feature.label
    if ports:
        check_ports(sum(port.count for port in ports))


def check_ports(count: int) -> None:
    """COUNT of them can be published."""
    from minictr.features.network import PORTS

    if count > PORTS:
        raise SpecError(f"publish: more than {PORTS} ports: publish fewer, or use the host's network (--network host)")


def check_pasta(ctx: Context, cables: list[str]) -> None:
    """pasta serves a namespace that is there when the child waits, and is all that this has of the outside."""
    if not own(ctx, "net"):
        raise SpecError("pasta in a joined network namespace would serve those in it too: leave pasta out")
    user: UserNamespace | None = ctx.get("userns")
    if user is not None and user.join:
        raise SpecError("pasta inside a joined userns: its network is made too late for that: make userns new")
    if cables:
        raise SpecError(f"pasta and {cables[0]} both have the default route: leave one of them out")


CHECKS: tuple[Callable[[Context], None], ...] = (
    check_given_once,
    check_needs,
    check_root,
    check_joined_mounts,
    check_targets,
    check_handles,
    check_groups,
    check_notify,
    check_devices,
    check_paths,
    check_sysctl,
    check_names,
    check_hosts,
    check_user_namespace,
    check_disabled_userns,
    check_ids,
    check_propagation,
    check_securebits,
    check_network,
)
