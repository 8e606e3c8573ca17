"""minictr: every containment feature of the Linux kernel by itself, and a small daemonless runtime built from them.

The front door: names are re-exported lazily, so that what a program does not use is not imported.

>>> import minictr as mc
>>> box = mc.Container("./debian")
>>> print(box.plan(["bash"]))              # every kernel operation, in order, before any is done
>>> r = box.run(["id"], capture_output=True, text=True, timeout=5)
>>> r.returncode, r.stdout, r.timeline.by_feature()
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "minictr.runtime.container": "Container run run_async",
    "minictr.runtime.result": "Result",
    "minictr.runtime.notified": "Syscall Errno CONTINUE",
    "minictr.runtime.process": "Process PIPE STDOUT DEVNULL",
    "minictr.runtime.console": "Console",
    "minictr.runtime.cgroup": "Cgroup",
    "minictr.runtime.instance": "Instance container containers",
    "minictr.runtime.timeline": "Timeline Row",
    "minictr.runtime.observed.denials": "Denial",
    "minictr.runtime.observed.record": "Recording",
    "minictr.runtime.support": "support supports",
    "minictr.runtime.doctor": "Check Checkup doctor",
    "minictr.runtime.effort": "LeftOut best_effort",
    "minictr.runtime.front": "profiles",
    "minictr.runtime.isolation": "Isolation isolation",
    "minictr.runtime.privilege": "privilege_of",
    "minictr.spec": "Spec",
    "minictr.plan": "Plan",
    "minictr.steps": "Step Feature Support",
    "minictr.errors": (
        "MinictrError SpecError Unsupported StepFailed CommandNotFound CommandNotExecutable StartTimeout"
        " NoSuchContainer WrongStatus WeakerIsolation StateError ProgramError CalledProcessError TimeoutExpired"
    ),
    "minictr.features": (  # its own table says where
        "MountNamespace UtsNamespace IpcNamespace PidNamespace NetNamespace CgroupNamespace UserNamespace TimeNamespace"
        " MaskedPaths ReadonlyPaths Proc Sysfs Dev Devpts Shm Mqueue Tmpfs Bind"
        " PivotRoot Chroot Overlay Idmap ReadonlyRoot NoDev"
        " Hostname Domainname Env Cwd Umask Rlimits OomScoreAdj Sysctl BootId Keyring Personality"
        " Session Tty Pdeathsig Init Identity DisableUserns"
        " Capabilities NoNewPrivs Securebits Landlock Seccomp AppArmor SELinux"
        " Egress PublishProxy Loopback BridgeNetfilter Bridged Conntrack Nat Pasta MacvlanLink IpvlanLink"
        " Memory Cpu Cpuset Pids Freezer NamedCgroup CgroupConf CgroupParent"
        " Io Devices Device Hugetlb Rdma Misc Cgroupfs"
    ),
    "minictr.features.filters": "SeccompFilter",
    "minictr.runtime.network.handles": "Bridge Veth Publish Netns Macvlan Ipvlan",
    "minictr.kernel.namespaces": "unshare enter",
    "minictr.kernel.process": "sethostname setdomainname",
}
_HOME = {name: home for home, names in _HOMES.items() for name in names.split()}
__all__ = ["__version__", "features", *_HOME]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name == "features":  # a package, and callable
        return import_module("minictr.features")
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'minictr' has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
