"""No container: a chroot into the shared tree, or the machine's own root."""

from __future__ import annotations

import os
import shlex
from typing import Any

from bench.environments.base import Bind, EnvironmentBroken, Job
from bench.environments.place import WORK, Place
from bench.environments.state import expected
from bench.rootfs import TIMED


class Bare(Place):
    NAME = "bare"
    ABOUT = "chroot into the same bytes: no container"
    KNOWN = (
        "a mount namespace with /proc and the job's binds, and for jobs without a network an empty one of those",
        "its root is the copy that every arm without a layer of its own runs in, one after another",
    )
    PROGRAMS = ("unshare", "chroot", "mount")

    def root(self) -> str:
        return self.tree

    def mounts(self, job: Job) -> list[str]:
        """The lines of shell that mount what JOB sees."""
        root, lines = self.root(), []
        if root:
            lines.append(f"mount -t proc proc {shlex.quote(root)}/proc")
        for bind in self.binds(job):
            target = shlex.quote(root + bind.target)
            lines.append(f"mount --bind {shlex.quote(bind.source)} {target}")
            if bind.readonly:
                lines.append(f"mount -o remount,bind,ro {target}")
        return lines

    def enter(self, job: Job) -> list[str]:
        """The last words of shell before the job's own."""
        return ["exec", "env", "-i", *(f"{k}={shlex.quote(v)}" for k, v in self.env(job).items()), *self.into(job)]

    def into(self, job: Job) -> list[str]:
        program = f'cd {shlex.quote(job.cwd)} && exec "$@"'
        return ["chroot", shlex.quote(self.root()), "/bin/sh", "-c", shlex.quote(program), "sh", '"$@"']

    def command(self, job: Job) -> list[str]:
        spaces = ["--mount", "--propagation", "private", *(["--net"] if job.network == "none" else [])]
        up = ["ip link set lo up"] if job.network == "none" else []
        script = " && ".join([*up, *self.mounts(job), " ".join(self.enter(job))])
        return ["unshare", *spaces, "sh", "-c", script, "sh", *self.argv(job)]

    def planned(self, job: Job) -> dict[str, Any]:
        own = "mnt" if job.network == "lan" else "mnt net"
        return expected(own=own, work=job.data, capabilities=len(self.held()), seccomp=0, no_new_privs=False)


class BareAgain(Bare):
    NAME = "bare-again"
    ABOUT = "bare once more: the difference of the two is the A/A check"


class Host(Bare):
    """The machine's own root and its own programs: not the same bytes, and told so."""

    NAME = "host"
    ABOUT = "the machine's own programs in its own root"
    KNOWN = ("not the same bytes: what is installed on this machine", Bare.KNOWN[0])

    def root(self) -> str:
        return ""

    def into(self, job: Job) -> list[str]:
        return ["sh", "-c", shlex.quote(f'cd {shlex.quote(job.cwd)} && exec "$@"'), "sh", '"$@"']

    def clean(self, job: Job) -> None:
        for bind in self.binds(job):
            if not os.path.isdir(bind.target) and bind.target != WORK:
                raise EnvironmentBroken(f"host: there is no {bind.target} to mount on: nothing is made in this root")
        if not os.path.isdir(WORK):  # one that is there is hidden in the job's own mount namespace
            os.mkdir(WORK)
            self._stack.callback(os.rmdir, WORK)

    def binds(self, job: Job) -> tuple[Bind, ...]:
        volume = () if job.data == "volume" else (Bind(self.path("volume"), WORK),)
        return (*volume, *super().binds(job))

    def where(self, inside: str) -> str:
        if not (inside + "/").startswith(f"{WORK}/"):
            raise EnvironmentBroken(f"host: {inside} is in the machine's own root: only {WORK} is the job's")
        return self.path("volume") + inside[len(WORK) :]

    def argv(self, job: Job) -> list[str]:
        return [self.stage.rootfs + TIMED, *super().argv(job)[1:]]

    def planned(self, job: Job) -> dict[str, Any]:
        return {**super().planned(job), "work": "volume"}
