"""What a program says of itself, and where it lies: a root file system with nothing in it but the program, state.c."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import NamedTuple

__all__ = ["Lab", "State", "difference", "make_lab", "state_of"]

State = dict[str, list[str]]  # section -> lines

SOURCE = Path(__file__).resolve().parent / "state.c"
KEPT = frozenset(
    "Umask Uid Gid Groups SigBlk SigIgn SigCgt CapInh CapPrm CapEff CapBnd CapAmb NoNewPrivs Seccomp"
    " Seccomp_filters".split()
)


KEPT_HOSTS = re.compile(r"\S*/hosts/[0-9a-f]{64}\b")


class Lab(NamedTuple):
    """Where the program lies: a root file system with nothing else in it."""

    directory: Path
    rootfs: Path

    @property
    def program(self) -> Path:
        return self.rootfs / "state"


def make_lab(directory: Path, gcc: str) -> Lab:
    """A root file system in DIRECTORY, whose program is state.c."""
    rootfs = directory / "rootfs"
    for name in ("proc", "sys", "dev", "etc", "out", "tmp", "run"):
        (rootfs / name).mkdir(parents=True)
    (rootfs / "etc" / "passwd").write_text("root:x:0:0::/:/state\n")
    (rootfs / "etc" / "group").write_text("root:x:0:\n")
    flags = ["-O1", "-Wall", "-Wextra", "-Werror", "-static"]
    subprocess.run([gcc, *flags, "-o", str(rootfs / "state"), str(SOURCE)], check=True)
    return Lab(directory, rootfs)


def state_of(path: Path) -> State | None:
    """What the program wrote, section by section, without what differs from start to start; None: it did not run."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        return None
    sections: State = {}
    for line in text.splitlines():
        if line.startswith("== "):
            rows = sections.setdefault(line[3:], [])
        else:
            rows.append(line)
    rows = sections["/proc/self/status"]
    sections["/proc/self/status"] = [row for row in rows if row.partition(":")[0] in KEPT]
    sections["/proc/self/limits"] = [row for row in sections["/proc/self/limits"] if "msgqueue" not in row]
    # without the numbers of mounts and devices, and of propagation groups; a kept hosts file is called by its container
    mounts = [KEPT_HOSTS.sub("hosts", row).split() for row in sections["/proc/self/mountinfo"]]
    sections["/proc/self/mountinfo"] = [
        " ".join([*row[3:6], *(word.partition(":")[0] for word in row[6:])]) for row in mounts
    ]
    sections["/proc/self/net/dev"] = [row.partition(":")[0] for row in sections["/proc/self/net/dev"]]
    return sections


def difference(found: State, wanted: State) -> str:
    """What is not as wanted; "" when all is."""
    lines = []
    for name in sorted({*found, *wanted}):
        there, meant = found.get(name, []), wanted.get(name, [])
        lines += [f"{name}: {row!r} is new" for row in there if row not in meant]
        lines += [f"{name}: {row!r} is missing" for row in meant if row not in there]
        if not lines and there != meant:
            lines.append(f"{name}: another order")
    return "; ".join(lines[:4])
