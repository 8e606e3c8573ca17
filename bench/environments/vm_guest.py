"""A job in a virtual machine: booted, mounted, warmed, held, let go, waited for, counted, powered off.

::

    this process                                     the machine
    setpriv, QEMU: its end of a pair of sockets ---> init (vm_init.c), on a virtio serial port
                                             <------ ready
    mount, root, network, warm, run, cat ... ------>
                                             <------ ok, or failed
    go                                       ------> the job's first instruction
                                             <------ exit: its code, what it wrote
    off                                      ------> the disks are whole; the machine is gone

Nothing outlives this process: the kernel kills QEMU when its parent is gone (PR_SET_PDEATHSIG), and the machine powers
itself off when nobody is at the other end.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bench.environments.base import EnvironmentBroken, Job, Ran
from bench.environments.live import FOUND_WITHIN, GONE_WITHIN, MARK, TAIL, Group, listened, read, reported

if TYPE_CHECKING:
    from bench.environments.vm import VirtualMachine

BOOTED_WITHIN = 180.0  # seconds until init says that it is there; emulated it takes 6, on a busy machine 40
TRIED_WITHIN = 20.0  # and where it is tried whether one comes up at all: with the hardware's help it takes 1
ANSWERED_WITHIN = 60.0  # seconds for an answer
WARMED_WITHIN = 1800.0  # and for all files to be read
LOOK = 0.005  # seconds between two looks at who listens
KINDS = (("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"), ("devpts", "/dev/pts"), ("tmpfs", "/dev/shm"))


class Guest:
    """See bench.environments.base.Held: a job that :meth:`begin` begins, in a machine of its own.

    ``pid``: of the job, in there. ``qemu``: the process that is the machine.
    """

    def __init__(self, place: VirtualMachine, job: Job) -> None:
        self.place, self.job = place, job
        self.addresses: Mapping[str, str] = {}
        self.ports: Mapping[int, int] = {}
        self.pid = 0
        self.warmed = 0
        self.qemu: Group | None = None
        self._socket: socket.socket | None = None
        self._got = b""
        self._exit: tuple[int, bytes, bytes] | None = None
        self._begin = self._held = self._opened = self._gone = self._cpu = 0.0
        self._stack = contextlib.ExitStack()
        self._ran: Ran | None = None

    def __enter__(self) -> Guest:
        return self

    def __exit__(self, *exc: Any) -> None:
        self.close()

    def close(self) -> None:
        """End it, if it is not over."""
        self._stack.close()

    def begin(self) -> Guest:
        """Boot, and read the job's state at the gate. EnvironmentBroken, with nothing left, when that fails."""
        disks = self.place.disks(self.job)
        with contextlib.ExitStack() as stack:
            stack.callback(self._end)
            self._begin = time.perf_counter()
            self._boot(stack, [(image, readonly) for image, _, readonly in disks], BOOTED_WITHIN)
            self._mount([(target, readonly) for _, target, readonly in disks])
            self.ask("network", *self.place.network(self.job))
            waiting = time.perf_counter()
            wanted = ["/", *(target for _, target, _ in disks[1:])]
            self.warmed = int(self.ask("warm", *wanted, within=WARMED_WITHIN))
            env = [f"{name}={value}" for name, value in self.place.env(self.job).items()]
            argv = self.place.argv(self.job)
            self.pid = int(self.ask("run", self.job.cwd, str(len(env)), *env, *argv))
            self.place.look_inside(self)
            self._held = time.perf_counter() - waiting
            self._stack = stack.pop_all()
        return self

    def try_boot(self) -> None:
        """Come up without any disk, and go. EnvironmentBroken when it does not within TRIED_WITHIN seconds."""
        with contextlib.ExitStack() as stack:
            stack.callback(self._end)
            self._boot(stack, [], TRIED_WITHIN)

    def _boot(self, stack: contextlib.ExitStack, disks: list[tuple[str, bool]], within: float) -> None:
        ours, theirs = socket.socketpair()
        self._socket = stack.enter_context(ours)
        with theirs, open(self.place.path("log"), "w+b") as log:
            command = self.place.boot(self.job, disks, theirs.fileno())
            self.qemu = self.place.popen(command, log, log, pass_fds=[theirs.fileno()])
        if (word := self._line(time.monotonic() + within)) != "ready":
            raise EnvironmentBroken(f"{self.place.name}: the machine's first word was {word!r}")

    def _mount(self, targets: list[tuple[str, bool]]) -> None:
        """The disks, in their order, and what a kernel shows of itself."""
        for at, (target, readonly) in enumerate(targets):
            device, there = f"/dev/vd{chr(ord('a') + at)}", target if at else "/root"
            options = "noload" if readonly else "noinit_itable"
            self.ask("mount", device, there, "ext4", "ro" if readonly else "rw", options)
            if not at:
                self.ask("root", there)
                for kind, path in KINDS:
                    self.ask("mount", kind, path, kind, "rw", "")

    # --- what is said on the port ---

    def ask(self, *words: str, within: float = ANSWERED_WITHIN) -> str:
        """The answer to a request. EnvironmentBroken when the machine refuses it, or says nothing in time."""
        assert self._socket is not None
        text = b"".join(word.encode() + b"\0" for word in words)
        deadline = time.monotonic() + within
        try:
            self._socket.settimeout(within)
            self._socket.sendall(f"{len(text)}\n".encode() + text)
        except OSError as err:
            raise EnvironmentBroken(f"{self.place.name}: {words[0]}: {err}: {self.said()}") from err
        while True:
            kind, _, rest = self._line(deadline).partition(" ")
            if kind == "ok":
                return self._bytes(int(rest), deadline).decode(errors="surrogateescape")
            if kind != "exit":
                raise EnvironmentBroken(f"{self.place.name}: the machine refused to {' '.join(words[:3])}: {rest}")
            self._ended(rest, deadline)

    def cat(self, path: str) -> str:
        """The text of a file in there: the first MiB."""
        return self.ask("cat", path)

    def _ended(self, rest: str, deadline: float) -> None:
        code, out, err = map(int, rest.split())
        self._gone, self._cpu = time.perf_counter(), self.cpu() - self._cpu
        self._exit = code, self._bytes(out, deadline), self._bytes(err, deadline)

    def _line(self, deadline: float) -> str:
        while b"\n" not in self._got:
            self._more(deadline)
        line, _, self._got = self._got.partition(b"\n")
        return line.decode(errors="replace")

    def _bytes(self, count: int, deadline: float) -> bytes:
        parts, missing = [self._got[:count]], count - len(self._got[:count])
        self._got = self._got[count:]
        while missing:
            self._more(deadline)
            parts.append(self._got[:missing])
            missing -= len(parts[-1])
            self._got = self._got[len(parts[-1]) :]
        return b"".join(parts)

    def _more(self, deadline: float) -> None:
        """Raises TimeoutError at DEADLINE, EnvironmentBroken when the machine is gone."""
        assert self._socket is not None
        left = deadline - time.monotonic()
        try:
            if left <= 0:
                raise TimeoutError
            self._socket.settimeout(left)
            data = self._socket.recv(1 << 16)
        except TimeoutError:
            raise Silent(f"{self.place.name}: the machine says nothing in time: {self.said()}") from None
        except OSError:
            data = b""
        if not data:
            raise EnvironmentBroken(f"{self.place.name}: the machine is gone: {self.said()}")
        self._got += data

    def said(self) -> str:
        """The last words of QEMU, or of the machine's kernel."""
        for name in ("log", "console"):
            text = read(self.place.path(name), -4096).decode(errors="replace")
            lines = [line.strip() for line in text.replace("\r", "\n").split("\n") if line.strip()]
            if lines:
                return " | ".join(lines)[-TAIL:]
        return "it says nothing"

    # --- for the place ---

    def go(self) -> None:
        self._cpu = self.cpu()
        self._opened = time.perf_counter()
        self.ask("go")

    def listening(self) -> None:
        deadline = time.monotonic() + FOUND_WITHIN
        found: set[int] = set()
        while time.monotonic() < deadline and self._exit is None:
            found = {port for name in ("tcp", "tcp6") for port in listened(self.cat(f"/proc/net/{name}").encode())}
            if set(self.job.ports) <= found:
                return
            time.sleep(LOOK)
        words = (self._exit[2] or self._exit[1]).rpartition(MARK)[0] if self._exit else b""
        text = words.decode(errors="replace").strip()[-TAIL:].replace("\n", " | ") or "it says nothing"
        missing = sorted(set(self.job.ports) - found)
        raise EnvironmentBroken(f"{self.place.name}: nothing listens on port {missing}: {text}")

    def wait(self, timeout: float) -> Ran:
        if self._ran is None:
            self._wait(timeout)
            self._ran = self._over()
        return self._ran

    def _wait(self, timeout: float) -> None:
        """Until the job has ended, by its exit alone: nothing is asked meanwhile, which would take its time."""
        deadline = time.monotonic() + timeout
        try:
            while self._exit is None:
                kind, _, rest = self._line(deadline).partition(" ")
                if kind != "exit":
                    raise EnvironmentBroken(f"{self.place.name}: the machine said {kind!r} where its job was to end")
                self._ended(rest, time.monotonic() + ANSWERED_WITHIN)
        except Silent:
            raise EnvironmentBroken(f"{self.place.name}: not over after {timeout:.0f} s: it was killed") from None

    def stop(self) -> Ran:
        if self._exit is None:
            self.ask("signal", "15")
        return self.wait(GONE_WITHIN)

    def _over(self) -> Ran:
        """Power it off, with its disks whole, and put its figures together."""
        assert self._exit is not None and self.qemu is not None
        code, out, err = self._exit
        self.ask("off", *reversed([target for _, target, _ in self.place.disks(self.job)[1:]]))
        try:
            left = self.qemu.wait(GONE_WITHIN)
        except Exception as error:
            raise EnvironmentBroken(f"{self.place.name}: QEMU does not end: {error}") from error
        whole = time.perf_counter() - self._begin - self._held + self.place.made_s
        if left:
            raise EnvironmentBroken(f"{self.place.name}: QEMU left with {left}: {self.said()}")
        words, mark, line = err.rpartition(MARK)
        if not mark:
            raise EnvironmentBroken(f"{self.place.name}: the job was not begun: {err.decode(errors='replace')[-TAIL:]}")
        values = {"whole_s": whole, "vm_cpu_s": self._cpu, "outside_wall_s": self._gone - self._opened}
        return Ran(code, out, words, {**reported(line), **values})

    def cpu(self) -> float:
        """Seconds of processor time that the machine has taken, as its own machine sees it: proc_pid_stat(5)."""
        assert self.qemu is not None
        fields = read(f"/proc/{self.qemu.pid}/stat").rpartition(b")")[2].split()
        return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK") if fields else 0.0

    def _end(self) -> None:
        """Whatever is still there goes."""
        if self.qemu is not None and self.qemu.poll() is None:
            self.qemu.kill()
            self.qemu.wait()
        self.place.ended()


class Silent(EnvironmentBroken):
    """No answer in time."""
