"""The directories and small files that programs expect of any root, written where the selection has none."""

from __future__ import annotations

import os
import stat
import time
from typing import TYPE_CHECKING

from minictr.images import ldcache
from minictr.images.tree import Meta, split

if TYPE_CHECKING:
    from minictr.images.closure import Closure
    from minictr.images.hostfiles import HostFiles
    from minictr.images.tree import Tree

# As on the host: on a merged /usr these are links, and /bin/sh or /lib64/ld-linux-x86-64.so.2 go through them.
TOP = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/usr/bin", "/usr/sbin")
DIRECTORIES = (
    ("/proc", 0o555),
    ("/sys", 0o555),
    ("/dev", 0o755),
    ("/run", 0o755),
    ("/run/lock", 0o1777),
    ("/tmp", 0o1777),
    ("/var/tmp", 0o1777),
    ("/var/log", 0o755),
    ("/var/lib", 0o755),
    ("/var/cache", 0o755),
    ("/root", 0o700),
    ("/home", 0o755),
    ("/mnt", 0o755),
    ("/bin", 0o755),
    ("/sbin", 0o755),
    ("/usr/bin", 0o755),
    ("/usr/sbin", 0o755),
)
LINKS = (("/etc/mtab", "../proc/self/mounts"), ("/var/run", "/run"), ("/var/lock", "/run/lock"))
NSSWITCH = (
    "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nnetworks: files\nprotocols: files\nservices: files\n"
)
HOSTS = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
# systemd-nspawn(1) takes a directory for a root only if it has this file.
OS_RELEASE = 'ID=minictr-minimal\nNAME="minictr minimal root"\nPRETTY_NAME="minictr minimal root"\n'
TERMINALS = (
    *("linux", "xterm", "xterm-256color", "screen", "screen-256color", "tmux", "tmux-256color"),
    *("vt100", "vt220", "dumb", "ansi"),
)
TERMINFO = ("/etc/terminfo", "/lib/terminfo", "/usr/lib/terminfo", "/usr/share/terminfo")
SHELLS = ("/bin/bash", "/bin/sh", "/bin/dash", "/bin/zsh", "/bin/busybox")
GROUPS = {"root": 0, "tty": 5, "nogroup": 65534}  # tty: devpts gives terminals to group 5
MAX_SYSTEM_ID = 999  # above are people (login.defs, SYS_GID_MAX)


def select(files: HostFiles) -> None:
    """Add to the selection what comes from the host whatever was asked for: the top links, terminal descriptions."""
    for path in TOP:
        if os.path.islink(path) and os.path.isdir(path):
            files.add(path)
    for name in TERMINALS:
        for directory in TERMINFO:  # hashed by first letter, or by its hexadecimal number
            spellings = (f"{directory}/{name[0]}/{name}", f"{directory}/{ord(name[0]):x}/{name}")
            path = next(filter(os.path.isfile, spellings), "")
            if path:
                files.add(path)
                break


def write(tree: Tree, closure: Closure) -> int:
    """Write the rest into TREE; answers how many regular files that were."""
    now, files = time.time_ns(), 0
    for path, mode in DIRECTORIES:
        if not tree.exists(split(path)):
            tree.directory(split(path), Meta(mode, mtime_ns=now))
    for path, target in LINKS:
        if not tree.exists(split(path)):
            tree.symlink(split(path), target, Meta(0o777, mtime_ns=now))
    for path, content in _contents(closure).items():
        if not tree.exists(split(path)):
            tree.file(split(path), Meta(0o644, mtime_ns=now), lambda fd, content=content: _fill(fd, content))  # type: ignore[misc]
            files += 1
    return files


def _fill(fd: int, content: bytes) -> None:
    with open(fd, "wb", closefd=False) as file:
        file.write(content)


def _contents(closure: Closure) -> dict[str, bytes]:
    shell = next((path for path in SHELLS if path in closure.files), "/bin/sh")
    passwd = f"root:*:0:0:root:/root:{shell}\nnobody:*:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
    contents = {
        "/etc/passwd": passwd,
        "/etc/group": "".join(f"{name}:x:{number}:\n" for name, number in _groups(closure.files).items()),
        "/etc/nsswitch.conf": NSSWITCH,
        "/etc/hosts": HOSTS,
        "/etc/hostname": "minictr\n",
        "/etc/resolv.conf": "",
        "/etc/os-release": OS_RELEASE,
    }
    written = {path: text.encode() for path, text in contents.items()}
    if closure.glibc:
        written |= _loader_files(closure)
    return written


def _loader_files(closure: Closure) -> dict[str, bytes]:
    """ld.so.cache with the host's entries for what is here, and the ld.so.conf that would make it again.

    A copy of the whole cache would work, as the loader goes on when a listed file is absent; it would also tell what
    else the host has.
    """
    cache = closure.search.cache.only(lambda path: path in closure.files)
    program = closure.search.file(closure.glibc)
    assert program is not None
    built_in = closure.search.loader(program).directories
    outside = dict.fromkeys(os.path.dirname(entry.path) for entry in cache.entries)
    lines = "".join(f"{directory}\n" for directory in outside if directory not in built_in)
    return {"/etc/ld.so.conf": os.fsencode(lines), "/etc/ld.so.cache": ldcache.dump(cache)}


def _groups(files: HostFiles) -> dict[str, int]:
    """Few groups, and the system groups that copied files belong to, so that ``ls -l`` shows their names."""
    owners = {info.st_gid for info in files.entries.values() if not stat.S_ISLNK(info.st_mode)}
    groups = dict(GROUPS)
    try:
        with open("/etc/group", errors="surrogateescape") as lines:
            records = [line.split(":") for line in lines]
    except OSError:
        return groups
    for name, *rest in records:
        if len(rest) == 3 and rest[1].isdecimal() and int(rest[1]) in owners and int(rest[1]) <= MAX_SYSTEM_ID:
            groups.setdefault(name, int(rest[1]))
    return dict(sorted(groups.items(), key=lambda item: item[1]))
