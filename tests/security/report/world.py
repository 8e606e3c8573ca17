"""What the report makes on the host: a root file system with the probe, and things of the host to reach for."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent / "attempts"))

import compiled
from callers import on_terminal, session_key, terminal_fact

__all__ = ["World", "compiled", "on_terminal"]

DIRECTORIES = ("bin", "etc", "proc", "sys", "dev", "tmp", "run", "usr", "sbin", "var")


class World:
    """A context manager. ``rootfs``: the root; ``facts``: the words that tell the probe what to reach for;
    ``terminal``: a pseudo terminal that stands for the caller's; ``leak``: a descriptor of the host's root that a
    careless caller has left inheritable; ``mark``: a name for what runtimes make."""

    def __init__(self) -> None:
        self.mark = f"minictr-security-{os.getpid()}"
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> World:
        with contextlib.ExitStack() as stack:
            self.directory = Path(tempfile.mkdtemp(prefix="minictr-security-"))
            stack.callback(shutil.rmtree, self.directory, ignore_errors=True)
            self.directory.chmod(0o755)
            self.rootfs = self._root()
            self.victim = stack.enter_context(subprocess.Popen(["sleep", "100000"], start_new_session=True))
            stack.callback(self.victim.kill)
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            name = f"minictr-{secrets.token_hex(8)}"
            listener.bind(f"\0{name}")
            listener.listen(64)
            master, self.terminal = os.openpty()
            stack.callback(os.close, master)
            stack.callback(os.close, self.terminal)
            self.leak = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
            stack.callback(os.close, self.leak)
            self.facts = [
                f"host_pid={self.victim.pid}",
                f"socket={name}",
                f"key={session_key()}",
                f"device={self._device()}",
                f"proof={self._proof()}",
                f"terminal={terminal_fact(self.terminal)}",
            ]
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def path(self, *names: str) -> Path:
        """A path in a directory that goes with the report; its parents are made."""
        path = self.directory.joinpath(*names)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _root(self) -> Path:
        """No more than the probe needs, and each runtime to begin."""
        root = self.directory / "root"
        for name in DIRECTORIES:
            (root / name).mkdir(parents=True)
        (root / "tmp").chmod(0o1777)
        (root / "etc/passwd").write_text("root:x:0:0:root:/:/bin/false\n")
        (root / "etc/group").write_text("root:x:0:\n")
        compiled.install(root, shutil.which("gcc") or "gcc")
        return root

    def _proof(self) -> Path:
        """A file of the host's."""
        path = self.directory / "proof"
        path.touch()
        return path

    @staticmethod
    def _device() -> str:
        """A disk that this machine's own root may read; where it may read none, the kernel's log."""
        for device in sorted(Path("/sys/block").iterdir()):
            with contextlib.suppress(OSError):
                numbers = (device / "dev").read_text().strip()
                with open(f"/dev/{device.name}", "rb", buffering=0) as disk:
                    if disk.read(512):
                        return f"b:{numbers}"
        return "c:1:11"
