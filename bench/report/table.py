"""A table, and what becomes of it: HTML and Markdown. Numbers stand right, words left."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Iterable, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Cell:
    """What stands in one place. ``mark`` is a class of the page: min, max, slower, faster, no-cost, unresolved."""

    text: str
    mark: str = ""
    under: str = ""  # a second line, smaller


NOTHING = "\N{EN DASH}"  # in a cell that has no figure
# what a mark says where there are no colours
SIGNS = {"min": "▼", "max": "▲"}


@dataclasses.dataclass(frozen=True)
class Table:
    """``columns`` are headings; one that begins with ``>`` stands right. ``rows`` hold strings or cells."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""
    heading: int = 1  # so many columns at the left are headings of their rows
    mark: str = ""  # a class of the page
    folded: bool = False  # only its caption is shown until somebody asks

    @classmethod
    def of(cls, columns: Sequence[str], rows: Iterable[Sequence[Cell | str]], caption: str = "", **more: Any) -> Table:
        """A table of rows whose plain strings become cells; MORE are its other fields."""
        cells = tuple(tuple(one if isinstance(one, Cell) else Cell(one) for one in row) for row in rows)
        return cls(tuple(columns), cells, caption, **more)

    @property
    def rights(self) -> list[bool]:
        return [column.startswith(">") for column in self.columns]

    def html(self) -> str:
        """A table with a caption, scopes and marks; it scrolls sideways by itself where the page is narrow."""
        heads = "".join(
            f'<th scope="col"{_class("number" if right else "")}>{escape(column.removeprefix(">"))}</th>'
            for column, right in zip(self.columns, self.rights)
        )
        body = "\n".join(f"<tr>{self._row(row)}</tr>" for row in self.rows)
        caption = f"<caption><span>{escape(self.caption)}</span></caption>" if self.caption else ""
        name = escape(self.caption or "table")
        fold = f"<details><summary>{name}</summary>" if self.folded else ""
        return fold + (
            f'<div class="scroll" tabindex="0" role="region" aria-label="{name}"><table{_class(self.mark)}>'
            f"{'' if fold else caption}<thead><tr>{heads}</tr></thead>\n<tbody>{body}</tbody></table></div>"
            f"{'</details>' if fold else ''}"
        )

    def _row(self, row: Sequence[Cell]) -> str:
        cells = []
        for number, (cell, right) in enumerate(zip(row, self.rights)):
            tag = 'th scope="row"' if number < self.heading else "td"
            sign = (
                f'<span class="sign" aria-label="{cell.mark}">{SIGNS[cell.mark]}</span>' if cell.mark in SIGNS else ""
            )
            classes = " ".join(filter(None, ("number" if right else "", cell.mark)))
            under = f'<span class="under">{escape(cell.under)}</span>' if cell.under else ""
            cells.append(f"<{tag}{_class(classes)}>{sign}{escape(cell.text)}{under}</{tag.split()[0]}>")
        return "".join(cells)

    def markdown(self) -> str:
        """The same for a terminal, an issue or a page of documentation."""
        lines = ["| " + " | ".join(column.removeprefix(">") for column in self.columns) + " |"]
        lines.append("|" + "|".join("---:" if right else "---" for right in self.rights) + "|")
        for row in self.rows:
            lines.append("| " + " | ".join(_plain(cell) for cell in row) + " |")
        return (f"**{self.caption}**\n\n" if self.caption else "") + "\n".join(lines) + "\n"


def _plain(cell: Cell) -> str:
    sign = f"{SIGNS[cell.mark]} " if cell.mark in SIGNS else ""
    text = f"{sign}{cell.text}, {cell.under}" if cell.under else f"{sign}{cell.text}"
    return text.replace("|", "\\|").replace("\n", " ")


def _class(names: str) -> str:
    return f' class="{names}"' if names else ""


def escape(text: str) -> str:
    """Text for HTML, also inside of an attribute."""
    return html.escape(text, quote=True)
