"""What an ablation says of features with known costs: shares, steps, contrasts, Shapley values, the 2x2."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
from known import Made

from bench import analysis, design, results, steps
from bench.ablate import effects
from bench.ablate.effects import Told
from bench.analysis import FASTER, NO_COST, SLOWER, UNRESOLVED
from bench.samples import Arm

TWINS = {"bare": 1.0, "bare-again": 1.0}


def load(made: Made, tmp_path: Path) -> results.Results:
    return results.load([made.write(tmp_path / "results.jsonl")])


COSTS = {"seccomp": 0.02, "overlay": 0.03, "nat": 0.06, "pids": 0.01}


def ablation(*left: str, both: float = 0.02) -> Made:
    """None, all, each alone and each left out; overlay and nat together cost BOTH more. LEFT arms are not measured."""
    made, truths = Made(seed=8), {"bare": 1.0, "bare-again": 1.0}
    whole = frozenset(COSTS)
    sets = {"none": frozenset(), "all": whole}
    sets |= {f"+{name}": frozenset({name}) for name in COSTS} | {f"-{name}": whole - {name} for name in COSTS}
    for name, on in sets.items():
        if name not in left:
            known = ("compared with all",) if name.startswith("-") else ()
            known = ("compared with none",) if name.startswith("+") else known
            made.arm("ablate/x/small", name, "minictr", features=tuple(sorted(on)), known=known)
            truths[name] = math.exp(sum(COSTS[one] for one in on) + (both if {"overlay", "nat"} <= on else 0.0))
    return made.blocks("ablate/x/small", truths, scatter=0.001).end()


def told(made: Made, tmp_path: Path) -> Told:
    found = load(made, tmp_path)
    return effects.told(analysis.experiments(found, "one")[0], found.arms("one"))


def shared(made: Made, tmp_path: Path) -> steps.Shares:
    shares = told(made, tmp_path).shares
    assert shares is not None
    return shares


def test_shares_are_the_middle_of_alone_and_last(tmp_path: Path) -> None:
    found = shared(ablation(), tmp_path)
    logs = {each.arm: math.log(each.ratio.estimate) for each in found.features if each.ratio}
    # half of what only the two together cost is each one's: the Shapley value of a pair
    assert logs == pytest.approx({"nat": 0.07, "overlay": 0.04, "seccomp": 0.02, "pids": 0.01, "none": 0.0}, abs=0.0015)
    assert list(logs) == ["nat", "overlay", "seccomp", "pids", "none"]
    assert found.whole.ratio is not None and math.log(found.whole.ratio.estimate) == pytest.approx(0.14, abs=0.0015)
    assert found.interaction is not None and found.interaction.verdict == NO_COST
    alone = {each.arm: math.log(each.ratio.estimate) for each in found.alone if each.ratio}
    assert alone == pytest.approx(COSTS, abs=0.0015)


def test_what_is_not_shared_out_is_interaction(tmp_path: Path) -> None:
    found = shared(ablation("-nat", "-overlay", "-seccomp", "-pids", both=0.05), tmp_path)
    assert {each.arm: each.base for each in found.features} == {
        "nat": "put in alone",
        "overlay": "put in alone",
        "seccomp": "put in alone",
        "pids": "put in alone",
        "none": "over bare",
    }
    assert found.interaction is not None and found.interaction.ratio is not None
    assert math.log(found.interaction.ratio.estimate) == pytest.approx(0.05, abs=0.0015)
    total = sum(math.log(each.ratio.estimate) for each in (*found.features, found.interaction) if each.ratio)
    assert found.whole.ratio is not None and total == pytest.approx(math.log(found.whole.ratio.estimate), abs=1e-9)


def test_a_feature_nobody_measured_is_in_what_is_left(tmp_path: Path) -> None:
    found = shared(ablation("-nat", "+nat"), tmp_path)
    assert "nat" not in {each.arm for each in found.features}
    assert found.interaction is not None and found.interaction.ratio is not None
    # nat's own 0.06, and half of what it costs together with overlay
    assert math.log(found.interaction.ratio.estimate) == pytest.approx(0.07, abs=0.0015)


def test_a_full_factorial_has_shapley_values_and_terms(tmp_path: Path) -> None:
    made, truths = Made(seed=6), {"bare": 1.0, "bare-again": 1.0}
    costs = {"nat": 0.06, "overlay": 0.03, "pids": 0.01}
    for size in range(4):
        for on in itertools.combinations(costs, size):
            name = "+".join(on) or "none"
            made.arm("ablate/x/small/factorial", name, "minictr", features=("mnt", *on))
            truths[name] = math.exp(sum(costs[one] for one in on) + (0.02 if {"nat", "overlay"} <= set(on) else 0.0))
    found = shared(made.blocks("ablate/x/small/factorial", truths, scatter=0.0005).end(), tmp_path)
    logs = {each.arm: math.log(each.ratio.estimate) for each in found.features if each.ratio}
    assert logs == pytest.approx({"nat": 0.07, "overlay": 0.04, "pids": 0.01, "none": 0.0}, abs=0.0015)
    assert found.interaction is None and found.whole.ratio is not None
    assert sum(logs.values()) == pytest.approx(math.log(found.whole.ratio.estimate), abs=1e-9)
    terms = {each.arm: each.verdict for each in found.terms}
    assert terms.pop("nat x overlay") == SLOWER
    assert set(terms.values()) == {NO_COST}


def test_the_cross_of_two_features_tells_each_and_both(tmp_path: Path) -> None:
    truths = {**TWINS, "docker-host-volume": 1.0, "docker-volume": math.exp(0.05), "docker-host": math.exp(0.02)}
    truths["docker"] = math.exp(0.1)
    found = told(Made(seed=2).blocks("ablate/serve/small/nginx", truths, scatter=0.001).end(), tmp_path)
    (docker,) = found.effects
    assert docker.title.startswith("Docker: network path")
    logs = {each.arm: math.log(each.ratio.estimate) for each in docker.ones if each.ratio}
    wanted = {"network": 0.065, "overlay": 0.035, "network x overlay": 0.03, "both": 0.1}
    assert logs == pytest.approx(wanted, abs=0.0015)
    assert {each.verdict for each in docker.ones} == {SLOWER}
    assert found.notes == ("minictr rebuilt as Docker: network path x overlay was not measured in any whole block",)


def test_an_effect_is_shut_by_every_arm_that_it_is_made_of(tmp_path: Path) -> None:
    """Also by one that is not in its name: "network over docker-host-volume" has docker-host in it."""
    truths = {**TWINS, "docker-host-volume": 1.0, "docker-volume": 1.05, "docker-host": 1.02, "docker": 1.1}
    made = Made(seed=2).blocks("ablate/serve/small/nginx", truths, scatter=0.001, noisy=4, only="docker-host").end()
    found = told(made, tmp_path)
    (cross,) = found.effects
    verdicts = {each.arm: each.verdict for each in cross.ones}
    assert verdicts == {"network": UNRESOLVED, "overlay": UNRESOLVED, "network x overlay": UNRESOLVED, "both": SLOWER}
    steps = {each.arm: each.verdict for each in found.steps}
    assert (steps["docker-volume"], steps["docker-host"], steps["docker"]) == (SLOWER, UNRESOLVED, SLOWER)


def test_only_named_steps_are_a_chain() -> None:
    sets = {"+root": {"mnt"}, "none+bind": {"mnt", "uts"}, "chroot": set(), "+overlay": {"mnt", "uts", "overlay"}}
    sets |= {"docker": set(), "+nat": {"mnt", "uts", "overlay", "nat"}}
    assert steps.chain({name: frozenset(on) for name, on in sets.items()}) == ["chroot", "+root", "+overlay", "+nat"]


def test_a_chain_falls_from_bare_to_the_whole(tmp_path: Path) -> None:
    made, truths, on = Made(seed=4), {"bare": 1.0, "bare-again": 1.0, "chroot": 1.0}, frozenset[str]()
    made.arm("ablate/x/small/ladder:rebuild", "chroot", "minictr")
    for name, cost in COSTS.items():
        on |= {name, f"{name} part"}
        made.arm("ablate/x/small/ladder:rebuild", f"+{name}", "minictr", features=tuple(on))
        truths[f"+{name}"] = list(truths.values())[-1] * math.exp(cost)
    found = load(made.blocks("ablate/x/small/ladder:rebuild", truths, scatter=0.001).end(), tmp_path)
    (experiment,) = analysis.experiments(found, "one")
    rebuilt = effects.told(experiment, found.arms("one")).shares
    assert rebuilt is not None
    assert [each.arm for each in rebuilt.features] == ["chroot", "+seccomp", "+overlay", "+nat", "+pids"]
    logs = [math.log(each.ratio.estimate) for each in rebuilt.features if each.ratio]
    assert logs == pytest.approx([0.0, 0.02, 0.03, 0.06, 0.01], abs=0.0015)
    assert rebuilt.whole.ratio is not None
    assert sum(logs) == pytest.approx(math.log(rebuilt.whole.ratio.estimate), abs=1e-9)


def test_a_feature_that_needs_another_is_held_against_that(tmp_path: Path) -> None:
    made, features = Made(seed=4), {"none": (), "+mnt": ("mnt",), "+overlay": ("mnt", "overlay")}
    features["all"] = ("mnt", "overlay", "pid", "uts")
    for name, on in features.items():
        made.arm("ablate/x/small", name, "minictr", features=on)
    truths = {"bare": 1.0, "bare-again": 1.0, "none": 1.0, "+mnt": 1.05, "+overlay": 1.05 * 1.02, "all": 1.2}
    found = shared(made.blocks("ablate/x/small", truths, scatter=0.001).end(), tmp_path)
    logs = {each.arm: math.log(each.ratio.estimate) for each in found.alone if each.ratio}
    assert logs == pytest.approx({"mnt": math.log(1.05), "overlay": math.log(1.02)}, abs=0.0015)


def test_rungs_are_held_against_the_one_below(tmp_path: Path) -> None:
    rungs = {"bare": 1.0, "bare-again": 1.0, "host": 1.0, "veth": 1.02, "nat": 1.08}
    made = Made(seed=3)
    for name, below in (
        ("nat", "veth"),
        ("bare", "bare"),
        ("veth", "host"),
        ("host", "bare"),
    ):  # as blocks are shuffled
        made.arm("ablate/x/small/ladder:network", name, known=(f"compared with {below}",))
    results_ = load(made.blocks("ablate/x/small/ladder:network", rungs, scatter=0.001).end(), tmp_path)
    (found,) = analysis.experiments(results_, "one")
    assert steps.in_order(found)
    rungs = {each.arm: each for each in steps.held(found, results_.arms("one"))}
    assert list(rungs) == ["host", "veth", "nat"]
    step = rungs["nat"]
    assert step.ratio and 1.08 / 1.02 in step.ratio
    assert step.base == "veth" and step.verdict == SLOWER
    assert rungs["host"].verdict == NO_COST


def factors_on(row: int, signs: list[tuple[int, ...]]) -> list[str]:
    groups = (("masked_paths", "readonly_paths"), ("seccomp",), ("overlay",))
    return ["mnt", *(word for words, sign in zip(groups, signs[row], strict=True) if sign > 0 for word in words)]


def screening(truth: float, *, left: str = "", scatter: float = 0.002, **quiet: float) -> Made:
    """Three factors in 8 rows, of which seccomp costs TRUTH, a ratio. LEFT: a row that is not measured."""
    signs = design.folded(design.plackett_burman(3))
    made, truths = Made(seed=5), {"bare": 1.0, "bare-again": 1.0}
    for row in range(len(signs)):
        name, words = f"run{row + 1:02}", factors_on(row, signs)
        made.arm("ablate/x/small/screen", name, "minictr", features=tuple(words))
        if name != left:
            truths[name] = truth ** ("seccomp" in words)
    return made.blocks("ablate/x/small/screen", truths, scatter=scatter).end(**quiet)


def test_a_screening_has_contrasts_by_factor(tmp_path: Path) -> None:
    found = told(screening(1.08), tmp_path)
    (family,) = found.effects
    assert family.ones[0].arm == "seccomp"
    by_factor = {each.arm: each for each in family.ones}
    assert set(by_factor) == {"masks", "seccomp", "overlay"}, "two words of one group are one factor"
    assert by_factor["seccomp"].ratio is not None and 1.08 in by_factor["seccomp"].ratio
    assert {name: each.verdict for name, each in by_factor.items() if name != "seccomp"} == {
        "masks": NO_COST,
        "overlay": NO_COST,
    }
    assert found.acting == ["seccomp"]
    assert {each.family for each in family.ones} == {3}


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (screening(1.0, scatter=0.05), "nothing would show"),
        (screening(1.08, steal=0.2), "stolen"),
    ],
    ids=["noise", "steal"],
)
def test_nothing_acts_behind_a_shut_gate(tmp_path: Path, made: Made, why: str) -> None:
    found = told(made, tmp_path)
    assert found.acting == []
    assert all(why in each.words for family in found.effects for each in family.ones)


def test_a_screening_with_a_hole_has_no_contrasts(tmp_path: Path) -> None:
    found = told(screening(1.08, left="run03"), tmp_path)
    assert found.effects == () and found.acting == []
    assert found.notes == ("no contrasts: rows of the design were not measured in any whole block",)


def test_one_way_is_the_step_by_another_name(tmp_path: Path) -> None:
    """What was left out is the step turned round: its p and its verdict are the step's, in the steps' family."""
    found = told(ablation(*(f"+{name}" for name in COSTS)), tmp_path)
    by_arm = {each.arm: each for each in found.steps}
    assert found.shares is not None and len(found.shares.last) == len(COSTS)
    for each in (*found.shares.last, *(it for it in found.shares.features if it.arm in COSTS)):
        step = by_arm[f"-{each.arm}"]
        assert (each.holm, each.equal, each.family) == (step.holm, step.equal, step.family) and each.ratio
        assert {each.verdict, step.verdict} in ({SLOWER, FASTER}, {NO_COST}, {UNRESOLVED})
        assert step.ratio is not None and each.ratio.estimate == pytest.approx(1 / step.ratio.estimate)


def test_intervals_for_all_at_once_are_wider_and_hold_for_the_family(tmp_path: Path) -> None:
    found = told(ablation(), tmp_path)
    assert found.sizes == (len(found.steps), 5), "four means of two ways and what is left"
    for each in found.steps:
        assert each.family == len(found.steps) and each.ratio and each.together
        assert each.together.low < each.ratio.low and each.ratio.high < each.together.high
    (alone,) = analysis.judged(found.steps[:1], ())
    assert alone.together == alone.ratio, "of a family of one they are the same"


def test_a_rung_over_one_that_could_not_be_had_is_held_against_the_last_that_could(tmp_path: Path) -> None:
    made, truths, on = Made(seed=4), {"bare": 1.0, "bare-again": 1.0}, frozenset[str]()
    for below, name in itertools.pairwise(("bare", "chroot", "+root", "+cgroups", "+bridge", "+publish")):
        on |= {name} if name != "chroot" else set()
        known, why = (f"compared with {below}",), "nobody comes there" if name == "+bridge" else ""
        made.arm("ablate/x/small/nginx", name, "minictr", features=tuple(on), known=known, unavailable=why)
        truths[name] = 1.1 if name == "+publish" else 1.0
    del truths["+bridge"]
    found = told(made.blocks("ablate/x/small/nginx", truths).end(), tmp_path)
    assert [(each.arm, each.base) for each in found.steps][-1] == ("+publish", "+cgroups")
    assert found.steps[-1].verdict == SLOWER and found.shares is not None
    assert found.shares.features[-1].holm == found.steps[-1].holm, "the waterfall's step is the same one"


def test_a_rung_that_says_what_it_stands_on_is_held_against_that() -> None:
    for text in ("measured over root", "compared with root"):
        known = Arm("r1", "w", "seccomp-50", "minictr", known=(text, "x"))
        assert steps.over(known, "seccomp-20") == "root"
    assert steps.over(None, "below") == "below"
