"""A start whose program is observed: held just before execve until the tracer is there.

    this process                        observer (a process)                 child
    PREPARE ... ----------------------> interpreter, tables                  the start as ever, to the op "hold"
    <----------------------------- "?"
    <------------------------------------------------------------------ "h"
    pid of the program ---------------> PTRACE_SEIZE
    <----------------------------- "+"
    one byte -------------------------------------------------------------> Landlock, filter, execve
    waits for the end                   looks at every call that fails
    SIGTERM --------------------------> answers, and leaves

What confines the program is what confines it unobserved: it is the same plan, with one wait more.
"""

from __future__ import annotations

import os
import select
import sys

from minictr.errors import StepFailed, Unsupported
from minictr.jsontext import dumps, loads
from minictr.kernel.core import lib
from minictr.kernel.handles import shut
from minictr.runtime.launch import Start
from minictr.runtime.observed.wanted import errnos_of, landlock_paths_of, masked_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minictr.runtime.observed.denials import Denial
    from minictr.runtime.process import Process
    from minictr.spec import Spec

__all__ = ["ObservedStart", "Observer"]

SIGTERM, SIGKILL = 15, 9
AGAIN = 0.1  # seconds until it is told to end once more: a signal between its look and its wait is slept over
PATIENCE = 30.0  # seconds for what it has to look at still when the program is gone
CHILD_OF = "/proc/{0}/task/{0}/children"


class Observer:
    """The observer of one program, from this side. ``wish``: the spec as it was asked for, with its filter's rules.

    ``record``: whether what succeeds is written down as well.
    """

    def __init__(self, wish: Spec, *, record: bool = False) -> None:
        self.wish, self.record = wish, record
        self.spec = wish  # as it was resolved, once it is known
        self.pid = 0
        self.told: dict[str, Any] | None = None
        self._pidfd = self._answer = self._to = self._from = -1

    def start(self, *arguments: Any) -> ObservedStart:
        """A start of what is to be observed; ARGUMENTS: those of :class:`Start`."""
        return ObservedStart(self, *arguments)

    def begin(self, spec: Spec) -> None:
        """Start the observer's process; its interpreter loads while the container is set up. SPEC: resolved.

        Raises Unsupported where there is no interpreter of its own (embedded), or no libseccomp.
        """
        if not sys.executable:
            raise Unsupported("explain_denials", "an embedded interpreter cannot start another", "run it from python3")
        self.spec = spec
        request = {
            "errnos": sorted(errnos_of(spec)),
            "masked": list(masked_of(spec)),
            "resolve": list(landlock_paths_of(spec)),
            "record": self.record,
        }
        code = (
            f"import sys; sys.path[:] = {sys.path!r}; from minictr.runtime.observed.observer import main;"
            f" main(sys.argv[1], 3)"
        )
        self._answer = os.memfd_create("minictr-observed", os.MFD_CLOEXEC)
        theirs_in, self._to = os.pipe()
        self._from, theirs_out = os.pipe()
        null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        spare: list[int] = []
        try:
            pairs = ((theirs_in, 0), (theirs_out, 1), (null, 2), (self._answer, 3))
            high = [(_high(fd), place) for fd, place in pairs]
            spare = [fd for fd, _ in high]
            actions = [(os.POSIX_SPAWN_DUP2, fd, place) for fd, place in high]
            argv = [sys.executable, "-IS", "-c", code, dumps(request)]
            env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
            self.pid = os.posix_spawn(sys.executable, argv, env, file_actions=actions, setsid=True, setsigmask=())
            self._pidfd = os.pidfd_open(self.pid)
        finally:
            for fd in (theirs_in, theirs_out, null, *spare):
                shut(fd)

    def attach(self, pid: int, seconds: float) -> None:
        """Trace PID, which waits. Raises StepFailed with the reason."""
        said = self._hear(seconds)
        if said == "?":
            os.write(self._to, str(pid).encode())
            said = self._hear(seconds)
        if said == "+":
            return
        number, _, why = said.removeprefix("!").partition(" ")
        code = int(number) if number.isdecimal() else 0
        raise StepFailed("observe the program", code, cure=why or "its observer did not answer")

    def _hear(self, seconds: float) -> str:
        poll = select.poll()
        poll.register(self._from, select.POLLIN)
        return os.read(self._from, 4096).decode("utf-8", "replace") if poll.poll(seconds * 1000) else ""

    def finish(self) -> None:
        """The program is gone, or was never there: what was seen is read. Safe to call twice."""
        if not self.pid:
            return
        waited = 0.0
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        shut(self._to)  # one that was told of nobody leaves
        while waited < PATIENCE:
            lib.mc_pidfd_send_signal(self._pidfd, SIGTERM, 0)
            if poll.poll(AGAIN * 1000):
                break
            waited += AGAIN
        else:
            lib.mc_pidfd_send_signal(self._pidfd, SIGKILL, 0)
        pid, self.pid = self.pid, 0
        try:
            os.waitpid(pid, 0)
        except ChildProcessError:
            pass  # somebody else's wait(-1) was faster
        size = os.fstat(self._answer).st_size
        try:
            self.told = loads(os.pread(self._answer, size, 0).decode()) if size else None
        except ValueError:
            self.told = None  # it was killed while it wrote
        for fd in (self._pidfd, self._answer, self._from):
            shut(fd)

    @property
    def seen(self) -> dict[str, Any]:
        """What the observer told. Raises StepFailed when it was killed, or failed: then nothing is known."""
        if self.told is None or "error" in self.told:
            why = "its observer was killed, or could not go on" if self.told is None else self.told["error"]
            raise StepFailed("observe the program", 0, cure=why)
        return self.told

    def denials(self, process: Process) -> tuple[Denial, ...]:
        """What PROCESS, which is over, was denied, by layer. Raises StepFailed."""
        from minictr.runtime.observed.denials import explain

        return explain(self.seen, self.wish, self.spec, process.usage)


class ObservedStart(Start):
    """A start that is held until its program is traced."""

    def __init__(self, observer: Observer, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.observer, self.hold = observer, -1

    def prepare(self) -> None:
        super().prepare()
        self.fds["hold"], self.hold = self._pipe()
        self.observer.begin(self.program.plan.spec)
        self.on_failure.push(self.observer.finish)

    def take_listener(self) -> None:
        """Not yet: the filter is loaded after the hold."""

    def await_exec(self) -> None:
        """Until it holds, and then until the program runs."""
        self.until_held()
        self.observer.attach(self._payload(), self.remaining())
        os.write(self.hold, b"g")
        super().take_listener()
        super().await_exec()

    def _payload(self) -> int:
        """The program's pid: init's child, or what we cloned."""
        if "init" not in self.program.calls:
            return self.pid
        path = CHILD_OF.format(self.pid)
        try:
            with open(path, encoding="ascii") as file:
                return int(file.read().split()[0])
        except (OSError, IndexError, ValueError) as err:
            number = getattr(err, "errno", 0) or 0
            raise StepFailed(f"read {path}", number, cure="needs CONFIG_PROC_CHILDREN; or run with --no-init") from err


def _high(fd: int) -> int:
    """A copy of FD above those that the observer gets: dup2 must not overwrite what it copies next."""
    from fcntl import F_DUPFD_CLOEXEC, fcntl

    return fcntl(fd, F_DUPFD_CLOEXEC, 10)
