"""All that is known of a container, as plain data with docker's names where docker has them. Schema: docs/life.md."""

from __future__ import annotations

import os
import time

from minictr.errors import MinictrError
from minictr.features.plain import plain_feature
from minictr.kernel.cgroup_in_force import in_force
from minictr.runtime.store import SHORT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minictr.runtime.ended import ExitRecord
    from minictr.runtime.instance import Instance
    from minictr.runtime.state import State
    from minictr.spec import Spec
    from minictr.steps import Feature

__all__ = ["inspect", "stamp"]

HALTS = ("", "halted", "rebooted")  # by ExitRecord.halt
MOUNTS = ("bind", "tmpfs", "overlay")


def inspect(instance: Instance) -> dict[str, Any]:
    """INSTANCE looked at. Raises StateError, NoSuchContainer."""
    state, spec = instance.refresh(), instance.state.spec
    status, pid, ended = instance.status, instance.pid, instance.exit_record()
    usage = _usage(instance)
    return {
        "Id": state.id,
        "Name": state.name,
        "Created": stamp(state.created),
        "Path": spec.argv[0],
        "Args": list(spec.argv[1:]),
        "State": _state(instance, status, pid, ended, usage),
        "Rootfs": spec.rootfs,
        "AppArmorProfile": getattr(spec.get("apparmor"), "profile", ""),
        "ProcessLabel": getattr(spec.get("selinux"), "context", ""),
        "MountLabel": getattr(spec.get("selinux"), "mount", ""),
        "Labels": _labels(spec, pid),
        "Config": _config(instance, spec),
        "Features": [_feature(feature) for feature in spec.features],
        "Mounts": [_mount(feature) for feature in map(plain_feature, spec.features) if feature["feature"] in MOUNTS],
        "Namespaces": _namespaces(pid),
        "IDMappings": _id_mappings(spec, pid),
        "HostConfig": _names(spec),
        "HostsPath": _hosts_path(instance) if pid else "",
        "NetworkSettings": _network(state, pid),
        "Cgroups": {group.controller: group.directory for group in state.groups},
        "Limits": in_force(state.groups) if pid else {},
        "Usage": usage,
        "Monitor": {"Pid": state.monitor.pid if state.monitor.alive else 0, "Detached": state.detached},
        "LogPath": _there(instance, "log"),
        "StateDir": instance.directory,
        "CommandLine": list(state.command_line),
        "CommandDirectory": state.directory,
    }


def stamp(nanoseconds: int) -> str:
    """Nanoseconds since 1970 as RFC 3339 in UTC; "" for 0, which is never."""
    if not 0 < nanoseconds < 1 << 63:
        return ""
    whole, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{rest:09d}Z"


def _state(
    instance: Instance, status: str, pid: int, ended: ExitRecord | None, usage: dict[str, Any]
) -> dict[str, Any]:
    """How it is. ``ExitCode`` is None while it runs, and when nobody knows; ``Signal`` 0 unless one killed it."""
    over = not pid and ended is not None
    status_word = ended.status if over and ended is not None else None
    return {
        "Status": status,
        "Running": status in ("running", "paused"),
        "Paused": status == "paused",
        "Dead": status == "dead",
        "OOMKilled": bool(usage.get("oom_kills")),
        "Pid": pid,
        "ExitCode": ended.exit_code if over and ended is not None else None,
        "Halt": HALTS[ended.halt] if over and ended is not None and ended.halt < len(HALTS) else "",
        "Signal": 0 if status_word is None else status_word & 0x7F,
        "StartedAt": stamp(instance.state.started),
        "FinishedAt": stamp(ended.finished) if over and ended is not None else "",
        "ElapsedSeconds": ended.elapsed / 1e9 if over and ended is not None else None,
        "MaxRssBytes": ended.maxrss << 10 if over and ended is not None else None,
        "CpuSeconds": (ended.utime + ended.stime) / 1e6 if over and ended is not None else None,
    }


def _config(instance: Instance, spec: Spec) -> dict[str, Any]:
    """What it was started with, by docker's names."""
    state = instance.state
    env, cwd, user, hostname = (spec.get(name) for name in ("env", "cwd", "user", "hostname"))
    return {
        "Hostname": getattr(hostname, "hostname", ""),
        "User": getattr(user, "user", ""),
        "Env": [f"{name}={value}" for name, value in getattr(env, "variables", ())],
        "Cmd": list(spec.argv),
        "WorkingDir": getattr(cwd, "path", ""),
        "Tty": state.tty,
        "OpenStdin": state.interactive,
        "AutoRemove": state.remove,
        "StopSignal": state.stop_signal,
        "StopTimeout": state.stop_timeout,
        "LogMaxSize": state.log[0],
        "LogMaxFile": state.log[1],
    }


def _feature(feature: Feature) -> dict[str, Any]:
    """FEATURE as plain data; of a seccomp program its size and digest."""
    fields = plain_feature(feature)
    program = getattr(feature, "program", b"")
    if isinstance(program, bytes) and program:
        from minictr.kernel.seccomp_programs import sha256

        fields["program"] = {"instructions": len(program) // 8, "sha256": sha256(program).hexdigest()}
    return fields


def _mount(fields: dict[str, Any]) -> dict[str, Any]:
    """A mount that was asked for: docker's names."""
    kind = fields["feature"]
    if kind == "overlay":
        source = fields.get("upper", "")
        return {"Type": kind, "Source": source, "Destination": "/", "RW": True, "Lower": fields.get("lower", [])}
    known = ("feature", "source", "target", "readonly")
    options = {name: value for name, value in fields.items() if name not in known}
    return {
        "Type": kind,
        "Source": fields.get("source", ""),
        "Destination": fields["target"],
        "RW": not fields.get("readonly"),
        "Options": options,
    }


def _namespaces(pid: int) -> dict[str, Any]:
    """Kind -> the link of /proc/PID/ns, and whether the host shares it. {} for a container that is over."""
    found: dict[str, Any] = {}
    if not pid:
        return found
    try:
        for kind in sorted(os.listdir(f"/proc/{pid}/ns")):
            if not kind.endswith("_for_children"):
                link = os.readlink(f"/proc/{pid}/ns/{kind}")
                found[kind] = {"Link": link, "Host": link == os.readlink(f"/proc/self/ns/{kind}")}
    except OSError:
        pass  # it ended this moment, or it is somebody else's
    return found


def _network(state: State, pid: int) -> dict[str, Any]:
    """What it has of networks while it runs: docker's names."""
    devices: dict[str, Any] = {}
    ports: dict[str, list[dict[str, str]]] = {}
    names = state.spec.get("names")
    aliases = getattr(names, "aliases", ())
    for network, inside, address, address6, gateway, mac, link in state.nics if pid else ():
        (ip, _, length), (ip6, _, length6) = (text.partition("/") for text in (address, address6))
        devices[network] = {
            "Interface": inside,
            "HostInterface": link,
            "IPAddress": ip,
            "IPPrefixLen": int(length or 0),
            "GlobalIPv6Address": ip6,
            "GlobalIPv6PrefixLen": int(length6 or 0),
            "Gateway": gateway,
            "MacAddress": mac,
            "Aliases": list(aliases),
            "DNSNames": [*filter(None, (state.name,)), *aliases, state.id[:SHORT]] if names is not None else [],
        }
    for protocol, ip, host, there in state.ports if pid else ():
        ports.setdefault(f"{there}/{protocol}", []).append({"HostIp": ip or "0.0.0.0", "HostPort": str(host)})
    return {"Networks": devices, "Ports": ports}


def _names(spec: Spec) -> dict[str, Any]:
    """What it was asked to know of names: docker's names."""
    resolver, hosts = spec.get("resolv_conf"), spec.get("hosts")
    return {
        "Dns": list(getattr(resolver, "servers", ())),
        "DnsSearch": list(getattr(resolver, "search", ())),
        "DnsOptions": list(getattr(resolver, "options", ())),
        "ExtraHosts": [f"{name}:{at}" for name, at in getattr(hosts, "entries", ())],
    }


def _hosts_path(instance: Instance) -> str:
    """The file that is its /etc/hosts, where the runtime keeps it current."""
    if not instance.state.nics:
        return ""
    from minictr.runtime.network.names import hosts_path

    return hosts_path(instance.store, instance.id)


def _id_mappings(spec: Spec, pid: int) -> dict[str, list[str]]:
    """Rows INSIDE:OUTSIDE:COUNT by podman's names: the kernel's own while it runs, else those that were asked for.
    {} where its ids are the host's, and for what is decided at its start."""
    user: Any = spec.get("userns")
    if user is None:
        return {}
    if pid:
        from minictr.kernel.users import read_map

        try:
            maps = [read_map(pid, kind=kind) for kind in ("uid", "gid")]
        except MinictrError:
            return {}  # it ended this moment, or it is somebody else's
    else:
        maps = [user.uid_map, user.gid_map]
    rows = ([":".join(map(str, row)) for row in rows] for rows in maps)
    return dict(zip(("UidMap", "GidMap"), rows, strict=True)) if maps[0] else {}


def _labels(spec: Spec, pid: int) -> dict[str, str]:
    """Security module -> the label that its program has, for those that were asked for; {} when it is over.

    PID may be our init, which keeps the label of who started it: then the program is its first child."""
    asked = [name for name in ("apparmor", "selinux") if name in spec.names]
    if not asked or not pid:
        return {}
    from minictr.kernel import apparmor, selinux

    try:
        if "init" in spec.names:
            with open(f"/proc/{pid}/task/{pid}/children", encoding="utf-8") as file:
                pid = int(file.read().split()[0])
        found = {"apparmor": apparmor.current(pid), "selinux": selinux.current(pid)}
    except (OSError, IndexError):
        return {}  # it ended this moment, or it is somebody else's
    return {name: str(found[name]) for name in asked}


def _usage(instance: Instance) -> dict[str, Any]:
    """Readings of its cgroups, now or at its end; {} where it has none, or they are gone."""
    if not instance.state.groups:
        return {}
    try:
        usage = instance.stats()
    except (MinictrError, OSError):
        return {}
    found: dict[str, Any] = plain(usage)
    if found["memory"] is not None:
        del found["memory"]["stat"]  # fifty lines: the file is in Cgroups
    return {name: value for name, value in found.items() if value not in (None, {})} | {"oom_kills": usage.oom_kills}


def plain(value: Any) -> Any:
    """A value made of values as dicts, lists, numbers and texts."""
    if hasattr(value, "_fields"):
        return {name: plain(getattr(value, name)) for name in value._fields}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (tuple, list)) else value


def _there(instance: Instance, name: str) -> str:
    path = os.path.join(instance.directory, name)
    return path if os.path.lexists(path) else ""
