"""What features promise, as rows that a process's isolation can be held against. Pure.

Features that are no isolation (env, cwd, hostname), and those whose effect on another process the kernel shows nowhere
(keyring, sysctl, pdeathsig, securebits, Landlock), promise nothing here: NOTHING names them, so that none is forgotten.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from minictr.steps import Feature

    Row = tuple[str, Any]

__all__ = ["NOTHING", "PROMISES", "rows_of"]

NOTHING = frozenset(
    "env cwd umask hostname domainname sysctl boot_id keyring pdeathsig tty overlay bind tmpfs proc dev device devpts"
    " idmap disable_userns landlock securebits shm mqueue loopback rdma misc cgroup_conf cgroup_parent"
    " veth bridge bridge_netfilter conntrack nat egress publish publish_proxy macvlan ipvlan pasta"
    " hosts resolv_conf hostname_file names".split()
)


def rows_of(features: Iterable[Feature]) -> dict[str, Any]:
    """Dotted field name -> the least that FEATURES promise of it."""
    found: dict[str, Any] = {}
    for feature in features:
        for name, value in PROMISES.get(feature.name, nothing)(feature):
            old = found.get(name, ())
            found[name] = (*old, *value) if name in ("masked", "readonly") else value
    return found


def nothing(_feature: Any) -> Iterator[Row]:
    return iter(())


def namespace(feature: Any) -> Iterator[Row]:
    if not feature.join:
        yield f"namespaces.{feature.name}.own", True


def userns(feature: Any) -> Iterator[Row]:
    yield from namespace(feature)
    if feature.auto:
        yield "user.root_is_root", False
    elif feature.uid_map:
        roots = [outside for inside, outside, _ in feature.uid_map if inside == 0]
        yield "user.root_is_root", 0 in roots


def user(feature: Any) -> Iterator[Row]:
    name = feature.user.partition(":")[0]
    if feature.uid > 0 or name not in ("", "0", "root"):
        yield "user.uid", 1  # another than 0: which, the host may count otherwise


def capabilities(feature: Any) -> Iterator[Row]:
    bounding = feature.bounding
    yield "capabilities.bounding", bounding
    yield "capabilities.permitted", bounding if feature.permitted is None else feature.permitted
    yield "capabilities.effective", bounding if feature.effective is None else feature.effective
    if not feature.drop_only:
        yield "capabilities.inheritable", feature.inheritable
        yield "capabilities.ambient", feature.ambient


def seccomp(_feature: Any) -> Iterator[Row]:
    yield from (("seccomp.mode", "filter"), ("seccomp.filters", 1))


def rlimits(feature: Any) -> Iterator[Row]:
    for name, soft, hard in feature.limits:
        yield f"rlimits.{name}", (soft, hard)


def group(feature: Any) -> Iterator[Row]:
    for name in feature.controllers():
        yield f"cgroups.{name}.own", True


def memory(feature: Any) -> Iterator[Row]:
    yield from group(feature)
    for name in ("max", "high"):
        yield f"limits.memory.{name}", getattr(feature, name)
    if feature.swap is not None and feature.max is not None:
        yield "limits.memory.swap", feature.swap
        yield "limits.memory.memsw", -1 if -1 in (feature.swap, feature.max) else feature.max + feature.swap


def cpu(feature: Any) -> Iterator[Row]:
    yield from group(feature)
    quota = feature.microseconds
    if quota is not None:
        yield "limits.cpu.cpus", -1 if quota < 0 else quota / (feature.period or 100_000)


def cpuset(feature: Any) -> Iterator[Row]:
    yield from group(feature)
    for name in ("cpus", "mems"):
        yield f"limits.cpuset.{name}", getattr(feature, name) or None


def pids(feature: Any) -> Iterator[Row]:
    yield from group(feature)
    yield "limits.pids.max", feature.max


def io(feature: Any) -> Iterator[Row]:
    yield from group(feature)
    for field in ("read_bps", "write_bps", "read_iops", "write_iops"):
        for device, value in getattr(feature, field):
            if not isinstance(device, str):
                yield f"limits.io.{field}.{device[0]}:{device[1]}", value


def hugetlb(feature: Any) -> Iterator[Row]:
    yield from group(feature)
    for size, value in feature.limits:
        yield f"limits.hugetlb.{size}", value


def devices(feature: Any) -> Iterator[Row]:
    yield from group(feature)
    if feature.rules:
        yield "devices.restricted", True


def optional_group(feature: Any) -> Iterator[Row]:
    if feature.required:
        yield from group(feature)


PROMISES: dict[str, Callable[[Any], Iterator[Row]]] = {
    **dict.fromkeys("mnt pid net ipc uts cgroupns timens".split(), namespace),
    "userns": userns,
    "user": user,
    "capabilities": capabilities,
    "no_new_privs": lambda _: iter([("no_new_privs", True)]),
    "seccomp": seccomp,
    "apparmor": lambda feature: iter([("lsm_label", feature.profile.removeprefix("&"))]),
    "selinux": lambda feature: iter([("lsm_label", feature.context)]),
    "masked_paths": lambda feature: iter([("masked", feature.paths)]),
    "readonly_paths": lambda feature: iter([("readonly", feature.paths)]),
    "sysfs": lambda feature: iter([("kernel_files./sys", feature.mode)]),
    "cgroupfs": lambda feature: iter([("kernel_files./sys/fs/cgroup", feature.mode)]),
    "pivot_root": lambda _: iter([("root.own", True)]),
    "chroot": lambda _: iter([("root.own", True)]),
    "readonly": lambda _: iter([("root.readonly", True)]),
    "nodev": lambda _: iter([("root.nodev", True)]),
    "rlimits": rlimits,
    "oom_score_adj": lambda feature: iter([("oom_score_adj", feature.value)]),
    "personality": lambda feature: iter([("personality", 0)] if feature.aslr else []),
    "session": lambda _: iter([("session.own", True)]),
    "init": lambda _: iter([("init.reaper", True)]),
    "memory": memory,
    "cpu": cpu,
    "cpuset": cpuset,
    "pids": pids,
    "io": io,
    "hugetlb": hugetlb,
    "devices": devices,
    "freezer": group,
    "named_cgroup": optional_group,
}
