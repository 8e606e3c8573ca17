"""The stamps of a start as they are taken; :mod:`minictr.runtime.timeline` is what they become when somebody asks."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from minictr.runtime.program import Outcome
    from minictr.runtime.timeline import Timeline
    from minictr.steps import Step


class Clock:
    """The stamps of one start: the parent's as it went, and the child's region to be read when somebody asks."""

    def __init__(self, begin_ns: int) -> None:
        self.begin_ns = self.last_ns = begin_ns
        self._rows: list[tuple[int, Step, int, int]] = []
        self._child: tuple[list[tuple[int, Step]], Outcome, int] | None = None
        self._timeline: Timeline | None = None

    def stamp(self, index: int, step: Step, now_ns: int) -> None:
        """A parent's STEP ended at NOW_NS; it began where the one before ended."""
        self._rows.append((index, step, self.last_ns, now_ns))
        self.last_ns = now_ns

    def child(self, steps: list[tuple[int, Step]], outcome: Outcome, end_ns: int) -> None:
        """The child's steps, with what it wrote; the last of them, exec, was over at END_NS."""
        self._child = steps, outcome, end_ns

    def timeline(self) -> Timeline:
        """All rows in the order they happened; made once."""
        if self._timeline is None:
            from minictr.runtime.timeline import Row, Timeline

            begin = self.begin_ns
            rows = sorted([*self._rows, *self._child_rows()], key=lambda row: row[3])
            self._timeline = Timeline(
                tuple(
                    Row(index, step.call, step.about, step.feature, (start - begin) / 1000, (end - start) / 1000)
                    for index, step, start, end in rows
                )
            )
        return self._timeline

    def _child_rows(self) -> Iterator[tuple[int, Step, int, int]]:
        if self._child is None:
            return
        steps, outcome, end_ns = self._child
        last = outcome.start_ns
        for (index, step), end in zip(steps, [*outcome.ends[:-1], end_ns], strict=True):
            yield index, step, last, end or last
            last = end or last

    def __repr__(self) -> str:
        return f"<Clock {self.timeline().total_us:.0f} us>"
