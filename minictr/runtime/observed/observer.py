"""The observer: a process that traces the program and writes down what it saw.

A process by itself, for a tracer must be one thread, and a tracee's parent that also traces it would lose its exit
status. It knows no container: numbers and paths in its request, facts in its answer, a memory file. ``main`` is called
by :func:`minictr.runtime.observed.start.Observer.begin`.
"""

from __future__ import annotations

import os
import signal
import sys

from minictr.jsontext import dumps, loads
from minictr.kernel.ptrace import KILLED, TRAPPED, Tracer
from minictr.kernel.seccomp_library import name_of, table
from minictr.runtime.observed.calls import FORKS, OPENS, PATHS
from minictr.runtime.observed.facts import Look, real_paths
from minictr.runtime.observed.privileges import TABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minictr.kernel.ptrace import Stop

DISTINCT = 4096  # rows; more are counted only
ENOENT, EPERM, EACCES, EAGAIN, EXDEV, EROFS = 2, 1, 13, 11, 18, 30
LOOKS = frozenset("stat lstat stat64 lstat64 newfstatat fstatat64 statx readlink readlinkat statfs".split())
BINDS = frozenset(("bind", "connect"))


class Observer:
    """What was seen so far. REQUEST: ``errnos``, ``masked`` (paths), ``record`` (also what succeeded)."""

    def __init__(self, request: dict[str, Any]) -> None:
        self.masked: list[str] = request["masked"]
        self.recording: bool = request["record"]
        self.rows: dict[tuple[Any, ...], dict[str, Any]] = {}
        self.people: dict[str, int] = {}
        self.names: dict[tuple[str, int], str] = {}
        self.more = 0
        self.real: dict[str, str] = {}
        told = {*FORKS, *(OPENS if self.masked else ())}
        if self.recording:
            told |= OPENS | PATHS | BINDS | frozenset(TABLE)
        arches = [os.uname().machine, *(["x86"] if os.uname().machine == "x86_64" else ())]
        always = [(arch, nr) for arch in arches for nr, name in table(arch).items() if name in told]
        errnos = {*request["errnos"], *((ENOENT,) if self.masked else ())} - {EAGAIN}
        self.tracer = Tracer(errnos, always)

    def run(self, stopping: list[int]) -> None:
        """Until nobody is left, or STOPPING is filled by a signal and all that has stopped was looked at."""
        while True:
            try:
                stop = self.tracer.next(wait=not stopping)
            except InterruptedError:
                continue
            if stop is None:
                return
            self.see(stop)

    def see(self, stop: Stop) -> None:
        """One thread that stands still; or is dead, when a filter has killed it."""
        name = self.names.get((stop.arch, stop.number))
        if name is None:
            name = name_of(stop.number, stop.arch) if stop.arch[:2] != "0x" else ""
            self.names[stop.arch, stop.number] = name = name or str(stop.number)
        errno = -stop.result if -4096 < stop.result < 0 else 0
        if not errno and not self.recording and name not in OPENS:
            return  # a fork that was done
        if errno and self.recording and name != "connect":
            return  # what was denied is no need; a connection may be refused that was let try
        look = Look(stop.pid, name, stop.args)
        if name in ("execve", "execveat") and not errno:
            told = look.executed()
        else:
            told = look.arguments() if stop.what != KILLED else ""
        if self.recording or stop.what in (KILLED, TRAPPED) or self.matters(name, errno, look):
            self.note(stop, name, told, errno, look)

    def matters(self, name: str, errno: int, look: Look) -> bool:
        """Whether it is a denial: what is not there is one below a masked directory alone, which is empty."""
        if errno == EAGAIN:
            return name in FORKS
        if errno in (0, ENOENT):
            return any(below(path, mask) for path, _ in look.paths for mask in self.masked)
        return True

    def note(self, stop: Stop, name: str, told: str, errno: int, look: Look) -> None:
        who: dict[str, Any] = look.who() if stop.what != KILLED else {}
        person = self.people.setdefault(dumps(who), len(self.people))
        how = "kill" if stop.what == KILLED else "trap" if stop.what == TRAPPED else "call"
        key = (name, stop.arch, told or stop.args, errno, how, person)
        if self.recording and name in LOOKS and look.paths:  # of these only the way there matters
            key = (name, stop.arch, os.path.dirname(look.paths[0][0]), errno, how, person)
        row = self.rows.get(key)
        if row is not None:
            row["count"] += 1
        elif len(self.rows) >= DISTINCT and not self.recording:
            self.more += 1
        else:
            if name in ("kill", "tkill", "tgkill", "ptrace"):
                look.extra["owner"] = look.owner_of(stop.args[1 if name == "ptrace" else 0])
            self.rows[key] = {
                "call": name,
                "arch": stop.arch,
                "number": stop.number,
                "args": list(stop.args),
                "told": told,
                "errno": errno,
                "how": how,
                "who": person,
                "places": look.places() if stop.what != KILLED else [],
                "extra": look.extra,
                "count": 1,
            }

    def answer(self) -> str:
        seen = [[arch, name_of(number, arch) or str(number)] for arch, number in self.tracer.seen if arch]
        people = [loads(text) for text in self.people]
        told: dict[str, Any] = {"real": self.real, "rows": list(self.rows.values()), "people": people, "seen": seen}
        return dumps({**told, "more": self.more, "lost": self.tracer.lost})


def below(path: str, top: str) -> bool:
    return path == top or path.startswith(top + "/")


def main(request: str, out: int) -> None:
    """Observe as REQUEST (JSON) says: "+" on standard output when the program is traced, else what failed. OUT: the
    memory file for the answer."""
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: stopping.append(number))
    try:
        asked = loads(request)
        observer = Observer(asked)
        os.write(1, b"?")
        pid = int(os.read(0, 32) or b"0")
        if not pid:
            return
        observer.tracer.seize(pid)
        observer.real = real_paths(pid, asked["resolve"])
    except Exception as err:
        os.write(1, f"!{getattr(err, 'errno', 0) or 0} {err}".encode("utf-8", "replace"))
        return
    os.write(1, b"+")
    try:
        observer.run(stopping)
        told = observer.answer()
    except Exception as err:
        import traceback

        told = dumps({"error": f"{err!r}: {traceback.format_exc()}"})
    data = told.encode()
    while data:
        data = data[os.write(out, data) :]
    sys.stdout.flush()
