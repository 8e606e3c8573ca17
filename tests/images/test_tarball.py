"""Unpacking honest archives: everything GNU tar writes comes back."""

from __future__ import annotations

import filecmp
import io
import os
import stat
import subprocess
import tarfile
import time
from pathlib import Path

import pytest

from minictr.errors import SpecError, Unsupported
from minictr.images.tarball import import_tarball

pytestmark = pytest.mark.beside

CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")  # VFS_CAP_REVISION_2, cap_net_raw+ep
BINARY = bytes(range(256)) + b"=\n\0 10 a=b\n"


@pytest.fixture
def source(tmp_path: Path, requires) -> Path:
    """A small root with one of everything."""
    requires.root()
    root = tmp_path / "source"
    for name in ("usr/bin", "etc", "tmp", "dev", "var/empty"):
        (root / name).mkdir(parents=True)
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    os.link(root / "etc/passwd", root / "etc/passwd-")
    os.symlink("usr/bin", root / "bin")
    os.symlink("/etc/passwd", root / "etc/absolute")
    os.symlink("../../../../etc/shadow", root / "etc/upwards")
    tool = root / "usr/bin/tool"
    tool.write_bytes(os.urandom(300_000))
    os.chown(tool, 12345, 54321)
    tool.chmod(0o6755)
    os.setxattr(tool, "security.capability", CAPABILITY)
    os.setxattr(tool, "user.binary=%x", BINARY)
    os.setxattr(root / "var/empty", "user.directory", b"d")
    with open(root / "etc/sparse", "wb") as file:
        for offset in (0, 1 << 20, 300 << 20):
            file.seek(offset)
            file.write(b"data")
        file.truncate(400 << 20)
    os.mkfifo(root / "etc/fifo", 0o640)
    os.mknod(root / "dev/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    (root / "tmp").chmod(0o1777)
    (root / "var/empty").chmod(0o555)
    (root / ("long-" * 40)).write_text("a name for GNU's long-name header")
    (root / os.fsdecode(b"latin-\xe9")).write_text("not UTF-8")
    for path in (root / "var/empty", root / "etc/absolute", tool, root / "etc"):
        os.utime(path, ns=(1_234_567_890_123_456_789,) * 2, follow_symlinks=False)
    root.chmod(0o755)
    return root


def pack(source: Path, archive: Path, *options: str) -> Path:
    command = ["tar", "--xattrs", "--xattrs-include=*", "--sparse", *options, "-cf", archive, "-C", source, "."]
    subprocess.run(command, check=True, capture_output=True)
    return archive


def same(one: Path, two: Path, *, nanoseconds: bool) -> None:
    """Two trees agree in everything an archive carries."""
    names = sorted(os.path.relpath(os.path.join(top, n), one) for top, d, f in os.walk(one) for n in d + f)
    assert names == sorted(os.path.relpath(os.path.join(top, n), two) for top, d, f in os.walk(two) for n in d + f)
    for name in [*names, "."]:
        a, b = os.lstat(one / name), os.lstat(two / name)
        assert (a.st_mode, a.st_uid, a.st_gid, a.st_nlink, a.st_rdev) == (
            b.st_mode,
            b.st_uid,
            b.st_gid,
            b.st_nlink,
            b.st_rdev,
        ), name
        assert (a.st_mtime_ns == b.st_mtime_ns) if nanoseconds else (int(a.st_mtime) == int(b.st_mtime)), name
        if stat.S_ISLNK(a.st_mode):
            assert os.readlink(one / name) == os.readlink(two / name)
        if stat.S_ISREG(a.st_mode):
            assert filecmp.cmp(one / name, two / name, shallow=False), name


def attributes(path: Path) -> dict[str, bytes]:
    return {name: os.getxattr(path, name) for name in os.listxattr(path)}


@pytest.mark.parametrize("options", [["--format=posix", f"--sparse-version={v}"] for v in ("0.0", "0.1", "1.0")])
def test_pax_brings_everything_back(source: Path, tmp_path: Path, options: list[str]) -> None:
    archive = pack(source, tmp_path / "a.tar", *options)
    built = import_tarball(str(tmp_path / "root"), archive, devices=True)
    same(source, tmp_path / "root", nanoseconds=True)
    for name in ("usr/bin/tool", "var/empty"):
        assert attributes(source / name) == attributes(tmp_path / "root" / name)
    assert os.stat(tmp_path / "root/etc/sparse").st_blocks * 512 < 1 << 20
    assert os.stat(tmp_path / "root/etc/passwd").st_ino == os.stat(tmp_path / "root/etc/passwd-").st_ino
    assert built.notes == ()


def test_gnu_format(source: Path, tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    subprocess.run(["tar", "--format=gnu", "--sparse", "-cf", archive, "-C", source, "."], check=True)
    import_tarball(str(tmp_path / "root"), archive, devices=True)
    same(source, tmp_path / "root", nanoseconds=False)
    assert os.stat(tmp_path / "root/etc/sparse").st_blocks * 512 < 1 << 20


@pytest.mark.parametrize(
    ("option", "program"), [("--gzip", "gzip"), ("--bzip2", "bzip2"), ("--xz", "xz"), ("--zstd", "zstd"), ("-M", "")]
)
def test_compressions(source: Path, tmp_path: Path, requires, option: str, program: str) -> None:
    """Found by content, not by name; from a file, an open file and a pipe."""
    (source / "etc/sparse").unlink()
    if program:
        requires(program)
    archive = pack(source, tmp_path / "archive", *([option] if program else []))
    import_tarball(str(tmp_path / "one"), str(archive), devices=True)
    with open(archive, "rb") as file:
        import_tarball(str(tmp_path / "two"), file, devices=True)
    with subprocess.Popen(["cat", archive], stdout=subprocess.PIPE) as cat:
        assert cat.stdout is not None
        import_tarball(str(tmp_path / "three"), cat.stdout, devices=True)
    for name in ("one", "two", "three"):
        same(source, tmp_path / name, nanoseconds=True)


def test_zstd_that_is_nowhere(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, requires) -> None:
    requires("zstd")
    archive = pack(source, tmp_path / "archive", "--zstd")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(Unsupported, match=r"compressed with zstd.*; install zstd"):
        import_tarball(str(tmp_path / "root"), archive)
    assert not (tmp_path / "root").exists()


def test_devices_are_left_out_and_noted(source: Path, tmp_path: Path) -> None:
    built = import_tarball(str(tmp_path / "root"), pack(source, tmp_path / "a.tar"))
    assert not (tmp_path / "root/dev/null").exists()
    assert stat.S_ISFIFO(os.stat(tmp_path / "root/etc/fifo").st_mode)
    assert built.notes == ("devices left out: 1 ('/dev/null'); --devices makes them",)


def test_without_owners(source: Path, tmp_path: Path) -> None:
    built = import_tarball(str(tmp_path / "root"), pack(source, tmp_path / "a.tar"), owners=False)
    info = os.stat(tmp_path / "root/usr/bin/tool")
    assert (info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode)) == (os.geteuid(), os.getegid(), 0o755)
    assert "security.capability" not in os.listxattr(tmp_path / "root/usr/bin/tool")
    assert any("security.capability" in note for note in built.notes)


def add(tar: tarfile.TarFile, name: str, data: bytes = b"", **fields: object) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), 0o644
    for field, value in fields.items():
        setattr(member, field, value)
    tar.addfile(member, io.BytesIO(data))


def test_later_members_win(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w") as tar:
        add(tar, "file", b"old")
        add(tar, "file", b"new", mode=0o600)
        add(tar, "dir", type=tarfile.DIRTYPE, mode=0o700)
        add(tar, "dir/kept", b"kept")
        add(tar, "dir", type=tarfile.DIRTYPE, mode=0o755, mtime=1000)
        add(tar, "turns", type=tarfile.SYMTYPE, linkname="dir")
        add(tar, "turns", type=tarfile.DIRTYPE, mode=0o711)
        add(tar, "turns/in", b"in")
        add(tar, "back", type=tarfile.DIRTYPE, mode=0o711)
        add(tar, "back", type=tarfile.SYMTYPE, linkname="/")
        add(tar, "one", b"one")
        add(tar, "two", type=tarfile.LNKTYPE, linkname="one")
        add(tar, "one", b"three")
    import_tarball(str(tmp_path / "root"), archive)
    root = tmp_path / "root"
    assert (root / "file").read_bytes() == b"new"
    assert stat.S_IMODE(os.stat(root / "file").st_mode) == 0o600
    assert (root / "dir/kept").read_bytes() == b"kept"
    assert (os.stat(root / "dir").st_mtime, stat.S_IMODE(os.stat(root / "dir").st_mode)) == (1000, 0o755)
    assert (os.listdir(root / "turns"), os.listdir(root / "dir")) == (["in"], ["kept"])
    assert os.readlink(root / "back") == "/"
    assert ((root / "one").read_bytes(), (root / "two").read_bytes()) == (b"three", b"one")


def test_parents_that_the_archive_leaves_out(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        with tarfile.open(tmp_path / "a.tar", "w") as tar:
            add(tar, "a/b/c", b"x", mode=0o666)
            add(tar, "fifo", type=tarfile.FIFOTYPE, mode=0o666)
        import_tarball(str(tmp_path / "root"), tmp_path / "a.tar")
    finally:
        os.umask(before)
    modes = {
        name: stat.S_IMODE(os.stat(tmp_path / "root" / name).st_mode) for name in ("", "a", "a/b", "a/b/c", "fifo")
    }
    assert modes == {"": 0o755, "a": 0o755, "a/b": 0o755, "a/b/c": 0o666, "fifo": 0o666}


def test_many_members_take_no_memory_and_little_time(tmp_path: Path) -> None:
    count = 20_000
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for number in range(count):
            add(tar, f"d{number % 100}/f{number}", b"x" * 10)
    lines: list[str] = []
    begin = time.monotonic()
    built = import_tarball(str(tmp_path / "root"), tmp_path / "a.tar", progress=lines.append)
    assert built.files == count
    assert built.bytes == 10 * count
    assert len(lines) == 4
    assert time.monotonic() - begin < 60


def test_an_image_of_layers_is_told_apart(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        add(tar, "manifest.json", b"[]")
        add(tar, "abc/layer.tar", b"x")
    with pytest.raises(SpecError, match=r"an image of layers, not a root; .*docker export"):
        import_tarball(str(tmp_path / "root"), tmp_path / "a.tar")
    assert os.listdir(tmp_path) == ["a.tar"]


def test_a_limit_of_size(source: Path, tmp_path: Path) -> None:
    archive = pack(source, tmp_path / "a.tar")
    with pytest.raises(SpecError, match="more than the 100000 bytes allowed"):
        import_tarball(str(tmp_path / "root"), archive, max_size=100_000)
    assert not (tmp_path / "root").exists()
    import_tarball(str(tmp_path / "root"), archive, max_size=1_000_000)  # holes of 400 MiB cost nothing
