"""Being told when a limit bites: out of memory, memory.high, the pids limit. cgroups(7), inotify(7), eventfd(2).

==============  =====================================================  ============================================
event           v2                                                     v1
==============  =====================================================  ============================================
oom             memory.events "oom", by inotify                        memory.oom_control, by eventfd
oom_kill        memory.events "oom_kill", by inotify                   memory.oom_control "oom_kill", at an oom
memory_max      memory.events "max", by inotify                        memory.failcnt, when else something is told
memory_high     memory.events "high", by inotify                       memory.usage_in_bytes above ``high``, eventfd
pids_max        pids.events "max", by inotify                          the same, looked at every 0.1 s, Linux 4.8
==============  =====================================================  ============================================
"""

from __future__ import annotations

import os
import select
from sys import byteorder
from time import monotonic

from minictr.errors import StepFailed, Unsupported
from minictr.kernel.cgroup_files import get, numbers, write
from minictr.kernel.cgroup_places import Place
from minictr.kernel.core import check, lib
from minictr.kernel.handles import Handle
from minictr.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["Event", "Events"]

IN_MODIFY, IN_NONBLOCK, IN_CLOEXEC = 0x2, 0o4000, 0o2000000  # linux/inotify.h
LOOK_AGAIN = 0.02  # seconds: v1 tells an oom before it counts the kill
# seconds between two looks at v1's pids.events: since Linux 6.11 the kernel notifies a file that v1 does not have
# (events_local_file of kernel/cgroup/pids.c), and inotify and poll are silent
LOOK_PIDS = 0.1
LOOK_GONE = 1.0  # seconds between two looks whether the groups are there: kernfs need not tell of a removal
LOOK_LONG = 0.5  # seconds after an oom during which a kill is looked for

# (version, controller) -> files watched by inotify, and (event, file, name in the file; "" for a file of one number)
WATCHED: dict[tuple[int, str], tuple[str, ...]] = {
    (2, "memory"): ("memory.events",),
    (2, "pids"): ("pids.events",),
    (1, "pids"): ("pids.events",),
    (1, "memory"): (),
}
COUNTERS: dict[tuple[int, str], tuple[tuple[str, str, str], ...]] = {
    (2, "memory"): tuple(
        (event, "memory.events", name)
        for event, name in (("memory_high", "high"), ("memory_max", "max"), ("oom", "oom"), ("oom_kill", "oom_kill"))
    ),
    (1, "memory"): (
        ("memory_max", "memory.failcnt", ""),
        ("memory_max", "memory.memsw.failcnt", ""),
        ("oom_kill", "memory.oom_control", "oom_kill"),
    ),
    (2, "pids"): (("pids_max", "pids.events", "max"),),
    (1, "pids"): (("pids_max", "pids.events", "max"),),
}


class Event(Value):
    """A limit bit ``new`` times since the last look, ``count`` in all (v1's oom and memory_high: while watched)."""

    kind: str
    new: int
    count: int


class Events(Handle):
    """A subscription to PLACES of the controllers memory and pids: ``wait()`` for what happens from now on.

    ``high``: on v1, bytes of use above which "memory_high" is told; v2 tells of its own memory.high. Raises Unsupported
    when no place has events, StepFailed.

    >>> with Events([locate("pids", "lab")]) as events:
    ...     events.wait(10)
    (Event(kind='pids_max', new=1, count=1),)
    """

    def __init__(self, places: Iterable[Place], *, high: int = -1) -> None:
        self.places = tuple(place for place in places if (place.version, place.controller) in WATCHED)
        if not self.places:
            raise Unsupported("cgroup events", "none of these groups tells events", "give a memory or a pids group")
        self._fds: list[int] = []
        self._notified: dict[int, str] = {}  # eventfd -> event
        self._signals: dict[int, int] = {}  # eventfd -> how often it was written to
        self._began_above = False
        self._counts: dict[str, int] = {}
        self._look_until = 0.0
        polled = any((place.version, place.controller) == (1, "pids") for place in self.places)
        self._pause = LOOK_PIDS if polled else LOOK_GONE
        try:
            self._epoll = select.epoll()
            self._inotify = check(lib.mc_inotify_init1(IN_NONBLOCK | IN_CLOEXEC), "inotify_init1")
            self._fds.append(self._inotify)
            self._epoll.register(self._inotify, select.EPOLLIN)
            for place in self.places:
                for file in WATCHED[place.version, place.controller]:
                    path = f"{place.directory}/{file}"
                    result = lib.mc_inotify_add_watch(self._inotify, os.fsencode(path), IN_MODIFY)
                    check(result, f"watch {path}", "pids.events needs Linux 4.8 on cgroup v1" if result == -2 else "")
                if (place.version, place.controller) == (1, "memory"):
                    self._register(place.directory, "oom", "memory.oom_control", "")
                    if high >= 0:
                        self._began_above = int(get(place.directory, "memory.usage_in_bytes")) >= high
                        self._register(place.directory, "memory_high", "memory.usage_in_bytes", f" {high}")
            self._counts = self._read()
        except BaseException:
            self._forget()
            raise
        self._open = True

    def _register(self, directory: str, event: str, file: str, argument: str) -> None:
        """Have the kernel write to an eventfd: ``EVENTFD FD [ARGUMENT]`` to cgroup.event_control. v1, Linux 2.6.34."""
        notified = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._fds.append(notified)
        try:
            fd = os.open(f"{directory}/{file}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as err:
            raise StepFailed(f"open {directory}/{file}", err.errno or 0) from err
        try:
            write(directory, "cgroup.event_control", f"{notified} {fd}{argument}")
        finally:
            os.close(fd)
        self._notified[notified] = event
        self._counts[event] = 0
        self._epoll.register(notified, select.EPOLLIN)

    def __repr__(self) -> str:
        return f"<events of {', '.join(place.directory for place in self.places)}>"

    def fileno(self) -> int:
        """For poll(2): readable when there may be something; a v1 group's pids limit is not told so."""
        return self._epoll.fileno()

    def wait(self, timeout: float | None = None) -> tuple[Event, ...]:
        """What happened since the last call, as soon as something has; () after ``timeout`` seconds (None: for ever).

        Raises StepFailed with ENODEV when the groups are gone.
        """
        deadline = None if timeout is None else monotonic() + timeout
        while True:
            found = self._changes()
            if found:
                return found
            if not any(os.path.isdir(place.directory) for place in self.places):
                raise StepFailed(f"wait for events of {self.places[0].directory}", 19, cure="the group was removed")
            left = None if deadline is None else deadline - monotonic()
            if left is not None and left <= 0:
                return ()
            pause = LOOK_AGAIN if monotonic() < self._look_until else self._pause
            self._epoll.poll(pause if left is None else min(left, pause))

    def __iter__(self) -> Iterator[Event]:
        """Every event until the groups are gone."""
        while True:
            try:
                yield from self.wait()
            except StepFailed as err:
                if err.errno == 19:
                    return
                raise

    def _changes(self) -> tuple[Event, ...]:
        _drain(self._inotify)
        counts = self._read()
        for notified, event in self._notified.items():
            block = _drain(notified)
            if not block or not any(os.path.isdir(place.directory) for place in self.places):
                continue  # v1 notifies all that listen when a group is removed
            times = self._signals.get(notified, 0) + int.from_bytes(block, byteorder)
            self._signals[notified] = times
            if event == "oom":
                self._look_until = monotonic() + LOOK_LONG
                counts[event] = times
            else:  # told on the way up and on the way down
                counts[event] = (times + (not self._began_above)) // 2
        before, self._counts = self._counts, counts
        changed = ((kind, count - before.get(kind, 0), count) for kind, count in counts.items())
        return tuple(Event(kind, new, count) for kind, new, count in changed if new > 0)

    def _read(self) -> dict[str, int]:
        """The counters of all places that are still there."""
        counts: dict[str, int] = {}
        for place in self.places:
            for event, file, name in COUNTERS[place.version, place.controller]:
                try:
                    text = get(place.directory, file)
                except OSError:
                    continue
                counts[event] = counts.get(event, 0) + (numbers(text).get(name, 0) if name else int(text))
        return {**self._counts, **counts}

    def _close(self) -> None:
        self._forget()

    def _forget(self) -> None:
        if hasattr(self, "_epoll"):
            self._epoll.close()
        while self._fds:
            os.close(self._fds.pop())


def _drain(fd: int) -> bytes:
    """All that can be read without waiting; the first block."""
    first = b""
    while True:
        try:
            block = os.read(fd, 4096)
        except BlockingIOError:
            return first
        first = first or block
