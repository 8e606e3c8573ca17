"""``python -m bench ablate``: its words, its rows, what it says of known truths, and one run. Never its times."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
from ladders import loopback_ladder

import minictr as mc
from bench import ROOT, samples
from bench import __main__ as front
from bench.ablate import cli, rows
from bench.ablate.rows import Trial
from bench.ablate.words import OVERLAY, TARGETS, Target, WordError
from bench.samples import AGAIN, BARE
from bench.stage import StageError
from bench.workloads import catalogue
from bench.workloads import cli as workload_cli


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
    assert target.spelled(found.row("-firewall").on) == frozenset(target.words) - {
        "bridge_netfilter",
        "conntrack",
        "nat",
        "publish",
    }
    found = rows.designed("loo", target, "seccomp,cable")
    assert target.spelled(found.row("-seccomp").on) == frozenset(target.words) - {"seccomp"}
    gone = {"veth", "bridge", "bridge_netfilter", "conntrack", "nat", "publish", "sysctl"}
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
        assert bool(cli.unreached(place.rungs, by_loopback)) is not reached
        assert cli.unreached(place.rungs, far) == ""
    trials = rows.Trials((Trial("veth", BARE, types.SimpleNamespace(rungs=("veth",))),))  # type: ignore[arg-type]
    (arm,) = cli.arms_of(trials, [by_loopback], None, "nginx")
    assert "by a published port only" in arm.unavailable()


def test_ladders_have_every_layer_of_landlock_and_every_controller(tmp_path: Path) -> None:
    stage = types.SimpleNamespace(rootfs="/", directory=str(tmp_path), layers=dict)
    by_name = {trial.name: trial for trial in rows.ladder("privilege", stage).trials}  # type: ignore[arg-type]
    for count in (1, 4, 16):
        trial = by_name[f"landlock-{count}"]
        assert trial.place is not None and trial.place.domains == count and trial.over == "no_new_privs"  # type: ignore[attr-defined]
    found = rows.ladder("cgroup", stage)  # type: ignore[arg-type]
    assert {"memory", "hugetlb", "rdma", "misc"} <= {trial.name for trial in found.trials}
    assert "in one hierarchy at a time" in found.notes[0]


def test_the_hierarchies_of_controllers_are_told(tmp_path: Path) -> None:
    table = tmp_path / "cgroups"
    table.write_text("#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t1\t5\t1\nhugetlb\t0\t5\t1\nrdma\t0\t1\t0\n")
    (line,) = rows.hierarchies(str(table))
    assert line.startswith("of cgroup v1: cpu; of v2, or of none: hugetlb. A controller is in one hierarchy")
    assert rows.hierarchies(str(tmp_path / "none")) == ("the controllers are those of cgroup v2",)


def test_it_begins_at_bare_and_nowhere_else(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["ablate", "--workload", "encrypt", "--to", "lxc", "--plan", "--from"]
    assert front.main([*words, "bare"]) == 0
    assert "\n-seccomp " in capsys.readouterr().out
    with pytest.raises(SystemExit):
        front.main([*words, "docker"])
    assert "invalid choice: 'docker'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("count", "words"), [(0, "0 bytes"), (1023, "1023 bytes"), (5 << 20, "5.0 MiB"), (3 << 29, "1.5 GiB")]
)
def test_amounts_are_said_in_a_unit_that_shows_them(count: int, words: str) -> None:
    assert workload_cli.amount(count) == words


def test_a_disk_that_is_full_is_told_in_units_that_show_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workload_cli.os, "statvfs", lambda _: types.SimpleNamespace(f_bavail=3, f_frsize=4096))
    with pytest.raises(StageError, match=r"needs \d+\.\d [MK]iB in /x, where 12\.0 KiB are free"):
        workload_cli.room([catalogue.made("encrypt", "tiny")], "/x")


def test_a_rung_is_hung_on_the_last_one_that_could_be_had_for_its_workload() -> None:
    far, near = catalogue.made("serve", "tiny"), catalogue.made("serve:way=local", "tiny")
    made = cli.arms_of(rows.Trials(tuple(loopback_ladder())), [far, near], None, "nginx")
    known = {(arm.experiment.split("/")[-2], arm.name): arm.known for arm in made}
    assert known["tiny", "+publish"] == ("compared with +bridge",)
    assert known["way=local", "+publish"] == (
        "compared with +cgroups",
        "jumps +veth, +bridge, which cannot be had for this workload",
    )
    assert known["way=local", "+bridge"] == ("compared with +cgroups",), "a later reader finds what it stood on"


def test_the_plan_of_the_web_servers_question_is_one_for_each_way(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["ablate", "--workload", "serve", "--method", "nginx", "--plan"]
    assert front.main(words) == 0
    far, near = capsys.readouterr().out.split("ablate/serve/small/way=local/nginx:")
    (line,) = [line for line in near.splitlines() if line.startswith("  +publish ")]
    assert "over +cgroups (jumping +veth, +bridge, +bridge_netfilter)" in line
    assert "+veth               cannot be: 127.0.0.1" in near and "jumping" not in far and "cannot be" not in far
    arms = {line.split()[0] for line in far.splitlines()[1:]}
    assert {"network+overlay", "network+bind", "none+overlay", "none+bind", "proxy", "docker-host", "+nat"} <= arms


def test_a_factorial_of_words_has_what_they_stand_on_in_every_row() -> None:
    found = rows.designed("factorial", Target.of("docker", lan=True), "nat,overlay")
    assert {row.name: set(row.on) for row in found.rows} == {
        "none": {"veth", "mnt"},
        "nat": {"veth", "mnt", "nat"},
        OVERLAY: {"veth", "mnt", OVERLAY},
        "nat+overlay": {"veth", "mnt", "nat", OVERLAY},
    }


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
    assert "\n  +nat " in out and "over +conntrack" in out
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
