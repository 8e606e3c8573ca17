"""Containers that are kept: made, started, started again. What ``create``, ``run -d`` and ``start`` do.

A kept container has groups of its own for memory, processor time, block devices and freezing, without limits, so that
it can be looked at (stats), paused and given limits later (update); ``accounting=False`` leaves them out.
"""

from __future__ import annotations

import os
import time

from minictr.boot import booting, is_init
from minictr.errors import SpecError, StateError, StepFailed, WrongStatus
from minictr.features.cgroup_devices import Io
from minictr.features.cgroups import Cpu, Memory
from minictr.features.controllers import Freezer
from minictr.kernel.cgroup_places import has, may_make
from minictr.plan import BARRIER, HOLD, plan
from minictr.runtime import events
from minictr.runtime.detached import LOG_FILES, LOG_SIZE, Keeping, start_detached
from minictr.runtime.ending import SETTLE
from minictr.runtime.instance import LIVE, Instance
from minictr.runtime.launch import START_TIMEOUT
from minictr.runtime.program import Program, compiled
from minictr.runtime.reclaim import settle
from minictr.runtime.record import Record
from minictr.runtime.resolve import program_file
from minictr.runtime.sweep import new_record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minictr.runtime.state import State
    from minictr.spec import Spec
    from minictr.steps import Feature, Step

__all__ = ["ACCOUNTING", "accounted", "make", "start", "start_again", "stop_signal_of"]

ACCOUNTING: tuple[Feature, ...] = (Memory(), Cpu(), Io(), Freezer())
SIGTERM = 15
EALREADY = 114
REBOOT_INTERVAL = 2.0  # seconds
# systemd(1), "SIGNALS": SIGRTMIN+3 as glibc counts. busybox init: SIGUSR2 is power-off (TERM: reboot). sysvinit's
# init: SIGINT is Ctrl-Alt-Del, a shutdown by its inittab; one that was asked to stop is not started again
STOP_SIGNALS = {"systemd": 37, "busybox": 12, "init": 2}


def accounted(spec: Spec, without: tuple[str, ...] = ()) -> Spec:
    """SPEC with the groups of a kept container, but for those WITHOUT, what this host has not, and what an ordinary
    user has no group of his own for: nobody has asked for them."""
    left = spec.names.union(without)
    wanted = [one for one in ACCOUNTING if one.name not in left]
    if os.geteuid():
        parent = getattr(spec.get("cgroup_parent"), "path", "")
        wanted = [one for one in wanted if may_make(one.name, parent)]
    return spec.with_(*(one for place, one in enumerate(wanted) if has(one.name, seen=place > 0)))


def keep(
    spec: Spec,
    *,
    held: bool,
    interactive: bool = False,
    remove: bool = False,
    log_size: int = LOG_SIZE,
    log_files: int = LOG_FILES,
    stop_signal: int = 0,
    stop_timeout: float = 10.0,
    accounting: bool = True,
    root: str = "",
    start_timeout: float = START_TIMEOUT,
) -> Instance:
    """A new kept container of SPEC, for Python: :meth:`Container.start` and :meth:`Container.create`.

    ``interactive``: its input stays open for attach. ``remove``: it goes with its end. ``log_size`` in bytes (0: no
    limit), ``log_files``: how many, the current one included (0: no log). ``stop_signal`` 0: what its program knows
    (TERM; systemd's own). ``stop_timeout`` in seconds. ``accounting``: groups for memory, processor time, block devices
    and freezing. ``root``: the state directory. Raises what :func:`make` does.
    """
    spec = booting(spec)
    spec = accounted(spec) if accounting else spec
    keeping = Keeping(
        held=held,
        remove=remove,
        interactive=interactive,
        log=(log_size, log_files),
        stop_signal=stop_signal or stop_signal_of(spec),
        stop_timeout=stop_timeout,
    )
    return make(spec, keeping, root=root, start_timeout=start_timeout)


def compiled_to_keep(spec: Spec, held: bool) -> Program:
    """SPEC as a program for a start under a monitor. Raises SpecError, also for a filter whose calls somebody has to
    decide for as long as it runs; and what :func:`minictr.runtime.program.compiled` raises."""
    program = compiled(spec, *waits_of(held))
    judged: Any = program.plan.spec.get("seccomp")
    if judged is not None and judged.notifies:
        reason = "a kept container outlives the function that decides: run or popen it"
        raise SpecError(f"seccomp: notify: {reason}, or take notify out of the filter")
    return program


def waits_of(held: bool) -> tuple[Step, ...]:
    """The steps that a start under a monitor waits at."""
    return (BARRIER, HOLD) if held else (BARRIER,)


def make(
    spec: Spec,
    keeping: Keeping,
    *,
    root: str = "",
    window: tuple[int, int] = (24, 80),
    start_timeout: float = START_TIMEOUT,
) -> Instance:
    """A new kept container of SPEC, running, or with ``keeping.held`` set up to just before its program.

    WINDOW: rows and columns of its terminal, if it has one. Raises SpecError (bad wishes, a name that is taken),
    StateError (the state directory), and what :func:`minictr.runtime.launch.launch` raises; nothing is left then.
    """
    program = compiled_to_keep(spec, keeping.held)
    record = new_record(spec.name, root)
    with record:
        try:
            program, keeping = with_layer(program, record, keeping)
        except BaseException:
            record.forget(spec.name)
            raise
        state = started(program, record, keeping, window, start_timeout)
        return Instance(record.store, record.id, state)


def with_layer(program: Program, record: Record, keeping: Keeping) -> tuple[Program, Keeping]:
    """An overlay whose changes would be lost keeps them beside the state: for diff, commit and the next start."""
    overlay = program.plan.spec.get("overlay")
    if overlay is None:
        return program, keeping
    upper = getattr(overlay, "upper", "")
    if not upper:
        upper = os.path.join(record.directory, "upper")
        try:
            os.mkdir(upper, 0o755)
        except OSError as err:
            raise record.failed("make", "upper", err) from err
        spec = program.plan.spec.with_(overlay.replace(upper=upper))
        program = Program(plan(spec, waits_of(keeping.held)))
    return program, keeping.replace(upper=upper)


def started(
    program: Program,
    record: Record,
    keeping: Keeping,
    window: tuple[int, int],
    start_timeout: float,
    created: int = 0,
) -> State:
    """PROGRAM under a monitor, with a terminal where it wants one."""
    if "console" not in program.fd_names:
        return start_detached(program, record, keeping, start_timeout=start_timeout, created=created)
    from minictr.runtime.console import Console

    try:
        terminal = Console(window=window)
    except BaseException:
        if not created:
            record.forget(program.plan.spec.name)
        raise
    with terminal as console:
        return start_detached(program, record, keeping, console=console, start_timeout=start_timeout, created=created)


def start(instance: Instance, *, start_timeout: float = START_TIMEOUT) -> None:
    """INSTANCE runs: one that waits for its start goes on, one that is over runs once more.

    Raises WrongStatus for one that runs, and what :func:`minictr.runtime.launch.launch` raises.
    """
    instance.refresh()
    if instance.status != "created" and not waits(instance):
        start_again(instance, start_timeout=start_timeout)
        return
    from minictr.runtime.attach import Client
    from minictr.runtime.attach import start as let_go

    with instance.record() as record, record.editing():
        state = instance.refresh()
        state = state.replace(held=False, started=time.time_ns())

        def note() -> None:  # before the program runs: it must not be taken for one that has done nothing yet
            events.tell(instance.store, instance.id, state.name, "start")  # before the monitor can tell that it died
            record.save(state.text())
            instance.take(state)

        try:
            with Client(record.fd) as client:
                let_go(client, spec=state.spec, timeout=start_timeout, before=note)
        except StepFailed as err:
            if err.errno != EALREADY:
                raise
            raise WrongStatus(f"start {instance.label}: somebody else has just started it", instance.status) from err


def waits(instance: Instance) -> bool:
    """Whether INSTANCE, of which it is written that it runs, waits for its start still: who began it was killed."""
    if instance.status != "running" or not instance.state.detached:
        return False
    from minictr.runtime.attach import HELD, Client

    try:
        with Client(instance.directory) as client:
            return bool(client.attach() & HELD)
    except StepFailed:
        return False  # its monitor is gone, and with that the hold


def reboot(instance: Instance, lived: float) -> None:
    """INSTANCE, whose init called reboot(2) to be started again, is, as LXC does; unless it was asked to end.

    LIVED: seconds. One that reboots all the time does so every REBOOT_INTERVAL seconds.
    """
    time.sleep(max(0.0, REBOOT_INTERVAL - lived))
    try:
        start_again(instance, unless_stopped=True)
    except WrongStatus:
        pass  # somebody else was faster


def start_again(
    instance: Instance,
    *,
    held: bool = False,
    unless_stopped: bool = False,
    start_timeout: float = START_TIMEOUT,
) -> None:
    """A container that is over runs once more: same features, same layers, log continued. Raises WrongStatus.

    ``held``: it is set up to just before its program, as by ``create``. ``unless_stopped``: only if nobody asked it to
    end since its last start.
    """
    with instance.record() as record, record.editing():
        if unless_stopped and record.stopped:
            return
        state = instance.refresh()
        status = instance.status
        if status in LIVE:
            raise WrongStatus(f"start {instance.label}: it is {status} already", status)
        program = compiled_to_keep(state.spec, held)
        if not record.own(SETTLE):
            raise StateError(f"start {instance.label}: its last life is not over: its monitor still works on it")
        if not record.is_there():
            raise StateError(f"start {instance.label}: it has just been removed")
        settle(record)
        record.begin_anew()
        keeping = Keeping(
            held=held,
            remove=state.remove,
            interactive=state.interactive,
            log=state.log,
            stop_signal=state.stop_signal,
            stop_timeout=state.stop_timeout,
            command_line=state.command_line,
            directory=state.directory,
            upper=state.upper,
        )
        instance.take(started(program, record, keeping, (24, 80), start_timeout, state.created))


def stop_signal_of(spec: Spec) -> int:
    """What asks the program to end: init systems as PID 1 have words of their own, everybody else knows TERM."""
    if "init" in spec.names or not spec.rootfs or not is_init(spec):
        return SIGTERM
    return STOP_SIGNALS.get(program_file(spec), SIGTERM)
