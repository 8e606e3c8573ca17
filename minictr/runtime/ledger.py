"""One journal for all the containers that this process runs and waits for itself: a row each, not a directory each.

``Container.run`` in a loop would otherwise pay for a directory, a lock and a file at every start (0.8 ms on ext4). The
ledger is a record like any other (its lock is held as long as this process lives, a sweep takes back what its rows
announce), but no container's: it has no state. It goes when the interpreter ends.
"""

from __future__ import annotations

import os
from _thread import allocate_lock

from minictr.runtime.process import reap_dropped

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minictr.runtime.record import Record

__all__ = ["close_entry", "close_ledger", "open_entry"]

LONG = 64 << 10  # bytes of rows that are history: then the journal begins anew

_using = allocate_lock()
_ledger: Record | None = None
_owner = 0  # the process whose ledger it is: a fork must not write into, nor remove, its parent's
_entries = _numbered = 0


def open_entry() -> tuple[Record, str]:
    """The ledger, and the name of the next container's cgroups. Raises StateError."""
    global _ledger, _owner, _entries, _numbered
    with _using:
        if _ledger is not None and _owner == os.getpid() and not _is_good(_ledger):
            _close()
        if _ledger is None or _owner != os.getpid():
            _ledger, _owner, _entries, _numbered = _opened(), os.getpid(), 0, 0
        _entries, _numbered = _entries + 1, _numbered + 1
        return _ledger, f"{_ledger.group}-{_numbered}"


def close_entry(journal: Record) -> None:
    """One container that JOURNAL has rows of is over, and nothing of it left."""
    global _entries
    with _using:
        if journal is not _ledger or _owner != os.getpid():
            return  # of a store that is not used any more: its directory goes with this process's lock of it
        _entries -= 1
        if not _entries:
            _ledger.forget_rows(LONG)


def _is_good(record: Record) -> bool:
    """Whether RECORD is of the store that is in use now, and was not removed under us: then it has no link left."""
    from minictr.runtime.store import root_path

    return record.store.path == root_path() and os.fstat(record.fd).st_nlink > 0


def _opened() -> Record:
    import atexit

    from minictr.runtime.sweep import new_record

    record = new_record()
    record.write_ahead()  # its file is opened here, where one thread is at a time: two at once would open it twice
    if not _owner:
        atexit.register(close_ledger)
    return record


def close_ledger() -> None:
    """At the interpreter's end: what ended unwaited for is taken back first."""
    reap_dropped()
    _close()


def _close() -> None:
    """At the end, or for another store. Rows of what is still under way stay, and so does the lock: it is
    this process's as long as that lives, and then the next sweep's."""
    global _ledger
    if _ledger is None or _owner != os.getpid():
        return
    record, _ledger = _ledger, None
    try:
        if _entries:
            record.lend()
        else:
            record.forget()
    except Exception:
        return  # nobody is left who could be told; the sweep will see
