"""Arms that are environments of the bench (bench/environments): Docker, podman, systemd-nspawn, unprivileged LXC.

They bring what they need there: a dockerd of the bench's own, a storage of podman's own, a mount namespace in which
the host's state is hidden. Each runs with its own defaults and no network: not the shape, and told.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from typing import Any, ClassVar

from bench.environments.base import EnvironmentBroken, Job
from bench.environments.docker import Docker
from bench.environments.lxc import LxcUnprivileged
from bench.environments.place import Place
from bench.environments.podman import IMAGE, LIMITS, Podman
from bench.environments.tools import Nspawn
from bench.lifecycle.arms import Arm, serve
from bench.lifecycle.lab import Lab
from bench.lifecycle.shape import COMMAND
from bench.lifecycle.worker import ArmFailed, Command, Start, Worker
from bench.tree import Tree

AWAKE = 0.02  # seconds that a daemon that was stopped in its tracks has to catch up, before it is asked


class LabStage:
    """What environments ask of a stage (bench/environments/base.py), of a lab's root."""

    linux = ""

    def __init__(self, lab: Lab) -> None:
        self.rootfs, self.directory = lab.rootfs, _new(lab.scratch())
        self._shifted: dict[int, Tree] = {}

    def tree(self, owner: int = 0) -> str:
        """A copy, its owners shifted by OWNER: some tools make mount points in it."""
        if owner not in self._shifted:
            self._shifted[owner] = Tree(self.rootfs, os.path.join(self.directory, f"tree-{owner}"), owner)
        return self._shifted[owner].path

    def restore(self, owner: int = 0) -> None:
        """Nothing: see :meth:`tree`."""


def _new(parent: str) -> str:
    """A new directory in PARENT with a short name: podman takes no runroot of more than 50 characters."""
    for number in itertools.count():
        with contextlib.suppress(FileExistsError):
            os.mkdir(path := os.path.join(parent, str(number)))
            return path
    raise AssertionError


class _Within:
    """An environment whose commands are run in a mount namespace that was made before: what it mounts there
    (``Place.apart``) is in no start's time."""

    within = False
    mounted: tuple[str, ...] = ()

    def apart(self, *lines: str) -> list[str]:
        self.mounted = lines
        return [] if self.within else super().apart(*lines)  # type: ignore[misc, no-any-return]

    def argv(self, job: Job) -> list[str]:
        """The job's own words: ``lifecycle`` has clocks of its own."""
        return list(job.argv)

    def around(self) -> list[str]:
        """The beginning of a command that is run in such a namespace."""
        return Place.apart(self, *self.mounted)  # type: ignore[arg-type]


class PlainNspawn(_Within, Nspawn):
    pass


class PlainLxc(_Within, LxcUnprivileged):
    pass


class PlainPodman(_Within, Podman):
    pass


class Placed(Arm):
    """An arm that is an environment. Subclasses say the PLACE and the words of one start."""

    PLACE: ClassVar[type[Place]]

    def __init__(self, lab: Lab, tag: str = "") -> None:
        super().__init__(lab, tag)
        self._place: Any = None

    @property
    def place(self) -> Any:
        """The environment; made when it is first asked for, as the lab is not yet ready when an arm is made."""
        if self._place is None:
            self._place = self.PLACE(LabStage(self.lab))
        return self._place

    def available(self) -> str:
        return super().available() or str(self.place.unavailable())

    def ready(self) -> None:
        """The environment prepared, with ``apart`` in every command until then and without from then on.

        Raises ArmFailed.
        """
        try:
            self.place.prepare()
        except EnvironmentBroken as err:
            raise ArmFailed(str(err)) from err
        if isinstance(self.place, _Within):
            self.place.within = True

    def words(self, argv: Sequence[str]) -> list[str]:
        """One start of ARGV, without what is mounted around it."""
        raise NotImplementedError

    def spawner(self, words: Sequence[str], **wishes: Any) -> Command:
        """The worker's command that starts WORDS where this environment's commands are run."""
        program = shutil.which(words[0]) or words[0]
        serving = serve(mode="spawn", argv=[program, *words[1:]], **wishes)
        around = self.place.around() if isinstance(self.place, _Within) else []
        return lambda request, reply: [*around, *serving(request, reply)]

    def command(self, argv: tuple[str, ...]) -> Command:
        return self.spawner(self.words(argv))

    def probe(self) -> str:
        self.ready()
        with self.place.lan.inside():
            return super().probe()

    def worker(self, number: int = 0) -> Worker:
        self.ready()
        with self.place.lan.inside():
            return super().worker(number)

    def awake(self) -> None:
        """Before it is asked for anything."""

    def rest(self) -> None:
        """When others are measured: see ``Environment.rest``."""
        if self._place is not None:
            self._place.rest()

    def cleanup(self) -> None:
        super().cleanup()
        if self._place is not None:
            for line in self._place.cleanup():
                print(f"bench lifecycle: {line}", file=sys.stderr)
            shutil.rmtree(self._place.stage.directory, ignore_errors=True)
            self._place = None


class DockerRun(Placed):
    NAME = "docker"
    ABOUT = "docker run --rm --network none, with its defaults"
    PLACE = Docker
    KNOWN = (
        "asks a daemon that runs before it (the bench's own), which makes and removes a layer, a cgroup and a log",
        "dockerd and containerd are stopped (SIGSTOP) while other arms are measured",
        "its own capabilities and filter; its own copy of the root's bytes, as an image of one layer",
    )

    def words(self, argv: Sequence[str]) -> list[str]:
        daemon = self.place.daemon
        shape = self.lab.shape
        run = ("run", "--rm", "--network", "none", "--hostname", shape.hostname)
        return list(daemon.command(*run, daemon.IMAGE, *argv))

    def awake(self) -> None:
        self.place.daemon.signal(signal.SIGCONT)
        time.sleep(AWAKE)

    def probe(self) -> str:
        self.ready()
        self.awake()
        try:
            return super().probe()
        finally:
            self.rest()

    def start(self) -> Start:
        self.awake()
        try:
            return super().start()
        finally:
            self.rest()


class PodmanRun(Placed):
    NAME = "podman"
    ABOUT = "podman run --rm --network none as root, with its defaults"
    PLACE = PlainPodman
    KNOWN = (
        "no daemon: it opens its storage, mounts a layer, starts conmon and runc, and removes all that",
        "its own capabilities and filter; its own copy of the root's bytes, as an image of one layer",
    )

    def run_words(self, *options: str) -> list[str]:
        """The words up to the image's name."""
        shape, place = self.lab.shape, self.place
        run = [*place.begin(), "run", "--network", "none", "--hostname", shape.hostname]
        run += ["--cgroup-parent", f"/{place.container}", *options]
        for name, most in () if "SYS_RESOURCE" in place.held() else LIMITS:
            run += ["--ulimit", f"{name}={most}:{most}"]
        return [*run, IMAGE]

    def words(self, argv: Sequence[str]) -> list[str]:
        return [*self.run_words("--rm"), *argv]

    def cleanup(self) -> None:
        if self._place is not None:
            self._place.within = False
        super().cleanup()


class NspawnRun(Placed):
    NAME = "nspawn"
    ABOUT = "systemd-nspawn --pipe --private-network, with its default capabilities and filter"
    PLACE = PlainNspawn
    KNOWN = (
        "asks no systemd and is not registered (--register=no --keep-unit): there is none to ask here",
        "it puts /run, /tmp and its own devices into the container; its own capabilities and filter",
    )

    def words(self, argv: Sequence[str]) -> list[str]:
        return list(self.place.command(Job(tuple(argv))))


class LxcUnprivilegedRun(Placed):
    NAME = "lxc-unprivileged"
    ABOUT = "lxc-execute with Debian's common configuration and mapped users"
    PLACE = PlainLxc
    KNOWN = (
        "begun by root, with users mapped from 100000 on; its root is a copy whose owners are shifted",
        "makes and removes cgroups (monitor, payload) in every hierarchy; a monitor and an init of its own",
        "all capabilities, in its user namespace; LXC's own filter",
    )

    def words(self, argv: Sequence[str]) -> list[str]:
        self.place.fresh(Job(COMMAND))  # the mount namespace's lines, and a volume nobody asks for
        return list(self.place.command(Job(tuple(argv))))
