"""A heat map: operations by arms, how much more in each square, with the figure in it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from bench.report.svg import Drawing, shortened, width_of

SMALL, ROW, WIDTH = 11.0, 22.0, 940.0
STEPS = (2.0, 5.0, 15.0, 40.0, 100.0)  # percent: where a square becomes darker


@dataclasses.dataclass(frozen=True)
class Square:
    """MORE in percent decides the colour, TEXT stands in it, TIP says all of it."""

    more: float
    text: str
    resolved: bool
    tip: str


def heat(columns: Sequence[str], rows: Mapping[str, Sequence[Square | None]], *, width: float = WIDTH) -> Drawing:
    """The map; column headings stand slanting where they are long."""
    left = min(max((width_of(name) for name in rows), default=60) + 14, 220.0)
    step = min((width - left - 40) / max(len(columns), 1), 110.0)
    slanted = any(width_of(name, SMALL) > step - 6 for name in columns)
    top = 14 + (max(width_of(name, SMALL) for name in columns) * 0.6 if slanted else 12)
    picture = Drawing(width, top + ROW * len(rows) + 34)
    for at, name in enumerate(columns):
        x = left + (at + 0.5) * step
        if slanted:
            picture.slanted(x - 4, top - 8, name, size=SMALL)
        else:
            picture.text(x, top - 8, name, anchor="middle", size=SMALL)
    for row, (name, squares) in enumerate(rows.items()):
        y = top + ROW * row
        picture.text(left - 10, y + 15, shortened(name, left - 10), anchor="end")
        for at, square in enumerate(squares):
            if square is not None:
                x = left + at * step
                picture.rect(x + 1, y + 1, step - 2, ROW - 2, mark(square), tip=f"{name}, {columns[at]}: {square.tip}")
                words = shortened(square.text, step - 2, SMALL)
                picture.text(
                    x + step / 2, y + 15, words, "" if square.resolved else "soft", anchor="middle", size=SMALL
                )
    _key(picture, left, picture.height - 12)
    return picture


def mark(square: Square) -> str:
    """The class of its colour: ``heat up2``, ``heat down1``; none below the first step or unresolved."""
    size = sum(abs(square.more) >= step for step in STEPS)
    if not square.resolved or not size or not math.isfinite(square.more):
        return "heat flat"
    return f"heat {'up' if square.more > 0 else 'down'}{size}"


def _key(picture: Drawing, x: float, y: float) -> None:
    picture.text(x, y, "% more:", "soft", size=SMALL)
    x += width_of("% more:", SMALL) + 8
    for at, step in enumerate(STEPS, 1):
        picture.rect(x, y - 10, 14, 14, f"heat up{at}")
        picture.text(x + 19, y, f"{step:g}", "soft", size=SMALL)
        x += 52
    picture.rect(x, y - 10, 14, 14, "heat down3")
    picture.text(x + 19, y, "less", "soft", size=SMALL)
