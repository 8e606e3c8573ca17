"""Many detached containers at once: what the last of them take to start, to list, to hold and to remove."""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

from bench import stats
from bench.host import own_cgroups
from bench.life.rest import PROGRAM, ours
from bench.life.series import Part, Target, Tell
from bench.lifecycle.lab import Lab
from bench.lifecycle.serve import Job, processor_time, spawn_job
from bench.lifecycle.worker import ArmFailed

WINDOW = 10  # starts compared: the 10th to the 19th with the last ten
FIRST = 9  # of them, counted from 0
FEWEST = FIRST + 2 * WINDOW
AT_MOST = 1.5
LISTINGS = 9
LIST_SECONDS = 0.3
GRACE = 10.0
Took = tuple[int, int]  # nanoseconds, and of processor time
SHORT = 12  # digits of an id in the name of its groups


def command_line() -> list[str]:
    """The words that begin a command of this very minictr."""
    beside = os.path.join(os.path.dirname(sys.executable), "minictr")
    return [beside] if os.access(beside, os.X_OK) else [sys.executable, "-m", "minictr"]


class Crowd:
    """COUNT containers in a state directory of their own, and the time of each start."""

    def __init__(self, mc: Any, root: str, rootfs: str) -> None:
        self.mc, self.root = mc, root
        self.box = mc.Container(rootfs)
        words = [*command_line(), "--root", root]
        null = [(1, os.devnull)]
        self.spawn = spawn_job([*words, "run", "-d", "--rootfs", rootfs, "--", *PROGRAM], null)
        self.list = spawn_job([*words, "ps"], null)
        self.nanoseconds: list[int] = []
        self.cpu: list[int] = []

    def by_library(self) -> Took:
        """Start one."""
        return timed(lambda: self.box.start(PROGRAM, root=self.root))

    def by_command(self) -> Took:
        """The same by the command line."""
        return succeeded(self.spawn, "run -d")

    def fill(self, count: int, *, by_command: bool, tell: Tell) -> None:
        """Start so many. BY_COMMAND: those that are compared; the others are always started by the library."""
        for number in range(count):
            compared = FIRST <= number < FIRST + WINDOW or number >= count - WINDOW
            start = self.by_command if by_command and compared else self.by_library
            elapsed, cpu = start()
            self.nanoseconds.append(elapsed)
            self.cpu.append(cpu)
            if number % 50 == 49:
                tell(f"{number + 1} of {count} run")

    def living(self) -> list[Any]:
        """Those that run."""
        return list(self.mc.containers(root=self.root))

    def listings(self) -> dict[str, list[Took]]:
        """What ``ps`` takes as a command, and what a Python program takes to know the same."""

        def rows() -> list[tuple[str, str, str]]:
            return [(one.id, one.name, one.status) for one in self.mc.containers(root=self.root)]

        return {
            "ps_command": [succeeded(self.list, "ps") for _ in range(LISTINGS)],
            "ps_library": [timed(rows) for _ in range(LISTINGS)],
        }

    def clear(self, tell: Tell) -> int:
        """Remove all; nanoseconds."""
        begin = time.perf_counter_ns()
        for number, instance in enumerate(self.mc.containers(all=True, root=self.root)):
            if number % 50 == 49:
                tell(f"{number + 1} removed")
            with suppress(self.mc.NoSuchContainer):
                instance.remove(force=True)
        return time.perf_counter_ns() - begin


def timed(call: Callable[[], object]) -> Took:
    """What CALL takes in this process."""
    before, begin = processor_time(), time.perf_counter_ns()
    call()
    return time.perf_counter_ns() - begin, processor_time() - before


def succeeded(job: Job, what: str) -> Took:
    """What JOB took. Raises ArmFailed when its command did not succeed."""
    elapsed, status, parts = job()
    if status:
        code = os.waitstatus_to_exitcode(status)
        raise ArmFailed(
            f"minictr {what} left with {code}" if code >= 0 else f"minictr {what} was ended by signal {-code}"
        )
    return elapsed, parts["cpu"]


def left_behind(root: str, ids: Iterable[str], pids: Sequence[tuple[int, str]]) -> list[str]:
    """What is left of containers: entries of the state directory ROOT, groups named by one of IDS, processes of PIDS
    ((pid, start time) pairs). Nobody else's. A monitor ends as the exit command, which finds its work done by then: it
    is given GRACE seconds to leave."""
    deadline = time.monotonic() + GRACE
    while (running := [pid for pid, begun in pids if start_time(pid) == begun]) and time.monotonic() < deadline:
        time.sleep(0.05)
    left = [f"process {pid}" for pid in running]
    for name in ("containers", "names"):
        path = os.path.join(root, name)
        left += [f"{path}/{entry}" for entry in (os.listdir(path) if os.path.isdir(path) else ())]
    marks = tuple(identity[:SHORT] for identity in ids)
    for top in own_cgroups():
        left += [f"{top}/{entry.name}" for entry in os.scandir(top) if entry.is_dir() and entry.name.endswith(marks)]
    return left


def start_time(pid: int) -> str:
    """When PID was started, in clock ticks since boot; "" when there is none. proc_pid_stat(5)."""
    with suppress(OSError), open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        return file.read().rpartition(")")[2].split()[19]
    return ""


def one_round(lab: Lab, mc: Any, number: int, options: argparse.Namespace, tell: Tell) -> dict[str, Any]:
    """Start, look, remove, and look at what is left."""
    crowd = Crowd(mc, lab.path(f"crowd-{number}", "state"), lab.rootfs)
    by_command = number % 2 == 1
    found: dict[str, Any] = {"by": "command" if by_command else "library"}
    ids: list[str] = []
    pids: list[tuple[int, str]] = []
    try:
        crowd.fill(options.containers, by_command=by_command, tell=tell)
        living = crowd.living()
        ids = [instance.id for instance in living]
        monitors = [int(instance.inspect()["Monitor"]["Pid"]) for instance in living]
        pids = [(pid, start_time(pid)) for pid in (*monitors, *(instance.pid for instance in living))]
        found |= {"running": len(living), "nanoseconds": crowd.nanoseconds, "cpu": crowd.cpu, **crowd.listings()}
        found["kib"] = [sum(ours(instance).values()) for instance in living]
    finally:
        found["removed_ns"] = crowd.clear(tell)
    return {**found, "left": left_behind(crowd.root, ids, pids)}


def measure(lab: Lab, options: argparse.Namespace, tell: Tell) -> Part:
    """Rounds of it: the compared starts by the library and by the command line in turn."""
    import minictr

    mc: Any = minictr
    return part([one_round(lab, mc, number, options, tell) for number in range(options.crowds)], options)


def windows(rounds: Iterable[dict[str, Any]], what: str = "nanoseconds") -> tuple[list[int], list[int]]:
    """The compared starts of ROUNDS: the early ones and the last ones."""
    early, last = [], []
    for found in rounds:
        early += found[what][FIRST : FIRST + WINDOW]
        last += found[what][-WINDOW:]
    return early, last


def part(rounds: list[dict[str, Any]], options: argparse.Namespace) -> Part:
    """The table and the promises."""
    count, targets = options.containers, []
    running = min(found["running"] for found in rounds)
    answer = "yes" if running == count else "no"
    targets.append(Target(f"{count} at once", answer, f"{running} run"))
    lines = [f"{'start of':<22}{'10th ms':>10}{f'{count}th ms':>10}{'ratio':>8}   {'95 % interval':<15}processor time"]
    for way in ("library", "command"):
        chosen = [found for found in rounds if found["by"] == way]
        if not chosen:
            continue
        early, last = windows(chosen)
        times = stats.unpaired_ratio(last, early, seed=options.seed)
        middle = [statistics.median(values) / 1e6 for values in (early, last)]
        line = f"{'  by the ' + way:<22}{middle[0]:>10.2f}{middle[1]:>10.2f}{times.estimate:>8.2f}"
        work = stats.unpaired_ratio(*reversed(windows(chosen, "cpu")), seed=options.seed)
        lines.append(f"{line}   {f'{times.low:.2f} to {times.high:.2f}':<15}{work}")
        text = f"start of the {count}th within {AT_MOST} of the 10th, by the {way}"
        targets.append(Target.of(text, times, AT_MOST))
    for key, text in (("ps_command", "minictr ps"), ("ps_library", "mc.containers()")):
        middle_of = stats.quartiles([value / 1e9 for found in rounds for value, _ in found[key]])
        work_s = statistics.median(cpu for found in rounds for _, cpu in found[key]) / 1e9
        line = f"{text + f' of {count}':<28}{middle_of.median:.3f} s ({middle_of.q1:.3f} to {middle_of.q3:.3f})"
        lines.append(f"{line}, processor time {work_s:.3f} s")
        # it waits for nobody: what is beyond its processor time was taken by others
        answer = "yes" if middle_of.q3 < LIST_SECONDS else "no" if work_s > LIST_SECONDS else "unresolved"
        targets.append(Target(f"{text} of {count} under {LIST_SECONDS} s", answer, f"{middle_of.median:.3f} s"))
    kib = max(sum(found["kib"]) for found in rounds)
    lines.append(f"{'private memory of all':<28}{kib / 1024:.1f} MiB, {kib / count:.0f} KiB each")
    removal = statistics.median(found["removed_ns"] for found in rounds) / 1e9
    lines.append(f"{'rm -f of all':<28}{removal:.1f} s, {removal / count * 1e3:.0f} ms each")
    left = [line for found in rounds for line in found["left"]]
    targets.append(Target("nothing left of them", "no" if left else "yes", f"{len(left)} left" if left else "nothing"))
    lines += [f"  left: {line}" for line in left[:10]]
    return Part(f"{count} detached containers at once", lines, targets, {"rounds": rounds, "left": left})
