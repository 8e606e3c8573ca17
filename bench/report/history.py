"""The thesis of 2017, for comparison: its table from its own timings, with the intervals it lacked."""

from __future__ import annotations

from bench import thesis
from bench.report.bars import Bar, grouped
from bench.report.page import Figure, Section
from bench.report.svg import family
from bench.report.table import NOTHING, Cell, Table


def section() -> Section:
    """The chapter: the same whatever was measured."""
    groups: dict[str, list[Bar]] = {}
    rows: list[tuple[Cell | str, ...]] = []
    for cell in thesis.cells():
        name, environment = thesis.TESTS[cell.test], thesis.NAMES[cell.environment]
        figure, word = NOTHING, thesis.verdict(cell.loss)
        if cell.loss:
            figure = f"{cell.loss.estimate:+.2f} % [{cell.loss.low:+.2f}, {cell.loss.high:+.2f}]"
            bar = Bar(
                environment, cell.loss.estimate, family(environment), figure, (), cell.loss, None, 0.0 not in cell.loss
            )
            groups.setdefault(name.partition(" ")[0] + " " + name.split()[1], []).append(bar)
        mark = word.partition(":")[0]
        rows.append((name, environment, f"{cell.mean:.4f}", f"{cell.variance:.6f}", figure, Cell(word, mark)))
    table = Table.of(("test", "environment", ">mean, s", ">variance, s²", ">loss, Welch 95 %", ""), rows, heading=2)
    about = (
        "Loss against the thesis' virtual machine, Welch's 95 % intervals. Hollow: holds zero, so nothing was resolved."
    )
    figure_ = Figure(
        "thesis-loss", "Losses in the thesis", about, grouped(groups, unit="% more time than the VM"), table, open=True
    )
    lead = "150 timings of 2017, on the thesis' machine: data, not results of this run. Ten iterations each."
    return Section("thesis", "The thesis of 2017", "2017", lead, (figure_,))
