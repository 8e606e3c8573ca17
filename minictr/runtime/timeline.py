"""When each step of a start began and how long it took, in microseconds of CLOCK_MONOTONIC_RAW."""

from __future__ import annotations

from minictr.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Row(Value):
    """One step: its ``index`` in the plan, ``start_us`` since the start began, ``duration_us``."""

    index: int
    call: str
    about: str
    feature: str
    start_us: float
    duration_us: float


class Timeline(Value):
    """The rows of one start, in the order they happened."""

    rows: tuple[Row, ...]

    def by_feature(self) -> dict[str, float]:
        """Microseconds by feature, dearest first."""
        costs: dict[str, float] = {}
        for row in self.rows:
            costs[row.feature] = costs.get(row.feature, 0.0) + row.duration_us
        return dict(sorted(costs.items(), key=lambda item: -item[1]))

    @property
    def total_us(self) -> float:
        """From the first row's begin to the last row's end."""
        return self.rows[-1].start_us + self.rows[-1].duration_us - self.rows[0].start_us if self.rows else 0.0

    def json(self) -> list[dict[str, Any]]:
        """The rows as plain dicts."""
        return [dict(row.__dict__) for row in self.rows]

    def __str__(self) -> str:
        return "\n".join(
            f"{row.start_us:9.1f} +{row.duration_us:8.1f} us  {row.feature:<15} {row.call} {row.about}".rstrip()
            for row in self.rows
        )
