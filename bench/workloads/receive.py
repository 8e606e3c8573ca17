"""Receive a file by scp: sshd's cipher, TCP in one direction, and one long write."""

from __future__ import annotations

import os
import subprocess
import time

from bench.environments.base import WORK, Environment, Job, Stage
from bench.workloads import client, inputs
from bench.workloads.base import ENVIRONMENT, Base, WrongResult, fetched

BYTES = {"tiny": 2 * inputs.MIB, "small": 128 * inputs.MIB, "full": 1024 * inputs.MIB}
PORT = 22
TIMEOUT = 1200.0  # seconds for the whole file
PARTING = 0.3  # seconds for sshd to wait for the connection's own process, whose figures are lost otherwise
RECEIVED = f"{WORK}/received"
CONFIGURATION = f"""\
Port 22
HostKey {WORK}/host_key
AuthorizedKeysFile {WORK}/authorized_keys
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
PidFile none
Subsystem sftp /usr/lib/openssh/sftp-server
"""
ALIAS = "bench"  # the host's name in known_hosts, whatever its address is


class Receive(Base):
    """sshd inside, scp outside; the keys are made for the run and end with it."""

    NAME = "receive"
    ABOUT = "receive a file by scp: 1 GiB full, 128 MiB small"
    NEEDS = ("openssh-server",)
    needs_here = ("scp", "ssh-keygen", "nsenter")
    VARIANTS = {**Base.VARIANTS, "way": "client"}
    CHOICES = {**Base.CHOICES, "way": client.WAYS}

    def __init__(self, size: str, **variant: str) -> None:
        super().__init__(size, **variant)
        self._keys = self._input = ""

    @property
    def room(self) -> int:
        return 3 * BYTES[self.size]

    def job(self) -> Job:
        # sshd wants to be called by its full path, and this directory, which a fresh /run has not
        script = f"mkdir -p /run/sshd && exec /usr/sbin/sshd -D -e -f {WORK}/sshd_config"
        return Job(("sh", "-c", script), ENVIRONMENT, network="lan", ports=(PORT,), data=self.variant["data"])

    def measure(self, environment: Environment, stage: Stage) -> dict[str, float]:
        self._keys = keys(os.path.join(stage.directory, "receive-keys"))
        return super().measure(environment, stage)

    def fill(self, environment: Environment, scratch: str) -> None:
        self._input = inputs.noise(os.path.join(scratch, "input"), BYTES[self.size])
        for name in ("host_key", "authorized_keys", "sshd_config"):
            environment.put(os.path.join(self._keys, name), f"{WORK}/{name}")

    def work(self, environment: Environment, job: Job, scratch: str) -> dict[str, float]:
        way = self.variant["way"]
        with environment.start(job) as running:
            host = client.address(running, way, environment.NAME)
            target = f"root@{host}:{RECEIVED}"
            command = ["scp", *self._options(running.ports[PORT]), os.path.join(scratch, "input"), target]
            found = client.run(environment, way, command, TIMEOUT)
            time.sleep(PARTING)
            ran = running.stop()
        os.unlink(os.path.join(scratch, "input"))
        got = fetched(environment, RECEIVED, os.path.join(scratch, "received"))
        if inputs.digest(got) != self._input:
            raise WrongResult(f"{os.path.getsize(got)} bytes were received that are not those sent")
        return {**client.together(found, ran), "output_bytes": float(BYTES[self.size])}

    def _options(self, port: int) -> list[str]:
        chosen = {
            "HostKeyAlias": ALIAS,
            "UserKnownHostsFile": os.path.join(self._keys, "known_hosts"),
            "GlobalKnownHostsFile": "/dev/null",
            "StrictHostKeyChecking": "yes",
            "IdentitiesOnly": "yes",
            "IdentityAgent": "none",
            "BatchMode": "yes",
            "ConnectTimeout": "30",
        }
        words = [word for key, value in chosen.items() for word in ("-o", f"{key}={value}")]
        return ["-q", "-F", "none", "-i", os.path.join(self._keys, "client_key"), "-P", str(port), *words]


def keys(directory: str) -> str:
    """DIRECTORY with a key of the server's and one of the client's, made when they are not there yet."""
    if os.path.exists(os.path.join(directory, "sshd_config")):  # written last
        return directory
    os.makedirs(directory, mode=0o700, exist_ok=True)
    public = {}
    for name in ("host_key", "client_key"):
        path = os.path.join(directory, name)
        for old in (path, f"{path}.pub"):
            if os.path.exists(old):
                os.unlink(old)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", path], check=True)
        with open(f"{path}.pub", encoding="ascii") as file:
            public[name] = file.read()
    for name, text in (
        ("authorized_keys", public["client_key"]),
        ("known_hosts", f"{ALIAS} {public['host_key']}"),
        ("sshd_config", CONFIGURATION),
    ):
        with open(os.path.join(directory, name), "w", encoding="ascii") as file:
            file.write(text)
    return directory
