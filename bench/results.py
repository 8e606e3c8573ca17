"""Results files read back: one or several, of one or several machines, with all that is wrong in them told.

A *place* is one machine with one kernel. Blocks of one place may stand side by side even when several runs measured
them; blocks of different places never do.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator, Sequence

from bench import samples
from bench.samples import Arm, Count, End, Record, Run, Sample

MOST_TOLD = 8  # lines about one file


@dataclasses.dataclass
class Results:
    """Everything read. ``lines`` are the records kept, in their order; ``told`` is what was wrong, one line each."""

    runs: dict[str, Run] = dataclasses.field(default_factory=dict)
    ends: dict[str, End] = dataclasses.field(default_factory=dict)
    records: list[Record] = dataclasses.field(default_factory=list)
    told: list[str] = dataclasses.field(default_factory=list)

    def place(self, run: str) -> str:
        """The place of a run: its machine, and its kernel where one machine appears with several."""
        of = self.runs[run]
        kernels = {str(it.facts.get("kernel", "")) for it in self.runs.values() if it.machine == of.machine}
        return of.machine if len(kernels) < 2 else f"{of.machine}, {of.facts.get('kernel', 'unknown kernel')}"

    @property
    def places(self) -> list[str]:
        return list(dict.fromkeys(self.place(run) for run in self.runs))

    def runs_of(self, place: str) -> list[Run]:
        return [run for run in self.runs.values() if self.place(run.id) == place]

    def records_of(self, place: str) -> list[Record]:
        """Everything of PLACE but its runs, in order."""
        ids = {run.id for run in self.runs_of(place)}
        return [record for record in self.records if not isinstance(record, Run) and record.run in ids]

    def samples(self, place: str) -> list[Sample]:
        """Those that count."""
        return [it for it in self.records_of(place) if isinstance(it, Sample) and not it.discarded]

    def discarded(self, place: str) -> list[Sample]:
        return [it for it in self.records_of(place) if isinstance(it, Sample) and it.discarded]

    def counts(self, place: str) -> list[Count]:
        return [it for it in self.records_of(place) if isinstance(it, Count)]

    def arms(self, place: str) -> dict[tuple[str, str], Arm]:
        """(experiment, name) -> the arm; of several runs one that is available, if there is one."""
        found: dict[tuple[str, str], Arm] = {}
        for it in self.records_of(place):
            if isinstance(it, Arm) and ((it.experiment, it.name) not in found or not it.unavailable):
                found[it.experiment, it.name] = it
        return found

    def interrupted(self, place: str) -> list[Run]:
        """Runs without an end."""
        return [run for run in self.runs_of(place) if run.id not in self.ends]

    def failed(self, place: str) -> list[str]:
        """What the runs say broke."""
        return [line for run in self.runs_of(place) if run.id in self.ends for line in self.ends[run.id].failed]


class _Reader:
    """Adds files to results; knows what it has seen."""

    def __init__(self) -> None:
        self.results = Results()
        self._lines: set[str] = set()
        self._samples: dict[tuple[str, str, str, int], Sample] = {}
        self._refused: set[str] = set()

    def add(self, path: str) -> None:
        told: list[str] = []
        self._refused = set()  # a run refused in one file may be whole in another
        repeated = 0
        for where, record in _records(path, told):
            line = samples.to_line(record)
            if line in self._lines:
                repeated += 1
            elif why := self._refusal(record):
                told.append(f"{where}: {why}")
            else:
                self._lines.add(line)
                self._keep(record)
        if repeated:
            told.append(f"{path}: {repeated} records were there already and are taken once")
        self.results.told += told[:MOST_TOLD]
        if len(told) > MOST_TOLD:
            self.results.told.append(f"{path}: {len(told) - MOST_TOLD} more like these")

    def _refusal(self, record: Record) -> str:
        """Why RECORD is left out; "" when it is not."""
        if isinstance(record, Run):
            known = self.results.runs.get(record.id)
            if known is None or (known.machine, known.seed, known.verb) == (record.machine, record.seed, record.verb):
                return ""
            self._refused.add(record.id)
            return (
                f"run {record.id} contradicts one of the same name ({known.verb} on {known.machine}, seed "
                f"{known.seed}; here {record.verb} on {record.machine}, seed {record.seed}): left out"
            )
        if record.run in self._refused:
            return f"a {record.KIND} of run {record.run}, which contradicts another: left out"
        if record.run not in self.results.runs:
            return f"a {record.KIND} of run {record.run}, which is not in the file before it: left out"
        if isinstance(record, Sample) and not record.discarded:
            if not all(isinstance(value, int | float) for value in record.values.values()):
                return f"a sample of {record.arm} has values that are no numbers: left out"
            if (record.run, record.experiment, record.arm, record.block) in self._samples:
                return (
                    f"a second, different sample of {record.experiment}, {record.arm}, block {record.block}: left out"
                )
        return ""

    def _keep(self, record: Record) -> None:
        self.results.records.append(record)
        if isinstance(record, Run):
            self.results.runs.setdefault(record.id, record)
        elif isinstance(record, End):
            self.results.ends[record.run] = record
        elif isinstance(record, Sample) and not record.discarded:
            self._samples[record.run, record.experiment, record.arm, record.block] = record


def _records(path: str, told: list[str]) -> Iterator[tuple[str, Record]]:
    """(where, record) of every line that is one; of the others TOLD learns."""
    with open(path, encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            where = f"{path}, line {number}"
            if not line.endswith("\n"):
                told.append(f"{where}: cut short, as by a kill: left out")
            elif line.strip():
                try:
                    yield where, samples.from_line(line, where)
                except samples.ResultsError as err:
                    told.append(f"{err}: left out")


def load(paths: Iterable[str]) -> Results:
    """The results of PATHS. Raises OSError for a file that cannot be read; what is wrong inside is told."""
    reader = _Reader()
    for path in paths:
        reader.add(path)
    return reader.results


def write(path: str, records: Sequence[Record]) -> None:
    """RECORDS to PATH, whole or not at all. Raises OSError."""
    partial = f"{path}.partial"
    try:
        with open(partial, "w", encoding="utf-8") as file:
            file.writelines(samples.to_line(record) for record in records)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError:
        if os.path.exists(partial):
            os.unlink(partial)
        raise
