"""A workload in an environment: what the blocks measure."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import Any

from bench.blocks import BREAKS, Measured, said
from bench.environments.base import Environment, EnvironmentBroken, Stage
from bench.samples import AGAIN, BARE
from bench.workloads import catalogue
from bench.workloads.base import Base


class Shared:
    """An environment that several workloads run in, one after another: it is tried, made and removed once."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self._reason: str | None = None
        self._prepared = False
        self._broken = ""

    def unavailable(self) -> str:
        if self._reason is None:
            self._reason = self.environment.unavailable()
        return self._reason

    def prepare(self) -> None:
        """Raises EnvironmentBroken, for every workload with the same words."""
        if self._broken:
            raise EnvironmentBroken(self._broken)
        if not self._prepared:
            try:
                self.environment.prepare()
            except BREAKS as err:
                self._broken = said(err)
                raise
            self._prepared = True

    def cleanup(self) -> Sequence[str]:
        prepared, self._prepared = self._prepared or bool(self._broken), False
        return self.environment.cleanup() if prepared else ()


class WorkloadArm:
    """See ``bench.blocks.Arm``. The rehearsal, the workload at its smallest size, is no sample: it brings programs and
    libraries into memory, in every arm alike, and finds out before the first block what cannot work."""

    def __init__(self, name: str, workload: Base, shared: Shared, stage: Stage) -> None:
        self.experiment, self.name = catalogue.experiment(workload), name
        self.environment = shared.environment.NAME
        self.features = tuple(one.name for one in getattr(shared.environment, "features", ()))
        self.known = tuple(shared.environment.KNOWN)
        self._workload, self._shared, self._stage = workload, shared, stage

    def unavailable(self) -> str:
        missing = [program for program in self._workload.needs_here if not shutil.which(program)]
        if missing:
            return f"{', '.join(missing)} not installed on this machine: scripts/bootstrap.sh bench"
        return self._shared.unavailable()

    def prepare(self) -> None:
        self._shared.prepare()
        self._workload.warm(self._stage)
        if self._workload.size != "tiny":
            rehearsal = type(self._workload)("tiny", **self._workload.variant)
            rehearsal.measure(self._shared.environment, self._stage)

    def measure(self) -> Measured:
        values = self._workload.measure(self._shared.environment, self._stage)
        job = self._workload.job()
        state: dict[str, Any] = self._shared.environment.state(job)
        return values, state, self._shared.environment.planned(job)

    def cleanup(self) -> Sequence[str]:
        return self._shared.cleanup()


def arms(workloads: Sequence[Base], environments: Sequence[Environment], stage: Stage) -> list[WorkloadArm]:
    """Every workload in every environment. ENVIRONMENTS has ``bare`` and ``bare-again`` in it, by their NAME."""
    shared = [Shared(environment) for environment in environments]
    return [WorkloadArm(it.environment.NAME, workload, it, stage) for workload in workloads for it in shared]


def with_twins(names: Sequence[str]) -> list[str]:
    """NAMES with the two bare arms in front, each once."""
    return list(dict.fromkeys([BARE, AGAIN, *names]))
