"""From results with a known truth to words; gates that shut."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
from known import Made

from bench import analysis, results, steps
from bench.analysis import FASTER, NO_COST, SLOWER, UNRESOLVED, Experiment
from bench.samples import Arm

ARMS = {"bare": 1.0, "bare-again": 1.0, "same": 1.0, "slow": 1.05, "quick": 0.9}


def load(made: Made, tmp_path: Path) -> results.Results:
    return results.load([made.write(tmp_path / "results.jsonl")])


def one(made: Made, tmp_path: Path) -> Experiment:
    (found,) = analysis.experiments(load(made, tmp_path), "one")
    return found


def verdicts(found: Experiment) -> dict[str, str]:
    return {each.arm: each.verdict for each in found.comparisons}


def test_known_truths_get_their_words(tmp_path: Path) -> None:
    found = one(Made(seed=2).blocks("workload/x", ARMS).end(), tmp_path)
    assert found.gates == ()
    assert verdicts(found) == {"same": NO_COST, "slow": SLOWER, "quick": FASTER}
    slow = next(each for each in found.comparisons if each.arm == "slow")
    assert slow.ratio is not None and 1.05 in slow.ratio
    assert slow.words == f"slower by {analysis.percent(slow.ratio.estimate):.1f} %"
    assert slow.blocks == 10


def test_the_twin_is_the_check_and_no_arm(tmp_path: Path) -> None:
    found = one(Made().blocks("workload/x", ARMS).end(), tmp_path)
    assert "bare-again" not in verdicts(found)
    assert found.same is not None and found.same.arm == "bare-again"


def test_a_wide_scatter_is_unresolved_and_says_what_it_would_have_seen(tmp_path: Path) -> None:
    found = one(Made().blocks("workload/x", {**TWINS, "slow": 1.02}, scatter=0.2).end(), tmp_path)
    (slow,) = found.comparisons
    assert slow.verdict == UNRESOLVED
    assert slow.reason == f"below {analysis.percent(slow.detectable):.1f} % nothing would show"
    assert slow.detectable > 1.1


TWINS = {"bare": 1.0, "bare-again": 1.0}


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (Made().blocks("w/x", {"bare": 1, "bare-again": 1.03, "slow": 1.2}).end(), "A/A: bare differs from itself by"),
        (Made().blocks("w/x", {"bare": 1, "slow": 1.2}).end(), "no second bare arm: no A/A check"),
        (Made().blocks("w/x", {**TWINS, "slow": 1.2}, blocks=4).end(), "4 of 5 blocks"),
        (Made().blocks("w/x", {**TWINS, "slow": 1.2}, noisy=3).end(), "busy in 3 of 10 blocks"),
        (Made().blocks("w/x", {**TWINS, "slow": 1.2}).end(load_before=6.0), "load average 6.00"),
        (Made().blocks("w/x", {**TWINS, "slow": 1.2}).end(steal=0.05), "5.0% of the cpu time stolen"),
        (Made().blocks("w/x", {**TWINS, "slow": 1.2}).end(pressure_before=50.0), "tasks waited for a cpu"),
    ],
    ids=["a/a", "no twin", "few blocks", "noisy blocks", "load", "steal", "pressure"],
)
def test_a_shut_gate_leaves_no_number_alone(tmp_path: Path, made: Made, reason: str) -> None:
    (slow,) = one(made, tmp_path).comparisons
    assert slow.verdict == UNRESOLVED
    assert reason in slow.words
    assert slow.words.startswith("unresolved: ")


def test_few_disturbed_blocks_are_borne(tmp_path: Path) -> None:
    found = one(Made().blocks("w/x", {**TWINS, "slow": 1.2}, noisy=2).end(), tmp_path)
    assert verdicts(found) == {"slow": SLOWER}


def test_others_are_no_gate_where_samples_have_their_own_noise(tmp_path: Path) -> None:
    """A daemon that belongs to an arm is another process to the run, and none to the rest before a sample."""
    assert verdicts(one(Made().blocks("w/x", {**TWINS, "slow": 1.2}).end(others=0.5), tmp_path)) == {"slow": SLOWER}


def test_an_interrupted_run_still_speaks(tmp_path: Path) -> None:
    assert verdicts(one(Made().blocks("w/x", {**TWINS, "slow": 1.2}), tmp_path)) == {"slow": SLOWER}


def test_a_rate_is_a_time_upside_down(tmp_path: Path) -> None:
    rates = {**TWINS, "half": 0.5}
    found = one(Made().blocks("micro/stream", rates, value="bytes_per_s", seconds=1e9).end(), tmp_path)
    (half,) = found.comparisons
    assert half.verdict == SLOWER
    assert half.ratio is not None and 2.0 in half.ratio


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (("user_s", "wall_s", "whole_s"), "wall_s"),
        (("minimum_ns", "p95_ns", "median_ns"), "median_ns"),
        (("majflt", "start_s"), "start_s"),
        (("majflt", "took_ms"), "took_ms"),
        (("majflt", "bytes_per_s"), "bytes_per_s"),
        (("majflt",), ""),
    ],
)
def test_which_value_it_is_about(names: tuple[str, ...], chosen: str) -> None:
    assert analysis.primary(names) == chosen


def test_machines_are_never_pooled(tmp_path: Path) -> None:
    first = Made("r1", machine="one").blocks("w/x", {**TWINS, "slow": 1.1}, blocks=4).end()
    other = Made("r2", machine="two", seed=5).blocks("w/x", {**TWINS, "slow": 1.1}, blocks=4).end()
    found = results.load([first.write(tmp_path / "a"), other.write(tmp_path / "b")])
    for place in found.places:
        (each,) = analysis.experiments(found, place)
        assert [one.blocks for one in each.comparisons] == [4]
        assert verdicts(each) == {"slow": UNRESOLVED}


def test_runs_of_one_machine_are_more_blocks(tmp_path: Path) -> None:
    first = Made("r1").blocks("w/x", {**TWINS, "slow": 1.1}, blocks=4).end()
    other = Made("r2", seed=5).blocks("w/x", {**TWINS, "slow": 1.1}, blocks=4).end()
    found = results.load([first.write(tmp_path / "a"), other.write(tmp_path / "b")])
    (each,) = analysis.experiments(found, "one")
    assert [one.blocks for one in each.comparisons] == [8]
    assert verdicts(each) == {"slow": SLOWER}


def test_an_arm_in_a_large_family_needs_more(tmp_path: Path) -> None:
    """One p of 0.02 is a word by itself and none among forty."""
    plain = analysis.Comparison(
        "one", "w", "a", "bare", "wall_s", 10, analysis.Interval(1.02, 1.004, 1.036), 0.02, 0.02
    )
    assert analysis.judged([plain], ())[0].verdict == SLOWER
    crowd = [
        analysis.dataclasses.replace(plain, arm=f"a{number}", p=0.02 if not number else 0.9) for number in range(40)
    ]
    told = analysis.judged(crowd, ())[0]
    assert told.verdict == UNRESOLVED
    assert told.holm == pytest.approx(0.8)
    assert told.reason == "not beyond chance among so many arms (p 0.80)"


COSTS = {"seccomp": 0.02, "overlay": 0.03, "nat": 0.06, "pids": 0.01}


def ablation(*left: str, both: float = 0.02) -> Made:
    """None, all, each alone and each left out; overlay and nat together cost BOTH more. LEFT arms are not measured."""
    made, truths = Made(seed=8), {"bare": 1.0, "bare-again": 1.0}
    whole = frozenset(COSTS)
    sets = {"none": frozenset(), "all": whole}
    sets |= {f"+{name}": frozenset({name}) for name in COSTS} | {f"-{name}": whole - {name} for name in COSTS}
    for name, on in sets.items():
        if name not in left:
            made.arm("ablate/x/small", name, "minictr", features=tuple(sorted(on)))
            truths[name] = math.exp(sum(COSTS[one] for one in on) + (both if {"overlay", "nat"} <= on else 0.0))
    return made.blocks("ablate/x/small", truths, scatter=0.001).end()


def shared(made: Made, tmp_path: Path) -> steps.Shares:
    found = load(made, tmp_path)
    shares = steps.shares(analysis.experiments(found, "one")[0], found.arms("one"))
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
    found = shared(made.blocks("ablate/x/small/factorial", truths, scatter=0.001).end(), tmp_path)
    logs = {each.arm: math.log(each.ratio.estimate) for each in found.features if each.ratio}
    assert logs == pytest.approx({"nat": 0.07, "overlay": 0.04, "pids": 0.01, "none": 0.0}, abs=0.0015)
    assert found.interaction is None and found.whole.ratio is not None
    assert sum(logs.values()) == pytest.approx(math.log(found.whole.ratio.estimate), abs=1e-9)
    terms = {each.arm: each.verdict for each in found.terms}
    assert terms.pop("nat x overlay") == SLOWER
    assert set(terms.values()) == {NO_COST}


def test_the_cross_of_two_features_tells_each_and_both(tmp_path: Path) -> None:
    arms = {"none": "host-volume", "nat": "volume", "overlay": "host", "nat+overlay": "docker"}
    truths = {**TWINS, "host-volume": 1.0, "volume": math.exp(0.05), "host": math.exp(0.02), "docker": math.exp(0.1)}
    found = one(Made(seed=2).blocks("ablate/serve/small/nginx", truths, scatter=0.001).end(), tmp_path)
    told = {each.arm: each for each in steps.crossed(found, arms)}
    logs = {name: math.log(each.ratio.estimate) for name, each in told.items() if each.ratio}
    assert logs == pytest.approx({"nat": 0.05, "overlay": 0.02, "nat x overlay": 0.03}, abs=0.0015)
    assert {each.verdict for each in told.values()} == {SLOWER}
    assert steps.crossed(found, {**arms, "nat": "not there"}) == []


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
    rebuilt = steps.rebuilt(experiment, found.arms("one"))
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
    told = {name: (against, step) for name, against, step in steps.rungs(found, results_.arms("one"))}
    assert list(told) == ["host", "veth", "nat"]
    against, step = told["nat"]
    assert against and step and against.ratio and step.ratio
    assert 1.08 in against.ratio and 1.08 / 1.02 in step.ratio
    assert step.base == "veth" and step.verdict == SLOWER
    assert told["host"][1] is not None and told["host"][1].verdict == NO_COST


@pytest.mark.parametrize("told", [True, False], ids=["now", "as-earlier-results-have-it"])
def test_a_rung_above_those_that_could_not_be_had_jumps_them_in_ladder_and_waterfall(
    tmp_path: Path, told: bool
) -> None:
    """Earlier results say of absent rungs nothing but that, and of the next that it is compared with one of them."""
    name, made = "ablate/serve/small/way=local/nginx", Made(seed=3)
    sets = {"chroot": ("x",), "+root": ("x", "mnt"), "+cgroups": ("x", "mnt", "memory")}
    below = "bare"
    for arm, features in sets.items():
        made.arm(name, arm, "minictr", features=features, known=(f"compared with {below}",))
        below = arm
    cable = {"+veth": "veth", "+bridge": "bridge"}
    words = [*sets["+cgroups"]]
    for arm, word in cable.items():
        words.append(word)
        more = {"features": tuple(words), "known": ("compared with +cgroups",)} if told else {}
        made.arm(name, arm, "minictr", unavailable="127.0.0.1 leads nowhere", **more)
    made.arm(name, "+publish", "minictr", features=(*words, "publish"), known=("compared with +bridge",))
    truth = {"bare": 1.0, "bare-again": 1.0, "chroot": 1.0, "+root": 1.0, "+cgroups": 1.01, "+publish": 1.42}
    results_ = load(made.blocks(name, truth, scatter=0.001).end(), tmp_path)
    (found,) = analysis.experiments(results_, "one")
    step = {arm: step for arm, _, step in steps.rungs(found, results_.arms("one"))}["+publish"]
    assert step and step.ratio and 1.42 / 1.01 in step.ratio and step.verdict == SLOWER
    assert step.base == "+cgroups (jumping +veth, +bridge)"
    fallen = steps.rebuilt(found, results_.arms("one"))
    assert fallen and fallen.features[-1].base == "over +cgroups (jumping +veth, +bridge)"
    assert all("jumping" not in one.base for one in fallen.features[:-1])


def test_a_rung_that_says_what_it_stands_on_is_held_against_that() -> None:
    for text in ("measured over root", "compared with root"):
        known = Arm("r1", "w", "seccomp-50", "minictr", known=(text, "x"))
        assert steps.over(known, "seccomp-20") == "root"
    assert steps.over(None, "below") == "below"
