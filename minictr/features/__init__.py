"""Wishes: one frozen value per kernel feature, pure. ``REGISTRY`` maps names to classes, ``PROFILES`` names to tuples.

A feature answers ``steps(ctx)`` with the kernel operations that grant it and touches nothing itself; the hands are
the modules of the same names under :mod:`minictr.kernel`. Leaving a feature out leaves its steps out: there is no
other switch.
"""

from __future__ import annotations

import sys
from _collections_abc import Mapping

from minictr.errors import SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from minictr.features.capabilities import Capabilities, NoNewPrivs, Securebits
    from minictr.features.cgroup_devices import Device, Devices, Hugetlb, Io, Misc, Rdma
    from minictr.features.cgroupfs import Cgroupfs
    from minictr.features.cgroups import CgroupConf, CgroupParent, Cpu, Cpuset, Memory, NamedCgroup
    from minictr.features.controllers import Freezer, Pids
    from minictr.features.disable_userns import DisableUserns
    from minictr.features.landlock import Landlock
    from minictr.features.loopback import Loopback
    from minictr.features.lsm import AppArmor, SELinux
    from minictr.features.masks import MaskedPaths, ReadonlyPaths
    from minictr.features.mounts import (
        Bind,
        Dev,
        Devpts,
        Mqueue,
        Proc,
        Shm,
        Sysfs,
        Tmpfs,
    )
    from minictr.features.names import HostnameFile, Hosts, Names, ResolvConf
    from minictr.features.namespaces import (
        CgroupNamespace,
        IpcNamespace,
        MountNamespace,
        NetNamespace,
        PidNamespace,
        TimeNamespace,
        UserNamespace,
        UtsNamespace,
    )
    from minictr.features.network import Bridged, BridgeNetfilter, Conntrack, Nat, Publish, Veth
    from minictr.features.pasta import Pasta
    from minictr.features.process import (
        BootId,
        Cwd,
        Domainname,
        Env,
        Hostname,
        Init,
        Keyring,
        OomScoreAdj,
        Pdeathsig,
        Personality,
        Rlimits,
        Session,
        Sysctl,
        Tty,
        Umask,
    )
    from minictr.features.profiles import PROFILES, Profile
    from minictr.features.rootfs import Chroot, Idmap, NoDev, Overlay, PivotRoot, ReadonlyRoot
    from minictr.features.seccomp import Seccomp
    from minictr.features.upon import IpvlanLink, MacvlanLink
    from minictr.features.users import Identity
    from minictr.steps import Feature

    BARE: Profile
    DEFAULT: Profile
    DOCKER: Profile
    LANDLOCK: Profile
    LXC: Profile

__all__ = [
    "BARE",
    "DEFAULT",
    "DOCKER",
    "LANDLOCK",
    "LXC",
    "PROFILES",
    "REGISTRY",
    "AppArmor",
    "Bind",
    "BootId",
    "BridgeNetfilter",
    "Bridged",
    "Capabilities",
    "CgroupConf",
    "CgroupNamespace",
    "CgroupParent",
    "Cgroupfs",
    "Chroot",
    "Conntrack",
    "Cpu",
    "Cpuset",
    "Cwd",
    "Dev",
    "Device",
    "Devices",
    "Devpts",
    "DisableUserns",
    "Domainname",
    "Env",
    "Freezer",
    "Hostname",
    "HostnameFile",
    "Hosts",
    "Hugetlb",
    "Identity",
    "Idmap",
    "Init",
    "Io",
    "IpcNamespace",
    "IpvlanLink",
    "Keyring",
    "Landlock",
    "Loopback",
    "MacvlanLink",
    "MaskedPaths",
    "Memory",
    "Misc",
    "MountNamespace",
    "Mqueue",
    "NamedCgroup",
    "Names",
    "Nat",
    "NetNamespace",
    "NoDev",
    "NoNewPrivs",
    "OomScoreAdj",
    "Overlay",
    "Pasta",
    "Pdeathsig",
    "Personality",
    "PidNamespace",
    "Pids",
    "PivotRoot",
    "Proc",
    "Publish",
    "Rdma",
    "ReadonlyPaths",
    "ReadonlyRoot",
    "ResolvConf",
    "Rlimits",
    "SELinux",
    "Seccomp",
    "Securebits",
    "Session",
    "Shm",
    "Sysctl",
    "Sysfs",
    "TimeNamespace",
    "Tmpfs",
    "Tty",
    "Umask",
    "UserNamespace",
    "UtsNamespace",
    "Veth",
    "feature_class",
    "make",
]

# Feature -> (module, class), in the order a person meets them: namespaces, root, mounts, process, user, privilege,
# network, control groups. Modules are imported when a class is asked for: a start imports what it was asked for only.
HOMES: dict[str, tuple[str, str]] = {
    "mnt": ("namespaces", "MountNamespace"),
    "pid": ("namespaces", "PidNamespace"),
    "net": ("namespaces", "NetNamespace"),
    "ipc": ("namespaces", "IpcNamespace"),
    "uts": ("namespaces", "UtsNamespace"),
    "cgroupns": ("namespaces", "CgroupNamespace"),
    "userns": ("namespaces", "UserNamespace"),
    "timens": ("namespaces", "TimeNamespace"),
    "pivot_root": ("rootfs", "PivotRoot"),
    "chroot": ("rootfs", "Chroot"),
    "overlay": ("rootfs", "Overlay"),
    "idmap": ("rootfs", "Idmap"),
    "readonly": ("rootfs", "ReadonlyRoot"),
    "nodev": ("rootfs", "NoDev"),
    "proc": ("mounts", "Proc"),
    "sysfs": ("mounts", "Sysfs"),
    "dev": ("mounts", "Dev"),
    "devpts": ("mounts", "Devpts"),
    "shm": ("mounts", "Shm"),
    "mqueue": ("mounts", "Mqueue"),
    "tmpfs": ("mounts", "Tmpfs"),
    "bind": ("mounts", "Bind"),
    "masked_paths": ("masks", "MaskedPaths"),
    "readonly_paths": ("masks", "ReadonlyPaths"),
    "hostname": ("process", "Hostname"),
    "domainname": ("process", "Domainname"),
    "env": ("process", "Env"),
    "cwd": ("process", "Cwd"),
    "umask": ("process", "Umask"),
    "rlimits": ("process", "Rlimits"),
    "oom_score_adj": ("process", "OomScoreAdj"),
    "sysctl": ("process", "Sysctl"),
    "boot_id": ("process", "BootId"),
    "keyring": ("process", "Keyring"),
    "personality": ("process", "Personality"),
    "session": ("process", "Session"),
    "tty": ("process", "Tty"),
    "pdeathsig": ("process", "Pdeathsig"),
    "init": ("process", "Init"),
    "user": ("users", "Identity"),
    "disable_userns": ("disable_userns", "DisableUserns"),
    "capabilities": ("capabilities", "Capabilities"),
    "securebits": ("capabilities", "Securebits"),
    "no_new_privs": ("capabilities", "NoNewPrivs"),
    "landlock": ("landlock", "Landlock"),
    "seccomp": ("seccomp", "Seccomp"),
    "apparmor": ("lsm", "AppArmor"),
    "selinux": ("lsm", "SELinux"),
    "loopback": ("loopback", "Loopback"),
    "veth": ("network", "Veth"),
    "bridge": ("network", "Bridged"),
    "bridge_netfilter": ("network", "BridgeNetfilter"),
    "conntrack": ("network", "Conntrack"),
    "nat": ("network", "Nat"),
    "egress": ("egress", "Egress"),
    "publish": ("network", "Publish"),
    "hosts": ("names", "Hosts"),
    "resolv_conf": ("names", "ResolvConf"),
    "hostname_file": ("names", "HostnameFile"),
    "names": ("names", "Names"),
    "publish_proxy": ("publish_proxy", "PublishProxy"),
    "macvlan": ("upon", "MacvlanLink"),
    "ipvlan": ("upon", "IpvlanLink"),
    "pasta": ("pasta", "Pasta"),
    "memory": ("cgroups", "Memory"),
    "cpu": ("cgroups", "Cpu"),
    "cpuset": ("cgroups", "Cpuset"),
    "pids": ("controllers", "Pids"),
    "io": ("cgroup_devices", "Io"),
    "devices": ("cgroup_devices", "Devices"),
    "device": ("cgroup_devices", "Device"),
    "hugetlb": ("cgroup_devices", "Hugetlb"),
    "rdma": ("cgroup_devices", "Rdma"),
    "misc": ("cgroup_devices", "Misc"),
    "freezer": ("controllers", "Freezer"),
    "named_cgroup": ("cgroups", "NamedCgroup"),
    "cgroup_conf": ("cgroups", "CgroupConf"),
    "cgroup_parent": ("cgroups", "CgroupParent"),
    "cgroupfs": ("cgroupfs", "Cgroupfs"),
}
_MODULES = {kind: module for module, kind in HOMES.values()}
_PROFILES = frozenset(("BARE", "DEFAULT", "DOCKER", "LANDLOCK", "LXC"))


class Registry(Mapping[str, "type[Feature]"]):
    """Name -> class, read only; a class is imported when it is asked for."""

    def __getitem__(self, name: str) -> type[Feature]:
        module, kind = HOMES[name]
        found: type[Feature] = getattr(_module(module), kind)
        return found

    def __contains__(self, name: object) -> bool:
        return name in HOMES

    def __iter__(self) -> Iterator[str]:
        return iter(HOMES)

    def __len__(self) -> int:
        return len(HOMES)


REGISTRY = Registry()


def _module(name: str) -> Any:
    return __import__(f"minictr.features.{name}", fromlist=[name])  # importlib is not on the hot path


def feature_class(name: str) -> type[Feature]:
    """The class of a feature by its name. Raises SpecError, naming the nearest."""
    if name in REGISTRY:
        return REGISTRY[name]
    near = [known for known in REGISTRY if known.startswith(name[:3]) or name in known]
    hint = f": perhaps {' or '.join(near)}" if near and name else ": minictr features lists them"
    raise SpecError(f"no feature is named {name!r}{hint}")


def make(name: str) -> Feature:
    """A feature by its name: as profile ``default`` or ``docker`` has it, else with nothing but its defaults.

    Raises SpecError for a feature that cannot be had without settings.
    """
    from minictr.features.profiles import PROFILES

    kind = feature_class(name)
    for profile in ("default", "docker"):
        for feature in PROFILES[profile]:
            if feature.name == name:
                return feature
    missing = [field for field in kind._fields if field not in kind._defaults]
    if missing:
        raise SpecError(f"feature {name} needs settings ({', '.join(missing)}): use its own option")
    return kind()


def __getattr__(name: str) -> Any:
    """A class, or a profile, when it is first asked for."""
    if name in _PROFILES:
        value = _module("profiles").PROFILES[name.lower()]
    elif name == "PROFILES" or name in _MODULES:
        value = getattr(_module(_MODULES.get(name, "profiles")), name)
    else:
        raise AttributeError(f"module 'minictr.features' has no attribute {name!r}")
    globals()[name] = value
    return value


class _Callable(type(sys)):  # type: ignore[misc]
    """``minictr.features`` is this package, and ``mc.features()`` the answer to "which are there?"."""

    def __call__(self) -> tuple[type[Feature], ...]:
        """Every feature's class: ``name``, ``SUMMARY``, and ``mc.support(name)`` whether it can be had here."""
        return tuple(REGISTRY.values())


sys.modules[__name__].__class__ = _Callable
