"""Designs of experiments, pure: which combinations of factors are measured, and what their results say of each factor.

A *row* is a name and the set of factors that are on in it: off is absence. Nothing here knows what a factor is; what
cannot be combined is said by POSSIBLE, a function that answers "" or the reason, and every row that it refuses is told
in ``Design.refused``, never dropped without a word.

- ``leave_one_out``, ``add_one_in``: one factor at a time, from all of them or from none.
- ``ladder``: each rung the one before with something added or changed; what a rung costs is against the one below it.
- ``screening``: a folded Plackett-Burman design: all factors in few rows, each of their effects clear of every pair.
- ``factorial``: every combination of a few; their Shapley values and interactions sum to the whole exactly.

Plackett and Burman, The design of optimum multifactorial experiments, Biometrika 33 (1946); Box and Wilson (1951) for
folding; Shapley (1953); Harsanyi (1963) for dividends.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Container, Iterable, Mapping, Sequence

MOST_FACTORIAL = 5  # 32 rows
MOST_SCREENED = 59  # 120 rows

Factors = frozenset[str]
Possible = Callable[[Factors], str]


class DesignError(ValueError):
    """What was asked for is no design: too many factors, or none."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One arm of a design. ``over``: the row that it is compared with, "" for the one that all are compared with."""

    name: str
    on: Factors
    over: str = ""


@dataclasses.dataclass(frozen=True)
class Design:
    """Rows to be measured in randomised complete blocks. ``notes`` are what a reader must know to read the effects;
    ``refused`` are (row, reason) of those that cannot be."""

    method: str
    factors: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    refused: tuple[tuple[str, str], ...] = ()

    def row(self, name: str) -> Row:
        return next(row for row in self.rows if row.name == name)


def anything(on: Factors) -> str:
    """A POSSIBLE for factors that know no contradiction."""
    del on
    return ""


def _design(
    method: str, factors: Sequence[str], rows: Iterable[Row], possible: Possible, notes: Iterable[str] = ()
) -> Design:
    """The rows that are possible, each set of factors once, and why the others are not there."""
    kept: dict[Factors, Row] = {}
    refused: list[tuple[str, str]] = []
    for row in rows:
        why = possible(row.on)
        if why:
            refused.append((row.name, why))
        elif row.on in kept:
            refused.append((row.name, f"is the same as {kept[row.on].name}"))
        else:
            kept[row.on] = row
    return Design(method, tuple(factors), tuple(kept.values()), tuple(notes), tuple(refused))


def _checked(factors: Sequence[str], most: int, method: str) -> list[str]:
    if not factors:
        raise DesignError(f"{method}: there is no factor to put in or leave out")
    if len(set(factors)) != len(factors):
        raise DesignError(f"{method}: a factor is named twice in {', '.join(factors)}")
    if len(factors) > most:
        raise DesignError(f"{method}: {len(factors)} factors, at most {most}: name those that matter")
    return list(factors)


def lean(on: Factors, needs: Mapping[str, Iterable[str]]) -> Factors:
    """ON without those that stand on something which is not there. NEEDS: factor -> what it stands on."""
    while True:
        kept = frozenset(name for name in on if all(other in on for other in needs.get(name, ())))
        if kept == on:
            return kept
        on = kept


def grounded(on: Factors, needs: Mapping[str, Iterable[str]]) -> Factors:
    """ON with all that it stands on."""
    while True:
        more = on.union(*(needs.get(name, ()) for name in on))
        if more == on:
            return on
        on = more


def leave_one_out(
    factors: Sequence[str],
    possible: Possible = anything,
    *,
    base: Factors = frozenset(),
    needs: Mapping[str, Iterable[str]] = {},
) -> Design:
    """All factors, and all but one of them for each. BASE is on everywhere.

    What needs the one that is left out is left out with it, which is told.
    """
    names = _checked(factors, MOST_SCREENED, "leave-one-out")
    whole = base | frozenset(names)
    rows, notes = [Row("none", base), Row("all", whole)], []
    for name in names:
        on = lean(whole - {name}, needs)
        rows.append(Row(f"-{name}", on, "all"))
        if gone := sorted(whole - on - {name}):
            notes.append(f"-{name} takes {', '.join(gone)} along, which cannot be without it")
    return _design("loo", names, rows, possible, notes)


def add_one_in(
    factors: Sequence[str],
    possible: Possible = anything,
    *,
    base: Factors = frozenset(),
    needs: Mapping[str, Iterable[str]] = {},
) -> Design:
    """None of the factors, and one of them for each. BASE is on everywhere.

    What the one that is put in needs is put in with it; it is then compared with the row that has just that.
    """
    names = _checked(factors, MOST_SCREENED, "add-one-in")
    sets = {name: grounded(base | {name}, needs) for name in names}
    by_set = {on: f"+{name}" for name, on in reversed(sets.items())} | {base: "none"}
    rows, notes = [Row("none", base)], []
    for name, on in sets.items():
        over = by_set.get(on - {name}, "none")
        rows.append(Row(f"+{name}", on, over))
        brought = sorted(on - base - {name})
        if brought and over == "none":
            notes.append(f"+{name} brings {', '.join(brought)}, which it cannot be without")
    return _design("aoi", names, [*rows, Row("all", base | frozenset(names))], possible, notes)


def ladder(rungs: Sequence[tuple[str, Iterable[str]]], possible: Possible = anything) -> Design:
    """Rungs as (name, factors), from the lowest: each is compared with the last one below it that can be had."""
    if len(rungs) < 2:
        raise DesignError("a ladder has at least two rungs")
    rows, below = [], ""
    for name, on in rungs:
        rows.append(Row(name, frozenset(on), below))
        if not possible(frozenset(on)):
            below = name
    factors = tuple(dict.fromkeys(factor for _, on in rungs for factor in sorted(on)))
    return _design("ladder", factors, rows, possible)


def standing(name: str, over: Mapping[str, str], there: Container[str]) -> tuple[str, tuple[str, ...]]:
    """(the row that NAME is compared with, those that are jumped for they are not THERE, from the lowest).

    OVER: row -> what it was planned to be compared with. "" when nothing below it is there.
    """
    below, jumped = over.get(name, ""), list[str]()
    while below and below not in there and below not in jumped:
        jumped.insert(0, below)
        below = over.get(below, "")
    return (below if below in there else ""), tuple(jumped)


def ground(below: str, jumped: Sequence[str]) -> str:
    """The row below and those that are jumped, as a comparison names them: what it says is of them all."""
    return f"{below} (jumping {', '.join(jumped)})" if jumped else below


# --- screening ---


def hadamard_size(factors: int) -> int:
    """The least multiple of 4 above FACTORS for which :func:`plackett_burman` has a construction."""
    size = 4 * (factors // 4 + 1)
    while not (_paley(size) or (size % 8 == 0 and _paley(size // 2))):
        size += 4
    return size


def _paley(size: int) -> bool:
    """Whether SIZE - 1 is a prime that is 3 modulo 4."""
    prime = size - 1
    return prime > 2 and prime % 4 == 3 and all(prime % divisor for divisor in range(3, math.isqrt(prime) + 1, 2))


def plackett_burman(factors: int) -> list[tuple[int, ...]]:
    """Rows of +1 and -1 for so many FACTORS: each column balanced, each two of them orthogonal.

    Paley's construction from the quadratic residues of a prime, which for 12, 20 and 24 rows gives designs equivalent
    to those that Plackett and Burman list; Sylvester's doubling where there is no such prime (16 rows).
    """
    size = hadamard_size(factors)
    if _paley(size):
        prime = size - 1
        squares = {number * number % prime for number in range(1, prime)}
        line = [1] + [1 if number in squares else -1 for number in range(1, prime)]
        matrix = [tuple(line[(column + row) % prime] for column in range(prime)) for row in range(prime)]
        matrix.append((-1,) * prime)
    else:
        half = plackett_burman(size // 2 - 1)
        matrix = [(*row, 1, *row) for row in half] + [(*row, -1, *(-value for value in row)) for row in half]
    return [row[:factors] for row in matrix]


def folded(rows: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """ROWS and their mirror images: then no effect of one factor is mixed with that of a pair."""
    return [*rows, *(tuple(-value for value in row) for row in rows)]


def screening(factors: Sequence[str], possible: Possible = anything, *, base: Factors = frozenset()) -> Design:
    """A folded Plackett-Burman design of FACTORS, which must be free of each other: :func:`parted` finds those."""
    names = _checked(factors, MOST_SCREENED, "screening")
    signs = folded(plackett_burman(len(names)))
    rows = [
        Row(f"run{number:02}", base | {name for name, sign in zip(names, row, strict=True) if sign > 0})
        for number, row in enumerate(signs, 1)
    ]
    return _design("screen", names, rows, possible, aliasing(names, signs))


def correlation(signs: Sequence[tuple[int, ...]], one: Iterable[int], other: Iterable[int]) -> float:
    """How the effect of the product of the columns ONE is mixed with that of the product of OTHER: -1 to 1."""
    columns = (*one, *other)
    return sum(math.prod(row[column] for column in columns) for row in signs) / len(signs)


def aliasing(names: Sequence[str], signs: Sequence[tuple[int, ...]]) -> list[str]:
    """What cannot be told apart by SIGNS: of single factors with pairs, and of pairs with pairs."""
    count, told = range(len(names)), []
    pairs = list(itertools.combinations(count, 2))
    mixed = [
        (abs(correlation(signs, (one,), pair)), names[one], pair) for one in count for pair in pairs if one not in pair
    ]
    worst = max(mixed, default=(0.0, "", (0, 0)))
    if worst[0] > 1e-9:
        a, b = worst[2]
        told.append(f"single effects are mixed with pairs: {worst[1]} with {names[a]} x {names[b]} by {worst[0]:.2f}")
    elif len(names) > 2:
        told.append("single effects are clear of all pairs; they are mixed with combinations of three")
    partners = {
        pair: [other for other in pairs if other != pair and abs(correlation(signs, pair, other)) > 1e-9]
        for pair in pairs
    }
    mixed_pairs = [pair for pair in pairs if partners[pair]]
    if mixed_pairs:
        most = max(mixed_pairs, key=lambda pair: len(partners[pair]))
        told.append(
            f"pairs are mixed with each other: {len(mixed_pairs)} of {len(pairs)}, at most {names[most[0]]} x"
            f" {names[most[1]]} with {len(partners[most])} others; which of them acts, only the full factorial of the"
            " survivors tells"
        )
    return told


def parted(factors: Sequence[str], needs: Mapping[str, Iterable[str]]) -> tuple[list[str], list[str]]:
    """(factors that can each be left out whatever else is on, factors that others need): NEEDS says who needs whom.

    A screening toggles the first and keeps the second on: a row with a factor whose ground is gone cannot be.
    """
    needed = {other for name in factors for other in needs.get(name, ())}
    return [name for name in factors if name not in needed], [name for name in factors if name in needed]


# --- what the results say ---


def contrast(design: Design, values: Mapping[str, float], factor: str) -> float:
    """The mean of VALUES (row -> value) of rows with FACTOR, less that of those without. Raises KeyError for a hole."""
    sides: tuple[list[float], list[float]] = ([], [])
    for row in design.rows:
        sides[factor in row.on].append(values[row.name])
    return sum(sides[True]) / len(sides[True]) - sum(sides[False]) / len(sides[False])


def label(on: Iterable[str]) -> str:
    """A combination as one word: "nat+overlay"; of none "none"."""
    return "+".join(sorted(on)) or "none"


def factorial(factors: Sequence[str], possible: Possible = anything, *, base: Factors = frozenset()) -> Design:
    """Every combination of FACTORS."""
    names = _checked(factors, MOST_FACTORIAL, "full factorial")
    rows = [
        Row(label(on), base | frozenset(on))
        for size in range(len(names) + 1)
        for on in itertools.combinations(names, size)
    ]
    return _design("factorial", names, rows, possible)


def dividends(value: Mapping[Factors, float], factors: Sequence[str]) -> dict[Factors, float]:
    """What each combination adds beyond all smaller ones in it (Harsanyi's dividends, the interaction terms).

    VALUE holds every combination of FACTORS; the dividends of all non-empty ones sum to value(all) - value(none).
    """
    found: dict[Factors, float] = {}
    for size in range(len(factors) + 1):
        for on in map(frozenset, itertools.combinations(factors, size)):
            found[on] = value[on] - sum(amount for other, amount in found.items() if other < on)
    del found[frozenset()]
    return found


def shapley(value: Mapping[Factors, float], factors: Sequence[str]) -> dict[str, float]:
    """What each factor adds, on the average over all orders in which they could be put in; they sum to the whole."""
    terms = dividends(value, factors)
    return {name: sum(amount / len(on) for on, amount in terms.items() if name in on) for name in factors}
