"""``python -m bench report RESULTS...``: the page, its charts as files, its tables as Markdown."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from bench import results
from bench.report import build, page
from bench.report.browser import Browser, BrowserError
from bench.report.page import Figure, Section

ABOUT = "one page of results files: tables, charts, verdicts with their intervals"
FOOT = "Made by python -m bench report from raw samples; docs/bench-statistics.md says how the figures are reckoned."
PIXELS = 2.0  # of a PNG for one of a chart


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("results", nargs="+", metavar="RESULTS", help="files of JSON lines, of one machine or several")
    parser.add_argument(
        "--out",
        default="bench-report",
        metavar="DIR|FILE.html",
        help="a directory for page, charts (SVG, PNG) and tables (Markdown), or the page alone (default: bench-report)",
    )
    parser.add_argument("--no-png", action="store_true", help="no PNG of the charts, which Chromium draws")


def write(path: str, text: str | bytes) -> None:
    """TEXT to PATH, whole or not at all. Raises OSError."""
    partial = f"{path}.partial"
    try:
        with open(partial, "wb") as file:
            file.write(text.encode() if isinstance(text, str) else text)
        os.replace(partial, path)
    except OSError:
        if os.path.exists(partial):
            os.unlink(partial)
        raise


def figures(sections: Sequence[Section]) -> list[Figure]:
    return [figure for section in sections for figure in section.figures()]


def charts(directory: str, found: Sequence[Figure]) -> None:
    """NAME.svg and NAME.md of each figure. Raises OSError."""
    for figure in found:
        write(os.path.join(directory, f"{figure.name}.svg"), figure.drawing.alone(figure.title, figure.about))
        write(
            os.path.join(directory, f"{figure.name}.md"),
            f"### {figure.title}\n\n{figure.about}\n\n{figure.table.markdown()}",
        )


def pictures(directory: str, found: Sequence[Figure]) -> None:
    """NAME.png of each figure, from its SVG. Raises BrowserError, OSError."""
    with Browser() as browser:
        for figure in found:
            wide, high = figure.drawing.width, figure.drawing.height
            browser.open(os.path.join(directory, f"{figure.name}.svg"), width=round(wide), height=round(high))
            clip = {"x": 0, "y": 0, "width": wide, "height": high}
            write(os.path.join(directory, f"{figure.name}.png"), browser.picture(clip, PIXELS))


def main(options: argparse.Namespace) -> int:
    """Exit code: 0 written, 1 written without the PNGs, 2 nothing to write or not to be written."""
    try:
        found = results.load(options.results)
        if not found.runs:
            raise results.samples.ResultsError(f"no run in {', '.join(options.results)}")
        sections = build.sections(found)
        lead = build.lead(found)
        if options.out.endswith(".html"):
            write(options.out, page.html(build.TITLE, lead, sections, FOOT))
            print(f"written: {options.out}")
            return 0
        os.makedirs(os.path.join(options.out, "charts"), exist_ok=True)
        write(os.path.join(options.out, "index.html"), page.html(build.TITLE, lead, sections, FOOT))
        write(os.path.join(options.out, "report.md"), page.markdown(build.TITLE, lead, sections, FOOT))
        charts(os.path.join(options.out, "charts"), figures(sections))
    except (OSError, results.samples.ResultsError) as err:
        print(f"bench report: {err}", file=sys.stderr)
        return 2
    print(f"written: {options.out}/index.html, report.md, {len(figures(sections))} charts")
    if options.no_png:
        return 0
    try:
        pictures(os.path.join(options.out, "charts"), figures(sections))
    except (BrowserError, OSError) as err:
        print(f"bench report: no PNG of the charts: {err}", file=sys.stderr)
        return 1
    return 0
