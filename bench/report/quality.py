"""What a reader needs to believe the rest: A/A strip, warnings, arms that were not there, machine, method."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from bench import paired
from bench.analysis import Experiment, interval_text, run_noise
from bench.report.forest import Line, forest
from bench.report.page import Figure, Item, Note, Section, Terms
from bench.report.table import Table
from bench.report.workloads import PREFIX, as_percent
from bench.results import Results

LONGEST = 220  # characters of a warning
REFUSED = "refused"  # an operation that an arm does not allow: told last

METHOD = (
    "Every block holds each arm once, in an order shuffled by the run's seed; two of the arms are the same (A/A).",
    "The unit is the logarithm of an arm's ratio to bare in one block; the figure is the geometric mean of the ratios.",
    "Intervals are percentile-t bootstrap intervals of the blocks, widened to Student's where that is wider.",
    "p-values are adjusted by Holm for all arms of an experiment; “no cost” needs both one-sided tests at ±0.5 %.",
    "“Unresolved” where a gate is shut: fewer than five blocks, an A/A interval without zero, a busy machine.",
    "“Detectable” is the smallest difference that so many blocks with this scatter would find four times of five.",
)


def strip(found: Sequence[Experiment]) -> Figure | None:
    """The A/A check of every experiment: two identical arms against each other."""
    checked = [one for one in found if one.same is not None and one.same.ratio is not None]
    if not checked:
        return None
    lines, rows = [], []
    for one in checked:
        assert one.same is not None and one.same.ratio is not None
        passes = 1.0 in one.same.ratio
        words = interval_text(one.same.ratio, 2)
        word = "holds zero" if passes else "differs from itself"
        lines.append(
            Line(
                one.name,
                as_percent(one.same.ratio),
                f"{words}  {word}",
                "passing" if passes else "failing",
                "no-cost" if passes else "slower",
                passes,
            )
        )
        rows.append((one.name, one.base, str(one.same.blocks), words, word))
    out = sum(not line.resolved for line in lines)
    about = (
        f"The same arm twice in every block. {out} of {len(lines)} intervals do not hold zero; by chance alone one in "
        "twenty would not. Where it does not, nothing is said of that experiment."
    )
    table = Table.of(("experiment", "arm", ">blocks", ">difference, 95 % interval", ""), rows)
    return Figure("aa", "A/A: bare against itself", about, forest(lines, unit="% difference"), table)


def warnings(found: Results, place: str, experiments: Sequence[Experiment]) -> tuple[str, ...]:
    """Everything that should keep a reader from believing too much, the gravest first, a line for each kind."""
    told = []
    cut = [f"{run.id} ({run.verb})" for run in found.interrupted(place)]
    if cut:
        verb = "was" if len(cut) == 1 else "were"
        told.append(f"{_listed(cut)} {verb} interrupted: what was measured before is here")
    told += _noisy_runs(found, place)
    gates = Counter(_kind(gate) for one in experiments for gate in one.gates)
    told += [f"{gate}: {_times(count, 'experiment')} unresolved" for gate, count in gates.most_common()]
    told += [shortened(line) for line in found.failed(place)]
    out: dict[tuple[str, str], list[str]] = {}
    for it in found.discarded(place):
        out.setdefault((it.arm, it.discarded), []).append(it.experiment)
    for (arm, why), names in sorted(out.items(), key=lambda pair: (pair[0][1].startswith(REFUSED), pair[0])):
        kinds = list(dict.fromkeys(names))
        told.append(shortened(f"{_times(len(names), 'sample')} of {arm} thrown away in {_listed(kinds)}: {why}"))
    return tuple(dict.fromkeys([*told, *map(shortened, found.told)]))


def _kind(gate: str) -> str:
    """A gate's reason without its figures."""
    if gate.startswith("A/A:"):
        return "two identical arms differ"
    if gate.startswith("the A/A check has"):
        return f"the A/A check has fewer than {paired.FEWEST} blocks"
    return gate.partition(":")[0].partition(" in ")[0]


def _times(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _noisy_runs(found: Results, place: str) -> list[str]:
    """One line for each verb: how many of its runs were on a busy machine, and why the first was."""
    by_verb: dict[str, list[list[str]]] = {}
    for run in found.runs_of(place):
        if run.id in found.ends:
            by_verb.setdefault(run.verb, []).append(run_noise(run, found.ends[run.id].quiet))
    lines = []
    for verb, runs in by_verb.items():
        noisy = [reasons for reasons in runs if reasons]
        if noisy:
            of = f"{len(noisy)} of {len(runs)} runs" if len(runs) > 1 else "the run"
            lines.append(f"the machine was busy, {of} of bench {verb}: {'; '.join(noisy[0])}")
    return lines


def shortened(text: str) -> str:
    """TEXT as one line that can be read."""
    plain = " ".join(text.split())
    return plain if len(plain) <= LONGEST else plain[:LONGEST].rstrip() + "…"


def _missing(found: Results, place: str) -> dict[tuple[str, str], list[str]]:
    """(arm, why) -> the experiments it is not in."""
    missing: dict[tuple[str, str], list[str]] = {}
    for (experiment, name), arm in found.arms(place).items():
        if arm.unavailable:
            missing.setdefault((name, arm.unavailable), []).append(experiment)
    return missing


def unavailable(found: Results, place: str) -> Table | None:
    """Arms that could not be had, with the reason; experiments of one reason together."""
    missing = _missing(found, place)
    if not missing:
        return None
    rows = [(name, why, _listed(names)) for (name, why), names in missing.items()]
    return Table.of(("arm", "why it is not here", "experiments"), rows, "Unavailable")


def absent(found: Results, place: str) -> list[Item]:
    """Below the answer: which arms are not in it, and why."""
    missing = _missing(found, place).items()
    told = [f"{name}: {why}" for (name, why), names in missing if any(it.startswith(PREFIX) for it in names)]
    return [Note("Not here:", tuple(told))] if told else []


def _listed(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def arms(found: Results, place: str) -> Table | None:
    """What each arm is: its environment, features, and what a fair reader must know."""
    rows = {}
    for (_, name), arm in found.arms(place).items():
        if not arm.unavailable:
            key = (name, arm.environment, ", ".join(arm.features), "; ".join(arm.known))
            rows.setdefault(key, None)
    if not rows:
        return None
    return Table.of(
        ("arm", "environment", "features", "to be known"), [tuple(row) for row in rows], "The arms", folded=True
    )


def facts(found: Results, place: str) -> Terms:
    """The machine, flat."""
    pairs: dict[str, str] = {"name": place}
    for run in found.runs_of(place):
        pairs |= dict(_flat(run.facts))
    return Terms(tuple(pairs.items()))


def _flat(given: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for name, value in given.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{prefix}{name} ")
        elif value not in ("", None):
            found.append((prefix + name, str(value)))
    return found


def runs(found: Results, place: str) -> Table:
    """What was asked, when, and how it ended."""
    rows = []
    for run in found.runs_of(place):
        end = found.ends.get(run.id)
        asked = " ".join(
            f"{name}={value}" for name, value in run.arguments.items() if value not in ("", None, [], False)
        )
        took = f"{(end.time - run.time) / 60:.1f} min" if end else "interrupted"
        when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(run.time))
        rows.append((run.id, run.verb, when, took, str(run.seed), asked))
    return Table.of(("run", "verb", "begun", ">took", ">seed", "arguments"), rows, "The runs")


def section(found: Results, place: str, experiments: Sequence[Experiment]) -> Section:
    """The last chapter."""
    items: list[Item | None] = [strip(experiments), unavailable(found, place), arms(found, place)]
    items += [Note(heading="The machine"), facts(found, place), runs(found, place)]
    margin = 100 * math.expm1(paired.MARGIN)
    items += [Note(heading="How it was measured and reckoned", lines=METHOD)]
    lead = f"The machine, the checks and the method. “No cost” means: within ±{margin:.1f} %."
    return Section("quality", "What stands behind the figures", "Checks", lead, tuple(item for item in items if item))
