"""tests/security/attempts as one static program: for the tests, and for `make security-report`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

SOURCES = sorted(Path(__file__).resolve().parent.glob("*.c"))
BLOCKED, SUCCEEDED, NOT_EXERCISABLE = "blocked", "succeeded", "not exercisable"
RESULTS = (BLOCKED, SUCCEEDED, NOT_EXERCISABLE)


class Verdict(NamedTuple):
    """How an attempt ended: one of RESULTS, and what stopped it, what was had, or why nothing could be tried."""

    result: str
    how: str

    @property
    def errno(self) -> str:
        """The name of the error that blocked it; "" when it was no error."""
        word = self.how.split(":")[0].split()[0] if self.how else ""
        return word if self.result == BLOCKED and word.startswith("E") and word.isupper() else ""


def install(rootfs: Path, gcc: str) -> None:
    """/bin/attempt, and /bin/attempt-suid with the set-user-ID bit, in ROOTFS."""
    program, suid = rootfs / "bin" / "attempt", rootfs / "bin" / "attempt-suid"
    command = [gcc, "-O1", "-Wall", "-Wextra", "-Werror", "-static", "-o", str(program), *map(str, SOURCES)]
    subprocess.run(command, check=True)
    shutil.copy(program, suid)
    os.chmod(suid, 0o4755)


def verdicts(output: str) -> dict[str, Verdict]:
    """By class, what the program said in OUTPUT; other lines are not its own."""
    rows = (json.loads(line) for line in output.splitlines() if line.startswith('{"class": '))
    return {row["class"]: Verdict(row["result"], row["how"]) for row in rows}
