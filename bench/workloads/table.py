"""The short table at the end of a run. The report has the pictures, and the words for what is known of each arm."""

from __future__ import annotations

from bench import analysis, paired, results, stats
from bench.analysis import Comparison, Experiment
from bench.blocks import Outcome

INDENT = "  "
MOST_LINES = 20  # of one kind


def text(path: str, outcome: Outcome) -> str:
    """What the file PATH holds, and what became of the run that wrote it."""
    found = results.load([path])
    lines: list[str] = []
    for place in found.places:
        for experiment in analysis.experiments(found, place):
            lines += [*_experiment(experiment), *_absent(experiment.name, outcome), ""]
    lines += _block("discarded", outcome.discarded)
    lines += _block("out", list(outcome.failed.values()))
    lines += _block("could not be removed", outcome.left)
    if outcome.ended:
        lines.append(outcome.ended)
    return "\n".join([*lines, f"every sample: {path}"]) + "\n"


def _experiment(of: Experiment) -> list[str]:
    unit = of.value.rpartition("_")[2]
    lines = [
        f"{of.name}: {of.value}, {max((len(column) for column in of.columns.values()), default=0)} blocks",
        f"{INDENT}{'arm':<18}{'n':>4}{f'median {unit}':>12}   {'against ' + of.base:<28}{'shows from':>11}   verdict",
    ]
    by_arm = {one.arm: one for one in (*of.comparisons, *([of.same] if of.same else []))}
    first = [of.base, *([of.same.arm] if of.same else [])]
    for arm in sorted(of.columns, key=lambda name: first.index(name) if name in first else len(first)):
        column = of.columns[arm]
        middle = stats.quartiles(list(column.values())).median
        line = f"{INDENT}{arm:<18}{len(column):>4}{middle:>12.4g}   "
        lines.append((line + (_compared(by_arm[arm], of) if arm in by_arm else "")).rstrip())
    for one in analysis.against_peers(of):
        lines.append(f"{INDENT}{f'{one.arm} / {one.base}':<18}{one.blocks:>4}{'':>12}   {_compared(one, of)}".rstrip())
    return [*lines, *(f"{INDENT}! {gate}" for gate in of.gates)]


def _compared(one: Comparison, of: Experiment) -> str:
    """The interval, the smallest difference so many blocks would show, and the verdict."""
    if one.ratio is None or one.blocks < paired.FEWEST:
        return f"{one.blocks} blocks of {paired.FEWEST}"
    words = "the A/A check" if one is of.same else analysis.UNRESOLVED if of.gates else one.words
    shows = f"{analysis.percent(one.detectable):.1f} %"
    return f"{analysis.interval_text(one.ratio):<28}{shows:>11}   {words}"


def _absent(experiment: str, outcome: Outcome) -> list[str]:
    return [
        f"{INDENT}{name:<18}{'-':>4}   unavailable: {reason}"
        for (of, name), reason in outcome.unavailable.items()
        if of == experiment
    ]


def _block(title: str, lines: list[str]) -> list[str]:
    if not lines:
        return []
    more = [f"{INDENT}and {len(lines) - MOST_LINES} more"] if len(lines) > MOST_LINES else []
    return [f"{title}:", *(f"{INDENT}{line}" for line in lines[:MOST_LINES]), *more, ""]
