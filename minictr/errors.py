"""The whole error tree.

::

    MinictrError                 minictr failed; exit code 125
    ├── SpecError (ValueError)   a wish that cannot be right: found before anything is touched
    ├── Unsupported              this kernel, or this user, cannot have it: .reason and .cure
    ├── StepFailed (OSError)     one kernel operation failed: .step .index .total .feature .errno .cure
    │   ├── CommandNotExecutable exit code 126
    │   └── CommandNotFound      exit code 127; the message names the PATH searched
    ├── StartTimeout             a start passed its deadline: names the step it hung in
    ├── NoSuchContainer          no container of that name or id
    ├── WrongStatus              a container is not in the state that the operation needs: .status
    ├── WeakerIsolation          (AssertionError) a process is confined less than was asserted: .points
    └── StateError               what is written down of a container cannot be read or written: names the file

    ProgramError                 the *program* failed, the sandbox did its work
    ├── CalledProcessError       non-zero exit and check=True
    └── TimeoutExpired           the program outlived timeout=

A sandbox failure is never a program failure: nothing inherits from both.
"""

from __future__ import annotations

import errno as _errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class MinictrError(Exception):
    """minictr itself failed. ``exit_code`` is what ``minictr run`` leaves with."""

    exit_code = 125


class SpecError(MinictrError, ValueError):
    """A wish that cannot be right. Raised before anything is touched."""


class Unsupported(MinictrError):
    """A feature that was asked for and cannot be had here.

    ``feature`` names it, ``reason`` says why, ``cure`` says what would help (may be empty). ``parts``: what of it alone
    cannot be had, each with its reason; empty where it is the whole.
    """

    def __init__(self, feature: str, reason: str, cure: str = "", parts: Mapping[str, str] | None = None) -> None:
        super().__init__(f"{feature}: {reason}" + (f"; {cure}" if cure else ""))
        self.feature, self.reason, self.cure, self.parts = feature, reason, cure, dict(parts or {})


def errno_name(number: int) -> str:
    """``EPERM`` for 1; the number itself where the platform has no name for it."""
    return _errno.errorcode.get(number, f"errno {number}")


class StepFailed(MinictrError, OSError):
    """One kernel operation failed.

    ``what`` is the operation and its object, ``errno`` the kernel's answer, ``index`` (from 1) and ``total`` its
    place in the plan (0 when used alone), ``feature`` who wished it, ``cure`` what would help.
    """

    def __init__(
        self, what: str, errno: int, *, index: int = 0, total: int = 0, feature: str = "", cure: str = ""
    ) -> None:
        place = f" (step {index} of {total}, feature {feature})" if index else ""
        hint = f": {cure}" if cure else ""
        reason = f"{errno_name(errno)} ({os.strerror(errno)})" if errno else "failed"
        self._message = f"{what}: {reason}{place}{hint}"
        super().__init__(errno, self._message)
        self.what, self.errno, self.index, self.total, self.feature, self.cure = (
            what,
            errno,
            index,
            total,
            feature,
            cure,
        )

    def __str__(self) -> str:
        return self._message


class CommandNotExecutable(StepFailed):
    """The program is there and cannot be executed (permission, format, architecture, interpreter)."""

    exit_code = 126


class CommandNotFound(StepFailed):
    """The program is not in the container. The message names the PATH searched."""

    exit_code = 127


class StartTimeout(MinictrError):
    """A start passed its deadline. ``what`` is the step it hung in; everything was undone."""

    def __init__(self, what: str, seconds: float) -> None:
        super().__init__(f"start passed its deadline of {seconds:g} s in {what}")
        self.what, self.seconds = what, seconds


class NoSuchContainer(MinictrError, LookupError):
    """No container of that name or id, or more than one whose id begins so."""


class WrongStatus(MinictrError):
    """A container is not in the state that an operation needs. ``status`` is the one it is in."""

    def __init__(self, message: str, status: str) -> None:
        super().__init__(message)
        self.status = status


class WeakerIsolation(MinictrError, AssertionError):
    """A process is confined less than was asserted, or it cannot be told. ``points`` names each field."""

    def __init__(self, who: str, points: Sequence[str]) -> None:
        super().__init__(f"{who} is confined less than wanted:\n" + "\n".join(f"  {point}" for point in points))
        self.points = tuple(points)


class StateError(MinictrError):
    """What is written down of a container cannot be read or written; the message names the file. Nothing was done."""


class ProgramError(Exception):
    """The program failed; the container did its work."""


class CalledProcessError(ProgramError):
    """The program left with a non-zero code. Attributes as :class:`subprocess.CalledProcessError`, and ``result``."""

    def __init__(
        self, returncode: int, cmd: Sequence[str], output: object = None, stderr: object = None, result: object = None
    ) -> None:
        super().__init__(f"{' '.join(cmd)!r} returned {returncode}")
        self.returncode, self.cmd, self.output, self.stderr, self.result = returncode, list(cmd), output, stderr, result

    @property
    def stdout(self) -> object:
        return self.output


class TimeoutExpired(ProgramError):
    """The program outlived ``timeout``. Attributes as :class:`subprocess.TimeoutExpired`, and ``result``."""

    def __init__(
        self, cmd: Sequence[str], timeout: float, output: object = None, stderr: object = None, result: object = None
    ) -> None:
        super().__init__(f"{' '.join(cmd)!r} timed out after {timeout:g} seconds")
        self.cmd, self.timeout, self.output, self.stderr, self.result = list(cmd), timeout, output, stderr, result

    @property
    def stdout(self) -> object:
        return self.output
