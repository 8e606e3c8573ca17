"""What an ablation says, pure: the one judge of its text and of its page.

Two families of verdicts, each adjusted once (``analysis.judged``), behind the same gates as everything else:

- the *steps*: each arm against the one that it is held against (``steps.held``);
- the *effects* that are more than a difference of two arms: contrasts of a screening, Shapley values and interactions
  of a full factorial, the crossing of network path and layer, means of two ways, the whole of a chain. One that is a
  step told by another name is judged as that step.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence

from bench import design, steps
from bench.ablate.words import GROUPS, OVERLAY, PATH
from bench.analysis import FASTER, SLOWER, Comparison, Experiment, Key, judged, judged_as, shut
from bench.samples import Arm
from bench.steps import TOGETHER, Like, Logs, Sets, Shares, compared, logs_of

SCREEN, FACTORIAL, NGINX = "screen", "factorial", "nginx"
BOTH = f"{PATH}+{OVERLAY}"
EARLIER = "nat"  # what results files called the path
# the web server's 2x2: which arm is which combination
CROSSES: Mapping[str, Mapping[str, str]] = {
    "Docker": {"none": "docker-host-volume", PATH: "docker-volume", OVERLAY: "docker-host", BOTH: "docker"},
    "minictr rebuilt as Docker": {"none": "none+bind", PATH: f"{PATH}+bind", OVERLAY: "none+overlay", BOTH: BOTH},
}
ASKED = ("proxy", "bare-dockerd")  # steps that are answers in that question
CONTRAST, SHAPLEY, INTERACTION = "contrast", "Shapley value", "interaction"

Pair = tuple[str, str]  # an arm and what it is held against


@dataclasses.dataclass(frozen=True)
class Family:
    """Comparisons that are told together; ``title`` says what they are."""

    title: str
    ones: tuple[Comparison, ...]


@dataclasses.dataclass(frozen=True)
class Told:
    """One ablation. ``steps`` and ``effects`` hold every verdict; ``shares`` are the same ones as a waterfall."""

    experiment: Experiment
    steps: tuple[Comparison, ...] = ()
    effects: tuple[Family, ...] = ()
    shares: Shares | None = None
    notes: tuple[str, ...] = ()
    sizes: tuple[int, int] = (0, 0)  # of the two families

    @property
    def about(self) -> str:
        """What a reader must know of intervals and verdicts."""
        wide = "95 % intervals, each by itself, and wider ones that hold for all of a family at once (Bonferroni)"
        return f"{wide}; verdicts are adjusted for the family (Holm): {self.sizes[0]} steps, {self.sizes[1]} effects"

    @property
    def acting(self) -> list[str]:
        """The factors of a screening that surely make it slower or faster, the largest first; few enough to cross."""
        found = [one for family in self.effects for one in family.ones if one.base == CONTRAST]
        acting = [one.arm for one in found if one.verdict in (SLOWER, FASTER)]
        return acting[: design.MOST_FACTORIAL - 1]


def method_of(one: Experiment) -> str:
    """``screen``, ``factorial``, ``nginx``, or "" for those whose effects are differences of two arms."""
    last = one.name.rpartition("/")[2].replace("screen-factorial", FACTORIAL)
    return last if last in (SCREEN, FACTORIAL, NGINX) else ""


def told(one: Experiment, arms: Mapping[tuple[str, str], Arm]) -> Told:
    """Everything that may be said of the ablation ONE."""
    method, held = method_of(one), steps.held(one, arms)
    found = None if method == SCREEN else shares(one, arms)
    notes: list[str] = []
    loose: list[Family] = []
    if method == SCREEN:
        loose = [Family("contrasts: rows with the factor against rows without it", contrasts(one, arms))]
        notes += [] if loose[0].ones else ["no contrasts: rows of the design were not measured in any whole block"]
    if method == NGINX:
        of = "network path (cable, bridge, wall, NAT, port; or the machine's own network) x overlay"
        loose = [Family(f"{name}: {of}", crossed(one, named(one, arms_of))) for name, arms_of in CROSSES.items()]
        missing = [name for name, family in zip(CROSSES, loose) if not family.ones]
        notes += [f"{name}: network path x overlay was not measured in any whole block" for name in missing]
    if method == FACTORIAL and (found is None or not found[0].terms):
        notes.append("no Shapley values: a combination is missing, and without it there is no sharing out")
    drafts = [each for family in loose for each in family.ones]
    done, new = _settled(one, held, found, drafts)
    sizes = (len(held), len(new))
    loose = [Family(family.title, _picked(family.ones, done)) for family in loose if family.ones]
    if method == NGINX and (asked := [each for each in held if each.arm in ASKED]):
        loose.append(Family("the proxy rung, and a dockerd that merely runs", tuple(asked)))
    if found is None:
        return Told(one, held, tuple(loose), None, tuple(notes), sizes)
    share = _judged_shares(found[0], done)
    return Told(one, held, (*loose, *_families(share, new)), share, tuple(notes), sizes)


def _settled(
    one: Experiment, held: Sequence[Comparison], found: tuple[Shares, Like] | None, more: Sequence[Comparison]
) -> tuple[dict[Pair, Comparison], set[Pair]]:
    """((arm, base) -> the verdict, those that are in the family of effects): the others are judged as their steps."""
    by_pair = {(each.arm, each.base): each for each in held}
    drafts = [*more, *(found[0].all if found else ())]
    like = found[1] if found else {}
    done: dict[Pair, Comparison] = {}
    new: list[Comparison] = []
    for each in drafts:
        step = by_pair.get(like.get((each.arm, each.base), ("", "")))
        if step is not None:
            done[each.arm, each.base] = judged_as(each, step, shut(step, one.gates, one.busy))
        else:
            new.append(each)
    fresh = {(each.arm, each.base): each for each in judged(new, one.gates, one.busy)}
    return done | fresh, set(fresh)


def _picked(ones: Iterable[Comparison], done: Mapping[Pair, Comparison]) -> tuple[Comparison, ...]:
    return tuple(done[each.arm, each.base] for each in ones)


def _judged_shares(draft: Shares, done: Mapping[Pair, Comparison]) -> Shares:
    rest = _picked([draft.interaction], done)[0] if draft.interaction else None
    features, whole, alone, last, terms = (
        _picked(ones, done) for ones in (draft.features, (draft.whole,), draft.alone, draft.last, draft.terms)
    )
    return Shares(draft.experiment, features, rest, whole[0], alone, last, terms)


def _families(found: Shares, new: set[Pair]) -> list[Family]:
    """SHARES as they are printed: what is a step already is not told twice."""
    families = (
        Family("Shapley values (they sum to the whole)", tuple(it for it in found.features if it.base == SHAPLEY)),
        Family("interactions: beyond the sum of what is in them", found.terms),
        Family(
            "shares: the middle of both ways",
            tuple(it for it in found.features if it.base != SHAPLEY and (it.arm, it.base) in new),
        ),
        Family("what the shares do not sum up to", (found.interaction,) if found.interaction else ()),
        Family("the whole", (found.whole,)),
    )
    return [family for family in families if family.ones]


def shares(one: Experiment, arms: Mapping[tuple[str, str], Arm]) -> tuple[Shares, Like] | None:
    """How the whole is made up, not judged yet: by a chain's steps, by Shapley values, or feature by feature."""
    if steps.in_order(one):
        return steps.rebuilt(one, arms)
    sets = steps.sets_of(one, arms)
    ends = steps.ends(sets)
    atoms = lattice(sets, ends[0]) if ends else {}
    if ends and atoms:
        return _factorial(one, sets, atoms, *ends)
    return None if method_of(one) == FACTORIAL else steps.one_by_one(one, arms)


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


def _factorial(
    one: Experiment, sets: Sets, atoms: Mapping[str, frozenset[str]], floor: str, whole: str
) -> tuple[Shares, Like]:
    """Shapley values by block: they sum to the whole, and nothing is left; the interactions are terms of their own."""
    arm_of = {frozenset(atom for atom in atoms if atoms[atom] <= on - sets[floor]): arm for arm, on in sets.items()}
    by_factor, by_term = _shared_out(one, arm_of, list(atoms))
    features = [compared(one, name, SHAPLEY, logs, arm_of.values()) for name, logs in by_factor.items()]
    if one.base:
        features.append(compared(one, floor, f"over {one.base}", logs_of(one.columns, floor, one.base)))
    terms = tuple(compared(one, name, INTERACTION, logs, arm_of.values()) for name, logs in by_term.items())
    base = one.base or floor
    total = compared(one, TOGETHER, base, logs_of(one.columns, whole, base), (whole, base))
    ordered = tuple(sorted(features, key=steps.size, reverse=True))
    return Shares(one, ordered, None, total, terms=terms), steps.whole_like(one, floor, whole)


def _shared_out(
    one: Experiment, arm_of: Mapping[frozenset[str], str], factors: Sequence[str]
) -> tuple[dict[str, Logs], dict[str, Logs]]:
    """(factor -> Shapley value, combination -> its interaction) in each block that has every arm of ARM_OF."""
    by_factor: dict[str, Logs] = {}
    by_term: dict[str, Logs] = {}
    for key in whole_blocks(one, arm_of.values()):
        values = {on: math.log(one.columns[arm][key]) for on, arm in arm_of.items()}
        for name, value in design.shapley(values, factors).items():
            by_factor.setdefault(name, {})[key] = value
        for on, value in design.dividends(values, factors).items():
            if len(on) > 1:
                by_term.setdefault(" x ".join(sorted(on)), {})[key] = value
    return by_factor, by_term


def whole_blocks(one: Experiment, arms: Iterable[str]) -> set[Key]:
    """The blocks in which none of ARMS is missing."""
    return set.intersection(*(set(one.columns.get(arm, {})) for arm in arms))


def named(one: Experiment, arms_of: Mapping[str, str]) -> dict[str, str]:
    """ARMS_OF as the results call them: earlier ones say nat for the whole path."""
    earlier = {row: arm.replace(f"{PATH}+", f"{EARLIER}+", 1) for row, arm in arms_of.items()}
    return {row: arm if arm in one.columns else earlier[row] for row, arm in arms_of.items()}


def crossed(one: Experiment, arms_of: Mapping[str, str]) -> tuple[Comparison, ...]:
    """Two features by the four combinations of them, not judged yet: Shapley values, interaction, both together.

    ARMS_OF: ``none``, the one, the other, and both of them joined by ``+``, to the arm that is so. () where no block
    has all four.
    """
    factors = [name for name in arms_of if name != "none" and "+" not in name]
    arm_of = {frozenset() if row == "none" else frozenset(row.split("+")): arm for row, arm in arms_of.items()}
    by_factor, by_term = _shared_out(one, arm_of, factors)
    if not by_factor:
        return ()
    none, both = arm_of[frozenset()], arm_of[frozenset(factors)]
    found = {**by_factor, **by_term}
    shared = tuple(compared(one, name, f"over {none}", logs, arm_of.values()) for name, logs in found.items())
    return (*shared, compared(one, "both", f"over {none}", logs_of(one.columns, both, none), (both, none)))


def contrasts(one: Experiment, arms: Mapping[tuple[str, str], Arm]) -> tuple[Comparison, ...]:
    """The effect of each factor of a screening, not judged yet, the largest first; () where no block is whole.

    What the factors are is read from the rows: words that are always on or off together are one.
    """
    sets = {
        name: frozenset(arm.features)
        for (experiment, name), arm in arms.items()
        if experiment == one.name and name.startswith("run")
    }
    rows = screened(sets)
    if rows is None:
        return ()
    by_factor: dict[str, Logs] = {}
    for key in whole_blocks(one, sets):
        values = {name: math.log(one.columns[name][key]) for name in sets}
        for factor in rows.factors:
            by_factor.setdefault(factor, {})[key] = design.contrast(rows, values, factor)
    found = [compared(one, name, CONTRAST, logs, sets) for name, logs in by_factor.items()]
    return tuple(sorted(found, key=steps.size, reverse=True))


def screened(sets: Sets) -> design.Design | None:
    """The rows of a screening with their factors; None where a row is missing, so that they are not balanced."""
    words = sorted(frozenset().union(*sets.values()))
    by_rows: dict[frozenset[str], list[str]] = {}
    for word in words:
        by_rows.setdefault(frozenset(name for name, on in sets.items() if word in on), []).append(word)
    factors = {_factor(group): rows for rows, group in by_rows.items() if len(rows) < len(sets)}
    pairs = itertools.combinations(factors.values(), 2)
    balanced = all(2 * len(rows) == len(sets) for rows in factors.values())
    if not factors or not balanced or any(4 * len(some & others) != len(sets) for some, others in pairs):
        return None
    made = [design.Row(name, frozenset(one for one, rows in factors.items() if name in rows)) for name in sets]
    return design.Design(SCREEN, tuple(factors), tuple(made))


def _factor(words: Sequence[str]) -> str:
    """The factor that these words are, as ``--factors`` would have it."""
    if len(words) == 1:
        return words[0]
    groups = [name for name, group in GROUPS.items() if set(words) <= set(group)]
    return groups[0] if groups else ",".join(words)
