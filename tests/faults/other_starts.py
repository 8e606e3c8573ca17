"""``runc run`` and ``crun run``, tried as minictr's own commands are. They are told of, and not judged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from onecall import Call, Point
from other_runtimes import RUNTIMES, Other
from points import NOISE
from runtimes import Drive, Outcome, Told

__all__ = ["OTHERS"]

NAME = "try"
MEMORY = 64 << 20


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
        """Killed, its own ``delete --force`` cleans up after it; else it is its own matter, as minictr's is."""
        assert self.other is not None
        if point is not None and not point.error:
            self._ask(self.other.delete(NAME), traced=False)
        return self.kinds(told, point, self.ran(), self.other.left(1.0))

    def unclear(self, told: Told, point: Point | None) -> str:
        return ""


OTHERS: dict[str, type[Drive]] = {
    name: type(f"{name.title()}Run", (OtherRun,), {"name": f"{name} run", "runtime": name}) for name in RUNTIMES
}
