"""What a started container really is: read back from the kernel by a shell inside it, and held against the shape.

A sample of an arm whose command did not run, or ran in something else than planned, would be a lie. So every arm runs
:data:`SCRIPT` once before it counts, and what differs is printed beside its figures.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection

from bench.lifecycle.shape import DEVICES, MOUNT_POINTS, NAMESPACES, Shape

SHELL = "/bin/sh"
NEEDS = ("/bin/sh", "/bin/cat", "/bin/readlink")
MOST_LISTED = 4  # paths named in one difference

SCRIPT = f"""
echo == status; cat /proc/self/status
echo == mounts; cat /proc/self/mountinfo
echo == namespaces; for n in {" ".join(NAMESPACES)} user time; do echo $n $(readlink /proc/self/ns/$n); done
echo == host; cat /proc/sys/kernel/hostname
echo == loopback; cat /sys/class/net/lo/flags
echo == limits; cat /proc/self/limits
echo == devices; for f in /dev/*; do [ -c $f ] && echo $f; done
echo == init; echo $$; cat /proc/1/comm
"""


def argv(shape: Shape) -> tuple[str, ...]:
    """The probing command for a container of this shape."""
    settings = "".join(f"echo {name} $(cat {sysctl_path(name)})\n" for name, _ in shape.sysctls)
    return SHELL, "-c", f"{SCRIPT}echo == sysctls\n{settings}echo == end"


def sysctl_path(name: str) -> str:
    return f"/proc/sys/{name.replace('.', '/')}"


@dataclasses.dataclass(frozen=True)
class Mount:
    """One line of mountinfo.

    ``device`` is major:minor of the file system, ``options`` those of the mount itself and its propagation tags.
    """

    point: str
    device: str
    kind: str
    options: frozenset[str]


@dataclasses.dataclass(frozen=True)
class State:
    """What the script saw."""

    status: dict[str, str]
    mounts: dict[str, Mount]  # by mount point; the last one of a point is the one in sight
    namespaces: dict[str, str]
    hostname: str
    loopback: int
    core_limit: str
    devices: frozenset[str]
    pid: int
    init: str
    sysctls: dict[str, str]


def parse_mounts(text: str) -> dict[str, Mount]:
    """/proc/PID/mountinfo by mount point: see proc_pid_mountinfo(5)."""
    found = {}
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        fields = left.split()
        if len(fields) >= 6 and right:
            point = fields[4].encode().decode("unicode_escape")
            found[point] = Mount(point, fields[2], right.split()[0], frozenset([*fields[5].split(","), *fields[6:]]))
    return found


def parse(text: str) -> State:
    """The script's output. Raises ValueError when it is not complete."""
    sections = {}
    for part in text.split("== ")[1:]:
        name, _, body = part.partition("\n")
        sections[name.strip()] = body
    if "end" not in sections:
        raise ValueError(f"the probe did not come to its end: {' '.join(text.split())[-200:] or 'no output'}")
    core = [line for line in sections["limits"].splitlines() if line.startswith("Max core file size")]
    init = sections["init"].split("\n")
    return State(
        status={line.split(":", 1)[0]: line.split(":", 1)[1].strip() for line in _pairs(sections["status"], ":")},
        mounts=parse_mounts(sections["mounts"]),
        namespaces={line.split()[0]: line.split()[1] for line in _pairs(sections["namespaces"], " ")},
        hostname=sections["host"].strip(),
        loopback=int(sections["loopback"].strip() or "0", 16),
        core_limit=core[0].split()[4] if core else "",
        devices=frozenset(os.path.basename(path) for path in sections["devices"].split()),
        pid=int(init[0]),
        init=init[1].strip() if len(init) > 1 else "",
        sysctls={line.split()[0]: " ".join(line.split()[1:]) for line in _pairs(sections["sysctls"], " ")},
    )


def _pairs(text: str, separator: str) -> list[str]:
    return [line for line in text.splitlines() if separator in line]


def host_namespaces() -> dict[str, str]:
    """Our own, to be different from."""
    return {name: os.readlink(f"/proc/self/ns/{name}") for name in (*NAMESPACES, "user", "time")}


def host_mounts() -> dict[str, Mount]:
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        return parse_mounts(file.read())


def differences(state: State, shape: Shape) -> list[str]:
    """In what STATE is not what SHAPE plans, one line each; [] when it is exactly that."""
    return [
        *_namespace_differences(state, host_namespaces()),
        *_privilege_differences(state, shape),
        *_mount_differences(state, shape, host_mounts()),
        *_other_differences(state, shape),
    ]


def _namespace_differences(state: State, host: dict[str, str]) -> list[str]:
    shared = [name for name in NAMESPACES if state.namespaces.get(name) == host[name]]
    extra = [name for name in ("user", "time") if state.namespaces.get(name, host[name]) != host[name]]
    return [
        *(f"the {name} namespace is the host's" for name in shared),
        *(f"a {name} namespace of its own as well" for name in extra),
    ]


def _privilege_differences(state: State, shape: Shape) -> list[str]:
    planned = {"CapEff": shape.capability_mask, "CapPrm": shape.capability_mask, "CapBnd": shape.capability_mask}
    planned |= {"CapInh": 0, "CapAmb": 0}
    found = [
        f"{name} is {int(state.status.get(name, '0'), 16):x}, planned {mask:x}"
        for name, mask in planned.items()
        if int(state.status.get(name, "0"), 16) != mask
    ]
    for name, value in {"NoNewPrivs": "1", "Seccomp": "2", "Seccomp_filters": "1"}.items():
        if state.status.get(name, value) != value:
            found.append(f"{name} is {state.status[name]}, planned {value}")
    return found


def _mount_differences(state: State, shape: Shape, host: dict[str, Mount]) -> list[str]:
    masks, readonlys = shape.present(shape.masks), shape.present(shape.readonlys)
    planned = {*MOUNT_POINTS, *masks, *readonlys}
    host_devices = {mount.device for mount in host.values()}
    own_proc = state.mounts["/proc"].device if "/proc" in state.mounts else ""
    writable = [
        path for path in (*readonlys, "/sys") if path in state.mounts and "ro" not in state.mounts[path].options
    ]
    hosts = [path for path in ("/proc", "/sys", "/dev/mqueue") if _is_of(state, path, host_devices)]
    hosts += [path for path in readonlys if path in state.mounts and state.mounts[path].device != own_proc]
    return [
        *_listed("not mounted", planned - state.mounts.keys()),
        *_listed("mounted as well", state.mounts.keys() - planned),
        *_listed("writable", writable),
        *_listed("the host's, bound", hosts),
        *(["mounts propagate (shared)"] if _propagates(state) else []),
    ]


def _propagates(state: State) -> bool:
    return any(option.startswith("shared:") for mount in state.mounts.values() for option in mount.options)


def _is_of(state: State, path: str, devices: set[str]) -> bool:
    return path in state.mounts and state.mounts[path].device in devices


def _listed(what: str, paths: Collection[str]) -> list[str]:
    if not paths:
        return []
    shown = sorted(paths)
    more = f" and {len(shown) - MOST_LISTED} more" if len(shown) > MOST_LISTED else ""
    return [f"{what}: {', '.join(shown[:MOST_LISTED])}{more}"]


def _other_differences(state: State, shape: Shape) -> list[str]:
    found = []
    if state.hostname != shape.hostname:
        found.append(f"host name is {state.hostname!r}")
    if not state.loopback & 1:
        found.append("the loopback interface is down")
    if state.core_limit != "0":
        found.append(f"core limit is {state.core_limit}")
    found += _listed("device missing", set(DEVICES) - state.devices)
    found += _listed("device as well", state.devices - set(DEVICES) - {"ptmx", "stdin", "stdout", "stderr"})
    found += [
        f"{name} is {state.sysctls.get(name, '')!r}, planned {value!r}"
        for name, value in shape.sysctls
        if state.sysctls.get(name) != value
    ]
    if state.status.get("NSsid") == "0":
        found.append("no session of its own")
    if state.pid != 1:
        found.append(f"an init as pid 1 ({state.init}): one process more")
    return found
