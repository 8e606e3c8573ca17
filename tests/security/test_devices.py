"""Device nodes and file handles: what of the host is reached by a number instead of a name."""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

import minictr as mc
from minictr.runtime import join

# what a host has that nobody inside may open: disks first, as debugfs(8) would have it
WANTED = ("/dev/vda", "/dev/sda", "/dev/nvme0n1", "/dev/zram0", "/dev/loop0", "/dev/kvm", "/dev/fuse", "/dev/net/tun")


@pytest.fixture(scope="session")
def disk() -> str:
    """ "b 254 0": a device of the host's that the host can open."""
    for path in WANTED:
        try:
            os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
        except OSError:
            continue
        info = os.stat(path)
        kind = "b" if stat.S_ISBLK(info.st_mode) else "c"
        return f"{kind} {os.major(info.st_rdev)} {os.minor(info.st_rdev)}"
    pytest.skip(f"not exercisable here: of {', '.join(WANTED)} none can be opened by the host itself")


def node(path: Path, numbers: str) -> None:
    kind, major, minor = numbers.split()
    mode = stat.S_IFBLK if kind == "b" else stat.S_IFCHR
    os.mknod(path, mode | 0o666, os.makedev(int(major), int(minor)))
    path.chmod(0o666)


def opened(box: mc.Container, path: str) -> str:
    done = box.run(["/bin/files", "device", path, "-", "0", "0"], capture_output=True, text=True)
    return "" if done.stdout.startswith("ok") else str(done.stdout).strip()


ROWS = ((0, 200_000, 1000),)
WAYS: dict[str, Callable[[mc.Container], mc.Container]] = {
    "root": lambda box: box,
    "a user": lambda box: box.with_(mc.Identity("1000:1000")),
    "an overlay": lambda box: box.with_(mc.Overlay()),
    "a mapped root": lambda box: box.with_(mc.UserNamespace(uid_map=ROWS, gid_map=ROWS)),
    "every capability": lambda box: box.without("capabilities", "seccomp", "no_new_privs"),
    "a chroot": lambda box: box.without("pivot_root").with_(mc.Chroot()),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_node_of_the_image(tiny, disk, way):
    """A node of the host's disk that the image holds cannot be opened. CVE-2020-2023; docker: the devices group.

    Weakened: without `nodev` it is the host's disk, whoever opens it.
    """
    node(tiny / "disk", disk)
    tiny.parent.chmod(0o755)
    box = WAYS[way](mc.Container(tiny))
    assert "ermission denied" in opened(box, "/disk")
    assert opened(box.without("nodev"), "/disk") == ""


def test_a_node_of_the_image_for_who_joins(tiny, disk):
    """`exec` sees the same mounts. CVE-2020-2023. Weakened: without `nodev` it opens the host's disk."""
    node(tiny / "disk", disk)
    for box, told in (
        (mc.Container(tiny), "open: Permission denied\n"),
        (mc.Container(tiny).without("nodev"), "ok open"),
    ):
        with box.popen(["/bin/files", "overwrite", "/bin/files"], stdin=mc.PIPE, stdout=mc.DEVNULL) as process:
            target = join.Target(process.pid, box.spec(), process.pidfd)
            tried = ["/bin/files", "device", "/disk", "-", "0", "0"]
            assert join.exec_run(target, tried, capture_output=True, text=True).stdout.startswith(told)


def test_a_node_of_a_volume(tiny, disk, tmp_path):
    """A node that somebody left in a volume cannot be opened. CVE-2020-2023. Weakened: with `dev` it can."""
    (tmp_path / "volume").mkdir()
    node(tmp_path / "volume/disk", disk)
    box = mc.Container(tiny)
    assert "ermission denied" in opened(box.with_(mc.Bind(str(tmp_path / "volume"), "/mnt")), "/mnt/disk")
    assert opened(box.with_(mc.Bind(str(tmp_path / "volume"), "/mnt", dev=True)), "/mnt/disk") == ""


def test_a_node_of_the_image_under_a_device_list(tiny, disk, not_exercisable):
    """Where `nodev` gives way, docker's list of devices stands. CVE-2020-2023. Weakened: with none it opens."""
    if not mc.support("devices"):
        not_exercisable("no device list can be had")
    node(tiny / "disk", disk)
    box = mc.Container(tiny).without("nodev")
    assert "not permitted" in opened(box.with_(mc.Devices()), "/disk")
    assert opened(box.with_(mc.Devices(())), "/disk") == ""


@pytest.mark.parametrize("numbers", ["b 254 0", "c 1 1", "c 10 229", "b 8 0", "c 10 232"])
def test_making_devices(box, sh, numbers):
    """No node can be made inside. CVE-2020-2023."""
    open_tmp = box.with_(mc.Tmpfs("/tmp", options=("dev",)))
    assert "not permitted" in sh(open_tmp, f"mknod /tmp/node {numbers} 2>&1", code=1)


def test_making_devices_with_the_capability(den, attempt, powerful, disk):
    """Weakened by CAP_MKNOD: the node is made, and opens only where a mount lets nodes be opened. CVE-2020-2023."""
    may = powerful(mc.Container(den), "MKNOD")
    assert "open: Permission denied" in attempt(may.with_(mc.Overlay()), f"device /disk {disk}", program="files")
    assert "open: Permission denied" in attempt(
        may.with_(mc.Tmpfs("/tmp")), f"device /tmp/disk {disk}", program="files"
    )
    assert attempt(may.with_(mc.Tmpfs("/tmp", options=("dev",))), f"device /tmp/disk {disk}", program="files") == ""
    assert attempt(may.without("nodev").with_(mc.Overlay()), f"device /disk {disk}", program="files") == ""


def test_device_files_of_the_host_are_not_there(box, sh):
    """Of the host's nodes six harmless ones are in /dev. Weakened: with the host's /dev all are. CVE-2020-2023."""
    look = "ls /dev/[svh]d* /dev/mem /dev/kmsg /dev/fuse /dev/kvm /dev/net /dev/loop0 2>/dev/null; true"
    assert sh(box, look) == ""
    assert sh(box.without("dev", "devpts", "shm", "mqueue").with_(mc.Bind("/dev", "/dev")), look) != ""


# --- file handles ---


class Handle(ctypes.Structure):
    """struct file_handle of name_to_handle_at(2)."""

    _fields_ = [("bytes", ctypes.c_uint), ("type", ctypes.c_int), ("data", ctypes.c_ubyte * 128)]


def handle_of(path: Path) -> str:
    """ "TYPE HEX" of the host's file PATH."""
    handle, mount = Handle(bytes=128), ctypes.c_int()
    libc = ctypes.CDLL(None, use_errno=True)
    made = libc.name_to_handle_at(-100, os.fsencode(path), ctypes.byref(handle), ctypes.byref(mount), 0)
    assert made == 0, os.strerror(ctypes.get_errno())
    return f"{handle.type} {bytes(handle.data[: handle.bytes]).hex()}"


def test_files_by_handle(den, trap, attempt, powerful, sh):
    """ "Shocker": no file of the host's can be opened by its number. CVE-2014-3519; open_by_handle_at(2).

    Weakened: with CAP_DAC_READ_SEARCH the host's secret is read, for the root is on the same file system.
    """
    words = f"handle / {handle_of(trap / 'secret')}"
    box = mc.Container(den)
    assert "not permitted" in attempt(box, words, program="files")
    told = powerful(box, "DAC_READ_SEARCH").run(["files", *words.split()], capture_output=True, text=True)
    assert told.stdout == "ok secret of the host\n"
