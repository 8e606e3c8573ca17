"""QEMU with a kernel of Debian's: two processors, all controllers, nftables, PSI; the host's files by virtiofs.

virtiofsd hands out the host's root, which bwrap(1) has made read-only for it, and the guest's temporary files are on a
disk with ext4. KVM is used where a guest boots with it; where /dev/kvm is there but no guest does, as inside some
virtual machines, QEMU translates every instruction itself: some 15 times slower than the machine.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from kernels import Kernel, NoKernel, call, kernel
from watching import Guard, watch

__all__ = ["BOOTING", "SETTINGS", "NoKernel", "booted", "place"]

MEMORY = 1536 << 20
SCRATCH, SWAP, TEMPORARY = 32 << 20, 64 << 20, 4 << 30  # bytes of each disk; files with holes
BOOTING = 120.0  # seconds a boot and a halt may take on top of the command's deadline; measured: 4, translated
PROBING = 10.0  # seconds until a guest has to live with KVM; it takes one
SETTINGS = {"SWAP": "/dev/vdb", "TEMPORARY": "/dev/vdc"}
PROGRAMS = ("qemu-system-x86_64", "virtiofsd", "bwrap", "mke2fs")

# cx16 keeps distribution kernels from booting on what QEMU 7.2 translates
ACCELERATORS = {"kvm": ("-accel", "kvm", "-cpu", "host"), "tcg": ("-accel", "tcg,thread=multi", "-cpu", "max,-cx16")}


def place() -> str:
    """Where its directory is. The memory of a guest is no file of any directory (memfd_create(2))."""
    return tempfile.gettempdir()


def program(name: str) -> str:
    """Its path; daemons are in no PATH. Raises NoKernel."""
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin:/usr/libexec:/usr/lib/qemu"
    found = shutil.which(name, path=path)
    if not found:
        raise NoKernel(f"not installed: {name}; scripts/bootstrap.sh matrix installs it")
    return found


def command(chosen: Kernel, accelerator: str, console: Path, words: str) -> list[object]:
    """QEMU's beginning: a machine with a kernel and nothing else. It ends when the guest halts, reboots or panics."""
    return [
        *(program("qemu-system-x86_64"), "-M", "q35,memory-backend=memory", *ACCELERATORS[accelerator]),
        *("-smp", 2, "-m", f"{MEMORY >> 20}M", "-object"),
        f"memory-backend-memfd,id=memory,size={MEMORY >> 20}M,share=on",
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", f"file:{console}"),
        *("-kernel", chosen.image, "-initrd", chosen.initrd, "-device", "virtio-rng-pci"),
        # the kernel gives the timer ten ticks of its own to show that it works, which a loaded machine has not
        *("-append", f"console=ttyS0 no_timer_check loglevel=4 panic=-1 oops=panic {words}"),
    ]


@functools.cache
def accelerator(chosen: Kernel) -> str:
    """``kvm`` when this kernel lives with it, else ``tcg``. Told by booting: the device's node says nothing."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    with tempfile.TemporaryDirectory(prefix="minictr-guest-") as name, Guard(name) as guard:
        console = Path(name) / "console"
        line = command(chosen, "kvm", console, "PROBE=1")
        with guard.started(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            watch(process, console, PROBING)
        return "kvm" if console.exists() and b"minictr-guest-alive" in console.read_bytes() else "tcg"


@contextlib.contextmanager
def shares(exchange: Path, guard: Guard) -> Iterator[list[object]]:
    """Two file systems for the guest, ``root`` and ``exchange``: QEMU's options. The daemons end with QEMU."""
    daemon = program("virtiofsd")
    read_only = [program("bwrap"), "--die-with-parent", "--unshare-pid", "--ro-bind", "/", "/"]
    read_only += ["--dev-bind", "/dev", "/dev", "--proc", "/proc", "--"]
    options: list[object] = []
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(open(exchange / "virtiofsd", "ab"))
        for tag, source, cached, prefix in (
            ("root", Path("/"), "always", read_only),
            ("exchange", exchange / "shared", "auto", []),
        ):
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(str(exchange / tag))
            listener.listen(1)
            serve = [*prefix, daemon, f"--fd={listener.fileno()}", "--rlimit-nofile=0", "--thread-pool-size=0"]
            serve += ["-o", f"source={source},cache={cached},sandbox=chroot"]
            stack.enter_context(guard.started(serve, pass_fds=[listener.fileno()], stdout=log, stderr=log))
            options += ["-chardev", f"socket,id={tag},path={exchange / tag}"]
            options += ["-device", f"vhost-user-fs-pci,chardev={tag},tag={tag}"]
        yield options


@contextlib.contextmanager
def booted(exchange: Path, suite: str, init: str, guard: Guard) -> Iterator[subprocess.Popen[bytes]]:
    """QEMU, with what the guest's kernel writes in ``exchange/console``. Raises NoKernel."""
    if os.geteuid() != 0:
        raise NoKernel("virtiofsd hands out the host's files for root only")
    for name in PROGRAMS:
        program(name)
    chosen = kernel(suite)
    disks = (("scratch", SCRATCH), ("swap", SWAP), ("temporary", TEMPORARY))
    for disk, size in disks:
        with open(exchange / disk, "wb") as file:
            file.truncate(size)
    # no journal: this file system does not outlive its guest
    call("mke2fs", "-q", "-F", "-t", "ext4", "-O", "^has_journal", "-E", "root_owner=0:0", str(exchange / "temporary"))
    words = f"hugepages=16 MODULES={chosen.modules} INIT={init}"
    with open(exchange / "console", "ab") as console, shares(exchange, guard) as options:
        line = command(chosen, accelerator(chosen), exchange / "console", words) + options
        for disk, _ in disks:
            line += ["-drive", f"file={exchange / disk},if=virtio,format=raw,cache=unsafe"]
        with guard.started(line, stdout=console, stderr=subprocess.STDOUT) as process:
            yield process
