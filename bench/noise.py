"""How disturbed one sample was: what the machine did while the bench rested before it, and what was stolen during it.

The load average and the pressure of the last ten seconds hold the bench's own last sample. So the bench rests for a
moment before each sample, and whatever runs then is not its own.
"""

from __future__ import annotations

import os
import time
from typing import Any

from bench import host

REST = 0.2  # seconds


def _waited() -> float | None:
    """Seconds since boot in which some task waited for a CPU; None without CONFIG_PSI (Linux 4.20)."""
    total = host.pressure("total")
    return None if total is None else total / 1e6


class Noise:
    """Rests for REST seconds when it is made; ``stop()`` after the sample answers the figures.

    ``load_before`` is the load average, ``rest_busy`` the share of all CPU time used in the rest, ``rest_waited`` the
    share of the rest in which a task waited for a CPU; ``steal``, ``waited`` and ``busy`` are the same shares of the
    sample itself, in which the last two are mostly its own. ``noisy`` is a list of reasons, empty when quiet.
    """

    def __init__(self, rest: float = REST) -> None:
        self._found: dict[str, Any] = {"load_before": os.getloadavg()[0]}
        if rest > 0:
            before, began = self._now()
            time.sleep(rest)
            self._add("rest_", before, began)
        self._before, self._began = self._now()

    @staticmethod
    def _now() -> tuple[tuple[int, int, int, float | None], float]:
        return (*host.cpu_ticks(), _waited()), time.monotonic()

    def _add(self, prefix: str, before: tuple[int, int, int, float | None], began: float) -> None:
        (total, busy, stolen, waited), now = self._now()
        ticks = max(total - before[0], 1)
        self._found[f"{prefix}busy"] = round((busy - before[1]) / ticks, 4)
        self._found[f"{prefix}steal"] = round((stolen - before[2]) / ticks, 4)
        if waited is not None and before[3] is not None:
            self._found[f"{prefix}waited"] = round((waited - before[3]) / max(now - began, 1e-6), 4)

    def stop(self) -> dict[str, Any]:
        """The figures, as they are kept with the sample."""
        self._add("", self._before, self._began)
        return {**self._found, "noisy": reasons(self._found)}


def reasons(found: dict[str, Any]) -> list[str]:
    """Why a sample with these figures counts as disturbed: one line each."""
    told = []
    if found.get("rest_busy", 0.0) > host.NOISY_OTHERS:
        told.append(f"others used {found['rest_busy']:.0%} of the cpu time just before it")
    if 100 * found.get("rest_waited", 0.0) > host.NOISY_PRESSURE:
        told.append(f"tasks waited for a cpu {found['rest_waited']:.0%} of the time just before it")
    if found.get("steal", 0.0) > host.NOISY_STEAL:
        told.append(f"{found['steal']:.1%} of the cpu time stolen by other guests")
    return told
