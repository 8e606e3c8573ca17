"""The environments by name."""

from __future__ import annotations

from bench.environments import bare, docker, lxc, ours, podman, tools, vm
from bench.environments.base import Stage
from bench.environments.place import Place

CLASSES: tuple[type[Place], ...] = (
    bare.Bare,
    bare.BareAgain,
    bare.Host,
    ours.MinictrBare,
    ours.Minictr,
    ours.MinictrOverlay,
    ours.MinictrDocker,
    ours.MinictrLxc,
    lxc.Lxc,
    lxc.LxcUnprivileged,
    docker.Docker,
    docker.DockerVolume,
    docker.DockerHost,
    docker.DockerHostVolume,
    docker.BesideDocker,
    podman.Podman,
    tools.Runc,
    tools.Crun,
    tools.Bubblewrap,
    tools.Nspawn,
    vm.VirtualMachine,
)
ENVIRONMENTS: dict[str, type[Place]] = {one.NAME: one for one in CLASSES}


def make(name: str, stage: Stage) -> Place:
    """The environment NAME on STAGE. KeyError for one that is not there."""
    return ENVIRONMENTS[name](stage)
