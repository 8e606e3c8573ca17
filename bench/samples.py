"""What a bench run leaves: raw values as JSON lines, one record a line, nothing averaged.

A file is a sequence of records, each an object with ``kind``:

``run``     one invocation: what was asked, the seed, the machine's facts. Its ``id`` is in every record after it.
``arm``     one thing that is compared: an environment and what it was planned to be, or why it is unavailable.
``sample``  one measurement of one arm in one block, with the state read back from the kernel and the noise around it.
``count``   how often an operation happens in a workload, from a separate counting run (never a timed one).
``end``     the run came to its end: how quiet it was and what failed. An interrupted run has none, and can be resumed.

Names of values carry their unit: ``wall_s``, ``cpu_usage_us``, ``median_ns``, ``rss_bytes``, ``majflt`` (a count).

Experiments are paths: ``workload/encrypt/small``, ``micro/getppid``, ``lifecycle/start``, ``ablate/encrypt/small``.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

BARE, AGAIN = "bare", "bare-again"  # the two identical arms of every block: their difference is the A/A check


@dataclasses.dataclass(frozen=True)
class Run:
    """One invocation of a verb. ``machine`` tells machines apart when files are merged."""

    KIND: ClassVar[str] = "run"
    id: str
    verb: str
    machine: str
    seed: int
    time: float  # seconds since the epoch
    arguments: dict[str, Any]
    facts: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Arm:
    """What is compared: ``features`` are the names of minictr's features in it, where it is one of ours."""

    KIND: ClassVar[str] = "arm"
    run: str
    experiment: str
    name: str
    environment: str
    features: tuple[str, ...] = ()
    planned: dict[str, Any] = dataclasses.field(default_factory=dict)
    unavailable: str = ""
    known: tuple[str, ...] = ()  # what a fair reader must know of this arm


@dataclasses.dataclass(frozen=True)
class Sample:
    """One measurement. ``discarded`` says why it does not count; "" when it does."""

    KIND: ClassVar[str] = "sample"
    run: str
    experiment: str
    arm: str
    block: int
    position: int  # in the block's own shuffled order
    time: float
    values: dict[str, float]
    state: dict[str, Any] = dataclasses.field(default_factory=dict)
    noise: dict[str, Any] = dataclasses.field(default_factory=dict)
    discarded: str = ""


@dataclasses.dataclass(frozen=True)
class Count:
    """How often ``operation`` (a name of the micro tier) happens in one execution of the experiment's workload."""

    KIND: ClassVar[str] = "count"
    run: str
    experiment: str
    arm: str
    operation: str
    times: float


@dataclasses.dataclass(frozen=True)
class End:
    """The run's end. ``failed`` holds one line for each arm that broke."""

    KIND: ClassVar[str] = "end"
    run: str
    time: float
    quiet: dict[str, Any]
    failed: tuple[str, ...] = ()


Record = Run | Arm | Sample | Count | End
KINDS: dict[str, type[Record]] = {kind.KIND: kind for kind in (Run, Arm, Sample, Count, End)}


class ResultsError(ValueError):
    """A results file that cannot be read: which line, and what is wrong with it."""


class Writer:
    """Appends records to PATH, each whole and on the disk before the next is measured. A context manager."""

    def __init__(self, path: str) -> None:
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115  closed by __exit__

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.close()

    def write(self, record: Record) -> None:
        """Raises OSError (ENOSPC and the like) with nothing of RECORD left in the file."""
        line, before = to_line(record).encode(), os.fstat(self._file.fileno()).st_size
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[self._file.write(rest) :]
            os.fdatasync(self._file.fileno())
        except OSError:
            os.ftruncate(self._file.fileno(), before)
            raise


def to_line(record: Record) -> str:
    """RECORD as one line of JSON."""
    return json.dumps({"kind": record.KIND, **dataclasses.asdict(record)}, separators=(",", ":")) + "\n"


def from_line(line: str, where: str = "") -> Record:
    """The record of one LINE. Raises ResultsError naming WHERE it stood."""
    try:
        fields = json.loads(line)
        kind = KINDS[fields.pop("kind")]
        wished = {field.name: field for field in dataclasses.fields(kind)}
        lists = {name for name, field in wished.items() if str(field.type).startswith("tuple")}
        return kind(**{name: tuple(value) if name in lists else value for name, value in fields.items()})
    except (ValueError, TypeError, KeyError, AttributeError) as err:
        raise ResultsError(f"{where}: not a record of the bench: {err!r}") from err


def read(path: str) -> Iterator[Record]:
    """The records of one file, in order. A last line without its newline was cut short by a kill and is left out."""
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if line.endswith("\n"):
                yield from_line(line, f"{path}, line {number}")


def done(records: Iterable[Record]) -> set[tuple[str, int, str]]:
    """What need not be measured again: (experiment, block, arm) of every sample that counts."""
    return {(it.experiment, it.block, it.arm) for it in records if isinstance(it, Sample) and not it.discarded}
