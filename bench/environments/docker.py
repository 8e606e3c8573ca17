"""Docker as Debian has it: its default bridge with NAT, proxies, overlay2, its filter and its capabilities."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from bench.environments.bare import Bare
from bench.environments.base import Bind, EnvironmentBroken, Job
from bench.environments.docker_daemon import Daemon, client, foreign
from bench.environments.place import WORK, Place, steering
from bench.environments.state import SYSCTLS, expected

FIRST_PORT = 18000  # of the machine; see ours.py
# moby: oci/caps/defaults.go
CAPABILITIES = {
    *("CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP", "SETPCAP"),
    *("NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE"),
}
# moby: daemon/oci_linux.go, in a network namespace of its own
OPENED = {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"}


class _Daemonized(Place):
    """What runs, or does not, beside a dockerd of ours."""

    PROGRAMS = ("dockerd", "unshare", "tar")

    def __init__(self, stage: Any, name: str = "") -> None:
        super().__init__(stage, name)
        self.daemon = Daemon(self)
        self.filters = False  # whether its machine's bridges pass the rules of IP, as a host of dockerd has it
        if names := steering():
            unused = f"{', '.join(names)} of the caller's environment not used: it runs on the bench's own dockerd"
            self.KNOWN = (*self.KNOWN, unused)

    def trouble(self) -> str:
        if not client():
            return "the docker client is not installed: scripts/bootstrap.sh bench"
        pid = foreign(self.stage.directory)
        return f"a dockerd runs already, as process {pid}: stop it, the bench starts its own" if pid else ""

    def prepare(self) -> None:
        if not self._prepared:
            super().prepare()
            self.filters = self.lan.filter_bridges()
            self.daemon.start()
            self.rest()

    def fresh(self, job: Job) -> None:
        self.prepare()  # it ends at rest
        self.daemon.signal(signal.SIGCONT)
        if not self.daemon.alive():
            raise EnvironmentBroken(f"{self.name}: dockerd is gone: {self.daemon.last_words()}")
        super().fresh(job)

    def rest(self) -> None:
        self.daemon.signal(signal.SIGSTOP)

    def remove(self) -> list[str]:
        return self.daemon.stop()


class Docker(_Daemonized):
    NAME = "docker"
    ABOUT = "docker run with its defaults: bridge with NAT, published ports with a proxy, overlay2"
    KNOWN = (
        "the root is imported as an image of one layer: the same bytes in files of its own",
        "whole_s is create and start to the end, without the removal; the daemon runs before it",
        "dockerd and containerd are stopped (SIGSTOP) while other arms are measured",
        "its init is the job's own clock: there is no tini",
    )
    HOST = False  # --network host: the machine's own network, whatever the job says

    @property
    def container(self) -> str:
        return self.daemon.mark

    def clean(self, job: Job) -> None:
        """A new container, made and not started: its layer is there to be filled."""
        self.daemon.docker("rm", "--force", "--volumes", self.container, check=False)
        words = ["create", "--name", self.container, "--workdir", job.cwd]
        words += ["--network", "none"] if job.network == "none" else []
        words += ["--network", "host"] if self._host(job) else []
        for port in job.ports if job.network == "lan" and not self.HOST else ():
            words += ["--publish", f"{self.published(port)}:{port}"]
        for name, value in self.env(job).items():
            words += ["--env", f"{name}={value}"]
        for bind in self.binds(job):
            words += ["--volume", f"{bind.source}:{bind.target}" + (":ro" if bind.readonly else "")]
        begin = time.perf_counter()
        self.daemon.docker(*words, self.daemon.IMAGE, *self.argv(job))
        self.made_s = time.perf_counter() - begin
        answer = self.daemon.docker("inspect", "--format", "{{.GraphDriver.Data.UpperDir}}", self.container)
        self._upper = answer.stdout.strip()

    def _host(self, job: Job) -> bool:
        return self.HOST and job.network == "lan"

    @staticmethod
    def published(port: int) -> int:
        return FIRST_PORT + port % 1000

    def upper(self) -> str:
        return self._upper

    def command(self, job: Job) -> list[str]:
        return self.daemon.command("start", "--attach", self.container)

    def reached(self, pid: int, job: Job) -> tuple[dict[str, str], dict[int, int]]:
        if self._host(job):
            return super().reached(pid, job)
        here = self.lan.host_address
        return {"client": here, "host": here, "local": "127.0.0.1"}, {port: self.published(port) for port in job.ports}

    def planned(self, job: Job) -> dict[str, Any]:
        lan = {
            "interfaces": ["eth0", "lo"],
            "bridge": True,
            "bridge_netfilter": self.filters,
            "wall": True,
            "masquerade": True,
            "outbound": True,
            "dnat": bool(job.ports),
            "proxy": bool(job.ports),
        }
        if self._host(job):
            lan = {"masquerade": True, "dnat": False, "proxy": False}  # the first is dockerd's own, for the others
        return expected(
            own=("mnt pid ipc uts" if self._host(job) else "mnt pid net ipc uts")
            + ("" if self.daemon_v1() else " cgroup"),
            root="overlay",
            work=job.data,
            capabilities=len(self.held() & CAPABILITIES),
            seccomp=1,
            no_new_privs=False,
            cgroups="memory cpu cpuset pids io freezer devices",
            network=lan if job.network == "lan" else {"interfaces": ["lo"]},
            sysctls=SYSCTLS if self._host(job) else OPENED,
        )

    @staticmethod
    def daemon_v1() -> bool:
        """With cgroup v1, docker's default is the machine's own cgroup namespace."""
        return not os.path.exists("/sys/fs/cgroup/cgroup.controllers")


class DockerVolume(Docker):
    NAME = "docker-volume"
    ABOUT = "docker run with /work in a volume, whatever the job says"

    def binds(self, job: Job) -> tuple[Bind, ...]:
        rest = tuple(bind for bind in super().binds(job) if bind.target != WORK)
        return (Bind(self.path("volume"), WORK), *rest)

    def where(self, inside: str) -> str:
        if (inside + "/").startswith(f"{WORK}/"):
            return self.path("volume") + inside[len(WORK) :]
        return super().where(inside)

    def planned(self, job: Job) -> dict[str, Any]:
        return {**super().planned(job), "work": "volume"}


class DockerHost(Docker):
    NAME = "docker-host"
    ABOUT = "docker run --network host: no bridge, no NAT and no proxy on the way"
    HOST = True


class DockerHostVolume(DockerVolume):
    NAME = "docker-host-volume"
    ABOUT = "docker run --network host with /work in a volume"
    HOST = True


class BesideDocker(_Daemonized, Bare):
    """What a merely running dockerd takes: its bridge, its rules and itself, and no container."""

    NAME = "bare-dockerd"
    ABOUT = "bare, on a machine where a dockerd runs: its bridge and its rules, and no container"
    PROGRAMS = (*_Daemonized.PROGRAMS, *Bare.PROGRAMS)
    KNOWN = Bare.KNOWN

    def planned(self, job: Job) -> dict[str, Any]:
        plan = super().planned(job)
        return {**plan, "network": {"masquerade": True, "bridge": False}} if job.network == "lan" else plan
