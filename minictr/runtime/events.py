"""What happened to containers, one JSON line each, in a file of the store. There is no daemon that could tell.

``{"time": ns since 1970, "id": ..., "name": ..., "action": ...}`` and more by action. The monitor writes ``die``.
A full disk loses an event, never a container.
"""

from __future__ import annotations

import os
import time

from minictr.jsontext import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from minictr.runtime.store import Store

__all__ = ["ACTIONS", "open_log", "path", "prefix", "read", "tell"]

ACTIONS = "create start die oom pids-limit stop kill pause unpause update rename exec attach commit destroy".split()
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


def tell(store: Store, identity: str, name: str, action: str, **more: Any) -> None:
    """Write one event."""
    rest = "".join(f", {dumps(key)}: {dumps(value)}" for key, value in more.items())
    line = f'{prefix(identity, name)}"action": {dumps(action)}{rest}, "time": {time.time_ns()}}}\n'
    fd = open_log(store)
    if fd >= 0:
        try:
            os.write(fd, line.encode())
        except OSError:
            pass
        finally:
            os.close(fd)


def read(store: Store, since: int = 0) -> Iterator[dict[str, Any]]:
    """The events from SINCE (ns) on, oldest first; lines that are not whole are left out."""
    for name in (f"{path(store)}.1", path(store)):
        try:
            with open(name, encoding="utf-8", errors="replace") as file:
                lines = file.read().split("\n")[:-1]
        except OSError:
            continue
        for line in lines:
            try:
                event = loads(line)
            except ValueError:
                continue
            if isinstance(event, dict) and event.get("time", 0) >= since:
                yield event
