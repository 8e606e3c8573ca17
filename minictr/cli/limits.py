"""Options of control groups and devices -> features. Reads only what a device node is (stat)."""

from __future__ import annotations

import os

import minictr.parse.limits as parse
from minictr.cli.given import said
from minictr.errors import SpecError
from minictr.features.cgroup_devices import RATES, Device, Devices, Io
from minictr.features.cgroups import CgroupConf, CgroupParent, Cpu, Cpuset, Memory
from minictr.features.controllers import Pids
from minictr.features.mounts import DEVICES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from minictr.spec import Spec
    from minictr.steps import Feature

    Options = dict[str, Any]

KINDS = {0o02: "c", 0o06: "b"}  # stat(2): the file type's bits of st_mode


def limits(spec: Spec, opts: Options) -> Spec:
    """SPEC with what OPTS say of limits; each option changes that one setting of what the profile has."""
    for builder in (memory, cpu, cpuset, pids, io, devices, group):
        spec = builder(spec, opts)
    return spec


def changed(spec: Spec, option: str, kind: type[Feature], fields: dict[str, Any]) -> Spec:
    """SPEC with the feature of KIND that it has, or a new one, having FIELDS."""
    present = spec.get(kind.NAME)
    feature = said(option, kind, **fields) if present is None else said(option, present.replace, **fields)
    return spec.with_(feature)


def memory(spec: Spec, opts: Options) -> Spec:
    words = {"memory": "limit", "memory_swap": "swap", "memory_reservation": "reservation"}
    words["memory_swappiness"] = "swappiness"
    given = {word: opts[dest] for dest, word in words.items() if dest in opts}
    for word, text in given.items():
        _not_empty(f"--memory-{word}" if word != "limit" else "--memory", text)
    fields = parse.memory(**given)
    if opts.get("oom_kill_disable"):
        if "max" not in fields:
            raise SpecError("--oom-kill-disable: processes wait at the limit: give --memory as well")
        fields["oom_kill"] = False
    return changed(spec, "--memory", Memory, fields) if given or fields else spec


def cpu(spec: Spec, opts: Options) -> Spec:
    words = {"cpus": "cpus", "cpu_shares": "shares", "cpu_quota": "quota", "cpu_period": "period"}
    given = {word: opts[dest] for dest, word in words.items() if dest in opts}
    for dest, word in words.items():
        _not_empty(f"--{dest.replace('_', '-')}", given.get(word, "0"))
    return changed(spec, "--cpus, --cpu-*", Cpu, parse.cpu(**given)) if given else spec


def _not_empty(option: str, text: str) -> None:
    if not text:
        raise SpecError(f"{option}: empty: a number is wanted")


def cpuset(spec: Spec, opts: Options) -> Spec:
    for dest, field in (("cpuset_cpus", "cpus"), ("cpuset_mems", "mems")):
        if dest in opts:
            option = f"--{dest.replace('_', '-')}"
            _not_empty(option, opts[dest])
            spec = changed(spec, option, Cpuset, {field: opts[dest]})
    return spec


def pids(spec: Spec, opts: Options) -> Spec:
    if "pids_limit" not in opts:
        return spec
    return changed(spec, "--pids-limit", Pids, {"max": parse.pids_limit(opts["pids_limit"])})


def io(spec: Spec, opts: Options) -> Spec:
    if "blkio_weight" in opts:
        spec = changed(spec, "--blkio-weight", Io, {"weight": parse.io_weight(opts["blkio_weight"])})
    rows: tuple[tuple[str, str, Callable[[str], Any]], ...] = (
        ("blkio_weight_device", "weight_device", parse.device_weight),
        *((f"device_{rate}", rate, parse.device_bps if "bps" in rate else parse.device_iops) for rate in RATES),
    )
    for dest, field, function in rows:
        if dest in opts:
            option = f"--{dest.replace('_', '-')}"
            values = tuple(said(option, function, text) for text in opts[dest])
            for name, _ in values:
                if isinstance(name, str):
                    _node(option, name, "b")
            spec = changed(spec, option, Io, {field: values})
    return spec


def devices(spec: Spec, opts: Options) -> Spec:
    """``--device`` makes nodes, and allows them where there is a list of what is allowed; ``--device-cgroup-rule`` adds
    to that list, or to docker's where the profile has none, and from then on the list decides about nodes anywhere: no
    ``nodev``. ``--privileged`` makes all that the host has, but in a user
    namespace, whose root may not use them."""
    rules = [said("--device-cgroup-rule", parse.device_rule, text) for text in opts.get("device_cgroup_rule", ())]
    if rules:
        spec = spec.without("nodev")
    present = spec.get("devices")
    listed = present if isinstance(present, Devices) else Devices() if rules else None
    if opts.get("privileged") and "dev" in spec.names and "userns" not in spec.names:
        own = {f"/dev/{name}" for name, _, _ in DEVICES} | {"/dev/ptmx", "/dev/console"}
        spec = spec.with_(*(node for node in nodes("/dev", "/dev") if node.path not in own))
    for text in opts.get("device", ()):
        host, inside, access = said("--device", parse.device_node, text)
        for node in nodes(host, inside):
            spec = spec.with_(node)
            rules.append((True, node.kind, node.major, node.minor, access))
    return spec.with_(listed.allowing(*rules)) if listed is not None and listed.rules and rules else spec


def nodes(host: str, inside: str) -> Iterator[Device]:
    """The device HOST as INSIDE; for a directory every device below it, as docker does."""
    if not os.path.isdir(host):
        kind, stat = _node("--device", host)
        numbers = os.major(stat.st_rdev), os.minor(stat.st_rdev)
        yield said("--device", Device, inside, kind, *numbers, stat.st_mode & 0o777, os.path.realpath(host))
        return
    found = 0
    for directory, below, names in os.walk(host):
        below[:] = sorted(name for name in below if name not in ("pts", "shm", "fd", "mqueue"))
        for name in sorted(names):
            path = os.path.join(directory, name)
            if os.lstat(path).st_mode >> 12 in KINDS:
                found += 1
                yield from nodes(path, inside + path[len(host) :])
    if not found:
        raise SpecError(f"--device {host}: no device is in that directory")


def _node(option: str, path: str, wanted: str = "bc") -> tuple[str, os.stat_result]:
    """Kind and status of a device node. Raises SpecError for anything else."""
    try:
        stat = os.stat(path)
    except (OSError, ValueError) as err:
        reason = err.strerror if isinstance(err, OSError) else err
        raise SpecError(f"{option} {path}: {reason}") from err
    kind = KINDS.get(stat.st_mode >> 12, "")
    if not kind or kind not in wanted:
        raise SpecError(f"{option} {path}: is no {'block ' if wanted == 'b' else ''}device")
    return kind, stat


def group(spec: Spec, opts: Options) -> Spec:
    """Where the groups are, and files of theirs that no option has a word for."""
    if "cgroup_conf" in opts:
        rows = tuple(said("--cgroup-conf", parse.cgroup_conf, text) for text in opts["cgroup_conf"])
        spec = spec.with_(said("--cgroup-conf", CgroupConf, rows))
    if "cgroup_parent" in opts:
        spec = spec.with_(said("--cgroup-parent", CgroupParent, opts["cgroup_parent"]))
    return spec
