"""Settings under /proc/PID, written so that nothing but procfs is written. proc(5).

The open descriptor's file system is checked (fstatfs) before anything is written, as something may be mounted over
/proc or a part of it (CVE-2019-16884).
"""

from __future__ import annotations

import os

from minictr.errors import StepFailed
from minictr.kernel import ops

__all__ = ["of_pid_namespace", "read", "rows", "status", "write"]

MAGIC = 0x9FA0  # PROC_SUPER_MAGIC, linux/magic.h


def number(pid: int | str) -> str:
    """PID as /proc names it. 0 and "self" are this process, whose number there is not getpid()'s in a pid namespace."""
    return os.readlink("/proc/self") if pid in (0, "self") else str(int(pid))


def write(pid: int | str, name: str, data: str | bytes, *, cure: str = "") -> None:
    """DATA to /proc/PID/NAME in one write(2). Raises StepFailed; EMEDIUMTYPE when that is not procfs."""
    path = f"/proc/{number(pid)}/{name}"
    ops.execute("write_file", about=path, cure=cure, path=path, data=data, magic=MAGIC)


def read(pid: int | str, name: str) -> str:
    """The text of /proc/PID/NAME; ``thread-self`` is the calling thread. Raises StepFailed."""
    path = f"/proc/{pid or 'self'}/{name}"
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError as err:
        raise StepFailed(f"read {path}", err.errno or 0) from err


def status(pid: int | str = 0) -> dict[str, str]:
    """The rows of /proc/PID/status; 0 is the calling thread. proc_pid_status(5). Raises StepFailed."""
    return rows(read(pid or "thread-self", "status"))


def rows(text: str) -> dict[str, str]:
    """Lines of ``Name:<tab>value``, as a status file has them."""
    found = (line.partition(":") for line in text.splitlines())
    return {name: value.strip() for name, _, value in found}


def of_pid_namespace(pid: int) -> tuple[int, ...]:
    """Every process in the pid namespace of PID; PID alone where that is our own."""
    try:
        wanted = os.readlink(f"/proc/{pid}/ns/pid")
        if wanted == os.readlink("/proc/self/ns/pid"):
            return (pid,)
    except OSError:
        return ()
    found = []
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            if os.readlink(f"/proc/{name}/ns/pid") == wanted:
                found.append(int(name))
        except OSError:
            continue
    return tuple(sorted(found))
