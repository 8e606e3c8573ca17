"""The commands of minictr that are tried: each with the judgement of how it went."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

from onecall import Call, Point
from runtimes import OPEN, RAN, Drive, Outcome, Told
from states import State

__all__ = ["DRIVES"]

NAME = "try"
KILLED = 128 + 9
MONITOR = 2  # the third process: the starter, the one between, the monitor


class Run(Drive):
    name = "minictr run"

    @property
    def options(self) -> list[str]:
        limits = ["-m", "64m", "--cpus", "1", "--pids-limit", "50", "--hostname", "lab", "--name", NAME]
        where = [*self.place.options, "--rootfs", str(self.lab.rootfs), "-v", f"{self.out}:/out"]
        return [*where, *limits]

    @property
    def words(self) -> list[str]:
        return ["minictr", "run", *self.options, "--", "/state"]

    def settle(self, told: Told, point: Point | None) -> Outcome:
        if is_kill(point):
            self.command("gc")
        left = self.place.left()
        return self.kinds(told, point, self.ran(), left)


class Mapped(Run):
    """With ids of its own, and a root that is shown through them."""

    name = "minictr run --userns auto"

    @property
    def options(self) -> list[str]:
        idmapped = [f"{word}:idmap" if word.endswith(":/out") else word for word in super().options]
        return [*idmapped, "--userns", "auto"]

    def look(self, patience: float = 0.0) -> State | None:
        """Without the ids, which are others at each start."""
        found = super().look(patience)
        if found is None:
            return None
        first = int(found["/proc/self/uid_map"][0].split()[1])
        told = re.compile(r"\b[0-9]{10}\b")
        return {
            name: [told.sub(lambda word: f"{int(word[0]) - first} of them", row) for row in rows]
            for name, rows in found.items()
        }


class Detached(Run):
    name = "minictr run -d"
    expected = 0

    @property
    def words(self) -> list[str]:
        return ["minictr", "run", "-d", *self.options, "--", "/state", "/out/state", "stay"]

    def settle(self, told: Told, point: Point | None) -> Outcome:
        """A container that was handed over goes on though its starter is killed: it can be seen and removed."""
        found = self.ran(3 if told.code == 0 else 0)
        if is_kill(point):
            self.command("gc")
        if (told.code == 0 or is_kill(point)) and self.place.id_of(NAME):
            found = found or self.ran(1)
            if found is None and told.code == 0 and is_kill(point) and self.is_over():
                told = told._replace(code=KILLED)  # its starter saw it go to its program; ps and wait say the rest
            removed = self.command("rm", "-f", NAME)
            if removed.code:
                return self.kinds(told, point, found, [f"rm -f: {removed.code}: {removed.err}"])
        return self.kinds(told, point, found, self.place.left())

    def is_over(self) -> bool:
        """Whether minictr says itself that the container was killed."""
        rows = self.command("ps", "-a", "--format", "{{.Names}} {{.Status}}").out.splitlines()
        return any(row.startswith(f"{NAME} ") and f"Exited ({KILLED})" in row for row in rows)


class Remove(Run):
    """``rm -f`` of a container that runs."""

    name = "minictr rm -f"
    expected = 0

    @property
    def words(self) -> list[str]:
        return ["minictr", "rm", "-f", NAME]

    def begin(self) -> None:
        told = self.command("run", "-d", *self.options, "--", "/state", "/out/state", "stay")
        assert told.code == 0, told
        self.found = self.ran(5)

    def look(self, patience: float = 0.0) -> State | None:
        """Nothing else runs here than the container that was there before."""
        return super().look(patience) or self.found

    def renew(self) -> None:
        self.found = None
        super().renew()

    def settle(self, told: Told, point: Point | None) -> Outcome:
        if told.code != 0:
            again = self.command("rm", "-f", NAME)
            self.command("gc")
            if again.code:
                return self.kinds(told, point, self.found, [f"rm -f again: {again.code}: {again.err}"])
        return self.kinds(told, point, self.found, self.place.left())


class Exec(Run):
    """``exec`` in a container that runs, and has to go on."""

    name = "minictr exec"

    @property
    def words(self) -> list[str]:
        return ["minictr", "exec", NAME, "/state", "/out/exec"]

    @property
    def state(self) -> Path:
        return self.out / "exec"

    def renew(self) -> None:
        self.container = ""
        super().renew()

    @property
    def kept(self) -> Path:
        """What one exec leaves for the next."""
        return self.place.root / "containers" / self.container / "exec"

    def begin(self) -> None:
        if self.container:
            self.kept.unlink(missing_ok=True)
            return
        told = self.command("run", "-d", *self.options, "--", "/state", "/out/state", "stay")
        assert told.code == 0, told
        deadline = time.monotonic() + 5
        while not (self.out / "state").exists() and time.monotonic() < deadline:
            time.sleep(0.002)
        self.container = told.out.strip()
        self.group = next(path for top in self.place.groups for path in Path(top).glob("minictr-*"))
        self.inside = self.members()

    def members(self) -> set[str]:
        return set((self.group / "cgroup.procs").read_text().split())

    def settle(self, told: Told, point: Point | None) -> Outcome:
        deadline = time.monotonic() + 3
        while (now := self.members()) != self.inside and time.monotonic() < deadline:
            time.sleep(0.005)
        left = self.place.left(besides=[NAME])
        left += [f"process {pid} in the container" for pid in now - self.inside]
        left += [f"process {pid} of the container is gone" for pid in self.inside - now]
        return self.kinds(told, point, self.ran(), left)

    def close(self) -> None:
        self.command("rm", "-f", NAME)
        super().close()


class ExecAgain(Exec):
    """``exec`` by what an earlier one has compiled."""

    name = "minictr exec, again"

    def begin(self) -> None:
        if not self.container:
            super().begin()
        if not self.kept.exists():
            told = self.command("exec", NAME, "/state", "/out/exec")
            assert told.code == RAN, told
            assert self.kept.exists()
            self.state.unlink()


class Undone(Run):
    """A start that fails at its very last step: what is tried is the way back."""

    name = "minictr run, undone"
    expected = 127
    runs = False

    @property
    def words(self) -> list[str]:
        return ["minictr", "run", *self.options, "--", "/nosuch"]

    def enumerate(self) -> list[Call]:
        """From the execve that fails on: what comes before is that of a start."""
        made = super().enumerate()
        asked = (index for index, call in enumerate(made) if (call.name, call.about) == ("execve", "/nosuch"))
        return made[next(asked) :]


class Started(Detached):
    """``start`` of a container that was created."""

    name = "minictr start"

    @property
    def words(self) -> list[str]:
        return ["minictr", "start", NAME]

    def begin(self) -> None:
        told = self.command("create", *self.options, "--", "/state", "/out/state", "stay")
        assert told.code == 0, told

    def settle(self, told: Told, point: Point | None) -> Outcome:
        """It was there before, so it may be there after; it can be removed, whatever became of it."""
        found = self.ran(3 if told.code == 0 else 0)
        if is_kill(point):
            self.command("gc")
        removed = self.command("rm", "-f", NAME)
        left = [f"rm -f: {removed.code}: {removed.err}"] if removed.code else self.place.left()
        return self.kinds(told, point, found or self.ran(), left)


class End(Detached):
    """A container in the background comes to its end: what is tried is its monitor, from the commit on."""

    name = "minictr's monitor"
    to_the_end = True

    @property
    def words(self) -> list[str]:
        return ["minictr", "run", "-d", *self.options, "--", "/state"]

    def enumerate(self) -> list[Call]:
        made = [call for call in super().enumerate() if call.process == MONITOR]
        said = [index for index, call in enumerate(made) if call.name == "sendmsg"]
        return made[said[1] :]  # the second message is the commit

    def settle(self, told: Told, point: Point | None) -> Outcome:
        """Nobody may be told another exit code than the program's; that nobody knows it is a clear failure."""
        found, text = self.ran(3 if told.code == 0 else 0), ""
        if told.code == 0:
            said = self.command("wait", NAME)
            if said.out.strip() not in (str(RAN), ""):
                text = f"wait says {said.out!r}"
            if not said.out.strip() and not said.err:
                text = "wait says nothing"
            self.command("gc")
            removed = self.command("rm", "-f", NAME)
            text = text or removed.err
        outcome = self.kinds(told, point, found, self.place.left())
        return Outcome(frozenset({OPEN}), f"{point}: {text}") if text else outcome


class Gc(Remove):
    """``gc`` of a container whose monitor and init were killed."""

    name = "minictr gc"

    @property
    def words(self) -> list[str]:
        return ["minictr", "gc"]

    def begin(self) -> None:
        super().begin()
        state = json.loads((self.place.root / "containers" / self.place.id_of(NAME) / "state.json").read_text())
        for who in ("monitor", "process"):  # in this order: nobody is there to write down the end
            self.end(*state[who][:2])

    def end(self, pid: int, start: int) -> None:
        assert int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]) == start
        os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 5
        while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
            self.command("ps")  # the processes' new parent reaps them meanwhile
            time.sleep(0.002)

    def settle(self, told: Told, point: Point | None) -> Outcome:
        """What one gc could not do, which it says, the next does; then nothing is left but what rm removes."""
        self.command("gc")
        removed = self.command("rm", "-f", NAME)
        left = [f"rm -f: {removed.code}: {removed.err}"] if removed.code else self.place.left()
        return self.kinds(told, point, self.found, left)


class Networked(Run):
    """In a network of the try's own: a bridge, a way out, ports by dnat and by a proxy, and limits.

    nft's own calls are not tried: it is another's program, and what it could not do it did not."""

    name = "minictr run --network bridge -p"
    within = ("unshare", "-n", "sh", "-c", 'ip link set lo up; exec "$@"', "sh")

    @property
    def options(self) -> list[str]:
        ports = ["-p", "8080:80", "-p", "8080:80/udp", "--publish-proxy"]
        return [*super().options, "--network", "bridge", *ports, "--egress", "allow=10.0.0.0/8:53"]

    @property
    def payloads(self) -> list[str]:
        return [*super().payloads, os.path.realpath(shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin") or "")]

    def enumerate(self) -> list[Call]:
        """Without what the proxy does under its filter: a call that the tracer leaves out is one that the filter does
        not know, and ends it."""
        made = super().enumerate()
        proxy = next((call.process for call in made if call.name == "listen"), -1)
        ends = next((n for n, call in enumerate(made) if (call.process, call.name) == (proxy, "seccomp")), len(made))
        return [call for n, call in enumerate(made) if call.process != proxy or n <= ends]

    def kinds(self, told: Told, point: Point | None, found: State | None, left: list[str]) -> Outcome:
        return super().kinds(told, point, found, [*left, *self.left_of_networks()])

    def left_of_networks(self, patience: float = 3.0) -> list[str]:
        """What there is in the try's network but its loopback device, a line each."""
        deadline = time.monotonic() + patience
        while found := self.look_at_networks():
            if time.monotonic() > deadline:
                self.clear_networks()
                break
            time.sleep(0.02)
        return found

    def inside(self, *words: str) -> str:
        command = ["nsenter", f"--net=/proc/{self.starter.process.pid}/ns/net", "--", *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def look_at_networks(self) -> list[str]:
        found = [
            f"link {row['ifname']}" for row in json.loads(self.inside("ip", "-j", "link")) if row["ifname"] != "lo"
        ]
        found += self.inside("nft", "list", "tables").splitlines()
        if self.inside("cat", "/proc/sys/net/ipv4/ip_forward").strip() != "0":
            found.append("ip_forward is 1")
        return found

    def clear_networks(self) -> None:
        """For the tries that follow."""
        self.inside("nft", "flush", "ruleset")
        self.inside("sh", "-c", "echo 0 >/proc/sys/net/ipv4/ip_forward")
        for row in json.loads(self.inside("ip", "-j", "link")):
            if row["ifname"] != "lo":
                subprocess.run(
                    ["nsenter", f"--net=/proc/{self.starter.process.pid}/ns/net", "ip", "link", "del", row["ifname"]],
                    check=False,
                    capture_output=True,
                )


class NetworkedDetached(Networked, Detached):
    name = "minictr run -d --network bridge -p"


class NetworkedRemove(Networked, Remove):
    name = "minictr rm -f, of a network"


class NetworkedGc(Networked, Gc):
    name = "minictr gc, of a network"


def is_kill(point: Point | None) -> bool:
    return point is not None and not point.error


DRIVES: dict[str, type[Drive]] = {
    drive.name: drive for drive in (Run, Mapped, Undone, Detached, Started, Exec, ExecAgain, Remove, Gc, End)
}
DRIVES |= {drive.name: drive for drive in (Networked, NetworkedDetached, NetworkedRemove, NetworkedGc)}
