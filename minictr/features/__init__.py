"""Wishes: one frozen value per kernel feature, pure. ``REGISTRY`` maps names to classes, ``PROFILES`` names to tuples.

A feature answers ``steps(ctx)`` with the kernel operations that grant it and touches nothing itself; the hands are
the modules of the same names under :mod:`minictr.kernel`. Leaving a feature out leaves its steps out: there is no
other switch.
"""

from __future__ import annotations

import sys

from minictr.errors import SpecError
from minictr.features.capabilities import Capabilities, NoNewPrivs
from minictr.features.cgroup_devices import Device, Devices, Hugetlb, Io, Misc, Rdma
from minictr.features.cgroupfs import Cgroupfs
from minictr.features.cgroups import CgroupConf, CgroupParent, Cpu, Cpuset, Freezer, Memory, NamedCgroup, Pids
from minictr.features.landlock import Landlock
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
from minictr.features.network import Bridged, BridgeNetfilter, Conntrack, Loopback, Nat, Publish, Veth
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
from minictr.features.rootfs import Chroot, Overlay, PivotRoot, ReadonlyRoot
from minictr.features.seccomp import Seccomp
from minictr.features.users import Identity

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minictr.features.profiles import BARE, DEFAULT, DOCKER, LANDLOCK, LXC, PROFILES
    from minictr.steps import Feature

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
    "Domainname",
    "Env",
    "Freezer",
    "Hostname",
    "Hugetlb",
    "Identity",
    "Init",
    "Io",
    "IpcNamespace",
    "Keyring",
    "Landlock",
    "Loopback",
    "MaskedPaths",
    "Memory",
    "Misc",
    "MountNamespace",
    "Mqueue",
    "NamedCgroup",
    "Nat",
    "NetNamespace",
    "NoNewPrivs",
    "OomScoreAdj",
    "Overlay",
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
    "Rlimits",
    "SELinux",
    "Seccomp",
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

# In the order a person meets them: namespaces, root, mounts, process, user, privilege, network, control groups.
REGISTRY: dict[str, type[Feature]] = {
    kind.NAME: kind
    for kind in (
        MountNamespace,
        PidNamespace,
        NetNamespace,
        IpcNamespace,
        UtsNamespace,
        CgroupNamespace,
        UserNamespace,
        TimeNamespace,
        PivotRoot,
        Chroot,
        Overlay,
        ReadonlyRoot,
        Proc,
        Sysfs,
        Dev,
        Devpts,
        Shm,
        Mqueue,
        Tmpfs,
        Bind,
        MaskedPaths,
        ReadonlyPaths,
        Hostname,
        Domainname,
        Env,
        Cwd,
        Umask,
        Rlimits,
        OomScoreAdj,
        Sysctl,
        BootId,
        Keyring,
        Personality,
        Session,
        Tty,
        Pdeathsig,
        Init,
        Identity,
        Capabilities,
        NoNewPrivs,
        Landlock,
        Seccomp,
        AppArmor,
        SELinux,
        Loopback,
        Veth,
        Bridged,
        BridgeNetfilter,
        Conntrack,
        Nat,
        Publish,
        Memory,
        Cpu,
        Cpuset,
        Pids,
        Io,
        Devices,
        Device,
        Hugetlb,
        Rdma,
        Misc,
        Freezer,
        NamedCgroup,
        CgroupConf,
        CgroupParent,
        Cgroupfs,
    )
}


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
    from minictr.features.profiles import DEFAULT, DOCKER

    kind = feature_class(name)
    for feature in (*DEFAULT, *DOCKER):
        if feature.name == name:
            return feature
    missing = [field for field in kind._fields if field not in kind._defaults]
    if missing:
        raise SpecError(f"feature {name} needs settings ({', '.join(missing)}): use its own option")
    return kind()


def __getattr__(name: str) -> Any:
    """The profiles, made when they are first asked for: 0.8 ms, and a program that joins a container asks for none."""
    if name not in ("BARE", "DEFAULT", "DOCKER", "LANDLOCK", "LXC", "PROFILES"):
        raise AttributeError(f"module 'minictr.features' has no attribute {name!r}")
    from minictr.features import profiles

    value = getattr(profiles, name)
    globals()[name] = value
    return value


class _Callable(type(sys)):  # type: ignore[misc]
    """``minictr.features`` is this package, and ``mc.features()`` the answer to "which are there?"."""

    def __call__(self) -> tuple[type[Feature], ...]:
        """Every feature's class: ``name``, ``SUMMARY``, and ``mc.support(name)`` whether it can be had here."""
        return tuple(REGISTRY.values())


sys.modules[__name__].__class__ = _Callable
