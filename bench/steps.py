"""What each feature of a container adds, pure: from arms that differ in one feature, and from ladders.

An ablation's arms have sets of features. ``none`` is the smallest set, ``all`` the largest; a feature was *put in
alone* where an arm has the smallest set and it, *left out* where one has the largest without it. Where both were
measured its share is the mean of the two, per block: what it costs alone and what it costs among all others are the two
ends of what it can be said to cost. What the shares do not sum up to is the features' interaction, a row of its own.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from bench.analysis import Columns, Comparison, Experiment, Key, compare, judged, of_logs
from bench.samples import Arm

TOGETHER, INTERACTION = "all together", "interaction"
LADDER = "ladder"

Sets = dict[frozenset[str], str]  # features -> the arm that has them


@dataclasses.dataclass(frozen=True)
class Shares:
    """One ablation: a comparison for each feature (its ``base`` says how it was measured), what is left, the whole."""

    experiment: Experiment
    features: tuple[Comparison, ...]
    interaction: Comparison | None
    whole: Comparison
    alone: tuple[Comparison, ...]  # each feature put in alone
    last: tuple[Comparison, ...]  # each feature left out, as what it adds


def sets_of(one: Experiment, arms: Mapping[tuple[str, str], Arm]) -> Sets:
    """The arms of ONE that were measured, by their features."""
    found: Sets = {}
    for (experiment, name), arm in arms.items():
        if experiment == one.name and name in one.columns:
            found.setdefault(frozenset(arm.features), name)
    return found


def is_ladder(one: Experiment) -> bool:
    """Whether the arms of ONE are rungs: its name says so."""
    return LADDER in one.name.split("/") or any(part.startswith(LADDER) for part in one.name.split("/"))


def _logs(table: Columns, arm: str, base: str) -> dict[Key, float]:
    both = table.get(arm, {}).keys() & table.get(base, {}).keys()
    return {key: math.log(table[arm][key] / table[base][key]) for key in both}


def _mean(found: Sequence[Mapping[Key, float]]) -> dict[Key, float]:
    """By block, over those that have the block; only blocks that all have."""
    keys = set.intersection(*(set(each) for each in found))
    return {key: sum(each[key] for each in found) / len(found) for key in keys}


def shares(one: Experiment, arms: Mapping[tuple[str, str], Arm]) -> Shares | None:
    """The shares of ONE; None when it has no two sets of which one holds the other by more than a feature."""
    sets = sets_of(one, arms)
    smallest, largest = _ends(sets)
    if largest - smallest == frozenset() or not sets:
        return None
    none, whole = sets[smallest], sets[largest]
    by_feature: dict[str, tuple[str, dict[Key, float]]] = {}
    alone, last = [], []
    for feature in sorted(largest - smallest):
        ways: list[tuple[str, dict[Key, float]]] = []
        only, without = sets.get(smallest | {feature}), sets.get(largest - {feature})
        if only and len(largest - smallest) > 1:
            ways.append(("put in alone", _logs(one.columns, only, none)))
            alone.append(_compared(one, feature, none, ways[-1][1]))
        if without and len(largest - smallest) > 1:
            ways.append(("left out", _logs(one.columns, whole, without)))
            last.append(_compared(one, feature, without, ways[-1][1]))
        if ways:
            by_feature[feature] = (" and ".join(way for way, _ in ways), _mean([logs for _, logs in ways]))
    if not by_feature:
        return None
    total = _logs(one.columns, whole, none)
    rest = _rest(total, [logs for _, logs in by_feature.values()])
    missing = len(largest - smallest) - len(by_feature)
    name = INTERACTION if not missing else f"{INTERACTION}, and {missing} features not measured"
    features = [_compared(one, feature, way, logs) for feature, (way, logs) in by_feature.items()]
    return Shares(
        one,
        tuple(sorted(judged(features, one.gates), key=_size, reverse=True)),
        judged([_compared(one, name, "what is left", rest)], one.gates)[0] if rest else None,
        judged([_compared(one, TOGETHER, none, total)], one.gates)[0],
        judged(alone, one.gates),
        judged(last, one.gates),
    )


def _ends(sets: Sets) -> tuple[frozenset[str], frozenset[str]]:
    if not sets:
        return frozenset(), frozenset()
    return min(sets, key=len), max(sets, key=len)


def _compared(one: Experiment, feature: str, base: str, found: Mapping[Key, float]) -> Comparison:
    return of_logs(one.place, one.name, one.value, [found[key] for key in sorted(found)], feature, base)


def _rest(total: Mapping[Key, float], each: Sequence[Mapping[Key, float]]) -> dict[Key, float]:
    keys = set(total).intersection(*(set(logs) for logs in each))
    return {key: total[key] - sum(logs[key] for logs in each) for key in keys}


def _size(one: Comparison) -> float:
    return abs(math.log(one.ratio.estimate)) if one.ratio else 0.0


def rungs(one: Experiment) -> list[tuple[str, Comparison | None, Comparison | None]]:
    """(rung, against the base, against the rung below) in the order of the ladder; None where there is none."""
    against = {each.arm: each for each in one.comparisons}
    names = [arm for arm in one.columns if arm in against]
    steps = [
        compare(one.place, one.name, one.value, one.columns, upper, lower)
        for lower, upper in zip([one.base, *names], names)
        if lower
    ]
    by_arm = {step.arm: step for step in judged(steps, one.gates)}
    return [(name, against.get(name), by_arm.get(name)) for name in names]
