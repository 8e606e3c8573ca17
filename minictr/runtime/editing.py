"""One at a time: the lock of those who change a container. flock(2)."""

from __future__ import annotations

import fcntl
import os
import time

from minictr.errors import StateError
from minictr.kernel.handles import shut

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minictr.runtime.record import Record

__all__ = ["Editing"]

EAGAIN = 11
NO_ROOM = (28, 30, 122)  # ENOSPC, EROFS, EDQUOT


class Editing:
    """The lock of those who change a container (stop, update, rename, start): one after another. flock(2)."""

    def __init__(self, record: Record, timeout: float = 30) -> None:
        self.record, self.timeout, self.fd = record, timeout, -1

    def _opened(self) -> int:
        """The file "lock"; where none can be made, and so by nobody, "exit": a full disk must keep nobody from stop."""
        try:
            return os.open("lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=self.record.fd)
        except OSError as err:
            if err.errno not in NO_ROOM:
                raise
            for name in ("lock", "exit"):
                try:
                    return os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.record.fd)
                except FileNotFoundError:
                    pass
            raise

    def __enter__(self) -> None:
        try:
            self.fd = self._opened()
        except OSError as err:
            raise StateError(f"open {self.record.directory}/lock: {os.strerror(err.errno or 0)}") from err
        deadline = time.monotonic() + self.timeout
        while True:
            try:
                fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except OSError as err:
                if err.errno == EAGAIN and time.monotonic() < deadline:
                    time.sleep(0.005)
                    continue
                self.__exit__()
                cure = "another minictr works on it: wait for that one, or end it"
                raise StateError(f"lock {self.record.directory}/lock: {os.strerror(err.errno or 0)}; {cure}") from err

    def __exit__(self, *_exc: object) -> None:
        shut(self.fd)
        self.fd = -1
