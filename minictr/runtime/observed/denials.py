"""What a program was denied, as values: one for each call, arguments and reason, with how often."""

from __future__ import annotations

from minictr.errors import errno_name
from minictr.runtime.observed.case import Case
from minictr.runtime.observed.filterjudge import FilterJudge
from minictr.runtime.observed.layers import judged
from minictr.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minictr.spec import Spec

__all__ = ["Denial", "explain"]


class Denial(Value):
    """A denied operation.

    ``call``: the system call, of ``arch``; ``args``: its arguments as a person reads them, paths as the container has
    them; ``path``: the first of these, or ""; ``errno``: by name ("EPERM"), "SIGSYS" where a filter killed or trapped,
    "" where it was let do and got nothing (a masked file). ``layer``: "seccomp", "capability", "landlock", "read-only
    mount", "masked path", "mount option", "cgroup devices", "cgroup pids", "lsm", "user namespace", "file permissions",
    or "unknown". ``why``: the evidence; ``cure``: the option that would allow it, "" where minictr has none. ``count``:
    how often.
    """

    call: str
    args: str
    path: str
    errno: str
    layer: str
    why: str
    cure: str
    count: int
    arch: str

    @property
    def operation(self) -> str:
        return f"{self.call}({self.args})"

    def __str__(self) -> str:
        cure = f" [{self.cure}]" if self.cure else ""
        return f"{self.count} x {self.operation} {self.errno}: {self.layer}: {self.why}{cure}"

    def json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self._fields}


def explain(seen: dict[str, Any], wish: Spec, spec: Spec, usage: Any) -> tuple[Denial, ...]:
    """What the observer has SEEN of a program of SPEC (as WISH asked for), by layer. USAGE: its groups' last readings.

    In the order in which they first happened; those that differ in nothing a person reads are one.
    """
    judge = FilterJudge(wish, spec)
    pids = usage and usage.pids
    hits = (pids and pids.hits) or 0
    found: dict[tuple[str, ...], Denial] = {}
    for row in seen["rows"]:
        case = Case(row, seen["people"][row["who"]], spec, judge, seen.get("real"), hits)
        why = judged(case)
        if why is None:
            continue
        errno = errno_name(row["errno"]) if row["errno"] and row["how"] == "call" else ""
        told = row["told"] or ", ".join(map(hex, row["args"][:3]))
        path = row["places"][0]["path"] if row["places"] else ""
        denial = Denial(
            row["call"],
            told,
            path,
            "SIGSYS" if row["how"] != "call" else errno,
            why.layer,
            why.why,
            why.cure,
            row["count"],
            row["arch"],
        )
        key = (denial.call, told, denial.errno, denial.layer, denial.why, denial.arch)
        present = found.get(key)
        found[key] = denial if present is None else present.replace(count=present.count + denial.count)
    return tuple(found.values())
