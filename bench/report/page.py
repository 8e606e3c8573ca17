"""The page: sections of figures, tables and notes as one HTML file that asks nobody for anything."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Sequence

from bench.report.svg import HERE, Drawing, style
from bench.report.table import Table, escape

MOST_WARNINGS = 10  # shown at once
DARK, END_OF_DARK = "/* dark */", "/* end of dark */"
# The page itself may load nothing, even if a name in the results tried.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


@dataclasses.dataclass(frozen=True)
class Figure:
    """A chart with its words and the same figures as a table. ``name`` is that of its files."""

    name: str
    title: str
    about: str
    drawing: Drawing
    table: Table
    open: bool = False  # the table is shown at once

    def html(self) -> str:
        drawn = self.drawing.inline(self.name, self.title, self.about)
        return (
            f'<figure id="{self.name}"><figcaption>{escape(self.title)}</figcaption><p>{escape(self.about)}</p>'
            f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(self.title)}">{drawn}</div>'
            f"<details{' open' if self.open else ''}><summary>The same as a table</summary>"
            f"{self.table.html()}</details></figure>"
        )


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two figures side by side where there is room."""

    left: Figure
    right: Figure

    def html(self) -> str:
        return f'<div class="pair">{self.left.html()}{self.right.html()}</div>'


@dataclasses.dataclass(frozen=True)
class Note:
    """A paragraph, or a list, or a heading between figures."""

    text: str = ""
    lines: tuple[str, ...] = ()
    heading: str = ""

    def html(self) -> str:
        parts = [f"<h3>{escape(self.heading)}</h3>"] if self.heading else []
        parts += [f'<p class="note">{escape(self.text)}</p>'] if self.text else []
        if self.lines:
            parts.append("<ul>" + "".join(f"<li>{escape(line)}</li>" for line in self.lines) + "</ul>")
        return "".join(parts)

    def markdown(self) -> str:
        parts = [f"### {self.heading}\n"] if self.heading else []
        parts += [f"{self.text}\n"] if self.text else []
        return "\n".join([*parts, *(f"- {line}" for line in self.lines)]).rstrip() + "\n"


@dataclasses.dataclass(frozen=True)
class Warnings:
    """What should keep a reader from believing too much: in a box."""

    lines: tuple[str, ...]

    def html(self) -> str:
        lines = [f"<li>{escape(line)}</li>" for line in self.lines]
        told = f"<ul>{''.join(lines[:MOST_WARNINGS])}</ul>"
        if rest := lines[MOST_WARNINGS:]:
            told += f"<details><summary>{len(rest)} more</summary><ul>{''.join(rest)}</ul></details>"
        return f'<aside class="warnings" aria-label="Warnings"><h3>Mind this</h3>{told}</aside>'

    def markdown(self) -> str:
        return "**Mind this**\n\n" + "\n".join(f"- {line}" for line in self.lines) + "\n"


@dataclasses.dataclass(frozen=True)
class Terms:
    """Names and what they are: facts of a machine."""

    pairs: tuple[tuple[str, str], ...]

    def html(self) -> str:
        told = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in self.pairs)
        return f"<dl>{told}</dl>"

    def markdown(self) -> str:
        return "\n".join(f"- {name}: {value}" for name, value in self.pairs) + "\n"


Item = Figure | Pair | Note | Table | Terms | Warnings


@dataclasses.dataclass(frozen=True)
class Section:
    """A chapter. ``short`` is its name in the navigation."""

    name: str
    title: str
    short: str
    lead: str
    items: tuple[Item, ...]

    def html(self) -> str:
        inner = "\n".join(item.html() for item in self.items)
        lead = f'<p class="lead">{escape(self.lead)}</p>' if self.lead else ""
        head = f'<h2 id="{self.name}-h">{escape(self.title)}</h2>'
        return f'<section id="{self.name}" aria-labelledby="{self.name}-h">{head}{lead}{inner}</section>'

    def figures(self) -> Iterator[Figure]:
        for item in self.items:
            yield from (
                (item.left, item.right) if isinstance(item, Pair) else (item,) if isinstance(item, Figure) else ()
            )

    def markdown(self) -> str:
        parts = [f"## {self.title}\n", *([f"{self.lead}\n"] if self.lead else [])]
        for item in self.items:
            figures = (item.left, item.right) if isinstance(item, Pair) else (item,) if isinstance(item, Figure) else ()
            for figure in figures:
                parts.append(f"### {figure.title}\n\n{figure.about}\n\n{figure.table.markdown()}")
            if not figures:
                parts.append(item.markdown())  # type: ignore[union-attr]
        return "\n".join(parts)


def sheet() -> str:
    """The style sheet, with the dark colours once for the toggle and once for those who asked their system for them."""
    whole = style()
    dark = whole.split(DARK, 1)[1].split(END_OF_DARK, 1)[0].replace('[data-theme="dark"]', ':not([data-theme="light"])')
    return f"{whole}\n@media screen and (prefers-color-scheme: dark) {{{dark}}}\n"


def script() -> str:
    with open(os.path.join(HERE, "page.js"), encoding="utf-8") as file:
        return file.read()


def html(title: str, lead: str, sections: Sequence[Section], foot: str) -> str:
    """The whole page."""
    links = "".join(f'<a href="#{one.name}">{escape(one.short)}</a>' for one in sections if one.short)
    body = "\n".join(one.html() for one in sections)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<style>
{sheet()}</style>
</head>
<body>
<a class="skip" href="#main">To the results</a>
<nav aria-label="Sections"><div>{links}<button id="theme" type="button" hidden>Dark</button></div></nav>
<header class="top"><h1>{escape(title)}</h1><p class="lead">{escape(lead)}</p></header>
<main id="main">
{body}
</main>
<footer>{escape(foot)}</footer>
<script>
{script()}</script>
</body>
</html>
"""


def markdown(title: str, lead: str, sections: Sequence[Section], foot: str) -> str:
    """The same without charts."""
    return "\n".join([f"# {title}\n", f"{lead}\n", *(one.markdown() for one in sections), f"{foot}\n"])
