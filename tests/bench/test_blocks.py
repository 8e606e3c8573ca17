"""The runner of blocks with arms that do nothing: orders, resuming, discarding, stopping. No value is timed."""

from __future__ import annotations

import io
import itertools
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from bench import blocks, paired, progress, samples, session
from bench.blocks import Blocks, Plan
from bench.environments.base import EnvironmentBroken
from bench.samples import AGAIN, BARE
from bench.workloads.base import WrongResult


class Fake:
    """An arm whose wall_s is what VALUE answers for each call (from 0); an exception it answers is raised."""

    environment, features, known = "fake", ("uts",), ("is not measured",)

    def __init__(self, name: str, value: Callable[[int], object] = lambda call: 1.0, experiment: str = "x") -> None:
        self.name, self.experiment, self._value = name, experiment, value
        self.calls = self.cleaned = 0
        self.reason, self.state = "", {"seccomp": 2}
        self.log: list[tuple[str, str]] = []

    def unavailable(self) -> str:
        return self.reason

    def prepare(self) -> None:
        self.log.append((self.experiment, f"prepare {self.name}"))

    def measure(self) -> blocks.Measured:
        self.log.append((self.experiment, self.name))
        found = self._value(self.calls)
        self.calls += 1
        if isinstance(found, BaseException):
            raise found
        return {"wall_s": float(found)}, self.state, {"seccomp": 2}  # type: ignore[arg-type]

    def cleanup(self) -> Sequence[str]:
        self.cleaned += 1
        return []


class Told(progress.Silent):
    """A progress that keeps its lines."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def tell(self, line: str) -> None:
        self.lines.append(line)


def measured(arms: list[Fake], *, earlier: Sequence[samples.Record] = (), **plan: object):
    """(outcome, records written, lines told) of the arms and two bare ones, in one common log."""
    log: list[tuple[str, str]] = []
    for arm in arms:
        arm.log = log
    written: list[samples.Record] = []
    told = Told()
    plan = {"blocks": 4, "seed": 3, "rest": 0.0, **plan}
    runner = Blocks(arms, "r", written.append, Plan(**plan), earlier=earlier, progress=told)  # type: ignore[arg-type]
    return runner.measure(), written, told


def trio(value: Callable[[int], object] = lambda call: 2.0, experiment: str = "x") -> list[Fake]:
    return [
        Fake(BARE, experiment=experiment),
        Fake(AGAIN, experiment=experiment),
        Fake("docker", value, experiment=experiment),
    ]


def samples_of(records: Sequence[samples.Record]) -> list[samples.Sample]:
    return [it for it in records if isinstance(it, samples.Sample)]


def test_each_block_has_every_arm_once_in_an_order_of_its_own() -> None:
    arms = trio()
    _, written, _ = measured(arms, blocks=12)
    found = samples_of(written)
    by_block = [[it.arm for it in found if it.block == block] for block in range(12)]
    assert all(sorted(names) == sorted([BARE, AGAIN, "docker"]) for names in by_block)
    assert len({tuple(names) for names in by_block}) > 3
    assert [name for _, name in arms[0].log if not name.startswith("prepare")] == list(itertools.chain(*by_block))
    assert [it.position for it in found] == [0, 1, 2] * 12
    assert all(arm.cleaned == 1 for arm in arms)


def test_the_seed_alone_makes_the_order() -> None:
    orders = [[it.arm for it in samples_of(measured(trio(), seed=seed)[1])] for seed in (3, 3, 4)]
    assert orders[0] == orders[1] != orders[2]


def test_experiments_advance_together() -> None:
    _, written, _ = measured([*trio(experiment="x"), *trio(experiment="y")], blocks=3)
    assert [it.block for it in samples_of(written)] == sorted([0, 1, 2] * 6)


def test_two_bare_arms_or_nothing() -> None:
    with pytest.raises(ValueError, match="has no arm bare-again"):
        Blocks(trio()[::2], "r", lambda record: None, Plan(1, 1))
    with pytest.raises(ValueError, match="same name"):
        Blocks([*trio(), Fake(BARE)], "r", lambda record: None, Plan(1, 1))


def test_an_interrupted_run_goes_on_where_it_was() -> None:
    whole = [(it.block, it.arm) for it in samples_of(measured(trio())[1])]
    _, first, _ = measured(trio(), blocks=2)
    assert len(samples_of(first)) == 6
    with pytest.raises(KeyboardInterrupt):
        measured(stopped := trio(lambda call: KeyboardInterrupt()))
    assert all(arm.cleaned == 1 for arm in stopped)

    outcome, second, told = measured(trio(), earlier=first)
    assert [(it.block, it.arm) for it in samples_of([*first, *second])] == whole
    assert len(outcome.samples) == 12
    assert not [it for it in second if isinstance(it, samples.Arm)], "each arm is told once"
    assert (told.total, told.done) == (6, 6)


def test_a_run_that_has_all_its_blocks_makes_nothing() -> None:
    _, first, _ = measured(trio())
    arms = trio()
    outcome, second, _ = measured(arms, earlier=first)
    assert second == [] and not outcome.failed
    assert all(arm.log == [] and arm.cleaned == 0 for arm in arms)


def test_a_discarded_sample_is_told_kept_and_measured_again_when_resumed() -> None:
    arms = trio()
    arms[2].state = {"seccomp": 0}
    outcome, written, told = measured(arms, blocks=1)
    (line,) = outcome.discarded
    assert line in told.lines
    assert line == "x: docker, block 1: not as planned: seccomp is 0, planned was 2"
    (sample,) = [it for it in samples_of(written) if it.arm == "docker"]
    assert sample.discarded
    assert sample.state == {"seccomp": 0}
    _, again, _ = measured(trio(), earlier=written, blocks=1)
    assert [(it.arm, it.discarded) for it in samples_of(again)] == [("docker", "")]


@pytest.mark.parametrize("error", [EnvironmentBroken("no daemon"), WrongResult("2 bytes"), OSError(28, "Full")])
def test_an_arm_that_breaks_twice_is_out_and_the_others_go_on(error: Exception) -> None:
    arms = trio(lambda call: error)
    outcome, written, told = measured(arms, blocks=5)
    assert arms[2].calls == 2
    assert arms[0].calls == arms[1].calls == 5
    line = outcome.failed["x", "docker"]
    assert str(error) in line and any(line in it for it in told.lines)
    assert [it.arm for it in samples_of(written) if it.discarded] == ["docker"] * 2
    assert told.total == told.done == 12


def test_one_failure_between_good_samples_is_forgiven() -> None:
    arms = trio(lambda call: EnvironmentBroken("once") if call == 1 else 2.0)
    outcome, _, _ = measured(arms, blocks=5)
    assert not outcome.failed and arms[2].calls == 5


def test_a_mistake_of_the_bench_is_not_an_arm_that_breaks() -> None:
    arms = trio(lambda call: KeyError("typo"))
    with pytest.raises(KeyError):
        measured(arms)
    assert all(arm.cleaned == 1 for arm in arms)


def test_what_cannot_be_had_has_a_record_with_the_reason() -> None:
    arms = trio()
    arms[2].reason = "not installed"
    outcome, written, _ = measured(arms, blocks=2)
    (record,) = [it for it in written if isinstance(it, samples.Arm) and it.name == "docker"]
    assert record.unavailable == outcome.unavailable["x", "docker"] == "not installed"
    assert record.features == ("uts",) and record.known
    assert not arms[2].calls and arms[0].calls == 2


def test_without_bare_an_experiment_ends() -> None:
    arms = [Fake(BARE, lambda call: OSError(5, "disk")), Fake(AGAIN), Fake("docker")]
    outcome, _, _ = measured([*arms, *trio(experiment="y")], blocks=6)
    assert arms[2].calls == 2
    assert len([it for it in outcome.samples if it.experiment == "y"]) == 18


def test_precision_ends_an_experiment_and_significance_does_not() -> None:
    """Docker takes twice as long in every block, which five blocks show; the second bare arm is not known well."""
    sharp, vague = trio(), trio(experiment="y")
    vague[1] = Fake(AGAIN, lambda call: 1.0 + call % 3, "y")
    outcome, _, told = measured([*sharp, *vague], blocks=8, precision=0.01)
    assert [arm.calls for arm in sharp] == [paired.FEWEST] * 3
    assert [arm.calls for arm in vague] == [8] * 3
    assert any("precise enough" in line for line in told.lines)
    assert told.total == told.done
    assert not outcome.ended


def test_the_time_ends_a_run_between_blocks() -> None:
    arms = trio()
    outcome, written, _ = measured(arms, blocks=1000, seconds=0.2, rest=0.02)
    assert "the time was up" in outcome.ended
    assert len(samples_of(written)) % 3 == 0 and 0 < len(samples_of(written)) < 3000


def test_a_sample_says_how_noisy_it_was() -> None:
    _, written, _ = measured(trio(), blocks=1, rest=0.05)
    for sample in samples_of(written):
        assert {"load_before", "rest_busy", "steal", "busy", "noisy"} <= sample.noise.keys()


def test_cleaning_up_is_not_disturbed_by_a_second_signal() -> None:
    arms = trio(lambda call: KeyboardInterrupt())
    arms[0].cleanup = lambda: os.kill(os.getpid(), signal.SIGINT) or ["left over"]  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        measured(arms)
    assert arms[1].cleaned == arms[2].cleaned == 1
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_lines_say_how_much_is_left() -> None:
    stream = io.StringIO()
    plain = progress.shown(stream)
    assert isinstance(plain, progress.Plain)
    plain.begin(10, 0)
    plain.advance()
    plain.step("block 1")
    assert stream.getvalue().startswith("[1/10, 0:00 left] block 1")
    assert [progress.clock(seconds) for seconds in (None, 59.6, 187, 3760)] == ["unknown", "1:00", "3:07", "1:02:40"]


class TestSession:
    """The file around the blocks."""

    def test_begun_interrupted_and_resumed(self, tmp_path: Path) -> None:
        path = str(tmp_path / "r.jsonl")
        with session.begun(path, "run", seed=3, arguments={"blocks": 2}) as it:
            Blocks(trio(), it.run.id, it.write, Plan(1, 3, rest=0)).measure()
        with open(path, "a") as file:
            file.write('{"kind":"sample","cut sh')
        run, earlier = session.interrupted(path, "run")
        assert (run.seed, run.arguments, len(samples_of(earlier))) == (3, {"blocks": 2}, 3)
        with session.resumed(path, run, earlier) as it:
            Blocks(trio(), it.run.id, it.write, Plan(2, 3, rest=0), earlier=it.earlier).measure()
            it.end(["docker broke"])
        records = list(samples.read(path))
        assert len([it for it in records if isinstance(it, samples.Run)]) == 1
        assert [it.block for it in samples_of(records)] == [0, 0, 0, 1, 1, 1]
        assert isinstance(records[-1], samples.End) and records[-1].failed == ("docker broke",)

    def test_a_file_with_results_is_never_written_over(self, tmp_path: Path) -> None:
        path = tmp_path / "r.jsonl"
        path.write_text("something\n")
        with (
            pytest.raises(session.SessionError, match="holds results already"),
            session.begun(str(path), "run", seed=1, arguments={}),
        ):
            pass
        assert path.read_text() == "something\n"

    def test_what_cannot_be_gone_on_with(self, tmp_path: Path) -> None:
        path = tmp_path / "r.jsonl"
        with pytest.raises(session.SessionError, match="No such file"):
            session.interrupted(str(path), "run")
        path.write_text("no json\n")
        with pytest.raises(session.SessionError, match="line 1"):
            session.interrupted(str(path), "run")
        path.write_text(samples.to_line(samples.Run("a", "micro", "m", 1, 0.0, {}, {})))
        with pytest.raises(session.SessionError, match="no `bench run`"):
            session.interrupted(str(path), "run")
        path.write_text(samples.to_line(samples.Run("a", "run", "elsewhere", 1, 0.0, {}, {})))
        with pytest.raises(session.SessionError, match="measured on elsewhere"):
            session.interrupted(str(path), "run")

    def test_a_full_disk_leaves_whole_records_and_a_line_that_says_so(self, small_disk: Path) -> None:
        path = str(small_disk / "r.jsonl")

        def until_full() -> None:
            with session.begun(path, "run", seed=3, arguments={}) as it:
                (small_disk / "ballast").write_bytes(bytes(os.statvfs(small_disk).f_bavail * 4096 - 4096))
                Blocks(trio(), it.run.id, it.write, Plan(1000, 3, rest=0)).measure()

        with pytest.raises(session.SessionError, match=r"No space left on device.*--resume") as caught:
            until_full()
        assert path in str(caught.value)
        text = Path(path).read_text()
        assert text.endswith("\n")
        assert len(samples_of(list(samples.read(path)))) > 3
        os.unlink(small_disk / "ballast")
        run, earlier = session.interrupted(path, "run")
        with session.resumed(path, run, earlier) as it:
            it.end()
        assert isinstance(list(samples.read(path))[-1], samples.End)
