"""A container that exists: found by name or id, looked at, and led through its life.

Whether it runs is never read from a file: the process that was written down is looked for, by pid, start time and boot.
"""

from __future__ import annotations

import os

from minictr.errors import MinictrError, NoSuchContainer, SpecError, StateError, WrongStatus
from minictr.runtime import inside
from minictr.runtime.ended import ExitRecord
from minictr.runtime.identity import ProcessIdentity
from minictr.runtime.looks import frozen
from minictr.runtime.record import Record
from minictr.runtime.state import Brief, State
from minictr.runtime.store import SHORT, Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from minictr.kernel.cgroup_usage import Usage
    from minictr.kernel.cgroups import Place
    from minictr.runtime.top import Row
    from minictr.steps import Feature

__all__ = ["Instance", "container", "containers", "find"]

SIGKILL = 9
LIVE = ("created", "running", "paused")


class Instance:
    """One container of a store. ``id``, ``name``, ``state`` (as written down), ``directory``.

    An instance is no handle: it holds nothing open, and another process may end or remove the container meanwhile.
    """

    def __init__(self, store: Store, identity: str, state: State | None = None, *, listed: bool = False) -> None:
        """LISTED: one of many, of which a glance is wanted until more is asked for."""
        self.store, self.id, self.listed = store, identity, listed
        self.directory = os.path.join(store.containers, identity)
        self._state = state
        self._brief: Brief | State | None = state

    # --- what it is ---

    def record(self) -> Record:
        """Its directory, opened, not owned. Raises NoSuchContainer when it is gone."""
        try:
            return Record.at(self.store, self.id)
        except StateError as err:
            if self.store.has(self.id):
                raise
            raise NoSuchContainer(str(err)) from err

    @property
    def state(self) -> State:
        """As written down when it was last looked at; see :meth:`refresh`. Raises StateError, NoSuchContainer."""
        if self._state is None:
            self.refresh()
        assert self._state is not None
        return self._state

    def refresh(self) -> State:
        """Read it again."""
        with self.record() as record:
            self.take(State.of(record))
        return self.state

    @property
    def brief(self) -> Brief | State:
        """What tells whether it runs: all of its state; of one in a list less, until that is asked for. Raises as it
        does."""
        if not self.listed:
            return self.state
        if self._brief is None:
            with self.record() as record:
                self._brief = Brief.of(record)
        return self._brief

    def take(self, state: State) -> None:
        """STATE is what has just been written down."""
        self._state = self._brief = state

    @property
    def name(self) -> str:
        return self.brief.name

    @property
    def label(self) -> str:
        """What a person knows it by."""
        return self.name or self.id[:SHORT]

    @property
    def process(self) -> ProcessIdentity:
        """Its first process."""
        return self.brief.process

    @property
    def alive(self) -> bool:
        """Whether its first process is there: that of a later life, if it was started again since we read its state."""
        read_before = self._brief is not None
        if self.process.alive or not read_before:
            return self.process.alive
        try:
            return self.refresh().process.alive
        except NoSuchContainer:
            return False

    @property
    def pid(self) -> int:
        """Of its first process, as the host counts; 0 when it does not run."""
        return self.process.pid if self.alive else 0

    @property
    def running(self) -> bool:
        """Whether its program runs, frozen or not."""
        return self.status in ("running", "paused")

    @property
    def status(self) -> str:
        """``created`` (set up, waiting for start), ``running``, ``paused``, ``exited``, or ``dead`` (over, and nobody
        knows how)."""
        if not self.alive:
            return "exited" if self.exit_record() is not None and self.exit_code is not None else "dead"
        if self.brief.held:
            return "created"
        groups = ((group.controller, group.version, group.directory) for group in self.brief.groups)
        return "paused" if frozen(groups) else "running"

    def exit_record(self) -> ExitRecord | None:
        """How it ended, once that is written down."""
        with self.record() as record:
            return record.exit_record()

    @property
    def returncode(self) -> int | None:
        """As :attr:`Process.returncode`: exit code or minus the signal; None while it runs, or when nobody knows."""
        ended = self.exit_record()
        return None if ended is None or ended.status is None else os.waitstatus_to_exitcode(ended.status)

    @property
    def exit_code(self) -> int | None:
        """As a shell tells it: 128 + n for signal n."""
        code = self.returncode
        return code if code is None or code >= 0 else 128 - code

    def places(self) -> dict[str, Place]:
        """Controller -> its cgroup."""
        if not self.state.groups:
            return {}
        from minictr.kernel import cgroups

        return {row.controller: cgroups.Place(row.version, row.controller, row.directory) for row in self.state.groups}

    def freezer(self) -> Place | None:
        """The cgroup that can be frozen: v1's freezer, or any of v2."""
        places = self.places()
        return places.get("freezer") or next((place for place in places.values() if place.version == 2), None)

    def stats(self) -> Usage:
        """Readings of its cgroups, now; their last ones when it is over."""
        from minictr.kernel import cgroups

        alive, places = self.alive, tuple(self.places().values())
        if alive:
            return cgroups.usage(places)
        final = os.path.join(self.directory, "final")
        return cgroups.usage(tuple(place.replace(directory=f"{final}/{place.controller}") for place in places))

    def processes(self) -> tuple[int, ...]:
        """The pids of all its processes, as the host counts: by its cgroups, else by its pid namespace."""
        if not self.alive:
            return ()
        for place in self.places().values():
            from minictr.kernel import cgroups

            return cgroups.processes(place.directory)
        from minictr.kernel.procfs import of_pid_namespace

        return of_pid_namespace(self.process.pid)

    # --- what can be done with it ---

    def must_be(self, *wanted: str, verb: str) -> str:
        """Its status, if it is one of WANTED; otherwise WrongStatus naming VERB and the cure. StateError when not all
        of its state can be read: nothing is done to such a one."""
        _ = self.state
        status = self.status
        if status in wanted:
            return status
        cures = {
            "created": f"minictr start {self.label}",
            "exited": f"minictr start {self.label}",
            "dead": f"minictr start {self.label}",
            "paused": f"minictr unpause {self.label}",
            "running": f"minictr stop {self.label}",
        }
        raise WrongStatus(f"{verb} {self.label}: it is {status}: {cures[status]} first", status)

    def kill(self, signal: int = SIGKILL, *, every: bool = False) -> None:
        """Send SIGNAL to its first process, whose init passes it on; with ``every`` to each of its processes."""
        from minictr.runtime import ending

        self.must_be(*LIVE, verb="kill")
        if every:
            for pid in self.processes():
                try:
                    os.kill(pid, signal)
                except ProcessLookupError:
                    pass
        else:
            ending.send(self, signal)
        self._tell("kill", signal=signal)

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait for its end: the returncode, None when nobody knows it. Raises TimeoutError after TIMEOUT seconds."""
        from minictr.runtime import ending

        ended = ending.wait(self, timeout)
        return None if ended is None or ended.status is None else os.waitstatus_to_exitcode(ended.status)

    def stop(self, timeout: float | None = None, signal: int | None = None) -> None:
        """Ask it to end by its stop signal, kill it after TIMEOUT seconds, and take back what it had on the host.

        Nothing happens to one that is over already.
        """
        from minictr.runtime import ending

        seconds = self.state.stop_timeout if timeout is None else timeout
        with self.record() as record, record.editing():
            record.mark_stopped()
            if self.alive:
                ending.finish(self, signal or self.state.stop_signal, 0 if self.state.held else seconds)
                self._tell("stop")
        self.settle()

    def settle(self) -> None:
        """It is over: wait until its monitor and the cleanup are done, or do what they did not. StateError."""
        from minictr.runtime import ending

        ending.settle(self)

    def pause(self) -> None:
        """Freeze every process of it. Raises WrongStatus; SpecError where it has no cgroup to do it by."""
        self.must_be("running", verb="pause")
        from minictr.kernel import cgroups

        place = self.freezer()
        if place is None:
            raise SpecError(f"pause {self.label}: it was started without the feature freezer")
        cgroups.freeze(place)
        self._tell("pause")

    def unpause(self) -> None:
        """Let it go on."""
        self.must_be("paused", verb="unpause")
        self.thaw()
        self._tell("unpause")

    def thaw(self) -> None:
        """Undo a freeze, if there is one; whatever it is that runs."""
        place = self.freezer()
        if place is not None and os.path.isdir(place.directory):
            from minictr.kernel import cgroups

            cgroups.thaw(place)

    # --- what can be done inside ---

    exec = inside.execute
    popen = inside.popen
    attach = inside.attach
    logs = inside.logs
    copy_in = inside.copy_in
    copy_out = inside.copy_out
    diff = inside.diff
    commit = inside.commit

    # --- what is left of it ---

    def rename(self, name: str) -> None:
        """Call it NAME. Raises SpecError for a name in use."""
        with self.record() as record, record.editing():
            state = State.of(record)
            spec = state.spec.replace(name=name)
            if not name or name == state.name:
                raise SpecError(f"rename {self.label}: {name!r} is {'its name already' if name else 'no name'}")
            self.store.take_name(name, self.id)
            try:
                record.save(state.replace(spec=spec).text())
            except BaseException:
                self.store.drop_name(name, self.id)
                raise
            self.store.drop_name(state.name, self.id)
            self.take(state.replace(spec=spec))
            if state.nics and "names" in spec.names and self.alive:
                from minictr.runtime.network.names import renamed

                renamed(self.store, self.id, state.name, name)
        self._tell("rename", old=state.name)

    def remove(self, *, force: bool = False) -> None:
        """Remove what is left of it; with FORCE end it first, and remove it even if its state cannot be read.

        Raises WrongStatus for one that runs, without FORCE.
        """
        from minictr.runtime import ending

        ending.remove(self, force=force)

    def start(self) -> None:
        """Run it: one that was created goes on to its program, one that is over runs once more. Raises WrongStatus."""
        from minictr.runtime.kept import start

        start(self)

    def update(self, *wanted: Feature, **limits: Any) -> None:
        """New limits, all or none: features, of which what is not None counts, or keywords as ``mc.Cgroup`` has them.

        >>> mc.container("web").update(memory="512M", cpus=1.5)

        Raises SpecError for a controller it was made without, StepFailed for what the kernel refuses.
        """
        from minictr.runtime.update import update, with_limits

        update(self, with_limits(self.refresh().spec, wanted, limits))

    def top(self) -> list[Row]:
        """Its processes. Raises WrongStatus for one that does not run."""
        from minictr.runtime.top import top

        return top(self)

    def events(self, since: int = 0, *, follow: bool = False) -> Iterator[dict[str, Any]]:
        """What happened to it from SINCE (nanoseconds since 1970) on; with FOLLOW what will happen too, without end."""
        from minictr.runtime import events

        found = events.follow(self.store, since) if follow else events.read(self.store, since)
        return (event for event in found if event.get("id") == self.id)

    def inspect(self) -> dict[str, Any]:
        """All that is known, as plain data."""
        from minictr.runtime.inspect import inspect

        return inspect(self)

    def _tell(self, action: str, **more: Any) -> None:
        from minictr.runtime import events

        events.tell(self.store, self.id, self.name, action, **more)

    def __repr__(self) -> str:
        return f"<Instance {self.id[:SHORT]}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Instance) and (self.store.path, self.id) == (other.store.path, other.id)

    def __hash__(self) -> int:
        return hash(self.id)


def find(word: str, root: str = "") -> Instance:
    """The container called WORD (name, id, or beginning of an id). Raises NoSuchContainer, SpecError, StateError."""
    store = Store(root)
    store.check()
    return Instance(store, store.lookup(word))


def container(word: str, *, root: str = "") -> Instance:
    """:func:`find`, by the front door's name: ``mc.container("web").stop()``."""
    return find(word, root)


def containers(*, all: bool = False, root: str = "") -> list[Instance]:
    """The containers that run; with ALL also those that wait for their start or are over. Oldest first.

    One whose state cannot be read is left out unless ALL is true; its attributes then raise StateError.
    """
    store = Store(root)
    store.check()
    found: list[tuple[int, Instance]] = []
    for identity in store.ids():
        instance = Instance(store, identity, listed=True)
        try:
            if all or instance.running:
                found.append((instance.brief.created, instance))
        except MinictrError:
            if all and os.path.isdir(instance.directory):
                found.append((0, instance))
    return [instance for _, instance in sorted(found, key=lambda row: row[0])]
