"""Closure: with a known truth it closes, and with something hidden it says how much."""

from __future__ import annotations

import random

import pytest

from bench import attribution as at
from bench.attribution import Part
from bench.paired import Effect
from bench.stats import Interval

SECCOMP, OVERLAY = Part("seccomp", "seccomp", "root"), Part("overlay", "overlay", "root")
WHOLE = Part("docker", "docker", "root")
TOGETHER, INTERACTION = at.together("docker"), at.interaction("docker")
COUNTS = {"getppid": 4e6, "open_close": 1e5}
TRUTH = {  # ns that each adds to an operation
    "root": {"getppid": 0.0, "open_close": 0.0},
    "seccomp": {"getppid": 50.0, "open_close": 100.0},
    "overlay": {"getppid": 0.0, "open_close": 1500.0},
    "docker": {"getppid": 50.0, "open_close": 1600.0},
}
BASE = {"getppid": 100.0, "open_close": 1000.0}
LOSS = 4e6 * 50e-9 + 1e5 * 1600e-9  # 0.2 + 0.16


def costs(rng: random.Random, blocks: int = 12, noise: float = 2.0) -> dict:
    """Micro costs with a shared error of each block and a small one of each arm."""
    shared = [rng.gauss(0, 30) for _ in range(blocks)]
    return {
        arm: {
            op: {block: BASE[op] + more + shared[block] + rng.gauss(0, noise) for block in range(blocks)}
            for op, more in added.items()
        }
        for arm, added in TRUTH.items()
    }


def losses(rng: random.Random, hidden: float = 0.0, noise: float = 0.004) -> list[float]:
    return [LOSS + hidden + rng.gauss(0, noise) for _ in range(12)]


def test_a_known_truth_closes() -> None:
    rng = random.Random(1)
    found = at.closure(COUNTS, costs(rng), [SECCOMP, OVERLAY], losses(rng), wholes=[WHOLE])
    assert found.verdict == "closed"
    assert found.seconds("seccomp").estimate == pytest.approx(0.21, abs=0.01)
    assert found.seconds("overlay").estimate == pytest.approx(0.15, abs=0.01)
    assert found.seconds(at.SUM).estimate == pytest.approx(LOSS, abs=0.02)
    assert found.seconds(TOGETHER).estimate == pytest.approx(LOSS, abs=0.02)
    assert 0.0 in found.seconds(INTERACTION)
    assert 0.0 in found.seconds(at.UNEXPLAINED)
    assert {found.line(name).verdict for name in ("seccomp", "overlay", at.SUM, TOGETHER)} == {at.FOUND}
    assert found.line(INTERACTION).verdict == at.UNRESOLVED
    assert found.line("seccomp").by_operation[0][0] == "getppid"


def test_what_is_hidden_is_unexplained_by_its_size() -> None:
    rng = random.Random(2)
    found = at.closure(COUNTS, costs(rng), [SECCOMP, OVERLAY], losses(rng, hidden=0.3))
    assert found.verdict == "open"
    assert found.seconds(at.UNEXPLAINED).estimate == pytest.approx(0.3, abs=0.03)
    assert "+0.3" in found.why or "+0.2" in found.why
    assert TOGETHER not in [line.name for line in found.lines]


def test_the_rows_of_the_table_add_up() -> None:
    rng = random.Random(3)
    found = at.closure(COUNTS, costs(rng), [SECCOMP, OVERLAY], losses(rng), wholes=[WHOLE])
    value = {line.name: found.seconds(line.name).estimate for line in found.lines}
    assert value["seccomp"] + value["overlay"] == pytest.approx(value[at.SUM])
    assert value[at.SUM] + value[INTERACTION] == pytest.approx(value[TOGETHER])
    assert value[at.SUM] + value[at.UNEXPLAINED] == pytest.approx(value[at.MEASURED])


def test_an_error_that_a_whole_block_shares_does_not_widen() -> None:
    """30 ns shared over 4 million calls would be 0.12 s; the interval must know that it cancels."""
    found = at.closure(COUNTS, costs(random.Random(4)), [SECCOMP], losses(random.Random(4)))
    width = found.seconds("seccomp").high - found.seconds("seccomp").low
    assert 0 < width < 0.04


def test_a_hidden_base_error_is_in_all_who_stand_on_it() -> None:
    """The two parts share the base's noise: the sum is wider than if each were measured alone, in squares."""
    noisy = costs(random.Random(5), noise=0.0)
    rng = random.Random(6)
    for op in noisy["root"]:
        noisy["root"][op] = {block: value + rng.gauss(0, 20) for block, value in noisy["root"][op].items()}
    found = at.closure(COUNTS, noisy, [SECCOMP, OVERLAY], losses(random.Random(5)))
    one, other, both = (found.seconds(name) for name in ("seccomp", "overlay", at.SUM))
    squares = ((one.high - one.low) ** 2 + (other.high - other.low) ** 2) ** 0.5
    assert both.high - both.low > 1.2 * squares


def test_a_loss_that_may_be_zero_is_unresolved() -> None:
    rng = random.Random(7)
    found = at.closure(COUNTS, costs(rng), [SECCOMP], [rng.gauss(0, 0.5) for _ in range(12)])
    assert found.verdict == "unresolved" and "may be zero" in found.why


def test_a_sum_that_could_be_anything_closes_nothing() -> None:
    rng = random.Random(13)
    found = at.closure(COUNTS, costs(rng, noise=300.0), [SECCOMP, OVERLAY], losses(rng))
    assert found.verdict == "unresolved" and "is known to" in found.why


def test_too_few_blocks_are_unresolved() -> None:
    rng = random.Random(8)
    found = at.closure(COUNTS, costs(rng, blocks=2), [SECCOMP], losses(rng))
    assert found.verdict == "unresolved" and "2 blocks" in found.why


def test_what_nobody_measured_is_told() -> None:
    rng = random.Random(9)
    net = Part("nat", "nat", "veth")
    found = at.closure({**COUNTS, "context_switches": 3e4, "never": 0}, costs(rng), [SECCOMP, net], losses(rng))
    assert found.missing == ("nat",)
    assert found.uncosted == (("context_switches", 3e4),)
    told = "\n".join(at.table(found))
    assert "never measured in the micro tier: nat" in told and "context_switches 30,000" in told


def test_blocks_without_the_base_or_an_operation_are_left_out() -> None:
    holes = {
        "root": {"getppid": {0: 1.0, 1: 1.0, 3: 1.0}, "open_close": {1: 2.0, 3: 2.0}},
        "seccomp": {"getppid": {1: 5.0, 2: 100.0, 3: 5.0}, "open_close": {1: 2.0}},
    }
    found = at.predicted(holes, SECCOMP, {"getppid": 1e9, "open_close": 1e9, "never": 1.0})
    assert found == {1: {"getppid": 4.0, "open_close": 0.0}}, "a sum of fewer operations is another sum"
    assert at.predicted({"root": holes["root"]}, SECCOMP, {"getppid": 1.0}) == {}


def test_the_same_values_give_the_same_table() -> None:
    rng = random.Random(10)
    values, loss = costs(rng), losses(rng)
    assert at.closure(COUNTS, values, [SECCOMP], loss) == at.closure(COUNTS, values, [SECCOMP], loss)


def test_the_interval_of_a_row_is_that_of_all_the_bench() -> None:
    rng = random.Random(14)
    values = costs(rng)
    found = at.closure({"getppid": 1e9}, values, [SECCOMP], losses(rng))
    both = zip(values["seccomp"]["getppid"].values(), values["root"]["getppid"].values())
    wanted = Effect(tuple(mine - base for mine, base in both)).interval()
    row = found.seconds("seccomp")
    assert (row.estimate, row.low, row.high) == pytest.approx((wanted.estimate, wanted.low, wanted.high))


def test_a_row_that_only_chance_made_is_not_found_among_many() -> None:
    """Twenty features that cost nothing: each alone is outside its interval one time of twenty."""
    alone = together = 0
    for seed in range(12):
        rng = random.Random(seed)
        made = {
            name: {"getppid": {block: 100 + rng.gauss(0, 5) for block in range(8)}}
            for name in ("root", *map(str, range(20)))
        }
        parts = [Part(str(number), str(number), "root") for number in range(20)]
        lines = at.closure({"getppid": 1e6}, made, parts, losses(rng)).lines[:20]
        alone += any(line.seconds is not None and 0.0 not in line.seconds for line in lines)
        together += any(line.verdict == at.FOUND for line in lines)
    assert alone >= 3 and together <= 2


def test_no_cost_is_said_by_the_equivalence_test_only() -> None:
    rng = random.Random(15)
    values = costs(rng, noise=1.0)
    free = Part("free", "seccomp", "seccomp-again")
    values["seccomp-again"] = {
        name: {block: value + rng.gauss(0, 1.0) for block, value in by_block.items()}
        for name, by_block in values["seccomp"].items()
    }
    near = at.closure(COUNTS, values, [free, SECCOMP], losses(rng), bare=10.0)  # a margin of 50 ms
    assert near.line("free").verdict == at.NO_COST and near.line("seccomp").verdict == at.FOUND
    far = at.closure(COUNTS, values, [free, SECCOMP], losses(rng), bare=0.01)  # of 50 us
    assert far.line("free").verdict == at.UNRESOLVED, "a wide interval that holds zero is not no cost"


def test_a_gate_that_is_shut_leaves_nothing_found() -> None:
    rng = random.Random(16)
    made, lost = costs(rng), losses(rng)
    found = at.closure(COUNTS, made, [SECCOMP, OVERLAY], lost, gates=["the machine was busy"])
    assert (found.verdict, found.why) == ("unresolved", "the machine was busy")
    assert {line.verdict for line in found.lines} == {at.UNRESOLVED}
    twins = Part("bare-again", "root-again", "root")
    made["root-again"] = {
        name: {block: value + 9.0 + rng.gauss(0, 1) for block, value in values.items()}
        for name, values in made["root"].items()
    }
    found = at.closure(COUNTS, made, [SECCOMP], lost, twins=twins)
    assert found.verdict == "unresolved" and "two identical arms differ" in found.why
    del made["root-again"]
    assert "no A/A check" in at.closure(COUNTS, made, [SECCOMP], lost, twins=twins).why


def test_wholes_are_told_by_name_measured_or_not() -> None:
    rng = random.Random(17)
    rebuilt = Part("minictr-docker", "minictr-docker", "root")
    found = at.closure(COUNTS, costs(rng), [SECCOMP, OVERLAY], losses(rng), wholes=[WHOLE, rebuilt])
    names = [line.name for line in found.lines]
    assert names[2:7] == [
        at.SUM,
        "all at once (docker)",
        "interaction (docker)",
        "all at once (minictr-docker)",
        "interaction (minictr-docker)",
    ]
    assert found.line(names[5]).seconds is None and found.missing == ("all at once (minictr-docker)",)
    told = "\n".join(at.table(found))
    assert "not measured in two blocks" in told
    assert "never measured in the micro tier: all at once (minictr-docker)" in told


def test_two_means_that_are_not_paired_by_hand() -> None:
    """Welch by hand: means 3 and 1, variances 1 and 1 over 3 each: error 0.8165, 4 degrees of freedom, t 2.776."""
    found = at.apart([2.0, 3.0, 4.0], [0.0, 1.0, 2.0])
    assert found.estimate == 2.0
    assert found.low <= 2.0 - 2.2667 and found.high >= 2.0 + 2.2667
    assert at.apart([2.0, 2.0], [1.0, 1.0]) == Interval(1.0, 1.0, 1.0)


def test_nothing_to_explain_is_an_error() -> None:
    rng = random.Random(11)
    with pytest.raises(ValueError, match="without a measured loss"):
        at.closure(COUNTS, costs(rng), [SECCOMP], [])
    with pytest.raises(ValueError, match="none of nat"):
        at.closure(COUNTS, costs(rng), [Part("nat", "nat", "veth")], losses(rng))


def test_the_table_has_unexplained_as_a_row_of_its_own() -> None:
    rng = random.Random(18)
    lines = at.table(at.closure(COUNTS, costs(rng), [SECCOMP, OVERLAY], losses(rng), wholes=[WHOLE]))
    heads = [line.split("  ")[0] for line in lines]
    for name in ("seccomp", "overlay", at.SUM, TOGETHER, INTERACTION, at.MEASURED, at.UNEXPLAINED):
        assert name in heads
    assert heads.index(at.UNEXPLAINED) == heads.index(at.MEASURED) + 1
    assert lines[-2].startswith("verdict: closed") and lines[-1] == "never measured in the micro tier: nothing"
