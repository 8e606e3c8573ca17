"""What a caller has that a program inside could reach for: a terminal, and keys in its session."""

from __future__ import annotations

import ctypes
import fcntl
import os
import secrets
import termios

KEYCTL = {"x86_64": (248, 250), "aarch64": (217, 219)}  # add_key, keyctl
JOIN_SESSION, SESSION = 1, -3  # linux/keyctl.h


def on_terminal(fd: int) -> None:
    """In a child: FD becomes standard input and the terminal of a new session, as for a program in a shell."""
    os.setsid()
    fcntl.ioctl(fd, termios.TIOCSCTTY, 0)
    os.dup2(fd, 0)


def terminal_fact(fd: int) -> str:
    """How an attempt knows that terminal from one of the container's own."""
    found = os.fstat(fd)
    return f"{found.st_dev}:{found.st_rdev}"


def session_key() -> str:
    """The description of a key in a new session keyring, which this process and what it starts have from here on; ""
    where there are no keyrings."""
    numbers = KEYCTL.get(os.uname().machine)
    if numbers is None:
        return ""
    libc, name = ctypes.CDLL(None, use_errno=True), f"minictr-{secrets.token_hex(8)}"
    if libc.syscall(numbers[1], JOIN_SESSION, None) < 0:
        return ""
    return name if libc.syscall(numbers[0], b"user", name.encode(), b"secret", 6, SESSION) > 0 else ""
