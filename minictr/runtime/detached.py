"""A container that outlives the process that starts it: the start of :mod:`minictr.runtime.launch`, with a monitor.

    this process                             monitor (minictr/_core/monitor.c)          child
    PREPARE, room for the exit record, log,
    socket, last readings
    clone3 ------------------------------->  forks once, clone3 ----------------------> the start as ever
    <------------------ pid and pidfd -----
    ATTACH, go, terminal: as ever; its master is handed to the monitor
    the program runs, or holds before it
    state.json
    commit ------------------------------->  from here on the container lives
    <--------------------------- commit ---
    journal: committed

Whoever dies before the commit takes the container along: the monitor sees the end of its control socket, the child that
of its parent.
"""

from __future__ import annotations

import os
import sys
import time

from minictr.errors import StepFailed
from minictr.kernel.handles import shut
from minictr.runtime import events
from minictr.runtime.aftermath import groups_of
from minictr.runtime.identity import ProcessIdentity
from minictr.runtime.launch import START_TIMEOUT, Start
from minictr.runtime.state import NOBODY, State, spec_text
from minictr.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minictr.kernel.monitor import Monitor
    from minictr.runtime.console import Console
    from minictr.runtime.ended import ExitRecord
    from minictr.runtime.program import Program
    from minictr.runtime.record import Record

__all__ = ["Keeping", "start_detached"]

LOG_SIZE, LOG_FILES = 10 << 20, 2


class Keeping(Value):
    """How a detached container is kept.

    ``held``: set up to just before its program, until ``start``. ``remove``: gone with its end. ``interactive``:
    standard input stays open for ``attach``. ``log``: bytes a file, number of files; (0, 0) for none. ``stop_signal``,
    ``stop_timeout``: as :class:`State` has them. ``command_line``: the words that made it, said in ``directory``.
    """

    held: bool = False
    remove: bool = False
    interactive: bool = False
    log: tuple[int, int] = (LOG_SIZE, LOG_FILES)
    stop_signal: int = 15
    stop_timeout: float = 10.0
    command_line: tuple[str, ...] = ()
    directory: str = ""
    upper: str = ""


def start_detached(
    program: Program,
    record: Record,
    keeping: Keeping,
    *,
    console: Console | None = None,
    start_timeout: float = START_TIMEOUT,
    created: int = 0,
) -> State:
    """Start PROGRAM under a monitor; what was written down of it. RECORD is owned by us, and then by the monitor.

    ``created``: when the container first was, for one that is started again. Raises what
    :func:`minictr.runtime.launch.launch` does; nothing is left then but a container that was there before.
    """
    run = DetachedStart(program, record, keeping, start_timeout, console, created)
    run.through("prepare", "clone", "attach", "take_console", "await_exec", "commit")
    assert run.state is not None
    return run.state


class DetachedStart(Start):
    """A start whose child is a monitor's, not ours."""

    def __init__(
        self,
        program: Program,
        record: Record,
        keeping: Keeping,
        timeout: float,
        console: Console | None,
        created: int,
    ) -> None:
        super().__init__(program, {}, 0, timeout, console, record)
        self.keeping, self.created = keeping, created
        self.kept_record = record
        self.begun = time.time_ns()  # looked at now: a short program is over before it is written down
        self.state: State | None = None
        self.monitor: Monitor | None = None
        self.pidns = self.hold = -1
        self.ours: dict[str, int] = {}  # our ends of the program's pipes

    def _own_record(self, record: Record) -> None:
        if self.created:
            self.on_failure.push_record(leave_as_before, record, record.exit_record())
        else:
            super()._own_record(record)

    def prepare(self) -> None:
        """Standard streams too: pipes, and /dev/null for an input that nobody asked for."""
        if self.console is None:
            self._streams()
        super().prepare()
        if "hold" in self.program.calls:
            theirs, self.hold = self._pipe()
            self.fds["hold"] = theirs

    def _streams(self) -> None:
        if self.keeping.interactive:
            theirs, self.ours["stdin"] = self._pipe()
            self.fds["stdin"] = theirs
        else:
            self.own("stdin", os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        for name in ("stdout", "stderr"):
            self.ours[name], self.fds[name] = self._pipe()

    def enter_pidns(self, fd: int) -> None:
        """The monitor itself stays outside, and enters it for the clone alone."""
        self.pidns = fd

    def clone(self) -> None:
        """The monitor's files first: what the disk has no room for is no failure of a clone."""
        self.monitor = self._monitor()
        super().clone()

    def _monitor(self) -> Monitor:
        from minictr.kernel.monitor import Monitor, listening_socket

        record, keeping, spec = self.kept_record, self.keeping, self.program.plan.spec
        log_max, log_files = keeping.log
        if log_files:
            self.own("log", record.open_log())
        self.own("exit", record.make_exit_room())
        try:
            self.own("listen", listening_socket(record.fd))
        except StepFailed as err:
            raise record.failed("listen on", "attach", err) from err
        events_fd = events.open_log(record.store)
        if events_fd >= 0:
            self.own("events", events_fd)
        command, env = cleanup_command(record)
        return Monitor(
            record.fd,
            lock=record.fd,
            listen=self.fds["listen"],
            log=self.fds.get("log", -1),
            log_max=log_max,
            log_files=log_files or 1,
            exit=self.fds["exit"],
            events=events_fd,
            event=events.prefix(record.id, spec.name),
            finals=self._finals(),
            command=command,
            env=env,
            stop_signal=keeping.stop_signal,
            title=spec.name or record.id[:12],
        )

    def _clone_child(self, keep: set[int]) -> tuple[int, int]:
        assert self.monitor is not None
        return self.monitor.spawn(
            self.flags,
            self.region,
            keep,
            cgroup=self.cgroup_fd,
            pidns=self.pidns,
            status=self.status,
            timeout=self.remaining(),
            **self.ours,
        )

    def _identify(self) -> ProcessIdentity:
        """It is the monitor's child, who may have reaped it: looked for."""
        return ProcessIdentity.of(self.pid)

    def _finals(self) -> list[tuple[int, str, str]]:
        """The last readings of the cgroups are copied by the monitor: nobody else may live to see them."""
        from minictr.kernel import cgroups

        rows: list[tuple[int, str, str]] = []
        for controller, place in self.places.items():
            names = cgroups.final_files(place)
            if not names:
                continue
            try:
                os.makedirs(os.path.join(self.kept_record.directory, "final", controller), exist_ok=True)
            except OSError as err:
                raise self.kept_record.failed("make", f"final/{controller}", err) from err
            self.own(f"final:{controller}", os.open(place.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
            rows += ((self.fds[f"final:{controller}"], name, f"final/{controller}/{name}") for name in names)
        return rows

    def take_console(self) -> None:
        super().take_console()
        if self.console is not None and self.monitor is not None and self.console.master >= 0:
            self.monitor.give_terminal(self.console.master)

    def await_exec(self) -> None:
        """Until the program runs, or holds just before it."""
        if "hold" not in self.program.calls:
            super().await_exec()
            return
        self.until_held()

    def _state(self, process: ProcessIdentity, monitor: ProcessIdentity) -> State:
        keeping, spec, held = self.keeping, self.program.plan.spec, "hold" in self.program.calls
        return State(
            self.kept_record.id,
            spec,
            self.created or self.begun,
            0 if held else self.begun,
            held,
            detached=True,
            remove=keeping.remove,
            tty="tty" in spec.names,
            interactive=keeping.interactive,
            stop_signal=keeping.stop_signal,
            stop_timeout=keeping.stop_timeout,
            process=process,
            monitor=monitor,
            groups=groups_of(self.places),
            nics=() if self.network is None else self.network.rows(),
            ports=() if self.network is None else tuple(self.network.ports),
            log=keeping.log,
            command_line=keeping.command_line,
            directory=keeping.directory,
            upper=keeping.upper,
        )

    def _written(self, process: ProcessIdentity) -> str:
        if not self.program.spec_text:
            self.program.spec_text = spec_text(self.program.plan.spec)
        # as long as it can become: "start" writes when it was
        return self._state(process, process).replace(started=self.begun).text(self.program.spec_text)

    def commit(self) -> None:
        """Write it down, then hand it over."""
        assert self.monitor is not None
        if self.identity is None:
            raise StepFailed("the container", 0, cure="it was gone before it could be written down")
        record, spec, now = self.kept_record, self.program.plan.spec, self.begun
        self.state = self._state(self.identity, monitor_identity(self.monitor.pid))
        held = self.state.held
        record.save(self.state.text(self.program.spec_text))
        if held:
            self.monitor.give_hold(self.report, self.region, self.hold)
        if not self.created:  # told first: what the monitor has to tell, that it died, comes after
            events.tell(record.store, record.id, spec.name, "create", at=now)
        if not held:
            events.tell(record.store, record.id, spec.name, "start", at=now)
        self.monitor.commit(final=False)
        # should we die before this line: it lives, and is removed at its end, as nobody was ever told of it; should the
        # line fail, the start is undone, for we have not said farewell yet
        record.write_ahead(("committed",))
        self.monitor.close()

    def _death(self) -> int:
        """The monitor ends the child and tells its wait status."""
        if self.monitor is None or not self.pid:
            return 0
        self.pid = 0
        status = self.monitor.abort()
        if self.monitor.reason is not None and not status:
            raise self.monitor.reason
        return status

    def abort(self) -> None:
        try:
            super().abort()
        finally:
            if self.monitor is not None:
                self.monitor.close()

    def close(self) -> None:
        super().close()
        if self.state is not None:  # it is the monitor's now
            for name in ("pidfd", "status"):
                if getattr(self, name) >= 0:
                    shut(getattr(self, name))
                    setattr(self, name, -1)


def leave_as_before(record: Record, ended: ExitRecord | None) -> None:
    """A container that was over, and could not be started again, is over still, and it is known how."""
    if ended is not None:
        record.write_exit(ended)
    record.settled()


def monitor_identity(pid: int) -> ProcessIdentity:
    """Who the monitor is; nobody when it is gone already."""
    try:
        return ProcessIdentity.of(pid)
    except ProcessLookupError:
        return NOBODY


def cleanup_command(record: Record) -> tuple[list[str], list[str]]:
    """What the monitor executes at the end: this very minictr, by this very interpreter; argv and environment."""
    if not sys.executable:
        return [], []  # embedded: the next sweep does it
    code = f"import sys; sys.path[:] = {sys.path!r}; from minictr.cli.entry import leave; leave()"
    words = ["--root", record.store.path, "cleanup", record.id]
    return [sys.executable, "-IS", "-c", code, *words], ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]
