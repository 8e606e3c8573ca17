"""A guest's processes: started in groups of their own, waited for, and ended whatever becomes of who started them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

# Reads the numbers of process groups. The end of its input without the word "done" is the death of who started it.
WARDEN = """
while read -r word; do
    [ "$word" != done ] || exit 0
    groups="${groups-} -$word"
done
trap '' TERM HUP INT
[ -z "${groups-}" ] || kill -KILL $groups
sleep 0.2
rm -rf -- "$1"
"""


class Guard:
    """A shell that stays when this process is killed, ends the groups it was told of and removes DIRECTORY."""

    def __init__(self, directory: str) -> None:
        self.process = subprocess.Popen(
            ["sh", "-c", WARDEN, "minictr-guest-guard", directory],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def tell(self, word: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n".encode())
        self.process.stdin.flush()

    @contextlib.contextmanager
    def started(self, command: Sequence[object], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
        """COMMAND in a group of its own; on leaving, it and every process that it made are killed."""
        process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            **options,
        )
        try:
            self.tell(process.pid)
            yield process
        finally:
            # The group's number is the leader's pid: still its own here, since nobody has reaped it.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def __enter__(self) -> Guard:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        self.tell("done")
        self.process.stdin.close()
        self.process.wait()


def watch(
    process: subprocess.Popen[bytes], output: Path, seconds: float, follow: Callable[[str], object] | None = None
) -> None:
    """Waits until the guest has ended, or its time is over; hands the new part of ``output`` on meanwhile."""
    end, told = time.monotonic() + seconds, 0
    while True:
        ended = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None
        if follow and output.exists() and (new := output.read_bytes()[told:]):
            told += len(new)
            follow(new.decode(errors="replace"))
        if ended or time.monotonic() > end:
            return
        time.sleep(0.05)
