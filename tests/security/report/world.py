"""What the report makes on the host: a root file system with the probe, and things of the host to reach for."""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent / "attempts"))

import compiled

__all__ = ["World", "compiled"]

KEYCTL = {"x86_64": (248, 250), "aarch64": (217, 219)}  # add_key, keyctl
JOIN_SESSION, SESSION = 1, -3  # linux/keyctl.h
DIRECTORIES = ("bin", "etc", "proc", "sys", "dev", "tmp", "run", "usr", "sbin", "var")


class World:
    """A context manager. ``rootfs``: the root; ``facts``: the words that tell the probe what to reach for;
    ``terminal``: a pseudo terminal that stands for the caller's; ``mark``: a name for what runtimes make."""

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
            terminal = os.fstat(self.terminal)
            self.facts = [
                f"host_pid={self.victim.pid}",
                f"socket={name}",
                f"key={self._key()}",
                f"disk={self._disk()}",
                f"proof={self._proof()}",
                f"terminal={terminal.st_dev}:{terminal.st_rdev}",
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

    def _key(self) -> str:
        """A key in a session keyring that this process, and what it starts, has from here on."""
        numbers = KEYCTL.get(os.uname().machine)
        name = f"minictr-{secrets.token_hex(8)}"
        if numbers:
            libc = ctypes.CDLL(None, use_errno=True)
            libc.syscall(numbers[1], JOIN_SESSION, None)
            libc.syscall(numbers[0], b"user", name.encode(), b"secret", 6, SESSION)
        return name

    @staticmethod
    def _disk() -> str:
        """The numbers of a disk of this machine: the first in /sys/block that is no loop, memory disk or the like."""
        for device in sorted(Path("/sys/block").iterdir()):
            if (device / "device").exists() and int((device / "size").read_text()) > 0:
                return (device / "dev").read_text().strip()
        return ""


def on_terminal(fd: int) -> None:
    """In the child: FD becomes standard input and the terminal of a new session, as it is for a program in a shell."""
    import fcntl
    import termios

    os.setsid()
    fcntl.ioctl(fd, termios.TIOCSCTTY, 0)
    os.dup2(fd, 0)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
