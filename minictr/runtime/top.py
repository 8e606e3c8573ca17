"""The processes of a container, as ``top`` shows them."""

from __future__ import annotations

import os
import time

from minictr.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minictr.runtime.instance import Instance

__all__ = ["Row", "top"]

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGESIZE")


class Row(Value):
    """One process. ``pid``, ``ppid``, ``uid``: as the host counts; ``inside``: its pid in the container. ``state``: a
    letter of ps(1). ``rss``: bytes. ``cpu``: seconds used; ``elapsed``: seconds since its start."""

    pid: int
    ppid: int
    inside: int
    uid: int
    state: str
    rss: int
    cpu: float
    elapsed: float
    tty: str
    command: str


def top(instance: Instance) -> list[Row]:
    """Every process of INSTANCE, by pid. Raises WrongStatus for one that does not run."""
    instance.must_be("created", "running", "paused", verb="top")
    uptime = time.clock_gettime(time.CLOCK_BOOTTIME)
    rows = [_row(pid, uptime) for pid in instance.processes()]
    return [row for row in rows if row is not None]


def _row(pid: int, uptime: float) -> Row | None:
    """The process PID; None when it has just gone. proc_pid_stat(5), proc_pid_status(5)."""
    try:
        head, _, tail = _read(f"{pid}/stat").rpartition(")")
        status = dict(line.split(":\t", 1) for line in _read(f"{pid}/status").splitlines() if ":\t" in line)
        words = _read(f"{pid}/cmdline").rstrip("\0").split("\0")
    except OSError:
        return None
    fields = tail.split()
    name = head.partition("(")[2]
    terminal = int(fields[4])
    return Row(
        pid,
        int(fields[1]),
        int(status.get("NSpid", str(pid)).split()[-1]),
        int(status["Uid"].split()[1]),
        fields[0],
        int(fields[21]) * PAGE,
        (int(fields[11]) + int(fields[12])) / TICKS,
        max(0.0, uptime - int(fields[19]) / TICKS),
        f"pts/{terminal & 0xFF | (terminal >> 12) & 0xFFF00}" if terminal >> 8 & 0xFFF else "?",
        " ".join(words) if words != [""] else f"[{name}]",
    )


def _read(name: str) -> str:
    with open(f"/proc/{name}", "rb", buffering=0) as file:
        return (file.read(1 << 20) or b"").decode("utf-8", "surrogateescape")
