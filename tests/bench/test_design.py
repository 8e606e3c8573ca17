"""Designs: their algebra by hand, and known effects that must come out again."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from bench import design

ABC = ("a", "b", "c")


def on(*names: str) -> frozenset[str]:
    return frozenset(names)


def test_leave_one_out_has_all_of_them_and_each_less_one() -> None:
    found = design.leave_one_out(ABC, base=on("root"))
    assert [row.name for row in found.rows] == ["none", "all", "-a", "-b", "-c"]
    assert found.row("-b").on == on("root", "a", "c")
    assert found.row("-b").over == "all" and found.row("all").over == ""
    assert not found.refused


def test_add_one_in_has_none_and_each_alone() -> None:
    found = design.add_one_in(ABC)
    assert {row.name: set(row.on) for row in found.rows} == {
        "none": set(),
        "+a": {"a"},
        "+b": {"b"},
        "+c": {"c"},
        "all": {"a", "b", "c"},
    }
    assert found.row("+a").over == "none"


NEEDS = {"b": ["a"], "c": ["b"]}


def test_leaving_one_out_takes_along_what_stands_on_it() -> None:
    found = design.leave_one_out(ABC, needs=NEEDS)
    assert {row.name: set(row.on) for row in found.rows} == {
        "none": set(),
        "all": {*ABC},
        "-b": {"a"},
        "-c": {"a", "b"},
    }
    assert found.notes[0] == "-a takes b, c along, which cannot be without it"
    assert found.refused == (("-a", "is the same as none"),)


def test_adding_one_brings_its_ground_and_is_held_against_that() -> None:
    found = design.add_one_in(ABC, needs=NEEDS)
    assert {row.name: (set(row.on), row.over) for row in found.rows} == {
        "none": (set(), ""),
        "+a": ({"a"}, "none"),
        "+b": ({"a", "b"}, "+a"),
        "+c": ({*ABC}, "+b"),
    }
    assert not found.notes
    found = design.add_one_in(["a", "c"], needs=NEEDS)
    assert found.notes == ("+c brings a, b, which it cannot be without",)


def test_what_cannot_be_is_told_with_its_reason() -> None:
    def possible(what: frozenset[str]) -> str:
        return "b needs a" if "b" in what and "a" not in what else ""

    found = design.add_one_in(ABC, possible)
    assert found.refused == (("+b", "b needs a"),)
    assert "+b" not in [row.name for row in found.rows]


def test_two_rows_that_are_the_same_are_one_and_told() -> None:
    found = design.leave_one_out(["a"])
    assert [row.name for row in found.rows] == ["none", "all"]
    assert found.refused == (("-a", "is the same as none"),)


def test_a_rung_stands_on_the_last_one_that_can_be_had() -> None:
    rungs = [("lowest", ()), ("broken", ("x",)), ("next", ("a",)), ("top", ("a", "b"))]
    found = design.ladder(rungs, lambda what: "no x here" if "x" in what else "")
    assert [(row.name, row.over) for row in found.rows] == [("lowest", ""), ("next", "lowest"), ("top", "next")]
    assert found.refused == (("broken", "no x here"),)


@pytest.mark.parametrize("wrong", [[], ["a", "a"], [str(number) for number in range(100)]])
def test_no_factors_or_too_many_are_no_design(wrong: list[str]) -> None:
    with pytest.raises(design.DesignError):
        design.leave_one_out(wrong)
    with pytest.raises(design.DesignError):
        design.factorial(wrong)


def test_a_ladder_of_one_rung_is_none() -> None:
    with pytest.raises(design.DesignError, match="two rungs"):
        design.ladder([("only", ())])


@pytest.mark.parametrize("factors", [1, 2, 3, 5, 7, 11, 13, 15, 19, 23, 30, 35, 59])
def test_plackett_burman_columns_are_balanced_and_orthogonal(factors: int) -> None:
    rows = design.plackett_burman(factors)
    assert len(rows) % 4 == 0 and len(rows) > factors
    for column in range(factors):
        assert sum(row[column] for row in rows) == 0
    for one, other in itertools.combinations(range(factors), 2):
        assert sum(row[one] * row[other] for row in rows) == 0


def test_sizes_are_the_classic_ones() -> None:
    sizes = {factors: len(design.plackett_burman(factors)) for factors in (3, 7, 11, 15, 19, 23)}
    assert sizes == {3: 4, 7: 8, 11: 12, 15: 16, 19: 20, 23: 24}


def test_folding_clears_single_effects_of_pairs() -> None:
    plain = design.plackett_burman(11)
    pairs = list(itertools.combinations(range(11), 2))
    mixed = [abs(design.correlation(plain, (one,), pair)) for one in range(11) for pair in pairs if one not in pair]
    assert max(mixed) == pytest.approx(1 / 3)  # the known partial aliasing of the 12-run design
    both = design.folded(plain)
    assert len(both) == 24
    assert all(design.correlation(both, (one,), pair) == 0 for one in range(11) for pair in pairs)


def test_aliasing_is_told_in_words() -> None:
    names = [f"f{number}" for number in range(7)]
    plain = design.plackett_burman(7)
    assert "single effects are mixed with pairs" in design.aliasing(names, plain)[0]
    told = design.screening(names).notes
    assert told[0].startswith("single effects are clear of all pairs")
    assert told[1].startswith("pairs are mixed with each other: 21 of 21, at most f0 x f1 with 2 others")
    half = [(a, b, c, d, a * b * c * d) for a in (1, -1) for b in (1, -1) for c in (1, -1) for d in (1, -1)]
    assert len(design.aliasing(names[:5], half)) == 1, "five factors in sixteen runs: all pairs by themselves"
    late = [(a, b, c, d, b * c * d) for a in (1, -1) for b in (1, -1) for c in (1, -1) for d in (1, -1)]
    told = design.aliasing(names[:5], late)
    assert "6 of 10, at most f1 x f2 with 1 others" in told[1], "also where the first pair is by itself"


def test_what_is_compared_is_the_next_below_that_is_there() -> None:
    over = {"a": "", "b": "a", "c": "b", "d": "c"}
    assert design.standing("d", over, {"a", "b", "c"}) == ("c", ())
    assert design.standing("d", over, {"a"}) == ("a", ("b", "c"))
    assert design.standing("d", over, set()) == ("", ("a", "b", "c"))
    assert design.standing("a", {"a": "b", "b": "a"}, set())[0] == "", "a circle in what was told has an end"
    assert design.ground("a", ("b", "c")) == "a (jumping b, c)" and design.ground("a", ()) == "a"


def responses(rows: design.Design, truth: dict[tuple[str, ...], float], noise: float, rng: random.Random) -> dict:
    def value(what: frozenset[str]) -> float:
        return 10 + sum(amount for term, amount in truth.items() if set(term) <= what) + rng.gauss(0, noise)

    return {row.name: value(row.on) for row in rows.rows}


def test_screening_finds_the_factors_that_act_and_no_other() -> None:
    names = [f"f{number}" for number in range(11)]
    rows = design.screening(names, base=on("root"))
    assert len(rows.rows) == 24 and all("root" in row.on for row in rows.rows)
    block = responses(rows, {("f3",): 2.0, ("f7",): -1.0}, 0.05, random.Random(4))
    found = {name: design.contrast(rows, block, name) for name in names}
    assert found.pop("f3") == pytest.approx(2.0, abs=0.1)
    assert found.pop("f7") == pytest.approx(-1.0, abs=0.1)
    assert all(abs(value) < 0.1 for value in found.values())


def test_a_pair_does_not_touch_single_effects_of_the_folded_design() -> None:
    names = [f"f{number}" for number in range(5)]
    rows = design.screening(names)
    block = responses(rows, {("f0",): 1.0}, 0.0, random.Random(0))
    signs = {row.name: [1 if name in row.on else -1 for name in names] for row in rows.rows}
    with_pair = {name: value + 3 * signs[name][1] * signs[name][2] for name, value in block.items()}
    found = {name: design.contrast(rows, with_pair, name) for name in names}
    assert found["f0"] == pytest.approx(1.0) and found["f1"] == pytest.approx(0.0) and found["f2"] == pytest.approx(0.0)


def test_shapley_by_hand() -> None:
    # the glove game: a has a left glove, b and c a right one each; only a pair is worth anything
    value = {
        frozenset(what): float("a" in what and len(what) > 1)
        for size in range(4)
        for what in itertools.combinations(ABC, size)
    }
    found = design.shapley(value, ABC)
    assert found["a"] == pytest.approx(2 / 3)
    assert found["b"] == pytest.approx(1 / 6) and found["c"] == pytest.approx(1 / 6)
    terms = design.dividends(value, ABC)
    assert terms[on("a", "b")] == 1 and terms[on("a", "b", "c")] == -1 and terms[on("b", "c")] == 0


def test_shapley_is_the_average_over_all_orders_and_sums_to_the_whole() -> None:
    rng = random.Random(8)
    names = ("a", "b", "c", "d")
    value = {frozenset(what): rng.random() for size in range(5) for what in itertools.combinations(names, size)}
    slow = dict.fromkeys(names, 0.0)
    for order in itertools.permutations(names):
        for place, name in enumerate(order):
            before = frozenset(order[:place])
            slow[name] += (value[before | {name}] - value[before]) / math.factorial(4)
    found = design.shapley(value, names)
    assert found == pytest.approx(slow)
    assert sum(found.values()) == pytest.approx(value[frozenset(names)] - value[frozenset()])


def test_what_others_need_is_not_screened() -> None:
    free, ground = design.parted(["net", "loopback", "seccomp"], {"loopback": ["net"], "veth": ["net"]})
    assert (free, ground) == (["loopback", "seccomp"], ["net"])
