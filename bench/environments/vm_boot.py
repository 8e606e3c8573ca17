"""What a virtual machine is made of: a kernel with the modules it needs, an initial file system, disks.

The kernel is the machine's own where its image and modules lie in their usual places, so that it is the same code that
all other arms run on; else Debian's cloud kernel, from the archive, kept beside the root file system::

    /var/cache/minictr-bench/KEY/vmlinuz
                                 modules/      those of MODULES and what they need, their order in their names
                                 release       what uname -r will tell
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import lzma
import os
import shutil
import subprocess
import sys
import tempfile

from bench import rootfs
from bench.environments.base import EnvironmentBroken
from bench.rootfs import Progress, RootfsError, checked, compile_static, locked

HERE = os.path.dirname(os.path.abspath(__file__))
INIT = tuple(os.path.join(HERE, name) for name in ("vm_init.c", "vm_requests.c"))
PACKAGE, SUITE = "linux-image-cloud-amd64", "bookworm"
VERSION = "1"  # of how the kernel is kept: another number is another directory
MODULES = ("virtio_pci", "virtio_blk", "virtio_net", "virtio_console", "virtio_rng", "ext4")
SPARE = 16 << 30  # bytes that a job may write to a disk, beside what is on it: a hole until then
INODES = 1 << 20  # and files that it may make
SLACK = 64 << 20  # of a disk that nobody writes to
PAGE = 4096
DISK_WITHIN = 1800.0  # seconds to make a disk
UNPACK = {".xz": lzma.decompress, ".gz": gzip.decompress}


@dataclasses.dataclass(frozen=True)
class Kernel:
    """``release``: as uname -r tells it; ``modules``: paths, each behind those that it needs."""

    release: str
    image: str
    modules: tuple[str, ...]


def kernel(*, boot: str = "/boot", modules: str = "", cache: str = "", progress: Progress = rootfs.silent) -> Kernel:
    """The kernel that runs here, or Debian's. Raises EnvironmentBroken when neither can be had.

    BOOT, MODULES: where the images and the modules of the machine's own kernels are: / of the latter by default.
    """
    release = os.uname().release
    image = os.path.join(boot, f"vmlinuz-{release}")
    if os.access(image, os.R_OK) and os.path.isdir(os.path.join(modules or "/", "lib/modules", release)):
        try:
            return Kernel(release, image, needed(modules or "/", release))
        except EnvironmentBroken as err:
            progress(f"the machine's own kernel does not do for a virtual machine: {err}")
    return debian(cache or rootfs.CACHE, progress)


def needed(tree: str, release: str) -> tuple[str, ...]:
    """The files of MODULES, and what stands below them, in the order to load them: as modprobe(8) has it."""
    found: dict[str, None] = {}
    for name in MODULES:
        words = ["modprobe", "-d", tree, "-S", release, "--show-depends", name]
        try:
            done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
        except (OSError, subprocess.TimeoutExpired) as err:
            raise EnvironmentBroken(f"modules of Linux {release}: {err}: scripts/bootstrap.sh bench") from err
        if done.returncode:
            raise EnvironmentBroken(f"Linux {release} has no {name}: {done.stderr.strip()}")
        rows = [line.split() for line in done.stdout.splitlines()]
        found |= {row[1]: None for row in rows if row[0] == "insmod"}
    return tuple(found)


def debian(cache: str, progress: Progress = rootfs.silent) -> Kernel:
    """Debian's cloud kernel, kept in CACHE: fetched once, by the command that builds root file systems."""
    parts = "\0".join((VERSION, SUITE, PACKAGE, *MODULES))
    home = os.path.join(cache, hashlib.sha256(parts.encode()).hexdigest()[:12])
    try:
        os.makedirs(cache, exist_ok=True)
        with locked(home):
            if not os.path.exists(os.path.join(home, "release")):
                progress(f"fetching Debian's {PACKAGE} for the virtual machine")
                _fetch(home)
            with open(os.path.join(home, "release"), encoding="ascii") as file:
                release = file.read()
            names = sorted(os.listdir(os.path.join(home, "modules")))
    except (OSError, RootfsError) as err:
        raise EnvironmentBroken(f"no kernel for a virtual machine in {home}: {err}") from err
    modules = tuple(os.path.join(home, "modules", name) for name in names)
    return Kernel(release, os.path.join(home, "vmlinuz"), modules)


def _fetch(home: str) -> None:
    """The package and what it depends on, unpacked and not installed; the kernel and its modules are kept of it."""
    partial = f"{home}.partial"  # ours alone: we have the lock
    for old in (partial, home):
        shutil.rmtree(old, ignore_errors=True)
    os.mkdir(partial)
    try:
        with tempfile.TemporaryDirectory(prefix="unpacked-", dir=partial) as place:
            tree = os.path.join(place, "root")
            command = [sys.executable, "-m", "minictr", "rootfs", "debian", tree, "--quiet", "--suite", SUITE]
            checked([*command, "--variant", "extract", "--include", PACKAGE], PACKAGE)
            (release,) = os.listdir(os.path.join(tree, "lib/modules"))
            checked(["depmod", "-b", tree, release], "modules")
            os.mkdir(os.path.join(partial, "modules"))
            for at, path in enumerate(needed(tree, release)):
                shutil.copyfile(path, os.path.join(partial, "modules", f"{at:02}-{os.path.basename(path)}"))
            shutil.copyfile(os.path.join(tree, "boot", f"vmlinuz-{release}"), os.path.join(partial, "vmlinuz"))
        with open(os.path.join(partial, "release"), "w", encoding="ascii") as file:
            file.write(release)
        os.sync()
        os.rename(partial, home)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def initial(path: str, modules: tuple[str, ...]) -> None:
    """Write PATH, an archive with the first program and MODULES: newc of cpio(5), which the kernel unpacks.

    Raises RootfsError, OSError.
    """
    program = f"{path}.init"
    compile_static(program, *INIT)
    try:
        with open(program, "rb") as file:
            rows = [("init", 0o100755, file.read(), (0, 0))]
    finally:
        os.unlink(program)
    rows += [(name, 0o040755, b"", (0, 0)) for name in ("dev", "proc", "sys", "root", "modules")]
    rows += [("dev/console", 0o020600, b"", (5, 1))]
    for at, module in enumerate(modules):
        name, data = _module(module)
        rows.append((f"modules/{at:02}-{name}", 0o100644, data, (0, 0)))
    with open(path, "wb") as file:
        for inode, (name, mode, data, device) in enumerate((*rows, ("TRAILER!!!", 0, b"", (0, 0))), 1):
            fields = (inode, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(name) + 1, 0)
            head = b"070701" + "".join(f"{field:08x}" for field in fields).encode() + name.encode() + b"\0"
            file.write(_padded(head) + _padded(data))


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _module(path: str) -> tuple[str, bytes]:
    """The name and the bytes of a module, as the kernel takes it: distributions keep them compressed."""
    stem, suffix = os.path.splitext(path)
    if suffix == ".zst":
        done = subprocess.run(["zstd", "-dcq", "--", path], capture_output=True, check=False)
        if done.returncode:
            raise OSError(0, done.stderr.decode(errors="replace").strip(), path)
        return os.path.basename(stem), done.stdout
    with open(path, "rb") as file:
        data = file.read()
    if suffix in UNPACK:
        return os.path.basename(stem), UNPACK[suffix](data)
    return os.path.basename(path), data


def disk(path: str, source: str, *, readonly: bool = False) -> None:
    """Make PATH an image of ext4 with what is in the directory SOURCE: owners, modes, times, links and devices too.

    The file has holes where nothing is, and is written out when this returns. Raises EnvironmentBroken, leaves nothing.
    """
    used, entries = _extent(source)
    size = used + used // 4 + (SLACK if readonly else SPARE)
    inodes = entries + entries // 4 + (1024 if readonly else INODES)
    command = ["mke2fs", "-q", "-F", "-t", "ext4", "-b", str(PAGE), "-m", "0", "-N", str(inodes), "-d", source]
    command += ["-E", "lazy_itable_init=1,lazy_journal_init=1,root_owner=0:0", path, f"{size // 1024}k"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=DISK_WITHIN)
        said = done.stderr.strip().splitlines()
        if done.returncode:
            raise EnvironmentBroken(f"mke2fs of {source}: {said[-1] if said else f'left with {done.returncode}'}")
        with open(path, "rb") as file:
            os.fsync(file.fileno())
    except (OSError, subprocess.TimeoutExpired) as err:
        _gone(path)
        raise EnvironmentBroken(f"disk of {source}: {err}") from err
    except BaseException:
        _gone(path)
        raise


def _gone(path: str) -> None:
    if os.path.exists(path):
        os.unlink(path)


def _extent(directory: str) -> tuple[int, int]:
    """The bytes on disk of what is in DIRECTORY, each entry a page at least, and how many entries there are."""
    used, entries, ahead = 0, 0, [directory]
    while ahead:
        with os.scandir(ahead.pop()) as found:
            for entry in found:
                info = entry.stat(follow_symlinks=False)
                used, entries = used + max(info.st_blocks * 512, PAGE), entries + 1
                if entry.is_dir(follow_symlinks=False):
                    ahead.append(entry.path)
    return used, entries


def fetch(image: str, inside: str, target: str) -> None:
    """Copy INSIDE, a file or a directory on the ext4 of IMAGE that nobody has mounted, to TARGET: by debugfs(8).

    Raises EnvironmentBroken when it is not there, or does not come out whole.
    """
    kind = _asked(image, f'stat "{inside}"')
    if "Type: directory" in kind:
        with tempfile.TemporaryDirectory(prefix="out-", dir=os.path.dirname(image)) as place:
            _asked(image, f'rdump "{inside}" "{place}"')
            os.rename(os.path.join(place, os.path.basename(inside)), target)
    elif "Type: regular" in kind:
        _asked(image, f'dump -p "{inside}" "{target}"')
        size = int(kind.partition("Size: ")[2].split()[0])
        if os.path.getsize(target) != size:
            raise EnvironmentBroken(f"{inside} of {image}: {os.path.getsize(target)} of {size} bytes came out")
    else:
        raise EnvironmentBroken(f"no file or directory {inside} on the machine's disk")


def _asked(image: str, request: str) -> str:
    """What debugfs answers. It always leaves with 0: what it says on standard error, but for its name, is an error."""
    done = subprocess.run(
        ["debugfs", "-R", request, image], capture_output=True, text=True, errors="replace", timeout=DISK_WITHIN
    )
    wrong = [line for line in done.stderr.splitlines() if not line.startswith("debugfs 1.")]
    if wrong or done.returncode:
        raise EnvironmentBroken(f"debugfs {request}: {'; '.join(wrong)[:300]}")
    return done.stdout
