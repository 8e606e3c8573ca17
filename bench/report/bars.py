"""Bars: means and variances as the thesis drew them, losses by workload, waterfalls, phases of a start."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from bench.report.forest import Line, limits
from bench.report.svg import Drawing, Scale, number, seconds, shortened, width_of
from bench.stats import Interval

SMALL = 11.0
PHASES = 10  # colours of phases; the rest is put together


@dataclasses.dataclass(frozen=True)
class Bar:
    """One bar. ``raw`` are values drawn over it as points; ``interval`` a whisker; ``other`` a diamond beside it."""

    label: str
    value: float
    colour: str
    text: str = ""
    raw: tuple[float, ...] = ()
    interval: Interval | None = None
    other: float | None = None
    resolved: bool = True


def upright(bars: Sequence[Bar], *, unit: str, width: float = 460.0, height: float = 250.0) -> Drawing:
    """Bars from zero, each with its figure: one chart of the thesis."""
    picture = Drawing(width, height)
    top, bottom, left = 26.0, height - 40.0, 62.0
    highest = max([bar.value for bar in bars] + [value for bar in bars for value in bar.raw] + [0.0])
    scale = Scale(0.0, highest * 1.05 or 1.0, bottom, top)
    _grid(picture, scale, left, width, unit)
    step = (width - left) / max(len(bars), 1)
    for place, bar in enumerate(bars):
        middle, wide = left + (place + 0.5) * step, min(step * 0.62, 90.0)
        tip = f"{bar.label}: {bar.text}"
        picture.rect(middle - wide / 2, scale(bar.value), wide, bottom - scale(bar.value), f"bar {bar.colour}", tip=tip)
        for at, value in enumerate(bar.raw):
            spread = (at + 0.5) / len(bar.raw) - 0.5
            picture.circle(middle + spread * wide * 0.8, scale(value), 2.2, "raw")
        peak = min([scale(bar.value), *map(scale, bar.raw)])
        picture.text(middle, peak - 7, shortened(bar.text, step, SMALL), anchor="middle", size=SMALL)
        _under(picture, middle, bottom + 16, bar.label, step)
    return picture


def _grid(picture: Drawing, scale: Scale, left: float, width: float, unit: str) -> None:
    for tick in scale.ticks(5):
        mark = "zero" if abs(tick) < 1e-12 else "grid"
        picture.line(left, scale(tick), width, scale(tick), mark)
        picture.text(left - 7, scale(tick) + 4, number(tick), "soft", anchor="end", size=SMALL)
    picture.text(0, 12, unit, "soft", size=SMALL)


def _under(picture: Drawing, x: float, y: float, label: str, room: float) -> None:
    """A label below a bar, in two lines where one is too long."""
    if width_of(label, SMALL) <= room - 4:
        picture.text(x, y, label, anchor="middle", size=SMALL)
        return
    cut = min(
        (at for at, letter in enumerate(label) if letter in " -_/+"), key=lambda at: abs(at - len(label) / 2), default=0
    )
    halves = (label[: cut + 1].rstrip(), label[cut + 1 :]) if cut else (label, "")
    for line, text in enumerate(halves):
        picture.text(x, y + 13 * line, shortened(text, room - 2, SMALL), anchor="middle", size=SMALL)


def grouped(groups: Mapping[str, Sequence[Bar]], *, unit: str, width: float = 940.0, height: float = 340.0) -> Drawing:
    """Groups of bars above and below zero with whiskers; a legend of their labels on top."""
    labels = {bar.label: bar.colour for bars in groups.values() for bar in bars}
    picture = Drawing(width, height)
    rows = _legend(picture, list(labels.items()), width)
    top, bottom, left = 26.0 + 20 * rows, height - 34.0, 48.0
    shown = [Line(bar.label, bar.interval, other=bar.other) for bars in groups.values() for bar in bars]
    low, high = limits(shown, [0.0])
    scale = Scale(low, high, bottom, top)
    for tick in scale.ticks(6):
        picture.line(left, scale(tick), width, scale(tick), "zero" if abs(tick) < 1e-9 else "grid")
        picture.text(left - 7, scale(tick) + 4, number(tick), "soft", anchor="end", size=SMALL)
    picture.text(0, top - 10, unit, "soft", size=SMALL)
    step = (width - left) / max(len(groups), 1)
    for place, (name, bars) in enumerate(groups.items()):
        wide = min(step * 0.8 / max(len(bars), 1), 46.0)
        start = left + (place + 0.5) * step - wide * len(bars) / 2
        for at, bar in enumerate(bars):
            _one_of_group(picture, scale, bar, start + at * wide, wide)
        picture.text(left + (place + 0.5) * step, bottom + 20, shortened(name, step), "strong", anchor="middle")
    return picture


def _extent(bar: Bar) -> list[float]:
    found = [bar.value, *((bar.interval.low, bar.interval.high) if bar.interval else ())]
    return [*found, bar.other] if bar.other is not None else found


def _one_of_group(picture: Drawing, scale: Scale, bar: Bar, x: float, wide: float) -> None:
    upper, lower = sorted((scale(bar.value), scale(0.0)))
    mark = f"bar {bar.colour}" if bar.resolved else f"hollow {bar.colour}"
    picture.rect(x + 2, upper, wide - 4, lower - upper, mark, tip=f"{bar.label}: {bar.text}")
    middle = x + wide / 2
    if bar.interval:
        picture.line(middle, scale(bar.interval.low), middle, scale(bar.interval.high), "whisker")
        for end in (bar.interval.low, bar.interval.high):
            picture.line(middle - 4, scale(end), middle + 4, scale(end), "whisker")
    if bar.other is not None:
        picture.diamond(middle, scale(bar.other), 5, "thesis", tip=f"{bar.label}, thesis of 2017: {bar.other:+.2f} %")


def _legend(picture: Drawing, entries: Sequence[tuple[str, str]], width: float, y: float = 12.0) -> int:
    """Names with their colours in as many rows as they need; how many."""
    x, rows = 0.0, 1
    for label, colour in entries:
        wide = 20 + width_of(label, SMALL) + 16
        if x and x + wide > width:
            x, y, rows = 0.0, y + 20, rows + 1
        picture.rect(x, y - 9, 12, 12, f"bar {colour}")
        picture.text(x + 18, y + 1, label, size=SMALL)
        x += wide
    return rows


def waterfall(steps: Sequence[Bar], total: Bar, *, unit: str, start: str, width: float = 940.0) -> Drawing:
    """From zero by STEPS to TOTAL, each bar beginning where the one before ended; whiskers are those of the step."""
    rows = len(steps) + 2
    left = min(max(width_of(bar.label, 13) for bar in (*steps, total)) + 20, 260.0)  # 13: one of them is bold
    words = max(width_of(bar.text, SMALL) for bar in (*steps, total)) + 16
    picture = Drawing(width, 26.0 * rows + 44)
    places, ends, at = [0.0, total.value], _extent(total), 0.0
    for bar in steps:
        ends += [at + value for value in _extent(bar)]
        at += bar.value
        places.append(at)
    reach = max(places) - min(places) or 1.0  # a very wide whisker does not press the bars flat
    low, high = max(min(*ends, *places), min(places) - reach), min(max(*ends, *places), max(places) + reach)
    scale = Scale(low - 0.03 * reach, high + 0.03 * reach, left, width - words)
    bottom = 26.0 * rows + 4
    for tick in scale.ticks():
        picture.line(scale(tick), 4, scale(tick), bottom, "zero" if abs(tick) < 1e-9 else "grid")
        picture.text(scale(tick), bottom + 15, number(tick), "soft", anchor="middle", size=SMALL)
    picture.text((scale.start + scale.end) / 2, bottom + 33, unit, "soft", anchor="middle", size=SMALL)
    picture.text(left - 12, 20, start, "strong", anchor="end")
    picture.line(scale(0), 8, scale(0), 30, "axis")
    at = 0.0
    for row, bar in enumerate((*steps, total), 1):
        begin = 0.0 if bar is total else at
        y = 4 + 26.0 * row
        x, end = sorted((scale(begin), scale(begin + bar.value)))
        picture.rect(x, y + 4, max(end - x, 1.0), 18, f"bar {bar.colour}", tip=f"{bar.label}: {bar.text}")
        if bar.interval:
            low, high = scale(begin + bar.interval.low), scale(begin + bar.interval.high)
            picture.line(low, y + 13, high, y + 13, "whisker")
            for edge in (low, high):
                picture.line(edge, y + 9, edge, y + 17, "whisker")
        picture.text(left - 12, y + 17, shortened(bar.label, left - 12), "strong" if bar is total else "", anchor="end")
        picture.text(width - words + 8, y + 17, bar.text, "" if bar.resolved else "unresolved", size=SMALL)
        if bar is not total:
            at += bar.value
            picture.line(scale(at), y + 22, scale(at), y + 30, "link")
    return picture


def phases(rows: Mapping[str, Mapping[str, float]], *, width: float = 940.0) -> Drawing:
    """Phases of a start, in seconds, one row an arm; the largest have a colour each, the rest is "other phases"."""
    totals: dict[str, float] = {}
    for parts in rows.values():
        for name, value in parts.items():
            totals[name] = totals.get(name, 0.0) + value
    chosen = sorted(totals, key=lambda name: -totals[name])[: PHASES - 1]
    order = [name for name in totals if name in chosen] + (["other phases"] if len(totals) > len(chosen) else [])
    left = min(max([width_of(name) for name in rows], default=40) + 16, 230.0)
    picture = Drawing(width, 28.0 * len(rows) + 110)
    lines = _legend(picture, [(name, f"s{at}") for at, name in enumerate(order)], width)
    top = 20.0 * lines + 10
    longest = max((sum(parts.values()) for parts in rows.values()), default=1.0)
    scale = Scale(0.0, longest, left, width - 84)
    bottom = top + 28.0 * len(rows)
    picture.height = bottom + 40
    for tick in scale.ticks():
        picture.line(scale(tick), top, scale(tick), bottom, "grid")
        picture.text(scale(tick), bottom + 16, seconds(tick) if tick else "0", "soft", anchor="middle", size=SMALL)
    for row, (name, parts) in enumerate(rows.items()):
        y, x = top + 28.0 * row, 0.0
        picture.text(left - 10, y + 19, shortened(name, left - 10), anchor="end")
        grouped_parts = {key: parts.get(key, 0.0) for key in order if key != "other phases"}
        grouped_parts["other phases"] = sum(value for key, value in parts.items() if key not in chosen)
        for at, (key, value) in enumerate(grouped_parts.items()):
            if value > 0:
                wide = scale(x + value) - scale(x)
                picture.rect(scale(x), y + 5, wide, 18, f"bar s{at}", tip=f"{name}, {key}: {seconds(value)}")
            x += max(value, 0.0)
        picture.text(scale(x) + 8, y + 19, seconds(sum(parts.values())), size=SMALL)
    return picture
