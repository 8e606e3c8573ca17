"""Debian's kernels for QEMU guests: fetched once per machine, unpacked into the tests' cache, never installed.

A kernel is its image, its modules, and an initial file system that this module makes of them and of a static busybox:
it mounts the root that virtiofsd hands out and starts what the command line names.
"""

from __future__ import annotations

import contextlib
import fcntl
import lzma
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

sys.path.append(str(Path(__file__).resolve().parent.parent / "life"))

from debianroots import cache

from minictr.images import apt

META = "linux-image-cloud-amd64"
# What the meta package leads to, and is a kernel: an image, since 7.0 with its modules in packages beside it.
PART = re.compile(r"^ +(?:Pre)?Depends: (linux-(?:base|binary|image|modules)-[0-9]\S+)$", re.MULTILINE)
MODULES = ("virtio_pci", "virtio_blk", "virtio_rng", "virtiofs", "overlay")
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"

# The first program of a guest. Words of the kernel's command line with a = are its environment.
INIT = """#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
[ -z "${PROBE-}" ] || { echo minictr-guest-alive; echo o >/proc/sysrq-trigger; /bin/busybox sleep 60; }
while read -r module; do /bin/busybox insmod "/modules/$module"; done </modules/order
/bin/busybox mount -t virtiofs -o ro root /root
/bin/busybox umount /proc
exec /bin/busybox switch_root /root "$INIT"
"""


class NoKernel(Exception):
    """A kernel cannot be had here; the reason is the text."""


class Kernel(NamedTuple):
    """``release`` as uname -r will tell; ``modules`` is what becomes /lib/modules."""

    release: str
    image: Path
    initrd: Path
    modules: Path


@contextlib.contextmanager
def made_once(path: Path) -> Iterator[Path | None]:
    """A directory to fill, which then becomes PATH; None when PATH is there. One session at a time does it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{path}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if path.is_dir():
            yield None
            return
        stage = Path(tempfile.mkdtemp(prefix=f"{path.name}.", dir=path.parent))
        try:
            yield stage
            stage.chmod(0o755)
            stage.rename(path)
        finally:
            shutil.rmtree(stage, ignore_errors=True)


def kernel(suite: str) -> Kernel:
    """The cloud kernel of SUITE (``bookworm``, ``bookworm-backports``), from the mirrors of the host's apt.

    Raises NoKernel: this is no Debian system, or the archive cannot be reached.
    """
    path = cache() / f"kernel-{suite}"
    try:
        with made_once(path) as stage:
            if stage:
                unpack(suite, stage)
                make_initrd(stage)
    except OSError as err:
        raise NoKernel(f"no kernel of {suite}: {err}") from err
    (image,) = path.glob("kernel/**/vmlinuz*")
    modules = path / "kernel" / "lib" / "modules"
    (release,) = os.listdir(modules)
    return Kernel(release, image, path / "initrd", modules)


def unpack(suite: str, stage: Path) -> None:
    """The newest cloud kernel of SUITE, unpacked into ``stage/kernel``."""
    paragraphs = [text for text in apt.sources(suite).split("\n\n") if f"\nSuites: {suite}\n" in text]
    if not paragraphs:
        raise NoKernel("the host's apt has no source of Debian's archive")
    keys = "" if "Signed-By" in paragraphs[0] else f"Signed-By: {KEYRING}\n"
    with tempfile.TemporaryDirectory(prefix="apt-", dir=stage) as name:
        place = Path(name)
        for directory in ("lists/partial", "archives/partial", "sources"):
            (place / directory).mkdir(parents=True)
        (place / "sources" / "debian.sources").write_text(paragraphs[0].rstrip("\n") + f"\n{keys}")
        settings = {
            "Dir::Etc::sourcelist": "/dev/null",
            "Dir::Etc::sourceparts": place / "sources",
            "Dir::State::lists": place / "lists",
            "Dir::Cache": place,
            "Acquire::Languages": "none",
            "APT::Sandbox::User": "root",
            "Acquire::Retries": 2,
        }
        options = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
        call("apt-get", *options, "update", "-q", "--error-on=any")
        parts, new = set[str](), {META}
        while new:
            parts |= new
            new = set(PART.findall(call("apt-cache", *options, "depends", *sorted(new)))) - parts
        call("apt-get", *options, "download", "-q", *sorted(parts - {META}), cwd=place)
        packages = sorted(place.glob("*.deb"))
        for package in packages:
            call("dpkg-deb", "-x", str(package), str(stage / "kernel"))
    tree = stage / "kernel"
    if not (tree / "lib").exists():
        (tree / "lib").symlink_to("usr/lib")
    for release in os.listdir(tree / "lib" / "modules"):
        call("depmod", "-b", str(tree), release)


def make_initrd(stage: Path) -> None:
    """``stage/initrd``: busybox, INIT, and the modules that stand between a kernel and its root."""
    tree = stage / "kernel"
    (release,) = os.listdir(tree / "lib" / "modules")
    with tempfile.TemporaryDirectory(prefix="initrd-", dir=stage) as name:
        place = Path(name)
        for directory in ("bin", "modules", "proc", "root", "dev"):
            (place / directory).mkdir()
        busybox = shutil.which("busybox")
        if not busybox:
            raise NoKernel("no busybox: scripts/bootstrap.sh matrix installs it")
        shutil.copy(busybox, place / "bin" / "busybox")
        order = []
        for wanted in MODULES:
            for line in call("modprobe", "-d", str(tree), "-S", release, "--show-depends", wanted).splitlines():
                kind, _, file = line.strip().partition(" ")
                if kind == "insmod" and (module := Path(file.split()[0])).name not in order:
                    data = module.read_bytes()
                    (place / "modules" / module.name).write_bytes(
                        lzma.decompress(data) if module.suffix == ".xz" else data
                    )
                    order.append(module.name)
        (place / "modules" / "order").write_text("".join(f"{name}\n" for name in order))
        (place / "init").write_text(INIT)
        (place / "init").chmod(0o755)
        names = "".join(f"{path.relative_to(place)}\n" for path in sorted(place.rglob("*")))
        archive = subprocess.run(
            ["cpio", "--quiet", "-o", "-H", "newc", "-R", "0:0"],
            cwd=place,
            input=names.encode(),
            capture_output=True,
            check=True,
            timeout=60,
        ).stdout
        (stage / "initrd").write_bytes(archive)


def call(*command: str, cwd: Path | None = None) -> str:
    """What COMMAND prints. Raises NoKernel with its last words."""
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    path = environment.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
    done = subprocess.run(
        [shutil.which(command[0], path=path) or command[0], *command[1:]],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=cwd,
        env=environment,
    )
    if done.returncode:
        raise NoKernel(f"{command[0]} {command[-1]}: {done.returncode}: {done.stderr.strip()[-500:]}")
    return done.stdout
