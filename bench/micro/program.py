"""The two static programs of the micro tier, the files they work on, and what they print."""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import os
import shutil
import subprocess
from collections.abc import Sequence

from bench.lifecycle.lab import C_FLAGS, MOST_SAID

HERE = os.path.dirname(os.path.abspath(__file__))
COUNTER = "counter.c"
DATA, SCRATCH = "/data", "/work"  # inside; places of bench/rootfs.py
PROGRAM = "/data/micro"
DEPTH = 8  # of micro.h
MOST_BURSTS = 1000  # of micro.c
ENTRIES = 100
MAPPED = 4 << 20  # bytes: 64 faults of 64 KiB, see memory.c
LOWER = {"4k": (4096, 16), "64k": (65536, 8), "1m": (1 << 20, 4), "16m": (16 << 20, 2), "64m": (64 << 20, 1)}
LIGHT = ("4k", "64k", "1m")  # what tests make

CALLS = ("getppid", "personality")
READS, APPENDS = ("read_1", "read_4k", "read_64k"), ("append_1", "append_4k", "append_64k")
FILES = ("open_close", "stat_deep", "readdir", "create_unlink", *READS, "write_1", *APPENDS)
COPYUPS = tuple(f"copyup_{size}" for size in LOWER)
MEMORY = ("fault_anon", "fault_file", "mmap")
PROCESSES = ("pipe", "socket", "futex", "fork_exit", "fork_exec")
CLONES = ("clone_uts", "clone_ipc", "clone_pid", "clone_mnt", "clone_net", "clone_user", "clone_cgroup", "clone_time")
NETWORK = ("tcp_rr", "tcp_crr", "tcp_stream", "tcp_maerts", "udp_rr")
OPERATIONS = (*CALLS, *FILES, *COPYUPS, *MEMORY, *PROCESSES, *CLONES, *NETWORK)
MEASURES = ("minimum_ns", "median_ns", "p95_ns")


class ProgramError(Exception):
    """It cannot be compiled, or what it printed is not what it prints: one line."""


@dataclasses.dataclass(frozen=True)
class Figures:
    """What one operation took. ``refused`` is the arm's reason for not letting it be done, "" when it was."""

    bursts: int = 0
    calls: int = 0
    values: tuple[float, ...] = ()  # MEASURES
    refused: str = ""


def compiled(directory: str, name: str = "micro") -> str:
    """The path of the static program ``micro`` or ``counter`` in DIRECTORY, compiled there. Raises ProgramError."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if not compiler:
        raise ProgramError(f"no C compiler for {name}: install gcc, or name one in CC")
    sources = [
        path for path in sorted(glob.glob(f"{HERE}/*.c")) if (os.path.basename(path) == COUNTER) == (name != "micro")
    ]
    output = os.path.join(directory, name)
    done = subprocess.run(
        [compiler, *C_FLAGS, "-static", "-s", "-o", output, *sources], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ProgramError(f"{compiler} cannot compile {name}: {done.stderr.strip()[-MOST_SAID:]}")
    return output


def furnish(root: str, sizes: Sequence[str] = tuple(LOWER)) -> None:
    """Put the program and the files it works on into ROOT's /data. Raises ProgramError, OSError."""
    data = root + DATA
    os.makedirs(data, exist_ok=True)
    compiled(data)
    deep = os.path.join(data, "deep", *map(str, range(DEPTH - 1)))
    os.makedirs(deep)
    _write(os.path.join(deep, str(DEPTH - 1)), 1)
    os.makedirs(os.path.join(data, "hundred"))
    for number in range(ENTRIES):
        _write(os.path.join(data, "hundred", f"entry-{number:03}"), 1)
    _write(os.path.join(data, "page"), 4096)
    _write(os.path.join(data, "mapped"), MAPPED)
    for size in sizes:
        length, count = LOWER[size]
        os.makedirs(os.path.join(data, "lower", size))
        for number in range(count):
            _write(os.path.join(data, "lower", size, str(number)), length)


def _write(path: str, size: int) -> None:
    """SIZE real bytes: a hole would not be copied up."""
    with open(path, "wb") as file:
        for _ in range(size >> 20):
            file.write(b"L" * (1 << 20))
        file.write(b"L" * (size & ((1 << 20) - 1)))


def layer(directory: str) -> str:
    """A layer below the root that holds the same directories, so that each look goes through it. Its path."""
    with contextlib.suppress(FileExistsError):
        os.makedirs(directory + os.path.join(DATA, "deep", *map(str, range(DEPTH - 1))))
        os.makedirs(f"{directory}{DATA}/hundred")
    return directory


def words(
    operations: Sequence[str], *, seed: int, bursts: int, percent: int = 100, host: str = "", port: int = 0
) -> list[str]:
    """The arguments of one run of the program."""
    found = ["--data", DATA, "--scratch", SCRATCH, "--seed", str(seed), "--bursts", str(bursts)]
    found += ["--calls-percent", str(percent)]
    found += ["--host", host, "--port", str(port)] if host else []
    return [*found, *operations]


def parsed(text: str) -> dict[str, Figures]:
    """operation -> figures, of what the program printed. Raises ProgramError."""
    found = {}
    for line in text.splitlines():
        name, *rest = line.split(" ", 2)
        try:
            if rest[0] == "refused":
                found[name] = Figures(refused=rest[1])
                continue
            bursts, (calls, *values) = int(rest[0]), rest[1].split()
            found[name] = Figures(bursts, int(calls), tuple(float(value) for value in values))
            if len(values) != len(MEASURES):
                raise ValueError(line)
        except (ValueError, IndexError) as err:
            raise ProgramError(f"the micro program printed {line!r}") from err
    return found


def counted(text: str) -> dict[str, float]:
    """What the counter wrote: "NAME TIMES", and "NAME TIMES BYTES" as NAME and NAME_bytes. Raises ProgramError."""
    found: dict[str, float] = {}
    try:
        for line in text.splitlines():
            name, times, *size = line.split()
            found[name] = float(times)
            found.update({f"{name}_bytes": float(size[0])} if size else {})
    except (ValueError, IndexError) as err:
        raise ProgramError(f"the counter wrote {text[:80]!r}") from err
    return found
