"""The executor: a program is started, or everything is undone. docs/how-a-container-starts.md draws it in full.

parent (this module)                          child (minictr/_core)
PREPARE  directories, namespace files
clone3(flags) --------------------------->    exec of the static stub, sealed in a memory file
ATTACH   id maps, oom_score_adj               waits at the barrier
"go" ------------------------------------>    SETUP, LOCK, VERIFY, EXEC
report pipe ends  <-----------------------    execve closed it, or the child died
region read back: running, or which op failed with which errno
"""

from __future__ import annotations

import os
import select
import time
from _thread import start_new_thread

from minictr.errors import MinictrError, SpecError, StartTimeout, StepFailed, Unsupported
from minictr.kernel.core import lib
from minictr.kernel.handles import shut
from minictr.kernel.stub import MAX_KEEP, spawn
from minictr.runtime.clock import Clock
from minictr.runtime.hands import HANDS
from minictr.runtime.process import EMFILE, Process, descriptors_cure, is_over, look_ahead, reap
from minictr.runtime.program import Outcome, Program, outcome_size
from minictr.runtime.undo import Undo
from minictr.steps import ATTACH, CLONE, PREPARE, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from minictr.kernel.cgroups import Place
    from minictr.runtime.console import Console
    from minictr.runtime.identity import ProcessIdentity
    from minictr.runtime.leases import Lease
    from minictr.runtime.network.attachment import Attachment
    from minictr.runtime.network.pasta import PastaNetwork
    from minictr.runtime.observed.start import Observer
    from minictr.runtime.record import Record
    from minictr.runtime.supervisor import Supervisor

SIGKILL = 9
CLONE_NEWPID = 0x20000000  # linux/sched.h
START_TIMEOUT = 10.0
# steps whose work outlives a killed parent: written down before
RECORDED = frozenset(("cgroup", "lease", "lease_ids", "lease_upon", "pasta"))
REAP_TIMEOUT = 5.0
PAGE = 4096


def launch(
    program: Program,
    fds: dict[str, int],
    *,
    preserve_fds: int = 0,
    start_timeout: float = START_TIMEOUT,
    console: Console | None = None,
    record: Record | None = None,
    supervisor: Supervisor | None = None,
    observer: Observer | None = None,
) -> Process:
    """Start a compiled program, and return when it runs.

    FDS: descriptors by word: "stdin", "stdout", "stderr" (unused with a console). ``preserve_fds``: so many from 3 on
    are passed on as well. ``start_timeout``: seconds. ``record``: the container's directory, owned by us; it goes with
    the process. Without one nobody finds it by name; what it needs of the host is in this process's ledger.
    ``supervisor``: answers for a filter that notifies, until the process is reaped. ``observer``: traces the program.

    Raises :class:`StepFailed` (one kernel operation failed; everything was undone), :class:`CommandNotFound`,
    :class:`CommandNotExecutable`, :class:`StartTimeout`.
    """
    arguments = program, dict(fds), preserve_fds, start_timeout, console, record, supervisor
    run = Start(*arguments) if observer is None else observer.start(*arguments)
    run.through("prepare", "clone", "attach", "take_console", "take_listener", "await_exec", "register")
    first = bool(run.flags & CLONE_NEWPID) and run.status < 0
    process = Process(run.pid, run.pidfd, program.argv, run.clock, status_fd=run.status, first=first)
    process.supervisor, process.observer = supervisor, observer
    if run.journal is not None:
        from minictr.runtime.aftermath import Aftermath

        own = run.record is not None
        process.aftermath = Aftermath(run.journal, own, run.places, program.name, run.lease, run.network)
    return process


class Start:
    """One start under way: its descriptors, the child's pid and pidfd, and the way back."""

    def __init__(
        self,
        program: Program,
        fds: dict[str, int],
        preserve: int,
        timeout: float,
        console: Console | None,
        record: Record | None,
        supervisor: Supervisor | None = None,
    ) -> None:
        self.program, self.fds, self.preserve, self.timeout = program, fds, preserve, timeout
        self.console, self.record, self.supervisor = console, record, supervisor
        self.journal: Record | None = None  # where what must not be left behind is written down before it is made
        self.group = ""  # the name of the container's cgroups
        self.places: dict[str, Place] = {}  # controller -> the container's own cgroup
        self.lease: Lease | None = None  # ids of the host that it has for itself
        self.network: Attachment | PastaNetwork | None = None  # its cables, addresses and ports
        self.identity: ProcessIdentity | None = None
        self.cgroup_fd = -1  # of the cgroup v2 directory that the child is born in
        if console is not None:
            fds["console"] = console.socket
        self.clock = Clock(_now())
        self.on_failure = Undo()
        self.after_clone: list[Callable[[], None]] = []
        self.flags, self.pid, self.pidfd, self.status = 0, 0, -1, -1
        self.cloned = 0, 0  # the child was, between these, by CLOCK_BOOTTIME
        self.report = self.region = self.go = -1
        self._open: list[int] = []

    def through(self, *stages: str) -> None:
        """The methods called STAGES one after another; a failure undoes everything, and is raised."""
        stage = ""
        if self.record is not None:
            self._own_record(self.record)
        try:
            for stage in stages:
                getattr(self, stage)()
        except BaseException as err:
            self.abort()
            if self.supervisor is not None:
                self.supervisor.annotate(err)
            if isinstance(err, OSError) and not isinstance(err, MinictrError):
                where = f"start, {stage.replace('_', ' ')}"
                raise StepFailed(where, err.errno or 0, cure=descriptors_cure(err)) from err
            raise
        finally:
            self.close()

    def own(self, name: str, fd: int) -> None:
        """FD belongs to this start: named for the ops, closed at its end."""
        self.fds[name] = fd
        self._open.append(fd)

    def _close(self, fd: int) -> None:
        self._open.remove(fd)
        shut(fd)

    def close(self) -> None:
        """Close what only the start needed."""
        while self._open:
            shut(self._open.pop())

    def remaining(self) -> float:
        """Seconds until the deadline, at least 0; those for which others had the lock of the networks do not count."""
        more = self.network.waited if self.network is not None else 0.0
        return max(0.0, self.timeout + more - (_now() - self.clock.begin_ns) / 1e9)

    def prepare(self) -> None:
        """Check what the caller gave, and do the PREPARE and CLONE steps."""
        if ("console" in self.fds) != ("console" in self.program.fd_names):
            raise SpecError("a terminal needs both: the feature tty, and a Console given as console=")
        if ("listener" in self.program.fd_names) != (self.supervisor is not None):
            raise SpecError("a filter that notifies and a Supervisor given as supervisor= go together")
        if self.preserve < 0:
            raise SpecError(f"preserve_fds: {self.preserve} is not a number of descriptors from 3 on")
        for name in ("stdin", "stdout", "stderr"):
            if name in self.program.fd_names:
                _must_be_open(self.fds[name], name)
        for fd in range(3, 3 + self.preserve):
            _must_be_open(fd, f"--preserve-fds {self.preserve}")
        if self.record is not None:
            self.journal, self.group = self.record, self.record.group
        elif any(step.call in RECORDED for _, step in self.program.parent):
            from minictr.runtime import ledger

            self.journal, self.group = ledger.open_entry()
            self.on_failure.push_record(ledger.close_entry, self.journal)
        self._parent_steps(PREPARE)
        if self.record is not None:
            from minictr.runtime.state import WIDEST

            # what runs must not be ended because the disk is full when it is written down
            self.record.make_room(self._written(WIDEST))
        self._parent_steps(CLONE)

    def _own_record(self, record: Record) -> None:
        """A start that fails leaves no record of the container."""
        self.on_failure.push_record(record.forget, self.program.name)

    def _parent_steps(self, phase: int) -> None:
        for index, step in self.program.parent:
            if step.phase != phase:
                continue
            try:
                HANDS[step.call](self, **step.args)
            except StepFailed as err:
                from minictr.runtime.diagnose import parent_failed

                raise parent_failed(step, err, index, self.program.total) from err
            except Unsupported as err:
                raise Unsupported(step.feature, err.reason, err.cure, err.parts) from err
            if phase != CLONE:
                self.clock.stamp(index, step, _now())

    def clone(self) -> None:
        """Pipes, region, clone3: afterwards the stub waits at the barrier."""
        self.report, report = self._pipe()
        theirs = [report]
        if "barrier" in self.program.calls:
            self.fds["barrier"], self.go = self._pipe()
            theirs.append(self.fds["barrier"])
        if "init" in self.program.calls:
            self.status, status = os.pipe()
            self.on_failure.push(self._close_status)
            self.own("status", status)
            theirs.append(status)  # who reads it to know of a death must not wait for us
        if self.supervisor is not None:
            self.on_failure.push(self.supervisor.stop)
            self.own("listener", self.supervisor.offer())
            theirs.append(self.fds["listener"])
        keep = {self.fds[name] for name in self.program.fd_names} | {report, *range(3, 3 + self.preserve)}
        keep.discard(-1)  # a descriptor that this host needs not: the op does nothing
        self.region = os.memfd_create("minictr-start", os.MFD_CLOEXEC)
        self._open.append(self.region)
        keep.add(self.region)
        if len(keep) > MAX_KEEP:
            raise StepFailed(
                f"pass {len(keep)} descriptors", EMFILE, cure=f"at most {MAX_KEEP}, fewer with --preserve-fds"
            )
        os.write(self.region, self.program.region(self.fds, report, keep, self.preserve))
        if self.program.forks:
            os.ftruncate(self.region, self.program.born_offset + PAGE)
        self._spawn(keep)
        # the child has its own copies now: the pipes must end with it
        for fd in theirs:
            self._close(fd)
        self._write_down()

    def _write_down(self) -> None:
        """Who the child is, before "go": a sweep ends it if we should be killed."""
        if self.journal is not None:
            try:
                self.identity = self._identify()
            except ProcessLookupError:
                return  # it died, and a monitor has reaped it: the report says of what
            self.journal.write_ahead(("process", self.identity.pid, self.identity.start, self.identity.boot))

    def _identify(self) -> ProcessIdentity:
        """Who the child is: ours to reap, so it was born when we cloned it."""
        from minictr.runtime.identity import ProcessIdentity

        return ProcessIdentity.born(self.pid, *self.cloned)

    def _pipe(self) -> tuple[int, int]:
        ends = os.pipe()
        self._open += ends
        return ends

    def _spawn(self, keep: set[int]) -> None:
        words = [step.feature for _, step in self.program.parent if step.phase == CLONE]
        before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        try:
            self.pid, self.pidfd = self._clone_child(keep)
        except StepFailed as err:
            from minictr.runtime.diagnose import clone_failed

            raise clone_failed(err, words) from err
        finally:
            self._restore()
        self.cloned = before, time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        index = next((index for index, step in self.program.parent if step.phase == CLONE), 0)
        self.clock.stamp(index, Step("clone3", CLONE, {}, "clone", " ".join(words)), _now())

    def _close_status(self) -> None:
        shut(self.status)
        self.status = -1

    def _clone_child(self, keep: set[int]) -> tuple[int, int]:
        return spawn(self.flags, self.region, keep, self.cgroup_fd)

    def enter_pidns(self, fd: int) -> None:
        """Children of this thread are born in the pid namespace FD, until the undo right after the clone."""
        from minictr.kernel.namespaces import pid_for_children

        joined = pid_for_children(fd)
        joined.__enter__()
        self.after_clone.append(lambda: joined.__exit__(None, None, None))

    def _restore(self) -> None:
        """This thread's own pid namespace for children again, if another was entered for the clone."""
        while self.after_clone:
            self.after_clone.pop()()

    def attach(self) -> None:
        """The ATTACH steps, then "go"; nothing where the plan has none."""
        if "barrier" not in self.program.calls:
            return
        # vfork ends in the middle of execve: until the stub says "r", its /proc files may still be owned as those of a
        # caller that dropped privileges, and its id maps could not be written
        self._poll(select.POLLIN)
        self._parent_steps(ATTACH)
        try:
            os.write(self.go, b"g")
        except BrokenPipeError:
            pass  # the child died already: the report says of what

    def take_console(self) -> None:
        """The terminal that the child made, if it was to make one."""
        if self.console is not None:
            self.console.receive(self.remaining())

    def take_listener(self) -> None:
        """That of a filter that notifies: it is answered from now on, for execve itself may wait for that."""
        if self.supervisor is not None:
            self.supervisor.take(self.remaining(), self.region)

    def await_exec(self) -> None:
        """Until the program runs. A failed op, a death and the deadline are exceptions."""
        look_ahead(bool(self.places))
        self._judge(self._poll(0))  # POLLHUP needs not be asked for

    def until_held(self) -> None:
        """Until the child waits at the step "hold"."""
        while self._poll(select.POLLIN):
            said = os.read(self.report, 16)  # "r" when it was ready, "h" when it holds
            if b"h" in said:
                return
            if not said:
                self._judge(True)
        self._judge(False)

    def _judge(self, ended: bool) -> None:
        """What the region says of a start whose report pipe ENDED, or whose time is over."""
        outcome = Outcome(os.pread(self.region, outcome_size(self.program), 0))
        if not ended and outcome.state != lib.MC_STATE_FAILED:
            raise StartTimeout(str(self.program.steps[outcome.current][1]), self.timeout)
        if outcome.state != lib.MC_STATE_EXEC:
            from minictr.runtime.diagnose import child_failed

            raise child_failed(self.program, outcome, self._death())
        self.clock.child(self.program.steps, outcome, _now())

    def register(self) -> None:
        """Who runs, for those who ask (ps), and for the sweep if we should be killed."""
        if self.record is not None and self.identity is not None:
            self.record.save(self._written(self.identity))

    def _written(self, process: ProcessIdentity) -> str:
        """The state of a container whose first process is PROCESS."""
        from minictr.runtime.aftermath import state_text

        assert self.record is not None
        return state_text(self.record, self.program, process, self.places, self.network)

    def _poll(self, events: int) -> bool:
        """Whether the report pipe has EVENTS, or ended, before the deadline."""
        poll = select.poll()
        poll.register(self.report, events)
        return bool(poll.poll(self.remaining() * 1000))

    def _death(self) -> int:
        """Kill and reap the child: its raw wait status.

        A child that the kernel holds (an unkillable sleep, a frozen cgroup) must not hold the caller as well: after
        REAP_TIMEOUT seconds a thread is left to reap it, and 0 is told.
        """
        if not self.pid:
            return 0
        if lib.mc_pidfd_send_signal(self.pidfd, SIGKILL, 0) < 0:
            os.kill(self.pid, SIGKILL)  # it is not reaped yet: the number is its own
        over = is_over(self.pidfd, REAP_TIMEOUT)
        pid, self.pid = self.pid, 0
        if over:
            return reap(pid)
        start_new_thread(reap, (pid,))
        return 0

    def abort(self) -> None:
        """The start failed: kill and reap the child, then take back what was made."""
        undo = Undo()
        for function in (self.on_failure.close, self._close_pidfd, self._death, self._restore):
            undo.push(function)
        undo.close()

    def _close_pidfd(self) -> None:
        if self.pidfd >= 0:
            shut(self.pidfd)
            self.pidfd = -1


def _now() -> int:
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)


def _must_be_open(fd: int, what: str) -> None:
    try:
        os.fstat(fd)
    except OSError as err:
        raise StepFailed(f"pass descriptor {fd} ({what})", err.errno or 0, cure="open it first") from err
