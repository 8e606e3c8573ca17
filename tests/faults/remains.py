"""A world of its own for one try, in which everything that is left of the try can be seen, and nothing of others.

What minictr leaves cannot be asked of minictr. A process of it may have no environment, no parent and no descriptor by
which it could be known; what a process cannot shed is a resource limit. So everything a :class:`Place` starts has an
odd limit on POSIX message queues, and the kernel hands it on through fork, clone and execve. setrlimit(2)
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import hostview

__all__ = ["Place", "cli"]

SHORT = 12  # digits of an id in the name of a cgroup
MNT_DETACH = 2
SETTLED = ("containers", "names", "ids", "events", "events.1", "network")  # what a store makes, and keeps
SHARED = ("/tmp", "/var/tmp", "/dev/shm", "/run", "/run/netns")  # where other sessions have things too


def cli() -> list[str]:
    """The beginning of a command line of the minictr that is tested."""
    launcher = Path(sys.executable).parent / "minictr"
    return [str(launcher)] if launcher.exists() else [sys.executable, "-m", "minictr"]


class Place:
    """State root, cgroup parents, temporary directory and home of one try, below the directory ABOVE.

    ``environment`` and ``options`` (those of ``run`` and ``create``) lead minictr to them; ``root`` is the state
    root, ``directory`` where all files are, ``mark`` a text in the environment and in the name of the cgroup parents.
    With ROOTFS there is ``rootfs``, a tree of hard links to it: for reading, or below an overlay.
    """

    def __init__(self, above: Path, rootfs: Path | None = None) -> None:
        self.mark = f"minictr-try-{os.getpid()}-{random.SystemRandom().randrange(1 << 32):08x}"
        self.directory = above / self.mark
        self.root, self.rootfs = self.directory / "state", self.directory / "rootfs"
        places = {"TMPDIR": "tmp", "HOME": "home", "XDG_RUNTIME_DIR": "runtime", "XDG_CACHE_HOME": "cache"}
        for name in places.values():
            (self.directory / name).mkdir(parents=True, mode=0o700)
        if rootfs is not None:
            subprocess.run(["cp", "-al", str(rootfs), str(self.rootfs)], check=True)
        odd = {"MINICTR_ROOT": str(self.root), "MINICTR_TRY": self.mark}
        self.environment = {**os.environ, **odd, **{key: str(self.directory / name) for key, name in places.items()}}
        # prlimit(2) lowers it for whoever is started, below what the kernel gives; a number that nobody else has
        self.limit = 100_000 + random.SystemRandom().randrange(400_000)
        self.groups = [os.path.join(top, self.mark) for top in hostview.own_cgroups()]
        self.options = ["--cgroup-parent", self.mark]
        self.links = frozenset(hostview.links())
        self.disks: list[str] = []
        self.filler = "filler"  # files whose name begins so are the test's own: they make a disk full
        for group in self.groups:
            make_group(group)

    # --- starting things ---

    @contextlib.contextmanager
    def marking(self) -> Iterator[None]:
        """What this process starts meanwhile, by whatever means, can be seen by :meth:`left`."""
        soft, hard = resource.getrlimit(resource.RLIMIT_MSGQUEUE)
        resource.setrlimit(resource.RLIMIT_MSGQUEUE, (self.limit, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_MSGQUEUE, (soft, hard))

    def popen(self, command: Iterable[str | Path], **options: Any) -> subprocess.Popen[Any]:
        """COMMAND, whatever it is (strace with minictr, an interpreter), in this place's environment."""
        chosen = {"env": self.environment, "stdin": subprocess.DEVNULL, **options}
        with self.marking():
            return subprocess.Popen([*map(str, command)], **chosen)

    def run(self, *words: str | Path, timeout: float = 60, **options: Any) -> subprocess.CompletedProcess[str]:
        """``minictr WORDS`` to its end, text of both streams captured. Raises subprocess.TimeoutExpired."""
        chosen = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
        # what a detached child keeps open must not hold us: a container that has our pipe is a fault, seen by timeout
        with self.popen([*cli(), *words], **chosen) as process:
            try:
                out, err = process.communicate(timeout=timeout)
            except BaseException:
                process.kill()
                raise
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def small_disk(self, path: Path, *, size: str, inodes: int = 0) -> None:
        """A file system of SIZE ("256k") on directory PATH of this place; INODES 0: as many as fit."""
        path.mkdir(exist_ok=True)
        options = f"size={size},mode=700" + (f",nr_inodes={inodes}" if inodes else "")
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(path)], check=True)
        self.disks.append(str(path))

    # --- looking ---

    def processes(self) -> list[int]:
        """Pids of all that was started here and runs; this process is never among them, zombies neither."""
        return [int(pid) for pid in filter(str.isdecimal, os.listdir("/proc")) if self._is_ours(pid)]

    def _is_ours(self, pid: str) -> bool:
        if int(pid) == os.getpid():
            return False
        rows = (line.split() for line in hostview.read(f"/proc/{pid}/limits").splitlines())
        limit = next((row[3] for row in rows if row[:3] == ["Max", "msgqueue", "size"]), "")
        return limit == str(self.limit) and state_of(pid) not in "ZX"

    def ids(self) -> set[str]:
        """Of every container there ever was here, as far as it was told."""
        found = set(listing(self.root / "containers"))
        for name in ("events", "events.1"):
            for line in hostview.read(str(self.root / name)).splitlines():
                with contextlib.suppress(ValueError):
                    found.add(str(json.loads(line).get("id", "")))
        return found - {""}

    def id_of(self, name: str) -> str:
        """The id that NAME stands for; "" when it stands for none."""
        return hostview.link(str(self.root / "names" / name))

    def left(self, *, besides: Iterable[str] = (), patience: float = 3.0) -> list[str]:
        """One line for each thing that is still there after PATIENCE seconds; BESIDES: names of containers that may.

        Processes; cgroups; mounts that show anything of this directory, seen from the host; links and network
        namespaces; state of containers, names, and files that do not belong into a store; temporary files.
        """
        deadline, pause = time.monotonic() + patience, 0.005
        while found := self._look({name: self.id_of(name) for name in besides}):
            if time.monotonic() > deadline:
                return found
            time.sleep(pause)
            pause = min(pause * 2, 0.2)
        return []

    def _look(self, besides: dict[str, str]) -> list[str]:
        kept = {identity for identity in besides.values() if identity}
        short = tuple(f"minictr-{identity[:SHORT]}" for identity in kept)
        found = [f"process: {tell(pid)}" for pid in self.processes() if not belongs(pid, kept, short)]
        for group in self.groups:
            below = [path for path in subgroups(group) if not any(name in path.split("/") for name in short)]
            found += [f"cgroup: {path}" for path in below]
        rows = [row for row in hostview.mounts() if self.mark in row and row.split()[4] not in self.disks]
        found += [f"mount: {row}" for row in rows]
        found += [f"link: {row}" for row in hostview.links() - self.links if " minictr" in row]
        found += [f"state: {path}" for path in self._state(besides, kept)]
        for name in ("tmp", "home", "runtime"):
            found += [f"file: {path}" for path in hostview.listing(str(self.directory / name))]
        words = (self.mark, *(identity[:SHORT] for identity in self.ids() - kept))
        for place in SHARED:
            names = [name for name in listing(place) if any(word in name for word in words)]
            found += [f"file: {place}/{name}" for name in names if f"{place}/{name}" != str(self.directory)]
        return sorted(found)

    def _state(self, besides: dict[str, str], kept: set[str]) -> Iterator[Path]:
        for name in set(listing(self.root)) - set(SETTLED):
            if not name.startswith(self.filler):
                yield self.root / name
        for name in set(listing(self.root / "containers")) - kept:
            inside = " ".join(sorted(listing(self.root / "containers" / name)))
            yield self.root / "containers" / f"{name} ({inside})"
        for name in set(listing(self.root / "names")) - set(besides):
            yield self.root / "names" / name
        if not besides:
            yield from (self.root / "ids" / name for name in listing(self.root / "ids"))
            network = self.root / "network"
            yield from (network / name for name in set(listing(network)) - {"ports", "sysctls"})
            yield from (path for name in ("ports", "sysctls") for path in (network / name).glob("*"))

    # --- the end ---

    def close(self) -> None:
        """End and remove whatever is here, and the place itself."""
        self.clear()
        for group in self.groups:
            remove_group(group)
        shutil.rmtree(self.directory)

    def clear(self) -> None:
        """No process, group or mount of a try is here any more, well or badly as it went; its files stay."""
        deadline = time.monotonic() + 10
        while (alive := self.processes()) and time.monotonic() < deadline:
            for group in self.groups:
                thaw(group)
            for pid in alive:
                self._kill(pid)
            time.sleep(0.01)
        for group in self.groups:
            for name in listing(group):
                if os.path.isdir(os.path.join(group, name)):
                    remove_group(os.path.join(group, name))
        for row in hostview.mounts():
            if self.mark in row:
                unmount(row.split()[4])

    def _kill(self, pid: int) -> None:
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            return
        try:
            if self._is_ours(str(pid)):  # looked at after the descriptor was opened: it is that very process
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        except ProcessLookupError:
            pass
        finally:
            os.close(pidfd)

    def __enter__(self) -> Place:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# --- processes ---


def state_of(pid: str) -> str:
    """One letter, proc_pid_stat(5); "X" when it has gone."""
    fields = hostview.read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return fields[0] if fields else "X"


def tell(pid: int) -> str:
    """What a person wants to know of a process that should not be there."""
    command = hostview.read(f"/proc/{pid}/cmdline").replace("\0", " ").strip()
    parent = hostview.read(f"/proc/{pid}/stat").rpartition(")")[2].split()[1:2]
    return f"{hostview.describe(str(pid))}, child of {''.join(parent)}: {command[:100]}"


def belongs(pid: int, ids: set[str], groups: tuple[str, ...]) -> bool:
    """Whether PID is a process of one of these containers: in its cgroup, or its monitor, or its cleanup."""
    if not ids:
        return False
    rows = hostview.read(f"/proc/{pid}/cgroup").splitlines()
    if any(part in groups for row in rows for part in row.split("/")):
        return True
    words = hostview.read(f"/proc/{pid}/cmdline").split("\0")
    if any(identity in words for identity in ids):
        return True
    with contextlib.suppress(OSError):
        targets = [hostview.link(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
        return any(part in ids for target in targets for part in target.split("/"))
    return False


# --- cgroups ---


def make_group(path: str) -> None:
    """A group; a new cpuset of v1 has no processors and no memory, and takes nobody, until it is given some."""
    os.mkdir(path)
    for name in ("cpuset.cpus", "cpuset.mems"):
        file = Path(path, name)
        if file.exists() and Path(path, "tasks").exists():
            file.write_text(Path(path).parent.joinpath(name).read_text())


def subgroups(path: str) -> list[str]:
    """All groups below PATH."""
    return [os.path.join(directory, name) for directory, below, _ in os.walk(path) for name in below]


def thaw(group: str) -> None:
    """What is frozen below GROUP does not die."""
    for path in (group, *subgroups(group)):
        for name, value in (("freezer.state", "THAWED"), ("cgroup.freeze", "0")):
            file = os.path.join(path, name)
            if os.path.exists(file):
                with contextlib.suppress(OSError), open(file, "w") as stream:
                    stream.write(value)


def remove_group(group: str) -> None:
    """GROUP and all below it; who has just died in there may take a moment to leave."""
    deadline = time.monotonic() + 5
    while True:
        try:
            for path in (*reversed(subgroups(group)), group):
                os.rmdir(path)
            return
        except FileNotFoundError:
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


# --- files ---


def listing(path: str | Path) -> list[str]:
    """The names in a directory; none when there is no such directory."""
    try:
        return os.listdir(path)
    except (FileNotFoundError, NotADirectoryError):
        return []


def unmount(path: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.umount2(os.fsencode(path.encode().decode("unicode_escape")), MNT_DETACH)
