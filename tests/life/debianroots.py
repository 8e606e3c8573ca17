"""Debian root file systems to live in: made once per machine, kept in a cache, never written to.

A root is named by what it is made of, so another list of packages is another directory. It is built beside its place
and renamed, by one session at a time; whoever comes later finds it whole.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from minictr.errors import MinictrError
from minictr.images.debian import debian

SUITE = "bookworm"
PYTHON = (
    *("python3", "python3-dev", "python3-venv", "gcc", "libc6-dev", "libcap-dev", "libcap2-bin", "libseccomp2"),
    *("iproute2", "nftables", "procps", "mount", "uidmap", "util-linux", "ca-certificates"),
)
SUITES = {"python-trixie": "trixie", "python-forky": "forky"}  # of those that are not of SUITE
PACKAGES = {
    "systemd": (
        *("systemd", "systemd-sysv", "dbus", "login", "procps", "iproute2", "python3"),
        *("nginx-light", "openssh-server", "redis-server", "postgresql"),
    ),
    "inits": ("sysvinit-core", "busybox", "procps"),
    "python-bookworm": PYTHON,
    "python-trixie": PYTHON,
    "python-forky": PYTHON,
}
NO_NETWORK = ("check the network", "does not have a Release file")  # of images.debian.CURES


class NoMirror(Exception):
    """No archive of Debian can be reached from here."""


def cache() -> Path:
    """Where roots are kept: XDG_CACHE_HOME if it is set, else where a system keeps what can be made again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "/var/cache") / "minictr-tests"


def place(kind: str) -> Path:
    key = hashlib.sha256("\n".join((suite(kind), *sorted(PACKAGES[kind]))).encode()).hexdigest()[:12]
    return cache() / f"{kind}-{key}"


def suite(kind: str) -> str:
    return SUITES.get(kind, SUITE)


def root(kind: str, progress: Callable[[str], None]) -> Path:
    """The root of that kind, built if it is not there yet. Raises NoMirror, MinictrError."""
    path = place(kind)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.parent.chmod(0o700)  # set-ID programs of a system without updates are nobody's but root's
    with open(f"{path}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.is_dir():
            progress(f"building {path}, once for this machine: {', '.join(PACKAGES[kind])}")
            try:
                debian(str(path), suite(kind), include=PACKAGES[kind], progress=progress)
            except MinictrError as err:
                if any(words in str(err) for words in NO_NETWORK):
                    raise NoMirror(str(err)) from err
                raise
        if not os.path.exists(f"{path}.made"):
            Path(f"{path}.made").write_text(f"{newest(path)}\n")
    return path


def is_untouched(path: Path) -> bool:
    """Whether nothing below PATH was written, made, removed or renamed since it was built: inodes tell (stat(2))."""
    return newest(path) <= int(Path(f"{path}.made").read_text())


def newest(path: Path) -> int:
    """The latest change of an inode below PATH, in nanoseconds."""
    return max(os.stat(found, follow_symlinks=False).st_ctime_ns for found in walk(path))


def walk(path: Path) -> Iterator[str]:
    for directory, _, files in os.walk(path):
        yield directory
        yield from (os.path.join(directory, name) for name in files)
