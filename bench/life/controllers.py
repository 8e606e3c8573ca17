"""What each controller of control groups adds to a start: with none, each by itself, all of them."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from bench import stats
from bench.life.series import Part, Series, Target, Tell, in_turn, raw, unstable
from bench.lifecycle.arms import serve
from bench.lifecycle.lab import Lab
from bench.lifecycle.shape import APART, COMMAND

AT_MOST_MS = 0.3
NONE, AGAIN, ALL = "none", "none again", "all"

# controller -> (class of minictr, its arguments): a limit that this program does not feel
LIMITS: dict[str, tuple[str, Sequence[Any]]] = {
    "pids": ("Pids", (64,)),
    "memory": ("Memory", ("256M",)),
    "cpu": ("Cpu", (1.5,)),
    "cpuset": ("Cpuset", ("0",)),
    "io": ("Io", ()),
    "freezer": ("Freezer", ()),
    "devices": ("Devices", ()),
    "hugetlb": ("Hugetlb", ({"2MB": "64M"},)),
}


def commands(lab: Lab, limits: Mapping[str, tuple[str, Sequence[Any]]]) -> dict[str, Any]:
    """The default profile without its own limit and with each of LIMITS."""

    def arm(about: str, *adding: tuple[str, Sequence[Any]]) -> tuple[str, Any]:
        command = serve(
            mode="library",
            rootfs=lab.rootfs,
            argv=list(COMMAND),
            without=list(APART),
            adding=adding,
            ballast=lab.ballast,
        )
        return about, command

    return {
        NONE: arm("the default profile without control groups"),
        AGAIN: arm("the same: the A/A check"),
        **{name: arm(f"with {name} alone", limit) for name, limit in limits.items()},
        ALL: arm("with all of them", *limits.values()),
    }


def supported() -> tuple[dict[str, tuple[str, Sequence[Any]]], dict[str, str]]:
    """Those of LIMITS that this host has; and why it has not the others."""
    import minictr

    mc: Any = minictr
    found, missing = {}, {}
    for name, limit in LIMITS.items():
        answer = mc.support(getattr(mc, limit[0]))
        if answer:
            found[name] = limit
        else:
            missing[name] = str(answer)
    return found, missing


def measure(lab: Lab, options: argparse.Namespace, tell: Tell) -> Part:
    """Each in turn."""
    limits, missing = supported()
    found, orders = in_turn(
        lab,
        commands(lab, limits),
        rounds=options.rounds,
        warmup=options.warmup,
        seed=options.seed,
        pause=options.pause_ms / 1e3,
        tell=tell,
    )
    return part({**found, **{name: Series(name, failed=why) for name, why in missing.items()}}, orders, options.seed)


def milliseconds(values: Sequence[int]) -> list[float]:
    return [value / 1e6 for value in values]


def added(found: Mapping[str, Series], name: str, seed: int) -> stats.Interval:
    """Milliseconds that NAME adds to a start with no controller, in the quietest tenth of the rounds."""
    pair = [milliseconds(found[one].nanoseconds) for one in (name, NONE)]
    return stats.quiet_difference(pair[0], pair[1], seed=seed)


def worked(found: Mapping[str, Series], name: str, seed: int) -> stats.Interval:
    """The same in processor time, within rounds: it knows no waiting, neither for others nor for the kernel."""
    pair = [milliseconds(found[one].cpu) for one in (name, NONE)]
    return stats.paired_difference(pair[0], pair[1], seed=seed)


def part(found: Mapping[str, Series], orders: list[list[str]], seed: int) -> Part:
    """A line each, and two promises each."""
    lines, targets = [f"{'':<12}{'median ms':>10}{'paired':>8}{'quiet':>8}{'':20}{'cpu':>6}"], []
    how_many = sum(series.complete for name, series in found.items() if name in LIMITS)
    for name, series in found.items():
        if not series.complete or not found[NONE].complete:
            lines.append(f"{name:<12}{'-':>10}  {series.failed}")
            continue
        wall, cpu = added(found, name, seed), worked(found, name, seed)
        values = milliseconds(series.nanoseconds)
        paired = stats.paired_difference(values, milliseconds(found[NONE].nanoseconds), seed=seed).estimate
        line = f"{name:<12}{stats.quartiles(values).median:>10.2f}{paired:>8.2f}{wall.estimate:>8.2f}"
        line += f"{f'{wall.low:.2f} to {wall.high:.2f}':>20}{cpu.estimate:>6.2f}   {cpu.low:.2f} to {cpu.high:.2f}"
        lines.append(line)
        if name in LIMITS:
            targets += [promise(f"{name} adds", wall, ""), promise(f"{name} adds", cpu, " of processor time")]
        if name == ALL and how_many:
            for figure, unit in ((wall, ""), (cpu, " of processor time")):
                each = stats.Interval(*(value / how_many for value in (figure.estimate, figure.low, figure.high)))
                targets.append(promise(f"all {how_many} add, each,", each, unit))
    lines += [
        "added ms: paired: median of differences within rounds; quiet: of the 10 % quantiles, with its interval;",
        "cpu: processor time, median of differences within rounds, with its interval",
    ]
    return Part("What each controller adds to a start", lines, targets, raw(found, orders), unstable(found))


def promise(text: str, found: stats.Interval, unit: str) -> Target:
    figure = f"{found.estimate:.2f} [{found.low:.2f}, {found.high:.2f}] ms"
    return Target(f"{text} at most {AT_MOST_MS} ms{unit}", stats.verdict(found, AT_MOST_MS), figure)
