"""How a container ended, as it stands in the file ``exit`` of its directory."""

from __future__ import annotations

from minictr.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["HALTED", "REBOOTED", "ExitRecord"]

HALTED, REBOOTED = 1, 2  # enum mc_halt of _core/monitor.h: powered off or halted; to be started again


class ExitRecord(Value):
    """How a container ended.

    ``status``: the raw wait status, None when nobody could see it (the monitor was killed). ``maxrss`` in KiB,
    ``utime``, ``stime`` in microseconds, ``finished`` in nanoseconds since 1970, ``elapsed`` in nanoseconds, ``lost``:
    bytes of output that could not be logged. ``halt``: whether its init called reboot(2), HALTED or REBOOTED; then
    ``status`` is an exit code of 0 or 133, as systemd-nspawn's.
    """

    status: int | None = None
    maxrss: int = 0
    utime: int = 0
    stime: int = 0
    finished: int = 0
    elapsed: int = 0
    lost: int = 0
    halt: int = 0

    @property
    def exit_code(self) -> int | None:
        """As a shell tells it: 128 + n for signal n; None when nobody knows. waitpid(2): low 7 bits, next byte."""
        if self.status is None:
            return None
        signal = self.status & 0x7F
        return 128 + signal if signal else (self.status >> 8) & 0xFF

    def text(self) -> str:
        """As it stands in the file."""
        fields = {name: getattr(self, name) for name in self._fields}
        words = [f"{name}={'unknown' if value is None else value}" for name, value in fields.items()]
        return f"minictr-exit 1 {' '.join(words)}\n"

    @classmethod
    def parse(cls, text: str) -> ExitRecord | None:
        """The record in TEXT; None when none was written yet, or not to its end."""
        line, newline, _ = text.partition("\n")
        words = line.split()
        if not newline or words[:2] != ["minictr-exit", "1"]:
            return None
        pairs = (word.partition("=") for word in words[2:])
        try:
            fields: dict[str, Any] = {name: None if value == "unknown" else int(value) for name, _, value in pairs}
            return cls(**fields)
        except (TypeError, ValueError):
            return None
