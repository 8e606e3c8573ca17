"""What ``python -m bench ablate`` says of known truths: the same as the page."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from known import Made
from ladders import loopback_ladder

from bench import __main__ as front
from bench import analysis, design, results
from bench.ablate import effects, rows, told
from bench.ablate.rows import Trial
from bench.ablate.words import OVERLAY
from bench.analysis import SLOWER, UNRESOLVED
from bench.samples import AGAIN, BARE

LOO = {"none": 1.0, "all": 1.2, "-seccomp": 1.1, "-overlay": 1.2, "-nat": 1.18}


def loo(**more: Any) -> Made:
    made, whole = Made(seed=3), ("seccomp", "overlay", "nat")
    for name in LOO:
        on = () if name == "none" else tuple(word for word in whole if word != name[1:])
        known = ("compared with all",) if name.startswith("-") else ("compared with bare",)
        made.arm("ablate/x/small/loo", name, "minictr", features=on, known=known)
    made.arm("ablate/x/small/loo", "-mnt", "minictr", unavailable="nat needs mnt")
    return made.blocks("ablate/x/small/loo", {BARE: 1.0, AGAIN: 1.0, **LOO}, **more)


def crossed(*, named: str = "network", **more: Any) -> Made:
    truths = {"docker-host-volume": 1.0, "docker-volume": 1.05, "docker-host": 1.01, "docker": 1.1}
    truths |= {"none+bind": 1.0, f"{named}+bind": 1.06, "none+overlay": 1.02, f"{named}+overlay": 1.06 * 1.02 * 1.03}
    truths |= {"proxy": 1.4, "bare-dockerd": 1.01}
    made = Made(seed=3)
    for name in truths:
        known = (f"compared with {named}+overlay",) if name == "proxy" else ("compared with bare",)
        made.arm("ablate/serve/small/nginx", name, known=known)
    return made.blocks("ablate/serve/small/nginx", {BARE: 1.0, AGAIN: 1.0, **truths}, **more)


def factorial(**more: Any) -> Made:
    made, truths = Made(seed=3), {BARE: 1.0, AGAIN: 1.0}
    for on in ((), ("nat",), ("overlay",), ("nat", "overlay")):
        name = "+".join(on) or "none"
        made.arm("ablate/x/small/factorial", name, "minictr", features=("mnt", *on))
        truths[name] = 1.05 ** len(on)
    return made.blocks("ablate/x/small/factorial", truths, **more)


def screen(**more: Any) -> Made:
    made, truths = Made(seed=3), {BARE: 1.0, AGAIN: 1.0}
    for row in design.screening(["masks", "seccomp", OVERLAY]).rows:
        words = (*(("masked_paths", "readonly_paths") if "masks" in row.on else ()), *(row.on - {"masks"}))
        made.arm("ablate/x/small/screen", row.name, "minictr", features=words, known=("compared with bare",))
        truths[row.name] = 1.08 ** ("seccomp" in row.on)
    return made.blocks("ablate/x/small/screen", truths, **more)


def rungs(**more: Any) -> Made:
    made, truths = Made(seed=3), {BARE: 1.0, AGAIN: 1.0, "veth": 1.1, "nat": 1.1 * 1.05}
    for name, below in (("veth", BARE), ("nat", "veth")):
        made.arm("ablate/x/small/ladder-network", name, known=(f"compared with {below}",))
    return made.blocks("ablate/x/small/ladder-network", truths, **more)


def lines_of(made: Made, tmp_path: Path, trials: rows.Trials | None = None) -> list[str]:
    found = results.load([made.write(tmp_path / "results.jsonl")])
    (name,) = {it.experiment for it in found.samples("one")}
    return told.text(found, "r1", name, trials or rows.Trials(()))


def line(found: list[str], *words: str) -> str:
    return next(it for it in found if it.split()[: len(words)] == list(words))


def test_an_arm_is_held_against_the_one_below_it(tmp_path: Path) -> None:
    trials = rows.Trials((Trial("broken", "", None, refused="nat needs veth"),), ("mind this",))
    found = lines_of(rungs().end(), tmp_path, trials)
    assert "slower by 10." in line(found, "veth", BARE) or "slower by 9.9" in line(found, "veth", BARE)
    assert "slower by 5." in line(found, "nat", "veth") or "slower by 4.9" in line(found, "nat", "veth")
    assert line(found, AGAIN).endswith("the A/A check")
    assert line(found, "broken").endswith("cannot be: nat needs veth")
    assert found[-1] == "  note: mind this"


METHODS = {"loo": loo, "nginx": crossed, "factorial": factorial, "screen": screen, "ladder-network": rungs}
SHUT = {
    "open": ({}, {}, ""),
    "few blocks": ({"blocks": 4}, {}, "4 of 5 blocks"),
    "noisy blocks": ({"noisy": 5}, {}, "the machine was busy in"),
    "load": ({"own": False}, {"load_before": 9.0}, "load average 9.00"),
    "steal": ({}, {"steal": 0.3}, "stolen"),
    "pressure": ({"own": False}, {"pressure_before": 50.0}, "tasks waited for a cpu"),
}


@pytest.mark.parametrize("gate", SHUT)
@pytest.mark.parametrize("method", METHODS)
def test_terminal_and_page_say_the_same(method: str, gate: str, tmp_path: Path) -> None:
    sampled, quiet, why = SHUT[gate]
    printed = lines_of(METHODS[method](**sampled).end(**quiet), tmp_path)
    assert front.main(["report", str(tmp_path / "results.jsonl"), "--out", str(tmp_path / "o"), "--no-png"]) == 0
    page = (tmp_path / "o" / "report.md").read_text()
    found = results.load([str(tmp_path / "results.jsonl")])
    (one,) = analysis.experiments(found, "one")
    said = effects.told(one, found.arms("one"))
    every = [*said.steps, *(each for family in said.effects for each in family.ones)]
    assert len(every) > 1
    for each in every:
        assert each.ratio is not None
        interval = analysis.interval_text(each.ratio)
        mine = [it for it in printed if it.strip().startswith(each.arm) and interval in it]
        assert mine and all(it.endswith(each.words if each.reason not in one.gates else UNRESOLVED) for it in mine)
        assert any(each.arm in row and interval in row and each.words in row for row in page.splitlines())
        assert analysis.span_text(each.together) in mine[0]
        assert not why or why in each.words
    if why:
        assert {each.verdict for each in every} == {UNRESOLVED}
        assert any(why in it for it in printed)
    else:
        assert SLOWER in {each.verdict for each in every}
    assert f"{len(said.steps)} steps" in "".join(printed) and f"{len(said.steps)} steps" in page


def test_two_bare_arms_that_differ_shut_the_gate(tmp_path: Path) -> None:
    made = Made(seed=3).arm("ablate/x/small/ladder-network", "veth", known=("compared with bare",))
    made.blocks("ablate/x/small/ladder-network", {BARE: 1.0, AGAIN: 1.03, "veth": 1.1})
    found = lines_of(made.end(), tmp_path)
    assert line(found, "veth", BARE).endswith(UNRESOLVED)
    assert any(it.startswith("  ! A/A: bare differs from itself by ") for it in found)


@pytest.mark.parametrize("named", ["network", "nat"], ids=["now", "as-earlier-results-have-it"])
def test_the_crossing_of_network_and_overlay_finds_its_interaction(tmp_path: Path, named: str) -> None:
    found = lines_of(crossed(named=named, scatter=0.001).end(), tmp_path)
    assert any(it.startswith("  minictr rebuilt as Docker: network path (cable, bridge, wall, NAT") for it in found)
    assert "slower by " in line(found, "network", "x", "overlay", "over", "none+bind")
    assert "slower by " in line(found, "network", "x", "overlay", "over", "docker-host-volume")
    assert "slower by " in line(found[-8:], "bare-dockerd", BARE)
    assert "slower by " in line(found[-8:], "proxy", f"{named}+overlay")


def test_screening_names_what_acts(tmp_path: Path) -> None:
    found = lines_of(screen().end(), tmp_path)
    assert "  acting: seccomp" in found
    nothing = screen(scatter=0.1)
    assert "  acting: none that could be told from noise" in lines_of(nothing.end(steal=0.3), tmp_path)


def test_nothing_measured_is_said(tmp_path: Path) -> None:
    found = results.load([Made().write(tmp_path / "results.jsonl")])
    trials = rows.Trials((Trial("veth", BARE, None, refused="no cable"),))
    said = told.text(found, "r1", "ablate/x/small/loo", trials)
    assert said[0] == "ablate/x/small/loo: nothing was measured"
    assert said[1].endswith("cannot be: no cable")


@pytest.mark.parametrize("refused", [True, False])
def test_the_text_names_what_a_comparison_jumps(tmp_path: Path, refused: bool) -> None:
    name, made, truths = "ablate/serve/small/way=local/nginx", Made(seed=3), {BARE: 1.0, AGAIN: 1.0}
    for trial in loopback_ladder()[1:]:
        absent = refused and trial.name in ("+veth", "+bridge")
        why = "127.0.0.1 leads nowhere" if absent else ""
        made.arm(
            name, trial.name, "minictr", features=trial.on, known=(f"compared with {trial.over}",), unavailable=why
        )
        if not absent:
            truths[trial.name] = 1.42 if trial.name == "+publish" else 1.0
    found = lines_of(made.blocks(name, truths).end(), tmp_path, rows.Trials(tuple(loopback_ladder())))
    if refused:
        assert re.search(r"slower by 4.* \(jumping \+veth, \+bridge\)$", line(found, "+publish", "+cgroups"))
        assert line(found, "+bridge").endswith("cannot be: 127.0.0.1 leads nowhere")
    else:
        assert "slower by 4" in line(found, "+publish", "+bridge") and "jumping" not in "".join(found)
