"""A job that was started in some environment: found in /proc, held at its gate, let go, waited for, counted.

``timed`` (timed.c) waits at both ends of the job until it is told to go on, so its state and its cgroup's figures are
read from outside while they are there, and none of that is in the job's own time.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import time
from typing import IO, TYPE_CHECKING, Any, Protocol

from bench import host
from bench.environments.base import EnvironmentBroken, Job, Ran
from bench.rootfs import TIMED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.environments.place import Place

MARK = b"\n@minictr-bench "
FOUND_WITHIN = 60.0  # seconds for a container to start
GONE_WITHIN = 60.0  # and to be removed when its job is over
UNHEARD = 30.0  # from a job's end until the clock has said so: it cannot, where its disk is full
STEP = 0.001  # seconds between two looks while something is about to happen
IDLE = 0.02
LISTENING = "0A"  # /proc/net/tcp: TCP_LISTEN of net/tcp_states.h
TAIL = 300  # characters of what was said, in a message
# file of a cgroup -> (our name, factor); v1 and v2
FIGURES = {
    "cpuacct.usage": ("cgroup_cpu_us", 0.001),
    "memory.max_usage_in_bytes": ("cgroup_memory_peak_bytes", 1.0),
    "memory.failcnt": ("cgroup_memory_failures", 1.0),
    "memory.peak": ("cgroup_memory_peak_bytes", 1.0),
}
OVER_TIME = ("cgroup_cpu_us", "cgroup_memory_failures")  # what counts is the difference


class Child(Protocol):
    """What an environment's ``spawn`` gives: the process that stays as long as the container."""

    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def kill(self) -> None: ...


class Group(subprocess.Popen[bytes]):
    """A process that leads a session of its own: killed with all of it."""

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)


class Live:
    """A job that :meth:`begin` begins. A context manager: leaving it ends job and container, whatever happened."""

    def __init__(self, place: Place, job: Job) -> None:
        self.place, self.job = place, job
        self.ports: Mapping[int, int] = {}
        self.addresses: Mapping[str, str] = {}
        self.state: dict[str, Any] = {}
        self.pid = 0
        self._pidfd = self._command = -1
        self._held = self._begin = 0.0
        self._before: dict[str, float] = {}
        self._child: Child | None = None
        self._stack = contextlib.ExitStack()
        self._ran: Ran | None = None

    def __enter__(self) -> Live:
        return self

    def begin(self) -> Live:
        """Start it, and read its state at the gate. EnvironmentBroken, with nothing left, when that fails."""
        with contextlib.ExitStack() as stack:
            stack.callback(self._end)
            self._out = stack.enter_context(open(self.place.path("stdout"), "w+b"))
            self._err = stack.enter_context(open(self.place.path("stderr"), "w+b"))
            known = set(os.listdir("/proc"))
            self._begin = time.perf_counter()
            self._child = self.place.spawn(self.job, self._out, self._err)
            self._find(known)
            found = time.perf_counter()
            self._before = figures(self.pid)
            self.state = self.place.look(self.pid, self.job)
            self._held = time.perf_counter() - found
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: Any) -> None:
        self.close()

    def close(self) -> None:
        """End it, if it is not over."""
        self._stack.close()

    def _find(self, known: set[str]) -> None:
        """The pid of ``timed``: the first process that is executed as such with our token."""
        deadline, token = time.monotonic() + FOUND_WITHIN, self.place.token.encode()
        while time.monotonic() < deadline:
            for name in os.listdir("/proc"):
                if name.isdecimal() and name not in known:
                    words = read(f"/proc/{name}/cmdline").split(b"\0")
                    if words[0].endswith(TIMED.encode()) and words[1:2] == [token] and _held(name):
                        self.pid, self._pidfd = int(name), os.pidfd_open(int(name))
                        return
            assert self._child is not None
            if self._child.poll() is not None:
                raise EnvironmentBroken(f"{self.place.name}: the container did not start: {self._said()}")
            time.sleep(STEP)
        raise EnvironmentBroken(f"{self.place.name}: no container after {FOUND_WITHIN:.0f} s: {self._said()}")

    def _said(self) -> str:
        said = read(self._err.name).strip() or read(self._out.name).strip() or self.place.log().strip()
        text = said.decode(errors="replace")
        return text[-TAIL:].replace("\n", " | ") or "it says nothing"

    def go(self) -> None:
        """Open the gate: the job's first instruction."""
        signal.pidfd_send_signal(self._pidfd, signal.SIGUSR1)
        deadline = time.monotonic() + 1.0
        while self._command < 0 and time.monotonic() < deadline and not self._reported():
            for word in read(f"/proc/{self.pid}/task/{self.pid}/children").split():
                with contextlib.suppress(OSError):
                    self._command = os.pidfd_open(int(word))
                    return
            time.sleep(STEP / 4)

    def listening(self) -> None:
        """Wait until it listens on all its ports: seen in the kernel's table, without a connection to it."""
        deadline = time.monotonic() + FOUND_WITHIN
        while time.monotonic() < deadline:
            if set(self.job.ports) <= listeners(self.pid):
                return
            if self._reported():
                break
            time.sleep(STEP)
        missing = sorted(set(self.job.ports) - listeners(self.pid))
        raise EnvironmentBroken(f"{self.place.name}: nothing listens on port {missing}: {self._said()}")

    def wait(self, timeout: float) -> Ran:
        """Until the job has ended, and its container is gone. EnvironmentBroken after TIMEOUT seconds."""
        if self._ran is None:
            deadline = time.monotonic() + timeout
            if self._command >= 0 and not _ready(self._command, timeout):
                raise EnvironmentBroken(f"{self.place.name}: not over after {timeout:.0f} s: it was killed")
            assert self._child is not None
            last = time.monotonic()
            while not self._reported():
                if self._command < 0 and read(f"/proc/{self.pid}/task/{self.pid}/children").strip():
                    last = time.monotonic()  # it was over before it could be watched, or is not over yet
                if time.monotonic() - last > UNHEARD:
                    raise EnvironmentBroken(f"{self.place.name}: {self._unheard()}")
                if self._child.poll() is not None and not self._reported():
                    raise EnvironmentBroken(f"{self.place.name}: ended before its job: {self._said()}")
                if time.monotonic() > max(deadline, time.monotonic() + STEP if self._command >= 0 else 0):
                    raise EnvironmentBroken(f"{self.place.name}: not over after {timeout:.0f} s: it was killed")
                time.sleep(STEP if self._command >= 0 else IDLE)
            self._ran = self._over()
        return self._ran

    def _unheard(self) -> str:
        """Why there is no report of a job that is over."""
        path = os.path.dirname(self._err.name)
        disk = os.statvfs(path)
        full = disk.f_bavail * disk.f_frsize < 1 << 20
        why = f"no room is left on the disk of {path}" if full else f"{UNHEARD:.0f} s after its end"
        return f"the job is over, and its clock's report did not come: {why}"

    def stop(self) -> Ran:
        """End the job with TERM, as a server is ended."""
        if self._ran is None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGTERM)
        return self.wait(GONE_WITHIN)

    def _reported(self) -> bool:
        return MARK in read(self._err.name, -4096)

    def _over(self) -> Ran:
        over = time.perf_counter()
        after = figures(self.pid)
        counted = {
            name: value - (self._before.get(name, 0.0) if name in OVER_TIME else 0.0) for name, value in after.items()
        }
        self._orphans()
        self._held += time.perf_counter() - over
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGUSR1)
        assert self._child is not None
        code = self._child.wait(GONE_WITHIN)
        code = self.place.returncode(code)
        whole = time.perf_counter() - self._begin - self._held + self.place.made_s
        words, _, rest = read(self._err.name).rpartition(MARK)
        line, _, after = rest.partition(b"\n")  # some tools have a word of their own about the exit code
        return Ran(code, read(self._out.name), words + after, {**reported(line), "whole_s": whole, **counted})

    def _orphans(self) -> None:
        """What the job left behind goes: where there is a pid namespace it goes anyway, elsewhere it would stay."""
        for pid in descendants(self.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _end(self) -> None:
        """Whatever is still there goes."""
        child = self._child
        if child is not None and self._ran is None:
            if self._pidfd >= 0:
                self._orphans()
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
                with contextlib.suppress(Exception):
                    child.wait(5.0)
            child.kill()
            with contextlib.suppress(Exception):
                child.wait(5.0)
        for fd in (self._pidfd, self._command):
            if fd >= 0:
                os.close(fd)
        self._pidfd = self._command = -1
        self.place.ended()


def read(path: str | IO[bytes], last: int = 0) -> bytes:
    """The bytes of PATH, or its LAST few (negative); b"" when it cannot be read."""
    try:
        with open(path, "rb") as file:  # type: ignore[arg-type]
            if last:
                size = os.fstat(file.fileno()).st_size
                file.seek(max(0, size + last))
            return file.read()
    except OSError:
        return b""


def _held(name: str) -> bool:
    """Whether the timed that is process NAME has come to its gate: before, the signal that opens it would kill it."""
    return read(f"/proc/{name}/comm").startswith(b"timed-held")


def _ready(pidfd: int, timeout: float) -> bool:
    """Whether the process of PIDFD ends within TIMEOUT seconds."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(timeout * 1000))


def descendants(pid: int) -> list[int]:
    """The children of PID, and theirs. They are of timed, which takes in its orphans, so they are all of the job."""
    parents: dict[int, list[int]] = {}
    for name in filter(str.isdecimal, os.listdir("/proc")):
        words = read(f"/proc/{name}/stat").rpartition(b")")[2].split()
        if len(words) > 1:
            parents.setdefault(int(words[1]), []).append(int(name))
    found, ahead = [], [pid]
    while ahead:
        below = parents.get(ahead.pop(), [])
        found += below
        ahead += below
    return found


def listeners(pid: int) -> set[int]:
    """The TCP ports somebody listens on in the network namespace of PID."""
    return listened(read(f"/proc/{pid}/net/tcp")) | listened(read(f"/proc/{pid}/net/tcp6"))


def listened(table: bytes) -> set[int]:
    """The ports that TABLE, a file tcp or tcp6 as of proc_pid_net(5), has somebody listen on."""
    rows = [line.split() for line in table.decode().splitlines()[1:]]
    return {int(fields[1].rpartition(":")[2], 16) for fields in rows if fields[3] == LISTENING}


def address_of(pid: int) -> str:
    """The IPv4 address of eth0 where PID runs. EnvironmentBroken where it has none."""
    command = ["nsenter", f"--net=/proc/{pid}/ns/net", "--", "ip", "-json", "-4", "address", "show", "dev", "eth0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    for link in json.loads(done.stdout or "[]") if not done.returncode else ():
        for row in link.get("addr_info", ()):
            return str(row["local"])
    raise EnvironmentBroken(f"no address of eth0 of process {pid}: {done.stderr.strip()}")


def figures(pid: int) -> dict[str, float]:
    """What the cgroups of PID have counted, where they are not our own."""
    groups = read(f"/proc/{pid}/cgroup").decode()
    found: dict[str, float] = {}
    for directory in set(host.own_cgroups("", groups)) - set(host.own_cgroups()) if groups else ():
        for name, (key, factor) in FIGURES.items():
            text = read(os.path.join(directory, name)).strip()
            if text.isdigit():
                found[key] = int(text) * factor
        for line in read(os.path.join(directory, "cpu.stat")).decode().splitlines():
            if line.startswith("usage_usec "):
                found["cgroup_cpu_us"] = float(line.split()[1])
    return found


def reported(line: bytes) -> dict[str, float]:
    """The values of timed's report."""
    said = json.loads(line)
    return {
        "wall_s": said["wall_ns"] / 1e9,
        "user_s": said["user_us"] / 1e6,
        "system_s": said["system_us"] / 1e6,
        "maxrss_bytes": said["maxrss_kib"] * 1024.0,
        **{name: float(said[name]) for name in ("minflt", "majflt", "inblock", "oublock", "nvcsw", "nivcsw")},
    }
