"""``python -m bench thesis``: the table of the thesis this bench began with, from its own timings.

``data/thesis_timings.json`` holds the 150 timings, in seconds, of the 2017 thesis that compared Docker and LXC with the
virtual machine they ran in: five tests, three environments, ten iterations each. They are data, not results of ours.
Its table had the mean, the variance and the loss against the virtual machine, and no interval; ours has one beside
each loss, which shows which of the losses it had resolved.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
from collections.abc import Mapping, Sequence

from bench import student
from bench.stats import Interval

ABOUT = "the table of the 2017 thesis from its own 150 timings, with the intervals it lacked"
TIMINGS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "data", "thesis_timings.json")
BASE = "vm"  # its measure of all; ours is the bare host
NAMES = {"vm": "VM", "lxc": "LXC", "docker": "Docker"}
TESTS = {
    "t1_compress_256MiB": "1 compress a file of 256 MiB",
    "t2_aes256cbc_4GiB": "2 encrypt a file of 4 GiB",
    "t3_kernel_4.9.8": "3 compile Linux 4.9.8",
    "t4_nginx_wget_16539": "4 serve 16,539 files",
    "t5_scp_1GiB": "5 receive 1 GiB by scp",
}
# the workloads of this bench that are the thesis' tests
WORKLOADS = dict(zip(("compress", "encrypt", "compile", "serve", "receive"), TESTS, strict=True))


@dataclasses.dataclass(frozen=True)
class Cell:
    """One test in one environment: seconds, seconds squared, percent. ``loss`` is None for the base itself."""

    test: str
    environment: str
    mean: float
    variance: float  # unbiased: divided by n - 1
    loss: Interval | None


def timings(path: str = TIMINGS) -> dict[str, dict[str, list[float]]]:
    """test -> environment -> seconds, in the order they were measured."""
    with open(path, encoding="utf-8") as file:
        found: dict[str, dict[str, list[float]]] = json.load(file)
    return found


def mean(values: Sequence[float]) -> float:
    """The mean, summed exactly, so that its digits are those of decimal arithmetic."""
    return statistics.fmean(values)


def loss(values: Sequence[float], base: Sequence[float]) -> Interval:
    """How much longer VALUES take than BASE, in percent of the base's mean, with Welch's 95 % interval.

    The interval is that of the difference of means, by the base's mean taken as known: at losses of some percent what
    that leaves out is a few hundredths of its width.
    """
    scale = 100.0 / mean(base)
    found = student.welch(values, base)
    return Interval(found.estimate * scale, found.low * scale, found.high * scale)


def table(by_environment: Mapping[str, Sequence[float]], *, test: str = "", base: str = BASE) -> list[Cell]:
    """Mean, unbiased variance and loss of one test, as the thesis gave them. Raises KeyError without BASE."""
    return [
        Cell(
            test,
            name,
            mean(values),
            statistics.variance(values),
            None if name == base else loss(values, by_environment[base]),
        )
        for name, values in by_environment.items()
    ]


def cells(path: str = TIMINGS) -> list[Cell]:
    """The whole table."""
    return [cell for test, by_environment in timings(path).items() for cell in table(by_environment, test=test)]


def verdict(found: Interval | None) -> str:
    """What the interval lets one say."""
    if found is None:
        return ""
    if 0.0 in found:
        return "unresolved: holds 0"
    return "slower" if found.low > 0 else "faster"


def text(found: Sequence[Cell]) -> str:
    """The table for a terminal, 80 columns."""
    lines = [
        "The thesis of 2017, from its 150 timings; loss against the VM with Welch's 95 % interval",
        "",
        f"{'':<8}{'mean s':>11}{'variance s2':>13}{'loss %':>8}   {'95 % interval':<17}",
    ]
    test = ""
    for cell in found:
        if cell.test != test:
            test = cell.test
            lines.append(TESTS.get(test, test))
        line = f"  {NAMES.get(cell.environment, cell.environment):<6}{cell.mean:>11.4f}{cell.variance:>13.6f}"
        if cell.loss:
            between = f"{cell.loss.low:+.2f} to {cell.loss.high:+.2f}"
            line += f"{cell.loss.estimate:>8.3f}   {between:<17}{verdict(cell.loss)}"
        lines.append(line)
    return "\n".join(lines) + "\n"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--format", choices=("table", "json"), default="table")


def main(options: argparse.Namespace) -> int:
    """Always 0: the data are in the tree."""
    found = cells()
    if options.format == "json":
        print(json.dumps([dataclasses.asdict(cell) for cell in found], indent=1))
    else:
        print(text(found), end="")
    return 0
