"""Curves: what grows with a number, on logarithmic axes, each named at its end."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from bench.report.svg import Drawing, Scale, number, seconds, shortened, width_of

SMALL = 11.0


@dataclasses.dataclass(frozen=True)
class Curve:
    """``points``: (how many, low, middle, high) in ascending order; low and high are the quartiles."""

    label: str
    colour: str
    points: tuple[tuple[float, float, float, float], ...]


def curves(
    found: Sequence[Curve], *, across: str, unit: str = "s", width: float = 940.0, height: float = 360.0
) -> Drawing:
    """All CURVES in one picture; ACROSS names the number. UNIT "s" prints times, anything else is printed after it."""
    picture = Drawing(width, height)
    counts = [point[0] for curve in found for point in curve.points]
    values = [value for curve in found for point in curve.points for value in point[1:] if value > 0]
    right = width - max([width_of(curve.label, SMALL) for curve in found], default=0) - 20
    x = Scale(min(counts), max(counts), 72.0, max(right, width / 2), logarithmic=min(counts) > 0)
    y = Scale(min(values) / 1.2, max(values) * 1.2, height - 46, 14.0, logarithmic=True)
    for tick in y.ticks():
        picture.line(x.start, y(tick), x.end, y(tick), "grid")
        words = seconds(tick) if unit == "s" else f"{number(tick)} {unit}"
        picture.text(x.start - 8, y(tick) + 4, words, "soft", anchor="end", size=SMALL)
    for tick in sorted(set(counts)) if len(set(counts)) < 9 else x.ticks():
        picture.line(x(tick), y.start, x(tick), y.start + 5, "axis")
        picture.text(x(tick), y.start + 19, number(tick), "soft", anchor="middle", size=SMALL)
    picture.line(x.start, y.start, x.end, y.start, "axis")
    picture.text((x.start + x.end) / 2, height - 6, across, "soft", anchor="middle", size=SMALL)
    seen: set[str] = set()
    for curve in found:
        again = " dash" if curve.colour in seen else ""
        seen.add(curve.colour)
        picture.path([(x(count), y(middle)) for count, _, middle, _ in curve.points], f"curve {curve.colour}{again}")
        for count, low, middle, high in curve.points:
            picture.line(x(count), y(low), x(count), y(high), f"span {curve.colour}")
            tip = f"{curve.label} at {number(count)}: {seconds(middle) if unit == 's' else number(middle)}"
            picture.circle(x(count), y(middle), 3.5, curve.colour, tip=tip)
    for curve, place in zip(found, apart([y(curve.points[-1][2]) for curve in found])):
        picture.text(x.end + 12, place + 4, shortened(curve.label, width - x.end - 12, SMALL), size=SMALL)
    return picture


def apart(places: Sequence[float], least: float = 15.0) -> list[float]:
    """PLACES pushed so far from each other that labels do not overlap, in the order given."""
    order = sorted(range(len(places)), key=places.__getitem__)
    found, last = list(places), float("-inf")
    for at in order:
        last = found[at] = max(places[at], last + least)
    return found
