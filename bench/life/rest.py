"""A detached container at rest: the private memory of everything in it that is ours."""

from __future__ import annotations

import argparse
import time
from typing import Any

from bench.life.series import Part, Target, Tell
from bench.lifecycle.lab import Lab
from bench.lifecycle.worker import ArmFailed

LIMIT_KIB = 1024
SETTLE = 0.5  # seconds from the start until it is at rest
EACH = 3  # containers of each kind
PROGRAM = ("/bin/sleep", "86400")
PRIVATE = ("Private_Clean", "Private_Dirty", "Private_Hugetlb", "Swap")


def private_kib(rollup: str) -> int:
    """Of the text of /proc/PID/smaps_rollup: the memory that is this process's alone. proc_pid_smaps(5)."""
    rows = (line.split() for line in rollup.splitlines())
    return sum(int(row[1]) for row in rows if len(row) == 3 and row[0].rstrip(":") in PRIVATE)


def private_of(pid: int) -> int:
    """KiB of the process PID."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        return private_kib(file.read())


def ours(instance: Any) -> dict[str, int]:
    """KiB by process of ours: the monitor, and the init where the container has one."""
    told = instance.inspect()
    pids = {"monitor": int(told["Monitor"]["Pid"])}
    if any(feature["feature"] == "init" for feature in told["Features"]):
        pids["init"] = instance.pid
    if not all(pids.values()):
        raise ArmFailed(f"container {instance.id[:12]} has no {min(pids, key=pids.__getitem__)} that runs")
    return {name: private_of(pid) for name, pid in pids.items()}


def kinds(box: Any, mc: Any) -> dict[str, Any]:
    """The containers that are looked at, by name."""
    return {"default": box, "with a terminal": box.with_(mc.Tty()), "without init": box.without("init")}


def measure(lab: Lab, options: argparse.Namespace, tell: Tell) -> Part:
    """Start some, wait, read."""
    import minictr

    mc: Any = minictr
    root = lab.path("rest", "state")
    found: dict[str, list[dict[str, int]]] = {}
    for kind, box in kinds(mc.Container(lab.rootfs), mc).items():
        tell(f"at rest: {kind}")
        started = []
        try:
            started += [box.start(PROGRAM, root=root) for _ in range(EACH)]
            time.sleep(SETTLE)
            found[kind] = [ours(instance) for instance in started]
        finally:
            for instance in started:
                instance.remove(force=True)
    return part(found)


def part(found: dict[str, list[dict[str, int]]]) -> Part:
    """The table: the largest of each kind."""
    lines = [f"{'':<22}{'monitor':>10}{'init':>10}{'sum':>10}   private KiB, the largest of {EACH}"]
    largest = {kind: max(rows, key=lambda row: sum(row.values())) for kind, rows in found.items()}
    for kind, row in largest.items():
        lines.append(f"{kind:<22}{row['monitor']:>10}{row.get('init', '-'):>10}{sum(row.values()):>10}")
    most = max(sum(row.values()) for row in largest.values())
    target = Target("under 1 MiB of private memory at rest", "yes" if most < LIMIT_KIB else "no", f"{most} KiB")
    return Part("A detached container at rest", lines, [target], {"kib": found})
