"""newuidmap(1) and newgidmap(1): set-user-id programs that write what /etc/subuid and /etc/subgid delegate.

Started by posix_spawn(3): no fork of a process with threads, no import of subprocess (13 ms).
"""

from __future__ import annotations

import os

from minictr.errors import StepFailed, Unsupported
from minictr.kernel import procfs

__all__ = ["rows_of", "write_map"]

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


def rows_of(kind: str, count: int) -> tuple[tuple[int, int, int], ...]:
    """At most COUNT rows of a map for this user: 0 is himself, and from 1 on what /etc/subuid or /etc/subgid (KIND
    "uid", "gid") delegates to him. unshare(1) calls that --map-auto.

    Raises Unsupported where nothing is delegated, or the program that writes such a map is missing.
    """
    from minictr.kernel.users import subordinate_ids

    path, program = f"/etc/sub{kind}", f"new{kind}map"
    if not find(program):
        raise Unsupported("userns", f"{program} is not installed", "install uidmap (Debian) or shadow-utils")
    found, inside = [(0, os.geteuid() if kind == "uid" else os.getegid(), 1)], 1
    for first, length in subordinate_ids(path):
        length = min(length, count - inside)
        if length > 0:
            found.append((inside, first, length))
            inside += length
    if inside == 1:
        cure = f"let root give you some: usermod --add-sub{kind}s 100000-165535 NAME"
        raise Unsupported("userns", f"{path} delegates no ids to you", cure)
    return tuple(found)


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
