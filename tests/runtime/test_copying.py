"""Copies between host and container: the rules of ``docker container cp``, and what of a file is kept."""

from __future__ import annotations

import io
import os
import socket
import stat
import struct
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import minictr as mc
from minictr.kernel import trees
from minictr.runtime.copying import (
    Copied,
    IdMap,
    copy_in,
    copy_out,
    live_root,
    stopped_root,
    tar_in,
    tar_out,
)

CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)  # revision 2, effective, CAP_NET_BIND_SERVICE


class Ends:
    """A host directory and a root, and a copy in either direction between them by relative paths."""

    def __init__(self, house: Path, inwards: bool) -> None:
        self.host, self.root, self.inwards = house / "host", house / "root", inwards
        for path in (self.host, self.root):
            path.mkdir()
        self.fd = stopped_root(str(self.root))

    @property
    def source(self) -> Path:
        return self.host if self.inwards else self.root

    @property
    def target(self) -> Path:
        return self.root if self.inwards else self.host

    def copy(self, source: str, dest: str, **options: object) -> Copied:
        if self.inwards:
            return copy_in(f"{self.host}/{source}", self.fd, dest, name="box", **options)  # type: ignore[arg-type]
        return copy_out(self.fd, source, f"{self.host}/{dest}", name="box", **options)  # type: ignore[arg-type]


@pytest.fixture(params=["in", "out"])
def ends(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ends]:
    made = Ends(tmp_path, request.param == "in")
    yield made
    os.close(made.fd)


def names(path: Path) -> list[str]:
    """Everything below PATH."""
    return sorted(str(found.relative_to(path)) for found in path.rglob("*"))


def fill(ends: Ends) -> None:
    (ends.source / "file").write_text("new")
    (ends.source / "dir" / "sub").mkdir(parents=True)
    (ends.source / "dir" / "sub" / "x").write_text("x")
    (ends.source / "to-file").symlink_to("file")
    (ends.source / "to-dir").symlink_to("dir")
    (ends.target / "old").write_text("old")
    (ends.target / "there").mkdir()
    (ends.target / "link").symlink_to("there")
    (ends.target / "to-old").symlink_to("old")
    (ends.target / "dangling").symlink_to("there/new")


TREE = ("sub", "sub/x")
# SRC_PATH, DEST_PATH -> what is new in the target, or words of the refusal
RULES: list[tuple[str, str, tuple[str, ...] | str]] = [
    ("file", "new", ("new",)),
    ("file", "new/", "there is no such directory"),
    ("file", "new/.", "there is no such directory"),
    ("file", "no/new", "there is no directory"),
    ("file", "old", ()),
    ("file", "old/", "not a directory"),
    ("file", "there", ("there/file",)),
    ("file", "there/", ("there/file",)),
    ("file", "there/other", ("there/other",)),
    ("file", "link", ("there/file",)),
    ("file", "to-old", ()),
    ("file", "dangling", ("there/new",)),
    ("file", ".", ("file",)),
    ("file/", "new", "ENOTDIR"),
    ("file/.", "new", "ENOTDIR"),
    ("absent", "new", "ENOENT"),
    ("dir", "new", ("new", "new/sub", "new/sub/x")),
    ("dir", "new/", ("new", "new/sub", "new/sub/x")),
    ("dir/", "new", ("new", "new/sub", "new/sub/x")),
    ("dir/.", "new", ("new", "new/sub", "new/sub/x")),
    ("dir", "no/new", "there is no directory"),
    ("dir", "old", "cannot copy a directory onto a file"),
    ("dir/.", "old", "cannot copy a directory onto a file"),
    ("dir", "there", ("there/dir", "there/dir/sub", "there/dir/sub/x")),
    ("dir/", "there", ("there/dir", "there/dir/sub", "there/dir/sub/x")),
    ("dir/.", "there", ("there/sub", "there/sub/x")),
    ("dir/.", "link", ("there/sub", "there/sub/x")),
    ("dir/.", ".", TREE),
    ("to-file", "new", ("new",)),
    ("to-dir", "there", ("there/to-dir",)),
    ("to-dir/", "there", ("there/to-dir", "there/to-dir/sub", "there/to-dir/sub/x")),
    ("to-dir/.", "there", ("there/sub", "there/sub/x")),
    ("dir/../file", "there", ("there/file",)),
    ("dir/..", "there", "root or host"),
]


@pytest.mark.parametrize(("source", "dest", "expected"), RULES)
def test_the_rules_of_docker(ends: Ends, source: str, dest: str, expected: tuple[str, ...] | str) -> None:
    fill(ends)
    before = names(ends.target)
    if expected == "root or host":  # the container's own root has no name: what is in it is copied
        ends.copy(source, dest)
        top = ends.target / "there" / ("host" if ends.inwards else "")
        assert (top / "dir" / "sub" / "x").read_text() == "x"
        return
    if isinstance(expected, str):
        with pytest.raises(mc.MinictrError, match=expected) as caught:
            ends.copy(source, dest)
        assert f"box:{dest if ends.inwards else source}" in str(caught.value)
        assert f"{ends.host}/" in str(caught.value)
        assert names(ends.target) == before
        return
    ends.copy(source, dest)
    assert sorted(set(names(ends.target)) - set(before)) == sorted(expected)
    if source == "file":
        place = {"there": "there/file", "there/": "there/file", "link": "there/file", "to-old": "old", ".": "file"}
        assert (ends.target / place.get(dest, dest)).read_text() == "new"
        assert os.readlink(ends.target / "to-old") == "old"


def test_follow_link(ends: Ends) -> None:
    """The link's own name, its target's content."""
    fill(ends)
    ends.copy("to-file", "there")
    assert os.readlink(ends.target / "there/to-file") == "file"
    ends.copy("to-file", "there", follow_link=True)
    assert not (ends.target / "there/to-file").is_symlink()
    assert (ends.target / "there/to-file").read_text() == "new"
    ends.copy("to-dir", "there", follow_link=True)
    assert (ends.target / "there/to-dir/sub/x").read_text() == "x"


def test_what_is_there_already(ends: Ends) -> None:
    """Directories are merged and keep their mode; files are replaced; one is never replaced by the other."""
    fill(ends)
    (ends.target / "there/dir/sub").mkdir(parents=True)
    (ends.target / "there/dir").chmod(0o711)
    (ends.target / "there/dir/sub/y").write_text("y")
    (ends.target / "there/dir/sub/x").symlink_to("y")
    ends.copy("dir", "there")
    assert names(ends.target / "there/dir") == ["sub", "sub/x", "sub/y"]
    assert stat.S_IMODE((ends.target / "there/dir").stat().st_mode) == 0o711
    assert (ends.target / "there/dir/sub/y").read_text() == "y"
    assert not (ends.target / "there/dir/sub/x").is_symlink()
    (ends.target / "there/file").mkdir()
    with pytest.raises(mc.SpecError, match="is a directory: it is not replaced by a file"):
        ends.copy("file", "there")
    (ends.target / "dir").write_text("")
    with pytest.raises(mc.SpecError, match="is there and is no directory"):
        ends.copy("dir", ".")
    (ends.target / "dir").unlink()
    (ends.target / "dir").symlink_to("there")  # it would lead somewhere else
    with pytest.raises(mc.SpecError, match="is there and is no directory"):
        ends.copy("dir", ".")


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


# --- failures ---


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, requires) -> None:
    requires.root()
    small = trees.create("tmpfs", ["source=tmpfs", "size=64k"], 0, "a small tmpfs")
    (tmp_path / "big").write_bytes(bytes(range(256)) * 1024)
    (tmp_path / "small").write_text("old")
    try:
        copy_in(str(tmp_path / "small"), small, "f", name="box")
        with pytest.raises(mc.StepFailed, match="copy .*/big to box:f: write '/f': ENOSPC .*make room"):
            copy_in(str(tmp_path / "big"), small, "f", name="box")
        with open("f", opener=lambda path, flags: os.open(path, flags, dir_fd=small)) as file:
            assert file.read() == "old"
        directory = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=small)
        try:
            assert os.listdir(directory) == ["f"]
        finally:
            os.close(directory)
    finally:
        os.close(small)


def test_an_interrupted_copy_leaves_the_old_file(ends: Ends) -> None:
    fill(ends)
    (ends.source / "file").write_bytes(bytes(3 << 20))
    seen: list[int] = []

    def stop(_files: int, moved: int) -> None:
        seen.append(moved)
        if moved > 1 << 20:
            raise KeyboardInterrupt

    before = names(ends.target)
    with pytest.raises(KeyboardInterrupt):
        ends.copy("file", "old", progress=stop)
    assert seen == sorted(seen)
    assert (ends.target / "old").read_text() == "old"
    assert names(ends.target) == before


def test_into_itself(tmp_path: Path) -> None:
    """A host directory that the container's root lies in."""
    (tmp_path / "root/etc").mkdir(parents=True)
    (tmp_path / "file").write_text("x")
    fd = stopped_root(str(tmp_path / "root"))
    try:
        done = copy_in(str(tmp_path), fd, "/")
        assert names(tmp_path / "root") == ["etc", tmp_path.name, f"{tmp_path.name}/file"]
        assert any("as the copy goes there: 1" in note for note in done.notes)
    finally:
        os.close(fd)


# --- roots ---


def test_a_container_that_runs(own_rootfs: Path, tmp_path: Path, requires, eventually: Callable[..., None]) -> None:
    """Through its own mounts, as it sees them; the kernel's file systems are left out of a tree."""
    requires.root()
    (tmp_path / "hello").write_text("hello")
    box = mc.Container(own_rootfs).with_(mc.Tmpfs("/mnt"))
    with box.popen(
        ["bash", "-c", "while ! test -f /mnt/hello; do sleep 0.05; done; cp /mnt/hello /tmp/copy; sleep 60"]
    ) as process:
        fd = live_root(process.pid)
        try:
            copy_in(str(tmp_path / "hello"), fd, "/mnt")
            eventually(lambda: (own_rootfs / "tmp/copy").exists())
            copy_out(fd, "/tmp/copy", str(tmp_path / "back"))
            assert (tmp_path / "back").read_text() == "hello"
            copy_out(fd, "/proc/1/status", str(tmp_path))
            assert (tmp_path / "status").read_text().startswith("Name:")
            done = copy_out(fd, "/", str(tmp_path / "all"))
            assert (tmp_path / "all/mnt/hello").exists()
            assert not (tmp_path / "all/proc").exists()
            assert any("file systems of the kernel left out" in note for note in done.notes)
        finally:
            os.close(fd)
        process.kill()
    with pytest.raises(mc.StepFailed, match="the container ended"):
        live_root(process.pid)


def test_an_overlay_that_does_not_run(tmp_path: Path, requires) -> None:
    """Writes go to its upper layer; nothing is mounted; without a layer that is kept nothing can be written."""
    requires.root()
    for name in ("image", "below", "upper"):
        (tmp_path / name).mkdir()
    (tmp_path / "image/a").write_text("a")
    (tmp_path / "below/b").write_text("b")
    (tmp_path / "new").write_text("new")
    lowers = [str(tmp_path / "below")]
    fd = stopped_root(str(tmp_path / "image"), str(tmp_path / "upper"), lowers)
    try:
        copy_in(str(tmp_path / "new"), fd, "/a")
        copy_out(fd, "/b", str(tmp_path / "got"))
    finally:
        os.close(fd)
    assert (tmp_path / "upper/a").read_text() == "new"
    assert (tmp_path / "image/a").read_text() == "a"
    assert (tmp_path / "got").read_text() == "b"
    for below in ([], lowers):
        fd = stopped_root(str(tmp_path / "image"), lowers=below, readonly=True)
        try:
            with pytest.raises(mc.StepFailed, match="EROFS"):
                copy_in(str(tmp_path / "new"), fd, "/x")
        finally:
            os.close(fd)
    assert names(tmp_path / "image") == ["a"]
