"""newuidmap(1) and newgidmap(1): set-user-id programs that write what /etc/subuid and /etc/subgid delegate.

Started by posix_spawn(3): no fork of a process with threads, no import of subprocess (13 ms).
"""

from __future__ import annotations

import os

from minictr.errors import StepFailed, Unsupported
from minictr.kernel import procfs

__all__ = ["write_map"]

_PLACES = ("/usr/bin", "/bin", "/usr/local/bin")


def write_map(program: str, pid: int, text: str) -> None:
    """Let PROGRAM ("newuidmap" or "newgidmap") write the map TEXT of PID's user namespace.

    Raises Unsupported when the program is not there, StepFailed with what it said when it refused.
    """
    path = find(program)
    if not path:
        raise Unsupported("userns", f"this map needs privilege or {program}", "install uidmap (Debian) or shadow-utils")
    status, said = spawn(path, [program, str(pid), *text.split()])
    name = program.removeprefix("new").replace("map", "_map")
    if status == -1:  # somebody else reaps our children (SIGCHLD ignored): look at what was to be done
        status = 0 if procfs.read(pid, name).strip() else 1
    if status:
        cure = f"{said or 'refused'}; ranges come from /etc/sub{program[3:6]} (usermod --add-sub{program[3:6]}s)"
        raise StepFailed(f"{program} {pid} {' '.join(text.split())}", 1, cure=cure)


def find(program: str) -> str:
    """Where the first executable PROGRAM is, in PATH or in the usual places; "" when nowhere."""
    for place in (*os.get_exec_path(), *_PLACES):
        path = os.path.join(place, program)
        if os.path.isabs(path) and os.access(path, os.X_OK):
            return path
    return ""


def spawn(path: str, argv: list[str]) -> tuple[int, str]:
    """(exit status, last line of standard error) of a program; status -1 when it was reaped by somebody else."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        actions = [(os.POSIX_SPAWN_DUP2, writer, 2), (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDWR, 0)]
        try:
            pid = os.posix_spawn(path, argv, {"PATH": os.defpath, "LC_ALL": "C"}, file_actions=actions)
        except OSError as err:
            raise StepFailed(f"run {path}", err.errno or 0) from err
        finally:
            os.close(writer)
        said = b""
        while block := os.read(reader, 4096):
            said += block
    finally:
        os.close(reader)
    try:
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    except ChildProcessError:
        status = -1
    lines = said.decode(errors="replace").strip().splitlines()
    return status, lines[-1] if lines else ""
