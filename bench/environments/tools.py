"""Programs that make a container on the command line and stay beside it: runc, crun, bwrap, systemd-nspawn."""

from __future__ import annotations

import json
import os
from typing import Any

from bench.environments.base import Job
from bench.environments.place import Place
from bench.environments.state import expected
from bench.host import own_cgroups
from bench.lifecycle import oci, shape
from bench.lifecycle.peers import CGROUPS, remove_cgroups

NO_NETWORK = "it makes no network: a job for the client runs in the machine's own"
SHARED = "its root is the shared copy: no layer"


class Runc(Place):
    """A runtime that takes an OCI bundle, here of the shape that ``lifecycle`` gives to all."""

    NAME = "runc"
    ABOUT = "runc run, with the namespaces, masks, capabilities and filter of minictr's default"
    PROGRAMS = ("runc",)
    GLOBAL: tuple[str, ...] = ()
    CGROUPS_TOO = True
    KNOWN = (NO_NETWORK, SHARED)

    def _bundle(self, job: Job) -> str:
        plain = shape.from_minictr()
        group = self.container if self.CGROUPS_TOO else ""
        config = oci.config(plain, self.tree, tuple(self.argv(job)), group)
        config["process"] |= {"cwd": job.cwd, "env": [f"{name}={value}" for name, value in self.env(job).items()]}
        for bind in self.binds(job):
            options = ["rbind", "rprivate", "ro" if bind.readonly else "rw"]
            mount = {"type": "bind", "source": bind.source, "destination": bind.target, "options": options}
            config["mounts"].append(mount)
        if job.network == "lan":
            linux = config["linux"]
            linux["namespaces"] = [one for one in linux["namespaces"] if one["type"] != "network"]
            linux["sysctl"] = {k: v for k, v in linux["sysctl"].items() if not k.startswith("net.")}
        bundle = self.path("bundle")
        os.makedirs(bundle, exist_ok=True)
        with open(os.path.join(bundle, "config.json"), "w", encoding="utf-8") as file:
            json.dump(config, file)
        return bundle

    @property
    def container(self) -> str:
        return f"minictr-bench-{os.getpid()}-{self.name}"

    def begin(self) -> list[str]:
        return [self.PROGRAMS[0], "--root", self.path("state"), *self.GLOBAL]

    def command(self, job: Job) -> list[str]:
        return [*self.begin(), "run", "--bundle", self._bundle(job), self.container]

    def ended(self) -> None:
        self.tool(*self.begin(), "delete", "--force", self.container, check=False)

    def planned(self, job: Job) -> dict[str, Any]:
        spaces = "mnt pid ipc uts cgroup" + (" net" if job.network == "none" else "")
        plain = shape.from_minictr()
        return expected(
            own=spaces,
            work=job.data,
            capabilities=len(self.held() & set(plain.capabilities)),
            seccomp=1,
            no_new_privs=True,
            cgroups="memory cpu pids" if self.CGROUPS_TOO else "",
            network={"interfaces": ["lo"]} if job.network == "none" else {"bridge": False, "dnat": False},
        )

    def remove(self) -> list[str]:
        if not self.CGROUPS_TOO:
            return []
        return [f"{self.name}: cgroup {path} does not go" for path in remove_cgroups(self.container)]


class Crun(Runc):
    NAME = "crun"
    ABOUT = "crun run, of the same bundle, without cgroups"
    PROGRAMS = ("crun",)
    GLOBAL = ("--cgroup-manager=disabled",)
    CGROUPS_TOO = False
    KNOWN = (
        *Runc.KNOWN,
        "no cgroup; where the machine has cgroups of both kinds, those of v2 are hidden from it: crun 1.8 refuses them",
    )

    def begin(self) -> list[str]:
        """See peers.Crun: it looks for this mount, and what it does afterwards is the same without cgroups."""
        unified = f"{CGROUPS}/unified"
        hide = [f"umount {unified}"] if os.path.ismount(unified) else []
        return [*self.apart(*hide), *super().begin()] if hide else super().begin()


class Bubblewrap(Place):
    NAME = "bwrap"
    ABOUT = "bwrap with all namespaces but that of users, /proc and /dev, and minictr's default capabilities"
    PROGRAMS = ("bwrap",)
    KNOWN = (NO_NETWORK, SHARED, "no cgroup and no filter: it makes none of its own")

    def command(self, job: Job) -> list[str]:
        words = ["bwrap", "--as-pid-1", "--new-session", "--clearenv", "--die-with-parent"]
        spaces = ("ipc", "pid", "uts", "cgroup", *(["net"] if job.network == "none" else []))
        words += [f"--unshare-{kind}" for kind in spaces]
        words += ["--bind", self.tree, "/", "--proc", "/proc", "--dev", "/dev", "--cap-drop", "ALL"]
        for name in self._kept():
            words += ["--cap-add", f"CAP_{name}"]
        for name, value in self.env(job).items():
            words += ["--setenv", name, value]
        for bind in self.binds(job):
            words += ["--ro-bind" if bind.readonly else "--bind", bind.source, bind.target]
        return [*words, "--chdir", job.cwd, "--", *self.argv(job)]

    def _kept(self) -> list[str]:
        return sorted(self.held() & set(shape.from_minictr().capabilities))

    def planned(self, job: Job) -> dict[str, Any]:
        return expected(
            own="mnt pid ipc uts cgroup" + (" net" if job.network == "none" else ""),
            work=job.data,
            capabilities=len(self._kept()),
            seccomp=0,
            no_new_privs=True,
            network={"interfaces": ["lo"]} if job.network == "none" else {"bridge": False, "dnat": False},
        )


class Nspawn(Place):
    NAME = "nspawn"
    ABOUT = "systemd-nspawn --pipe, with its default capabilities and filter"
    PROGRAMS = ("systemd-nspawn",)
    KNOWN = (
        "its default network is the machine's own: so it is for a job for the client",
        SHARED,
        "not registered with machined, and in the caller's own unit: there is no systemd to ask",
    )
    GROUPS = ("payload", "supervisor")  # what it makes below the caller's own cgroup, and leaves there

    def prepare(self) -> None:
        if not self._prepared:
            super().prepare()
            there = [name for name in self.GROUPS if any(os.path.isdir(f"{own}/{name}") for own in own_cgroups())]
            self._made = [name for name in self.GROUPS if name not in there]

    def remove(self) -> list[str]:
        left = [path for name in self._made for path in remove_cgroups(name)]
        return [f"{self.name}: cgroup {path} does not go" for path in left]

    def command(self, job: Job) -> list[str]:
        words = ["systemd-nspawn", "--quiet", "--directory", self.tree, "--pipe", "--register=no", "--keep-unit"]
        words += ["--machine", "bench", "--resolv-conf=off", "--timezone=off", "--link-journal=no", "--chdir", job.cwd]
        words += ["--private-network"] if job.network == "none" else []
        words += [f"--setenv={name}={value}" for name, value in self.env(job).items()]
        for bind in self.binds(job):
            words.append(f"--bind{'-ro' if bind.readonly else ''}={bind.source}:{bind.target}")
        return [*self.apart("mount -t tmpfs tmpfs /run"), *words, "--", *self.argv(job)]

    def planned(self, job: Job) -> dict[str, Any]:
        return expected(
            own="mnt pid ipc uts cgroup" + (" net" if job.network == "none" else ""),
            work=job.data,
            no_new_privs=False,
            network={"interfaces": ["lo"]} if job.network == "none" else {"bridge": False, "dnat": False},
        )
