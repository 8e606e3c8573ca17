"""What the first plain ``minictr exec`` of a container compiled, kept in its directory for the next ones.

A health check runs the same few programs for ever. All that is asked of features, spec and plan for it is the same
each time but the words of the command, and to import and to ask them is most of what such an ``exec`` would take. So
the ops are kept without the last, ``exec``, which is made anew.

They are believed when nothing has changed that they were made from: the container's state.json, its first process, the
passwd and group of its root as it is now, and the minictr that wrote them. Everything else (a paused container, one
that is over, a file that cannot be read or is damaged) is the ordinary way's to tell: :func:`find` says None.
"""

from __future__ import annotations

import marshal
import os
import sys
from _imp import source_hash

from minictr._core import _native
from minictr.errors import MinictrError, StateError
from minictr.kernel.handles import shut
from minictr.kernel.ops import Encoder
from minictr.runtime.identity import ProcessIdentity
from minictr.runtime.looks import fingerprint, frozen
from minictr.runtime.program import Program
from minictr.runtime.store import Store, replace_text
from minictr.search import candidates
from minictr.steps import Step
from minictr.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minictr.plan import Plan
    from minictr.runtime.join import Target

__all__ = ["Entry", "find", "keep", "stamp"]

FILE = "exec"
LIMIT = 1 << 20  # bytes
CHECK = 8  # bytes of a checksum in front: SipHash, which importlib.util.source_hash is as well
KEY = 0x6D696E69637472
SEARCH = "PATH="


class Cached(Program):
    """A program compiled by an earlier process, for the command ARGV."""

    def __init__(self, data: dict[str, Any], argv: tuple[str, ...]) -> None:
        encoder = Encoder()
        encoder.ops, encoder.blob = bytearray(data["ops"]), bytearray(data["blob"])
        encoder.fd_places = data["fd_places"]
        paths = candidates(argv[0], data["search"])
        encoder.add("exec", {"argv": argv, "env": data["env"], "paths": paths})
        self.take(encoder, _steps(data["parent"]), _steps(data["child"]))
        self.argv, self.name = argv, ""

    @property
    def plan(self) -> Plan:
        """There is none: what failed is told by the ordinary way, which is gone then."""
        raise StateError("what an earlier exec compiled has no plan")


def _steps(rows: list[tuple[int, tuple[Any, ...]]]) -> list[tuple[int, Step]]:
    return [(index, Step(*fields)) for index, fields in rows]


class Entry(Value):
    """What was kept of one container that runs. ``pidfd`` is the finder's to close; ``pid`` its first process;
    ``network``: whether it has one of its own."""

    pid: int
    pidfd: int
    network: bool
    data: dict[str, Any]

    def program(self, argv: tuple[str, ...]) -> Program:
        """For the command ARGV, which is looked for by nobody but the kernel."""
        return Cached(self.data, argv)


def stamp(directory: str) -> tuple[int, ...]:
    """Which state.json DIRECTORY has: to be asked before it is read. () for none."""
    try:
        stat = os.lstat(f"{directory}/state.json")
    except OSError:
        return ()
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def build() -> tuple[int, ...]:
    """Which minictr this is, by its extension module, and which Python."""
    stat = os.stat(str(_native.__file__))
    return sys.hexversion, stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns


def find(word: str) -> Entry | None:
    """What was kept of the container called WORD, if it holds. Raises as :func:`minictr.runtime.instance.find`."""
    store = Store()
    store.check()
    directory = os.path.join(store.containers, store.lookup(word))
    try:
        data = _read(f"{directory}/{FILE}")
        if data is None or data["state"] != stamp(directory) or data["build"] != build():
            return None
        return _alive(data)
    except (OSError, MinictrError):
        return None


def _read(path: str) -> dict[str, Any] | None:
    """The file's content, if it is ours and whole."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        stat = os.fstat(fd)
        if stat.st_uid != os.geteuid() or stat.st_mode & 0o077 or stat.st_size > LIMIT:
            return None
        text = os.read(fd, stat.st_size)
    finally:
        shut(fd)
    if len(text) <= CHECK or source_hash(KEY, text[CHECK:]) != text[:CHECK]:
        return None
    data: dict[str, Any] = marshal.loads(text[CHECK:])
    return data


def _alive(data: dict[str, Any]) -> Entry | None:
    """The entry, if its first process runs, unfrozen, with the files of its root as they were."""
    process = ProcessIdentity(*data["process"])
    pidfd = process.pidfd()
    try:
        if not frozen(data["groups"]) and fingerprint(f"{data['rootfs']}/.") == data["seen"]:
            entry = Entry(process.pid, pidfd, data["network"], data)
            pidfd = -1
            return entry
        return None
    finally:
        if pidfd >= 0:
            shut(pidfd)


def keep(directory: str, state: tuple[int, ...], process: ProcessIdentity, target: Target, program: Program) -> None:
    """Keep PROGRAM, made by a plain ``exec`` for TARGET, in the container's DIRECTORY.

    STATE: :func:`stamp` of before its state was read. Nothing happens where it would not hold, or there is no room.
    """
    spec, (ops, blob) = program.plan.spec, program.before_exec
    if not program.seen or not state:
        return
    env = program.plan.steps[-1].args["env"]
    net: Any = target.spec.get("net")
    data = {
        "state": state,
        "build": build(),
        "process": (process.pid, process.start, process.boot),
        "groups": [(name, place.version, place.directory) for name, place in target.places.items()],
        "rootfs": spec.rootfs,
        "seen": program.seen,
        "network": net is not None and not net.join,
        "env": env,
        "search": next((row[len(SEARCH) :] for row in env if row.startswith(SEARCH)), ""),
        "ops": program.ops[:ops],
        "blob": program.blob[:blob],
        "fd_places": list(program.fd_places),
        "parent": [(index, _row(step, dict(step.args))) for index, step in program.parent],
        "child": [(index, _row(step, {})) for index, step in program.steps],
    }
    if not data["search"]:
        return
    try:
        text = marshal.dumps(data)
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            replace_text(fd, FILE, source_hash(KEY, text) + text)
        finally:
            shut(fd)
    except (OSError, ValueError):
        return  # a full disk; an argument that is no plain value


def _row(step: Step, args: dict[str, Any]) -> tuple[Any, ...]:
    """STEP's fields, with ARGS for its own: what the child is given is in the ops already."""
    return step.call, step.phase, args, step.feature, step.about, step.tolerate, step.undo
