"""Compile the Linux kernel: thousands of short processes, each opening hundreds of headers."""

from __future__ import annotations

import os
import struct

from bench.environments.base import WORK, Bind, Environment, EnvironmentBroken, Job, Stage
from bench.workloads import inputs
from bench.workloads.base import ENVIRONMENT, Base, WrongResult, fetched

SOURCE, BUILD, TINY_SOURCE = "/usr/src/linux", f"{WORK}/build", f"{WORK}/source"
# What the kernel writes into itself of where and when it was built: the same in every arm
SAME = {
    "KBUILD_BUILD_TIMESTAMP": "Thu Jan  1 00:00:00 UTC 2026",
    "KBUILD_BUILD_USER": "bench",
    "KBUILD_BUILD_HOST": "bench",
    "KBUILD_BUILD_VERSION": "1",
}
CONFIGURATIONS = {"tiny": "tinyconfig", "small": "tinyconfig", "full": "defconfig"}
ROOM = {"tiny": inputs.MIB, "small": 64 * inputs.MIB, "full": 4096 * inputs.MIB}
TINY_UNITS = 6
TIMEOUT = 6 * 3600.0
EXECUTABLE, SHARED = 2, 3  # ET_EXEC, ET_DYN of elf.h: which of them a kernel is, its architecture decides
MACHINES = {3: "i386", 62: "x86_64", 183: "aarch64"}  # EM_*; tinyconfig on x86-64 is a 32-bit kernel


class Compile(Base):
    """``make -s`` of Debian's linux-source-6.1, out of its tree. Every arm must make the same vmlinux, byte for byte.

    The size tiny compiles a few generated files in the same manner, so that a rehearsal is short.
    """

    NAME = "compile"
    ABOUT = "compile linux 6.1 by make -s: tinyconfig small, defconfig full"
    NEEDS = ("gcc", "make", "flex", "bison", "bc", "libelf-dev", "libssl-dev", "linux-source-6.1")
    VARIANTS = {**Base.VARIANTS, "jobs": "1"}

    def __init__(self, size: str, **variant: str) -> None:
        super().__init__(size, **variant)
        if not self.variant["jobs"].isdecimal() or int(self.variant["jobs"]) < 1:
            raise ValueError(f"compile: jobs is a number from 1 up, not {self.variant['jobs']}")
        self._linux = self._first = ""
        self._digest, self._warm = "", self.size == "tiny"

    @property
    def room(self) -> int:
        return ROOM[self.size]

    def job(self) -> Job:
        source = TINY_SOURCE if self.size == "tiny" else SOURCE
        make = f"make -s -C {source} O={BUILD}"
        if self.variant["jobs"] != "1":
            make += f" -j{self.variant['jobs']}"
        script = f"{make} {CONFIGURATIONS[self.size]} && exec {make}"
        binds = () if self.size == "tiny" else (Bind(self._linux, SOURCE, readonly=True),)
        env = {**ENVIRONMENT, **SAME}
        return Job(("sh", "-c", script), env, binds=binds, data=self.variant["data"], timeout=TIMEOUT)

    def measure(self, environment: Environment, stage: Stage) -> dict[str, float]:
        self.stand_on(stage)
        return super().measure(environment, stage)

    def warm(self, stage: Stage) -> None:
        self.stand_on(stage)
        if self._linux and not self._warm:
            inputs.read(self._linux)
            self._warm = True

    def stand_on(self, stage: Stage) -> None:
        """Take the source from STAGE; ``job()`` is whole only then. Raises EnvironmentBroken where it has none."""
        self._linux = stage.linux
        if self.size != "tiny" and not self._linux:
            raise EnvironmentBroken("no linux-source-6.1 on this stage: its root file system was built without it")

    def fill(self, environment: Environment, scratch: str) -> None:
        if self.size == "tiny":
            source = os.path.join(scratch, "source")
            project(source, TINY_UNITS)
            environment.put(source, TINY_SOURCE)

    def check(self, environment: Environment, scratch: str) -> dict[str, float]:
        path = fetched(environment, f"{BUILD}/vmlinux", os.path.join(scratch, "vmlinux"))
        elf(path)
        digest = inputs.digest(path)
        self._first, self._digest = self._first or environment.NAME, self._digest or digest
        if digest != self._digest:
            raise WrongResult(f"vmlinux has the SHA-256 {digest[:16]}, that of {self._first} {self._digest[:16]}")
        return {"output_bytes": float(os.path.getsize(path))}


def elf(path: str) -> None:
    """Raises WrongResult when PATH is not a whole ELF program of a machine that a kernel is built for."""
    with open(path, "rb") as file:
        header = file.read(64)
    if len(header) < 52 or header[:4] != b"\x7fELF":
        raise WrongResult(f"{os.path.basename(path)} is not an ELF file")
    kind, machine = struct.unpack_from("<HH", header, 16)
    if kind not in (EXECUTABLE, SHARED) or machine not in MACHINES:
        raise WrongResult(f"{os.path.basename(path)} is an ELF file of type {kind} for machine {machine}, no kernel")
    wide = header[4] == 2
    (sections,) = struct.unpack_from("<Q" if wide else "<I", header, 40 if wide else 32)
    size, count = struct.unpack_from("<HH", header, 58 if wide else 46)
    if sections + size * count > os.path.getsize(path):
        raise WrongResult(f"{os.path.basename(path)} was cut short: its section headers are beyond its end")


MAKEFILE = """\
units := $(patsubst %.c,$(O)/%.o,$(wildcard *.c))
all: $(O)/vmlinux
$(O)/vmlinux: $(units)
	@$(LD) -e start -o $@ $(sort $(units))
$(O)/%.o: %.c $(O)/.config
	@$(CC) -O2 -ffreestanding -fno-pic -fno-stack-protector -nostdinc -c -o $@ $<
tinyconfig:
	@mkdir -p $(O) && echo CONFIG_TINY=y >$(O)/.config
"""


def project(directory: str, units: int) -> None:
    """UNITS C files that need no header, and a Makefile with the kernel's targets."""
    os.mkdir(directory)
    with open(os.path.join(directory, "Makefile"), "w", encoding="ascii") as file:
        file.write(MAKEFILE)
    for unit in range(units):
        steps = "\n".join(f"    x = x * {2 * step + 3} + (x >> {step % 31 + 1});" for step in range(40))
        name = "start" if unit == 0 else f"unit_{unit}"
        with open(os.path.join(directory, f"unit_{unit:03}.c"), "w", encoding="ascii") as file:
            file.write(f"unsigned {name}(unsigned x)\n{{\n{steps}\n    return x;\n}}\n")
