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

from minictr.runtime.launch import START_TIMEOUT
from minictr.runtime.state import State
from minictr.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minictr.runtime.console import Console
    from minictr.runtime.program import Program
    from minictr.runtime.record import Record

__all__ = ["Keeping", "start_detached"]

LOG_SIZE, LOG_FILES = 10 << 20, 2


class Keeping(Value):
    """How a detached container is kept.

    ``held``: set up to just before its program, until ``start``. ``remove``: gone with its end. ``interactive``:
    standard input stays open for ``attach``. ``log``: bytes a file, number of files; (0, 0) for none. ``stop_signal``,
    ``stop_timeout``: as :class:`State` has them. ``command_line``: the words that made it.
    """

    held: bool = False
    remove: bool = False
    interactive: bool = False
    log: tuple[int, int] = (LOG_SIZE, LOG_FILES)
    stop_signal: int = 15
    stop_timeout: float = 10.0
    command_line: tuple[str, ...] = ()
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
