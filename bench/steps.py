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
import itertools
import math
from collections.abc import Mapping, Sequence
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


def _logs(table: Columns, arm: str, base: str) -> Logs:
    both = table.get(arm, {}).keys() & table.get(base, {}).keys()
    return {key: math.log(table[arm][key] / table[base][key]) for key in both}


def _compared(one: Experiment, feature: str, base: str, found: Mapping[Key, float]) -> Comparison:
    return of_logs(one.place, one.name, one.value, [found[key] for key in sorted(found)], feature, base)


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


def _size(one: Comparison) -> float:
    return abs(math.log(one.ratio.estimate)) if one.ratio else 0.0


def rebuilt(one: Experiment, arms: Mapping[tuple[str, str], Arm]) -> Shares | None:
    """The steps of a chain from the base on; None where the arms of ONE are none."""
    sets = sets_of(one, arms)
    names = chain(sets) if in_order(one) and one.base else []
    if not names:
        return None
    jumped = {name: over for name, (_, over) in grounds(one, arms, names).items()}
    steps = [
        _compared(one, upper, f"over {design.ground(lower, jumped[upper])}", _logs(one.columns, upper, lower))
        for lower, upper in zip([one.base, *names], names)
    ]
    whole = _compared(one, f"{TOGETHER} ({names[-1]})", one.base, _logs(one.columns, names[-1], one.base))
    return Shares(one, judged(steps, one.gates), None, judged([whole], one.gates)[0])


def shares(one: Experiment, arms: Mapping[tuple[str, str], Arm]) -> Shares | None:
    """The shares of ONE; None where its sets do not differ by two features or more."""
    sets = sets_of(one, arms)
    if len(sets) < SHORTEST:
        return None
    floor, whole = min(sets, key=lambda name: len(sets[name])), max(sets, key=lambda name: len(sets[name]))
    if not sets[floor] < sets[whole] or len(sets[whole] - sets[floor]) < 2:
        return None
    atoms = lattice(sets, floor)
    if atoms:
        return _factorial(one, sets, atoms, floor, whole)
    ways: dict[str, dict[str, tuple[str, Logs]]] = {}
    for name in sets:
        if name not in (floor, whole) and sets[floor] < sets[name] < sets[whole]:
            way, other = _way(name, sets, floor, whole)
            upper, lower = (name, other) if way == ALONE else (other, name)
            label = _label(name, sets[upper] - sets[lower])
            ways.setdefault(label, {}).setdefault(way, (other, _logs(one.columns, upper, lower)))
    return _shared(one, ways, floor, whole) if ways else None


def lattice(sets: Sets, floor: str) -> dict[str, frozenset[str]]:
    """arm -> what it has more than FLOOR, for the single factors of a full factorial; {} when SETS are none."""
    more = {name: on - sets[floor] for name, on in sets.items() if name != floor}
    atoms = {name: on for name, on in more.items() if not any(other < on for other in more.values())}
    if not 2 <= len(atoms) <= design.MOST_FACTORIAL:
        return {}
    unions = {
        frozenset().union(*some)
        for size in range(1, len(atoms) + 1)
        for some in itertools.combinations(atoms.values(), size)
    }
    return atoms if len(unions) == 2 ** len(atoms) - 1 and unions <= set(more.values()) else {}


def _factorial(one: Experiment, sets: Sets, atoms: Mapping[str, frozenset[str]], floor: str, whole: str) -> Shares:
    """Shapley values by block: they sum to the whole, and nothing is left; the interactions are terms of their own."""
    names = {name: _label(name, on) for name, on in atoms.items()}
    arm_of = {
        frozenset(names[atom] for atom in atoms if atoms[atom] <= on - sets[floor]): arm for arm, on in sets.items()
    }
    keys = set.intersection(*(set(one.columns[arm]) for arm in arm_of.values()))
    by_factor: dict[str, Logs] = {}
    by_term: dict[str, Logs] = {}
    for key in keys:
        values = {on: math.log(one.columns[arm][key]) for on, arm in arm_of.items()}
        for name, value in design.shapley(values, list(names.values())).items():
            by_factor.setdefault(name, {})[key] = value
        for on, value in design.dividends(values, list(names.values())).items():
            if len(on) > 1:
                by_term.setdefault(" x ".join(sorted(on)), {})[key] = value
    if one.base:
        by_factor[floor] = _logs(one.columns, floor, one.base)
    features = [
        _compared(one, name, "Shapley value" if name != floor else f"over {one.base}", logs)
        for name, logs in by_factor.items()
    ]
    terms = [_compared(one, name, "interaction", logs) for name, logs in by_term.items()]
    total = _compared(one, TOGETHER, one.base or floor, _logs(one.columns, whole, one.base or floor))
    return Shares(
        one,
        tuple(sorted(judged(features, one.gates), key=_size, reverse=True)),
        None,
        judged([total], one.gates)[0],
        terms=judged(terms, one.gates),
    )


def crossed(one: Experiment, arms_of: Mapping[str, str]) -> list[Comparison]:
    """What two features cost in the four combinations of them: each alone, and what only both together cost.

    ARMS_OF: ``none``, the one, the other, and both of them joined by ``+``, to the arm that is so. [] where one of the
    four was not measured.
    """
    table, factors = one.columns, [name for name in arms_of if name != "none" and "+" not in name]
    if not all(arm in table for arm in arms_of.values()):
        return []
    found: dict[str, Logs] = {}
    for key in set.intersection(*(set(table[arm]) for arm in arms_of.values())):
        values = {
            frozenset() if row == "none" else frozenset(row.split("+")): math.log(table[arm][key])
            for row, arm in arms_of.items()
        }
        for on, value in design.dividends(values, factors).items():
            found.setdefault(" x ".join(sorted(on)), {})[key] = value
    told = [_compared(one, name, arms_of["none"], logs) for name, logs in found.items()]
    return list(judged(told, one.gates))


def _way(name: str, sets: Sets, floor: str, whole: str) -> tuple[str, str]:
    """(how NAME was made, the arm it is held against): the nearest below where it is near the floor, else above."""
    on = sets[name]
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
    features = [_compared(one, label, " and ".join(ways[label]), logs) for label, logs in means.items()]
    base = one.base or floor
    if one.base and _logs(table, floor, one.base):
        means[floor] = _logs(table, floor, one.base)
        features.append(_compared(one, floor, f"over {one.base}", means[floor]))
    total = _logs(table, whole, base)
    rest = _rest(total, list(means.values()))
    return Shares(
        one,
        tuple(sorted(judged(features, one.gates), key=_size, reverse=True)),
        judged([_compared(one, INTERACTION, "what is left", rest)], one.gates)[0] if rest else None,
        judged([_compared(one, TOGETHER, base, total)], one.gates)[0],
        *(
            judged([_compared(one, label, *each[way]) for label, each in ways.items() if way in each], one.gates)
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


def rungs(
    one: Experiment, arms: Mapping[tuple[str, str], Arm]
) -> list[tuple[str, Comparison | None, Comparison | None]]:
    """(rung, against the base, against the rung that it stands on) in the order of the ladder."""
    against = {each.arm: each for each in one.comparisons}
    names = [name for experiment, name in arms if experiment == one.name and name in against] or list(against)
    stands = grounds(one, arms, names)
    ground = {upper: below for upper, (below, _) in stands.items()}
    if any(ground.values()):
        names = sorted(names, key=lambda name: _path(name, ground))
    below = dict(zip(names, [one.base, *names]))
    steps = [
        compare(one.place, one.name, one.value, one.columns, upper, ground[upper] or below[upper]) for upper in names
    ]
    by_arm = {
        step.arm: dataclasses.replace(step, base=design.ground(step.base, stands[step.arm][1]))
        for step in judged(steps, one.gates)
    }
    return [(name, against.get(name), by_arm.get(name)) for name in names]
