"""The runtimes that the report tries, each as it comes: the defaults are what is looked at."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import compiled
from world import World, on_terminal

PROGRAM = "/bin/attempt"
PATIENCE = 120.0  # seconds for all classes in one runtime
COPIES = ("cp", "-a", "--reflink=auto")


class Runtime:
    """One way to run the probe."""

    name = ""
    about = ""
    program = ""  # what must be in PATH

    def __init__(self, world: World) -> None:
        self.world = world

    def __enter__(self) -> Runtime:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def missing(self) -> str:
        """Why it cannot be tried; "" when it can."""
        return "" if not self.program or shutil.which(self.program) else f"{self.program} is not installed"

    def version(self) -> str:
        done = subprocess.run([self.program, "--version"], capture_output=True, text=True, check=False)
        return (done.stdout or done.stderr).strip().splitlines()[0]

    def root(self) -> Path:
        """The world's root in a copy of its own, to be spoilt."""
        path = self.world.path(self.name.replace(" ", "-"), "root")
        subprocess.run([*COPIES, str(self.world.rootfs), str(path)], check=True)
        return path

    def command(self, argv: list[str]) -> list[str]:
        raise NotImplementedError

    def attempt(self, told: Callable[[int], object]) -> tuple[dict[str, compiled.Verdict], str]:
        """All classes, and what was said besides. TOLD hears how many there are so far."""
        command = self.command([PROGRAM, "all", *self.world.facts])
        terminal = self.world.terminal
        errors = self.world.path(f"{self.name.replace(' ', '-')}.err")
        output = ""
        with (
            open(errors, "w+") as said,
            subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
                pass_fds=(self.world.leak,),
                preexec_fn=lambda: on_terminal(terminal),
            ) as process,
        ):
            assert process.stdout is not None
            deadline = time.monotonic() + PATIENCE
            try:
                for line in process.stdout:
                    output += line
                    told(len(compiled.verdicts(output)))
                    if time.monotonic() > deadline:
                        break
                process.wait(max(1.0, deadline - time.monotonic()))
            finally:
                process.kill()
            said.seek(0)
            return compiled.verdicts(output), said.read()


class Minictr(Runtime):
    name = "minictr"
    about = "minictr run"
    options: tuple[str, ...] = ()

    def version(self) -> str:
        import minictr

        return f"minictr {minictr.__version__}"

    def command(self, argv: list[str]) -> list[str]:
        launcher = str(Path(sys.executable).parent / "minictr")
        return [launcher, "run", *self.options, "--rootfs", str(self.root()), "--", *argv]


class MinictrDocker(Minictr):
    name = "minictr docker"
    about = "minictr run --profile docker"
    options = ("--profile", "docker")


class AsUser(Minictr):
    name = "as a user"
    about = "minictr run -u 65534:65534"
    options = ("-u", "65534:65534")


class MappedRoot(Minictr):
    name = "mapped root"
    about = "minictr run --uidmap 0:100000:65536 --gidmap 0:100000:65536"
    options = ("--uidmap", "0:100000:65536", "--gidmap", "0:100000:65536")


class Admin(Minictr):
    name = "CAP_SYS_ADMIN"
    about = "minictr run --cap-add SYS_ADMIN"
    options = ("--cap-add", "SYS_ADMIN")


class MappedAdmin(Minictr):
    name = "mapped admin"
    about = "minictr run --cap-add SYS_ADMIN, with the ids of mapped root"
    options = (*MappedRoot.options, *Admin.options)


class Privileged(Minictr):
    name = "privileged"
    about = "minictr run --privileged"
    options = ("--privileged",)


class BubblewrapAsRoot(Runtime):
    name = "bwrap as root"
    about = "bwrap --unshare-all --new-session --die-with-parent, with /proc, /dev and /tmp"
    program = "bwrap"
    begin: tuple[str, ...] = ()

    def command(self, argv: list[str]) -> list[str]:
        walls = ["--unshare-all", "--new-session", "--die-with-parent"]
        places = ["--bind", str(self.root()), "/", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]
        return [*self.begin, "bwrap", *walls, *places, *argv]


class Bubblewrap(BubblewrapAsRoot):
    name = "bwrap"
    about = "the same line by an ordinary user, as it is meant"
    begin = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")


class Oci(Runtime):
    """The configuration that ``spec`` writes, with our root and program."""

    def command(self, argv: list[str]) -> list[str]:
        bundle = self.world.path(self.name, "bundle", "config.json").parent
        subprocess.run([self.program, "spec"], cwd=bundle, check=True)
        config = json.loads((bundle / "config.json").read_text())
        config["process"] |= {"args": argv, "terminal": False}
        config["root"]["path"] = str(self.root())
        (bundle / "config.json").write_text(json.dumps(config))
        return [*self.begin(), "run", "--bundle", str(bundle), self.world.mark]

    def begin(self) -> list[str]:
        return [self.program, "--root", str(self.world.path(self.name, "state"))]

    def __exit__(self, *exc: object) -> None:
        subprocess.run([*self.begin(), "delete", "--force", self.world.mark], capture_output=True, check=False)


class Runc(Oci):
    name = program = "runc"
    about = "runc spec, runc run"


class Crun(Oci):
    name = program = "crun"
    about = "crun spec, crun run"


class Lxc(Runtime):
    """As a container of Debian's: its common configuration. AppArmor and a network are the host's matter."""

    name = "lxc"
    about = "lxc-execute with /usr/share/lxc/config/common.conf, privileged"
    program = "lxc-execute"
    includes = ("common.conf",)
    rows: tuple[str, ...] = ()

    def command(self, argv: list[str]) -> list[str]:
        directory, group = self.world.path(self.name.replace(" ", "-"), "config").parent, f"{self.world.mark}-lxc"
        lines = [f"lxc.include = /usr/share/lxc/config/{name}" for name in self.includes]
        lines += [f"lxc.rootfs.path = dir:{self.root()}", "lxc.net.0.type = empty", "lxc.console.path = none"]
        lines += [f"lxc.cgroup.dir.{part} = {group}/{part}" for part in ("monitor", "container")]
        lines += ["lxc.cgroup.relative = 1", f"lxc.cgroup.dir.monitor.pivot = {group}/pivot", *self.rows]
        (directory / "config").write_text("\n".join(lines) + "\n")
        (directory / "state").mkdir()
        return [
            *self.begin(),
            *("lxc-execute", "-n", group, "-P", str(directory / "state"), "-f", str(directory / "config")),
            *("-o", str(directory / "log"), "-l", "ERROR", "--", *argv),
        ]

    def begin(self) -> list[str]:
        return []

    def __exit__(self, *exc: object) -> None:
        remove_groups(f"{self.world.mark}-lxc")


class LxcUnprivileged(Lxc):
    name = "lxc unprivileged"
    about = "the same with userns.conf, ids mapped to 100000 and up"
    includes = ("common.conf", "userns.conf")
    first = 100_000
    rows = (f"lxc.idmap = u 0 {first} 65536", f"lxc.idmap = g 0 {first} 65536")

    def begin(self) -> list[str]:
        """newuidmap asks /etc/subuid and /etc/subgid even for root: they say so, in a mount namespace of its own."""
        table = self.world.path("subordinate")
        table.write_text(f"root:{self.first}:65536\n")
        script = f'mount --bind {table} /etc/subuid && mount --bind {table} /etc/subgid && exec "$@"'
        return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"]

    def root(self) -> Path:
        path = super().root()
        for directory, below, files in os.walk(path):
            for name in (".", *below, *files):
                one, mode = os.path.join(directory, name), os.lstat(os.path.join(directory, name)).st_mode
                os.lchown(one, self.first, self.first)
                os.chmod(one, mode & 0o7777)  # a chown takes the set-user-ID bit away
        return path


def remove_groups(name: str) -> None:
    """The cgroups called NAME in every hierarchy, and all below: busy until the last that was killed is gone."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        left = [group for top in Path("/sys/fs/cgroup").glob(f"**/{name}") for group in (*top.glob("**/"), top)]
        for group in sorted(left, key=lambda path: -len(path.parts)):
            try:
                group.rmdir()
            except OSError:
                pass
        if not left:
            return
        time.sleep(0.05)


# Each as it comes, and minictr's default for who begins with less or more than root inside has
PEERS: tuple[type[Runtime], ...] = (Lxc, LxcUnprivileged, BubblewrapAsRoot, Bubblewrap, Runc, Crun)
POINTS: tuple[type[Runtime], ...] = (AsUser, MappedRoot, Admin, MappedAdmin, Privileged)
