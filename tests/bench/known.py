"""Results with a known truth, for whatever reads results."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench import results, samples

FACTS = {"kernel": "6.1.0-known", "cpus": 2, "cpu": "a known processor", "memory": "24 GB", "cgroups": "v2"}
QUIET = {"load_before": 0.1, "pressure_before": 1.0, "steal": 0.0, "others": 0.0, "noisy": []}


class Made:
    """One run's records. Every method adds some; the truth is what it is given."""

    def __init__(
        self, run: str = "r1", *, machine: str = "one", verb: str = "run", seed: int = 1, **facts: Any
    ) -> None:
        self.id, self.rng = run, random.Random(seed)
        self.records: list[samples.Record] = [
            samples.Run(run, verb, machine, seed, 1_800_000_000.0, {"size": "small"}, {**FACTS, **facts})
        ]

    def arm(self, experiment: str, name: str, environment: str = "", **fields: Any) -> Made:
        environment = environment or name.removesuffix("-again").partition("-")[0]
        self.records.append(samples.Arm(self.id, experiment, name, environment, **fields))
        return self

    def blocks(
        self,
        experiment: str,
        arms: Mapping[str, float],
        *,
        blocks: int = 10,
        seconds: float = 10.0,
        scatter: float = 0.002,
        value: str = "wall_s",
        noisy: int = 0,
        only: str = "",
        own: bool = True,
        extra: Mapping[str, float] | None = None,
    ) -> Made:
        """BLOCKS blocks in which ARMS (name -> true ratio to bare) take SECONDS times it, SCATTER in the logarithm.

        A whole block is slower or faster by some percent, which pairing must take out; NOISY blocks say they were
        so, in the samples of the arm ONLY if one is named. Without OWN noise samples say nothing of it.
        """
        for block in range(blocks):
            tide = seconds * 2.718281828 ** self.rng.gauss(0, 0.05)
            order = list(arms)
            self.rng.shuffle(order)
            for position, name in enumerate(order):
                took = tide * arms[name] * 2.718281828 ** self.rng.gauss(0, scatter)
                values = {value: took, **{key: took * share for key, share in (extra or {}).items()}}
                busy = block < noisy and only in ("", name)
                noise: dict[str, Any] = {"load_before": 0.2}
                noise |= {"noisy": ["others used 40% of the cpu time"] if busy else []} if own else {}
                sample = samples.Sample(
                    self.id, experiment, name, block, position, 1_800_000_000.0 + block, values, {}, noise
                )
                self.records.append(sample)
        return self

    def count(self, experiment: str, arm: str, **times: float) -> Made:
        self.records += [samples.Count(self.id, experiment, arm, name, value) for name, value in times.items()]
        return self

    def end(self, *failed: str, **quiet: Any) -> Made:
        self.records.append(samples.End(self.id, 1_800_000_900.0, {**QUIET, **quiet}, failed))
        return self

    def write(self, path: Path) -> str:
        results.write(str(path), self.records)
        return str(path)
