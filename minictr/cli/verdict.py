"""One line for each limit that killed or bit, and for a network without a way out: an exit code without a word would be
a riddle."""

from __future__ import annotations

from minictr.features.controllers import UNLIMITED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minictr.kernel.cgroup_usage import Usage
    from minictr.spec import Spec

__all__ = ["unreachable", "verdict"]

SIGSYS = 31
BITES = 0.05  # of its time spent throttled: less is the kernel's rounding


def verdict(usage: Usage | None, spec: Spec, elapsed: float, signal: int = 0) -> list[str]:
    """What a person should know of USAGE, the last readings of a container of SPEC that ran ELAPSED seconds and that
    SIGNAL ended."""
    lines: list[str] = []
    if signal == SIGSYS and "seccomp" in spec.names:
        lines.append(
            "killed by its seccomp filter: --explain-denials tells the system call (--security-opt seccomp=...)"
        )
    if usage is None:
        return lines
    if usage.oom_kills:
        lines.append(
            f"out of memory: {_counted(usage.oom_kills, 'process', 'es')} killed{_limit(spec, 'memory', '-m')}"
        )
    if usage.pids is not None and usage.pids.hits:
        lines.append(f"too many processes: {_counted(usage.pids.hits, 'fork', 's')} refused{_pids(spec)}")
    throttled = (usage.cpu and usage.cpu.throttled) or 0.0
    if elapsed and throttled / elapsed > BITES:
        lines.append(f"processor time: stopped for {throttled:.1f} s of {elapsed:.1f} s by its quota (--cpus)")
    return lines


def unreachable(before: bytes, after: bytes) -> str:
    """What a person should know of two readings of /proc/PID/net/snmp; "" where nothing was sent that had no route."""
    missed = _no_routes(after) - _no_routes(before)
    if missed <= 0:  # none, or a reading that failed
        return ""
    cure = "its own network has no way out (--network bridge gives it one)"
    return f"no route: {_counted(missed, 'attempt', 's')} to reach another host: {cure}"


def _no_routes(counters: bytes) -> int:
    """IpOutNoRoutes of /proc/PID/net/snmp: connects and packets for which there was no route. RFC 4293."""
    rows = [line.split() for line in counters.decode("ascii", "replace").splitlines() if line.startswith("Ip:")]
    if len(rows) != 2 or "OutNoRoutes" not in rows[0]:
        return 0
    value = rows[1][rows[0].index("OutNoRoutes")]
    return int(value) if value.isdecimal() else 0


def _counted(number: int, word: str, many: str) -> str:
    return f"{number} {word if number == 1 else word + many}"


def _limit(spec: Spec, name: str, option: str) -> str:
    feature: Any = spec.get(name)
    most = getattr(feature, "max", None)
    return f" at its limit of {_size(most)} ({option})" if most not in (None, UNLIMITED) else ""


def _pids(spec: Spec) -> str:
    feature: Any = spec.get("pids")
    most = getattr(feature, "max", None)
    return f" at its limit of {most} (--pids-limit)" if most not in (None, UNLIMITED) else ""


def _size(number: int) -> str:
    for unit, power in (("G", 30), ("M", 20), ("K", 10)):
        if number >= 1 << power and number % (1 << power) == 0:
            return f"{number >> power}{unit}"
    return f"{number} bytes"
