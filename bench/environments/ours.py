"""minictr with any features: a profile as it comes, a profile with a network, or a list of features."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Iterable, Iterator
from typing import IO, Any

import minictr as mc
from bench.environments.base import EnvironmentBroken, Job, Stage
from bench.environments.live import Child, address_of
from bench.environments.place import Place
from bench.environments.state import SYSCTLS, expected, limits

# The network, rung by rung: each is the ones before it and one more; "host" is no network namespace at all
RUNGS = ("veth", "bridge", "bridge_netfilter", "conntrack", "nat", "publish")
OWN_RUNGS = ("veth", "bridge", "conntrack", "nat", "publish")
# What docker's default bridge is made of, on a host with br_netfilter, which dockerd loads
DOCKER_RUNGS = ("veth", "bridge", "bridge_netfilter", "conntrack", "nat", "publish")
LXC_RUNGS = ("veth", "bridge", "nat")  # lxc-net's
SPACES = {"mnt": "mnt", "pid": "pid", "net": "net", "ipc": "ipc", "uts": "uts", "cgroupns": "cgroup", "userns": "user"}
CONTROLLERS = ("memory", "cpu", "cpuset", "pids", "io", "freezer", "devices", "hugetlb", "rdma", "misc")
FIRST_PORT = 18000  # of the machine, for published ports: another than the job's, as a user would have it


class Minictr(Place):
    """``domains``: of Landlock, that the job's clock puts on itself, beside the features' own; they need no_new_privs.
    ``features``: a profile's name, or features. ``rungs``: what a job of network "lan" is given; () is the machine's
    own network. ``overlay``: a layer on top of the root takes the writes, else they go to the shared tree."""

    NAME = "minictr"
    ABOUT = "minictr.Container(...).run with the default profile"
    FEATURES: str | tuple[mc.Feature, ...] = "default"
    RUNGS: tuple[str, ...] = OWN_RUNGS
    OVERLAY = False
    KNOWN: tuple[str, ...] = ("started by its library in this process: no command line is started for it",)

    def __init__(
        self,
        stage: Stage,
        name: str = "",
        *,
        features: str | Iterable[mc.Feature] | None = None,
        rungs: tuple[str, ...] | None = None,
        overlay: bool | None = None,
        domains: int = 0,
    ) -> None:
        super().__init__(stage, name)
        self.domains = domains
        given = self.FEATURES if features is None else features
        self.features = mc.Container(stage.rootfs, features=given).features
        self.rungs = self.RUNGS if rungs is None else rungs
        if unknown := set(self.rungs) - set(RUNGS):
            raise ValueError(f"rungs: {', '.join(sorted(unknown))} is not one of {', '.join(RUNGS)}")
        self.overlay = self.OVERLAY if overlay is None else overlay
        self.overlay |= any(one.name == "overlay" for one in self.features)

    def trouble(self) -> str:
        """What the kernel refuses of its features: performed by minictr's own probes."""
        refused = [one for one in self.features if not mc.support(one)]
        return "; ".join(f"{one.name}: {mc.support(one).reason}" for one in refused)

    def clean(self, job: Job) -> None:
        if self.overlay:
            for name in ("upper", "upper.work"):
                self.tool("rm", "-rf", "--", self.path(name))
            os.makedirs(self.path("upper"))
        else:
            super().clean(job)

    def upper(self) -> str:
        return self.path("upper") if self.overlay else self.tree

    def argv(self, job: Job) -> list[str]:
        clock, token, held, *rest = super().argv(job)
        return [clock, token, f"{held}:{self.domains}" if self.domains else held, *rest]

    def container(self, job: Job) -> mc.Container:
        """JOB's container, as a value."""
        box = mc.Container(self.stage.rootfs if self.overlay else self.tree, features=self.features)
        binds = [mc.Bind(one.source, one.target, "ro" if one.readonly else "") for one in self.binds(job)]
        extra: list[Any] = [mc.Env(tuple(self.env(job).items())), mc.Cwd(job.cwd), *binds]
        if self.overlay:
            lower = next((one.lower for one in self.features if one.name == "overlay"), ())
            extra.append(mc.Overlay(lower=lower, upper=self.path("upper")))
        if (binds or self.overlay) and "mnt" not in box.spec().names:
            extra.append(mc.MountNamespace())
        box = box.with_(*extra)
        return self._networked(box, job)

    def _networked(self, box: mc.Container, job: Job) -> mc.Container:
        if job.network == "none":
            return box if "net" in box.spec().names else box.with_(mc.NetNamespace(), mc.Loopback())
        if not self.rungs:
            return box.without("net")
        rungs: dict[str, list[Any]] = {
            "veth": [mc.features.make("veth")],
            "bridge": [mc.Bridged()],
            "bridge_netfilter": [mc.BridgeNetfilter()],
            "conntrack": [mc.Conntrack()],
            "nat": [mc.Nat()],
            "publish": [mc.Publish(self.published(port), port) for port in job.ports],
        }
        more = [] if "net" in box.spec().names else [mc.NetNamespace(), mc.Loopback()]
        return box.with_(*more, *(feature for rung in self.rungs for feature in rungs[rung]))

    @staticmethod
    def published(port: int) -> int:
        return FIRST_PORT + port % 1000

    @contextlib.contextmanager
    def _here(self) -> Iterator[None]:
        """On our machine, with a state directory of our own: networks of other namespaces are in another."""
        before = os.environ.get("MINICTR_ROOT")
        os.environ["MINICTR_ROOT"] = self.path("state")
        try:
            with self.lan.inside():
                yield
        finally:
            if before is None:
                del os.environ["MINICTR_ROOT"]
            else:
                os.environ["MINICTR_ROOT"] = before

    def spawn(self, job: Job, stdout: IO[bytes], stderr: IO[bytes]) -> Child:
        try:
            with self._here():
                started = self.container(job).popen(self.argv(job), stdin=mc.DEVNULL, stdout=stdout, stderr=stderr)
        except mc.MinictrError as err:
            raise EnvironmentBroken(f"{self.name}: {err}") from err
        return _Started(self, started)

    def reached(self, pid: int, job: Job) -> tuple[dict[str, str], dict[int, int]]:
        if not self.rungs:
            return super().reached(pid, job)
        if "publish" in self.rungs:
            here = self.lan.host_address
            ports = {port: self.published(port) for port in job.ports}
            return {"client": here, "host": here, "local": "127.0.0.1"}, ports
        ways = ("host",) if "conntrack" in self.rungs else ("client", "host")  # a wall, and no port in it
        return dict.fromkeys(ways, address_of(pid)), {port: port for port in job.ports}

    def planned(self, job: Job) -> dict[str, Any]:
        spec = self.container(job).spec()
        own = " ".join(kind for name, kind in SPACES.items() if name in spec.names)
        network: dict[str, Any] = {"interfaces": ["lo"]}
        if job.network == "lan":
            published = "publish" in self.rungs and bool(job.ports)
            network = {
                "bridge": "bridge" in self.rungs,
                "bridge_netfilter": "bridge_netfilter" in self.rungs,
                "wall": "conntrack" in self.rungs,
                "masquerade": "nat" in self.rungs or published,  # a port has it for who comes by 127.0.0.1
                "outbound": "nat" in self.rungs,
                "dnat": published,
                "proxy": published and "publish_proxy" in spec.names,
                **({"interfaces": ["eth0", "lo"]} if self.rungs else {}),
            }
        pids, held = spec.get("pids"), self.held()
        return expected(
            own=own,
            root="overlay" if self.overlay else "",
            work=job.data,
            capabilities=_kept(spec, held),
            seccomp=int("seccomp" in spec.names),
            no_new_privs="no_new_privs" in spec.names,
            cgroups=" ".join(name for name in CONTROLLERS if name in spec.names),
            mapped="userns" in spec.names,
            network=network,
            limits={"pids.max": pids.max} if pids is not None and isinstance(getattr(pids, "max", None), int) else None,
            **_unseen_elsewhere(spec, self.domains),
        )

    def settings(self, job: Job) -> tuple[str, ...]:
        found = self.container(job).spec().get("sysctl")
        return tuple(name for name, _ in found.settings) if found is not None else ()

    def remove(self) -> list[str]:
        if not os.path.isdir(self.path("state")):
            return []
        done = self.tool(sys.executable, "-m", "minictr", "--root", self.path("state"), "gc", check=False)
        return [f"{self.name}: {done.stderr.strip()}"] if done.returncode else []


def _unseen_elsewhere(spec: mc.Spec, domains: int) -> dict[str, Any]:
    """What features plan that show in nothing else, and in these whether they are there or not."""
    masks, closed, rows = spec.get("masked_paths"), spec.get("readonly_paths"), spec.get("rlimits")
    settings = spec.get("sysctl")
    wanted = dict(SYSCTLS) | (dict(settings.settings) if settings is not None else {})
    if "userns" in spec.names:  # the kernel cuts it to the groups that are mapped
        wanted.pop("net.ipv4.ping_group_range")
    mine = {name: soft for name, soft, _ in rows.limits} if rows is not None else {}
    return {
        "masked": sum(map(os.path.lexists, masks.paths)) if masks is not None else 0,
        "readonly": (sum(map(os.path.lexists, closed.paths)) if closed is not None else 0) + ("boot_id" in spec.names),
        "landlock": domains + ("landlock" in spec.names) if _landlock() else None,
        "sysctls": {name: " ".join(value.split()) for name, value in wanted.items()},
        "rlimits": limits(mc.isolation()) | mine,
    }


@functools.cache
def _landlock() -> bool:
    """Whether the kernel has it: without it there is nothing to be counted."""
    return bool(mc.support(mc.Landlock(rw=("/",))))


def _kept(spec: mc.Spec, held: set[str]) -> int | None:
    """How many capabilities a program of SPEC has. In a user namespace the kernel gives all it has, ours or not."""
    kept = spec.get("capabilities")
    if "userns" in spec.names:
        return None if kept is None else len(kept.parts)
    return len(held if kept is None else held & {*kept.parts})


class MinictrBare(Minictr):
    NAME = "minictr-bare"
    ABOUT = "minictr with the profile bare: a chroot"
    FEATURES = "bare"
    RUNGS = ()


class MinictrOverlay(Minictr):
    NAME = "minictr-overlay"
    ABOUT = "the default profile, and a layer on top of the root"
    OVERLAY = True


class MinictrDocker(Minictr):
    NAME = "minictr-docker"
    ABOUT = "docker's defaults rebuilt feature by feature: profile docker, overlay, bridge, NAT, published ports"
    FEATURES = "docker"
    RUNGS = DOCKER_RUNGS
    OVERLAY = True


class MinictrLxc(Minictr):
    NAME = "minictr-lxc"
    ABOUT = "LXC's defaults rebuilt: profile lxc, bridge, NAT"
    FEATURES = "lxc"
    RUNGS = LXC_RUNGS


class _Started:
    """minictr's Process with the face of subprocess's; its end is on the machine where it began."""

    def __init__(self, place: Minictr, process: mc.Process) -> None:
        self._place, self._process = place, process

    def poll(self) -> int | None:
        with self._place._here():
            return self._process.poll()

    def wait(self, timeout: float | None = None) -> int:
        with self._place._here():
            return self._process.wait(timeout)

    def kill(self) -> None:
        with self._place._here():
            self._process.close()
