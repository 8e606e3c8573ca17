"""The report: of whole and of partial results, its files, and how it looks to a browser."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from known import Made

from bench import __main__ as front
from bench import results
from bench.report import build, forest, svg
from bench.report.browser import Browser
from bench.report.table import Cell, Table
from bench.stats import Interval

PAIR = {"bare": 1.0, "bare-again": 1.0}
VOID = {"meta", "link", "br", "hr", "img", "input"}


def workloads(made: Made, **more: Any) -> Made:
    truths = {**PAIR, "minictr": 1.0, "lxc": 1.03, "docker": 1.08}
    for name, seconds in (("compress", 13.0), ("encrypt", 1.4), ("serve", 4.4)):
        experiment = f"workload/{name}/small"
        for arm in truths:
            made.arm(experiment, arm)
        made.arm(experiment, "podman", unavailable="podman is <not> installed & never was")
        made.blocks(experiment, truths, seconds=seconds, **more)
        made.count(experiment, "bare", getppid=2e6, open_close=16_000, major_fault=12)
    return made


def micro(made: Made) -> Made:
    truths = {
        **PAIR,
        "chroot": 1.0,
        "pid": 1.0,
        "overlay-1": 2.0,
        "seccomp-docker": 1.7,
        "a-name-that-is-quite-long": 1,
    }
    for name, nanoseconds in (("getppid", 55), ("open_close", 1400), ("copyup_64m", 5e7)):
        for arm in truths:
            made.arm(f"micro/{name}", arm)
        made.blocks(f"micro/{name}", truths, seconds=nanoseconds, scatter=0.01, value="minimum_ns")
    return made


def ablations(made: Made, **more: Any) -> Made:
    features, truths = {"seccomp": 0.02, "nat": 0.05, "masked_paths": 0.0}, dict(PAIR)
    sets = {"none": frozenset[str](), "all": frozenset(features)}
    sets |= {f"+{name}": frozenset({name}) for name in features}
    sets |= {f"-{name}": frozenset(features) - {name} for name in features}
    for name, on in sets.items():
        made.arm("ablate/serve/small", name, "minictr", features=tuple(on))
        truths[name] = math.exp(sum(features[one] for one in on))
    made.blocks("ablate/serve/small", truths, **more)
    rungs = {**PAIR, "host": 1.0, "veth": 1.02, "bridge_netfilter": 1.03, "nat": 1.06, "proxy": 1.4}
    for name in rungs:
        made.arm("ablate/serve/small/ladder:network", name, "minictr")
    return made.blocks("ablate/serve/small/ladder:network", rungs, **more)


def lifecycle(made: Made) -> Made:
    truths = {"floor": 1.0, "floor-again": 1.0, "minictr-lib": 1.2, "minictr-cli": 2.0, "runc": 13.0}
    for name in truths:
        made.arm("lifecycle/start", name)
    extra = {f"phase_{name}_s": share for name, share in zip("abcdefghijkl", (0.2, 0.3, *([0.01] * 10)))}
    made.blocks("lifecycle/start", truths, seconds=0.003, scatter=0.05, extra=extra)
    for number in (1, 10, 100, 1000):
        made.blocks(
            f"lifecycle/alive/{number}", {"minictr-lib": 1.0, "minictr-cli": 1.1, "docker": 60.0}, seconds=0.004
        )
    return made


def everything() -> Made:
    return lifecycle(ablations(micro(workloads(Made(seed=3)))))


ALL = ["workloads", "closure", "ablation", "micro", "lifecycle", "quality", "thesis"]


class Checked(HTMLParser):
    """Whether every element that is opened is closed, ids are there once, and what is loaded from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.ids += [given["id"]] if given.get("id") else []  # type: ignore[list-item]
        self.loaded += [str(given[name]) for name in ("src", "href") if given.get(name)]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def page(made: Made, tmp_path: Path, name: str = "page.html") -> str:
    path = made.write(tmp_path / "results.jsonl")
    assert front.main(["report", path, "--out", str(tmp_path / name)]) == 0
    text = (tmp_path / name).read_text()
    checked = Checked()
    checked.feed(text)
    assert checked.open == []
    assert len(checked.ids) == len(set(checked.ids))
    assert all(link.startswith(("#", "data:")) for link in checked.loaded)
    assert {link[1:] for link in checked.loaded if link.startswith("#")} <= set(checked.ids)
    return text


def section_names(text: str) -> list[str]:
    return re.findall(r'<section id="([\w-]+)"', text)


def test_everything_has_its_chapter(tmp_path: Path) -> None:
    text = page(everything().end("workload/serve/small: podman: no image"), tmp_path)
    assert section_names(text) == ALL
    assert "podman is &lt;not&gt; installed &amp; never was" in text
    assert "workload/serve/small: podman: no image" in text
    for chart in ("overhead", "forest", "aa", "micro-first-writes", "lifecycle-alive-scale", "lifecycle-start-phases"):
        assert f'<figure id="{chart}">' in text
    assert text.count("<svg") == text.count("<figure") == text.count("The same as a table")
    assert "+8.0 % [" in text or "+7.9 % [" in text or "+8.1 % [" in text


@pytest.mark.parametrize(
    ("made", "chapters"),
    [
        (micro(Made()), ["micro", "quality", "thesis"]),
        (lifecycle(Made()), ["lifecycle", "quality", "thesis"]),
        (ablations(Made()), ["ablation", "quality", "thesis"]),
        (Made().blocks("workload/encrypt/small", {**PAIR, "docker": 1.1}), ["workloads", "quality", "thesis"]),
        (Made().blocks("workload/encrypt/small", PAIR), ["workloads", "quality", "thesis"]),
        (Made().blocks("workload/encrypt/small", {"bare": 1.0}, blocks=1), ["workloads", "quality", "thesis"]),
        (ablations(Made(), blocks=1), ["ablation", "quality", "thesis"]),
        (Made().blocks("own/thing", {**PAIR, "docker": 1.1}), ["other", "quality", "thesis"]),
        (Made().arm("workload/encrypt/small", "docker", unavailable="no dockerd"), ["quality", "thesis"]),
        (Made(), ["quality", "thesis"]),
    ],
    ids=[
        "micro",
        "lifecycle",
        "ablation",
        "two arms",
        "bare alone",
        "one block",
        "one block of an ablation",
        "unknown",
        "nothing there",
        "empty",
    ],
)
def test_partial_results_have_a_page(tmp_path: Path, made: Made, chapters: list[str]) -> None:
    text = page(made, tmp_path)
    found = section_names(text)
    assert [name for name in found if name != "closure"] == chapters
    assert "r1 (run) was interrupted: what was measured before is here" in text


def test_a_shut_gate_is_in_the_box_and_in_every_cell(tmp_path: Path) -> None:
    text = page(workloads(Made(seed=2)).end(steal=0.3), tmp_path)
    assert "Mind this" in text
    answer = text.split("<caption><span>The answer: time against bare")[1].split("</table>")[0]
    assert answer.count("unresolved: the machine was busy: 30.0% of the cpu time stolen") == 9


def test_two_machines_have_two_chapters_each(tmp_path: Path) -> None:
    first = workloads(Made("r1", machine="one")).end().write(tmp_path / "a.jsonl")
    other = workloads(Made("r2", machine="two", seed=9)).end().write(tmp_path / "b.jsonl")
    assert front.main(["report", first, other, "--out", str(tmp_path / "page.html")]) == 0
    names = section_names((tmp_path / "page.html").read_text())
    assert [name for name in names if name.startswith("workloads")] == ["workloads-1", "workloads-2"]


def test_the_directory_holds_charts_and_tables(tmp_path: Path) -> None:
    path = workloads(Made(seed=3)).end().write(tmp_path / "results.jsonl")
    out = tmp_path / "out"
    assert front.main(["report", path, "--out", str(out), "--no-png"]) == 0
    assert {entry.name for entry in out.iterdir()} == {"index.html", "report.md", "charts"}
    charts = sorted((out / "charts").glob("*.svg"))
    assert {"overhead", "forest", "aa", "thesis-loss", "workload-serve-small-mean"} <= {one.stem for one in charts}
    for chart in charts:
        root = ElementTree.fromstring(chart.read_text())
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert "var(" not in chart.read_text()
        table = chart.with_suffix(".md").read_text()
        assert table.startswith("### ") and "|---" in table
    text = (out / "report.md").read_text()
    assert "| encrypt small | " in text and "## The thesis of 2017" in text
    assert "| 4 serve 16,539 files | Docker | 26.9379 | 0.011243 | +9.78 % [+9.46, +10.10] | slower |" in text


def test_what_cannot_be_written_or_read_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = Made().write(tmp_path / "results.jsonl")
    (tmp_path / "file").write_text("")
    for arguments in (
        [str(tmp_path / "none")],
        [str(tmp_path / "file")],
        [path, "--out", str(tmp_path / "file" / "below")],
        [path, "--out", str(tmp_path / "no" / "page.html")],
    ):
        assert front.main(["report", *arguments]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("bench report: ")


def test_a_name_cannot_break_out(tmp_path: Path) -> None:
    evil = '"><script>alert(1)</script>'
    made = Made().arm("workload/encrypt/small", evil, evil, known=(evil,))
    text = page(made.blocks("workload/encrypt/small", {**PAIR, evil: 1.1}).end(evil), tmp_path)
    assert "<script>alert" not in text
    assert text.count("<script>") == 1


def test_cells_of_markdown_stay_in_their_row() -> None:
    table = Table.of(("a", ">b"), [(Cell("x|y", "min"), "1\n2")], "caption")
    assert table.markdown() == "**caption**\n\n| a | b |\n|---|---:|\n| ▼ x\\|y | 1 2 |\n"


def test_ticks_are_round_and_within() -> None:
    assert svg.Scale(-1.3, 9.2, 0, 100).ticks(5) == [0, 5]
    assert svg.Scale(0, 1, 0, 100).ticks(5) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert svg.Scale(1, 1000, 0, 90, logarithmic=True).ticks() == pytest.approx(
        [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]
    )
    assert svg.Scale(1, 1000, 0, 90, logarithmic=True)(10) == pytest.approx(30)
    assert [svg.seconds(value) for value in (1.5, 0.0042, 3.1e-7, 4.2e-8)] == ["1.5 s", "4.2 ms", "310 ns", "42 ns"]


def test_one_wide_interval_does_not_press_the_others_flat() -> None:
    lines = [forest.Line("a", Interval(1, 0.9, 1.1)), forest.Line("b", Interval(2, 1.8, 2.2))]
    wide = forest.Line("c", Interval(1.5, -500, 500))
    low, high = forest.limits([*lines, wide], [0.0])
    assert -5 < low < 0 and 2 < high < 7
    assert "polygon" in forest.forest([*lines, wide], unit="%").inline("n", "t", "d")


PROBLEMS = """
(() => {
  const told = [];
  const wide = document.documentElement.scrollWidth;
  if (wide > innerWidth) told.push(`the page is ${wide} wide in a window of ${innerWidth}`);
  for (const svg of document.querySelectorAll("svg.chart")) {
    const box = svg.getBoundingClientRect(), texts = [...svg.querySelectorAll("text")];
    const places = texts.map(text => text.getBoundingClientRect());
    places.forEach((place, at) => {
      const words = `${svg.closest("figure").id}: "${texts[at].textContent}"`;
      if (place.left < box.left - 1 || place.right > box.right + 1 || place.top < box.top - 1
          || place.bottom > box.bottom + 1) told.push(`${words} is cut off`);
      if (texts[at].hasAttribute("transform")) return;  // a slanted one's box is not its shape
      places.forEach((other, next) => {
        if (next <= at || texts[next].hasAttribute("transform")) return;
        const across = Math.min(place.right, other.right) - Math.max(place.left, other.left);
        const down = Math.min(place.bottom, other.bottom) - Math.max(place.top, other.top);
        if (across > 1.5 && down > 4) told.push(`${words} lies on "${texts[next].textContent}"`);
      });
    });
  }
  for (const cell of document.querySelectorAll("td, th, h1, h2, h3, p, li, figcaption, summary, dd"))
    if (cell.scrollWidth > cell.clientWidth + 1 && getComputedStyle(cell).display !== "inline")
      told.push(`${cell.tagName} "${cell.textContent.slice(0, 40)}" is wider than its place`);
  return told;
})()
"""
CONTRAST = """
(() => {
  const parts = text => text.match(/[\\d.]+/g).slice(0, 3).map(Number);
  const light = text => parts(text).map(part => part / 255)
    .map(part => part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
    .reduce((sum, part, at) => sum + part * [0.2126, 0.7152, 0.0722][at], 0);
  const ground = light(getComputedStyle(document.body).backgroundColor);
  const told = [];
  for (const each of document.querySelectorAll("p, td, th, a, summary, li, svg.chart text")) {
    const style = getComputedStyle(each), ink = light(each.closest("svg") ? style.fill : style.color);
    const ratio = (Math.max(ink, ground) + 0.05) / (Math.min(ink, ground) + 0.05);
    if (ratio < 4.5) told.push(`${each.textContent.slice(0, 30)}: ${ratio.toFixed(2)}`);
  }
  return [...new Set(told)];
})()
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of everything there can be."""
    directory = tmp_path_factory.mktemp("report")
    path = everything().end("workload/serve/small: podman: no image").write(directory / "results.jsonl")
    assert front.main(["report", path, "--out", str(directory / "page.html")]) == 0
    return directory / "page.html"


def chromium(requires) -> None:
    if not requires.has("chromium"):
        pytest.fail("not installed: chromium; scripts/bootstrap.sh bench installs it", pytrace=False)


@pytest.fixture
def browser(requires) -> Iterator[Browser]:
    chromium(requires)
    with Browser() as found:
        yield found


@pytest.mark.bench
@pytest.mark.slow
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (400, True)])
def test_a_browser_shows_all_of_it(whole: Path, browser: Browser, width: int, dark: bool) -> None:
    browser.open(str(whole), width=width, dark=dark)
    asked = [event["params"]["request"]["url"] for event in browser.events if _is(event, "Network.requestWillBeSent")]
    assert [url for url in asked if not url.startswith("data:")] == [whole.as_uri()]
    said = [event for event in browser.events if _is(event, "Runtime.exceptionThrown", "Log.entryAdded")]
    assert said == []
    assert not [event for event in browser.events if _is(event, "Runtime.consoleAPICalled")]
    assert browser.value("[...document.querySelectorAll('section')].map(one => one.id)") == ALL
    assert browser.value(PROBLEMS) == []
    assert browser.value(CONTRAST) == []
    assert browser.value("document.documentElement.dataset.theme") == ("dark" if dark else "light")
    assert len(browser.picture()) > 50_000


@pytest.mark.bench
@pytest.mark.slow
def test_the_toggle_changes_the_theme_and_prints_light(whole: Path, browser: Browser) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    browser.open(str(whole))
    light = browser.value(ground)
    browser.value("document.getElementById('theme').click()")
    dark = browser.value(ground)
    assert light == "rgb(255, 255, 255)" != dark
    browser.value("document.getElementById('theme').click()")
    assert browser.value(ground) == light
    browser.ask("Emulation.setScriptExecutionDisabled", value=True)  # no script: what the system says is enough
    browser.open(str(whole), dark=True)
    browser.ask("Emulation.setScriptExecutionDisabled", value=False)
    assert browser.value(ground) == dark
    assert browser.pdf().startswith(b"%PDF")
    browser.media("print", prefers_color_scheme="dark")
    assert browser.value(ground) == light


@pytest.mark.bench
@pytest.mark.slow
def test_every_chart_has_a_picture(tmp_path: Path, requires) -> None:
    chromium(requires)
    path = Made().blocks("workload/encrypt/small", {**PAIR, "docker": 1.1}).end().write(tmp_path / "results.jsonl")
    assert front.main(["report", path, "--out", str(tmp_path / "out")]) == 0
    charts = tmp_path / "out" / "charts"
    names = {one.stem for one in charts.glob("*.svg")}
    assert names == {one.stem for one in charts.glob("*.png")}
    for picture in charts.glob("*.png"):
        assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_without_a_browser_the_rest_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    path = Made().write(tmp_path / "results.jsonl")
    assert front.main(["report", path, "--out", str(tmp_path / "out")]) == 1
    assert "no PNG of the charts: no chromium" in capsys.readouterr().err
    assert (tmp_path / "out" / "index.html").exists()


def _is(event: dict[str, Any], *methods: str) -> bool:
    return event.get("method") in methods


def test_the_same_results_give_the_same_page(tmp_path: Path) -> None:
    path = micro(Made(seed=7)).end().write(tmp_path / "results.jsonl")
    found = results.load([path])
    assert [one.html() for one in build.sections(found)] == [one.html() for one in build.sections(found)]
