"""From results to words, pure: what each arm costs against its base, and whether that may be said at all.

A comparison has a *verdict*: ``slower``, ``faster``, ``no cost`` or ``unresolved``. Gates stand before it: enough
blocks, the two identical arms equal, a quiet machine. Where one is shut the verdict is ``unresolved`` with the reason,
whatever the number is. No number is given without its interval.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping, Sequence

from bench import host, paired
from bench.paired import Effect
from bench.results import Results
from bench.samples import AGAIN, Run, Sample
from bench.stats import Interval

SLOWER, FASTER, NO_COST, UNRESOLVED = "slower", "faster", "no cost", "unresolved"
NOISY = 0.2  # the share of disturbed samples, of all arms or of one, beyond which nothing is said of them
SUFFIX = AGAIN.removeprefix("bare")  # "-again": the twin of an arm has it
# The value that an experiment is about, the first of these that its samples have.
PRIMARY = ("wall_s", "minimum_ns", "whole_s", "start_s", "start_ns")
FAMILIES = ("minictr", "lxc", "docker", "podman", "runc", "crun", "bwrap", "nspawn", "vm")
OURS, PEERS = "minictr", ("lxc", "docker")  # who is held against whom, beside bare
TIMES = ("_s", "_ms", "_us", "_ns")

Key = tuple[str, int]  # run and block: block 3 of one run is not block 3 of another
Columns = dict[str, dict[Key, float]]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One arm against its base in one experiment of one place. ``ratio`` is of times: above 1 is slower.

    ``value`` is the value's name; ``holm`` the p-value adjusted for the ``family`` of so many comparisons that it was
    judged with, ``equal`` that of the equivalence test, ``detectable`` the smallest ratio that so many blocks would
    find. ``ratio`` is None below two blocks; its interval is that of this comparison alone.
    """

    place: str
    experiment: str
    arm: str
    base: str
    value: str
    blocks: int
    ratio: Interval | None = None
    p: float = 1.0
    holm: float = 1.0
    equal: float = 1.0
    detectable: float = math.inf
    verdict: str = UNRESOLVED
    reason: str = ""
    family: int = 1
    arms: tuple[str, ...] = ()  # that it is made of; () for the two in its names
    effect: Effect | None = dataclasses.field(default=None, repr=False, compare=False)

    @property
    def together(self) -> Interval | None:
        """The ratio with an interval that holds for the whole family at once, 95 times of 100 (Bonferroni)."""
        return self.effect.together(self.family) if self.effect else None

    @property
    def words(self) -> str:
        """The verdict as it is printed."""
        if self.verdict == UNRESOLVED or self.ratio is None:
            return f"{UNRESOLVED}: {self.reason}"
        if self.verdict == NO_COST:
            return f"{NO_COST}: within {100 * math.expm1(paired.MARGIN):.1f} %"
        return f"{self.verdict} by {abs(percent(self.ratio.estimate)):.1f} %"


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One experiment of one place: its comparisons, its A/A check, the values themselves, the gates that are shut.

    ``gates`` are shut for all of it, ``busy`` for single arms: arm -> why nothing is said of it.
    """

    place: str
    name: str
    value: str
    base: str
    columns: Columns
    comparisons: tuple[Comparison, ...]
    same: Comparison | None  # the base against its twin
    gates: tuple[str, ...]
    busy: Mapping[str, str] = dataclasses.field(default_factory=dict)


def percent(ratio: float) -> float:
    """A ratio as percent more: 1.032 is 3.2."""
    return 100.0 * (ratio - 1.0)


def primary(names: Iterable[str]) -> str:
    """Which value an experiment is about: see PRIMARY, else the first time or rate; "" when there is none."""
    names = list(names)
    for wished in PRIMARY:
        if wished in names:
            return wished
    rates = [name for name in names if name.endswith("_per_s")]
    times = [name for name in names if name.endswith(TIMES) and name not in rates]
    return (times or rates or [""])[0]


def columns(found: Iterable[Sample], value: str) -> Columns:
    """arm -> (run, block) -> VALUE as a time: of a rate its reciprocal, so that more is always slower. Only above 0."""
    table: Columns = {}
    for sample in found:
        given = sample.values.get(value, 0.0)
        if given > 0 and math.isfinite(given):
            as_time = 1.0 / given if value.endswith("_per_s") else float(given)
            table.setdefault(sample.arm, {})[sample.run, sample.block] = as_time
    return table


def logs(table: Columns, arm: str, base: str) -> list[float]:
    """The logarithm of their ratio in each block that has both."""
    both = sorted(table.get(arm, {}).keys() & table.get(base, {}).keys())
    return paired.log_ratios([table[arm][key] for key in both], [table[base][key] for key in both])


def base_of(names: Sequence[str]) -> str:
    """The arm that all others are held against: the one that has a twin, else bare, else none ("")."""
    for name in names:
        if name + SUFFIX in names:
            return name
    return "bare" if "bare" in names else ""


def rank(arm: str) -> tuple[int, list[tuple[int, str]]]:
    """Where ARM stands among others: ours, then the peers, then the rest; numbers in names count as numbers."""
    family = next((at for at, name in enumerate(FAMILIES) if arm.startswith(name)), len(FAMILIES))
    words = re.findall(r"\d+|\D+", arm)
    return family, [(int(word), "") if word.isdigit() else (-1, word) for word in words]


def noise_gate(found: Sequence[Sample], runs: Mapping[str, Run], quiets: Mapping[str, Mapping[str, object]]) -> str:
    """Why the machine was too busy for these samples; "" when it was not.

    A sample's own reasons count for its arm (``busy_arms``), and for all when more than NOISY of the samples have some.
    Of what the run's end says, steal counts for all of them. Load, pressure and the share of other processes count
    there only where samples have no noise of their own, taken in the rest before each: a load average still holds what
    the bench itself did a minute before, and a daemon that belongs to an arm is another process as well.
    """
    if words := _disturbed(found):
        return f"the machine was busy in {words}"
    by_sample = {it.run for it in found if "noisy" in it.noise}
    for run in sorted({it.run for it in found}):
        if run not in quiets and run not in by_sample:
            return "interrupted before its quietness was known"
        reasons = run_noise(runs[run], quiets.get(run, {}), steal_only=run in by_sample)
        if reasons:
            return f"the machine was busy: {reasons[0]}"
    return ""


def busy_arms(found: Sequence[Sample]) -> dict[str, str]:
    """arm -> why nothing is said of it: more than NOISY of its samples were disturbed."""
    by_arm: dict[str, list[Sample]] = {}
    for it in found:
        by_arm.setdefault(it.arm, []).append(it)
    said = {arm: _disturbed(samples) for arm, samples in by_arm.items()}
    return {arm: f"the machine was busy in {words} of {arm}" for arm, words in said.items() if words}


def _disturbed(found: Sequence[Sample]) -> str:
    """``3 of 6 samples (reason)`` when that is more than NOISY of them."""
    reasons = [str(it.noise["noisy"][0]) for it in found if it.noise.get("noisy")]
    return f"{len(reasons)} of {len(found)} samples ({reasons[0]})" if len(reasons) > NOISY * len(found) else ""


def run_noise(run: Run, quiet: Mapping[str, object], *, steal_only: bool = False) -> list[str]:
    """Why the whole RUN counts as noisy."""

    def figure(name: str) -> float:
        value = quiet.get(name)
        return float(value) if isinstance(value, int | float) and (name == "steal" or not steal_only) else 0.0

    return host.noise(
        figure("load_before"),
        int(run.facts.get("cpus", 1)),
        steal=figure("steal"),
        others=figure("others"),
        pressure=figure("pressure_before"),
    )


def same_gate(same: Comparison | None, base: str) -> str:
    """Why the A/A check does not let us speak; "" when it does."""
    if same is None:
        return f"no second {base or 'bare'} arm: no A/A check"
    if same.ratio is None or same.blocks < paired.FEWEST:
        return f"the A/A check has {same.blocks} of {paired.FEWEST} blocks"
    if 1.0 not in same.ratio:
        return f"A/A: {base} differs from itself by {interval_text(same.ratio)}"
    return ""


def compare(place: str, experiment: str, value: str, table: Columns, arm: str, base: str) -> Comparison:
    """The figures of ARM against BASE, without a verdict yet."""
    return of_logs(place, experiment, value, logs(table, arm, base), arm, base)


def of_logs(
    place: str, experiment: str, value: str, found: Sequence[float], arm: str, base: str, arms: Sequence[str] = ()
) -> Comparison:
    """The same from one logarithm for each block, made of ARMS when those are not the two."""
    plain = Comparison(place, experiment, arm, base, value, len(found), arms=tuple(arms))
    if len(found) < 2:
        return plain
    effect = Effect(tuple(found))
    return dataclasses.replace(
        plain,
        ratio=effect.ratio(),
        p=effect.p,
        holm=effect.p,
        equal=effect.equivalence(),
        detectable=effect.detectable(),
        effect=effect,
    )


def judged(
    found: Sequence[Comparison], gates: Sequence[str], busy: Mapping[str, str] | None = None
) -> tuple[Comparison, ...]:
    """The family FOUND with its verdicts: both tests adjusted for its size, and GATES in front of them.

    BUSY: arm -> why nothing is said of it, nor of what is held against it.
    """
    told = [at for at, one in enumerate(found) if one.blocks >= paired.FEWEST]
    differs = dict(zip(told, paired.holm([found[at].p for at in told]), strict=True))
    equals = dict(zip(told, paired.holm([found[at].equal for at in told]), strict=True))
    family = max(len(told), 1)
    return tuple(
        _judge(
            dataclasses.replace(one, family=family), differs.get(at, 1.0), equals.get(at, 1.0), shut(one, gates, busy)
        )
        for at, one in enumerate(found)
    )


def shut(one: Comparison, gates: Sequence[str], busy: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """The gates before ONE: those of all, then those of the arms that it is made of."""
    own = {(busy or {}).get(arm, ""): None for arm in one.arms or (one.arm, one.base)}
    return (*gates, *filter(None, own))


def judged_as(one: Comparison, other: Comparison, gates: Sequence[str]) -> Comparison:
    """ONE, which is OTHER told the other way round or by another name, as OTHER was judged in its family."""
    return _judge(dataclasses.replace(one, family=other.family), other.holm, other.equal, gates)


def _judge(one: Comparison, differs: float, equals: float, gates: Sequence[str]) -> Comparison:
    one = dataclasses.replace(one, holm=differs, equal=equals)
    if one.ratio is None or one.blocks < paired.FEWEST:
        return dataclasses.replace(one, reason=f"{one.blocks} of {paired.FEWEST} blocks")
    if gates:
        return dataclasses.replace(one, reason=gates[0])
    if equals < paired.LEVEL:
        return dataclasses.replace(one, verdict=NO_COST)
    if differs < paired.LEVEL and 1.0 not in one.ratio:
        return dataclasses.replace(one, verdict=SLOWER if one.ratio.estimate > 1 else FASTER)
    if 1.0 not in one.ratio:
        return dataclasses.replace(one, reason=f"not beyond chance among so many arms (p {differs:.2f})")
    return dataclasses.replace(one, reason=f"below {percent(one.detectable):.1f} % nothing would show")


def against_peers(one: Experiment) -> tuple[Comparison, ...]:
    """minictr against each peer that was measured with it, in the same blocks; a family of its own."""
    if OURS not in one.columns:
        return ()
    found = [compare(one.place, one.name, one.value, one.columns, OURS, peer) for peer in PEERS if peer in one.columns]
    return judged(found, one.gates, one.busy)


def interval_text(ratio: Interval, digits: int = 1) -> str:
    """``+3.2 % [+2.1, +4.3]``: a ratio as percent more, never without its interval."""
    estimate, low, high = (percent(value) for value in (ratio.estimate, ratio.low, ratio.high))
    return f"{estimate:+.{digits}f} % [{low:+.{digits}f}, {high:+.{digits}f}]"


def span_text(ratio: Interval | None, digits: int = 1) -> str:
    """``[+1.9, +4.6]``: the ends alone, for the second interval of a figure; "" where there is none."""
    return f"[{percent(ratio.low):+.{digits}f}, {percent(ratio.high):+.{digits}f}]" if ratio else ""


def experiments(found: Results, place: str) -> list[Experiment]:
    """All experiments of PLACE, each with its comparisons, in the order they were measured first."""
    by_name: dict[str, list[Sample]] = {}
    for sample in found.samples(place):
        by_name.setdefault(sample.experiment, []).append(sample)
    quiets = {run: end.quiet for run, end in found.ends.items()}
    return [_experiment(place, name, mine, found.runs, quiets) for name, mine in by_name.items()]


def _experiment(
    place: str,
    name: str,
    mine: list[Sample],
    runs: Mapping[str, Run],
    quiets: Mapping[str, Mapping[str, object]],
) -> Experiment:
    value = primary(dict.fromkeys(key for sample in mine for key in sample.values))
    table = columns(mine, value)
    base = base_of(list(table))
    twin = base + SUFFIX
    order = sorted(table, key=lambda arm: (arm != base, arm != twin, rank(arm)))
    table = {arm: table[arm] for arm in order}
    same = compare(place, name, value, table, twin, base) if base and twin in table else None
    others = [compare(place, name, value, table, arm, base) for arm in order if base and arm not in (base, twin)]
    closed = (same_gate(same, base), noise_gate(mine, runs, quiets)) if others else ()
    gates, busy = tuple(filter(None, closed)), busy_arms(mine)
    # what disturbed the base or its twin is in every figure
    gates += tuple(busy[arm] for arm in (base, twin) if others and arm in busy)
    return Experiment(place, name, value, base, table, judged(others, gates, busy), same, gates, busy)
