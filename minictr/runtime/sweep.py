"""What dead owners left: found by their journals, and taken back. Done before every start, and by ``minictr gc``.

A container's directory that nobody holds the lock of has no owner: its starter, or its monitor, is gone. Then

- one that was never finished (killed amid its start), or that was to live as long as its starter, is ended and removed;
- one of a monitor that was killed goes on if it still runs: its state stays true by pid and start time. When it is over
  its cgroups go, how it ended is written down as unknown, and it stays to be looked at until ``rm``.
"""

from __future__ import annotations

import os
import time

from minictr.errors import MinictrError, StateError
from minictr.runtime.record import Record
from minictr.runtime.store import SHORT, Store, is_directory

__all__ = ["new_record", "sweep", "sweep_now_and_then"]

INTERVAL = 1.0  # seconds between two sweeps by one process that starts one container after another

_swept: dict[str, float] = {}


def sweep_now_and_then(store: Store) -> None:
    """A sweep, unless this process did one within the last second. A failure is not the start's: gc will tell it."""
    now = time.monotonic()
    if now - _swept.get(store.path, -INTERVAL) >= INTERVAL:
        _swept[store.path] = now
        sweep(store)


def new_record(name: str = "", root: str = "") -> Record:
    """A container's directory below ROOT, for what must not be left behind if this process is killed; NAME is taken."""
    store = Store(root)
    sweep_now_and_then(store)
    return Record.new(store, name)


def sweep(store: Store, *, names: bool = False) -> list[str]:
    """Take back what dead owners left in STORE: one line for each thing removed, and for each that could not be.

    ``names``: those that stand for no container too; taking such a name does not need it.
    """
    told: list[str] = []
    for identity in store.ids():
        try:
            record = Record.at(store, identity)
        except StateError as err:
            if store.has(identity):  # else removed this moment by somebody else
                told.append(f"container {identity[:SHORT]}: left as it is: {err}")
            continue
        with record:
            if record.own():
                from minictr.runtime.reclaim import sweep_one

                try:
                    told += sweep_one(record)
                except (MinictrError, OSError) as err:
                    told.append(f"container {identity[:SHORT]}: left as it is: {err}")
    if names and is_directory(os.path.join(store.path, "network")):
        from minictr.runtime.network.attachment import settle as settle_networks

        settle_networks(store)
    if names:
        from minictr.runtime.reclaim import forget_names

        told += forget_names(store)
    return told
