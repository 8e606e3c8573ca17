"""podman as root, with storage, state and configuration of the bench's own."""

from __future__ import annotations

import os
import time
from typing import Any

from bench.environments.base import EnvironmentBroken, Job
from bench.environments.docker import CAPABILITIES, FIRST_PORT
from bench.environments.docker_daemon import hierarchies
from bench.environments.live import address_of
from bench.environments.place import Place
from bench.environments.state import expected
from bench.lifecycle.peers import remove_cgroups

# For a root without CAP_SYS_RESOURCE, who may not set what podman gives to others
LIMITS = (("nofile", 16384), ("nproc", 32768))
PLACES = ("/run", "/var/lib")  # where it keeps what no option names: there it sees directories of the bench
IMAGE = "localhost/minictr-bench"


class Podman(Place):
    NAME = "podman"
    ABOUT = "podman run as root with its defaults, overlay"
    PROGRAMS = ("podman", "tar")
    KNOWN = (
        "the root is imported as an image of one layer: the same bytes in files of its own",
        "whole_s is create and start to the end, without the removal",
        "by a root without CAP_SYS_RESOURCE it is given lower limits of files and processes than by another",
        "runs by runc: crun 1.8 refuses machines with cgroups of both kinds",
    )

    def podman(self, *words: str, check: bool = True) -> Any:
        return self.tool(*self.begin(), *words, check=check, timeout=600.0)

    def begin(self) -> list[str]:
        words = ["podman", "--root", self.path("storage"), "--runroot", self.path("run"), "--storage-driver", "overlay"]
        words += ["--tmpdir", self.path("tmp"), "--cgroup-manager", "cgroupfs", "--runtime", "runc"]
        lines = [f"mount --bind {self.path('host', *place.split('/'))} {place}" for place in PLACES]
        return [*self.apart(*lines), *words, "--events-backend", "none", "--network-config-dir", self.path("networks")]

    def prepare(self) -> None:
        if not self._prepared:
            super().prepare()
            for place in PLACES:
                os.makedirs(self.path("host", *place.split("/")), exist_ok=True)
            command = f'tar -C {self.stage.rootfs} -cf - . | "$@" import - {IMAGE}'
            self.tool("sh", "-c", command, "sh", *self.begin(), timeout=600.0)

    @property
    def container(self) -> str:
        return f"minictr-bench-{os.getpid()}-{self.name}"

    def clean(self, job: Job) -> None:
        self.podman("rm", "--force", "--volumes", self.container, check=False)
        words = ["create", "--name", self.container, "--workdir", job.cwd, "--cgroup-parent", f"/{self.container}"]
        for name, most in () if "SYS_RESOURCE" in self.held() else LIMITS:
            words += ["--ulimit", f"{name}={most}:{most}"]
        words += ["--network", "none"] if job.network == "none" else []
        for port in job.ports if job.network == "lan" else ():
            words += ["--publish", f"{FIRST_PORT + port % 1000}:{port}"]
        for name, value in self.env(job).items():
            words += ["--env", f"{name}={value}"]
        for bind in self.binds(job):
            words += ["--volume", f"{bind.source}:{bind.target}" + (":ro" if bind.readonly else "")]
        begin = time.perf_counter()
        self.podman(*words, IMAGE, *self.argv(job))
        self.made_s = time.perf_counter() - begin
        self._upper = self.podman(
            "inspect", "--format", "{{.GraphDriver.Data.UpperDir}}", self.container
        ).stdout.strip()
        if not os.path.isdir(self._upper):
            raise EnvironmentBroken(f"{self.name}: no layer of its container at {self._upper or 'all'}")

    def upper(self) -> str:
        return self._upper

    def command(self, job: Job) -> list[str]:
        return [*self.begin(), "start", "--attach", self.container]

    def reached(self, pid: int, job: Job) -> tuple[dict[str, str], dict[int, int]]:
        here = self.lan.host_address
        ports = {port: FIRST_PORT + port % 1000 for port in job.ports}
        return {"client": here, "host": address_of(pid) if not ports else here}, ports

    def planned(self, job: Job) -> dict[str, Any]:
        lan = {"interfaces": ["eth0", "lo"], "bridge": True, "masquerade": True, "dnat": bool(job.ports)}
        return expected(
            own="mnt pid net ipc uts" + ("" if os.path.isdir("/sys/fs/cgroup/memory") else " cgroup"),
            root="overlay",
            work=job.data,
            capabilities=len(self.held() & CAPABILITIES - {"MKNOD", "AUDIT_WRITE", "NET_RAW"}),
            seccomp=1,
            no_new_privs=False,
            network=lan if job.network == "lan" else {"interfaces": ["lo"]},
        )

    def remove(self) -> list[str]:
        self.podman("rm", "--all", "--force", "--time", "0", check=False)
        return [f"{self.name}: cgroup {path} does not go" for path in remove_cgroups(self.container, hierarchies())]
