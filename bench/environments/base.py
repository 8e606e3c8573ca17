"""The one face of all environments: what a workload may ask of the place it runs in.

An environment is where the same bytes run: bare (chroot), minictr with some features, LXC, Docker and the others. It is
made for one root file system (the *stage*) and knows nothing of workloads; a workload knows nothing of environments.

The order for one sample: ``fresh(job)``, ``put``, ``run(job)`` (or ``start(job)``, ``stop()``), ``get``, ``rest()``.

- ``fresh`` is told the job: docker and podman make the container there, and where /work lies hangs on ``job.data``.
- Each environment has a network of its own, ``environment.lan`` (bench/lan.py): a network namespace that stands for the
  machine, a cable, another that stands for the client's machine. So no bridge and no rule of one arm is on the way of
  another, and nothing of the real host's network is touched. A client runs by ``environment.lan.command(argv)``, one on
  the machine itself by ``environment.lan.command(argv, "host")``; whom it asks is in ``Running.addresses``.
- /work is an empty directory in every fresh container. ``put`` and ``get`` are for the time before and after a job.
- The job's first instruction waits until its state has been read from the kernel, so ``state(job)`` after a sample is
  the state of that very sample.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    from bench.lan import Lan


WORK = "/work"  # in every environment: the job's own directory


@dataclasses.dataclass(frozen=True)
class Bind:
    """A directory of the host that is seen inside at ``target``."""

    source: str
    target: str
    readonly: bool = False


@dataclasses.dataclass(frozen=True)
class Job:
    """What is run inside: always the same bytes and the same arguments, wherever it runs.

    ``network``: "none" (own namespace, loopback only), or "lan": whatever path this environment takes to a client on
    another machine. ``ports`` are TCP ports of the job that the client must reach. ``data`` says where the job's own
    directory /work lies: "image" (in the root file system: overlay where the environment has one) or "volume" (a bind).
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = dataclasses.field(default_factory=dict)
    cwd: str = "/"
    binds: tuple[Bind, ...] = ()
    network: str = "none"
    ports: tuple[int, ...] = ()
    data: str = "image"
    timeout: float = 3600.0


@dataclasses.dataclass(frozen=True)
class Ran:
    """How a job ended. Times in seconds: ``wall_s`` of the job itself (its first instruction to its end, by its own
    clock inside where the environment allows), ``whole_s`` from asking the environment until it is gone again."""

    returncode: int
    stdout: bytes
    stderr: bytes
    values: dict[str, float]  # wall_s, whole_s, user_s, system_s, minflt, majflt, nvcsw, nivcsw, ...


class Running(Protocol):
    """A job that stays (a server). A context manager: leaving it ends the job and what it took."""

    # the ways to it: way ("client": from the far client, "host": from the machine by address, "local": from the machine
    # by 127.0.0.1, absent where there is none) -> address
    addresses: Mapping[str, str]
    ports: Mapping[int, int]  # port of the job -> port a client must ask for, by whichever way

    def __enter__(self) -> Running: ...
    def __exit__(self, *exc: Any) -> None: ...
    def stop(self) -> Ran: ...


class Held(Protocol):
    """A job that is there and waits for its first instruction, its state read. A context manager, as Running is."""

    addresses: Mapping[str, str]
    ports: Mapping[int, int]
    pid: int

    def __enter__(self) -> Held: ...
    def __exit__(self, *exc: Any) -> None: ...
    def go(self) -> None:
        """Let it run."""
        ...

    def listening(self) -> None:
        """Come back when it listens on all its ports. EnvironmentBroken when it does not."""
        ...

    def wait(self, timeout: float) -> Ran:
        """To its end. EnvironmentBroken after TIMEOUT seconds."""
        ...

    def stop(self) -> Ran: ...
    def close(self) -> None: ...


class Stage(Protocol):
    """What all environments of one run share."""

    rootfs: str  # the prepared root file system: never written to
    linux: str  # the kernel's source, unpacked; "" where the root was built without it
    directory: str  # scratch of this run, on a real disk

    def tree(self, owner: int = 0) -> str:
        """A writable copy of the root's bytes that all who want one share (bench/tree.py), its ids shifted by OWNER."""
        ...

    def restore(self, owner: int = 0) -> None:
        """That copy as it was when it was made."""
        ...


class Environment(Protocol):
    """One environment. ``cleanup`` may be called at any time and any number of times, after a failure as well."""

    NAME: ClassVar[str]
    ABOUT: ClassVar[str]
    KNOWN: ClassVar[tuple[str, ...]]  # what a fair reader must know
    lan: Lan  # the machine and the client, from prepare() on

    def unavailable(self) -> str:
        """Why it cannot be had here, "" when it can: found by performing, not by looking for a file."""
        ...

    def prepare(self) -> None:
        """Everything that is made once: a daemon, a bridge, an image of the root's bytes. Raises EnvironmentBroken."""
        ...

    def fresh(self, job: Job) -> None:
        """A clean container for JOB, the next sample: nothing of the last one is left in its root or its data."""
        ...

    def rest(self) -> None:
        """Until the next ``fresh`` nothing of it takes time from other arms: daemons are stopped in their tracks."""
        ...

    def run(self, job: Job) -> Ran:
        """Run JOB to its end in the fresh container. Raises EnvironmentBroken when it could not be started."""
        ...

    def start(self, job: Job) -> Running:
        """Start JOB as a server and come back when it listens on all its ports."""
        ...

    def planned(self, job: Job) -> dict[str, Any]:
        """What ``state`` is expected to be: the keys of bench/environments/state.py."""
        ...

    def state(self, job: Job) -> dict[str, Any]:
        """The effective state read back from the kernel: of JOB if it was the last to run, else of one started so."""
        ...

    def put(self, source: str, inside: str) -> None:
        """Copy a file or directory into the fresh container's data, without the workload knowing where it lies."""
        ...

    def get(self, inside: str, target: str) -> None:
        """Copy one out again (the check of the result's bytes)."""
        ...

    def cleanup(self) -> Sequence[str]:
        """Remove everything it made; one line for whatever would not go."""
        ...


class EnvironmentBroken(Exception):
    """The environment could not do its part; the message says what was tried. The arm is marked, the others go on."""
