"""Forest plots: one line an arm, its estimate, its interval, and the words beside it.

Filled marks are resolved, hollow ones are not; the shaded band is what "no cost" means. An interval that reaches out of
the picture ends in an arrow.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from bench.report.svg import Drawing, Scale, number, shortened, width_of
from bench.stats import Interval

ROW, HEAD, TOP, FOOT = 22.0, 30.0, 8.0, 44.0
WIDTH, GAP = 940.0, 14.0
MOST_LABEL, LEAST_PLOT = 250.0, 400.0
SMALL = 11.0


@dataclasses.dataclass(frozen=True)
class Line:
    """One line of the plot. ``interval`` is in the unit of the axis; None draws the words alone. ``heading``: a line of
    its own above a group. ``other``: another estimate of the same, a diamond (what is predicted, what was in 2017)."""

    label: str
    interval: Interval | None = None
    words: str = ""
    colour: str = "c-other"
    mark: str = ""  # of the words: slower, faster, no-cost, unresolved
    resolved: bool = True
    heading: bool = False
    other: float | None = None


def limits(lines: Sequence[Line], always: Sequence[float]) -> tuple[float, float]:
    """What the axis shows: all estimates; of intervals so much that a very wide one does not press the others flat."""
    estimates = [
        value for line in lines if line.interval for value in (line.interval.estimate, line.other) if value is not None
    ]
    ends = sorted(value for line in lines if line.interval for value in (line.interval.low, line.interval.high))
    if not ends:
        return min(always), max(always)
    low, high = min([*estimates, *always]), max([*estimates, *always])
    reach = max(
        high - low, sorted(line.interval.high - line.interval.low for line in lines if line.interval)[len(ends) // 4]
    )
    low, high = max(ends[0], low - reach), min(ends[-1], high + reach)
    low, high = min(low, *estimates, *always), max(high, *estimates, *always)
    room = 0.04 * (high - low or 1.0)
    return low - room, high + room


def spread(lines: Sequence[Line], always: Sequence[float]) -> tuple[float, float]:
    """What a logarithmic axis shows: all of it. ALWAYS counts where it is above 0."""
    found = [value for line in lines if line.interval for value in (line.interval.low, line.interval.high)]
    found += [value for value in always if value > 0]
    return min(found, default=1.0) / 1.1, max(found, default=10.0) * 1.1


def forest(
    lines: Sequence[Line],
    *,
    unit: str,
    zero: float = 0.0,
    band: tuple[float, float] | None = None,
    width: float = WIDTH,
    logarithmic: bool = False,
) -> Drawing:
    """The plot of LINES. UNIT names the axis; BAND is shaded; a line stands at ZERO. LOGARITHMIC: for ratios."""
    labels = min(max([width_of(line.label) for line in lines if not line.heading], default=60) + GAP, MOST_LABEL)
    words = max((width_of(line.words, SMALL) for line in lines), default=0) + GAP
    words = min(words, width - labels - LEAST_PLOT)
    height = TOP + sum(HEAD if line.heading else ROW for line in lines) + FOOT
    picture = Drawing(width, height)
    low, high = (spread if logarithmic else limits)(lines, [zero, *(band or ())])
    scale = Scale(low, high, labels, width - words - 6, logarithmic=logarithmic)
    bottom = height - FOOT
    if band:
        picture.rect(scale(band[0]), TOP, scale(band[1]) - scale(band[0]), bottom - TOP, "band")
    for tick in scale.ticks():
        picture.line(scale(tick), TOP, scale(tick), bottom, "grid")
        picture.text(scale(tick), bottom + 15, number(tick), "soft", anchor="middle", size=SMALL)
    if not logarithmic or zero > 0:
        picture.line(scale(zero), TOP, scale(zero), bottom, "zero")
    picture.text((scale.start + scale.end) / 2, bottom + 33, unit, "soft", anchor="middle", size=SMALL)
    y = TOP
    for line in lines:
        y += HEAD if line.heading else ROW
        middle = y - ROW / 2
        if line.heading:
            picture.text(0, middle + 5, shortened(line.label, labels + 200), "strong")
            continue
        picture.text(labels - GAP, middle + 4, shortened(line.label, labels - GAP), anchor="end")
        _mark(picture, scale, line, middle)
        text = shortened(line.words, words - GAP, SMALL)
        picture.text(width - words + 6, middle + 4, text, line.mark, size=SMALL)
    return picture


def _mark(picture: Drawing, scale: Scale, line: Line, y: float) -> None:
    if line.interval is None:
        return
    found, tip = line.interval, f"{line.label}: {line.words}"
    picture.line(scale(found.low), y, scale(found.high), y, f"span {line.colour}")
    for end, inward in ((found.low, 1), (found.high, -1)):
        x = scale(end)
        if scale.low <= end <= scale.high:
            if abs(x - scale(found.estimate)) > 7:
                picture.line(x, y - 4, x, y + 4, f"span {line.colour}")
        else:
            picture.polygon([(x - 1 * inward, y), (x + 7 * inward, y - 5), (x + 7 * inward, y + 5)], line.colour)
    if line.other is not None:
        picture.diamond(scale(line.other), y, 5.5, "thesis", tip=tip)
    picture.circle(scale(found.estimate), y, 5, line.colour if line.resolved else f"hollow {line.colour}", tip=tip)
