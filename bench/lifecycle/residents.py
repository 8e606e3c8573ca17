"""How each environment starts, joins, stops and removes a container that stays (verbs.py)."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Mapping
from typing import Any

from bench.environments.docker_daemon import hierarchies
from bench.environments.live import read
from bench.lifecycle import oci
from bench.lifecycle.arms import Arm, CommandLine, LibraryWhole, serve
from bench.lifecycle.peers import Bubblewrap, Crun, LxcExecute, Oci, Runc, remove_cgroups
from bench.lifecycle.placed import DockerRun, LxcUnprivilegedRun, NspawnRun, Placed, PodmanRun
from bench.lifecycle.shape import COMMAND
from bench.lifecycle.sign import ARGV, INSIDE
from bench.lifecycle.verbs import EXEC, REMOVE, START, STOP, Resident, Spawned, Spawning
from bench.lifecycle.worker import ArmFailed, Command, Worker

SERVING = 10.0  # seconds from a worker's start until its own program runs


class OfLibrary(Resident):
    NAME = "minictr-lib"
    ABOUT = "minictr's library: Container.start, Instance.exec, stop, remove"
    KNOWN = ("the default profile as it is, control group and monitor included",)

    def made(self) -> Arm:
        return LibraryWhole(self.lab)

    @property
    def root(self) -> str:
        return self.lab.path(f"life-{self.NAME}", "state")

    def commands(self) -> Mapping[str, Command]:
        common: dict[str, Any] = {"mode": "verb", "root": self.root, "name": self.container, "stamped": True}
        start = {"rootfs": self.lab.rootfs, "argv": list(ARGV), "bind": [self.sign.directory, INSIDE]}
        return {
            START: serve(verb="start", **start, **common),
            EXEC: serve(verb="exec", argv=list(COMMAND), **common),
            STOP: serve(verb="stop", **common),
            REMOVE: serve(verb="remove", **common),
        }

    def state(self) -> list[str]:
        path = os.path.join(self.root, "containers")
        return [f"{path}/{name}" for name in (os.listdir(path) if os.path.isdir(path) else ())]

    def end(self) -> None:
        import minictr

        mc: Any = minictr
        for instance in mc.containers(all=True, root=self.root):
            with contextlib.suppress(mc.NoSuchContainer):
                instance.remove(force=True)
        super().end()


class OfLibraryAgain(OfLibrary):
    NAME = "minictr-lib-again"
    ABOUT = "the library once more: the difference of the two is the A/A check"


class OfCommandLine(OfLibrary, Spawning):
    NAME = "minictr-cli"
    ABOUT = "minictr run -d, exec, stop, rm"

    def made(self) -> Arm:
        return CommandLine(self.lab)

    def words(self) -> Spawned:
        arm = self.arm
        assert isinstance(arm, CommandLine)
        begin = [arm.executable(), "--root", self.root]
        bind = ["-v", f"{self.sign.directory}:{INSIDE}", "--rootfs", self.lab.rootfs]
        return {
            START: [*begin, "run", "-d", "--name", self.container, *bind, "--", *ARGV],
            EXEC: [*begin, "exec", self.container, *COMMAND],
            STOP: [*begin, "stop", self.container],
            REMOVE: [*begin, "rm", "-f", self.container],
        }

    def commands(self) -> Mapping[str, Command]:
        return Spawning.commands(self)


class OfOci(Spawning):
    """``kill`` asks and comes back: a stop is over when the program is."""

    KIND: type[Oci]

    def made(self) -> Arm:
        return self.KIND(self.lab, "-life")

    @property
    def root(self) -> str:
        return self.lab.path(self.arm.name, "state")

    def words(self) -> Spawned:
        arm = self.arm
        assert isinstance(arm, Oci)
        bundle = self.lab.path(arm.name, "bundle")
        if self.KIND.WITH_CGROUP and self.numbered:
            raise ArmFailed(f"{self.NAME}: many would share the control group of one bundle")
        group = self.container if self.KIND.WITH_CGROUP else ""
        bind = {"type": "bind", "source": self.sign.directory, "destination": INSIDE, "options": ["bind", "rw"]}
        oci.write_bundle(
            bundle, shape=self.lab.shape, rootfs=self.lab.rootfs, argv=ARGV, cgroups_path=group, mounts=(bind,)
        )
        begin = [arm.executable(), "--root", self.root, *arm.GLOBAL]
        return {
            START: [*begin, "run", "--detach", "--bundle", bundle, self.container],
            EXEC: [*begin, "exec", self.container, *COMMAND],
            STOP: [*begin, "kill", self.container, "TERM"],
            REMOVE: [*begin, "delete", "--force", self.container],
        }

    def spawner(self, words: list[str]) -> Command:
        assert isinstance(self.arm, Oci)
        hidden = list(self.arm.UNMOUNT)
        return serve(mode="spawn", argv=words, unmount=hidden, stamped=True, numbered=self.numbered)

    def state(self) -> list[str]:
        return [f"{self.root}/{name}" for name in (os.listdir(self.root) if os.path.isdir(self.root) else ())]

    def end(self) -> None:
        for path in self.state():
            words = [*self.words()[REMOVE][:-1], os.path.basename(path)]
            with contextlib.suppress(ArmFailed), self.worker(self.spawner(words), self.lab.path("log", "end")) as one:
                one.start()
        super().end()
        remove_cgroups(self.container)


class OfRunc(OfOci):
    NAME, KIND = "runc", Runc
    ABOUT = "runc run --detach, exec, kill TERM, delete"
    KNOWN = Runc.KNOWN


class OfCrun(OfOci):
    NAME, KIND = "crun", Crun
    ABOUT = "crun run --detach, exec, kill TERM, delete"
    KNOWN = Crun.KNOWN


NO_TEARDOWN = "no verb for teardown: it removes itself; the time is from its stop until nothing is left"
GROUPS_STAY = "the control groups that it makes stay for the next: nothing is waited for there"


class OfLxc(Spawning):
    NAME = "lxc-execute"
    ABOUT = "lxc-execute --daemon, lxc-attach, lxc-stop"
    KNOWN = (*LxcExecute.KNOWN, "lxc-stop asks its init, which sends SIGTERM to the program", NO_TEARDOWN)

    def made(self) -> Arm:
        return LxcExecute(self.lab, "-life")

    def words(self) -> Spawned:
        arm = self.arm
        assert isinstance(arm, LxcExecute)
        config = arm.write_configuration()
        with open(config, "a", encoding="utf-8") as file:
            file.write(f"lxc.mount.entry = {self.sign.directory} {INSIDE[1:]} none bind 0 0\n")
        state = self.lab.path(arm.name, "state")
        os.makedirs(state, exist_ok=True)
        return lxc_words(self.container, state, config, self.lab.path(arm.name, "log"))

    def end(self) -> None:
        lxc_kill(self)
        super().end()


def lxc_words(name: str, state: str, config: str, log: str) -> Spawned:
    where = ["-n", name, "-P", state]
    tool = {verb: shutil.which(f"lxc-{verb}") or f"lxc-{verb}" for verb in ("execute", "attach", "stop")}
    return {
        START: [tool["execute"], *where, "-d", "-f", config, "-o", log, "--", *ARGV],
        EXEC: [tool["attach"], *where, "--", *COMMAND],
        STOP: [tool["stop"], *where],
    }


def lxc_kill(it: Spawning) -> None:
    """Whatever runs is killed."""
    words = [*it.words()[STOP], "-k"]
    with contextlib.suppress(ArmFailed), it.worker(it.spawner(words), it.lab.path("log", "end")) as one:
        one.start()


class OfBubblewrap(Resident):
    NAME = "bwrap"
    ABOUT = "bwrap in the foreground"
    KNOWN = (*Bubblewrap.KNOWN, "no verb for exec or stop: a signal to the program ends it", NO_TEARDOWN)
    ATTACHED = True

    def made(self) -> Arm:
        return Bubblewrap(self.lab, "-life")

    def commands(self) -> Mapping[str, Command]:
        assert isinstance(self.arm, Bubblewrap)
        return {START: self.arm.spawner(ARGV, (self.sign.directory, INSIDE), stamped=True)}


class OfPlaced(Spawning):
    """One of placed.py: all its workers are in the mount namespace of the first."""

    KIND: type[Placed]

    def made(self) -> Arm:
        return self.KIND(self.lab, "-life")

    @property
    def place(self) -> Any:
        return self.arm.place  # type: ignore[attr-defined]

    def commands(self) -> Mapping[str, Command]:
        arm = self.arm
        assert isinstance(arm, Placed)
        arm.ready()
        self.awake()
        commands: dict[str, Command] = {}
        for verb, words in self.words().items():
            program = [shutil.which(words[0]) or words[0], *words[1:]]
            commands[verb] = arm.spawner(program, stamped=True) if not commands else self.spawner(program)
        return commands

    def worker(self, command: Command, log: str) -> Worker:
        first = next(iter(self.workers.values()), None)
        join = ["nsenter", f"--mount=/proc/{serving(first)}/ns/mnt", "--"] if first else []
        with self.place.lan.inside():
            return Worker(lambda request, reply: [*join, *command(request, reply)], log=log)

    def awake(self) -> None:
        if isinstance(self.arm, Placed):
            self.arm.awake()

    def rest(self) -> None:
        if isinstance(self.arm, Placed):
            self.arm.rest()


def serving(worker: Worker) -> int:
    """The pid of WORKER once it is what it is to be: what is in front of that makes its namespace and mounts, and who
    joins earlier is on the host. Raises ArmFailed."""
    deadline, wanted = time.monotonic() + SERVING, os.path.realpath(sys.executable)
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/{worker.pid}/exe") == wanted:
                return worker.pid
        time.sleep(0.001)
    raise ArmFailed(f"its first worker is not in its own mount namespace after {SERVING:g} s")


class OfLxcUnprivileged(OfPlaced):
    NAME, KIND = "lxc-unprivileged", LxcUnprivilegedRun
    ABOUT = OfLxc.ABOUT
    KNOWN = (*LxcUnprivilegedRun.KNOWN, *OfLxc.KNOWN[-2:])

    def words(self) -> Spawned:
        arm = self.arm
        assert isinstance(arm, LxcUnprivilegedRun)
        arm.words(COMMAND)
        config, state = self.place.path("config"), self.place.path("state")
        line = f"lxc.mount.entry = {self.sign.directory} {INSIDE[1:]} none bind 0 0\n"
        with open(config, "a", encoding="utf-8") as file:
            file.write(line)
        return lxc_words(self.container, state, config, self.place.path("log"))

    def end(self) -> None:
        if self.workers:
            lxc_kill(self)
        super().end()


class OfNspawn(OfPlaced):
    NAME, KIND = "nspawn", NspawnRun
    ABOUT = "systemd-nspawn in the foreground; SIGTERM to it is its stop (--kill-signal=SIGTERM)"
    KNOWN = (*NspawnRun.KNOWN, "no verb for exec without machined", NO_TEARDOWN, GROUPS_STAY)
    ATTACHED = True
    REMOVES_GROUPS = False

    def words(self) -> Spawned:
        assert isinstance(self.arm, NspawnRun)
        words = self.arm.words(ARGV)
        at = words.index("--")
        return {START: [*words[:at], "--kill-signal=SIGTERM", f"--bind={self.sign.directory}:{INSIDE}", *words[at:]]}

    def terminate(self, pid: int) -> None:
        """To nspawn itself, the child of the worker."""
        worker = self.workers[START].pid
        children = read(f"/proc/{worker}/task/{worker}/children").split()
        for child in children:
            os.kill(int(child), signal.SIGTERM)


class OfDocker(OfPlaced):
    NAME, KIND = "docker", DockerRun
    ABOUT = "docker run -d, exec, stop, rm"
    KNOWN = DockerRun.KNOWN

    def words(self) -> Spawned:
        daemon, name = self.place.daemon, self.container
        options = ["--name", name, "--network", "none", "--volume", f"{self.sign.directory}:{INSIDE}"]
        return {
            START: daemon.command("run", "--detach", *options, daemon.IMAGE, *ARGV),
            EXEC: daemon.command("exec", name, *COMMAND),
            STOP: daemon.command("stop", name),
            REMOVE: daemon.command("rm", "--force", "--volumes", name),
        }

    def state(self) -> list[str]:
        path = f"{self.place.daemon.home}/data/containers"
        mark, found = self.place.daemon.mark, [f"{path}/{name}" for name in os.listdir(path)]
        tops = (os.path.join(parent, mark) for parent in hierarchies())
        return found + [one.path for top in tops if os.path.isdir(top) for one in os.scandir(top) if one.is_dir()]


class OfPodman(OfPlaced):
    NAME, KIND = "podman", PodmanRun
    ABOUT = "podman run -d, exec, stop, rm"
    KNOWN = PodmanRun.KNOWN

    def words(self) -> Spawned:
        arm, name = self.arm, self.container
        assert isinstance(arm, PodmanRun)
        begin = self.place.begin()
        options = ("--detach", "--name", name, "--volume", f"{self.sign.directory}:{INSIDE}")
        return {
            START: [*arm.run_words(*options), *ARGV],
            EXEC: [*begin, "exec", name, *COMMAND],
            STOP: [*begin, "stop", name],
            REMOVE: [*begin, "rm", "--force", "--volumes", name],
        }

    def state(self) -> list[str]:
        path = self.place.path("storage", "overlay-containers")
        names = os.listdir(path) if os.path.isdir(path) else ()
        return [f"{path}/{one}" for one in names if os.path.isdir(f"{path}/{one}")]


RESIDENTS: dict[str, type[Resident]] = {
    one.NAME: one
    for one in (
        OfLibrary,
        OfLibraryAgain,
        OfCommandLine,
        OfBubblewrap,
        OfCrun,
        OfLxc,
        OfLxcUnprivileged,
        OfRunc,
        OfNspawn,
        OfDocker,
        OfPodman,
    )
}
