"""The root file system that all environments share: built once, kept by what it was made of, never written to again.

::

    /var/cache/minictr-bench/KEY/root        Debian with what the workloads need, and /usr/lib/minictr-bench/timed
                                 linux       the kernel's source, unpacked
                                 made.json   what it was made of, the packages' versions, a digest of all its metadata

KEY is made of the recipe and of what is compiled into it, so that another recipe is another directory. It is built
beside its place, under a lock, and renamed: a killed build leaves nothing that could be taken for a whole one. The
digest is compared each time: a root that somebody wrote to is said and built anew.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

from bench.lifecycle.lab import C_FLAGS, MOST_SAID
from bench.lifecycle.worker import environment

CACHE = "/var/cache/minictr-bench"
HOME = "usr/lib/minictr-bench"  # in the root
TIMED = f"/{HOME}/timed"
SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "environments", "timed.c")
VERSION = "2"  # of how it is built: another number is another root

KERNEL = "linux-source-6.1"
# What the five workloads run: xz; openssl; the kernel's compiler and its tools; nginx; sshd and scp's other end
PACKAGES = (
    *("xz-utils", "bzip2", "zstd"),
    "openssl",
    *("gcc", "libc6-dev", "make", "bc", "flex", "bison", "libelf-dev", "libssl-dev", KERNEL),
    "nginx-light",
    *("openssh-server", "openssh-client"),
)
# Mount points and places that jobs use: they are there in every arm, so that none has to make them
PLACES = ("work", "data", "usr/src/linux", "run/sshd", "proc", "sys", "dev", "tmp", "run", HOME)
DEVICES = (("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9))  # of major number 1
OLD = 14 * 86400  # seconds
NEEDED = 3 << 30  # bytes free: 0.6 GiB of root, 1.5 of source, and what lies between

Progress = Callable[[str], None]


class RootfsError(Exception):
    """No root file system: one line that says what was tried, and what would help."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """``packages``: Debian's, from the network. Or ``programs`` of this host, without any network: small, for tests."""

    packages: tuple[str, ...] = PACKAGES
    programs: tuple[str, ...] = ()
    suite: str = "bookworm"

    @property
    def key(self) -> str:
        with open(SOURCE, "rb") as file:
            parts = [VERSION, self.suite, *sorted(self.packages), "", *self.programs, *PLACES]
            return hashlib.sha256("\0".join(parts).encode() + file.read()).hexdigest()[:12]


FULL = Recipe()
MINIMAL = Recipe((), ("sh", "bash", "@coreutils", "socat"))


@dataclasses.dataclass(frozen=True)
class Rootfs:
    """``path``: the root; ``linux``: the kernel's source, "" where the recipe has none; ``facts``: made.json."""

    path: str
    linux: str
    facts: dict[str, object]


def silent(_line: str) -> None:
    """For those who want no word of progress."""


def ensure(recipe: Recipe = FULL, *, cache: str = CACHE, progress: Progress = silent) -> Rootfs:
    """The root of RECIPE: the one that is there, or a new one. Raises RootfsError, with nothing left."""
    home = os.path.join(cache, recipe.key)
    try:
        os.makedirs(cache, exist_ok=True)
        with locked(home):
            found = _there(home, progress) or _build(recipe, home, progress)
        _prune(cache)
        return found
    except OSError as err:
        cure = f"; make room, or give another place than {cache}" if err.errno == 28 else ""
        raise RootfsError(f"root file system in {home}: {err.strerror}: {err.filename or ''}{cure}") from err


@contextlib.contextmanager
def locked(home: str) -> Iterator[None]:
    """One builder at a time; the lock is the kernel's, and goes with its process."""
    fd = os.open(f"{home}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        os.utime(fd)  # when it was last wanted
        yield
    finally:
        os.close(fd)


def _prune(cache: str) -> None:
    """Roots that nobody has wanted for OLD seconds go, 2 GB each: those of other versions of a recipe."""
    for name in os.listdir(cache):
        path = os.path.join(cache, name)
        if not name.endswith(".lock") or time.time() - os.stat(path).st_mtime < OLD:
            continue
        with open(path, "rb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue  # it is being built
            shutil.rmtree(path.removesuffix(".lock"), ignore_errors=True)  # the lock stays: somebody may wait for it


def _there(home: str, progress: Progress) -> Rootfs | None:
    try:
        with open(os.path.join(home, "made.json"), encoding="utf-8") as file:
            facts = json.load(file)
    except FileNotFoundError:
        return None
    root, linux = os.path.join(home, "root"), os.path.join(home, "linux")
    if digest(root) == facts["digest"]:
        return Rootfs(root, linux if os.path.isdir(linux) else "", facts)
    progress(f"{root} was written to since it was built: it is built anew")
    shutil.rmtree(home)
    return None


def digest(root: str) -> str:
    """Of the metadata of everything in ROOT: path, kind and mode, owner, size, device, time of last change."""
    found = []
    for top, _directories, names, fd in os.fwalk(root):
        for name in (".", *_directories, *names):
            info = os.stat(name, dir_fd=fd, follow_symlinks=False)
            row = (info.st_mode, info.st_uid, info.st_gid, info.st_size * (info.st_mode >> 12 != 4), info.st_rdev)
            found.append(f"{os.path.relpath(os.path.join(top, name), root)} {row} {info.st_mtime_ns}")
    return hashlib.sha256("\n".join(sorted(set(found))).encode("utf-8", "surrogateescape")).hexdigest()


def _build(recipe: Recipe, home: str, progress: Progress) -> Rootfs:
    partial = f"{home}.partial"  # ours alone: we have the lock
    shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(home, ignore_errors=True)  # one without its made.json
    free = os.statvfs(os.path.dirname(home))
    if recipe.packages and free.f_bavail * free.f_frsize < NEEDED:
        here = os.path.dirname(home)
        raise RootfsError(f"the root file system needs {NEEDED >> 30} GiB in {here}: {_left(free)} are free; make room")
    os.mkdir(partial)
    try:
        root = os.path.join(partial, "root")
        _install(recipe, root, progress)
        for place in PLACES:
            os.makedirs(os.path.join(root, place), exist_ok=True)
        _devices(os.path.join(root, "dev"))
        compile_static(root + TIMED, SOURCE)
        if KERNEL in recipe.packages:
            progress("unpacking the kernel's source")
            _unpack(root, os.path.join(partial, "linux"))
        facts = {**dataclasses.asdict(recipe), "versions": _versions(root), "digest": digest(root)}
        with open(os.path.join(partial, "made.json"), "w", encoding="utf-8") as file:
            json.dump(facts, file, indent=1)
        os.sync()
        os.rename(partial, home)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    linux = os.path.join(home, "linux")
    return Rootfs(os.path.join(home, "root"), linux if os.path.isdir(linux) else "", facts)


def _left(free: os.statvfs_result) -> str:
    return f"{free.f_bavail * free.f_frsize / (1 << 30):.1f} GiB"


def _install(recipe: Recipe, root: str, progress: Progress) -> None:
    """By minictr's own command, whose reason is the one that is told."""
    command = [sys.executable, "-m", "minictr", "rootfs"]
    if recipe.packages:
        command += ["debian", root, "--quiet", "--suite", recipe.suite, "--include", ",".join(recipe.packages)]
        progress(f"building a root file system of Debian {recipe.suite}, with {len(recipe.packages)} packages")
    else:
        command += ["minimal", root, *recipe.programs]
    checked(command, "root file system")


def checked(command: list[str], what: str) -> None:
    """COMMAND to its end. Raises RootfsError, WHAT and the command's last line, when it fails."""
    done = subprocess.run(command, cwd="/", env=environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip() or f"left with {done.returncode}").splitlines()
        raise RootfsError(f"{what}: {said[-1].removeprefix('minictr: ')[-MOST_SAID:]}")


def _devices(directory: str) -> None:
    """The devices that a chroot finds, where the root has none of its own: mem(4)."""
    for name, minor in DEVICES:
        path = os.path.join(directory, name)
        if not os.path.lexists(path):
            os.mknod(path, stat.S_IFCHR, os.makedev(1, minor))
            os.chmod(path, 0o666)


def compile_static(output: str, source: str, *others: str) -> None:
    """The program OUTPUT of the C file SOURCE and OTHERS, which no library is needed for. Raises RootfsError."""
    name, compiler = os.path.basename(source), shutil.which(os.environ.get("CC", "cc"))
    if not compiler:
        raise RootfsError(f"no C compiler for the bench's own {name}: install gcc, or name one in CC")
    checked([compiler, *C_FLAGS, "-static", "-s", "-o", output, source, *others], f"compile {name}")


def _unpack(root: str, target: str) -> None:
    """The source out of ROOT, unpacked at TARGET: what is compiled is an input, and no part of the root's bytes."""
    archive = os.path.join(root, "usr/src", f"{KERNEL}.tar.xz")
    os.mkdir(target)
    checked(["tar", "-C", target, "--strip-components=1", "-xf", archive], f"unpack {KERNEL}")
    os.remove(archive)


def _versions(root: str) -> dict[str, str]:
    """Package to version, as dpkg has it in there."""
    if not os.path.isdir(os.path.join(root, "var/lib/dpkg")):
        return {}
    command = ["dpkg-query", f"--admindir={root}/var/lib/dpkg", "-W", "-f", "${Package} ${Version}\n"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)
