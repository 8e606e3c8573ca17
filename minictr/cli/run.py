"""``minictr run``: options to a spec, a start, signals passed on, an exit code.

On the hot path: see :mod:`minictr.cli.entry` for what must not be imported here. ``_signal`` is the C half of
:mod:`signal`, whose Python half imports enum.
"""

from __future__ import annotations

import os

from minictr.cli.settings import settings
from minictr.errors import SpecError
from minictr.kernel.handles import shut

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable
    from typing import Any

    from minictr.cli.settings import Settings
    from minictr.runtime.console import Console
    from minictr.runtime.effort import LeftOut
    from minictr.runtime.process import Process
    from minictr.runtime.program import Program
    from minictr.spec import Spec
else:
    import _signal

TIMED_OUT = 124
GRACE = 10.0  # seconds between the stop signal and SIGKILL, as docker's


def run(opts: dict[str, Any], command: tuple[str, ...]) -> int:
    """Run COMMAND in a container as OPTS say; the exit code. Raises MinictrError."""
    keep_standard_streams()
    if opts.get("detach"):
        only_attended(opts)
        from minictr.cli.create import detach

        return detach(opts, command)
    from minictr.cli.build import build  # not for exec, which shares the rest of this module

    only_detached(opts)
    chosen = settings(opts)
    spec = build(opts, command)
    wish = spec if chosen.denials is not None else None
    program = compiled(spec, wish is not None)
    if opts.get("replace"):
        from minictr.cli.create import replace

        replace(spec.name)
    if chosen.die_with_parent:
        die_with_parent()
    if "best_effort" not in opts:
        process, timed_out = attempt(program, chosen, wish)
    else:
        process, timed_out = as_far_as_possible(spec, opts["best_effort"], chosen)
    if process.signal or (process.readings is not None and process.readings.bitten):
        tell_limits(process, spec)
    return told(process, timed_out, chosen, opts.get("name", command[0]))


def told(process: Process, timed_out: bool, chosen: Settings, name: str) -> int:
    """The time line of PROCESS, and what it was denied, if that was asked for; and the exit code."""
    if chosen.denials is not None:
        from minictr.cli.denials import tell

        tell(process, chosen.denials)
    if chosen.trace is not None:
        chosen.report(process, name)
    return TIMED_OUT if timed_out else exit_code(process)


def attempt(
    program: Program, chosen: Settings, wish: Spec | None = None, *, record: bool = False
) -> tuple[Process, bool]:
    """PROGRAM in a container of its own, from its start to its end; whether its time was over.

    WISH: the spec that it was compiled from, where it is to be observed; ``record``: in all that it does.
    """
    from minictr.runtime.launch import launch
    from minictr.runtime.sweep import new_record

    options: dict[str, Any] = {"preserve_fds": chosen.preserve_fds}
    if wish is not None:
        from minictr.runtime.observed.start import Observer

        options["observer"] = Observer(wish, record=record)

    def start(streams: dict[str, int], console: Console | None) -> Process:
        directory = new_record(program.plan.spec.name)
        process = launch(program, streams, console=console, record=directory, **options)
        try:
            chosen.write_ids(directory.id, process.pid)
        except BaseException:
            process.close()
            raise
        return process

    return attended(start, chosen, "console" in program.fd_names, Network.of(program.plan.spec, "run"))


def attended(
    start: Callable[[dict[str, int], Console | None], Process],
    chosen: Settings,
    terminal: bool,
    network: Network | None,
) -> tuple[Process, bool]:
    """START a program and stay until it is gone, with signals, terminal and timeout; whether its time was over."""
    console = None
    if terminal:
        from minictr.runtime.console import Console

        console = Console(terminal=next((fd for fd in (0, 1) if os.isatty(fd)), -1))
    relay = Relay(chosen, window=console is None)
    try:
        process = watch(start, chosen, console, relay, network)
    finally:
        relay.detach()
        if console is not None:
            console.close()
    if network is not None and exit_code(process):
        network.tell()
    return process, relay.timed_out


def only_detached(opts: dict[str, Any]) -> None:
    """Options that mean something for a container that outlives this command alone."""
    for dest in ("log_driver", "log_opt", "stop_timeout"):
        if dest in opts:
            raise SpecError(f"--{dest.replace('_', '-')} is about a detached container: add -d, or leave it out")


def only_attended(opts: dict[str, Any]) -> None:
    """Options that mean something for a program that this command stays with alone."""
    if "explain_denials" in opts:
        raise SpecError("--explain-denials tells at the end, and -d does not wait for it: leave one of them out")


def tell_limits(process: Process, spec: Spec) -> None:
    """A limit that killed or bit, and a filter that killed, is said, a line each."""
    from minictr.cli.entry import complain
    from minictr.cli.verdict import verdict

    for line in verdict(process.usage, spec, process.elapsed, process.signal):
        complain("run", line)


def as_far_as_possible(spec: Spec, names: list[str], chosen: Settings) -> tuple[Process, bool]:
    """``--best-effort``: what cannot be had of NAMES is left out, one line each, with what cannot stand without it."""
    from minictr.runtime.effort import best_effort

    def start(out: tuple[str, ...]) -> tuple[Process, bool]:
        left = spec.without(*out, cascade=True)
        observed = chosen.denials is not None
        return attempt(compiled(left, observed), chosen, left if observed else None)

    return best_effort(start, names, left_out(spec))[0]


def left_out(spec: Spec) -> Callable[[LeftOut], None]:
    """Tells what of SPEC was left out, a line each."""
    from minictr.cli.entry import complain

    def tell(item: LeftOut) -> None:
        lost = spec.names - spec.without(item.name, cascade=True).names - {item.name}
        complain("run", f"{item}" + (f" (and with it {', '.join(sorted(lost))})" if lost else ""))

    return tell


def compiled(spec: Spec, observed: bool = False) -> Program:
    """SPEC as a program; one that is to be observed waits before it is executed."""
    from minictr.plan import HOLD
    from minictr.runtime.program import compiled as made

    return made(spec, HOLD) if observed else made(spec)


def watch(
    start: Callable[[dict[str, int], Console | None], Process],
    chosen: Settings,
    console: Console | None,
    relay: Relay,
    network: Network | None,
) -> Process:
    """START a program, and stay until it is gone."""
    with start({"stdin": 0, "stdout": 1, "stderr": 2}, console) as process:
        if network is not None:
            network.open(process.pid)
        chosen.tell(f'{{"child-pid": {process.pid}}}')
        relay.attach(process)
        try:
            if console is not None:
                from minictr.runtime.console import interact

                interact(console, process)
            process.wait()
        finally:
            if network is not None:
                network.close()
        chosen.tell(f'{{"exit-code": {TIMED_OUT if relay.timed_out else exit_code(process)}}}')
    return process


def exit_code(process: Process) -> int:
    """The program's own code, or 128 and the signal that killed it."""
    return 128 + process.signal if process.signal else process.returncode or 0


def keep_standard_streams() -> None:
    """Descriptors 0 to 2 that the caller closed are /dev/null, lest a handle of ours take their place."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number: FD itself


def die_with_parent() -> None:
    """SIGKILL for this process when its parent dies; the container's own pdeathsig follows from ours."""
    from minictr.kernel.ops import execute

    parent = os.getppid()
    execute("pdeathsig", signal=int(_signal.SIGKILL))
    if os.getppid() != parent:  # it died in between: prctl(2) PR_SET_PDEATHSIG only looks ahead
        raise SpecError("--die-with-parent: the parent is already dead")


class Network:
    """What the kernel counts in a container's own network: was it for want of a route that a program failed?"""

    def __init__(self, verb: str) -> None:
        self.verb, self.fd, self.before, self.after = verb, -1, b"", b""

    @classmethod
    def of(cls, spec: Spec, verb: str) -> Network | None:
        """None where the counters are others' too."""
        net: Any = spec.get("net")
        return cls(verb) if net is not None and not net.join else None

    def open(self, pid: int) -> None:
        """The counters of PID's network, which can be read for as long as the descriptor is open."""
        if self.fd >= 0:
            return
        try:
            self.fd = os.open(f"/proc/{pid}/net/snmp", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return  # it is over already, or /proc is not there
        if self.verb != "run":  # a new network begins with zeros
            self.before = self.read()

    def read(self) -> bytes:
        """The counters now; nothing where they cannot be read: a hint is not worth an error."""
        try:
            return os.pread(self.fd, 1 << 14, 0)
        except OSError:
            return b""

    def close(self) -> None:
        """The last reading."""
        if self.fd >= 0:
            self.after = self.read()
            shut(self.fd)
            self.fd = -1

    def tell(self) -> None:
        if self.verb != "run" and not self.before:
            return  # others may have been counted too
        from minictr.cli.verdict import unreachable

        line = unreachable(self.before, self.after)
        if line:
            from minictr.cli.entry import complain

            complain(self.verb, line)


class Relay:
    """Passes the signals this process gets on to the container, and rings when ``--timeout`` is over.

    What comes before the container runs is kept for it. SIGTSTP is left alone: it stops this process, not the
    container.
    """

    FORWARDED: tuple[int, ...] = (
        *(_signal.SIGHUP, _signal.SIGINT, _signal.SIGQUIT, _signal.SIGTERM, _signal.SIGUSR1, _signal.SIGUSR2),
        _signal.SIGPWR,  # sysvinit's, and LXC's word for a shutdown: init(8)
        *(_signal.SIGRTMIN + number for number in (3, 4, 5)),  # halt, power off, reboot to systemd: systemd(1)
    )

    def __init__(self, chosen: Settings, *, window: bool) -> None:
        self.chosen = chosen
        self.process: Process | None = None
        self.early: list[int] = []
        self.timed_out = False
        handled = (*self.FORWARDED, _signal.SIGWINCH) if window else self.FORWARDED  # a console sees to it
        self.before = [(number, _signal.signal(number, self.forward)) for number in handled]
        self.before.append((_signal.SIGALRM, _signal.signal(_signal.SIGALRM, self.ring)))

    def attach(self, process: Process) -> None:
        self.process = process
        for number in self.early:
            self.pass_on(number)
        if self.chosen.timeout:
            _signal.setitimer(_signal.ITIMER_REAL, self.chosen.timeout)

    def forward(self, number: int, frame: object) -> None:
        if self.process is None:
            self.early.append(number)
        else:
            self.pass_on(number)

    def pass_on(self, number: int) -> None:
        """Send NUMBER; a handler must not raise into whatever was interrupted, and a program just gone is no error."""
        try:
            if self.process is not None:
                self.process.send_signal(number)
        except OSError:
            pass

    def ring(self, number: int, frame: object) -> None:
        """First the stop signal, then, GRACE later, SIGKILL."""
        if self.process is None:
            return
        if self.timed_out:
            self.pass_on(_signal.SIGKILL)
            return
        self.timed_out = True
        self.pass_on(self.chosen.stop_signal)
        _signal.setitimer(_signal.ITIMER_REAL, GRACE)

    def detach(self) -> None:
        _signal.setitimer(_signal.ITIMER_REAL, 0)
        for number, handler in self.before:
            if handler is not None:
                _signal.signal(number, handler)
