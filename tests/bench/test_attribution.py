"""Closure: with a known truth it closes, and with something hidden it says how much."""

from __future__ import annotations

import random

import pytest

from bench import attribution as at
from bench.attribution import Part

SECCOMP, OVERLAY = Part("seccomp", "seccomp", "root"), Part("overlay", "overlay", "root")
WHOLE = Part("docker", "docker", "root")
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
    found = at.closure(COUNTS, costs(rng), [SECCOMP, OVERLAY], losses(rng), together=WHOLE)
    assert found.verdict == "closed"
    assert found.line("seccomp").seconds.estimate == pytest.approx(0.21, abs=0.01)
    assert found.line("overlay").seconds.estimate == pytest.approx(0.15, abs=0.01)
    assert found.line(at.SUM).seconds.estimate == pytest.approx(LOSS, abs=0.02)
    assert found.line(at.TOGETHER).seconds.estimate == pytest.approx(LOSS, abs=0.02)
    assert 0.0 in found.line(at.INTERACTION).seconds
    assert 0.0 in found.line(at.UNEXPLAINED).seconds
    assert found.line("seccomp").by_operation[0][0] == "getppid"


def test_what_is_hidden_is_unexplained_by_its_size() -> None:
    rng = random.Random(2)
    found = at.closure(COUNTS, costs(rng), [SECCOMP, OVERLAY], losses(rng, hidden=0.3))
    assert found.verdict == "open"
    assert found.line(at.UNEXPLAINED).seconds.estimate == pytest.approx(0.3, abs=0.03)
    assert "+0.3" in found.why or "+0.2" in found.why
    assert at.TOGETHER not in [line.name for line in found.lines]


def test_the_rows_of_the_table_add_up() -> None:
    rng = random.Random(3)
    found = at.closure(COUNTS, costs(rng), [SECCOMP, OVERLAY], losses(rng), together=WHOLE)
    value = {line.name: line.seconds.estimate for line in found.lines}
    assert value["seccomp"] + value["overlay"] == pytest.approx(value[at.SUM])
    assert value[at.SUM] + value[at.INTERACTION] == pytest.approx(value[at.TOGETHER])
    assert value[at.SUM] + value[at.UNEXPLAINED] == pytest.approx(value[at.MEASURED])


def test_an_error_that_a_whole_block_shares_does_not_widen() -> None:
    """30 ns shared over 4 million calls would be 0.12 s; the interval must know that it cancels."""
    found = at.closure(COUNTS, costs(random.Random(4)), [SECCOMP], losses(random.Random(4)))
    width = found.line("seccomp").seconds.high - found.line("seccomp").seconds.low
    assert 0 < width < 0.04


def test_a_hidden_base_error_is_in_all_who_stand_on_it() -> None:
    """The two parts share the base's noise: the sum is wider than if each were measured alone, in squares."""
    noisy = costs(random.Random(5), noise=0.0)
    rng = random.Random(6)
    for op in noisy["root"]:
        noisy["root"][op] = {block: value + rng.gauss(0, 20) for block, value in noisy["root"][op].items()}
    found = at.closure(COUNTS, noisy, [SECCOMP, OVERLAY], losses(random.Random(5)))
    one, other, both = (found.line(name).seconds for name in ("seccomp", "overlay", at.SUM))
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
    assert "not measured in the micro tier: nat" in told and "context_switches 30,000" in told


def test_blocks_without_the_base_are_left_out() -> None:
    holes = {"root": {"getppid": {0: 1.0, 1: 1.0}}, "seccomp": {"getppid": {1: 5.0, 2: 100.0}}}
    assert at.added(holes, SECCOMP, "getppid", [0, 1, 2]) == 4.0
    assert at.added(holes, SECCOMP, "getppid", [0, 2]) is None


def test_the_same_values_give_the_same_table() -> None:
    rng = random.Random(10)
    values, loss = costs(rng), losses(rng)
    assert at.closure(COUNTS, values, [SECCOMP], loss, seed=3) == at.closure(COUNTS, values, [SECCOMP], loss, seed=3)


def test_nothing_to_explain_is_an_error() -> None:
    rng = random.Random(11)
    with pytest.raises(ValueError, match="without a measured loss"):
        at.closure(COUNTS, costs(rng), [SECCOMP], [])
    with pytest.raises(ValueError, match="none of nat"):
        at.closure(COUNTS, costs(rng), [Part("nat", "nat", "veth")], losses(rng))


def test_the_table_has_unexplained_as_a_row_of_its_own() -> None:
    rng = random.Random(12)
    lines = at.table(at.closure(COUNTS, costs(rng), [SECCOMP, OVERLAY], losses(rng), together=WHOLE))
    heads = [line.split("  ")[0] for line in lines]
    for name in ("seccomp", "overlay", at.SUM, at.TOGETHER, at.INTERACTION, at.MEASURED, at.UNEXPLAINED):
        assert name in heads
    assert heads.index(at.UNEXPLAINED) == heads.index(at.MEASURED) + 1
    assert lines[-1].startswith("verdict: closed")
