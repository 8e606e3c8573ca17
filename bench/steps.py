"""What each feature of a container adds, pure: from arms that differ in known features, and from ladders.

An ablation's arms have sets of features; the smallest set is the *floor*, the largest the *whole*. Where the sets grow
from arm to arm they are a **chain**, and each step is what its arm has more than the one before. Otherwise an arm is
near the floor (a feature *put in alone*) or near the whole (one *left out*), and is held against the nearest arm that
it grew from, or that it was left out of. A feature measured both ways has the mean of the two as its share, per block:
what it costs alone and what it costs among all others are the two ends of what it can be said to cost. What the shares
do not sum up to is the features' interaction, a row of its own.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench import design
from bench.analysis import SUFFIX, Columns, Comparison, Experiment, Key, compare, judged, of_logs, rank
from bench.samples import Arm

TOGETHER, INTERACTION = "all together", "interaction"
ALONE, LAST = "put in alone", "left out"
IN_ORDER = ("ladder", "rebuild", "nginx")  # in the name of an experiment whose arms stand in a known order
# in what is known of an arm, before the name of the one that it is held against
OVER = ("measured over ", "compared with ")
SHORTEST = 3  # arms of a chain
OURS = "minictr"  # environments whose features are known

Sets = dict[str, frozenset[str]]  # arm -> features, in the order of the records
Logs = dict[Key, float]
# (arm, base) of a comparison as it is told -> the arm and the one it is held against, whose difference it is
Like = dict[tuple[str, str], tuple[str, str]]


@dataclasses.dataclass(frozen=True)
class Shares:
    """One ablation: a comparison for each feature (its ``base`` says how it was measured), what is left, the whole."""

    experiment: Experiment
    features: tuple[Comparison, ...]
    interaction: Comparison | None
    whole: Comparison
    alone: tuple[Comparison, ...] = ()  # each feature put in alone
    last: tuple[Comparison, ...] = ()  # each feature left out, as what it adds
    terms: tuple[Comparison, ...] = ()  # of a full factorial: what features add only together

    @property
    def all(self) -> tuple[Comparison, ...]:
        rest = (self.interaction,) if self.interaction else ()
        return (*self.features, *rest, self.whole, *self.alone, *self.last, *self.terms)


def sets_of(one: Experiment, arms: Mapping[tuple[str, str], Arm]) -> Sets:
    """The features of ONE's measured arms that are ours; the base and its twin are none of them."""
    bare = (one.base, one.base + SUFFIX)
    return {
        name: frozenset(arm.features)
        for (experiment, name), arm in arms.items()
        if experiment == one.name and arm.environment.startswith(OURS) and name in one.columns and name not in bare
    }


def in_order(one: Experiment) -> bool:
    """Whether the arms of ONE stand in a known order: its name says so."""
    return any(word in one.name for word in IN_ORDER)


def chain(sets: Sets) -> list[str]:
    """Arms of which each has all that the one before has, and more, from the first; [] for too few.

    Where some are named as steps (``+overlay``) only these count, and those that have nothing.
    """
    named = {name: on for name, on in sets.items() if name.startswith("+") or not on}
    sets = named if len(named) > SHORTEST else sets
    found: list[str] = []
    for name, on in sorted(sets.items(), key=lambda pair: len(pair[1])):
        if not found or sets[found[-1]] < on:
            found.append(name)
    return found if len(found) >= SHORTEST else []


def logs_of(table: Columns, arm: str, base: str) -> Logs:
    both = table.get(arm, {}).keys() & table.get(base, {}).keys()
    return {key: math.log(table[arm][key] / table[base][key]) for key in both}


def compared(
    one: Experiment, feature: str, base: str, found: Mapping[Key, float], arms: Iterable[str] = ()
) -> Comparison:
    """FEATURE over BASE as it is told, from FOUND, made of ARMS when those are not the two that are named."""
    values = [found[key] for key in sorted(found)]
    return of_logs(one.place, one.name, one.value, values, feature, base, tuple(arms))


def grounds(
    one: Experiment, arms: Mapping[tuple[str, str], Arm], names: Sequence[str]
) -> dict[str, tuple[str, tuple[str, ...]]]:
    """name -> (the measured arm that it is held against, "" for none told; the rungs that are jumped).

    A record may say that its arm is held against one that could not be had here. Then it is held against what that one
    stands on; where nobody has said so, against the nearest below by its features. Rungs between the two that could
    not be had are jumped: what is found is of them all.
    """
    mine = {name: arm for (experiment, name), arm in arms.items() if experiment == one.name}
    told = {name: over(arm, "") for name, arm in mine.items()}
    sets, missing = sets_of(one, arms), [name for name, arm in mine.items() if arm.unavailable]
    found = {}
    for name in names:
        below, jumped = design.standing(name, told, one.columns)
        if not below and jumped and name in sets:
            under = [other for other in sets if sets[other] < sets[name] and other[:1] == name[:1]]
            below = max(under, key=lambda other: len(sets[other]), default="")
        if below in sets and name in sets:
            order = [*mine[name].features]
            between = {word: rung for rung in missing if (word := rung.removeprefix("+")) in sets[name] - sets[below]}
            jumped = tuple(between[word] for word in sorted(between, key=order.index))
        found[name] = (below, jumped)
    return found


def size(one: Comparison) -> float:
    return abs(math.log(one.ratio.estimate)) if one.ratio else 0.0


def rebuilt(one: Experiment, arms: Mapping[tuple[str, str], Arm]) -> tuple[Shares, Like] | None:
    """The steps of a chain from the base on, not judged yet; None where the arms of ONE are none."""
    sets = sets_of(one, arms)
    names = chain(sets) if in_order(one) and one.base else []
    if not names:
        return None
    stands = grounds(one, arms, names)
    pairs = list(zip([one.base, *names], names))
    bases = {upper: design.ground(lower, stands[upper][1]) for lower, upper in pairs}
    steps = [
        compared(one, upper, f"over {bases[upper]}", logs_of(one.columns, upper, lower), (upper, lower))
        for lower, upper in pairs
    ]
    whole = compared(
        one, f"{TOGETHER} ({names[-1]})", one.base, logs_of(one.columns, names[-1], one.base), (names[-1], one.base)
    )
    like = {(name, f"over {base}"): (name, base) for name, base in bases.items()}
    return Shares(one, tuple(steps), None, whole), like


def ends(sets: Sets) -> tuple[str, str] | None:
    """(the floor, the whole); None where they do not differ by two features or more."""
    if len(sets) < SHORTEST:
        return None
    floor, whole = min(sets, key=lambda name: len(sets[name])), max(sets, key=lambda name: len(sets[name]))
    return (floor, whole) if sets[floor] < sets[whole] and len(sets[whole] - sets[floor]) > 1 else None


def one_by_one(one: Experiment, arms: Mapping[tuple[str, str], Arm]) -> tuple[Shares, Like] | None:
    """The shares of features that were put in alone or left out, not judged yet; None where none was."""
    sets = sets_of(one, arms)
    if (found := ends(sets)) is None:
        return None
    floor, whole = found
    ways: dict[str, dict[str, tuple[str, Logs]]] = {}
    like: Like = {}
    for name in sets:
        if name not in (floor, whole) and sets[floor] < sets[name] < sets[whole]:
            way, other = _way(name, sets, floor, whole, over(arms.get((one.name, name)), ""))
            upper, lower = (name, other) if way == ALONE else (other, name)
            label = _label(name, sets[upper] - sets[lower])
            if way not in ways.setdefault(label, {}):
                ways[label][way] = (other, logs_of(one.columns, upper, lower))
                like[label, way] = like[label, other] = (name, other)
    return (_shared(one, ways, floor, whole), like | whole_like(one, floor, whole)) if ways else None


def whole_like(one: Experiment, floor: str, whole: str) -> Like:
    return {(floor, f"over {one.base}"): (floor, one.base), (TOGETHER, one.base or floor): (whole, one.base or floor)}


def _way(name: str, sets: Sets, floor: str, whole: str, ground: str) -> tuple[str, str]:
    """(how NAME was made, the arm it is held against): GROUND, which its record names, where one has more than the
    other; else the nearest below where it is near the floor, else the whole."""
    on = sets[name]
    if ground in sets and (sets[ground] < on or on < sets[ground]):
        return (ALONE if sets[ground] < on else LAST), ground
    if name.startswith("+") or (
        not name.startswith("-") and 2 * len(on - sets[floor]) < len(sets[whole] - sets[floor])
    ):
        below = [other for other in sets if sets[other] < on and other != whole]
        return ALONE, max(below, key=lambda other: len(sets[other]))
    return LAST, whole


def _label(name: str, difference: frozenset[str]) -> str:
    """What an arm is about: its name without its sign, or what it differs in."""
    if name[:1] in "+-":
        return name[1:]
    return ", ".join(sorted(difference)) if len(difference) <= 2 else name


def _shared(one: Experiment, ways: Mapping[str, Mapping[str, tuple[str, Logs]]], floor: str, whole: str) -> Shares:
    table = one.columns
    means = {label: _mean([logs for _, logs in each.values()]) for label, each in ways.items()}
    features = [compared(one, label, " and ".join(ways[label]), logs) for label, logs in means.items()]
    base = one.base or floor
    if one.base and logs_of(table, floor, one.base):
        means[floor] = logs_of(table, floor, one.base)
        features.append(compared(one, floor, f"over {one.base}", means[floor]))
    total = logs_of(table, whole, base)
    rest = _rest(total, list(means.values()))
    return Shares(
        one,
        tuple(sorted(features, key=size, reverse=True)),
        compared(one, INTERACTION, "what is left", rest) if rest else None,
        compared(one, TOGETHER, base, total, (whole, base)),
        *(
            tuple(compared(one, label, *each[way]) for label, each in ways.items() if way in each)
            for way in (ALONE, LAST)
        ),
    )


def _mean(found: Sequence[Mapping[Key, float]]) -> Logs:
    """By block, over those that have the block; only blocks that all have."""
    keys = set.intersection(*(set(each) for each in found))
    return {key: sum(each[key] for each in found) / len(found) for key in keys}


def _rest(total: Mapping[Key, float], each: Sequence[Mapping[Key, float]]) -> Logs:
    keys = set(total).intersection(*(set(logs) for logs in each))
    return {key: total[key] - sum(logs[key] for logs in each) for key in keys}


def over(arm: Arm | None, below: str) -> str:
    """Which arm ARM is held against: what its record says, else BELOW."""
    for text in arm.known if arm else ():
        for beginning in OVER:
            if text.startswith(beginning):
                return text.removeprefix(beginning)
    return below


def _path(name: str, ground: Mapping[str, str]) -> list[Any]:
    """From the lowest rung up to NAME, as a key for sorting: each rung comes right after what it stands on."""
    found, seen = [name], {name}
    while (below := ground.get(found[0], "")) and below not in seen:
        found.insert(0, below)
        seen.add(below)
    return [rank(rung) for rung in found]


def held(one: Experiment, arms: Mapping[tuple[str, str], Arm]) -> tuple[Comparison, ...]:
    """Each arm against the one that it is held against, judged once as one family: all that is said of two arms.

    In the order of the records; rungs of a ladder right after what they stand on.
    """
    names = [name for experiment, name in arms if experiment == one.name] or list(one.columns)
    names = [name for name in names if name in one.columns and name not in (one.base, one.base + SUFFIX)]
    if not one.base:
        return ()
    stands = grounds(one, arms, names)
    ground = {upper: lower for upper, (lower, _) in stands.items()}
    below = dict.fromkeys(names, one.base)
    if in_order(one):
        names = sorted(names, key=lambda name: _path(name, ground)) if any(ground.values()) else names
        below = dict(zip(names, [one.base, *names]))
    steps = [
        compare(one.place, one.name, one.value, one.columns, upper, ground[upper] or below[upper]) for upper in names
    ]
    done = judged(steps, one.gates, one.busy)
    return tuple(dataclasses.replace(step, base=design.ground(step.base, stands[step.arm][1])) for step in done)
