"""``runc run`` and ``crun run``, tried as minictr's own commands are. They are told of, and not judged."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

from onecall import Call, Point
from other_runtimes import RUNTIMES, Other
from points import NOISE
from runtimes import Drive, Outcome, Told

__all__ = ["OTHERS"]

NAME = "try"
MEMORY = 64 << 20
PATIENCE = 1.0  # seconds for what is dying


class OtherRun(Drive):
    """The same program and limits (where that runtime makes groups); the rest is the bench's bundle."""

    minictr = False
    asserted = False
    runtime = ""

    def renew(self) -> None:
        self.other: Other | None = None
        super().renew()

    def begin(self) -> None:
        if self.other is None:
            self.other = Other(self.place, self.runtime)
            self.command_line = self.other.run(NAME, "/state")
            self.fit(Path(self.command_line[self.command_line.index("--bundle") + 1], "config.json"))

    def fit(self, path: Path) -> None:
        """The bundle with the lab's root, the program's directory, and limits."""
        config = json.loads(path.read_text())
        config["root"]["path"] = str(self.lab.rootfs)
        config["mounts"].append({"destination": "/out", "type": "bind", "source": str(self.out), "options": ["rbind"]})
        if "cgroupsPath" in config["linux"]:
            cpu = {"quota": 100_000, "period": 100_000}
            config["linux"]["resources"] = {"memory": {"limit": MEMORY}, "pids": {"limit": 50}, "cpu": cpu}
        path.write_text(json.dumps(config))

    @property
    def words(self) -> list[str]:
        return self.command_line

    @property
    def begins(self) -> str:
        return shutil.which(self.runtime) or ""

    def tries(self, call: Call) -> bool:
        return call.name not in NOISE

    def settle(self, told: Told, point: Point | None) -> Outcome:
        """Where it was killed, by the point or by us, its own ``delete --force`` cleans up after it."""
        assert self.other is not None
        if told.hung or (point is not None and not point.error):
            self._ask(self.other.delete(NAME), traced=False)
        deadline = time.monotonic() + PATIENCE
        while (left := self.other.left(0)) and time.monotonic() < deadline:
            time.sleep(0.02)
        return self.kinds(told, point, self.ran(), left)

    def unclear(self, told: Told, point: Point | None) -> str:
        return ""


OTHERS: dict[str, type[Drive]] = {
    name: type(f"{name.title()}Run", (OtherRun,), {"name": f"{name} run", "runtime": name}) for name in RUNTIMES
}
