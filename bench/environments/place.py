"""What all environments have in common: a network, a shared tree, one job after another."""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from typing import IO, Any, ClassVar

import minictr as mc
from bench.environments import state
from bench.environments.base import WORK, Bind, EnvironmentBroken, Held, Job, Ran, Stage
from bench.environments.live import Child, Group, Live
from bench.lan import Lan
from bench.rootfs import TIMED

BASE_ENV = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C"}

# What turns docker, dockerd, podman or containerd to another daemon, another configuration or another way to talk
STEERING = ("DOCKER_", "DOCKERD_", "CONTAINER_", "CONTAINERS_", "CONTAINERD_", "PODMAN_", "REGISTRY_AUTH_FILE")


def steering() -> list[str]:
    """Variables of the caller's environment by which tools of an arm would be led elsewhere (docker(1), podman(1))."""
    return sorted(name for name in os.environ if name.startswith(STEERING))


def environment() -> dict[str, str]:
    """What tools of an arm are given: without those, whatever the user has for his own daemons."""
    return {name: value for name, value in os.environ.items() if not name.startswith(STEERING)}


class Place:
    """The base of all. Subclasses say how a job is spawned (``spawn``) and what it is then (``planned``).

    ``owner``: what user ids on disk are shifted by, for those that map root elsewhere.
    """

    NAME: ClassVar[str] = ""
    ABOUT: ClassVar[str] = ""
    KNOWN: tuple[str, ...] = ()
    PROGRAMS: tuple[str, ...] = ()  # that must be installed
    owner = 0

    def __init__(self, stage: Stage, name: str = "") -> None:
        self.stage, self.name = stage, name or self.NAME
        self.lan = Lan()
        self.token = ""
        self.made_s = 0.0  # of making the container, before it was started: part of whole_s
        self.job: Job | None = None
        self.seen: dict[str, Any] = {}
        self._stack = contextlib.ExitStack()
        self._prepared = False

    # --- for the runner ---

    def unavailable(self) -> str:
        missing = [program for program in self.PROGRAMS if not shutil.which(program)]
        if missing:
            return f"{', '.join(missing)} not installed: scripts/bootstrap.sh bench"
        try:
            return self.trouble()
        except EnvironmentBroken as err:
            return str(err)

    def trouble(self) -> str:
        """What else is in the way, found by performing."""
        return ""

    def prepare(self) -> None:
        if not self._prepared:
            os.makedirs(self.path(), exist_ok=True)
            self._stack.enter_context(self.lan)
            self._prepared = True

    def fresh(self, job: Job) -> None:
        if not self._prepared:
            self.prepare()
        self.made_s, self.job, self.token = 0.0, job, secrets.token_hex(8)
        shutil.rmtree(self.path("volume"), ignore_errors=True)
        os.makedirs(self.path("volume"))
        os.chown(self.path("volume"), self.owner, self.owner)
        self.clean(job)

    def clean(self, job: Job) -> None:
        """The root as it was: here the shared tree."""
        self.stage.restore(self.owner)
        for bind in self.binds(job):
            if not os.path.exists(self.tree + bind.target):
                os.makedirs(self.tree + bind.target)

    def rest(self) -> None:
        pass

    def run(self, job: Job) -> Ran:
        with self._live(job) as live:
            live.go()
            return live.wait(job.timeout)

    def start(self, job: Job) -> Held:
        live = self._live(job)
        try:
            live.go()
            live.listening()
            live.addresses, live.ports = self.reached(live.pid, job)
        except BaseException:
            live.close()
            raise
        return live

    def _live(self, job: Job) -> Held:
        if job != self.job:
            raise EnvironmentBroken(f"{self.name}: fresh() was for another job, or there was none")
        return self.hold(job)

    def hold(self, job: Job) -> Held:
        """Start JOB, held before its first instruction, and read its state."""
        return Live(self, job).begin()

    def planned(self, job: Job) -> dict[str, Any]:
        raise NotImplementedError

    def state(self, job: Job) -> dict[str, Any]:
        if self.job != job or not self.seen:
            self.fresh(job)
            with self._live(job):
                pass
        return self.seen

    def put(self, source: str, inside: str) -> None:
        """Owners are root's inside, modes and times those of SOURCE."""
        target = self.where(inside)
        self._directories(os.path.dirname(inside))
        self._copy(source, target)
        if self.owner or os.stat(source).st_uid:
            subprocess.run(["chown", "-R", "-h", f"{self.owner}:{self.owner}", target], check=True)

    def get(self, inside: str, target: str) -> None:
        self._copy(self.where(inside), target)

    def _directories(self, inside: str) -> None:
        """INSIDE and those above it, in a layer with the modes that they have in the root."""
        target = self.where(inside)
        if os.path.isdir(target):
            return
        self._directories(os.path.dirname(inside))
        os.mkdir(target)
        os.chown(target, self.owner, self.owner)
        if os.path.isdir(self.stage.rootfs + inside):
            shutil.copystat(self.stage.rootfs + inside, target)

    def _copy(self, source: str, target: str) -> None:
        command = ["cp", "-a", "--reflink=auto", "-T", "--", source, target]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise EnvironmentBroken(f"{self.name}: {done.stderr.strip()}")

    def cleanup(self) -> Sequence[str]:
        left: list[str] = []
        if self._prepared:
            try:
                left += self.remove()
            except Exception as err:  # whatever it is, the rest is removed
                left.append(f"{self.name}: {err}")
        self._prepared, self.job, self.seen = False, None, {}
        try:
            self._stack.close()
        except Exception as err:
            left.append(f"{self.name}: {err}")
        shutil.rmtree(self.path(), ignore_errors=True)
        return left

    def remove(self) -> list[str]:
        """What else it made, while its network is still there; a line for what would not go."""
        return []

    # --- for the classes below ---

    def path(self, *names: str) -> str:
        """A path in this environment's own directory."""
        return os.path.join(self.stage.directory, self.name, *names)

    @property
    def tree(self) -> str:
        return self.stage.tree(self.owner)

    def argv(self, job: Job) -> list[str]:
        """JOB as it is started: under the clock, held at both ends."""
        return [TIMED, self.token, "1", *job.argv]

    @staticmethod
    def held() -> set[str]:
        """The capabilities of this process: no container of ours has more."""
        return set(mc.isolation().capabilities.effective)

    def env(self, job: Job) -> dict[str, str]:
        return {**BASE_ENV, **job.env}

    def binds(self, job: Job) -> tuple[Bind, ...]:
        """Those of the job, and /work where that is a volume."""
        volume = (Bind(self.path("volume"), WORK),) if job.data == "volume" else ()
        return (*volume, *job.binds)

    def where(self, inside: str) -> str:
        """The path on this machine of INSIDE, while no job runs."""
        if self.job is None:
            raise EnvironmentBroken(f"{self.name}: there is no fresh container")
        if self.job.data == "volume" and (inside + "/").startswith(f"{WORK}/"):
            return self.path("volume") + inside[len(WORK) :]
        return self.upper() + inside

    def upper(self) -> str:
        """Where what is written inside lies."""
        return self.tree

    def spawn(self, job: Job, stdout: IO[bytes], stderr: IO[bytes]) -> Child:
        """Start JOB, and give the process that stays as long as its container."""
        return self.popen(self.command(job), stdout, stderr)

    def command(self, job: Job) -> list[str]:
        raise NotImplementedError

    def popen(self, command: Sequence[str], stdout: IO[bytes], stderr: IO[bytes], **options: Any) -> Group:
        """COMMAND on the machine of our lan, in a session of its own: a Ctrl-C is ours to pass on."""
        with self.lan.inside():
            return Group(
                command,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
                **options,
            )

    def apart(self, *lines: str) -> list[str]:
        """The beginning of a command that runs in a mount namespace of its own, where /sys shows the network of our
        machine (LXC and dockerd look there), after the shell's LINES."""
        aside = self.path("cgroup")
        os.makedirs(aside, exist_ok=True)
        groups, kept = "/sys/fs/cgroup", shlex.quote(aside)
        mounts = [f"mount --rbind {groups} {kept}", "mount -t sysfs sysfs /sys", f"mount --rbind {kept} {groups}"]
        script = " && ".join([*mounts, *lines, 'exec "$@"'])
        return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"]

    def tool(self, *command: str, check: bool = True, timeout: float = 120.0) -> subprocess.CompletedProcess[str]:
        """A command to its end, on the machine of our lan. EnvironmentBroken with its words when it fails."""
        try:
            with self.lan.inside():
                done = subprocess.run(
                    command,
                    env=environment(),
                    cwd="/",  # not where a source tree of minictr may stand in the way of the installed one
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    text=True,
                    timeout=timeout,
                    check=False,
                )
        except (OSError, subprocess.TimeoutExpired) as err:
            raise EnvironmentBroken(f"{self.name}: {err}") from err
        if check and done.returncode:
            said = (done.stderr.strip() or done.stdout.strip() or f"left with {done.returncode}")[-300:]
            raise EnvironmentBroken(f"{self.name}: {' '.join(command[:3])}: {said}")
        return done

    def look(self, pid: int, job: Job) -> dict[str, Any]:
        self.seen = state.read(pid, job, self.lan, self.settings(job))
        return self.seen

    def settings(self, job: Job) -> tuple[str, ...]:
        """Sysctls that it sets, and that are to be read back."""
        return ()

    def returncode(self, code: int) -> int:
        """The job's own exit code, from what the tool left with."""
        return code if code >= 0 else 128 - code

    def reached(self, pid: int, job: Job) -> tuple[dict[str, str], dict[int, int]]:
        """The ways to a server: here that of a job in the machine's own network."""
        here = self.lan.host_address
        return {"client": here, "host": here, "local": "127.0.0.1"}, {port: port for port in job.ports}

    def ended(self) -> None:
        """After every job, also after one that failed."""

    def log(self) -> bytes:
        """What the tool wrote down elsewhere than on its standard error."""
        return b""
