"""File capabilities as the kernel keeps them, and a tree searched for them that does not want to be."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

from minictr.errors import SpecError, StepFailed
from minictr.kernel import mounts
from minictr.kernel.file_capabilities import MOUNT, FileCapabilities, get, privileged_files

V2 = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)  # cap_net_raw=ep
NET_RAW = FileCapabilities(("NET_RAW",), (), True)


def v3(rootid: int) -> bytes:
    return struct.pack("<6I", 0x03000001, 1 << 13, 0, 0, 0, rootid)


@pytest.fixture
def root(place: Path, requires: Any) -> Path:
    requires.root()
    for name in ("bin", "bin/deep", "etc"):
        (place / name).mkdir()
    for name in ("bin/plain", "bin/capable", "bin/setuid", "bin/deep/setgid", "bin/locking", "etc/v3"):
        (place / name).write_bytes(b"\x7fELF")
        (place / name).chmod(0o755)
    os.setxattr(place / "bin/capable", "security.capability", V2)
    os.setxattr(place / "etc/v3", "security.capability", v3(1000))
    (place / "bin/setuid").chmod(0o4711)
    os.chown(place / "bin/deep/setgid", 3, 4)
    (place / "bin/deep/setgid").chmod(0o2755)
    (place / "bin/locking").chmod(0o2644)
    return place


def test_every_file_that_gives_something(root: Path) -> None:
    found = privileged_files(str(root))
    assert found.complete and found.left_out == () and found.looked_at == 9
    rows = {file.path: file for file in found.files}
    assert list(rows) == ["/bin/capable", "/bin/deep/setgid", "/bin/setuid", "/etc/v3"]
    assert rows["/bin/capable"].capabilities == NET_RAW and not rows["/bin/capable"].setuid
    assert rows["/etc/v3"].capabilities == NET_RAW.replace(revision=3, rootid=1000)
    assert (rows["/bin/setuid"].setuid, rows["/bin/setuid"].setgid, rows["/bin/setuid"].uid) == (True, False, 0)
    assert [getattr(rows["/bin/deep/setgid"], name) for name in ("setuid", "setgid", "uid", "gid")] == [
        False,
        True,
        3,
        4,
    ]
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
    try:
        assert privileged_files(fd) == found
        os.fstat(fd)  # it stays the caller's
    finally:
        os.close(fd)


def test_one_file(root: Path) -> None:
    assert get(str(root / "bin/capable")) == NET_RAW and get(str(root / "bin/plain")) is None
    (root / "link").symlink_to("bin/capable")
    assert get(str(root / "link")) is None
    for flags in (os.O_PATH, os.O_RDONLY):
        fd = os.open(root / "bin/capable", flags)
        assert get(fd) == NET_RAW
        os.close(fd)
    with pytest.raises(StepFailed, match="ENOENT"):
        get(str(root / "nosuch"))


def test_the_kernel_keeps_no_malformed_one_but_an_empty_one(root: Path) -> None:
    program = root / "bin/plain"
    for wrong in (V2[:-1], V2 + b"\0", b"\0" * 20, struct.pack("<5I", 0x04000001, 1, 0, 0, 0)):
        with pytest.raises(OSError, match="Invalid argument"):
            os.setxattr(program, "security.capability", wrong)
    shutil.copy("/bin/true", program)
    os.setxattr(program, "security.capability", b"")
    with pytest.raises(SpecError, match="cannot make sense"):
        get(str(program))
    with pytest.raises(OSError, match="Invalid argument"):
        subprocess.run([program], check=False)
    found = {file.path: file for file in privileged_files(str(root)).files}["/bin/plain"]
    assert found.capabilities is None and "cannot make sense" in found.malformed


def test_as_getcap_shows_them(root: Path) -> None:
    if shutil.which("getcap") is None:
        pytest.skip("libcap2-bin is not installed")
    for text in ("cap_kill,cap_chown=ep", "cap_kill=ei", "cap_sys_admin=p", "cap_bpf,cap_checkpoint_restore=eip"):
        subprocess.run(["setcap", text, root / "bin/plain"], check=True)
        told = subprocess.run(["getcap", "-n", root / "bin/plain"], check=True, capture_output=True, text=True).stdout
        assert str(get(str(root / "bin/plain"))) == told.strip().partition(" ")[2]
    told = subprocess.run(["getcap", "-n", root / "etc/v3"], check=True, capture_output=True, text=True).stdout
    assert str(get(str(root / "etc/v3"))) == told.strip().partition(" ")[2]


def test_nothing_leads_out_of_the_tree(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "setuid").write_bytes(b"")
    (outside / "setuid").chmod(0o4755)
    (root / "absolute").symlink_to(outside)
    (root / "upwards").symlink_to("../outside")
    (root / "file").symlink_to(outside / "setuid")
    (root / "loop").symlink_to(".")
    os.mkfifo(root / "fifo", 0o4777)
    os.mknod(root / "device", 0o024755, os.makedev(1, 3))
    found = privileged_files(str(root))
    assert found.complete and {file.path for file in found.files} == {
        "/bin/capable", "/bin/deep/setgid", "/bin/setuid", "/etc/v3",
    }  # fmt: skip


def test_what_is_mounted_is_left_out(root: Path, in_child: Any, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(root / "bin", other)
    (other / "setuid").chmod(0o4755)

    def body() -> Any:
        (root / "data").mkdir()
        (root / "bound").touch()
        mounts.bind(str(other), str(root / "data"))
        mounts.bind(str(other / "setuid"), str(root / "bound"))
        return privileged_files(str(root))

    found = in_child(body)
    assert found.left_out == (("/bound", MOUNT), ("/data", MOUNT)) and found.complete
    assert not [file.path for file in found.files if file.path.startswith(("/data", "/bound"))]


def test_what_is_too_deep_or_closed_or_late_is_told(root: Path, as_nobody: Any) -> None:
    fd = os.open(root, os.O_RDONLY)
    try:
        for _ in range(300):  # no path is as long as that: each from its own descriptor
            os.mkdir("d", dir_fd=fd)
            below = os.open("d", os.O_RDONLY, dir_fd=fd)
            os.close(fd)
            fd = below
        os.mknod("setuid", 0o104755, dir_fd=fd)
    finally:
        os.close(fd)
    found = privileged_files(str(root))
    assert not found.complete and found.left_out == (("/d" * 256, "deeper than 256 directories"),)
    assert len(found.files) == 4
    (root / "etc").chmod(0o700)
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
    found = as_nobody(lambda: privileged_files(fd))
    os.close(fd)
    assert ("/etc", "Permission denied") in found.left_out and len(found.files) == 3
    late = privileged_files(str(root), timeout=-1)
    assert late.files == () and not late.complete and "time was over" in late.left_out[0][1]
    shutil.rmtree(root / "d", ignore_errors=True)
    subprocess.run(["rm", "-rf", root / "d"], check=True)
    with pytest.raises(StepFailed, match="ENOENT"):
        privileged_files(str(root / "nosuch"))
    with pytest.raises(StepFailed, match="ENOTDIR|ELOOP"):
        privileged_files(str(root / "bin/plain"))


def test_descriptors_come_back_and_progress_is_told(root: Path) -> None:
    told: list[tuple[int, str]] = []
    before = os.listdir("/proc/self/fd")
    privileged_files(str(root), progress=lambda names, directory: told.append((names, directory)))
    privileged_files(str(root), timeout=-1)
    assert os.listdir("/proc/self/fd") == before
    assert {directory for _, directory in told} == {"/", "/bin", "/bin/deep", "/etc"}


def test_a_tree_that_changes_meanwhile(root: Path, tmp_path: Path) -> None:
    """A directory and a link out take each other's place, over and over: what is outside is never told."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"")
    (outside / "secret").chmod(0o4755)
    (root / "swap").mkdir()
    (root / "other").symlink_to(outside)
    code = (
        "import ctypes, sys\n"
        "libc = ctypes.CDLL(None)\n"
        "one, two = (name.encode() for name in sys.argv[1:])\n"
        "print('on', flush=True)\n"
        "while True: libc.renameat2(-100, one, -100, two, 2)\n"  # RENAME_EXCHANGE
    )
    import sys

    command = [sys.executable, "-c", code, str(root / "swap"), str(root / "other")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as swapping:
        try:
            assert swapping.stdout is not None and swapping.stdout.readline()
            for _ in range(300):
                found = privileged_files(str(root))
                assert not [file.path for file in found.files if "secret" in file.path]
        finally:
            swapping.kill()
