"""What something adds to a start: the same container with and without it, measured in turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench import stats
from bench.life.series import Part, Series, Target, raw, unstable
from bench.lifecycle.arms import serve
from bench.lifecycle.lab import Lab
from bench.lifecycle.shape import COMMAND

NONE, AGAIN, ALL = "none", "none again", "all"
Feature = tuple[str, Sequence[Any]]  # class of minictr, its arguments
CPU = " of processor time"


def arm(lab: Lab, about: str, without: Sequence[str], *adding: Feature) -> tuple[str, Any]:
    """The default profile in a process of its own, less WITHOUT and with ADDING."""
    command = serve(
        mode="library",
        rootfs=lab.rootfs,
        argv=list(COMMAND),
        without=list(without),
        adding=adding,
        ballast=lab.ballast,
    )
    return about, command


def milliseconds(values: Sequence[int]) -> list[float]:
    return [value / 1e6 for value in values]


def added(found: Mapping[str, Series], name: str, seed: int) -> stats.Interval:
    """Milliseconds that NAME adds to a start with none of them, in the quietest tenth of the rounds."""
    pair = [milliseconds(found[one].nanoseconds) for one in (name, NONE)]
    return stats.quiet_difference(pair[0], pair[1], seed=seed)


def worked(found: Mapping[str, Series], name: str, seed: int) -> stats.Interval:
    """The same in processor time, within rounds: it knows no waiting, neither for others nor for the kernel."""
    pair = [milliseconds(found[one].cpu) for one in (name, NONE)]
    return stats.paired_difference(pair[0], pair[1], seed=seed)


def part(
    title: str,
    found: Mapping[str, Series],
    orders: list[list[str]],
    seed: int,
    *,
    single: Sequence[str],
    at_most: float,
) -> Part:
    """A line each, and two promises for each of SINGLE: at most AT_MOST milliseconds; of all together, as many."""
    lines, targets = [f"{'':<14}{'median ms':>10}{'paired':>8}{'quiet':>8}{'':20}{'cpu':>6}"], []
    how_many = sum(series.complete for name, series in found.items() if name in single)
    for name, series in found.items():
        if not series.complete or not found[NONE].complete:
            lines.append(f"{name:<14}{'-':>10}  {series.failed}")
            continue
        wall, cpu = added(found, name, seed), worked(found, name, seed)
        values = milliseconds(series.nanoseconds)
        paired = stats.paired_difference(values, milliseconds(found[NONE].nanoseconds), seed=seed).estimate
        line = f"{name:<14}{stats.quartiles(values).median:>10.2f}{paired:>8.2f}{wall.estimate:>8.2f}"
        line += f"{f'{wall.low:.2f} to {wall.high:.2f}':>20}{cpu.estimate:>6.2f}   {cpu.low:.2f} to {cpu.high:.2f}"
        lines.append(line)
        if name in single:
            targets += [promise(f"{name} adds", figure, unit, at_most) for figure, unit in ((wall, ""), (cpu, CPU))]
        if name == ALL and how_many:
            for figure, unit in ((wall, ""), (cpu, CPU)):
                each = stats.Interval(*(value / how_many for value in (figure.estimate, figure.low, figure.high)))
                targets.append(promise(f"all {how_many} add, each,", each, unit, at_most))
    lines += [
        "added ms: paired: median of differences within rounds; quiet: of the 10 % quantiles, with its interval;",
        "cpu: processor time, median of differences within rounds, with its interval",
    ]
    return Part(title, lines, targets, raw(found, orders), unstable(found))


def promise(text: str, found: stats.Interval, unit: str, at_most: float) -> Target:
    figure = f"{found.estimate:.2f} [{found.low:.2f}, {found.high:.2f}] ms"
    return Target(f"{text} at most {at_most} ms{unit}", stats.verdict(found, at_most), figure)
