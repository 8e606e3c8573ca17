"""``python -m bench ablate``: its words, its rows, what it says of known truths, and one run. Never its times."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from known import Made

import minictr as mc
from bench import ROOT, analysis, design, results, samples
from bench import __main__ as front
from bench.ablate import cli, effects, rows, told
from bench.ablate.rows import Trial
from bench.ablate.words import OVERLAY, TARGETS, Target, WordError
from bench.analysis import SLOWER, UNRESOLVED
from bench.samples import AGAIN, BARE
from bench.workloads import catalogue


def names(box: mc.Container) -> set[str]:
    return {one.name for one in box.features}


@pytest.mark.parametrize("to", TARGETS)
def test_all_words_are_the_whole_container(to: str) -> None:
    target = Target.of(to, lan=True)
    box, overlay, rungs = target.container(frozenset(target.words))
    profile, layer, wanted = TARGETS[to]
    assert set(box.features) == set(mc.Container("/", features=profile).features)
    assert (overlay, set(rungs)) == (layer, set(wanted))
    assert not target.possible(frozenset(target.words))


@pytest.mark.parametrize("to", TARGETS)
def test_no_words_are_a_chroot(to: str) -> None:
    target = Target.of(to, lan=True)
    box, overlay, rungs = target.container(frozenset())
    assert {"chroot"} <= names(box) <= {"chroot", "env", "net", "loopback", "session"}
    assert not overlay and not rungs and not target.possible(frozenset())


def test_off_is_absence_and_nothing_else() -> None:
    target = Target.of("docker", lan=False)
    whole, _, _ = target.container(frozenset(target.words))
    less, _, _ = target.container(frozenset(target.words) - {"seccomp"})
    assert names(whole) - names(less) == {"seccomp"} and set(less.features) < set(whole.features)


@pytest.mark.parametrize(("to", "method"), [("docker", "aoi"), ("lxc", "loo")])
def test_every_feature_is_in_a_row_or_told_why_not(to: str, method: str) -> None:
    target = Target.of(to, lan=True)
    found = rows.designed(method, target, "")
    there = {row.name.lstrip("+-") for row in found.rows} | {name.lstrip("+-") for name, _ in found.refused}
    assert there - {"none", "all"} == set(target.words)
    assert all(why for _, why in found.refused)


def test_leaving_out_a_few_leaves_all_others_on() -> None:
    target = Target.of("docker", lan=True)
    found = rows.designed("loo", target, "seccomp,firewall")
    assert target.spelled(found.row("-seccomp").on) == frozenset(target.words) - {"seccomp"}
    assert target.spelled(found.row("-firewall").on) == frozenset(target.words) - {"conntrack", "nat", "publish"}
    found = rows.designed("loo", target, "seccomp,cable")
    assert target.spelled(found.row("-seccomp").on) == frozenset(target.words) - {"seccomp"}
    gone = {"veth", "bridge", "conntrack", "nat", "publish", "sysctl"}
    assert target.spelled(found.row("-cable").on) == frozenset(target.words) - gone


def test_what_stands_on_a_feature_goes_with_it_and_is_told() -> None:
    found = rows.designed("loo", Target.of("docker", lan=True), "")
    assert "hostname" not in found.row("-uts").on
    assert "-uts takes hostname, hostname_file along, which cannot be without it" in found.notes
    refused = dict(rows.designed("aoi", Target.of("docker", lan=True), "").refused)
    assert "without any controller" in refused["+cgroupfs"], "in minictr's own words"


def test_rungs_are_words_only_where_the_network_is_used() -> None:
    assert "nat" in Target.of("docker", lan=True).words
    assert "nat" not in Target.of("docker", lan=False).words
    with pytest.raises(WordError, match="has no feature nat; it has mnt"):
        Target.of("docker", lan=False).factors("nat")


def test_screening_keeps_on_what_others_stand_on() -> None:
    target = Target.of("docker", lan=True)
    found = rows.designed("screen", target, "")
    assert not found.refused
    assert set(found.factors) == {"masks", "process", "privilege", "seccomp", "cgroups", OVERLAY, "firewall"}
    ground = frozenset.intersection(*(target.spelled(row.on) for row in found.rows))
    assert {"mnt", "veth", "proc"} <= ground
    assert found.notes[0].startswith("on in every row, for others stand on it: ")
    assert "clear of all pairs" in found.notes[1]


def test_the_rebuild_goes_from_a_chroot_to_the_whole_one_step_at_a_time() -> None:
    target = Target.of("docker", lan=True)
    found = rows.rebuild(target)
    assert not found.refused and found.rows[0].name == "chroot"
    assert found.rows[-1].on == frozenset(target.words)
    for below, above in zip(found.rows, found.rows[1:]):
        assert above.over == below.name and below.on < above.on


def test_who_comes_by_loopback_needs_a_published_port() -> None:
    by_loopback, far = catalogue.made("serve:way=local", "tiny"), catalogue.made("serve", "tiny")
    for rungs, reached in (((), True), (("veth",), False), (("veth", "publish"), True)):
        place = types.SimpleNamespace(rungs=rungs)
        assert bool(cli.unreached(place, by_loopback)) is not reached
        assert cli.unreached(place, far) == ""
    trials = rows.Trials((Trial("veth", BARE, types.SimpleNamespace(rungs=("veth",))),))  # type: ignore[arg-type]
    (arm,) = cli.arms_of(trials, [by_loopback], None, "nginx")
    assert "by a published port only" in arm.unavailable()


def test_a_factorial_of_words_has_what_they_stand_on_in_every_row() -> None:
    found = rows.designed("factorial", Target.of("docker", lan=True), "nat,overlay")
    assert {row.name: set(row.on) for row in found.rows} == {
        "none": {"veth", "mnt"},
        "nat": {"veth", "mnt", "nat"},
        OVERLAY: {"veth", "mnt", OVERLAY},
        "nat+overlay": {"veth", "mnt", "nat", OVERLAY},
    }


# --- what it says of known truths: the same as the page ---

LOO = {"none": 1.0, "all": 1.2, "-seccomp": 1.1, "-overlay": 1.2, "-nat": 1.18}


def loo(**more: Any) -> Made:
    made, whole = Made(seed=3), ("seccomp", "overlay", "nat")
    for name in LOO:
        on = () if name == "none" else tuple(word for word in whole if word != name[1:])
        known = ("compared with all",) if name.startswith("-") else ("compared with bare",)
        made.arm("ablate/x/small/loo", name, "minictr", features=on, known=known)
    made.arm("ablate/x/small/loo", "-mnt", "minictr", unavailable="nat needs mnt")
    return made.blocks("ablate/x/small/loo", {BARE: 1.0, AGAIN: 1.0, **LOO}, **more)


def crossed(**more: Any) -> Made:
    truths = {"docker-host-volume": 1.0, "docker-volume": 1.05, "docker-host": 1.01, "docker": 1.1}
    truths |= {"none+bind": 1.0, "nat+bind": 1.06, "none+overlay": 1.02, "nat+overlay": 1.06 * 1.02 * 1.03}
    truths |= {"proxy": 1.4, "bare-dockerd": 1.01}
    made = Made(seed=3)
    for name in truths:
        known = ("compared with nat+overlay",) if name == "proxy" else ("compared with bare",)
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
    "load": ({}, {"load_before": 9.0}, "load average 9.00"),
    "steal": ({}, {"steal": 0.3}, "stolen"),
    "pressure": ({}, {"pressure_before": 50.0}, "tasks waited for a cpu"),
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


def test_the_crossing_of_nat_and_overlay_finds_its_interaction(tmp_path: Path) -> None:
    found = lines_of(crossed(scatter=0.001).end(), tmp_path)
    assert "  minictr rebuilt as Docker: NAT x overlay:" in found
    assert "slower by " in line(found, "nat", "x", "overlay", "over", "none+bind")
    assert "slower by " in line(found, "nat", "x", "overlay", "over", "docker-host-volume")
    assert "slower by " in line(found[-8:], "bare-dockerd", BARE)
    assert "slower by " in line(found[-8:], "proxy", "nat+overlay")


def test_screening_names_what_acts(tmp_path: Path) -> None:
    found = lines_of(screen().end(), tmp_path)
    assert "  acting: seccomp" in found
    nothing = screen(scatter=0.1)
    assert "  acting: none that could be told from noise" in lines_of(nothing.end(load_before=9.0), tmp_path)


def test_nothing_measured_is_said(tmp_path: Path) -> None:
    found = results.load([Made().write(tmp_path / "results.jsonl")])
    trials = rows.Trials((Trial("veth", BARE, None, refused="no cable"),))
    said = told.text(found, "r1", "ablate/x/small/loo", trials)
    assert said[0] == "ablate/x/small/loo: nothing was measured"
    assert said[1].endswith("cannot be: no cable")


# --- from the command line ---


def test_an_ablation_has_a_path_of_its_own() -> None:
    workload = catalogue.made("serve:way=local", "small")
    assert cli.experiment_of(workload, "ladder:network") == "ablate/serve/small/way=local/ladder-network"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--workload", "nonsense"], "no workload nonsense"),
        (["--workload", "encrypt", "--factors", "nonsense"], "docker has no feature nonsense"),
        (["--workload", "encrypt", "--method", "ladder:network"], "encrypt is not reached over the network"),
        (["--workload", "encrypt", "--method", "nginx"], "is about the workload serve"),
        (["--workload", "serve", "--method", "nginx", "--to", "lxc"], "takes Docker apart"),
        (["--workload", "serve", "--own-programs"], "needs Debian's packages"),
        (["--workload", "encrypt", "--method", "factorial"], "at most 5"),
    ],
)
def test_mistakes_are_one_line_and_nothing_is_made(
    words: list[str], said: str, tmp_path: Path, capsys, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert front.main(["ablate", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("bench ablate: ") and said in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_the_plan_can_be_looked_at_without_measuring(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert front.main(["ablate", "--workload", "serve", "--method", "nginx", "--plan"]) == 0
    out = capsys.readouterr().out
    assert "\n+nat " in out and "over +conntrack" in out
    assert not list(tmp_path.iterdir())


@pytest.fixture
def scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="minictr-test-bench-", dir="/var/tmp") as path:
        yield Path(path)


def bench(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=110)


@pytest.mark.slow
def test_a_run_reads_back_what_each_arm_was_planned_to_be(tmp_path: Path, scratch: Path, requires) -> None:
    requires.root()
    requires("cc", "openssl")
    path = tmp_path / "a.jsonl"
    common = ("--size", "tiny", "--own-programs", "--scratch", str(scratch))
    words = ("--workload", "encrypt", "--method", "aoi", "--factors", "seccomp,overlay,cgroupfs", "--blocks", "1")
    done = bench("ablate", *words, *common, "--rest", "0", "--seed", "1", "--out", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    records = list(samples.read(str(path)))
    found = {it.arm: it for it in records if isinstance(it, samples.Sample)}
    assert set(found) == {BARE, AGAIN, "none", "+seccomp", "+overlay"}
    assert all(it.experiment == "ablate/encrypt/tiny/aoi" and not it.discarded for it in found.values())
    assert {arm: it.state["seccomp"] for arm, it in found.items() if it.state["seccomp"]} == {"+seccomp": 1}
    roots = {arm: it.state["root"]["fstype"] for arm, it in found.items()}
    assert roots["+overlay"] == "overlay" and "overlay" not in {roots["none"], roots["+seccomp"]}
    known = {it.name: it for it in records if isinstance(it, samples.Arm)}
    assert known["none"].features == ("mnt", "cgroupns", "sysfs")
    assert known["+overlay"].features == (*known["none"].features, OVERLAY)
    assert "cannot be: cgroupfs without any controller" in done.stdout
    assert not list(scratch.iterdir()), "nothing is left"


@pytest.mark.slow
def test_a_workload_is_counted_and_the_counts_are_its_bytes(tmp_path: Path, scratch: Path, requires) -> None:
    requires.root()
    requires("cc", "openssl")
    path = tmp_path / "c.jsonl"
    common = ("--size", "tiny", "--own-programs", "--scratch", str(scratch))
    done = bench("count", "--workloads", "encrypt", *common, "--out", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    counts = {it.operation: it.times for it in samples.read(str(path)) if isinstance(it, samples.Count)}
    assert counts["append_4k"] == pytest.approx(4 * 1024 / 4, rel=0.01), "4 MiB are written by 4 KiB"
    read = sum(counts[name] * size for name, size in (("read_1", 1), ("read_4k", 4096), ("read_64k", 65536)))
    assert read == pytest.approx(4 << 20, rel=0.1) and counts["open_close"] > 1
    assert done.stdout.startswith("workload/encrypt/tiny: ")
    assert not list(scratch.iterdir()), "nothing is left"
