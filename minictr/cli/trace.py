"""``--trace``: the time line of a start as a bar chart for the terminal, or as Chrome trace JSON.

A Chrome trace is read by chrome://tracing and by https://ui.perfetto.dev.
"""

from __future__ import annotations

import os
import sys

from minictr.cli.entry import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TextIO

    from minictr.runtime.timeline import Timeline

SLOWEST = 8  # steps listed below the chart
WIDEST = 100  # columns; wider bars say nothing more
NARROWEST = 48
BLOCK = "\u2588"
PARTS = " \u258f\u258e\u258d\u258c\u258b\u258a\u2589"  # eighths of it


def chart(timeline: Timeline, width: int = 79, *, colour: bool = False, blocks: bool = True) -> str:
    """TIMELINE as text no wider than WIDTH columns: the cost of each feature, then the slowest steps."""
    width = max(NARROWEST, min(width, WIDEST))
    rows = timeline.rows
    if not rows:
        return "start: no steps were timed\n"
    costs: dict[str, tuple[float, int]] = {}
    for row in rows:
        spent, steps = costs.get(row.feature, (0.0, 0))
        costs[row.feature] = (spent + row.duration_us, steps + 1)
    begin = min(row.start_us for row in rows)
    span = max(row.start_us + row.duration_us for row in rows) - begin
    lines = [f"start: {_us(span)} us in {len(rows)} steps of {len(costs)} features"]
    lines += _bars(costs, width, colour, blocks)
    lines.append("slowest steps, us:")
    slowest = sorted(rows, key=lambda row: -row.duration_us)[:SLOWEST]
    for row in slowest:
        text = printable(f"{row.feature or '-'}: {row.call} {row.about}".rstrip())
        lines.append(_cut(f"{_us(row.duration_us):>10}  {row.index:>3} {text}", width))
    return "\n".join(lines) + "\n"


def _bars(costs: dict[str, tuple[float, int]], width: int, colour: bool, blocks: bool) -> list[str]:
    ranked = sorted(costs.items(), key=lambda item: -item[1][0])
    total = sum(spent for spent, _ in costs.values()) or 1.0
    most = ranked[0][1][0] or 1.0
    names = min(max(7, *(len(name) for name in costs)), 18)
    room = width - names - 28
    lines = [f"{'feature':<{names}}  {'us':>10} {'share':>6} {'steps':>5}"]
    for name, (spent, steps) in ranked:
        bar = _bar(spent / most * room, blocks)
        if colour and bar:
            bar = f"\x1b[36m{bar}\x1b[0m"
        label = _cut(name or "-", names)
        lines.append(f"{label:<{names}}  {_us(spent):>10} {spent / total:>6.1%} {steps:>5}  {bar}".rstrip())
    return lines


def _bar(length: float, blocks: bool) -> str:
    if not blocks:
        return "#" * max(1, round(length))
    whole, eighths = divmod(max(1, round(length * 8)), 8)
    return BLOCK * whole + PARTS[eighths].strip()


def _us(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 2] + ".."


def show(timeline: Timeline, stream: TextIO | None = None) -> None:
    """The chart on STREAM (default: standard error); colours and width of a terminal if it is one."""
    stream = sys.stderr if stream is None else stream
    if stream is None:  # the caller closed it
        return
    width, tty = 79, stream.isatty()
    if tty:
        try:
            width = os.get_terminal_size(stream.fileno()).columns - 1
        except OSError:
            tty = False
    blocks = (getattr(stream, "encoding", None) or "").lower().replace("-", "") == "utf8"
    colour = tty and "NO_COLOR" not in os.environ
    stream.write(chart(timeline, width, colour=colour, blocks=blocks))
    stream.flush()


def chrome(timeline: Timeline, pid: int = 0, name: str = "minictr") -> dict[str, Any]:
    """TIMELINE in Chrome's trace event format: one complete ("X") event a step, times in microseconds from 0."""
    rows = timeline.rows
    begin = min((row.start_us for row in rows), default=0.0)
    events: list[dict[str, Any]] = [
        {"ph": "M", "name": "process_name", "pid": pid, "tid": pid, "args": {"name": name}},
        {"ph": "M", "name": "thread_name", "pid": pid, "tid": pid, "args": {"name": "start"}},
    ]
    events += (
        {
            "ph": "X",
            "name": f"{row.call} {row.about}".rstrip(),
            "cat": row.feature or "start",
            "ts": round(row.start_us - begin, 3),
            "dur": round(row.duration_us, 3),
            "pid": pid,
            "tid": pid,
            "args": {"step": row.index, "feature": row.feature},
        }
        for row in rows
    )
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def write_chrome(timeline: Timeline, file: TextIO, pid: int = 0, name: str = "minictr") -> None:
    """:func:`chrome` as JSON into FILE."""
    import json  # only when a file was asked for

    json.dump(chrome(timeline, pid, name), file, indent=1)
    file.write("\n")
