"""What of a file a copy keeps: kinds, owners, privilege, attributes, times; directly and by way of tar."""

from __future__ import annotations

import io
import os
import socket
import stat
import struct
import subprocess
import tarfile
from pathlib import Path

import pytest
from ends import Ends, names

import minictr as mc
from minictr.runtime.copying import (
    IdMap,
    copy_out,
    tar_in,
    tar_out,
)

CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)  # revision 2, effective, CAP_NET_BIND_SERVICE


def rich(directory: Path) -> None:
    """One of everything that can be in a directory."""
    (directory / "d").mkdir(mode=0o750)
    (directory / "f").write_bytes(b"text")
    os.setxattr(directory / "f", "user.note", b"\0\xff=%")
    os.link(directory / "f", directory / "hard")
    os.symlink("/nowhere", directory / "soft")
    os.mkfifo(directory / "fifo", 0o640)
    os.mknod(directory / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    with open(directory / "holes", "wb") as file:
        file.truncate(1 << 30)
        os.pwrite(file.fileno(), b"in the middle", 1 << 29)
    (directory / "d" / "su").write_text("")
    (directory / "d" / "mine").write_text("")
    os.chown(directory / "d" / "mine", 1234, 1235)
    os.chmod(directory / "d" / "su", 0o6755)
    os.chmod(directory / "d" / "mine", 0o6755)
    (directory / "cap").write_text("")
    os.setxattr(directory / "cap", "security.capability", CAPABILITY)
    (directory / "é\udcff\n").write_text("")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(directory / "socket"))
    for name in ("f", "soft", "fifo", "holes", "d"):
        os.utime(directory / name, ns=(1, 1_234_567_890_123_456_789), follow_symlinks=False)


def kept(directory: Path) -> None:
    """What every copy of :func:`rich` has kept."""
    assert (directory / "f").read_bytes() == b"text"
    assert os.getxattr(directory / "f", "user.note") == b"\0\xff=%"
    assert os.stat(directory / "f").st_ino == os.stat(directory / "hard").st_ino
    assert os.readlink(directory / "soft") == "/nowhere"
    assert os.lstat(directory / "fifo").st_mode == stat.S_IFIFO | 0o640
    holes = os.stat(directory / "holes")
    assert holes.st_size == 1 << 30
    assert holes.st_blocks < 1000
    with open(directory / "holes", "rb") as file:
        assert os.pread(file.fileno(), 13, 1 << 29) == b"in the middle"
    assert stat.S_IMODE(os.stat(directory / "d").st_mode) == 0o750
    assert (directory / "é\udcff\n").exists()
    for name in ("f", "soft", "fifo", "holes", "d"):
        assert os.lstat(directory / name).st_mtime_ns == 1_234_567_890_123_456_789, name
    assert not (directory / "socket").exists()
    assert not [name for name in names(directory) if "minictr" in name]


def owner(path: Path) -> tuple[int, int, int]:
    found = os.lstat(path)
    return found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)


@pytest.fixture
def house(ends: Ends, requires) -> Path:
    requires.root()
    (ends.source / "rich").mkdir()
    rich(ends.source / "rich")
    return ends.target / "rich"


def test_all_kinds_are_copied(ends: Ends, house: Path) -> None:
    done = ends.copy("rich", ".")
    kept(house)
    assert any(note.startswith("sockets left out: 1") for note in done.notes)
    assert done.files == 6
    assert owner(house / "soft")[:2] == (0, 0)
    if ends.inwards:
        assert os.lstat(house / "null").st_rdev == os.makedev(1, 3)
        assert os.getxattr(house / "cap", "security.capability") == CAPABILITY
        assert owner(house / "d/su") == (0, 0, 0o6755)  # root's program stays root's
    else:  # what gives privilege on the host does not come out
        assert not (house / "null").exists()
        assert "security.capability" not in os.listxattr(house / "cap")
        assert owner(house / "d/su") == (0, 0, 0o755)
    assert owner(house / "d/mine") == (0, 0, 0o755)  # and alice's does not become root's


def test_archive_keeps_owners(ends: Ends, house: Path) -> None:
    ends.copy("rich", ".", archive=True)
    kept(house)
    assert owner(house / "d/mine") == (1234, 1235, 0o6755)
    assert owner(house / "d/su") == (0, 0, 0o6755)
    assert os.lstat(house / "null").st_rdev == os.makedev(1, 3)
    assert os.getxattr(house / "cap", "security.capability") == CAPABILITY


MAP = IdMap(((0, 100_000, 65_536),), ((0, 200_000, 65_536),))


def test_root_inside_is_whom_the_map_says(ends: Ends, house: Path) -> None:
    ends.copy("rich", ".", id_map=MAP)
    if ends.inwards:
        assert owner(house / "d/mine")[:2] == owner(house)[:2] == owner(house / "soft")[:2] == (100_000, 200_000)
        value = os.getxattr(house / "cap", "security.capability")
        assert value == struct.pack("<I", 0x03000001) + CAPABILITY[4:] + struct.pack("<I", 100_000)
    else:
        assert owner(house / "d/mine")[:2] == (0, 0)


def test_archive_through_a_map(tmp_path: Path, requires) -> None:
    """Inside 1234 is 101234 outside; out again it is 1234, and capabilities are the host's."""
    requires.root()
    ends = Ends(tmp_path, inwards=True)
    try:
        (ends.host / "rich").mkdir()
        rich(ends.host / "rich")
        ends.copy("rich", ".", archive=True, id_map=MAP)
        assert owner(ends.root / "rich/d/mine") == (101_234, 201_235, 0o6755)
        copy_out(ends.fd, "rich", str(ends.host / "back"), archive=True, id_map=MAP)
        assert owner(ends.host / "back/d/mine") == (1234, 1235, 0o6755)
        assert os.getxattr(ends.host / "back/cap", "security.capability") == CAPABILITY
        os.chown(ends.host / "rich/f", 70_000, 0)
        with pytest.raises(mc.SpecError, match="user 70000 does not exist in the container's user namespace"):
            ends.copy("rich", "again", archive=True, id_map=MAP)
    finally:
        os.close(ends.fd)


# --- archives ---


def test_tar_out_and_in(tmp_path: Path, requires) -> None:
    """The base name is kept; GNU tar reads it; what is unpacked is what was packed, privilege included."""
    requires.root()
    ends = Ends(tmp_path, inwards=False)
    try:
        (ends.root / "a/rich").mkdir(parents=True)
        rich(ends.root / "a/rich")
        buffer = io.BytesIO()
        done = tar_out(ends.fd, "/a/rich", buffer)
        assert done.files == 6
        assert len(buffer.getvalue()) < 1 << 20  # the holes are not in it
        with tarfile.open(fileobj=io.BytesIO(buffer.getvalue())) as tar:
            assert {name.split("/")[0] for name in tar.getnames()} == {"rich"}
            assert tar.getmember("rich/d/mine").uid == 1234
        (tmp_path / "gnu").mkdir()
        command = ["tar", "-xpC", str(tmp_path / "gnu"), "--xattrs", "--xattrs-include=*"]
        subprocess.run(command, input=buffer.getvalue(), check=True)
        (ends.root / "b").mkdir()
        buffer.seek(0)
        tar_in(buffer, ends.fd, "/b")
        for made in (tmp_path / "gnu/rich", ends.root / "b/rich"):
            kept(made)
            assert owner(made / "d/mine") == (1234, 1235, 0o6755)
            assert os.getxattr(made / "cap", "security.capability") == CAPABILITY
            assert os.lstat(made / "null").st_rdev == os.makedev(1, 3)
    finally:
        os.close(ends.fd)


@pytest.mark.parametrize(("source", "expected"), [("f", ["f"]), ("d", ["d", "d/x"]), ("d/.", [".", "x"]), ("l", ["l"])])
def test_names_in_an_archive(tmp_path: Path, source: str, expected: list[str]) -> None:
    ends = Ends(tmp_path, inwards=False)
    try:
        (ends.root / "d").mkdir()
        (ends.root / "d/x").write_text("x")
        (ends.root / "f").write_text("f")
        (ends.root / "l").symlink_to("f")
        buffer = io.BytesIO()
        tar_out(ends.fd, source, buffer)
        buffer.seek(0)
        with tarfile.open(fileobj=buffer) as tar:
            assert tar.getnames() == expected
    finally:
        os.close(ends.fd)


def test_tar_in_needs_a_directory_and_maps_ids(tmp_path: Path, requires) -> None:
    requires.root()
    ends = Ends(tmp_path, inwards=True)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        member = tarfile.TarInfo("implied/f")
        member.uid, member.gid = 7, 8
        tar.addfile(member)
    try:
        for dest in ("absent", "file"):
            (ends.root / "file").write_text("")
            with pytest.raises(mc.SpecError, match=f"standard input to box:{dest}.*must be a directory"):
                tar_in(io.BytesIO(buffer.getvalue()), ends.fd, dest, name="box")
        tar_in(io.BytesIO(buffer.getvalue()), ends.fd, "/", id_map=MAP)
        assert owner(ends.root / "implied/f")[:2] == (100_007, 200_008)
        assert owner(ends.root / "implied") == (100_000, 200_000, 0o755)
    finally:
        os.close(ends.fd)
