"""What an ablation found, as lines of text, from its records. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from bench import analysis, design, paired, samples
from bench.ablate.rows import Trial, Trials, crossing, whole_of
from bench.design import Effect
from bench.samples import AGAIN, BARE

Table = Mapping[str, Mapping[Any, float]]  # arm -> (run, block) -> seconds
VALUE, NAME = "wall_s", 22
FEWEST = 5  # blocks below which no word is said


def columns(found: Sequence[samples.Record], experiment: str) -> Table:
    """Seconds by arm and block, of the samples that count."""
    mine = [it for it in found if isinstance(it, samples.Sample) and it.experiment == experiment and not it.discarded]
    return analysis.columns(mine, VALUE)


def logs(table: Table) -> dict[str, dict[Any, float]]:
    return {arm: {key: math.log(value) for key, value in column.items()} for arm, column in table.items()}


def effect(table: Table, arm: str, over: str) -> paired.Effect | None:
    """ARM against OVER; None below two blocks that have both."""
    found = analysis.logs({**table}, arm, over)  # type: ignore[arg-type]
    return paired.Effect(tuple(found)) if len(found) > 1 else None


def same(table: Table) -> str:
    """Why nothing is resolved: the two identical arms differ, or there are too few blocks; "" when that is not so."""
    found = effect(table, AGAIN, BARE)
    if found is None or found.blocks < FEWEST:
        return f"{found.blocks if found else len(table.get(BARE, {}))} blocks are too few"
    return "" if 0.0 in found.interval() else f"two identical arms differ: {analysis.interval_text(found.ratio())}"


def verdict(found: paired.Effect, gate: str) -> str:
    """In words; the gate first."""
    if gate:
        return f"unresolved: {gate}"
    percent = analysis.percent(found.ratio().estimate)
    if 0.0 not in found.interval():
        return f"{'slower' if percent > 0 else 'faster'} by {abs(percent):.1f} %"
    if found.equivalence() < paired.LEVEL:
        return "no cost: within 0.5 %"
    return f"unresolved: shows from {analysis.percent(found.detectable()):.1f} %"


def steps(table: Table, trials: Sequence[Trial], refused: Mapping[str, str] = {}) -> list[str]:
    """Each arm against the one that it is compared with, or the next below that which could be had.

    REFUSED: arm -> why it could not be had for this workload.
    """
    gate, overs = same(table), {trial.name: trial.over for trial in trials}
    stands = {trial.name: design.standing(trial.name, overs, table) for trial in trials}
    grounds = {name: design.ground(*stood) for name, stood in stands.items()}
    wide = max([NAME, *(len(text) + 2 for text in grounds.values())])
    lines = [f"{'arm':<{NAME}}{'over':<{wide}}{'n':>3}{'ratio':>10}   {'95 % interval':<20}verdict"]
    for trial in trials:
        if trial.name == BARE:
            continue
        why, over = trial.refused if trial.place is None else refused.get(trial.name, ""), grounds[trial.name]
        if why:
            lines.append(f"{trial.name:<{NAME}}{'':<{wide}}{'-':>3}   cannot be: {why}")
            continue
        found = effect(table, trial.name, stands[trial.name][0])
        if found is None:
            over = over or trial.over
            lines.append(f"{trial.name:<{NAME}}{over:<{wide}}{'-':>3}   not measured with it in two blocks")
            continue
        ratio = found.ratio()
        words = "the A/A check" if trial.name == AGAIN else verdict(found, gate)
        span = f"{ratio.low:.4f} to {ratio.high:.4f}"
        lines.append(f"{trial.name:<{NAME}}{over:<{wide}}{found.blocks:>3}{ratio.estimate:>10.4f}   {span:<20}{words}")
    return lines


def percents(effects: Sequence[Effect], gate: str) -> list[str]:
    """Effects in logarithms as percent."""
    lines = []
    for one in effects:
        values = [analysis.percent(math.exp(value)) for value in (one.value.estimate, one.value.low, one.value.high)]
        words = f"unresolved: {gate}" if gate else "" if one.resolved else "unresolved: the interval holds zero"
        span = f"{values[1]:+.2f} to {values[2]:+.2f}"
        lines.append(f"{one.name:<{2 * NAME}}{values[0]:>+8.2f} %   {span:<20}{words}".rstrip())
    return lines


def screened(table: Table, of: design.Design) -> tuple[list[str], list[str]]:
    """(lines, the factors that act) of a screening."""
    blocks = design.complete(of, logs(table))
    if len(blocks) < 2:
        return [f"{len(blocks)} whole blocks: too few for effects"], []
    gate, found = same(table), design.effects(of, blocks)
    acting = [] if gate else design.survivors(found)
    last = f"acting: {', '.join(acting)}" if acting else "acting: none that could be told from noise"
    return [f"effects over {len(blocks)} whole blocks, the largest first:", *percents(found, gate), last], acting


def shared(table: Table, of: design.Design) -> list[str]:
    """Shapley values and interactions of a full factorial."""
    blocks = design.complete(of, logs(table))
    if len(blocks) < 2:
        return [f"{len(blocks)} whole blocks: too few for Shapley values"]
    try:
        values, terms = design.shares(of, blocks)
    except design.DesignError as err:
        return [str(err)]
    gate = same(table)
    return [
        f"Shapley values over {len(blocks)} whole blocks (they sum to the whole):",
        *percents(values, gate),
        "interactions (beyond the sum of what is in them):",
        *percents(terms, gate),
    ]


def crossed(table: Table) -> list[str]:
    """The 2x2 of the web server's question, of Docker itself and of minictr rebuilt as Docker."""
    lines = []
    for docker in (False, True):
        of, arms_of = crossing(table, docker=docker)
        mine = {row: table.get(arm, {}) for row, arm in arms_of.items()}
        lines += ["", f"{'Docker' if docker else 'minictr rebuilt as Docker'}, network path x overlay:"]
        lines += [f"  {line}" for line in shared({**table, **mine}, of)]
    proxy = effect(table, "proxy", whole_of(table))
    tax = effect(table, "bare-dockerd", BARE)
    for what, found in (("the proxy rung", proxy), ("a dockerd that merely runs", tax)):
        words = verdict(found, same(table)) if found else "not measured in two blocks"
        lines.append(f"{what}: {words}")
    return lines


def text(records: Sequence[samples.Record], experiment: str, trials: Trials, method: str) -> list[str]:
    """Everything of one experiment."""
    table = columns(records, experiment)
    mine = [it for it in records if isinstance(it, samples.Arm) and it.experiment == experiment]
    refused = {arm.name: arm.unavailable for arm in mine if arm.unavailable}
    lines = [f"{experiment}: {VALUE}", *(f"  {line}" for line in steps(table, trials.trials, refused))]
    more: list[str] = []
    if method == "screen" and trials.design:
        more = screened(table, trials.design)[0]
    elif method == "factorial" and trials.design:
        more = shared(table, trials.design)
    elif method == "nginx":
        more = crossed(table)
    lines += [f"  {line}".rstrip() for line in more]
    return [*lines, *(f"  note: {note}" for note in trials.notes)]
