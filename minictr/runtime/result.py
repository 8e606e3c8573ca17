"""What a finished run left."""

from __future__ import annotations

from minictr.errors import CalledProcessError, TimeoutExpired
from minictr.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minictr.kernel.cgroup_readings import Readings
    from minictr.kernel.cgroup_usage import Usage
    from minictr.runtime.clock import Clock
    from minictr.runtime.observed.denials import Denial
    from minictr.runtime.process import Process
    from minictr.runtime.timeline import Timeline

__all__ = ["Result"]


class Result(Value):
    """What a finished run left.

    ``returncode``: exit code, or minus the signal; ``signal``: that signal or 0; ``timed_out``: whether ``timeout``
    ended it; ``elapsed``: seconds from the start's first step to the end; ``rusage``: ``os.wait4``'s
    ``struct_rusage`` of the whole container; ``timeline``: the start by step and by feature; ``stdout``, ``stderr``:
    what was captured, else None; ``usage``: the last readings of its cgroups (bytes, seconds), None without any;
    ``denials``: what it was denied and why, for a run with ``explain_denials``; ``handler_errors``: what an
    ``on_syscall`` function raised, the first 32, each such call failed with EPERM.
    """

    args: tuple[str, ...]
    returncode: int
    signal: int
    timed_out: bool
    elapsed: float
    rusage: Any
    clock: Clock
    stdout: Any = None
    stderr: Any = None
    readings: Readings | None = None
    handler_errors: tuple[BaseException, ...] = ()
    denials: tuple[Denial, ...] = ()

    @property
    def usage(self) -> Usage | None:
        return None if self.readings is None else self.readings.usage()

    @property
    def oom_killed(self) -> bool:
        """Whether the kernel killed a process of it at its memory limit. False where it has no group of that kind."""
        usage = self.usage
        return usage is not None and usage.oom_kills > 0

    @property
    def pids_limit_hits(self) -> int:
        """How often a fork was refused at its limit of processes."""
        usage = self.usage
        pids = usage and usage.pids
        return (pids and pids.hits) or 0

    @property
    def timeline(self) -> Timeline:
        return self.clock.timeline()

    @classmethod
    def of(
        cls,
        process: Process,
        captured: tuple[Any, Any],
        text: bool,
        encoding: str | None,
        errors: str | None,
        *,
        timed_out: bool,
    ) -> Result:
        """What PROCESS, which is gone, left; CAPTURED as str where it is TEXT."""
        if text:
            captured = tuple(  # type: ignore[assignment]
                None if data is None else data.decode(encoding or "utf-8", errors or "strict").replace("\r\n", "\n")
                for data in captured
            )
        assert process.returncode is not None
        return cls(
            process.args,
            process.returncode,
            process.signal,
            timed_out,
            process.elapsed,
            process.rusage,
            process.clock,
            *captured,
            process.readings,
            process.handler_errors,
            process.denials,
        )

    def judged(self, timeout: float | None, check: bool) -> Result:
        """Itself; or the exception that a timeout, or with CHECK a non-zero end, is."""
        if self.timed_out:
            raise TimeoutExpired(self.args, timeout or 0, self.stdout, self.stderr, self)
        if check:
            self.check_returncode()
        return self

    def check_returncode(self) -> None:
        """Raise :class:`CalledProcessError` if ``returncode`` is not 0."""
        if self.returncode:
            error = CalledProcessError(self.returncode, self.args, self.stdout, self.stderr, self)
            for raised in self.handler_errors[:1]:
                error.add_note(f"the on_syscall function had raised {raised!r} (result.handler_errors)")
            raise error
