"""The options of ``run`` that are about this process, not about the container: checked before anything is touched."""

from __future__ import annotations

import os

from minictr.errors import SpecError
from minictr.features.tables import SIGNALS, signal_number
from minictr.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minictr.runtime.process import Process


class Settings(Value):
    """How the start is watched. ``timeout`` in seconds, 0 for none; ``trace`` None for none, "" for the chart;
    ``denials`` likewise, "" for the table."""

    timeout: float = 0.0
    stop_signal: int = SIGNALS["TERM"]
    trace: str | None = None
    denials: str | None = None
    json_status_fd: int = -1
    preserve_fds: int = 0
    die_with_parent: bool = False
    cidfile: str = ""
    pidfile: str = ""

    def write_ids(self, identity: str, pid: int) -> None:
        """``--cidfile``, ``--pidfile``."""
        for option, path, text in (("--cidfile", self.cidfile, identity), ("--pidfile", self.pidfile, str(pid))):
            if path:
                from minictr.cli.create import write_file

                write_file(option, path, text)

    def tell(self, line: str) -> None:
        """One line of JSON to ``--json-status-fd``, as bubblewrap writes it. A reader that left is no error."""
        if self.json_status_fd >= 0:
            try:
                os.write(self.json_status_fd, line.encode() + b"\n")
            except OSError:
                return

    def report(self, process: Process, name: str) -> None:
        """The time line: chart on standard error, or Chrome trace into the file."""
        from minictr.cli.trace import show, write_chrome

        if not self.trace:
            show(process.timeline)
            return
        try:
            with open(self.trace, "w", encoding="utf-8") as file:
                write_chrome(process.timeline, file, process.pid, name)
        except OSError as err:
            raise SpecError(f"--trace={self.trace}: {os.strerror(err.errno or 0)}") from err


def settings(opts: dict[str, Any]) -> Settings:
    """The settings in OPTS. Raises SpecError."""
    chosen = Settings(
        timeout=_seconds(opts["timeout"]) if "timeout" in opts else 0.0,
        stop_signal=_signal(opts.get("stop_signal", "TERM")),
        trace=writable("--trace", opts.get("trace")),
        denials=writable("--explain-denials", opts.get("explain_denials")),
        json_status_fd=_number("--json-status-fd", opts.get("json_status_fd", "-1"), least=-1),
        preserve_fds=_number("--preserve-fds", opts.get("preserve_fds", "0")),
        die_with_parent=bool(opts.get("die_with_parent")),
        cidfile=_free("cidfile", opts),
        pidfile=_free("pidfile", opts),
    )
    if 3 <= chosen.json_status_fd < 3 + chosen.preserve_fds:
        raise SpecError(f"--json-status-fd {chosen.json_status_fd}: --preserve-fds would hand it to the container")
    if "json_status_fd" in opts:
        _writable("--json-status-fd", _number("--json-status-fd", opts["json_status_fd"]))
    for fd in range(3, 3 + chosen.preserve_fds):
        _open("--preserve-fds", fd)
    return chosen


def _signal(name: str) -> int:
    try:
        return signal_number(name)
    except SpecError as err:
        raise SpecError(f"--stop-signal: {err}") from err


def _seconds(text: str) -> float:
    from minictr.parse import duration

    seconds = duration(text, "--timeout")
    if not seconds:
        raise SpecError(f"--timeout {text!r}: more than 0 seconds is wanted")
    return max(seconds, 1e-6)  # below a microsecond setitimer(2) would never ring


def _number(option: str, text: str, least: int = 0) -> int:
    digits = text.removeprefix("-") if least < 0 else text
    if not (digits.isascii() and digits.isdecimal() and len(digits) < 10):
        raise SpecError(f"{option} {text!r}: a number is wanted")
    return int(text)


def _open(option: str, fd: int) -> None:
    try:
        os.fstat(fd)
    except OSError as err:
        raise SpecError(f"{option}: file descriptor {fd} is not open") from err


def _free(dest: str, opts: dict[str, Any]) -> str:
    """The file to be written, which is not there yet; "" where none was named."""
    if dest not in opts:
        return ""
    from minictr.cli.create import free_file

    free_file(f"--{dest}", opts[dest])
    path: str = opts[dest]
    return path


def _writable(option: str, fd: int) -> None:
    from fcntl import F_GETFL, fcntl

    _open(option, fd)
    if fcntl(fd, F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        raise SpecError(f"{option}: file descriptor {fd} is not open for writing")


def writable(option: str, path: str | None) -> str | None:
    """PATH if it can be written: its directory is there, and it is no directory itself."""
    if not path:
        return path
    directory = os.path.dirname(path) or "."
    if os.path.isdir(path):
        raise SpecError(f"{option}={path}: is a directory")
    if not os.path.isdir(directory):
        raise SpecError(f"{option}={path}: no directory {directory}")
    if not os.access(path if os.path.exists(path) else directory, os.W_OK):
        raise SpecError(f"{option}={path}: not writable")
    return path
