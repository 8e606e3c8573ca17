"""Encrypt a file: the CPU's AES, and as many reads and writes of 8 KiB as the file has."""

from __future__ import annotations

import os

from bench.environments.base import WORK, Environment, Job
from bench.workloads import inputs
from bench.workloads.base import ENVIRONMENT, Base, fetched, put
from bench.workloads.proof import Proof

BYTES = {"tiny": 4 * inputs.MIB, "small": 256 * inputs.MIB, "full": 4096 * inputs.MIB}
INPUT, OUTPUT = f"{WORK}/input", f"{WORK}/output"
# A salt of its own would make other bytes each time. The password protects nothing.
KEY = ("-pbkdf2", "-S", "6d696e69637472ff", "-pass", "pass:bench")


class Encrypt(Base):
    """``openssl enc -aes-256-cbc``; what it wrote is decrypted again by the host's."""

    NAME = "encrypt"
    ABOUT = "encrypt a file by openssl enc -aes-256-cbc: 4 GiB full, 256 MiB small"
    NEEDS = ("openssl",)
    needs_here = ("openssl",)
    VARIANTS = {**Base.VARIANTS, "cipher": "aes-256-cbc"}
    CHOICES = {**Base.CHOICES, "cipher": ("aes-256-cbc", "aes-128-cbc", "aes-256-ctr", "chacha20")}

    def __init__(self, size: str, **variant: str) -> None:
        super().__init__(size, **variant)
        self._command = ("openssl", "enc", f"-{self.variant['cipher']}", *KEY)
        self._proof = Proof([*self._command, "-d"])
        self._input = ""

    @property
    def room(self) -> int:
        return 3 * BYTES[self.size]

    def job(self) -> Job:
        return Job((*self._command, "-in", INPUT, "-out", OUTPUT), ENVIRONMENT, data=self.variant["data"])

    def fill(self, environment: Environment, scratch: str) -> None:
        path = os.path.join(scratch, "input")
        self._input = inputs.noise(path, BYTES[self.size])
        put(environment, path, INPUT)

    def check(self, environment: Environment, scratch: str) -> dict[str, float]:
        made = fetched(environment, OUTPUT, os.path.join(scratch, "output"))
        self._proof.of(made, self._input)
        return {"input_bytes": float(BYTES[self.size]), "output_bytes": float(os.path.getsize(made))}
