"""Drawings: SVG by hand, so that a chart takes the page's colours, light and dark, and holds its words as text.

Colours are classes, never values: the page's style sheet says what they are, and a drawing that stands alone in a file
takes the light ones with it.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence

from bench.report.table import escape

HERE = os.path.dirname(os.path.abspath(__file__))
FONT = 12  # px, of most words
# Widths of letters as shares of the font's size, those of the widest of the page's fonts (DejaVu Sans)
NARROW, PLAIN, BROAD, BROADEST = 0.4, 0.635, 0.7, 0.98
FAMILIES = ("bare", "host", "minictr", "lxc", "docker", "podman", "runc", "crun", "bwrap", "nspawn", "vm", "floor")


def style() -> str:
    """The page's style sheet."""
    with open(os.path.join(HERE, "page.css"), encoding="utf-8") as file:
        return file.read()


def family(name: str) -> str:
    """The class of an arm's colour, from its environment's or its own name."""
    for known in FAMILIES:
        if name.lower().startswith(known):
            return f"c-{known}"
    return "c-other"


def width_of(text: str, size: float = FONT) -> float:
    """How wide TEXT is at most: enough to leave room for it."""
    return size * sum(_share(letter) for letter in text)


def _share(letter: str) -> float:
    if letter in "ijlt.,:;|!'()[]fr -/":
        return NARROW
    if letter in "mwMW%@":
        return BROADEST
    return BROAD if letter.isupper() or letter in "+=<>~" else PLAIN


def shortened(text: str, room: float, size: float = FONT) -> str:
    """TEXT, with an ellipsis where it would not fit into ROOM."""
    if width_of(text, size) <= room + 1e-6:
        return text
    kept = text
    while len(kept) > 1 and width_of(kept + "…", size) > room:
        kept = kept[:-1]
    return kept.rstrip() + "…"


class Drawing:
    """A picture of WIDTH by HEIGHT; everything added lies over what was added before."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self._parts: list[str] = []

    def line(self, x1: float, y1: float, x2: float, y2: float, mark: str = "axis") -> None:
        self._parts.append(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{mark}"/>')

    def rect(self, x: float, y: float, width: float, height: float, mark: str, *, tip: str = "") -> None:
        inner = f"<title>{escape(tip)}</title>" if tip else ""
        self._parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" height="{max(height, 0):.1f}" '
            f'class="{mark}">{inner}</rect>'
        )

    def circle(self, x: float, y: float, radius: float, mark: str, *, tip: str = "") -> None:
        inner = f"<title>{escape(tip)}</title>" if tip else ""
        self._parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" class="{mark}">{inner}</circle>')

    def diamond(self, x: float, y: float, radius: float, mark: str, *, tip: str = "") -> None:
        points = [(x, y - radius), (x + radius, y), (x, y + radius), (x - radius, y)]
        self.polygon(points, mark, tip=tip)

    def polygon(self, points: Sequence[tuple[float, float]], mark: str, *, tip: str = "") -> None:
        inner = f"<title>{escape(tip)}</title>" if tip else ""
        text = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self._parts.append(f'<polygon points="{text}" class="{mark}">{inner}</polygon>')

    def path(self, points: Sequence[tuple[float, float]], mark: str) -> None:
        """A line through all POINTS."""
        text = " L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        self._parts.append(f'<path d="M{text}" class="{mark}"/>')

    def text(
        self, x: float, y: float, words: str, mark: str = "", *, anchor: str = "start", size: float = FONT
    ) -> None:
        self._parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size:g}" class="{mark}">'
            f"{escape(words)}</text>"
        )

    def slanted(self, x: float, y: float, words: str, *, size: float = FONT) -> None:
        """Words that rise to the right from (X, Y)."""
        self._parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size:g}" transform="rotate(-35 {x:.1f} {y:.1f})">'
            f"{escape(words)}</text>"
        )

    def inline(self, name: str, title: str, description: str) -> str:
        """For the page: an image with a title and a description, by NAME."""
        return (
            f'<svg viewBox="0 0 {self.width:.0f} {self.height:.0f}" width="{self.width:.0f}" role="img" '
            f'aria-labelledby="{name}-title {name}-desc" class="chart"><title id="{name}-title">{escape(title)}</title>'
            f'<desc id="{name}-desc">{escape(description)}</desc>{"".join(self._parts)}</svg>'
        )

    def alone(self, title: str, description: str) -> str:
        """For a file: with its own light colours and ground, as variables are unknown to many who draw SVG."""
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width:.0f} {self.height:.0f}" '
            f'width="{self.width:.0f}" height="{self.height:.0f}" class="chart"><title>{escape(title)}</title>'
            f"<desc>{escape(description)}</desc><style>{plain_style()}</style>"
            f'<rect width="100%" height="100%" class="ground"/>{"".join(self._parts)}</svg>\n'
        )


def plain_style() -> str:
    """The rules for drawings from the page's style sheet, with the light theme's values in the variables' places."""
    sheet = style()
    values = dict(re.findall(r"(--[\w-]+):\s*([^;]+);", sheet.split("/* dark */", 1)[0]))
    rules = sheet.split("/* drawings */", 1)[1].split("/* end of drawings */", 1)[0]
    return re.sub(r"var\((--[\w-]+)\)", lambda found: values[found[1]], rules).strip()


class Scale:
    """LOW..HIGH of a value onto FROM..TO of the picture; ``logarithmic`` for curves over orders of magnitude."""

    def __init__(self, low: float, high: float, start: float, end: float, *, logarithmic: bool = False) -> None:
        self.logarithmic = logarithmic
        if high <= low:
            low, high = (low / 2, high * 2) if logarithmic else (low - 1, high + 1)
        self.low, self.high, self.start, self.end = low, high, start, end

    def _measure(self, value: float) -> float:
        return math.log(value) if self.logarithmic else value

    def __call__(self, value: float) -> float:
        """The place of VALUE; what lies outside is put at the edge."""
        low, high = self._measure(self.low), self._measure(self.high)
        value = min(max(value, self.low), self.high)
        return self.start + (self._measure(value) - low) / (high - low) * (self.end - self.start)

    def ticks(self, about: int = 6) -> list[float]:
        """Round values within, some ABOUT of them."""
        if self.logarithmic:
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            steps = (1,) if last - first > 3 else (1, 2, 5)
            found = [step * 10.0**power for power in range(first, last + 1) for step in steps]
            within = [value for value in found if self.low * 0.999 <= value <= self.high * 1.001]
            if len(within) > 1:
                return within
        step = nice((self.high - self.low) / max(about, 1))
        first_step, last_step = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first_step, last_step + 1)]


def nice(step: float) -> float:
    """The next of 1, 2, 5, 10, ... that is at least STEP."""
    power = 10.0 ** math.floor(math.log10(step)) if step > 0 else 1.0
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step * 0.999)


def number(value: float) -> str:
    """A tick's label: no more digits than it needs."""
    return f"{value:,.6g}" if abs(value) < 1e5 else f"{value:,.0f}"


def seconds(value: float) -> str:
    """A time in the unit that fits: 1.23 s, 4.5 ms, 310 µs, 42 ns."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if abs(value) >= size:
            return f"{value / size:,.3g} {unit}" if abs(value) < 1000 * size else f"{value / size:,.0f} {unit}"
    return f"{value / 1e-9:.3g} ns"
