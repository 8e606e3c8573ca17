"""The effective state of a job, read back from the kernel, and what it was planned to be.

A state is plain data. The keys, where a plan may name any part of them:

``namespaces``    kind -> "own" or "host" (of the machine: for net, the one of our lan)
``root``          {"fstype", "readonly"}: of the mount that is /
``work``          the file system that holds /work: "image" (the root's own) or "volume" (a mount of its own)
``user``          {"uid", "mapped"}: the id on this machine; whether ids are mapped
``capabilities``  {"effective", "bounding"}: how many
``seccomp``       how many filters
``no_new_privs``, ``lsm`` (a label or None)
``landlock``      how many domains, as timed.c counts them; None where its filter or the kernel let it not
``cgroups``       controller -> "own" or "host"
``limits``        what cgroups limit; ``rlimits``: soft limits by name
``masked``        how many paths are hidden; ``readonly``: how many mounts below /proc cannot be written
``sysctls``       settings of its network and its IPC, by name: what the kernel gives to those who ask from there
``network``       {"interfaces": names, "bridge", "bridge_netfilter", "wall", "masquerade", "outbound", "dnat", "proxy":
                  true or false}: all but the first seen from the machine, for jobs of network "lan". ``wall``: rules
                  that ask for the state of connections; ``outbound``: a masquerade for who goes out, and not only for
                  who comes by a published port; ``bridge_netfilter``: of its bridges, or of the whole machine

A virtual machine's job has one key more, ``machine``, which bench/environments/vm.py tells of.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterable
from typing import Any

import minictr as mc
from bench.environments.base import WORK, Job
from bench.lan import CABLE, Lan

KINDS = ("mnt", "pid", "net", "ipc", "uts", "cgroup", "user")
NAMES = {"cgroupns": "cgroup", "userns": "user"}  # the names of minictr's features, and the kernel's
PROXIES = ("docker-proxy", "minictr-proxy")
BRIDGES = "/proc/sys/net/bridge/bridge-nf-call-iptables"  # of the network namespace of who opens it; Linux 5.3
# What is always read, and what a network namespace begins with (net/ipv4/af_inet.c, inet_init_net)
SYSCTLS = {"net.ipv4.ip_unprivileged_port_start": "1024", "net.ipv4.ping_group_range": "1 0"}
# The statement, in nft's words or in those that it has for an extension of iptables; "ct status dnat" only asks
DNAT = re.compile(r"\bdnat (ip6? )?(addr \. port )?to\b|target \"dnat\"|-j dnat\b")
# Rules by connections' states, likewise: what is established; xt_conntrack's words, or those it had before
WALL = re.compile(r"\bct state (established|related)|--ctstate |--state ")
OUTBOUND = re.compile(r"!=.*\bmasquerade|! -[od] .*-j masquerade")


def read(pid: int, job: Job, lan: Lan, sysctls: Iterable[str] = ()) -> dict[str, Any]:
    """The state of process PID, which runs JOB on the machine of LAN. SYSCTLS: to be read besides those of all."""
    found = mc.isolation(pid)
    named = {NAMES.get(kind, kind): one for kind, one in found.namespaces.items()}
    spaces = {kind: "own" if one.own else "host" for kind, one in named.items() if one and kind in KINDS}
    net = found.namespaces.get("net")
    if net is not None:
        spaces["net"] = "host" if net.id == lan.id() else "own"
    with open(f"/proc/{pid}/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        fstype, work = mounted(file.read())
    with open(f"/proc/{pid}/net/dev", encoding="ascii") as file:
        devices = interfaces(file.read())
    return {
        "namespaces": spaces,
        "root": {"fstype": fstype, "readonly": found.root.readonly if found.root else None},
        "work": work,
        "user": {"uid": found.user.uid, "mapped": found.user.uid_map not in (None, ((0, 0, 4294967295),))},
        "capabilities": {
            "effective": len(found.capabilities.effective),
            "bounding": len(found.capabilities.bounding),
        },
        "seccomp": found.seccomp.filters or 0,
        "no_new_privs": found.no_new_privs,
        "landlock": _domains(pid),
        "lsm": found.lsm_label,
        "cgroups": {name: "own" if one.own else "host" for name, one in found.cgroups.items() if one},
        "limits": {name: value for name, value in found.limits.items() if isinstance(value, int)},
        "rlimits": limits(found),
        "masked": len(found.masked or ()),
        "readonly": sum(path.startswith("/proc/") for path in found.readonly or ()),
        "sysctls": _settings(pid, (*SYSCTLS, *sysctls)),
        "network": {"interfaces": devices, **(way_in(lan) if job.network == "lan" else {})},
    }


def _domains(pid: int) -> int | None:
    """What timed has found, and has in its name while it is at its gate."""
    with open(f"/proc/{pid}/comm", encoding="ascii") as file:
        word = file.read().split()[-1]
    return int(word) if word.isdecimal() else None


def _settings(pid: int, names: Iterable[str]) -> dict[str, str]:
    """The sysctls NAMES as those in the namespaces of PID have them, one space between words; absent ones are left."""
    paths = {f"/proc/sys/{name.replace('.', '/')}": name for name in names}
    there = [path for path in paths if os.path.exists(path)]
    spaces = [f"--{kind}=/proc/{pid}/ns/{kind}" for kind in ("net", "ipc")]
    lines = _said("nsenter", *spaces, "--", "grep", "-H", "", *there).splitlines() if there else []
    return {paths[path]: " ".join(value.split()) for path, _, value in (line.partition(":") for line in lines)}


def limits(found: mc.Isolation) -> dict[str, Any]:
    """Soft limits by name."""
    return {name: _soft(value) for name, value in found.rlimits.items()}


def _soft(value: Any) -> Any:
    return value[0] if isinstance(value, tuple) else value


def mounted(mountinfo: str) -> tuple[str, str]:
    """The file system of / (of the last mount there, or of the host's where it is a chroot); where /work is.

    MOUNTINFO: that file's text, of proc_pid_mountinfo(5).
    """
    root, work = "", "image"
    for line in filter(None, mountinfo.split("\n")):
        left, _, right = line.partition(" - ")
        where = left.split()[4]
        if where == "/":
            root = right.split()[0]
        elif where == WORK:
            work = "volume"
    return root or "chroot", work


def interfaces(table: str) -> list[str]:
    """The devices of TABLE, the text of /proc/PID/net/dev. A cable's name is not told: some tools make them up."""
    return sorted(line.split(":")[0].strip() for line in table.splitlines()[2:])


def way_in(lan: Lan) -> dict[str, bool]:
    """Seen from the machine of LAN: its bridges, its rules, its proxies."""
    with lan.inside():
        links = json.loads(_said("ip", "-json", "-detail", "link") or "[]")
        rules = _said("nft", "list", "ruleset").lower()
        legacy = _said("iptables-legacy-save").lower() if "iptables_nat" in _kernel("/proc/modules") else ""
        listening = _said("ss", "-Hltnp")
        everywhere = _kernel(BRIDGES).strip() == "1"
    ports = [link for link in links if link.get("master") and link["ifname"] != CABLE]
    passing = [link for link in links if link.get("linkinfo", {}).get("info_data", {}).get("nf_call_iptables")]
    return {
        "bridge": bool(ports),
        "bridge_netfilter": bool(ports) and (everywhere or bool(passing)),
        "wall": bool(WALL.search(rules + legacy)),
        "masquerade": "masquerade" in rules + legacy,
        "outbound": bool(OUTBOUND.search(rules + legacy)),
        "dnat": bool(DNAT.search(rules + legacy)),
        "proxy": any(name in listening for name in PROXIES),
    }


def _kernel(path: str) -> str:
    """What the kernel says in PATH; "" where it has no such file."""
    try:
        with open(path, encoding="ascii") as file:
            return file.read()
    except OSError:
        return ""


def _said(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=20).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def differences(planned: dict[str, Any], found: dict[str, Any], where: str = "") -> list[str]:
    """What is not as PLANNED, one line each, in words. What a plan does not name may be anything."""
    lines = []
    for name, wanted in planned.items():
        dotted, have = f"{where}{name}", found.get(name)
        if isinstance(wanted, dict):
            lines += differences(wanted, have if isinstance(have, dict) else {}, f"{dotted}.")
        elif have != wanted:
            lines.append(f"{dotted} is {told(have)}, planned was {told(wanted)}")
    return lines


def told(value: Any) -> str:
    """VALUE in a sentence."""
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, (list, tuple)):
        return " ".join(map(str, value)) or "none"
    return str(value) if value != "" else "nothing"


def expected(
    *,
    own: str = "",
    root: str = "",
    work: str = "image",
    capabilities: int | None = None,
    seccomp: int | None = None,
    no_new_privs: bool | None = None,
    cgroups: str = "",
    mapped: bool = False,
    network: dict[str, Any] | None = None,
    limits: dict[str, int] | None = None,
    **others: Any,
) -> dict[str, Any]:
    """A plan: OWN and CGROUPS are words that are "own", all other namespaces are the host's; None is not planned.
    OTHERS: keys of a state as they are."""
    plan: dict[str, Any] = {
        "namespaces": {kind: "own" if kind in own.split() else "host" for kind in KINDS},
        "work": work,
        "user": {"mapped": mapped},
    }
    more = {
        "root": {"fstype": root} if root else None,
        "capabilities": {"effective": capabilities} if capabilities is not None else None,
        "seccomp": seccomp,
        "no_new_privs": no_new_privs,
        "cgroups": dict.fromkeys(cgroups.split(), "own") if cgroups else None,
        "network": network,
        "limits": limits,
        **others,
    }
    return {**plan, **{name: value for name, value in more.items() if value is not None}}
