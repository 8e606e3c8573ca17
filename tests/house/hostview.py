"""What the tests may leave behind, looked at: each function answers one kind of thing as a set of readable lines.

A look is compared with an earlier look by :func:`difference`; a line that is new was left behind. Lines carry an
identity that is not used twice (mount id, pid and start time), so that "the same again" is told from "still there".
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

KEPT_BY_A_STORE = ("containers", "names", "ids", "events", "events.1", "network", "network/ports", "network/sysctls")

Look = dict[str, frozenset[str]]

# Pids of the session's own children that no test has made: whenever they end, the session waits for them at its end.
AWAITED: set[str] = set()

# The library keeps one sealed copy of its start program, and one of monitor and proxy each, per process: the same at
# the end as after the first start.
# And one ledger: the directory of its record, and the journal in it.
# libffi 3.5, which ctypes and cffi use, keeps its own file open: it maps its trampolines from there.
KEPT_DESCRIPTOR = re.compile(
    r"(/memfd:minictr-(?:init|mon|proxy)|/containers/[0-9a-f]{64}(?:/journal)?|/libffi\.so[.0-9]*)"
    r"(?: \(deleted\))?$"
)

TRY = re.compile(r"minictr-try-(\d+)-")  # and the pid of the session

# Where a thing that is *gone* is a fault as well: a test has taken the host's own away, or changed it.
OURS_TO_KEEP = frozenset({"mounts", "state", "links", "netns", "nft tables"})

# Of /proc/self/status: what a library must give back as it found it.
STATUS = frozenset(
    "Umask Uid Gid Groups SigBlk SigIgn CapInh CapPrm CapEff CapBnd CapAmb NoNewPrivs Seccomp Seccomp_filters".split()
)


def quick() -> Look:
    """What is looked at around every test; well under a millisecond."""
    return {"children": children(), "mounts": mounts(), "descriptors": descriptors(), "state": own_state()}


def whole(mark: str, places: tuple[str, ...]) -> Look:
    """What is looked at once before and once after the session.

    ``mark`` is a text in the environment of every process the session starts; ``places`` are directories that only
    the session uses.
    """
    ours = processes(mark, places)
    return quick() | {
        "processes": frozenset(ours.values()),
        "cgroups": cgroups(frozenset(ours)),
        "links": links(),
        "netns": listing("/run/netns", "/var/run/netns"),
        "nft tables": nft_tables(),
        "state files": state_files(),
        "temporary files": temporary_files(),
    }


def difference(before: Look, after: Look) -> list[str]:
    """One line for each thing left behind or taken away; empty when all is as it was."""
    found = []
    for kind, now in after.items():
        then = before[kind]
        found += [f"{kind}: left behind: {line}" for line in sorted(now - then)]
        if kind in OURS_TO_KEEP:
            found += [f"{kind}: gone or changed: {line}" for line in sorted(then - now)]
    return found


def read(path: str) -> str:
    """The text of a /proc file, or "" when its process has just gone."""
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read(1 << 20).decode(errors="replace")
    except OSError:
        return ""


def link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


# --- the session's own process ---


def children() -> frozenset[str]:
    """Our children, zombies included; without those AWAITED."""
    pids = " ".join(read(f"/proc/self/task/{task}/children") for task in os.listdir("/proc/self/task")).split()
    return frozenset(filter(None, (describe(pid) for pid in pids if pid not in AWAITED)))


def describe(pid: str) -> str:
    """``pid 12 (sleep), started 4711``, with ``zombie`` where it is one; "" when it has gone."""
    head, _, tail = read(f"/proc/{pid}/stat").rpartition(")")
    fields = tail.split()
    return f"pid {head}), {'zombie, ' * (fields[0] == 'Z')}started {fields[19]}" if fields else ""


def mounts() -> frozenset[str]:
    return frozenset(row for row in read("/proc/self/mountinfo").splitlines() if not of_another(row))


def descriptors() -> frozenset[str]:
    """``7 -> /path``. Of what the library keeps, one of each is left out."""
    found, kept = [], set()
    for number in os.listdir("/proc/self/fd"):
        target = link(f"/proc/self/fd/{number}")
        if not target:  # listdir's own, closed by now
            continue
        match = KEPT_DESCRIPTOR.search(target)
        kind = re.sub("[0-9a-f]{64}", "ID", match[1]) if match else ""
        if kind and kind not in kept:
            kept.add(kind)
            continue
        found.append(f"{number} -> {target}")
    return frozenset(found)


def own_state() -> frozenset[str]:
    """Namespaces, identity, privileges, signal mask, limits, directory and host name of this process."""
    namespaces = (f"namespace {link(f'/proc/thread-self/ns/{name}')}" for name in os.listdir("/proc/thread-self/ns"))
    status = (
        without_glibc_signals(line)
        for line in read("/proc/thread-self/status").splitlines()
        if line.partition(":")[0] in STATUS
    )
    limits = read("/proc/self/limits").splitlines()
    root, directory, personality = (
        link("/proc/self/root"),
        link("/proc/self/cwd"),
        read("/proc/self/personality").strip(),
    )
    names = os.uname()
    rest = (f"root {root}", f"directory {directory}", f"personality {personality}", f"host name {names.nodename}")
    return frozenset((*namespaces, *status, *limits, *rest))


def without_glibc_signals(line: str) -> str:
    """Signals 32 and 33 taken out of a mask: glibc takes them for itself when the first thread is made (nptl(7))."""
    if not line.startswith("Sig"):
        return line
    name, _, mask = line.partition(":")
    return f"{name}:\t{int(mask, 16) & ~(3 << 31):016x}"


# --- the host ---


def processes(mark: str, places: tuple[str, ...]) -> dict[str, str]:
    """Pid -> description of every process that is ours, zombies included.

    Ours is a descendant of this process, one with ``mark`` in its environment, one that runs, stands or has mounts in
    ``places``, and a container's init (it runs from a memfd) whose owner has died.
    """
    parents: dict[str, str] = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        _, _, tail = read(f"/proc/{pid}/stat").rpartition(")")
        if tail:
            parents[pid] = tail.split()[1]
    me, found = str(os.getpid()), {}
    for pid in parents:
        if pid != me and (me in ancestors(pid, parents) or is_marked(pid, mark, places, parents)):
            command = read(f"/proc/{pid}/cmdline").replace("\0", " ").strip()
            found[pid] = f"{describe(pid)}: {command or 'no command line'}"
    return {pid: text for pid, text in found.items() if text.startswith("pid")}


def ancestors(pid: str, parents: dict[str, str]) -> Iterator[str]:
    seen = set()
    while (pid := parents.get(pid, "0")) not in ("0", "1") and pid not in seen:
        seen.add(pid)
        yield pid


def is_marked(pid: str, mark: str, places: tuple[str, ...], parents: dict[str, str]) -> bool:
    if mark in read(f"/proc/{pid}/environ"):
        return True
    executable = link(f"/proc/{pid}/exe")
    if executable.startswith("/memfd:minictr") and parents[pid] == "1":
        return True
    paths = [executable, link(f"/proc/{pid}/cwd"), link(f"/proc/{pid}/root")]
    if any(path.startswith(place) for path in paths for place in places):
        return True
    elsewhere = link(f"/proc/{pid}/ns/mnt") not in ("", link("/proc/self/ns/mnt"))
    return elsewhere and any(place in read(f"/proc/{pid}/mountinfo") for place in places)


def cgroups(ours: frozenset[str]) -> frozenset[str]:
    """The directories below our own cgroup, in every hierarchy, v1 and v2; without those in which only others live."""
    found = set()
    for top in own_cgroups():
        for directory, below, _ in os.walk(top):
            below[:] = [name for name in below if not of_another(name)]
            for name in below:
                path = os.path.join(directory, name)
                inside = read(f"{path}/cgroup.procs").split()
                if not inside or not ours.isdisjoint(inside):
                    found.add(path)
    return frozenset(found)


def of_another(name: str) -> bool:
    """Whether NAME, of a group or a mount, is of tests/faults/remains.py in another session, which is still at it."""
    pid = TRY.search(name)
    return pid is not None and pid[1] != str(os.getpid()) and bool(describe(pid[1]))


def own_cgroups() -> Iterator[str]:
    """Our own directory in each mounted hierarchy."""
    own = {}
    for line in read("/proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        own[frozenset(filter(None, controllers.split(",")))] = path
    for line in read("/proc/self/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        root, where = left.split()[3:5]
        kind, _, options = right.split()[:3]
        if kind == "cgroup2":
            path = own.get(frozenset())
        elif kind == "cgroup":
            words = frozenset(options.split(","))
            path = next((path for names, path in own.items() if names and names <= words), None)
        else:
            continue
        if path is not None:
            yield os.path.normpath(os.path.join(where, os.path.relpath(path, root)))


def links() -> frozenset[str]:
    return frozenset(f"{index}: {name}" for index, name in socket.if_nameindex())


def nft_tables() -> frozenset[str]:
    nft = shutil.which("nft")
    if not nft:
        return frozenset()
    answer = subprocess.run([nft, "list", "tables"], capture_output=True, text=True, check=False)
    return frozenset(answer.stdout.splitlines())


def state_directories() -> Iterator[str]:
    """Where minictr keeps state. Its cache is not state: what lies there is meant to outlive the session."""
    yield from ("/run/minictr", "/var/lib/minictr")
    if os.environ.get("MINICTR_ROOT"):
        yield os.environ["MINICTR_ROOT"]
    home = Path.home()
    yield str(Path(os.environ.get("XDG_STATE_HOME") or home / ".local/state") / "minictr")
    yield str(Path(os.environ.get("XDG_DATA_HOME") or home / ".local/share") / "minictr")
    if os.environ.get("XDG_RUNTIME_DIR"):
        yield str(Path(os.environ["XDG_RUNTIME_DIR"]) / "minictr")


def state_files() -> frozenset[str]:
    """What is in minictr's state directories, without what a store makes when it is first used, and keeps."""
    furniture = {os.path.join(os.path.realpath(top), name) for top in state_directories() for name in KEPT_BY_A_STORE}
    return listing(*state_directories()) - furniture


def listing(*directories: str) -> frozenset[str]:
    """Everything below ``directories``; the directories themselves may stay."""
    found = set()
    for top in {os.path.realpath(directory) for directory in directories}:
        for directory, below, files in os.walk(top):
            found.update(os.path.join(directory, name) for name in (*below, *files))
    return frozenset(found)


def temporary_files() -> frozenset[str]:
    """Entries of the temporary directories that carry our name, or that of the tool under ``minictr rootfs debian``."""
    places = {os.path.realpath(place) for place in ("/tmp", "/var/tmp", "/dev/shm", tempfile.gettempdir())}
    return frozenset(
        os.path.join(place, name)
        for place in places
        if os.path.isdir(place)
        for name in os.listdir(place)
        if "minictr" in name or name.startswith("mmdebstrap.")
    )
