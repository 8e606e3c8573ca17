"""From results with a known truth to words; gates that shut."""

from __future__ import annotations

from pathlib import Path

import pytest
from known import Made

from bench import analysis, results, steps
from bench.ablate import effects
from bench.analysis import FASTER, NO_COST, SLOWER, UNRESOLVED, Experiment

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
        (Made().blocks("w/x", {**TWINS, "slow": 1.2}, noisy=3).end(), "busy in 9 of 30 samples"),
        (Made().blocks("w/x", {**TWINS, "slow": 1.2}, own=False).end(load_before=6.0), "load average 6.00"),
        (Made().blocks("w/x", {**TWINS, "slow": 1.2}).end(steal=0.05), "5.0% of the cpu time stolen"),
        (Made().blocks("w/x", {**TWINS, "slow": 1.2}, own=False).end(pressure_before=50.0), "tasks waited for a cpu"),
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


def test_what_disturbed_one_arm_is_no_matter_of_the_others(tmp_path: Path) -> None:
    arms = {**TWINS, "slow": 1.2, "dear": 1.3}
    found = one(Made(seed=2).blocks("w/x", arms, noisy=4, only="slow").end(), tmp_path)
    assert verdicts(found) == {"slow": UNRESOLVED, "dear": SLOWER}
    (slow,) = [each for each in found.comparisons if each.arm == "slow"]
    assert "the machine was busy in 4 of 10 samples" in slow.words
    for floor in TWINS:  # but what disturbed the floor, or the check, is in all figures
        found = one(Made(seed=2).blocks("w/x", arms, noisy=4, only=floor).end(), tmp_path)
        assert verdicts(found) == {"slow": UNRESOLVED, "dear": UNRESOLVED}


def test_minictr_is_held_against_its_peers_in_the_same_blocks(tmp_path: Path) -> None:
    arms = {**TWINS, "minictr": 1.01, "lxc": 1.01, "docker": 1.1, "podman": 1.3}
    found = analysis.against_peers(one(Made().blocks("w/x", arms).end(), tmp_path))
    assert [(each.arm, each.base, each.verdict) for each in found] == [
        ("minictr", "lxc", NO_COST), ("minictr", "docker", FASTER)
    ]  # fmt: skip
    shut = one(Made().blocks("w/x", arms, noisy=4, only="docker").end(), tmp_path)
    assert [each.verdict for each in analysis.against_peers(shut)] == [NO_COST, UNRESOLVED]
    assert analysis.against_peers(one(Made().blocks("w/x", {**TWINS, "docker": 1.1}).end(), tmp_path)) == ()


@pytest.mark.parametrize("before", [{"others": 0.5}, {"load_before": 6.0}, {"pressure_before": 50.0}])
def test_the_run_is_no_gate_where_samples_have_their_own_noise(tmp_path: Path, before: dict[str, float]) -> None:
    """The load of the minute before is the bench's own part before this one; an arm's daemon is another process."""
    assert verdicts(one(Made().blocks("w/x", {**TWINS, "slow": 1.2}).end(**before), tmp_path)) == {"slow": SLOWER}


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
        (("median_ns", "p95_ns", "minimum_ns"), "minimum_ns"),
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


def test_two_of_one_name_are_two_in_a_family() -> None:
    plain = analysis.Comparison("one", "w", "nat", "a", "wall_s", 10, analysis.Interval(1.02, 1.01, 1.03), 0.001, 0.001)
    other = analysis.dataclasses.replace(plain, base="b", p=0.6)
    assert [each.holm for each in analysis.judged([plain, other], ())] == pytest.approx([0.002, 0.6])


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
    step = next(each for each in steps.held(found, results_.arms("one")) if each.arm == "+publish")
    assert step and step.ratio and 1.42 / 1.01 in step.ratio and step.verdict == SLOWER
    assert step.base == "+cgroups (jumping +veth, +bridge)"
    fallen = effects.told(found, results_.arms("one")).shares
    assert fallen and fallen.features[-1].base == "over +cgroups (jumping +veth, +bridge)"
    assert fallen.features[-1].verdict == SLOWER, "the step's own verdict"
    assert all("jumping" not in one.base for one in fallen.features[:-1])
