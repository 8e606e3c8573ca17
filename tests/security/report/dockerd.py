"""Docker's default: a daemon on directories of its own, started for the report and stopped after it."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from pathlib import Path

from runtimes import Runtime, remove_groups
from world import World

STARTING = 60.0  # seconds
IMAGE = "minictr-security"
# A table of mounts of its own, so that none of the daemon's stays; /etc/docker gets its key file
PRIVATE = 'mkdir -p /etc/docker && mount -t tmpfs tmpfs /etc/docker && exec "$@"'


class Docker(Runtime):
    """``docker run`` of an image imported from the same root. The daemon has no bridge, so the network is none."""

    name = "docker"
    about = "docker run, network none (the daemon has no bridge)"
    program = "dockerd"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.daemon: subprocess.Popen[bytes] | None = None
        self.socket = f"unix://{world.path('docker', 'socket')}"
        self.trouble = self.missing()

    def missing(self) -> str:
        if absent := super().missing() or ("" if self._client() else "the docker client is not installed"):
            return absent
        running = subprocess.run(["pgrep", "-x", "dockerd"], capture_output=True, text=True, check=False).stdout.split()
        return f"a dockerd runs already, as process {running[0]}" if running and self.daemon is None else ""

    @staticmethod
    def _client() -> str:
        """The one of the daemon's package, if there are several: an older daemon refuses newer clients."""
        return "/usr/bin/docker" if Path("/usr/bin/docker").exists() else shutil.which("docker") or ""

    def docker(self, *words: str, **options: object) -> subprocess.CompletedProcess[str]:
        command = [self._client(), "--host", self.socket, "--config", str(self.world.path("docker", "client")), *words]
        return subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload,no-any-return]

    def __enter__(self) -> Docker:
        if self.trouble:
            return self
        place = self.world.path("docker", "log").parent
        words = ["dockerd", "--host", self.socket, "--data-root", place / "data", "--exec-root", place / "run"]
        words += ["--pidfile", place / "pid", "--bridge=none", "--iptables=false", "--ip6tables=false"]
        words += ["--ip-forward=false", "--storage-driver=vfs", f"--cgroup-parent=/{self.world.mark}"]
        alone = ["unshare", "--mount", "--propagation", "private", "sh", "-c", PRIVATE, "sh"]
        with open(place / "log", "wb") as log:
            self.daemon = subprocess.Popen(
                [*alone, *map(str, words)], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self.trouble = self._wait() or self._import()
        return self

    def _wait(self) -> str:
        assert self.daemon is not None
        deadline = time.monotonic() + STARTING
        while time.monotonic() < deadline and self.daemon.poll() is None:
            if self.docker("info").returncode == 0:
                return ""
            time.sleep(0.2)
        lines = self.world.path("docker", "log").read_text(errors="replace").strip().splitlines()
        return f"dockerd does not start: {lines[-1][-200:] if lines else 'it says nothing'}"

    def _import(self) -> str:
        archive = self.world.path("docker", "root.tar")
        subprocess.run(["tar", "-C", str(self.world.rootfs), "-cf", str(archive), "."], check=True)
        done = self.docker("import", str(archive), IMAGE)
        return "" if done.returncode == 0 else f"docker import: {done.stderr.strip()}"

    def command(self, argv: list[str]) -> list[str]:
        client = ["--host", self.socket, "--config", str(self.world.path("docker", "client"))]
        return [self._client(), *client, "run", "--rm", "--name", self.world.mark, IMAGE, *argv]

    def __exit__(self, *exc: object) -> None:
        if self.daemon is None:
            return
        self.docker("rm", "--force", self.world.mark)
        self.daemon.send_signal(signal.SIGTERM)
        try:
            self.daemon.wait(30)
        except subprocess.TimeoutExpired:
            self.daemon.kill()
            self.daemon.wait()
        self.daemon = None
        remove_groups(self.world.mark)
