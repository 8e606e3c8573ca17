"""The one face of the five workloads, as the thesis ran them, and what they all do around their own few lines.

One sample is: a clean container, inputs made anew and written to the disk, the job, the check of what it made, and
nothing left of either. **The page cache**: the inputs have just been written and synced, so they are clean and in
memory, in every arm alike; programs and libraries are in memory too, by the rehearsal before the first sample
(bench/workloads/arms.py).
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Mapping
from typing import ClassVar, Protocol

from bench.environments.base import Environment, EnvironmentBroken, Job, Ran, Stage

SIZES = ("tiny", "small", "full")  # tiny: for tests and rehearsals only, seconds in all
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "HOME": "/root"}
MOST_SAID = 200  # characters of a line of a job's in a message


class Workload(Protocol):
    """One workload. Its inputs are the same bytes every time (a seed), made anew for every sample and removed after."""

    NAME: ClassVar[str]
    ABOUT: ClassVar[str]
    NEEDS: ClassVar[tuple[str, ...]]  # Debian packages that must be in the root file system
    VARIANTS: ClassVar[Mapping[str, str]]  # what can be chosen, and what is taken when it is not
    needs_here: tuple[str, ...]  # programs of the host's that play the client, or check the result

    def __init__(self, size: str, **variant: str) -> None: ...

    def job(self) -> Job:
        """What runs inside, as a value: the same in every environment."""
        ...

    def measure(self, environment: Environment, stage: Stage) -> dict[str, float]:
        """Set up in the fresh container, run, check the result's bytes, tear down: the sample's values.

        Raises WrongResult when the bytes are not what they must be, EnvironmentBroken when it could not run.
        """
        ...


class WrongResult(Exception):
    """The workload ended, and what it made is not what it must be."""


class Base:
    """What the five share. ``variant`` holds a value for every key of VARIANTS."""

    NAME: ClassVar[str]
    VARIANTS: ClassVar[Mapping[str, str]] = {"data": "image"}
    needs_here: tuple[str, ...] = ()
    CHOICES: ClassVar[Mapping[str, tuple[str, ...]]] = {"data": ("image", "volume")}  # keys that take these only

    def __init__(self, size: str, **variant: str) -> None:
        if size not in SIZES:
            raise ValueError(f"{self.NAME}: no size {size}; there are {', '.join(SIZES)}")
        for key, value in variant.items():
            if key not in self.VARIANTS:
                raise ValueError(f"{self.NAME}: nothing called {key} to choose; there is {', '.join(self.VARIANTS)}")
            if value not in self.CHOICES.get(key, (value,)):
                raise ValueError(f"{self.NAME}: {key} is one of {', '.join(self.CHOICES[key])}, not {value}")
        self.size, self.variant = size, {**self.VARIANTS, **variant}

    @property
    def room(self) -> int:
        """Bytes of disk that one sample takes at most: input, result, and the copies of both that are looked at."""
        return 0

    def job(self) -> Job:
        raise NotImplementedError

    def warm(self, stage: Stage) -> None:
        """Whatever is an input of every sample and is not made anew for it is brought into memory, once."""

    def measure(self, environment: Environment, stage: Stage) -> dict[str, float]:
        """See Workload."""
        job = self.job()
        with tempfile.TemporaryDirectory(prefix=f"{self.NAME}-", dir=stage.directory) as scratch:
            try:
                environment.fresh(job)
                self.fill(environment, scratch)
                settle(stage.directory)
                return self.work(environment, job, scratch)
            finally:
                environment.rest()

    def fill(self, environment: Environment, scratch: str) -> None:
        """Make the inputs in SCRATCH and put them into the container."""

    def work(self, environment: Environment, job: Job, scratch: str) -> dict[str, float]:
        """Run the job and check what it made: the values."""
        ran = environment.run(job)
        finished(ran, job)
        return {**ran.values, **self.check(environment, scratch)}

    def check(self, environment: Environment, scratch: str) -> dict[str, float]:
        """More values, of what the job made. Raises WrongResult."""
        return {}


def put(environment: Environment, source: str, inside: str) -> None:
    """Move SOURCE, a file of the scratch directory, into the container: it is not there twice for long."""
    environment.put(source, inside)
    os.unlink(source)


def settle(directory: str) -> None:
    """What was written to DIRECTORY's file system is on the disk: no writing back falls into the job's time."""
    subprocess.run(["sync", "--file-system", directory], check=True)


def finished(ran: Ran, job: Job) -> None:
    """Raises WrongResult with the job's last words when it failed."""
    if ran.returncode:
        raise WrongResult(f"{job.argv[0]} left with {ran.returncode}: {last_words(ran.stderr or ran.stdout)}")


def last_words(text: bytes) -> str:
    """The first and the last line that say something, for a message: tools differ in where they put the reason."""
    lines = [line.strip() for line in text.decode(errors="replace").splitlines() if line.strip()]
    if not lines:
        return "it said nothing"
    return " ... ".join(line[:MOST_SAID] for line in dict.fromkeys((lines[0], lines[-1])))


def fetched(environment: Environment, inside: str, target: str) -> str:
    """TARGET, a copy of a result. Raises WrongResult where there is none."""
    try:
        environment.get(inside, target)
    except (EnvironmentBroken, FileNotFoundError) as err:
        raise WrongResult(f"no {inside}: {err}") from err
    if not os.path.exists(target):
        raise WrongResult(f"no {inside} in the container")
    return target
