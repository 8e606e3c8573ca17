"""Pressure: how long tasks wait for processor, memory or disk (PSI). Documentation/accounting/psi.rst, Linux 4.20.

For the whole host in /proc/pressure, for a cgroup v2 group in its ``*.pressure`` files. A :class:`Trigger` waits until
waiting exceeds a threshold within a window; the kernel tells by POLLPRI, nothing is polled for.
"""

from __future__ import annotations

import os
import select

from minictr.errors import SpecError, StepFailed, Unsupported
from minictr.kernel.handles import Handle
from minictr.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minictr.steps import Support

__all__ = ["RESOURCES", "Pressure", "Stall", "Trigger", "available", "parse", "pressure", "probe"]

RESOURCES = ("cpu", "memory", "io", "irq")  # irq: full only, Linux 6.1
ENOENT, EINVAL, EBUSY, EOPNOTSUPP = 2, 22, 16, 95
USEC_PER_SEC = 1_000_000
WINDOW = (0.5, 10.0)  # WINDOW_MIN_US and _MAX_US, kernel/sched/psi.c


class Stall(Value):
    """Percent of time lost in the last 10, 60 and 300 seconds, and ``total`` seconds lost ever."""

    avg10: float
    avg60: float
    avg300: float
    total: float


class Pressure(Value):
    """``some``: at least one task waited; ``full``: all that were not idle did. None where the kernel tells none."""

    some: Stall | None = None
    full: Stall | None = None


def parse(text: str) -> Pressure:
    """From ``some avg10=0.12 avg60=0.05 avg300=0.00 total=157622151`` lines; total is in us there."""
    found = {}
    for line in text.splitlines():
        kind, *pairs = line.split()
        row = dict(pair.partition("=")[::2] for pair in pairs)
        short, middle, long = (float(row[name]) for name in ("avg10", "avg60", "avg300"))
        found[kind] = Stall(short, middle, long, int(row["total"]) / USEC_PER_SEC)
    return Pressure(found.get("some"), found.get("full"))


def _path(resource: str, directory: str) -> str:
    if resource not in RESOURCES:
        raise SpecError(f"pressure: {resource!r} is not one of {', '.join(RESOURCES)}")
    return f"{directory}/{resource}.pressure" if directory else f"/proc/pressure/{resource}"


def pressure(resource: str, directory: str = "") -> Pressure:
    """The pressure of "cpu", "memory", "io" or "irq": of the v2 group DIRECTORY, or of the host.

    Raises Unsupported where the kernel has no PSI or it is switched off, StepFailed.

    >>> pressure("memory").some.avg10
    """
    path = _path(resource, directory)
    try:
        with open(path, encoding="ascii") as file:
            return parse(file.read())
    except OSError as err:
        raise _refused(path, err.errno or 0) from err


def _refused(path: str, number: int) -> StepFailed | Unsupported:
    if number in (ENOENT, EOPNOTSUPP):
        where = "" if path.startswith("/proc") else "; cgroup.pressure may be 0; cgroup v1 has no pressure files"
        return Unsupported("pressure", f"{path}: no PSI", f"CONFIG_PSI, and psi=1 on the kernel's command line{where}")
    return StepFailed(f"open {path}", number)


class Trigger(Handle):
    """``with Trigger("memory", stall=0.15, window=1) as trigger: trigger.wait(60)``: until 0.15 s in one were lost.

    ``full``: all tasks must wait, not only some. ``directory``: of a v2 group; the host otherwise. ``window``: 0.5 to
    10 s; without CAP_SYS_RESOURCE a multiple of 2 s (Linux 6.5; before, only root may). Raises SpecError, Unsupported,
    StepFailed. Linux 5.2.
    """

    def __init__(
        self, resource: str, *, stall: float, window: float = 2, full: bool = False, directory: str = ""
    ) -> None:
        if not WINDOW[0] <= window <= WINDOW[1] or not 0 < stall <= window:
            raise SpecError(
                f"pressure trigger: {stall} s of {window} s: the window is 0.5 to 10 s, the stall within it"
            )
        self.path = _path(resource, directory)
        text = f"{'full' if full else 'some'} {round(stall * USEC_PER_SEC)} {round(window * USEC_PER_SEC)}"
        self._fd = -1
        try:
            self._fd = os.open(self.path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            os.write(self._fd, text.encode() + b"\0")
        except OSError as err:
            if self._fd >= 0:
                os.close(self._fd)
            elif err.errno in (ENOENT, EOPNOTSUPP):
                raise _refused(self.path, err.errno) from err
            raise StepFailed(f"write {text!r} to {self.path}", err.errno or 0, cure=_cure(err.errno or 0)) from err
        self._open = True

    def __repr__(self) -> str:
        return f"<pressure trigger on {self.path}>"

    def fileno(self) -> int:
        """For poll(2) with POLLPRI, or select's third list."""
        return self._fd

    def wait(self, timeout: float | None = None) -> bool:
        """Whether the threshold was crossed within ``timeout`` seconds (None: for ever). One event a window at most.

        Raises StepFailed when the group is gone.
        """
        poll = select.poll()
        poll.register(self._fd, select.POLLPRI)
        for _, event in poll.poll(None if timeout is None else max(timeout, 0) * 1000):
            if event & select.POLLERR:
                raise StepFailed(f"wait for {self.path}", 19, cure="the group was removed")
            return True
        return False

    def _close(self) -> None:
        os.close(self._fd)


def _cure(number: int) -> str:
    if number == EINVAL:
        return "without CAP_SYS_RESOURCE the window must be a multiple of 2 s (and Linux 6.5)"
    return (
        "this needs CAP_SYS_RESOURCE, or Linux 6.5 and a window that is a multiple of 2 s" if number in (1, 13) else ""
    )


def available(directory: str = "") -> tuple[str, ...]:
    """Which resources have pressure told of here."""
    found = []
    for resource in RESOURCES:
        try:
            pressure(resource, directory)
        except (Unsupported, StepFailed):
            continue
        found.append(resource)
    return tuple(found)


def probe() -> dict[str, Support]:
    """Whether the host tells its pressure."""
    from minictr.steps import Support

    if available():
        return {"pressure": Support(True)}
    return {"pressure": Support(False, "no PSI", "CONFIG_PSI, and psi=1 on the kernel's command line")}
