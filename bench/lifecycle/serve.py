"""The process that stays while one arm is measured: starts a container each time it is asked, and times it inside.

It answers as floor.c does: for each byte read from REQUEST one line on REPLY, ``ok NANOSECONDS STATUS`` or
``error TEXT``, and ``cpu NANOSECONDS``: the processor time of the start and of all that was waited for.

Usage: python -m bench.lifecycle.serve JSON REQUEST REPLY. The JSON object has ``mode`` and that mode's words:

``spawn``    ``argv`` by posix_spawn (vfork underneath: no page table is copied); ``files`` are [fd, path] pairs opened
             for it anew each time (a file for reading, a device for both ways); ``unmount`` are host mounts it must
             not see; ``no_core`` sets its core limit to 0
``library``  minictr in this process: ``rootfs``, ``argv``, ``filter_path``, ``without`` (feature names), ``adding``
             ([class name, arguments] pairs), ``ballast``
``bare``     minictr in this process with no namespace and no root: ``argv``, ``ballast``; with ``anew`` by ``mc.run``,
             which makes its plan each time
``exec``     minictr in this process: ``argv`` in the container ``name`` of the state directory ``root``; ``ballast``
``verb``     minictr in this process: ``verb`` (start, exec, stop, remove) of the container ``name`` of the state
             directory ``root``, found by its name each time; for start ``rootfs``, ``argv``, ``bind`` (a directory and
             where it is seen)

With ``stamped`` (spawn, verb) it also answers ``begun``: CLOCK_MONOTONIC when it began. An ``@`` in a word of ``argv``
(spawn, with ``numbered``) or in ``name`` (verb) is how many times it was asked, from 1 on.
"""

from __future__ import annotations

import itertools
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

Outcome = tuple[int, int, dict[str, int]]  # nanoseconds, wait status, nanoseconds by part
Job = Callable[[], Outcome]

# sys/mount.h, linux/sched.h
CLONE_NEWNS = 0x00020000
MS_REC, MS_PRIVATE = 0x4000, 1 << 18
MNT_DETACH = 2


def hold_ballast(megabytes: int) -> bytes:
    """So much heap, every page touched: what a real program that starts containers carries with it."""
    return b"\x01" * (megabytes << 20)


def hide_mounts(paths: Sequence[str]) -> None:
    """A mount namespace of our own in which nothing is mounted on PATHS. The host's stays as it is."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)

    def need(result: int, what: str) -> None:
        if result:
            raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")

    need(libc.unshare(CLONE_NEWNS), "unshare the mount namespace")
    need(libc.mount(None, b"/", None, ctypes.c_ulong(MS_REC | MS_PRIVATE), None), "private propagation")
    for path in paths:
        if os.path.ismount(path):
            need(libc.umount2(path.encode(), MNT_DETACH), f"unmount {path}")


def spawn_job(
    argv: list[str],
    files: Sequence[tuple[int, str]] = (),
    unmount: Sequence[str] = (),
    no_core: bool = False,
    stamped: bool = False,
    numbered: bool = False,
) -> Job:
    """Start a command-line runtime as a shell would, without the shell."""
    if unmount:
        hide_mounts(unmount)
    if no_core:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    modes = (os.O_RDWR if path.startswith("/dev/") else os.O_RDONLY for _, path in files)
    actions = [(os.POSIX_SPAWN_OPEN, fd, path, mode, 0) for (fd, path), mode in zip(files, modes, strict=True)]
    environment = dict(os.environ)
    numbers = itertools.count(1)

    def once() -> Outcome:
        number = str(next(numbers))
        words = [word.replace("@", number) for word in argv] if numbered else argv
        begin = time.monotonic_ns()
        pid = os.posix_spawn(words[0], words, environment, file_actions=actions)
        _, status, usage = os.wait4(pid, 0)
        elapsed = time.monotonic_ns() - begin
        cpu = {"cpu": round((usage.ru_utime + usage.ru_stime) * 1e9)}
        return elapsed, status, {**cpu, "begun": begin} if stamped else cpu

    return once


def container(rootfs: str, filter_path: str = "", without: Sequence[str] = (), cgroup_parent: str = "") -> Any:
    """The default profile with the filter, less the features named; its groups are made below CGROUP_PARENT."""
    import minictr

    mc: Any = minictr  # its names are found when they are asked for, so no type is known here
    features = [feature for feature in mc.profiles.DEFAULT if feature.name not in without]
    if filter_path:
        with open(filter_path, "rb") as file:
            features = [feature for feature in features if feature.name != "seccomp"]
            features.append(mc.Seccomp(file.read()))
    if cgroup_parent:
        features.append(mc.CgroupParent(cgroup_parent))
    return mc.Container(rootfs, features=features)


def library_job(
    rootfs: str,
    argv: list[str],
    filter_path: str = "",
    without: Sequence[str] = (),
    adding: Sequence[tuple[str, Sequence[Any]]] = (),
    ballast: int = 0,
) -> Job:
    """minictr called in process, as a program that uses it would."""
    import minictr

    mc: Any = minictr
    box = container(rootfs, filter_path, without)
    if adding:
        box = box.with_(*(getattr(mc, name)(*arguments) for name, arguments in adding))
    return timed(lambda: box.run(argv), ballast)


def bare_job(argv: list[str], anew: bool = False, ballast: int = 0) -> Job:
    """A program started by minictr on the host, with nothing contained."""
    import minictr

    mc: Any = minictr
    box = mc.Container("", features=())
    return timed((lambda: mc.run(argv)) if anew else (lambda: box.run(argv)), ballast)


def exec_job(root: str, name: str, argv: list[str], ballast: int = 0) -> Job:
    """One more program in a container that runs."""
    import minictr

    mc: Any = minictr
    instance = mc.container(name, root=root)
    return timed(lambda: instance.exec(argv), ballast)


def verb_job(
    verb: str,
    root: str,
    name: str,
    rootfs: str = "",
    argv: Sequence[str] = (),
    bind: Sequence[str] = (),
    stamped: bool = False,
) -> Job:
    """One verb of the library at a container that is known by its name."""
    import minictr

    mc: Any = minictr
    numbers = itertools.count(1)
    box = mc.Container(rootfs).with_(*([mc.Bind(*bind)] if bind else []))
    verbs: dict[str, Callable[[str], Any]] = {
        "start": lambda name: box.replace(name=name).start(argv, root=root),
        "exec": lambda name: mc.container(name, root=root).exec(argv).check_returncode(),
        "stop": lambda name: mc.container(name, root=root).stop(),
        "remove": lambda name: mc.container(name, root=root).remove(force=True),
    }
    call = verbs[verb]

    def once() -> Outcome:
        wanted, before = name.replace("@", str(next(numbers))), processor_time()
        begin = time.monotonic_ns()
        call(wanted)
        parts = {"cpu": processor_time() - before, **({"begun": begin} if stamped else {})}
        return time.monotonic_ns() - begin, 0, parts

    return once


def processor_time() -> int:
    """Nanoseconds of this process and of all it has waited for. What the kernel does later, by itself, is not in it."""
    both = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return round(sum(usage.ru_utime + usage.ru_stime for usage in both) * 1e9)


def timed(call: Callable[[], Any], ballast: int) -> Job:
    """CALL, which answers a result, timed in a process that carries so many megabytes."""
    ballast_held = hold_ballast(ballast)

    def once() -> Outcome:
        before = processor_time()
        begin = time.perf_counter_ns()
        result = call()
        elapsed = time.perf_counter_ns() - begin
        assert ballast_held is not None  # alive until the last start
        return elapsed, 0 if result.returncode == 0 else 1 << 8, {"cpu": processor_time() - before}

    return once


MODES: dict[str, Callable[..., Job]] = {
    "spawn": spawn_job,
    "library": library_job,
    "bare": bare_job,
    "exec": exec_job,
    "verb": verb_job,
}


def main() -> None:
    wishes = json.loads(sys.argv[1])
    request, reply = int(sys.argv[2]), int(sys.argv[3])
    os.set_inheritable(request, False)
    os.set_inheritable(reply, False)
    try:
        once = MODES[wishes.pop("mode")](**wishes)
    except Exception as err:
        os.write(reply, f"error {type(err).__name__}: {err}\n".encode())
        return
    while os.read(request, 1):
        try:
            elapsed, status, parts = once()
            answer = " ".join([f"ok {elapsed} {status}", *(f"{name} {value}" for name, value in parts.items())])
        except Exception as err:
            answer = f"error {type(err).__name__}: {err}".replace("\n", " ")
        os.write(reply, f"{answer}\n".encode())


if __name__ == "__main__":
    main()
