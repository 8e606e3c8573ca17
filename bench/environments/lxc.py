"""LXC as Debian has it: its common configuration, a bridge with NAT as lxc-net makes it; as root or mapped users."""

from __future__ import annotations

import os
import shlex
from typing import Any

from bench.environments.base import Job
from bench.environments.place import Place
from bench.environments.state import expected
from bench.lifecycle.peers import remove_cgroups

SHARE = "/usr/share/lxc/config"
BRIDGE, GATEWAY, ADDRESS, SUBNET = "lxcbr0", "10.0.3.1", "10.0.3.2", "10.0.3.0/24"
# The rules of lxc-net 5.0.2 (start_nftables), but for those of its DHCP and name servers, which it makes as well
RULES = f"""
table inet lxc {{
  chain input {{
    type filter hook input priority 0;
    iifname {BRIDGE} udp dport {{ 53, 67 }} accept
    iifname {BRIDGE} tcp dport {{ 53, 67 }} accept
  }}
  chain forward {{
    type filter hook forward priority 0;
    iifname {BRIDGE} accept
    oifname {BRIDGE} accept
  }}
}}
table ip lxc {{
  chain postrouting {{
    type nat hook postrouting priority 100;
    ip saddr {SUBNET} ip daddr != {SUBNET} counter masquerade
  }}
}}
"""
DROPPED = {"MAC_ADMIN", "MAC_OVERRIDE", "SYS_TIME", "SYS_MODULE", "SYS_RAWIO"}  # common.conf
FIRST, COUNT = 100_000, 65_536


class Lxc(Place):
    NAME = "lxc"
    ABOUT = "lxc-execute with Debian's common configuration, as root"
    PROGRAMS = ("lxc-execute", "ip", "nft")
    INCLUDES: tuple[str, ...] = ("common.conf",)
    ROWS: tuple[str, ...] = ()
    KNOWN = (
        "an application container: lxc-init is its process 1",
        "its address is given, not asked of a DHCP server; it is reached by that address: LXC publishes no ports",
        "its root is the shared copy, in the backing store dir: no layer",
        "a monitor process stays beside it",
    )

    def trouble(self) -> str:
        return "" if os.path.isfile(f"{SHARE}/common.conf") else f"no {SHARE}/common.conf: install lxc"

    def prepare(self) -> None:
        if self._prepared:
            return
        super().prepare()
        os.makedirs(self.path("state"), exist_ok=True)
        self.tool("ip", "link", "add", "dev", BRIDGE, "type", "bridge")
        self.tool("ip", "address", "add", f"{GATEWAY}/24", "broadcast", "+", "dev", BRIDGE)
        self.tool("ip", "link", "set", "dev", BRIDGE, "up")
        with open(self.path("rules"), "w", encoding="ascii") as file:
            file.write(RULES)
        self.tool("nft", "-f", self.path("rules"))

    @property
    def group(self) -> str:
        return f"minictr-bench-{os.getpid()}-{self.name}"

    def configuration(self, job: Job) -> str:
        """The configuration file: lxc.container.conf(5)."""
        lines = [f"lxc.include = {SHARE}/{name}" for name in self.INCLUDES]
        lines += [f"lxc.rootfs.path = dir:{self.tree}", "lxc.uts.name = bench", "lxc.console.path = none"]
        lines += ["lxc.cgroup.relative = 1", f"lxc.cgroup.dir.monitor.pivot = {self.group}/pivot"]
        lines += [f"lxc.cgroup.dir.{part} = {self.group}/{part}" for part in ("monitor", "container")]
        lines += [f"lxc.init.cwd = {job.cwd}", *self.ROWS]
        if job.network == "lan":
            lines += ["lxc.net.0.type = veth", f"lxc.net.0.link = {BRIDGE}", "lxc.net.0.flags = up"]
            lines += [f"lxc.net.0.ipv4.address = {ADDRESS}/24", f"lxc.net.0.ipv4.gateway = {GATEWAY}"]
        else:
            lines += ["lxc.net.0.type = empty", "lxc.net.0.flags = up"]
        lines += [f"lxc.environment = {name}={value}" for name, value in self.env(job).items()]
        for bind in self.binds(job):
            options = "bind,create=dir" + (",ro" if bind.readonly else "")
            lines.append(f"lxc.mount.entry = {bind.source} {bind.target[1:]} none {options} 0 0")
        return "\n".join(lines) + "\n"

    def begin(self) -> list[str]:
        return self.apart()

    def command(self, job: Job) -> list[str]:
        with open(self.path("config"), "w", encoding="utf-8") as file:
            file.write(self.configuration(job))
        options = ["-P", self.path("state"), "-f", self.path("config"), "-o", self.path("log"), "-l", "ERROR"]
        return [*self.begin(), "lxc-execute", "-n", "bench", *options, "--", *self.argv(job)]

    def log(self) -> bytes:
        try:
            with open(self.path("log"), "rb") as file:
                return file.read()
        except OSError:
            return b""

    def reached(self, pid: int, job: Job) -> tuple[dict[str, str], dict[int, int]]:
        return {"client": ADDRESS, "host": ADDRESS}, {port: port for port in job.ports}

    def planned(self, job: Job) -> dict[str, Any]:
        lan = {"interfaces": ["eth0", "lo"], "bridge": True, "masquerade": True, "dnat": False, "proxy": False}
        return expected(
            own="mnt pid net ipc uts cgroup",
            work=job.data,
            capabilities=self.capabilities(),
            seccomp=1,
            no_new_privs=False,
            cgroups="memory cpu cpuset pids io freezer devices",
            network=lan if job.network == "lan" else {"interfaces": ["lo"]},
        )

    def capabilities(self) -> int:
        return len(self.held() - DROPPED)

    def remove(self) -> list[str]:
        return [f"{self.name}: cgroup {path} does not go" for path in remove_cgroups(self.group)]


class LxcUnprivileged(Lxc):
    NAME = "lxc-unprivileged"
    ABOUT = f"the same with its users mapped to {FIRST} and up"
    PROGRAMS = (*Lxc.PROGRAMS, "newuidmap", "unshare", "mount")
    INCLUDES = ("common.conf", "userns.conf")
    ROWS = (f"lxc.idmap = u 0 {FIRST} {COUNT}", f"lxc.idmap = g 0 {FIRST} {COUNT}")
    owner = FIRST
    KNOWN = (
        *Lxc.KNOWN,
        "begun by root, with mapped users; its root is a copy of its own, whose owners are shifted",
    )

    def begin(self) -> list[str]:
        """newuidmap asks /etc/subuid and /etc/subgid even for root: they say so, in a mount namespace of its own."""
        table = self.path("subordinate")
        with open(table, "w", encoding="ascii") as file:
            file.write(f"root:{FIRST}:{COUNT}\n")
        return self.apart(*(f"mount --bind {shlex.quote(table)} /etc/{name}" for name in ("subuid", "subgid")))

    def capabilities(self) -> int:
        return ALL

    def planned(self, job: Job) -> dict[str, Any]:
        plan = super().planned(job)
        plan["namespaces"]["user"], plan["user"] = "own", {"mapped": True, "uid": FIRST}
        return plan


with open("/proc/sys/kernel/cap_last_cap", encoding="ascii") as _file:
    ALL = int(_file.read()) + 1  # a new user namespace has them all
