"""Containers of a Debian root, made and watched by the command line alone; and what is left of them on the host."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from waiting import eventually

from minictr.runtime.identity import ProcessIdentity
from minictr.runtime.instance import Instance, find


class Life:
    """One state directory, and what lives in it. Called with the words of a command line: what it printed."""

    def __init__(self, run_cli: Callable[..., subprocess.CompletedProcess[str]], root: Path, rootfs: Path) -> None:
        self.run_cli, self.root, self.rootfs = run_cli, root, rootfs

    def done(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return self.run_cli("--root", self.root, *words, **options)

    def __call__(self, *words: str, code: int = 0, **options: Any) -> str:
        done = self.done(*words, **options)
        assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout.strip()

    def words(self, options: Sequence[str], command: Sequence[str]) -> list[str]:
        """OPTIONS and COMMAND on the root, which is never written to: what is changed goes to a layer of its own."""
        return ["--rootfs", str(self.rootfs), "--overlay", *options, "--", *command]

    def start(self, name: str, *command: str, options: Sequence[str] = ()) -> None:
        self("run", "-d", "--name", name, *self.words(options, command))

    def run(self, *command: str, options: Sequence[str] = (), **more: Any) -> subprocess.CompletedProcess[str]:
        return self.done("run", *self.words(options, command), **more)

    def inspect(self, name: str) -> Any:
        return json.loads(self("inspect", name))[0]

    def instance(self, name: str) -> Instance:
        return find(name, str(self.root))

    def state(self, name: str) -> dict[str, Any]:
        state: dict[str, Any] = self.inspect(name)["State"]
        return state

    def exec(self, name: str, *command: str, code: int = 0) -> str:
        return self("exec", name, *command, code=code)

    def until(self, check: Callable[[], object], seconds: float = 30, pause: float = 0.05) -> None:
        """CHECK comes true within SECONDS."""
        eventually(check, seconds, lambda: self("ps", "-a"), pause)

    def says(self, name: str, words: str, seconds: float = 30) -> None:
        """WORDS come in what container NAME wrote."""
        self.until(lambda: words in self.output(name), seconds)

    def output(self, name: str) -> str:
        done = self.done("logs", name, encoding="utf-8", errors="replace")
        return done.stdout + done.stderr

    def is_up(self, name: str, unit: str = "") -> bool:
        """Whether systemd in NAME says that it, or a UNIT of it, is up."""
        words = ("is-active", unit) if unit else ("is-system-running",)
        return self.done("exec", name, "systemctl", *words).stdout.strip() in ("running", "degraded", "active")

    def close(self) -> None:
        """Nothing is left, and nobody had to be told twice."""
        assert self("rm", "-f", "--all") is not None
        assert self("gc") == ""
        left = [*self.root.glob("containers/*"), *self.root.glob("names/*")]
        assert left == []


class Traces:
    """All that a container is on the host, as long as it is there: processes, groups, state."""

    def __init__(self, life: Life, name: str) -> None:
        facts = life.inspect(name)
        self.groups = [Path(directory) for directory in facts["Cgroups"].values()]
        pids = [facts["Monitor"]["Pid"], *self.members()]
        self.processes = [ProcessIdentity.of(pid) for pid in pids if os.path.exists(f"/proc/{pid}")]
        self.directory = Path(facts["StateDir"])
        assert self.processes and self.groups

    def members(self) -> list[int]:
        """Every process in its groups, those that its own init made included."""
        files = {file for group in self.groups for file in group.rglob("cgroup.procs")}
        return sorted({int(pid) for file in files for pid in file.read_text().split()})

    def left(self, seconds: float = 2.0) -> list[str]:
        """What is there still, but for its directory of state, after SECONDS: a monitor ends after its container."""
        deadline = time.monotonic() + seconds
        while (found := self.look()) and time.monotonic() < deadline:
            time.sleep(0.02)
        return found

    def look(self) -> list[str]:
        found = [f"process {each.pid}" for each in self.processes if each.alive]
        found += [f"group {group}" for group in self.groups if group.exists()]
        mounts = Path("/proc/self/mountinfo").read_text()
        found += [f"mount of {self.directory}"] if str(self.directory) in mounts else []
        return found
