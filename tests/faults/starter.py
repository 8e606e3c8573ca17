"""A process that makes starts on request, with one call of them hit, and tells how they went: JSON lines in and out.

It has all of minictr imported and starts nothing itself: each try is a fork of it that goes on as the launcher's
process does after Python's own boot, through ``minictr.cli.entry.leave``; a call of getppid() marks where. So a try
costs no interpreter, and no point is one of Python's own start. Other runtimes are executed, and counted from their
first call.
"""

from __future__ import annotations

import ctypes
import errno
import importlib
import json
import os
import pkgutil
import resource
import signal
import sys
import time
from typing import Any

sys.path += [os.path.dirname(os.path.abspath(__file__))]

from onecall import Call, Point, Tracer

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
ERRORS = {name: number for name, number in vars(errno).items() if name.startswith("E")}
NOT_HOT = ("minictr.__main__", "minictr._core.build")


class Marked(Tracer):
    """Counts from getppid() on: see :func:`become`."""


class Executed(Tracer):
    """Counts from the first program that is executed."""

    runtime = ""  # the program whose calls are counted

    def begins(self, name: str) -> bool:
        return False

    def executed(self, tid: int) -> None:
        if not self.counting and os.readlink(f"/proc/{tid}/exe") == os.path.realpath(self.runtime):
            self.counting = True


def load() -> None:
    """Every module of minictr, and with them what they import: nothing of it is imported by a try."""
    import minictr

    for module in pkgutil.walk_packages(minictr.__path__, "minictr."):
        if module.name not in NOT_HOT:
            importlib.import_module(module.name)


def become(words: list[str], minictr: bool, gate: int, environment: dict[str, str]) -> None:
    """This fork is the runtime, once GATE is opened. Does not return."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
    os.read(gate, 1)
    os.close(gate)
    if not minictr:
        os.execvpe(words[0], words, environment)
    from minictr.cli.entry import leave

    os.environ.clear()
    os.environ.update(environment)
    sys.argv = words
    os.getppid()
    leave()


def started(request: dict[str, Any], streams: tuple[int, int]) -> tuple[int, int]:
    """A fork at its gate: its pid, and what opens the gate."""
    gate, opens = os.pipe()
    pid = os.fork()
    if pid:
        os.close(gate)
        return pid, opens
    try:
        os.close(opens)
        null = os.open(os.devnull, os.O_RDONLY)
        for fd, target in ((null, 0), (streams[0], 1), (streams[1], 2)):
            os.dup2(fd, target)
        os.closerange(3, gate)
        os.closerange(gate + 1, 256)
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115 - they are this process's as long as it lives
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
        mark = request["limit"]  # by which remains.Place knows its processes
        resource.setrlimit(resource.RLIMIT_MSGQUEUE, (mark, resource.getrlimit(resource.RLIMIT_MSGQUEUE)[1]))
        become(request["words"], request["minictr"], gate, request["environment"])
    finally:
        os._exit(98)
    raise AssertionError


def text_of(fd: int) -> str:
    return os.pread(fd, 1 << 20, 0).decode("utf-8", "replace")


def attempt(request: dict[str, Any]) -> dict[str, Any]:
    """One start as REQUEST says."""
    streams = os.memfd_create("out"), os.memfd_create("err")
    begin = time.monotonic()
    try:
        pid, opens = started(request, streams)
        if request["traced"]:
            told = traced(request, pid, opens)
        else:
            os.close(opens)
            told = untraced(pid, request["seconds"])
        told |= {"out": text_of(streams[0]), "err": text_of(streams[1]), "seconds": time.monotonic() - begin}
    finally:
        for fd in streams:
            os.close(fd)
        reap()
    return told


def untraced(pid: int, seconds: float) -> dict[str, Any]:
    pidfd, deadline = os.pidfd_open(pid), time.monotonic() + seconds
    os.close(pidfd)
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return {"code": os.waitstatus_to_exitcode(status), "hung": False}
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return {"code": None, "hung": True}
        signal.sigtimedwait([signal.SIGCHLD], 0.01)


def traced(request: dict[str, Any], pid: int, opens: int) -> dict[str, Any]:
    point = None
    if request.get("call"):
        point = Point(Call(*request["call"]), request["error"], request["late"])
    Executed.runtime = request["begins"]
    tracer = (Marked if request["minictr"] else Executed)(pid, request["payloads"], point, ERRORS)
    os.close(opens)
    hung = not tracer.follow(request["seconds"])
    if not hung and request["to_the_end"]:
        hung = not tracer.follow(request["seconds"], until_first=False)
    if hung:
        tracer.kill()
    else:
        tracer.detach()
    code = None if tracer.status is None else os.waitstatus_to_exitcode(tracer.status)
    return {"code": code, "hung": hung, "hit": tracer.hit, "made": tracer.made}


def reap() -> None:
    """Orphans that came to us."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def main() -> None:
    for option, value in ((PR_SET_CHILD_SUBREAPER, 1), (PR_SET_PDEATHSIG, signal.SIGKILL)):
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    load()
    for line in sys.stdin:
        print(json.dumps(attempt(json.loads(line))), flush=True)
        reap()


if __name__ == "__main__":
    main()
