"""The micro tier in the blocks of bench/blocks.py: an arm is run once a block, all its operations in one run.

The runner sees one sample a block and arm, of the experiment ``micro`` or ``micro/lan``; results files have one for
each operation, ``micro/getppid``, as if each had been an experiment. ``split`` and ``joined`` are the two directions.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import subprocess
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import minictr as mc
from bench import samples
from bench.blocks import Measured
from bench.environments import registry
from bench.environments.base import EnvironmentBroken, Job
from bench.environments.ours import Minictr
from bench.environments.place import Place
from bench.micro import program
from bench.micro.arms import IDS, LAYERS, Wish
from bench.stage import Stage, StageError
from bench.workloads import client

PORT = 5201
CLIENT_TIMEOUT = 120.0
REFUSED = "refused"  # in a sample's state: operation -> reason
DOT = "."  # between an operation and its measure, in the sample that the runner sees


@contextlib.contextmanager
def told(what: str, where: str) -> Iterator[None]:
    """An OSError within becomes a StageError: one line that says WHAT was attempted WHERE, and the cure."""
    try:
        yield
    except OSError as err:
        raise StageError(f"cannot {what} in {where}: {err.strerror or err}; --scratch names another disk") from err


class MicroStage(Stage):
    """A stage whose root has the program and its files as well; the shared one of the cache is never written to."""

    plain = ""

    def __enter__(self) -> MicroStage:
        super().__enter__()
        return self

    def furnish(self, sizes: Sequence[str] = tuple(program.LOWER)) -> None:
        """From here on the root is a copy, with files of SIZES to be written to for the first time.

        Raises StageError when it cannot be made, such as on a full disk; ProgramError without a compiler.
        """
        self.progress("making the root file system of the micro tier")
        root = os.path.join(self.directory, "micro-root")
        done = subprocess.run(["cp", "-a", "--", self.rootfs, root], capture_output=True, text=True, check=False)
        if done.returncode:
            said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise StageError(f"cannot make the micro tier's root: {said}; --scratch names another disk")
        with told("make the micro tier's files", root):
            program.furnish(root, sizes)
        self.plain, self.rootfs = self.rootfs, root

    def touched(self) -> str:
        mine, self.rootfs = self.rootfs, self.plain or self.rootfs
        try:
            return super().touched()
        finally:
            self.rootfs = mine

    @property
    def client(self) -> str:
        """The program, for the far end."""
        return self.rootfs + program.PROGRAM

    def layers(self) -> dict[int, list[str]]:
        """How many layers in all -> the directories below the root. Raises StageError."""
        with told("make layers", self.directory):
            most = [program.layer(os.path.join(self.directory, f"layer-{number}")) for number in range(max(LAYERS) - 1)]
        return {count: most[: count - 1] for count in LAYERS}


class Answering(mc.Container):
    """A container whose filter asks, and is always told to go on."""

    def popen(self, args: Sequence[str], **options: Any) -> mc.Process:
        return super().popen(args, on_syscall=lambda call: mc.CONTINUE, **options)


class Notified(Minictr):
    """minictr with a filter that asks a function."""

    def container(self, job: Job) -> mc.Container:
        box = super().container(job)
        return Answering(box.rootfs, features=box.features)


class Places:
    """The environment of each wish: one for all wishes of a whole container (one dockerd), else one for each."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._made: dict[str, Place] = {}

    def of(self, wish: Wish) -> Place | None:
        """None for an environment that this bench does not have."""
        if wish.features is None and wish.environment not in registry.ENVIRONMENTS:
            return None
        label = wish.environment if wish.features is None else f"micro-{wish.key.replace(':', '-')}"
        if label not in self._made:
            self._made[label] = self._make(wish, label)
        return self._made[label]

    def _make(self, wish: Wish, label: str) -> Place:
        if wish.features is None:
            return registry.ENVIRONMENTS[wish.environment](self._stage, label)
        kind = Notified if wish.notifies else Minictr
        made = kind(self._stage, label, features=wish.features, rungs=wish.rungs, overlay=wish.overlay)
        made.owner = IDS if wish.owner else 0
        return made


@dataclasses.dataclass
class MicroArm:
    """See bench.blocks.Arm."""

    wish: Wish
    place: Place | None
    operations: tuple[str, ...]
    far: str  # the program's path, for the client
    seed: int
    bursts: int

    def __post_init__(self) -> None:
        self.experiment, self.name = self.wish.experiment, self.wish.name
        self.environment = self.wish.environment
        given = self.wish.features if self.wish.features is not None else getattr(self.place, "features", ())
        self.features = tuple(dict.fromkeys((*(one.name for one in given), *self.wish.rungs)))
        self.known = (*(self.place.KNOWN if self.place else ()), *self._words())
        self._measured = 0

    def _words(self) -> list[str]:
        told = [f"measured over {self.wish.over}"] if self.wish.over != self.name else []
        return told + ([f"the program itself is given {' '.join(self.wish.words)}"] if self.wish.words else [])

    @property
    def wanted(self) -> tuple[str, ...]:
        """The operations that say something in this arm."""
        if self.wish.lan:
            return tuple(name for name in self.operations if name in program.NETWORK)
        return tuple(name for name in self.operations if self.wish.copyups or name not in program.COPYUPS)

    def unavailable(self) -> str:
        if self.wish.refused or self.place is None:
            return self.wish.refused or f"this bench has no environment {self.wish.environment}"
        return self.place.unavailable() or ("" if self.wanted else "none of the operations asked for is measured here")

    def prepare(self) -> None:
        assert self.place is not None
        self.place.prepare()

    def measure(self) -> Measured:
        assert self.place is not None
        place, job = self.place, self.job()
        place.fresh(job)
        try:
            said = self._far(place, job) if self.wish.lan else self._inside(place, job)
            state = place.state(job)
        finally:
            place.rest()
        self._measured += 1
        found = program.parsed(said)
        return flat(found), {**state, REFUSED: refused(found)}, place.planned(job)

    def words(self, **more: Any) -> list[str]:
        seed = zlib.crc32(f"{self.seed}/{self.wish.key}/{self._measured}".encode())
        return [
            *self.wish.words,
            *program.words(self.wanted, seed=seed, bursts=self.bursts, percent=self.wish.percent, **more),
        ]

    def job(self) -> Job:
        if self.wish.lan:
            return Job((program.PROGRAM, "serve", str(PORT)), network="lan", ports=(PORT,))
        return Job((program.PROGRAM, *self.words()), data=self.wish.data, timeout=CLIENT_TIMEOUT)

    def _inside(self, place: Place, job: Job) -> str:
        ran = place.run(job)
        if ran.returncode:
            said = (ran.stderr or ran.stdout).decode(errors="replace").strip()
            raise EnvironmentBroken(f"{self.name}: the micro program left with {ran.returncode}: {said[-200:]}")
        return ran.stdout.decode()

    def _far(self, place: Place, job: Job) -> str:
        with place.start(job) as server:
            host, port = client.address(server, "client", self.name), server.ports[PORT]
            command = place.lan.command([self.far, *self.words(host=host, port=port)])
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=CLIENT_TIMEOUT)
        if done.returncode:
            raise EnvironmentBroken(f"{self.name}: the client left with {done.returncode}: {done.stderr[-200:]}")
        return done.stdout

    def cleanup(self) -> Sequence[str]:
        return self.place.cleanup() if self.place is not None else ()


def flat(found: Mapping[str, program.Figures]) -> dict[str, float]:
    """``getppid.median_ns`` and so on, of what was not refused."""
    return {
        f"{name}{DOT}{measure}": value
        for name, figures in found.items()
        for measure, value in zip(program.MEASURES, figures.values)
    }


def refused(found: Mapping[str, program.Figures]) -> dict[str, str]:
    return {name: figures.refused for name, figures in found.items() if figures.refused}


def split(record: samples.Record, operations: Iterable[str]) -> Iterator[samples.Record]:
    """RECORD of the runner as it is kept: a sample for each operation, an arm's record for each of OPERATIONS."""
    if isinstance(record, samples.Arm):
        for place, name in enumerate(operations):
            planned = {} if place else record.planned  # once is enough: they are all of one run
            yield dataclasses.replace(record, experiment=f"{record.experiment}/{name}", planned=planned)
    elif isinstance(record, samples.Sample) and not record.discarded:
        state = dict(record.state)
        why = state.pop(REFUSED, {})
        by_name: dict[str, dict[str, float]] = {name: {} for name in why}
        for key, value in record.values.items():
            name, _, measure = key.partition(DOT)
            by_name.setdefault(name, {})[measure] = value
        for place, (name, values) in enumerate(by_name.items()):
            yield dataclasses.replace(
                record,
                experiment=f"{record.experiment}/{name}",
                values=values,
                state={} if place else state,
                discarded=f"refused: {why[name]}" if name in why else "",
            )
    else:
        yield record


def joined(records: Iterable[samples.Record]) -> list[samples.Record]:
    """What ``split`` made as the runner knows it: what has been measured already, by block and arm."""
    found: dict[tuple[str, str, str, int], samples.Record] = {}
    for record in records:
        if not isinstance(record, samples.Arm | samples.Sample):
            continue
        head, _, name = record.experiment.rpartition("/")
        experiment = head if name in program.OPERATIONS else record.experiment
        one = dataclasses.replace(record, experiment=experiment)
        block = record.block if isinstance(record, samples.Sample) else -1
        if isinstance(record, samples.Sample) and record.discarded.startswith("refused"):
            one = dataclasses.replace(one, discarded="")  # it was measured, and refused
        found.setdefault(
            (record.KIND, experiment, record.arm if isinstance(record, samples.Sample) else record.name, block), one
        )
    return list(found.values())


def made(
    wishes: Sequence[Wish], stage: MicroStage, operations: Sequence[str], seed: int, bursts: int
) -> list[MicroArm]:
    """The arms of WISHES. A copy of the client is made: the root's own may be on a mount that is read-only for it."""
    far = os.path.join(stage.directory, "micro-client")
    if not os.path.exists(far):
        with told("copy the program", far):
            shutil.copy2(stage.client, far)
    places = Places(stage)
    return [MicroArm(wish, places.of(wish), tuple(operations), far, seed, bursts) for wish in wishes]
