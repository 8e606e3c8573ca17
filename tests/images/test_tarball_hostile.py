"""Hostile archives: one clear error, and not one byte outside the directory, nor the directory itself."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import random
import re
import struct
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from minictr.errors import MinictrError, SpecError
from minictr.images.tarball import import_tarball

pytestmark = pytest.mark.beside

Fill = Callable[[tarfile.TarFile], None]


def add(tar: tarfile.TarFile, name: str, data: bytes = b"", **fields: object) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), 0o644
    for field, value in fields.items():
        setattr(member, field, value)
    tar.addfile(member, io.BytesIO(data))


def link(tar: tarfile.TarFile, name: str, target: str) -> None:
    add(tar, name, type=tarfile.SYMTYPE, linkname=target)


def hard(tar: tarfile.TarFile, name: str, target: str) -> None:
    add(tar, name, type=tarfile.LNKTYPE, linkname=target)


def listing(house: Path) -> dict[str, tuple[object, ...]]:
    """Everything below HOUSE with content, owner, mode, links, times. The house itself: its mode and owner."""
    found: dict[str, tuple[object, ...]] = {"": (house.stat().st_mode, house.stat().st_uid)}
    for path in house.rglob("*"):
        info = os.lstat(path)
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        found[str(path)] = (info.st_mode, info.st_uid, info.st_nlink, info.st_mtime_ns, info.st_ctime_ns, content)
    return found


def refusal(archive: io.BytesIO, target: Path, **options: object) -> str:
    """The message if the import of ARCHIVE is refused, which leaves no target; "" if it is not."""
    try:
        import_tarball(str(target), archive, **options)  # type: ignore[arg-type]
    except MinictrError as error:
        message = str(error)
    else:
        return ""
    assert "\n" not in message
    assert not target.exists()
    return message or "?"


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """The directory that the target is made in, with neighbours that an archive may aim at."""
    house = tmp_path / "house"
    (house / "neighbour").mkdir(parents=True)
    (house / "neighbour" / "secret").write_text("secret")
    (house / "victim").write_text("victim")
    return house


def refused(house: Path, archive: Path | io.BytesIO, **options: object) -> str:
    """Import must fail; answers its message. Nothing in HOUSE has changed."""
    before = listing(house)
    with pytest.raises(MinictrError) as caught:
        import_tarball(str(house / "root"), archive, **options)  # type: ignore[arg-type]
    assert listing(house) == before
    message = str(caught.value)
    assert "\n" not in message
    return message


def made(fill: Fill, **options: object) -> io.BytesIO:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", **options) as tar:  # type: ignore[call-overload]
        fill(tar)
    buffer.seek(0)
    return buffer


def through_a_link(tar: tarfile.TarFile) -> None:
    link(tar, "a", "../neighbour")
    add(tar, "a/secret", b"changed")


def through_an_absolute_link(tar: tarfile.TarFile) -> None:
    link(tar, "a", "/")
    add(tar, "a/tmp/minictr-was-here", b"x")


def through_two_links(tar: tarfile.TarFile) -> None:
    add(tar, "d", type=tarfile.DIRTYPE, mode=0o755)
    link(tar, "d/up", "..")
    link(tar, "out", "d/up/..")
    add(tar, "out/victim", b"changed")


def directory_through_a_link(tar: tarfile.TarFile) -> None:
    link(tar, "a", "../neighbour")
    add(tar, "a/made", type=tarfile.DIRTYPE, mode=0o777)


def hard_link_upwards(tar: tarfile.TarFile) -> None:
    hard(tar, "mine", "../victim")


def hard_link_through_a_link(tar: tarfile.TarFile) -> None:
    link(tar, "a", "../neighbour")
    hard(tar, "mine", "a/secret")


def hard_link_to_absolute(tar: tarfile.TarFile) -> None:
    hard(tar, "mine", "/etc/passwd")


def hard_link_to_directory(tar: tarfile.TarFile) -> None:
    add(tar, "d", type=tarfile.DIRTYPE)
    hard(tar, "mine", "d")


def hard_link_to_root(tar: tarfile.TarFile) -> None:
    hard(tar, "mine", ".")


CLASSES: dict[str, tuple[Fill, str]] = {
    "dotdot": (lambda tar: add(tar, "../victim", b"changed"), r"'../victim' leads upwards"),
    "dotdot inside": (lambda tar: add(tar, "a/../../victim", b"changed"), "leads upwards"),
    "absolute dotdot": (lambda tar: add(tar, "/../victim", b"changed"), "leads upwards"),
    "only dotdot": (lambda tar: add(tar, "..", type=tarfile.DIRTYPE, mode=0o777), "leads upwards"),
    "through a link": (through_a_link, "leads through '/a', which is a symbolic link"),
    "through an absolute link": (through_an_absolute_link, "which is a symbolic link"),
    "through two links": (through_two_links, "which is a symbolic link"),
    "directory through a link": (directory_through_a_link, "which is a symbolic link"),
    "hard link upwards": (hard_link_upwards, "leads upwards"),
    "hard link through a link": (hard_link_through_a_link, "no such file earlier"),
    "hard link to the host": (hard_link_to_absolute, "no such file earlier in the archive"),
    "hard link to a directory": (hard_link_to_directory, "that is a directory"),
    "hard link to the root": (hard_link_to_root, "that is a directory"),
    "file as the root": (lambda tar: add(tar, ".", b"x"), "the root itself can only be a directory"),
    "link as the root": (lambda tar: link(tar, "./", "/etc"), "the root itself can only be a directory"),
    "through a file": (lambda tar: (add(tar, "f", b""), add(tar, "f/g", b""))[0], "which is not a directory"),
    "over a full directory": (
        lambda tar: (add(tar, "d/f", b""), add(tar, "d", b""))[0],
        "replace a directory that is not empty",
    ),
    "nul in a name": (lambda tar: add(tar, "x", pax_headers={"path": "a\0b"}), "NUL byte"),
    "nul in a target": (
        lambda tar: add(tar, "x", type=tarfile.SYMTYPE, linkname="y", pax_headers={"linkpath": "a\0b"}),
        "NUL byte",
    ),
    "too deep": (lambda tar: add(tar, "d/" * 400 + "f", b""), "directories deep"),
    "too long": (lambda tar: add(tar, "x" * 300, b""), "ENAMETOOLONG"),
    "owner": (lambda tar: add(tar, "x", b"", pax_headers={"uid": "4294967295"}), "no such owner: 4294967295"),
    "negative owner": (lambda tar: add(tar, "x", b"", uid=-1), "no such owner: -1"),
    "unknown type": (lambda tar: add(tar, "x", b"", type=b"M"), "not supported"),
    "bad capability": (
        lambda tar: add(tar, "x", b"", pax_headers={"SCHILY.xattr.security.capability": "rubbish"}),
        "set attribute security.capability of '/x': EINVAL",
    ),
    "empty": (lambda tar: None, "empty"),
}


@pytest.mark.parametrize("name", CLASSES)
def test_refused(house: Path, name: str) -> None:
    fill, words = CLASSES[name]
    message = refused(house, made(fill))
    assert re.search(words, message), message
    assert not os.path.exists("/tmp/minictr-was-here")


def test_absolute_names_stay_inside(house: Path) -> None:
    target = f"{house}/victim"
    archive = made(lambda tar: (add(tar, target, b"inside"), add(tar, "//etc/x", b""), hard(tar, "y", "/etc/x"))[0])
    before = (house / "victim").read_text()
    built = import_tarball(str(house / "root"), archive)
    assert (house / "victim").read_text() == before
    assert Path(f"{house}/root{target}").read_bytes() == b"inside"
    assert os.stat(house / "root/y").st_nlink == 2
    assert any("absolute names" in note for note in built.notes)


def test_links_out_are_made_and_never_followed(house: Path) -> None:
    """Metadata of a link is the link's own; a file in the place of a link replaces it."""

    def fill(tar: tarfile.TarFile) -> None:
        add(tar, "a", type=tarfile.SYMTYPE, linkname="../victim", uid=7, gid=7, mode=0o777, mtime=5)
        link(tar, "b", "../victim")
        add(tar, "b", b"own")
        link(tar, "c", "../neighbour")
        add(tar, "c", type=tarfile.DIRTYPE, mode=0o700, uid=9)
        hard(tar, "d", "a")

    before = listing(house)
    import_tarball(str(house / "root"), made(fill))
    after = listing(house)
    assert {k: v for k, v in after.items() if k in before} == before
    assert os.readlink(house / "root/a") == "../victim"
    assert os.readlink(house / "root/d") == "../victim"
    assert (house / "root/b").read_bytes() == b"own"
    assert os.lstat(house / "root/a").st_uid == 7
    assert os.path.isdir(house / "root/c")
    assert not os.path.islink(house / "root/c")


def test_a_directory_replaced_by_a_link_keeps_its_metadata_to_itself(house: Path) -> None:
    """The mode of a directory is applied at the end: not to what a link in its place leads to."""

    def fill(tar: tarfile.TarFile) -> None:
        add(tar, "d", type=tarfile.DIRTYPE, mode=0o000, uid=1234)
        link(tar, "d", "../neighbour")

    before = os.stat(house / "neighbour")
    import_tarball(str(house / "root"), made(fill))
    after = os.stat(house / "neighbour")
    assert (before.st_mode, before.st_uid, before.st_ctime_ns) == (after.st_mode, after.st_uid, after.st_ctime_ns)


def test_attributes_that_steer_the_host_are_left_out(house: Path) -> None:
    names = ("trusted.overlay.redirect", "user.overlay.opaque", "security.selinux", "trusted.x", "user.ok")
    headers = {f"SCHILY.xattr.{name}": "y" for name in names}
    built = import_tarball(str(house / "root"), made(lambda tar: add(tar, "x", b"", pax_headers=headers)))
    assert os.listxattr(house / "root/x") == ["user.ok"]
    assert any("'trusted.overlay.redirect'" in note for note in built.notes)


def test_set_id_bits_come_after_the_owner(house: Path) -> None:
    """And while it is unpacked nobody else reaches the tree."""
    seen: list[int] = []
    chown = os.fchown

    def watch(fd: int, uid: int, gid: int) -> None:
        seen.append(os.fstat(fd).st_mode & 0o6000)
        parent = next(path for path in house.iterdir() if "minictr-" in path.name)
        assert os.stat(parent).st_mode & 0o077 == 0
        chown(fd, uid, gid)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fchown", watch)
        import_tarball(str(house / "root"), made(lambda tar: add(tar, "su", b"", mode=0o6755, uid=5)))
    assert seen == [0, 0]
    assert os.stat(house / "root/su").st_mode & 0o7777 == 0o6755


def test_device_numbers(house: Path) -> None:
    device = {"type": tarfile.CHRTYPE, "devmajor": 1 << 20, "devminor": 0}
    assert "no such device number" in refused(house, made(lambda tar: add(tar, "x", **device)), devices=True)
    import_tarball(str(house / "root"), made(lambda tar: (add(tar, "x", **device), add(tar, "y", b""))[0]))


def honest() -> bytes:
    def fill(tar: tarfile.TarFile) -> None:
        generator = random.Random(1)
        add(tar, "usr", type=tarfile.DIRTYPE, mode=0o755)
        add(tar, "usr/é" + "n" * 120, generator.randbytes(20_000), pax_headers={"SCHILY.xattr.user.x": "y"})
        link(tar, "bin", "usr")

    return made(fill, format=tarfile.PAX_FORMAT).getvalue()


def test_cut_off_at_any_block(house: Path) -> None:
    whole = honest().rstrip(b"\0")
    end = (len(whole) + 511) // 512 * 512
    whole = whole.ljust(end, b"\0")
    for length in (*range(1, 4000, 97), *range(0, end + 1, 512)):
        message = refused(house, io.BytesIO(whole[:length]))
        assert "damaged or cut off" in message or "not a tar archive" in message, (length, message)


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress, None])
def test_cut_off_or_damaged_compression(
    house: Path, tmp_path: Path, requires, compress: Callable[[bytes], bytes] | None
) -> None:
    if compress is None:
        requires("zstd")
        data = subprocess.run(["zstd", "-c", "--check"], input=honest(), check=True, capture_output=True).stdout
    else:
        data = compress(honest())
    for length in (10, len(data) // 2, len(data) - 1):
        message = refused(house, io.BytesIO(data[:length]))
        assert "damaged or cut off" in message, message
    broken = bytearray(data)
    broken[len(data) // 2] ^= 0xFF
    message = refused(house, io.BytesIO(broken))
    assert "damaged or cut off" in message or "not a tar archive" in message, message


def test_not_archives(house: Path, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello\n" * 1000)
    (tmp_path / "empty").touch()
    (tmp_path / "zipped").write_bytes(gzip.compress(b"hello\n" * 1000))
    for name in ("text", "empty", "zipped"):
        assert "not a tar archive" in refused(house, tmp_path / name)
    assert "No such file" in refused(house, tmp_path / "absent")
    assert "a directory, not an archive" in refused(house, tmp_path)
    assert "not a tar archive" in refused(house, io.BytesIO(b"hello" * 1000))


def header(name: bytes, size: int, kind: bytes) -> bytes:
    """A header with any size, its checksum right."""
    block = bytearray(tarfile.TarInfo("x").tobuf(tarfile.GNU_FORMAT))
    block[0:100] = name.ljust(100, b"\0")
    block[124:136] = b"\x80" + struct.pack(">Q", size & (1 << 64) - 1).rjust(11, b"\0" if size >= 0 else b"\xff")
    block[156:157] = kind
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.mark.parametrize("kind", [b"x", b"g", b"L", b"K", b"X"])
@pytest.mark.parametrize("size", [1 << 40, 1 << 62, 100 << 20])
def test_an_extended_header_without_end_is_not_read(house: Path, kind: bytes, size: int) -> None:
    message = refused(house, io.BytesIO(header(b"x", size, kind) + b"\0" * 10240))
    assert "an extended header of" in message


@pytest.mark.parametrize("kind", [b"0", b"5", b"1", b"2", b"6", b"S", b"7", b"Q"])
@pytest.mark.parametrize("size", [-1, -512, 1 << 40, (1 << 63) - 1])
def test_sizes_that_lie(house: Path, kind: bytes, size: int) -> None:
    """An error or, for members that have no data, an import; never a loop, never a hole of exabytes kept."""
    archive = header(b"etc", size, kind) + b"\0" * 1024
    before = listing(house)
    refusal(io.BytesIO(archive), house / "root")
    assert {path: info for path, info in listing(house).items() if path in before} == before


@pytest.mark.parametrize("text", ["5,10,3,4", "0,999999", "-5,2", "a,b", "9" * 5000 + ",1"])
def test_maps_of_holes_that_lie(house: Path, text: str) -> None:
    headers = {"GNU.sparse.map": text, "GNU.sparse.size": "100", "GNU.sparse.name": "x"}
    message = refused(
        house, made(lambda tar: add(tar, "x", b"0123456789", pax_headers=headers), format=tarfile.PAX_FORMAT)
    )
    assert "map of holes" in message or "damaged" in message, message


def test_random_damage(house: Path) -> None:
    """A thousand archives with a few bytes changed: an error or an import, nothing else, nothing outside."""
    generator = random.Random(20)
    whole = honest()
    before = listing(house)
    for number in range(1000):
        data = bytearray(whole)
        for _ in range(generator.randint(1, 4)):
            at = generator.randrange(0, 4096)
            data[at] = generator.randrange(256)
            start = at // 512 * 512
            if generator.random() < 0.7:  # a right checksum lets the damage in
                data[start + 148 : start + 156] = b" " * 8
                data[start + 148 : start + 156] = b"%06o\0 " % sum(data[start : start + 512])
        target = house / f"root{number}"
        if not refusal(io.BytesIO(data), target, max_size=1 << 24):
            subprocess.run(["rm", "-rf", target], check=True)
    assert listing(house) == before


def test_refusals_name_archive_and_member(house: Path, tmp_path: Path) -> None:
    path = tmp_path / "evil.tar"
    path.write_bytes(made(lambda tar: add(tar, "../\x1b[31mx", b"")).getvalue())
    with pytest.raises(SpecError) as caught:
        import_tarball(str(house / "root"), path)
    assert str(caught.value).startswith(f"{path}: '../\\x1b[31mx' leads upwards")
