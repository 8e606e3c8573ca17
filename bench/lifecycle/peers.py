"""The arms of the other runtimes, each with what a fair comparison on this host asked for."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from typing import Any

from bench.host import own_cgroups
from bench.lifecycle import oci
from bench.lifecycle.arms import Tool, serve
from bench.lifecycle.shape import COMMAND
from bench.lifecycle.worker import Command

CGROUPS = "/sys/fs/cgroup"
PATIENCE = 5.0


def remove_cgroups(name: str, parents: Sequence[str] = ()) -> list[str]:
    """Remove the cgroup NAME, and all below it, from below PARENTS, or the caller's own ones. What would not go.

    A group is busy until the last process that was killed in it is gone: it is tried for PATIENCE seconds.
    """
    deadline = time.monotonic() + PATIENCE
    while True:
        left = []
        for parent in parents or own_cgroups():
            for directory, _, _ in os.walk(os.path.join(parent, name), topdown=False):
                try:
                    os.rmdir(directory)
                except OSError:
                    left.append(directory)
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.01)


class Oci(Tool):
    """A runtime that takes an OCI bundle."""

    GLOBAL: tuple[str, ...] = ()
    UNMOUNT: tuple[str, ...] = ()
    WITH_CGROUP = False

    def container_id(self, argv: tuple[str, ...]) -> str:
        return f"minictr-bench-{os.getpid()}{self.tag}-{'run' if argv == COMMAND else 'probe'}"

    def command(self, argv: tuple[str, ...]) -> Command:
        bundle, state = self.lab.path(self.name, self.container_id(argv)), self.lab.path(self.name, "state")
        cgroup = self.container_id(argv) if self.WITH_CGROUP else ""
        oci.write_bundle(bundle, shape=self.lab.shape, rootfs=self.lab.rootfs, argv=argv, cgroups_path=cgroup)
        run = [self.executable(), "--root", state, *self.GLOBAL, "run", "--bundle", bundle, self.container_id(argv)]
        return serve(mode="spawn", argv=run, unmount=list(self.UNMOUNT))

    def cleanup(self) -> None:
        super().cleanup()
        state = self.lab.path(self.name, "state")
        for left in os.listdir(state) if os.path.isdir(state) else ():
            command = [self.executable(), "--root", state, *self.GLOBAL, "delete", "--force", left]
            subprocess.run(command, capture_output=True, check=False, timeout=30)
        for argv in (COMMAND, ()):
            remove_cgroups(self.container_id(argv))


NO_NODEV = "its root may hold device nodes that can be opened: no nodev (one mount_setattr, 2 us)"


class Runc(Oci):
    NAME = "runc"
    ABOUT = "runc run, with its cgroups"
    PROGRAM = "runc"
    WITH_CGROUP = True
    KNOWN = (
        "makes and removes a cgroup in every hierarchy: it cannot be told not to",
        NO_NODEV,
        "writes its state to disk, compiles its filter by libseccomp in every start (301 instructions, half walked)",
    )


class Crun(Oci):
    NAME = "crun"
    ABOUT = "crun run, without cgroups"
    PROGRAM = "crun"
    GLOBAL = ("--cgroup-manager=disabled",)
    # crun 1.8 refuses any host whose v2 hierarchy holds a controller beside v1 ones ("cgroups in hybrid mode not
    # supported"), whatever its manager. It looks for this mount; what it does afterwards is the same without cgroups.
    UNMOUNT = (f"{CGROUPS}/unified",)
    KNOWN = (
        "no cgroup (--cgroup-manager=disabled), as minictr's default here",
        NO_NODEV,
        "the v2 hierarchy is hidden from it in a mount namespace of its own: crun 1.8 refuses hybrid hosts",
        "writes its state to disk, compiles its filter by libseccomp in every start (301 instructions, half walked)",
    )


class LxcExecute(Tool):
    NAME = "lxc-execute"
    ABOUT = "lxc-execute with a configuration made for it"
    PROGRAM = "lxc-execute"
    KNOWN = (
        "makes and removes cgroups (monitor, payload) in every hierarchy",
        NO_NODEV,
        "no sysctls: it sets them only after its mounts, when /proc/sys is already read-only as planned",
        "a monitor process that stays beside the container; its filter by libseccomp in every start (300 instructions)",
    )

    def _group(self) -> str:
        return f"minictr-bench-{os.getpid()}{self.tag}-lxc"

    def configuration(self, seccomp: str) -> str:
        """The configuration file: see lxc.container.conf(5)."""
        shape, group = self.lab.shape, self._group()
        shm = ",".join(("nosuid", "nodev", "noexec", "create=dir", *shape.shm_options))
        lines = [
            f"lxc.rootfs.path = dir:{self.lab.rootfs}",
            f"lxc.uts.name = {shape.hostname}",
            "lxc.autodev = 1",
            "lxc.tty.max = 0",
            "lxc.pty.max = 1024",
            "lxc.console.path = none",
            "lxc.net.0.type = empty",
            "lxc.net.0.flags = up",
            "lxc.no_new_privs = 1",
            "lxc.prlimit.core = 0",
            f"lxc.cap.keep = {' '.join(name.lower() for name in shape.capabilities)}",
            f"lxc.seccomp.profile = {seccomp}",
            "lxc.cgroup.relative = 1",
            f"lxc.cgroup.dir.monitor = {group}/monitor",
            f"lxc.cgroup.dir.container = {group}/payload",
            f"lxc.cgroup.dir.monitor.pivot = {group}/pivot",
            "lxc.mount.auto = proc:rw sys:ro",
            f"lxc.mount.entry = tmpfs dev/shm tmpfs {shm} 0 0",
            "lxc.mount.entry = mqueue dev/mqueue mqueue nosuid,nodev,noexec,create=dir 0 0",
            *(f"lxc.environment = {name}={value}" for name, value in shape.env),
        ]
        for path in shape.present(shape.masks):
            is_directory = os.path.isdir(path)
            what = f"tmpfs {path[1:]} tmpfs ro,size=0" if is_directory else f"/dev/null {path[1:]} none bind"
            lines.append(f"lxc.mount.entry = {what} 0 0")
        for path in shape.present(shape.readonlys):
            lines.append(f"lxc.mount.entry = {path[1:]} {path[1:]} none bind,ro,relative 0 0")
        return "\n".join(lines) + "\n"

    def write_configuration(self) -> str:
        """The path of the configuration, written together with its filter."""
        seccomp, config = self.lab.path(self.name, "seccomp"), self.lab.path(self.name, "config")
        with open(seccomp, "w", encoding="utf-8") as file:
            # Version 1 of the format: numbers, the native architecture only. Version 2 makes 854 instructions of it.
            file.write("1\nallowlist\n" + "".join(f"{number}\n" for number in oci.allowed_numbers()))
        with open(config, "w", encoding="utf-8") as file:
            file.write(self.configuration(seccomp))
        return config

    def command(self, argv: tuple[str, ...]) -> Command:
        config, state = self.write_configuration(), self.lab.path(self.name, "state")
        os.makedirs(state, exist_ok=True)
        options = [
            "-n",
            f"bench{os.getpid()}{self.tag}",
            "-P",
            state,
            "-f",
            config,
            "-o",
            self.lab.path(self.name, "log"),
        ]
        return serve(mode="spawn", argv=[self.executable(), *options, "--", *argv])

    def cleanup(self) -> None:
        super().cleanup()
        remove_cgroups(self._group())


class Bubblewrap(Tool):
    NAME = "bwrap"
    ABOUT = "bwrap with equal namespaces and mounts"
    PROGRAM = "bwrap"
    FILTER_FD = 9
    # /sys can only be bound from the host, with everything mounted below it; so nothing is mounted below it.
    UNMOUNT = (CGROUPS,)
    KNOWN = (
        "it binds the host's /sys and devices, as it can make neither; nothing is mounted below the /sys it binds",
        "no session keyring, no inode limit of /dev/shm; core limit inherited from its caller, not set by it",
    )

    def command(self, argv: tuple[str, ...]) -> Command:
        return self.spawner(argv)

    def spawner(self, argv: tuple[str, ...], bind: tuple[str, ...] = (), **wishes: Any) -> Command:
        """The worker that starts ARGV; BIND: a directory, and where it is seen."""
        shape = self.lab.shape
        run = [self.executable(), "--hostname", shape.hostname, "--as-pid-1", "--new-session", "--clearenv"]
        run += [f"--unshare-{kind}" for kind in ("ipc", "pid", "net", "uts", "cgroup")]
        for name, value in shape.env:
            run += ["--setenv", name, value]
        run += ["--bind", self.lab.rootfs, "/", "--proc", "/proc", "--ro-bind", "/sys", "/sys", "--dev", "/dev"]
        run += ["--perms", "1777", "--size", str(shape.shm_bytes), "--tmpfs", "/dev/shm"]
        run += ["--dir", "/dev/mqueue", "--mqueue", "/dev/mqueue"]
        for path in shape.present(shape.masks):
            is_directory = os.path.isdir(path)
            run += ["--size", "4096", "--tmpfs", path, "--remount-ro", path] if is_directory else []
            run += [] if is_directory else ["--ro-bind", "/dev/null", path]
        run += ["--bind", *bind] if bind else []
        run += ["--cap-drop", "ALL"]
        for name in shape.capabilities:
            run += ["--cap-add", f"CAP_{name}"]
        run += ["--seccomp", str(self.FILTER_FD), "--", *argv]
        files = [(self.FILTER_FD, self.lab.straight)]
        return serve(mode="spawn", argv=run, files=files, unmount=list(self.UNMOUNT), no_core=True, **wishes)
