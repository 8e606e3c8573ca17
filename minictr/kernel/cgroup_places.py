"""Where each controller lives on this host, and where a group of ours goes. cgroups(7).

A host has cgroup v1, v2, or both at once (hybrid), where a controller sits on one side only. Names are the same on
both: ``io`` is v1's blkio, ``freezer`` v2's cgroup.freeze, ``devices`` v2's BPF program, ``named:systemd`` a v1
hierarchy without a controller, ``raw`` and ``unified`` the v2 hierarchy itself. ``cpuacct`` is on v1 only.
"""

from __future__ import annotations

import os

from minictr.errors import SpecError, StepFailed, Unsupported
from minictr.kernel.cgroup_files import content
from minictr.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from minictr.kernel.mountinfo import MountInfo

__all__ = ["Hierarchy", "Place", "has", "hierarchies", "hierarchy_of", "home", "locate", "own_groups"]

NAME_MAX = 255
V2_OWN = ("freezer", "devices", "raw", "unified")  # not in cgroup.controllers: every v2 group has them
CURE_CONTROLLER = "look at /proc/cgroups; cgroup_disable= on the kernel's command line takes controllers away"


class Hierarchy(Value):
    """One tree of groups. ``controllers``: by our names. ``mount``: where it is seen; "" when nowhere.

    ``own``: the absolute directory of this process's own group; "" where the mount does not show it.
    """

    version: int
    controllers: tuple[str, ...]
    mount: str
    own: str


class Place(Value):
    """A group in the hierarchy where CONTROLLER lives, there or not yet.

    ``base`` is the directory below which all is ours; ``mount`` the top of the hierarchy; ``direct``: it is right below
    a group that was there before, so that none was made on the way to it.
    """

    version: int
    controller: str
    directory: str
    base: str = ""
    mount: str = ""
    direct: bool = False


class _Seen:
    """What was found out, for as long as /proc/self/cgroup reads the same."""

    text = b""
    hierarchies: tuple[Hierarchy, ...] = ()
    homes: dict[str, Hierarchy] = {}


def hierarchies(*, fresh: bool = False) -> tuple[Hierarchy, ...]:
    """All hierarchies with a controller or a name, v2 last; from /proc/self/cgroup and mountinfo.

    Kept as long as /proc/self/cgroup says the same (7 us to read here; all of it takes 100 us); ``fresh`` looks again,
    for instance after mounts changed. Raises StepFailed without /proc.
    """
    text = _bytes("/proc/self/cgroup")
    if text != _Seen.text or fresh:
        from minictr.kernel.mountinfo import parse

        lines = _bytes("/proc/self/mountinfo").splitlines()
        mounts = parse(b"\n".join(line for line in lines if b" - cgroup" in line))
        found = tuple(_ours(hierarchy_of(line.split(":", 2), mounts)) for line in os.fsdecode(text).splitlines())
        homes: dict[str, Hierarchy] = {}
        for hierarchy in found:  # v1 lines come first: where a controller is on v1, v2 does not have it
            names = (*hierarchy.controllers, *V2_OWN) if hierarchy.version == 2 else hierarchy.controllers
            for name in names:
                homes.setdefault(name, hierarchy)
        _Seen.text, _Seen.hierarchies, _Seen.homes = text, found, homes
    return _Seen.hierarchies


def _ours(hierarchy: Hierarchy) -> Hierarchy:
    """HIERARCHY with the group that this process was in before it made room there: groups are made beside it."""
    own, slash, last = hierarchy.own.rpartition("/")
    return hierarchy.replace(own=own) if hierarchy.version == 2 and slash and last == ASIDE else hierarchy


def hierarchy_of(row: list[str], mounts: Iterable[MountInfo]) -> Hierarchy:
    """One line of /proc/PID/cgroup: ``number:controllers:path``. ``own`` is then PID's group, where MOUNTS show it."""
    _, names, path = row
    fstype = "cgroup" if names else "cgroup2"
    options = set(names.split(",")) if names else set()
    mount = own = ""
    for seen in mounts:
        if seen.fstype != fstype or not options <= {*seen.super_options}:
            continue
        shown = _below(path, seen.root)
        if shown is not None:
            mount, own = seen.target, (seen.target + shown).rstrip("/")
            break
        mount = mount or seen.target
    controllers = tuple(_OUR_NAMES.get(name, name).replace("name=", "named:") for name in sorted(options))
    if fstype == "cgroup2" and mount:
        try:
            controllers = tuple(os.fsdecode(_bytes(f"{mount}/cgroup.controllers")).split())
        except StepFailed:
            mount = own = ""
    return Hierarchy(1 if names else 2, controllers, mount, own)


ASIDE = "minictr.self"  # where a process of ours goes that is in the way: cgroup_tasks.step_aside
_OUR_NAMES = {"blkio": "io"}


def _below(path: str, root: str) -> str | None:
    """PATH as seen below ROOT, the part of the tree that is mounted; None when it is not in it."""
    if root == "/":
        return path
    if path == root or path.startswith(root + "/"):
        return path[len(root) :]
    return None


def _bytes(path: str) -> bytes:
    try:
        return content(path)
    except OSError as err:
        raise StepFailed(f"read {path}", err.errno or 0) from err


def home(controller: str, *, seen: bool = False) -> Hierarchy:
    """The hierarchy where CONTROLLER lives. Raises Unsupported with the reason and the cure.

    ``seen``: this process looked a moment ago and has not moved since: /proc/self/cgroup, which the kernel writes under
    a lock that every change of a group takes too, is not read again.

    >>> home("memory").version
    """
    if not seen or not _Seen.homes:
        hierarchies()
    found = _Seen.homes.get(controller)
    if found is None:
        raise Unsupported(controller, *_missing(controller))
    if not found.mount:
        name = {"io": "blkio"}.get(controller, controller).replace("named:", "none,name=")
        how = "mount -t cgroup2 none /sys/fs/cgroup" if found.version == 2 else f"mount -t cgroup -o {name} none /mnt"
        raise Unsupported(controller, "its hierarchy is mounted nowhere here", how)
    return found


def has(controller: str, *, seen: bool = False) -> bool:
    """Whether CONTROLLER has a hierarchy that is mounted here. ``seen``: as in :func:`home`."""
    try:
        home(controller, seen=seen)
    except Unsupported:
        return False
    return True


def may_make(controller: str, parent: str = "", *, seen: bool = False) -> bool:
    """Whether CONTROLLER is here, and this user may make a group below his own, or PARENT as :func:`locate` has it.

    Root may wherever it is mounted writable, which only trying tells."""
    try:
        place = locate(controller, "a", parent, seen=seen)
    except Unsupported:
        return False
    if os.geteuid() == 0:
        return True
    if place.version == 2 and controller not in V2_OWN:
        try:
            given = content(f"{place.base}/cgroup.controllers").split()
        except OSError:
            return False
        if controller.encode() not in given:
            return False
    return os.access(place.base, os.W_OK)


def _missing(controller: str) -> tuple[str, str]:
    if controller == "cpuacct":
        return "it is on cgroup v1 only; v2 counts in cpu.stat", ""
    if controller in V2_OWN:
        return "no cgroup v2 hierarchy is mounted here", "mount -t cgroup2 none /sys/fs/cgroup/unified"
    if controller.startswith("named:"):
        name = controller.removeprefix("named:")
        return "no such v1 hierarchy", f"mount -t cgroup -o none,name={name} none /sys/fs/cgroup/{name}"
    return "this kernel has no such controller, or no hierarchy with it is mounted", CURE_CONTROLLER


def locate(controller: str, name: str, parent: str = "", *, seen: bool = False) -> Place:
    """Where the group NAME with CONTROLLER is, or would be: nothing is touched.

    NAME: one name, or several with slashes. ``parent``: "" is this process's own group; a path is below that; with a
    slash in front it is below what of the hierarchy is mounted. ``..`` is refused. ``seen``: as in :func:`home`. Raises
    SpecError, Unsupported.

    >>> locate("memory", "lab").directory
    '/sys/fs/cgroup/memory/lab'
    """
    hierarchy = home(controller, seen=seen)
    base = hierarchy.mount if parent.startswith("/") else hierarchy.own
    if not base:
        reason = f"{hierarchy.mount} shows another part of the tree than the one this process is in"
        raise Unsupported(controller, reason, "give a parent that begins with a slash, or mount it inside")
    if parent.strip("/"):
        base = f"{base.rstrip('/')}/{'/'.join(_parts(parent.strip('/'), 'parent'))}"
    directory = f"{base.rstrip('/')}/{'/'.join(_parts(name, 'name'))}"
    return Place(hierarchy.version, controller, directory, base, hierarchy.mount, not parent and "/" not in name)


def _parts(path: str, what: str) -> list[str]:
    parts = path.split("/")
    for part in parts:
        if part in ("", ".", "..") or len(os.fsencode(part)) > NAME_MAX or "\0" in part or "\n" in part:
            raise SpecError(f"cgroup {what}: {path!r}: {part!r} is no name of a group")
        prefix, dot, _ = part.partition(".")
        if part in ("tasks", "notify_on_release", "release_agent") or (dot and prefix in _PREFIXES):
            raise SpecError(f"cgroup {what}: {path!r}: {part!r} is or may be the name of a control file")
    return parts


# a group called like a file cannot be made, or hides one that a later kernel has
_PREFIXES = frozenset(
    "cgroup cpu cpuacct cpuset memory pids io blkio devices freezer hugetlb rdma misc irq dmem net_cls net_prio"
    " perf_event".split()
)


def own_groups() -> tuple[str, ...]:
    """The directory of this process's own group in every hierarchy that shows it."""
    return tuple(hierarchy.own for hierarchy in hierarchies() if hierarchy.own)
