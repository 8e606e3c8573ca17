"""The parent's half of a start: what Python does before the child exists, and while it waits at the barrier.

``HANDS`` maps a step's call to its function; each takes the :class:`minictr.runtime.launch.Start` and the step's
arguments, and leaves the way back on ``start.on_failure``.
"""

from __future__ import annotations

import os

from minictr.errors import StepFailed, Unsupported
from minictr.features.namespaces import AUTO, LEASED

ESRCH, EBUSY, EXDEV = 3, 16, 18

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from minictr.kernel.cgroups import Place
    from minictr.runtime.launch import Start


def clone(start: Start, *, flags: int) -> None:
    """One namespace flag of the coming clone3(2)."""
    start.flags |= flags


def check_label(start: Start, *, module: str, label: str) -> None:
    """The security MODULE is live and has LABEL."""
    if module == "apparmor":
        from minictr.kernel import apparmor

        apparmor.check(label)
    else:
        from minictr.kernel import selinux

        selinux.check(label)


def open_namespace(start: Start, *, into: str, path: str, kind: str) -> None:
    """The file of a namespace to be joined, as the descriptor that INTO names."""
    from minictr.kernel.namespaces import open_namespace

    if path.startswith("container:"):
        path = _of_container(start, path.partition(":")[2], kind)
    start.own(into, open_namespace(path, kind))


def _of_container(start: Start, name: str, kind: str) -> str:
    """The namespace file of the container NAME, which runs: looked for anew at every start."""
    from minictr.errors import WrongStatus
    from minictr.runtime.instance import find

    instance = find(name, start.record.store.path if start.record is not None else "")
    pid = instance.pid
    if not pid:
        raise WrongStatus(f"network of container {name}: it does not run: start it first", instance.status)
    return f"/proc/{pid}/ns/{kind}"


def landlock_abi(
    start: Start,
    *,
    access: tuple[str, ...],
    network: tuple[str, ...],
    scopes: tuple[str, ...],
    log: bool,
    admin: bool,
) -> None:
    """This kernel can deny all that is to be denied. ADMIN: it needs CAP_SYS_ADMIN, for no_new_privs is not wished."""
    from minictr.kernel.landlock_abi import lacking

    missing = lacking(access, network, scopes, log=log)
    if missing:
        cure = "--best-effort landlock does without it, --without landlock:NAME leaves one out"
        raise Unsupported("landlock", "; ".join(missing.values()), cure, parts=missing)
    if admin:
        from minictr.kernel import capabilities

        if "SYS_ADMIN" not in capabilities.get().effective:
            raise Unsupported("landlock", "without no_new_privs it needs CAP_SYS_ADMIN", "add no_new_privs")


def known_capabilities(start: Start, *, names: tuple[str, ...]) -> None:
    """This kernel has all of NAMES."""
    from minictr.features.capabilities import number_of
    from minictr.kernel import capabilities

    last = capabilities.last_cap()
    lacking = {name: f"{name}: this kernel's last capability is {last}" for name in names if number_of(name) > last}
    if lacking:
        cure = "leave it out, or --best-effort capabilities does without it"
        raise Unsupported("capabilities", "; ".join(lacking.values()), cure, parts=lacking)


def open_process(start: Start, *, pid: int, root: bool) -> None:
    """The root of PID where it is wanted, and a last look at its pidfd, the descriptor "process": while it runs, its
    number is no other's, and what was opened by it is its own."""
    from minictr.runtime.process import is_over

    if root:
        start.own("root", os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
    if is_over(start.fds["process"], 0):
        raise StepFailed(f"join process {pid}", ESRCH, cure="the container is over")


def open_cgroup(start: Start, *, controller: str, version: int, directory: str) -> None:
    """The entrance to a cgroup that is there: v1 by a descriptor that the child writes to, v2 by birth."""
    from minictr.kernel.cgroup_files import entrance

    word, fd = f"cgroup:{controller}", entrance(directory, version)
    if version == 1:
        start.own(word, fd)
        return
    start.fds[word] = -1
    start.own("cgroup", fd)
    start.cgroup_fd = fd


def enter_pidns(start: Start, *, fd: str) -> None:
    """The child is born in the pid namespace FD."""
    start.enter_pidns(start.fds[fd])


def lease_ids(start: Start, *, count: int) -> None:
    """COUNT user ids and as many group ids that nobody has, until the container is over."""
    from minictr.runtime import leases

    assert start.journal is not None
    start.lease = leases.take(start.journal, count)
    start.on_failure.push(start.lease.give_back)


def map_of(start: Start, text: str, kind: str) -> str:
    """An id map as its step has it: AUTO stands for the ids that were leased."""
    if text != AUTO:
        return text
    assert start.lease is not None
    return start.lease.row(kind)


def mapping(start: Start, uid_map: str, gid_map: str) -> int:
    """A user namespace with these maps, made once for all that is id-mapped."""
    word = f"maps:{uid_map}:{gid_map}"
    if word not in start.fds:
        from minictr.kernel.users import user_namespace

        uids, gids = map_of(start, uid_map, "uid"), map_of(start, gid_map, "gid")
        with user_namespace(uid_map=uids, gid_map=gids) as made:
            start.own(word, os.dup(made.fileno()))
    return start.fds[word]


def idmap_tree(start: Start, *, into: str, path: str, recursive: bool, uid_map: str, gid_map: str) -> None:
    """A detached, id-mapped clone of PATH's mount, as the descriptor that INTO names."""
    from minictr.kernel.mounts import idmapped_tree

    start.own(into, idmapped_tree(path, recursive=recursive, userns=mapping(start, uid_map, gid_map)))


def idmap_upper(start: Start, *, into: tuple[str, str, str], upper: str, work: str, uid_map: str, gid_map: str) -> None:
    """The layer UPPER and its WORK directory on one id-mapped mount: the descriptors that INTO names, the mount's
    first. overlayfs.rst: they must be on the same mount."""
    from minictr.kernel.mounts import idmapped_tree

    paths = [os.path.realpath(path) for path in (upper, work)]
    above = os.path.commonpath([os.path.dirname(path) for path in paths])
    start.own(into[0], idmapped_tree(above, recursive=False, userns=mapping(start, uid_map, gid_map)))
    for word, path in zip(into[1:], paths, strict=True):
        try:
            fd = os.open(os.path.relpath(path, above), os.O_PATH | os.O_DIRECTORY, dir_fd=start.fds[into[0]])
        except OSError as err:
            raise StepFailed(f"open layer {path}", err.errno or 0) from err
        start.own(word, fd)
        if not os.path.samestat(os.fstat(fd), os.stat(path)):
            cure = "something is mounted there: name directories on one mount, below a mount point"
            raise StepFailed(f"open layer {path}", EXDEV, cure=cure)


def make_directory(start: Start, *, path: str, mode: int) -> None:
    """PATH, if it is missing; a start that fails removes it again."""
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        if not os.path.isdir(path):
            raise StepFailed(f"mkdir {path}", 20, cure="name a directory") from None
    except OSError as err:
        raise StepFailed(f"mkdir {path}", err.errno or 0) from err
    else:
        start.on_failure.push(os.rmdir, path)


def cgroup(
    start: Start,
    *,
    controller: str,
    parent: str,
    settings: tuple[tuple[str, Any], ...],
    owner: tuple[int, ...],
) -> None:
    """A cgroup of the container's own for CONTROLLER, with its limits; the child enters it by itself. OWNER: the user
    and group who may make groups below.

    On v1 it writes "0" to the descriptor of ``tasks``, as whoever moves only itself needs no grace period (7 ms); on v2
    it is born there (CLONE_INTO_CGROUP). What is written down first, a sweep finds.
    """
    from minictr.kernel import cgroups

    assert start.journal is not None
    try:
        place = cgroups.locate(controller, start.group, parent, seen=bool(start.places))
    except Unsupported:
        if controller not in IMPLIED or cgroups.has(controller):
            raise
        start.fds[f"cgroup:{controller}"] = -1
        return
    start.journal.write_ahead(("cgroup", place.version, controller, place.directory))
    start.on_failure.push(remove_cgroup, place.directory)
    shared = any(place.directory == other.directory for other in start.places.values())  # cpu,cpuacct; all of v2
    if not _made(place) and not shared:
        raise StepFailed(f"mkdir {place.directory}", 17, cure="somebody made a group of that name: try again")
    cgroups.write(place, **dict(settings))
    if owner:
        leased = start.lease if owner == LEASED else None
        cgroups.delegate(place, *((leased.uid, leased.gid) if leased is not None else owner))
    start.places[controller] = place
    open_cgroup(start, controller=controller, version=place.version, directory=place.directory)


def _made(place: Place) -> bool:
    """:func:`cgroups.create`; a process of ours that alone is in the way goes aside, as under systemd-run --scope."""
    from minictr.kernel import cgroups

    try:
        return cgroups.create(place)
    except StepFailed as err:
        from minictr.kernel.cgroup_tasks import make_room

        if err.errno != EBUSY or not make_room(place):
            raise
        return cgroups.create(place)


IMPLIED = frozenset({"cpuacct"})  # controllers of v1 that come with another, and are part of it on v2


def remove_cgroup(directory: str) -> None:
    """A start failed: its cgroup goes, if it was made."""
    from minictr.kernel import cgroups
    from minictr.runtime.store import is_directory

    if is_directory(directory):
        cgroups.remove(directory, recorded=True)


def uid_map(start: Start, *, map: str) -> None:
    """user_namespaces(7): the child's uid map."""
    from minictr.kernel.users import write_uid_map

    write_uid_map(start.pid, map_of(start, map, "uid"))


def gid_map(start: Start, *, map: str, setgroups: str) -> None:
    """user_namespaces(7): the child's gid map, setgroups(2) denied first where it must be."""
    from minictr.kernel.users import write_gid_map

    write_gid_map(start.pid, map_of(start, map, "gid"), setgroups=setgroups)


def oom_score_adj(start: Start, *, value: int) -> None:
    """proc_pid_oom_score_adj(5)."""
    from minictr.kernel.process import set_oom_score_adj

    set_oom_score_adj(start.pid, value)


def of_network(call: str, module: str) -> Callable[..., None]:
    """The hand CALL of a module of :mod:`minictr.runtime.network`, imported when a start needs it."""

    def hand(start: Start, **options: Any) -> None:
        found = __import__(f"minictr.runtime.network.{module}", fromlist=[call])  # importlib is not on the hot path
        getattr(found, call)(start, **options)

    return hand


NETWORK = dict.fromkeys(
    (
        *("lease", "port", "bridge", "bridge_netfilter", "forwarding", "veth", "egress", "conntrack", "nat"),
        *("publish", "publish_proxy", "proxy_bound"),
    ),
    "hands",
)
NETWORK |= dict.fromkeys(("hosts", "resolv_conf", "announce"), "names")
NETWORK |= {"lease_upon": "upon", "upon": "upon", "pasta_ports": "pasta", "pasta": "pasta"}
HANDS: dict[str, Callable[..., None]] = {
    function.__name__: function
    for function in (
        clone,
        check_label,
        open_namespace,
        landlock_abi,
        known_capabilities,
        open_process,
        open_cgroup,
        enter_pidns,
        lease_ids,
        idmap_tree,
        idmap_upper,
        make_directory,
        cgroup,
        uid_map,
        gid_map,
        oom_score_adj,
    )
} | {call: of_network(call, module) for call, module in NETWORK.items()}
