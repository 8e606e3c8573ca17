"""The one face of the five workloads, as the thesis ran them."""

from __future__ import annotations

from typing import ClassVar, Protocol

from bench.environments.base import Environment, Job, Stage

SIZES = ("tiny", "small", "full")  # tiny: for tests only, seconds in all


class Workload(Protocol):
    """One workload. Its inputs are the same bytes every time (a seed), made anew for every sample and removed after."""

    NAME: ClassVar[str]
    ABOUT: ClassVar[str]
    NEEDS: ClassVar[tuple[str, ...]]  # Debian packages that must be in the root file system

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
