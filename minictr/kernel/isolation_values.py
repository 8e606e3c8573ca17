"""What the isolation of a process is made of: frozen values. None is what could not be read."""

from __future__ import annotations

from minictr.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from minictr.kernel.capabilities import Sets

__all__ = [
    "Devices",
    "Fixed",
    "Init",
    "Membership",
    "Namespace",
    "Reading",
    "Root",
    "Seccomp",
    "Session",
    "Speculation",
    "User",
]


class Fixed(dict[str, "Any"]):
    """A dict that is a value: it cannot be changed, and has a hash."""

    def _frozen(self, *_args: object, **_kwargs: object) -> NoReturn:
        raise AttributeError("this is a value: dict(...) makes a copy to change")

    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _frozen

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(tuple(self.items()))

    def __reduce__(self) -> tuple[type[Fixed], tuple[dict[str, Any]]]:
        return Fixed, (dict(self),)  # pickle would fill an empty one


class Namespace(Value):
    """``id``: the inode number, equal for the same namespace. ``own``: another than the reader's. ``host``: the one
    that the kernel began with; None where that cannot be told."""

    id: int
    own: bool
    host: bool | None


class User(Value):
    """Who it runs as, in numbers of the reader's user namespace. ``uids``, ``gids``: real, effective, saved, fs.

    ``uid_map``, ``gid_map``: (first inside, first outside, count). ``root_mapped``: whether there is a user 0 in its
    user namespace; ``root_is_root``: whether that is the reader's user 0. ``setgroups``: "allow" or "deny".
    """

    uid: int
    gid: int
    uids: tuple[int, ...]
    gids: tuple[int, ...]
    groups: tuple[int, ...]
    uid_map: tuple[tuple[int, int, int], ...] | None = None
    gid_map: tuple[tuple[int, int, int], ...] | None = None
    root_mapped: bool | None = None
    root_is_root: bool | None = None
    setgroups: str | None = None


class Seccomp(Value):
    """``mode``: "none", "strict" or "filter". ``filters``: how many; None before Linux 5.9."""

    mode: str
    filters: int | None


class Speculation(Value):
    """How the kernel guards against speculation for it, in the kernel's words; None where it does not say."""

    store_bypass: str | None
    indirect_branch: str | None


class Root(Value):
    """Its root directory. ``own``: another directory than the reader's. ``readonly``: the mount, or its file system.
    ``nodev``: device nodes in it cannot be opened. ``propagation`` of that mount: "private", "slave" or "shared"; this
    and ``fstype`` are None in a chroot that is no mount point."""

    own: bool
    readonly: bool
    nodev: bool
    fstype: str | None
    propagation: str | None


class Membership(Value):
    """A cgroup it is in. ``path``: as /proc/PID/cgroup says it. ``own``: another than the reader's."""

    path: str
    own: bool


class Devices(Value):
    """Which device nodes it may use. ``rules``: v1's devices.list, None where there is none. ``programs``: how many BPF
    programs its v2 group and those above have, None where that cannot be read. ``restricted``: whether any of it
    denies something; None where that cannot be told."""

    rules: tuple[str, ...] | None
    programs: int | None
    restricted: bool | None


class Session(Value):
    """``own``: another session than the reader's. ``terminal``: whether that has a controlling terminal."""

    own: bool
    terminal: bool


class Init(Value):
    """``inside``: its pid in its own pid namespace. ``name``: the command name of process 1 there. ``reaper``: whether
    that is another process than itself."""

    inside: int
    name: str | None
    reaper: bool


class Reading(Value):
    """All that was read. ``unknown``: dotted name of a field that is None -> why.

    ``pid``, ``start`` (clock ticks since boot): which process; ``command``: its name; ``threads``: how many, and
    ``thread_differences``: rows of /proc/PID/status in which they are not all as the first is, which is described here.
    """

    pid: int
    start: int
    command: str
    threads: int
    thread_differences: tuple[str, ...]
    namespaces: Fixed
    user: User
    capabilities: Sets
    securebits: None
    no_new_privs: bool
    seccomp: Seccomp
    landlock: None
    lsm_label: str | None
    dumpable: bool | None
    speculation: Speculation
    root: Root | None
    kernel_files: Fixed | None
    masked: tuple[str, ...] | None
    readonly: tuple[str, ...] | None
    mounts: Fixed | None
    links: tuple[str, ...] | None
    cgroups: Fixed
    limits: Fixed
    devices: Devices
    rlimits: Fixed
    oom_score_adj: int
    umask: int | None
    personality: int | None
    cpus: str | None
    mems: str | None
    session: Session
    init: Init
    keyring: None
    unknown: Fixed
