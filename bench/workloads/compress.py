"""Compress a binary file: one thread, all CPU and memory, few system calls."""

from __future__ import annotations

import os

from bench.environments.base import WORK, Environment, Job
from bench.workloads import inputs
from bench.workloads.base import ENVIRONMENT, Base, fetched, put
from bench.workloads.proof import Proof

BYTES = {"tiny": inputs.MIB // 4, "small": 16 * inputs.MIB, "full": 256 * inputs.MIB}
# tool -> its command but for the level and the file, and what it adds to the name
TOOLS = {
    "xz": (("xz", "-T1"), ".xz"),
    "gzip": (("gzip",), ".gz"),
    "bzip2": (("bzip2",), ".bz2"),
    "zstd": (("zstd", "-q", "--rm"), ".zst"),
}
INPUT = f"{WORK}/input"


class Compress(Base):
    """``xz -T1 -6 FILE``, or another of TOOLS; what it wrote is decompressed again by the host's."""

    NAME = "compress"
    ABOUT = "compress a binary file by xz -T1 -6: 256 MiB full, 16 MiB small"
    NEEDS = ("xz-utils", "bzip2", "zstd")  # gzip is in every Debian
    VARIANTS = {**Base.VARIANTS, "tool": "xz", "level": "6"}
    CHOICES = {**Base.CHOICES, "tool": tuple(TOOLS), "level": tuple("123456789")}

    def __init__(self, size: str, **variant: str) -> None:
        super().__init__(size, **variant)
        self._command, self._suffix = TOOLS[self.variant["tool"]]
        self.needs_here = (self._command[0],)
        self._proof = Proof([self._command[0], "-dc"])
        self._input = ""

    @property
    def room(self) -> int:
        return 3 * BYTES[self.size]

    def job(self) -> Job:
        argv = (*self._command, f"-{self.variant['level']}", INPUT)
        return Job(argv, ENVIRONMENT, data=self.variant["data"])

    def fill(self, environment: Environment, scratch: str) -> None:
        path = os.path.join(scratch, "input")
        self._input = inputs.binary(path, BYTES[self.size])
        put(environment, path, INPUT)

    def check(self, environment: Environment, scratch: str) -> dict[str, float]:
        made = fetched(environment, INPUT + self._suffix, os.path.join(scratch, "output"))
        self._proof.of(made, self._input)
        return {"input_bytes": float(BYTES[self.size]), "output_bytes": float(os.path.getsize(made))}
