"""A call that failed, with all that judges look at; and what a judge finds."""

from __future__ import annotations

import os

from minictr.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minictr.runtime.observed.filterjudge import FilterJudge
    from minictr.spec import Spec

    Fact = dict[str, Any]

__all__ = ["Case", "Found"]


class Found(Value):
    """``layer``; ``why``: the evidence, in words; ``cure``: the option that would allow it, "" where there is none."""

    layer: str
    why: str
    cure: str = ""


class Case(Value):
    """One call that failed: its ``row`` as the observer wrote it, the credentials of ``who`` called, the ``spec`` it
    was confined by (resolved), ``real``: the real paths of Landlock's rules, ``pids_hits``: refused forks."""

    row: Any
    who: Any
    spec: Spec
    judge: FilterJudge
    real: Any = None
    pids_hits: int = 0

    @property
    def call(self) -> str:
        return str(self.row["call"])

    @property
    def errno(self) -> int:
        return int(self.row["errno"])

    @property
    def places(self) -> list[Fact]:
        places: list[Fact] = self.row["places"]
        return places

    @property
    def flags(self) -> int:
        return int(self.row["extra"].get("flags", os.O_WRONLY | os.O_CREAT if self.call == "creat" else 0))

    def feature(self, name: str) -> Any:
        return self.spec.get(name)
