"""Compiled seccomp programs, kept: in memory, and on disk where only their user can write.

::

    /var/cache/minictr/seccomp/KEY             for root; for others XDG_CACHE_HOME or ~/.cache; MINICTR_CACHE for all
    minictr-seccomp 1 KEY SHA256\\n program     a file; SHA256 is the program's

KEY is the SHA-256 of all that the program was made from: the filter, the compiler, the machine, and the very file
that libseccomp is in. A file is believed only if it is regular, ours, of one link, writable by nobody else, in a
directory of which the same is true, and says KEY and the right SHA256; else the program is made anew, and the file with
it. What cannot be written is not kept, and nothing is said of it.
"""

from __future__ import annotations

import os
import sys

if sys.version_info >= (3, 12):  # hashlib itself loads OpenSSL (3 ms), and to look for a name in vain costs 50 us
    from _sha2 import sha256
else:
    from _sha256 import sha256  # type: ignore[import-not-found]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["cache_directory", "program", "sha256"]

COMPILER = 2  # to be changed with what seccomp_compile makes of the same rules
HEAD = "minictr-seccomp 1"
FORBIDDEN_BITS = 0o022  # write access of group and others
LARGEST = 4096 * 8 + 256  # BPF_MAXINSNS instructions, and the head
KEPT_FILES = 256  # beyond, the oldest go
IN_MEMORY = 64
SONAME = "libseccomp.so.2"
PLACES = ("/usr/lib/{}-linux-gnu", "/lib/{}-linux-gnu", "/usr/lib64", "/lib64", "/usr/lib", "/lib", "/usr/local/lib")

_memory: dict[str, bytes] = {}


def program(content: str, make: Callable[[], tuple[Any, ...]]) -> bytes:
    """The program of the filter that CONTENT tells completely; MAKE gives its rules, where it has to be compiled.

    Raises SpecError and Unsupported, as the compiler does.
    """
    kept = _memory.get(content)
    if kept is None:
        identity = library_identity()
        key = sha256(f"{HEAD}|{COMPILER}|{os.uname().machine}|{identity}|{content}".encode()).hexdigest()
        kept = read(key) if identity else b""
        if not kept:
            from minictr.kernel.seccomp_compile import compile_filter

            kept = compile_filter(make())
            if identity:
                write(key, kept)
        if len(_memory) >= IN_MEMORY:
            _memory.clear()
        _memory[content] = kept
    return kept


def library_identity() -> str:
    """The file that libseccomp is in: its name with the version, size and age. "" where it is at no usual place; then
    nothing is kept on disk."""
    machine = os.uname().machine
    for place in PLACES:
        path = f"{place.format(machine)}/{SONAME}"
        try:
            stat = os.stat(path)
            name = os.readlink(path) if os.path.islink(path) else SONAME
        except OSError:
            continue
        return f"{place.format(machine)}/{name} {stat.st_size} {stat.st_mtime_ns}"
    return ""


def cache_directory() -> str:
    """Where programs are kept; "" for a user without a home."""
    chosen = os.environ.get("MINICTR_CACHE", "")
    if not chosen and os.geteuid() == 0:
        chosen = "/var/cache/minictr"
    elif not chosen:
        base, home = os.environ.get("XDG_CACHE_HOME", ""), os.environ.get("HOME", "")
        base = base if base.startswith("/") else f"{home}/.cache" if home.startswith("/") else ""
        chosen = base and f"{base}/minictr"
    return f"{os.path.abspath(chosen)}/seccomp" if chosen else ""


def read(key: str) -> bytes:
    """The program kept under KEY; b"" where there is none that can be believed."""
    directory = _opened(cache_directory())
    if directory < 0:
        return b""
    try:
        # NONBLOCK: a FIFO in its place must not hang us
        fd = os.open(key, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except OSError:
        return b""
    finally:
        os.close(directory)
    try:
        stat = os.fstat(fd)
        if stat.st_mode >> 12 != 0o10 or stat.st_nlink != 1 or not _ours(stat) or stat.st_size > LARGEST:
            return b""
        data = os.read(fd, LARGEST + 1)
    except OSError:
        return b""
    finally:
        os.close(fd)
    head, _, kept = data.partition(b"\n")
    right = head == f"{HEAD} {key} {sha256(kept).hexdigest()}".encode()
    return kept if right and kept and len(kept) % 8 == 0 else b""


def write(key: str, kept: bytes) -> None:
    """Keep a program under KEY, if that can be done."""
    path = cache_directory()
    if not path:
        return
    try:
        os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    except OSError:
        return
    directory = _opened(path)
    if directory < 0:
        return
    name = f".{key[:16]}.{os.getpid()}.{os.urandom(4).hex()}"
    data = f"{HEAD} {key} {sha256(kept).hexdigest()}\n".encode() + kept
    try:
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory)
        try:
            complete = os.write(fd, data) == len(data)
        finally:
            os.close(fd)
        if complete:
            os.rename(name, key, src_dir_fd=directory, dst_dir_fd=directory)
        else:
            os.unlink(name, dir_fd=directory)
        _prune(directory)
    except OSError:
        _forget(directory, name)
    finally:
        os.close(directory)


def _opened(path: str) -> int:
    """A descriptor of the cache's directory; -1 where it is not there, or others could write in it."""
    if not path:
        return -1
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return -1
    if _ours(os.fstat(fd)):
        return fd
    os.close(fd)
    return -1


def _ours(stat: os.stat_result) -> bool:
    return stat.st_uid == os.geteuid() and not stat.st_mode & FORBIDDEN_BITS


def _forget(directory: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=directory)
    except OSError:
        pass


def _prune(directory: int) -> None:
    """The oldest files go where there are too many; a directory in a file's place is let be."""
    names = os.listdir(directory)
    if len(names) <= KEPT_FILES:
        return
    aged = sorted((os.stat(name, dir_fd=directory, follow_symlinks=False).st_mtime_ns, name) for name in names)
    for _, name in aged[: len(names) - KEPT_FILES // 2]:
        _forget(directory, name)
