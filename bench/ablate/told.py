"""What an ablation found, as lines of text: the verdicts are those of the page (``effects.told``). Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from bench import analysis
from bench.ablate import effects
from bench.ablate.effects import Told
from bench.ablate.rows import Trial, Trials
from bench.analysis import Comparison
from bench.results import Results

NAME = 24


def line(one: Comparison, gates: Sequence[str] = ()) -> str:
    """One comparison in columns. A shut gate of GATES is told once, below all of them."""
    over, _, jumped = one.base.partition(" (")  # the rungs that could not be had: too long for the column
    names = f"{one.arm:<{NAME}} {over:<{NAME}}{one.blocks:>3}   "
    if one.ratio is None:
        return names + one.words
    shows = f"{analysis.percent(one.detectable):.1f} %"
    words = analysis.UNRESOLVED if one.reason in gates else one.words
    words += f" ({jumped}" if jumped else ""
    spans = f"{analysis.interval_text(one.ratio):<26}{analysis.span_text(one.together):<18}"
    return f"{names}{spans}{shows:>9}   {words}"


def steps(found: Told, trials: Sequence[Trial], absent: Mapping[str, str]) -> list[str]:
    """Each arm against the one that it is held against; bare against itself; those that cannot be."""
    one = found.experiment
    columns = f"{'more time, 95 % interval':<26}{'all at once':<18}{'shows from':>10}   verdict"
    lines = [f"{'arm':<{NAME}} {'over':<{NAME}}{'n':>3}   {columns}"]
    if one.same is not None and one.same.ratio is not None:
        lines.append(line(dataclasses.replace(one.same, effect=None)).rpartition("   ")[0] + "   the A/A check")
    lines += [line(each, one.gates) for each in found.steps]
    there = {each.arm for each in found.steps} | {one.base, one.base + analysis.SUFFIX}
    for trial in trials:
        if trial.name not in there:
            why = f"cannot be: {absent[trial.name]}" if trial.name in absent else "not measured"
            lines.append(f"{trial.name:<{NAME}} {'':<{NAME}}{'-':>3}   {why}")
    return lines


def experiment(found: Results, run: str, name: str) -> Told | None:
    """What may be said of the experiment NAME on the machine of RUN; None where no sample of it counts."""
    place = found.place(run)
    mine = (one for one in analysis.experiments(found, place) if one.name == name)
    return next((effects.told(one, found.arms(place)) for one in mine), None)


def text(found: Results, run: str, name: str, trials: Trials) -> list[str]:
    """Everything of one experiment."""
    said = experiment(found, run, name)
    known = {arm: it.unavailable for (of, arm), it in found.arms(found.place(run)).items() if of == name}
    absent = {it.name: it.refused for it in trials.trials if it.refused} | {k: v for k, v in known.items() if v}
    notes = [f"  note: {note}" for note in trials.notes]
    if said is None:
        out = [f"  {arm:<{NAME}} cannot be: {why}" for arm, why in absent.items()]
        return [f"{name}: nothing was measured", *out, *notes]
    one = said.experiment
    blocks = max(map(len, one.columns.values()), default=0)
    lines = [f"{name}: {one.value}, {blocks} blocks", *(f"  {it}" for it in steps(said, trials.trials, absent))]
    for family in said.effects:
        lines += ["", f"  {family.title}:", *(f"  {line(each, one.gates)}" for each in family.ones)]
    if effects.method_of(one) == effects.SCREEN:
        lines.append(f"  acting: {', '.join(said.acting) or 'none that could be told from noise'}")
    lines += ["", f"  {said.about}", *(f"  ! {gate}" for gate in one.gates)]
    return [*lines, *(f"  note: {note}" for note in said.notes), *notes]
