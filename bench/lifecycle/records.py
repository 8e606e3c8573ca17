"""The documents of ``lifecycle`` and ``life`` as records of bench/samples.py, for the report. Pure.

``lifecycle/start`` has an arm's starts as blocks, with its own phases; ``lifecycle/phases`` minictr's time line by
feature; ``lifecycle/exec`` and the like what ``life`` measures in turn; ``lifecycle/alive/N`` the start of the Nth
container of a crowd, ``lifecycle/remove`` and ``lifecycle/ps`` what removing and listing them takes for each;
``lifecycle/at-once/N`` a start by each of N callers. ``lifecycle/life`` has a container's phases side by side, and
``lifecycle/life/start``, ``exec``, ``stop`` and ``teardown`` each by itself, held against the library's.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench.samples import Arm, Record, Sample

AT_ONCE = (1, 10, 20, 50, 100, 200, 500, 1000)  # of a crowd's starts, those that are shown
WINDOW = 10  # starts whose middle stands for one of these numbers
CPU = "cpu"  # a part that is no phase
LIFE = "lifecycle/life"
BY = {"library": "minictr-lib", "command": "minictr-cli"}


def of_document(document: Mapping[str, Any], run: str, time: float) -> list[Record]:
    """The records of one DOCUMENT (its "kind" says which) for the run of that id."""
    made = _Maker(run, time)
    kind = document["kind"]
    if kind == "lifecycle":
        made.rounds("lifecycle/start", document["arms"], document["orders"])
    elif kind == "by-step":
        made.steps(document)
    elif kind == "life":
        for name, part in document["parts"].items():
            if "series" in part:
                made.rounds(f"lifecycle/{name}", part["series"], part["orders"])
        made.crowds(document["parts"].get("crowd", {}).get("rounds", ()))
    elif kind == "phases":
        made.lives(document["arms"], document["orders"])
    elif kind == "at-once":
        made.bursts(document)
    elif kind == "alive":
        made.alive(document)
    return made.records


def broken(document: Mapping[str, Any]) -> list[str]:
    """One line for each arm or series that left the run."""
    where = {"phases": LIFE, "at-once": "lifecycle/at-once", "alive": "lifecycle/alive"}
    groups = [(where.get(document["kind"], "lifecycle/start"), document.get("arms", {}))]
    groups += [(f"lifecycle/{name}", part.get("series", {})) for name, part in document.get("parts", {}).items()]
    return [
        f"{experiment}: {name}: {it['failed']}"
        for experiment, arms in groups
        for name, it in arms.items()
        if it["failed"] and not it.get("unavailable")
    ]


class _Maker:
    """Collects records."""

    def __init__(self, run: str, time: float) -> None:
        self.run, self.time = run, time
        self.records: list[Record] = []

    def arm(self, experiment: str, name: str, *, unavailable: str = "", known: Iterable[str] = ()) -> None:
        environment = name.split()[0].split("-")[0]
        self.records.append(Arm(self.run, experiment, name, environment, (), {}, unavailable, tuple(known)))

    def sample(self, experiment: str, arm: str, block: int, values: dict[str, float], position: int = 0) -> None:
        self.records.append(Sample(self.run, experiment, arm, block, position, self.time, values))

    def rounds(self, experiment: str, arms: Mapping[str, Mapping[str, Any]], orders: Sequence[Sequence[str]]) -> None:
        """Arms or series that were measured in turn: one sample a round."""
        for name, it in arms.items():
            why_not = it.get("unavailable", "") or ("" if it["nanoseconds"] else it["failed"] or "not measured")
            known = [*it.get("known", ()), *it.get("differences", ())]
            self.arm(experiment, name, unavailable=why_not, known=known)
        for block, order in enumerate(orders):
            for position, name in enumerate(order):
                if block < len(arms[name]["nanoseconds"]):
                    self.sample(experiment, name, block, _values(arms[name], block), position)

    def steps(self, document: Mapping[str, Any]) -> None:
        """minictr's time line by feature, and the floor's parts."""
        experiment = "lifecycle/phases"
        for name in ("minictr-lib", "floor"):
            self.arm(experiment, name)
        for block, (took, line) in enumerate(zip(document["nanoseconds"], document["by_feature"])):
            phases = {f"phase_{name}_s": microseconds / 1e6 for name, microseconds in line.items()}
            self.sample(experiment, "minictr-lib", block, {"wall_s": took / 1e9, **phases})
        parts = document["floor_parts"]
        for block, values in enumerate(zip(*parts.values())):
            phases = {f"phase_{name}_s": value / 1e9 for name, value in zip(parts, values)}
            self.sample(experiment, "floor", block, {"wall_s": sum(phases.values()), **phases})

    def lives(self, arms: Mapping[str, Mapping[str, Any]], orders: Sequence[Sequence[str]]) -> None:
        """A container's phases: all of an arm in one experiment, and each phase of all arms in one of its own."""
        for name, it in arms.items():
            why_not = it["unavailable"] or ("" if it["nanoseconds"] else it["failed"] or "not measured")
            self.arm(LIFE, name, unavailable=why_not, known=it["known"])
            for block in range(len(it["nanoseconds"])):  # no sum: not every environment has every phase
                self.sample(
                    LIFE, name, block, {f"phase_{part}_s": given[block] / 1e9 for part, given in it["parts"].items()}
                )
        for phase in dict.fromkeys(name for it in arms.values() for name in it.get("parts", {})):
            having = {name: it for name, it in arms.items() if phase in it.get("parts", {})}
            alone = {
                name: {"nanoseconds": it["parts"][phase], "failed": "", "known": it.get("known", ())}
                for name, it in having.items()
            }
            self.rounds(f"{LIFE}/{phase}", alone, [[name for name in order if name in having] for order in orders])

    def bursts(self, document: Mapping[str, Any]) -> None:
        """Starts by several callers at once: an experiment for each number of them."""
        for callers in document["callers"]:
            experiment = f"lifecycle/at-once/{callers}"
            for name, it in document["arms"].items():
                found = it["bursts"].get(str(callers), {"nanoseconds": [], "per_second": []})
                why_not = it["unavailable"] or ("" if found["nanoseconds"] else it["failed"] or "not measured")
                self.arm(experiment, name, unavailable=why_not, known=it["known"])
                for block, (took, rate) in enumerate(zip(found["nanoseconds"], found["per_second"])):
                    self.sample(experiment, name, block, {"start_s": took / 1e9, "together_per_s": rate})

    def alive(self, document: Mapping[str, Any]) -> None:
        """Crowds of several arms: a start by how many live, and what one holds and takes to be removed."""
        count = document["containers"]
        for name, it in document["arms"].items():
            self.arm(f"lifecycle/alive/{count}", name, unavailable=it["unavailable"], known=it["known"])
            for block, found in enumerate(it["crowds"]):
                for first, number in places(count):
                    middle = statistics.median(found["nanoseconds"][first : first + WINDOW]) / 1e9
                    self.sample(f"lifecycle/alive/{number}", name, block, {"start_s": middle})
                held = {f"{key}_bytes": found[f"{key}_kib"] * 1024.0 for key in ("private", "machine")}
                each = {"wall_s": found["removed_ns"] / 1e9 / count, **held}
                self.sample("lifecycle/remove", name, block, each)

    def crowds(self, rounds: Iterable[Mapping[str, Any]]) -> None:
        """How a start grows with those that run already, and what the whole crowd costs to list and to remove."""
        for block, found in enumerate(rounds):
            took = found["nanoseconds"]
            for first, number in places(len(took), by_command=found["by"] == "command"):
                middle = statistics.median(took[first : first + WINDOW]) / 1e9
                self.sample(f"lifecycle/alive/{number}", BY[found["by"]], block, {"start_s": middle})
            each = found["removed_ns"] / 1e9 / len(took)
            self.sample("lifecycle/remove", "minictr-lib", block, {"wall_s": each})
            for key, name in (("ps_command", "minictr-cli"), ("ps_library", "minictr-lib")):
                for at, (listed, cpu) in enumerate(found[key]):
                    values = {"wall_s": listed / 1e9, "cpu_s": cpu / 1e9}
                    self.sample("lifecycle/ps", name, block * len(found[key]) + at, values)


def _values(it: Mapping[str, Any], block: int) -> dict[str, float]:
    """One round of an arm (with its parts) or of a series (with its processor time)."""
    values = {"wall_s": it["nanoseconds"][block] / 1e9}
    for part, given in (it.get("parts") or {CPU: it.get("cpu", ())}).items():
        if block < len(given):
            values["cpu_s" if part == CPU else f"phase_{part}_s"] = given[block] / 1e9
    return values


def places(count: int, *, by_command: bool = False) -> list[tuple[int, int]]:
    """(first start of a window, number that it stands for). By the command line only the 10th and the last are."""
    last = (count - WINDOW, count)
    if by_command:
        return [(9, 10), last]
    return [(number - 1, number) for number in AT_ONCE if number - 1 + WINDOW < count] + [last]
