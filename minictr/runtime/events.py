"""What happened to containers, one JSON line each, in a file of the store. There is no daemon that could tell.

``{"time": ns since 1970, "id": ..., "name": ..., "action": ...}`` and more by action. The monitor writes ``die``.
A full disk loses an event, never a container.
"""

from __future__ import annotations

import os
import time

from minictr.jsontext import dumps, loads
from minictr.kernel.handles import shut

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from minictr.runtime.store import Store

__all__ = ["ACTIONS", "follow", "open_log", "path", "prefix", "read", "tell"]

ACTIONS = "create start die oom pids-limit stop kill pause unpause update rename exec attach commit destroy".split()
LOOK_AGAIN = 0.1  # seconds between two looks of who follows: a stat(2) each
ROTATE_AT = 4 << 20  # bytes; one older file is kept


def path(store: Store) -> str:
    return os.path.join(store.path, "events")


def open_log(store: Store) -> int:
    """A descriptor to append to; the monitor keeps one. -1 where that cannot be had."""
    name = path(store)
    try:
        if os.stat(name).st_size > ROTATE_AT:
            os.rename(name, f"{name}.1")
    except OSError:
        pass
    try:
        return os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError:
        return -1


def prefix(identity: str, name: str) -> str:
    """The beginning of every event of a container, up to its action."""
    return f'{{"id": {dumps(identity)}, "name": {dumps(name)}, '


def tell(store: Store, identity: str, name: str, action: str, *, at: int = 0, **more: Any) -> None:
    """Write one event. ``at``: when it happened, in ns since 1970; now where it is not said."""
    rest = "".join(f", {dumps(key)}: {dumps(value)}" for key, value in more.items())
    line = f'{prefix(identity, name)}"action": {dumps(action)}{rest}, "time": {at or time.time_ns()}}}\n'
    fd = open_log(store)
    if fd >= 0:
        try:
            os.write(fd, line.encode())
        except OSError:
            pass
        finally:
            shut(fd)


def read(store: Store, since: int = 0) -> Iterator[dict[str, Any]]:
    """The events from SINCE (ns) on, oldest first; lines that are not whole are left out."""
    for name in (f"{path(store)}.1", path(store)):
        try:
            with open(name, "rb") as file:
                data = file.read()
        except OSError:
            continue
        yield from _events(data.split(b"\n")[:-1], since)


def follow(store: Store, since: int = 0, until: int | None = None) -> Iterator[dict[str, Any]]:
    """:func:`read`, and what happens from then on, until the clock passes UNTIL (ns)."""
    file, rest, older = _File(f"{path(store)}.1"), b"", True
    try:
        while True:
            late = until is not None and time.time_ns() > until
            *lines, rest = (rest + file.read()).split(b"\n")
            yield from _events(lines, since)
            if older or file.is_moved(path(store)):  # it is written no more
                *lines, _ = (rest + file.read()).split(b"\n")
                yield from _events(lines, since)
                file.close()
                file, rest, older = _File(path(store)), b"", False
            elif late:
                return
            else:
                time.sleep(LOOK_AGAIN)
    finally:
        file.close()


class _File:
    """A file that grows, and may not be there yet."""

    def __init__(self, name: str) -> None:
        try:
            self.fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self.fd = -1

    def read(self) -> bytes:
        """What is new."""
        found = b""
        while self.fd >= 0 and (block := os.read(self.fd, 1 << 16)):
            found += block
        return found

    def is_moved(self, name: str) -> bool:
        """Whether NAME is another file than this one."""
        try:
            stat = os.stat(name)
        except OSError:
            return False
        return self.fd < 0 or os.fstat(self.fd).st_ino != stat.st_ino

    def close(self) -> None:
        if self.fd >= 0:
            shut(self.fd)
            self.fd = -1


def _events(lines: Iterable[bytes], since: int) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            event = loads(line.decode("utf-8", "replace"))
        except ValueError:
            continue
        if isinstance(event, dict) and type(event.get("time")) is int and since <= event["time"] < 1 << 63:
            yield event
