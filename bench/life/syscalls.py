"""What a filter costs each system call once the program runs: the kernel's answer from its cache, or the filter's."""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
from collections.abc import Mapping
from typing import Any

from bench import stats
from bench.life.series import Part, Target, Tell
from bench.lifecycle import bpf
from bench.lifecycle.lab import C_FLAGS, Lab, LabError
from bench.lifecycle.worker import ArmFailed

SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "syscalls.c")
BURSTS, CALLS = 40, 2000
NONE, AGAIN, ALLOW = "none", "none again", "allow all"
POLICIES = ("default", "docker", "lxc")
AT_MOST = 1.1  # times what the kernel charges for a filter that allows everything
Values = dict[str, dict[str, list[float]]]  # arm -> kind of call -> nanoseconds by round


def compiled_root(lab: Lab) -> str:
    """A root file system with nothing but the program. Raises LabError."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if not compiler:
        raise LabError("no C compiler for the system calls: install gcc, or name one in CC")
    root = lab.path("calls", "root")
    for name in ("proc", "sys", "dev"):
        os.makedirs(os.path.join(root, name), exist_ok=True)
    words = [compiler, *C_FLAGS, "-static", "-o", os.path.join(root, "syscalls"), SOURCE]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LabError(f"{compiler} cannot compile {SOURCE}: {done.stderr.strip()}")
    return root


def boxes(root: str) -> dict[str, Any]:
    """The default profile without a filter, with one that allows all, and with each policy."""
    import minictr

    mc: Any = minictr
    bare = mc.Container(root, features=mc.profiles.DEFAULT).without("seccomp")
    allow = mc.Seccomp(bpf.encode([(bpf.RETURN, 0, 0, bpf.ALLOW)]))
    return {
        NONE: bare,
        AGAIN: bare,
        ALLOW: bare.with_(allow),
        **{name: bare.with_(mc.Seccomp(name)) for name in POLICIES},
    }


def parsed(text: str) -> dict[str, float]:
    """The minimum of each kind: a call that was disturbed tells of others."""
    rows = (line.split() for line in text.splitlines())
    return {name: float(least) for name, least, _ in rows}


def measure(lab: Lab, options: argparse.Namespace, tell: Tell) -> Part:
    """Each once a round, in a new order each time."""
    arms, rng = boxes(compiled_root(lab)), random.Random(options.seed)
    found: Values = {name: {} for name in arms}
    for number in range(options.rounds):
        tell(f"system calls: round {number + 1} of {options.rounds}")
        for name in rng.sample(list(arms), len(arms)):
            words = ["/syscalls", str(BURSTS), str(CALLS)]
            done = arms[name].run(words, capture_output=True, text=True, check=False, timeout=60)
            if done.returncode:
                raise ArmFailed(f"syscalls under {name} left with {done.returncode}: {done.stderr.strip()[-200:]}")
            for kind, value in parsed(done.stdout).items():
                found[name].setdefault(kind, []).append(value)
    return part(found, options.seed)


def part(found: Values, seed: int) -> Part:
    """Nanoseconds by arm and kind; a promise for the calls that every policy allows unseen."""
    kinds = list(found[NONE])
    lines = [f"{'':<12}" + "".join(f"{kind:>14}{'added':>9}" for kind in kinds)]
    for name, values in found.items():
        line = f"{name:<12}"
        for kind in kinds:
            more = stats.paired_difference(values[kind], found[NONE][kind], seed=seed).estimate
            line += f"{stats.quartiles(values[kind]).median:>14.1f}{more:>9.1f}"
        lines.append(line)
    lines.append(f"ns a call: median over the rounds of the least of {BURSTS} bursts of {CALLS}; added: within rounds")
    return Part("What a filter costs a system call", lines, promises(found, seed), {"nanoseconds": found})


def promises(found: Mapping[str, dict[str, list[float]]], seed: int) -> list[Target]:
    """A frequent call costs what the kernel's cache of allowed calls costs, whatever the policy."""
    rows = {name: found[name]["getppid"] for name in (ALLOW, *POLICIES)}
    return [
        Target.of(
            f"getppid under {name} at most {AT_MOST} of a filter that allows all",
            stats.paired_ratio(rows[name], rows[ALLOW], seed=seed),
            AT_MOST,
        )
        for name in POLICIES
    ]
