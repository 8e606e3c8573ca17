"""User-mode Linux (Debian: user-mode-linux, here Linux 6.1): the kernel is a process, its root the host's by hostfs."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from watching import Guard

MEMORY = 768 << 20
DISKS = (("ubda", 32 << 20), ("ubdb", 64 << 20))  # a scratch disk for io limits; swap
BOOTING = 30.0  # seconds a boot and a halt may take on top of the command's deadline; measured: 2
SETTINGS = {"SWAP": "/dev/ubdb", "TEMPORARY": ""}


def place() -> str:
    """Where the guest's memory is: a file, mapped executable. In /dev/shm where that is allowed and there is room."""
    shm = "/dev/shm"
    with contextlib.suppress(OSError):
        there = os.statvfs(shm)
        if os.access(shm, os.W_OK) and not there.f_flag & os.ST_NOEXEC and there.f_bavail * there.f_frsize > MEMORY:
            return shm
    return tempfile.gettempdir()


@contextlib.contextmanager
def booted(exchange: Path, security: str, init: str, guard: Guard) -> Iterator[subprocess.Popen[bytes]]:
    """The guest's kernel, with what it writes in ``exchange/console``. By default it would have SELinux live."""
    for disk, size in DISKS:
        with open(exchange / disk, "wb") as file:
            file.truncate(size)
    command = [
        *("linux.uml", f"mem={MEMORY >> 20}M", f"uml_dir={exchange}", "umid=guest"),
        *("root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", f"security={security}"),
        *(f"{disk}={exchange / disk}" for disk, _ in DISKS),
        *("con=null", "con0=null,fd:1", "ssl=null"),
        *(f"init={init}", f"EXCHANGE={exchange / 'shared'}", "MODULES=/usr/lib/uml/modules"),
    ]
    environment = {**os.environ, "TMPDIR": str(exchange), "HOME": str(exchange)}
    with (
        open(exchange / "console", "wb") as console,
        guard.started(command, env=environment, stdout=console, stderr=subprocess.STDOUT) as process,
    ):
        yield process
