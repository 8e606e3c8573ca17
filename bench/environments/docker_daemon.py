"""A dockerd of our own: its directories, socket, cgroups and network are the bench's, and go with it.

It runs on the machine of its environment's lan (its bridge and its rules are in that network namespace) and in a mount
namespace of its own (its overlays are nobody else's). What it leaves when it is killed is found by that: processes by
its directory in their command lines, cgroups by their name.

Nothing of the caller's own docker leads elsewhere: each command names the socket and the client's configuration, and
has none of the variables of ``place.STEERING``.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from typing import TYPE_CHECKING

from bench.environments.base import EnvironmentBroken
from bench.environments.live import Group, read
from bench.environments.place import environment
from bench.lifecycle.peers import CGROUPS, remove_cgroups

if TYPE_CHECKING:
    from bench.environments.place import Place

STARTING, ENDING = 60.0, 30.0  # seconds
STEP = 0.05
# /etc/docker gets its key file, /run its plugins' sockets: both in a table of mounts that goes with it
PRIVATE = ("mkdir -p /etc/docker", "mount -t tmpfs tmpfs /etc/docker")


def client() -> str:
    """The one of the daemon's package, if there are several: an older daemon refuses newer clients."""
    return "/usr/bin/docker" if os.path.exists("/usr/bin/docker") else shutil.which("docker") or ""


def foreign(ours: str) -> int:
    """The process id of a dockerd that runs already, and has not its home below OURS; 0 when none does."""
    for name in filter(str.isdecimal, os.listdir("/proc")):
        is_one = read(f"/proc/{name}/comm").strip() == b"dockerd"
        if is_one and f"{ours}/".encode() not in read(f"/proc/{name}/cmdline"):
            return int(name)
    return 0


class Daemon:
    """One dockerd for PLACE, with the root file system imported as IMAGE."""

    IMAGE = "minictr-bench"

    def __init__(self, place: Place, storage: str = "overlay2") -> None:
        self.place, self.storage = place, storage
        self.process: subprocess.Popen[bytes] | None = None
        self.mark = f"minictr-bench-{os.getpid()}-{place.name}"
        self.home = place.path("docker")

    @property
    def socket(self) -> str:
        return f"unix://{self.home}/socket"

    def docker(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A command of the client, to its end. EnvironmentBroken with its words when it fails."""
        return self.place.tool(*self.command(*words), check=check, timeout=600.0)

    def command(self, *words: str) -> list[str]:
        return [client(), "--host", self.socket, "--config", f"{self.home}/client", *words]

    def start(self) -> None:
        """Start it, and import the root's bytes. EnvironmentBroken, with its last line, when it does not come up."""
        if pid := foreign(self.place.stage.directory):
            raise EnvironmentBroken(f"a dockerd runs already, as process {pid}: stop it, the bench starts its own")
        os.makedirs(self.home, exist_ok=True)
        words = [
            "dockerd",
            "--host",
            self.socket,
            "--data-root",
            f"{self.home}/data",
            "--exec-root",
            f"{self.home}/run",
        ]
        words += ["--pidfile", f"{self.home}/pid", "--storage-driver", self.storage, "--cgroup-parent", f"/{self.mark}"]
        with open(f"{self.home}/log", "wb") as log, self.place.lan.inside():
            self.process = Group(
                [*self.place.apart(*PRIVATE), *words],
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._wait()
        tar = f"tar -C {self.place.stage.rootfs} -cf - ."
        command = f"{tar} | {' '.join(self.command('import', '-', self.IMAGE))}"
        self.place.tool("sh", "-c", command, timeout=600.0)

    def _wait(self) -> None:
        assert self.process is not None
        deadline = time.monotonic() + STARTING
        while time.monotonic() < deadline and self.process.poll() is None:
            if self.docker("info", check=False).returncode == 0:
                return
            time.sleep(STEP)
        raise EnvironmentBroken(f"{self.place.name}: dockerd does not start: {self.last_words()}")

    def last_words(self) -> str:
        lines = read(f"{self.home}/log").decode(errors="replace").strip().splitlines()
        return lines[-1][-300:] if lines else "it says nothing"

    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def processes(self) -> list[int]:
        """dockerd, its containerd and their shims: all that have our directory in their command lines."""
        home = f"{self.home}/".encode()
        names = filter(str.isdecimal, os.listdir("/proc"))
        return [int(name) for name in names if home in read(f"/proc/{name}/cmdline") and int(name) != os.getpid()]

    def signal(self, number: int) -> None:
        """To each of them: STOP makes it cost nothing, CONT lets it go on."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def stop(self) -> list[str]:
        """End it and remove what it left, also when it was killed; a line for what would not go."""
        if self.process is None:
            return []
        self.signal(signal.SIGCONT)
        if self.alive():
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(ENDING)
        self._kill()
        self.process.wait()
        self.process = None
        return [f"{self.place.name}: cgroup {path} does not go" for path in remove_cgroups(self.mark, hierarchies())]

    def _kill(self) -> None:
        """Whatever lives on: shims and containers outlive a dockerd that was killed."""
        deadline = time.monotonic() + ENDING
        while time.monotonic() < deadline:
            left = {*self.processes(), *self._contained()}
            if not left:
                return
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(STEP)

    def _contained(self) -> list[int]:
        """The processes in its containers' cgroups."""
        found = []
        for parent in hierarchies():
            for directory, _, _ in os.walk(os.path.join(parent, self.mark)):
                found += [int(pid) for pid in read(os.path.join(directory, "cgroup.procs")).split()]
        return found


def hierarchies() -> list[str]:
    """Where cgroups are mounted: the daemon counts from there, and not from our own group."""
    here = [CGROUPS] if os.path.exists(f"{CGROUPS}/cgroup.controllers") else []
    return here or [os.path.join(CGROUPS, name) for name in sorted(os.listdir(CGROUPS))]
