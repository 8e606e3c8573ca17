"""The writable copy, and the way back to what it was."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from bench.rootfs import digest
from bench.tree import Tree


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    (path / "etc/deep").mkdir(parents=True)
    (path / "a-b").write_text("between a and a/b")
    (path / "a").mkdir()
    (path / "a/b").write_text("b")
    (path / "etc/passwd").write_text("root:x:0:0\n")
    (path / "etc/link").symlink_to("passwd")
    (path / "etc/deep/tool").write_bytes(b"\x7fELF")
    (path / "etc/deep/tool").chmod(0o4755)
    (path / "work").mkdir()
    return path


def shape(root: Path) -> dict[str, tuple[int, int, bytes]]:
    """Kind and mode, owner and bytes of everything: what must be as it was."""
    found = {}
    for path in sorted(root.rglob("*")):
        info = path.lstat()
        data = path.read_bytes() if stat.S_ISREG(info.st_mode) else b""
        data = os.fsencode(os.readlink(path)) if path.is_symlink() else data
        found[str(path.relative_to(root))] = (info.st_mode, info.st_uid, data)
    return found


def test_a_copy_is_the_same_and_changes_nothing(source: Path, tmp_path: Path) -> None:
    before = digest(str(source))
    tree = Tree(str(source), str(tmp_path / "tree"))
    assert shape(tmp_path / "tree") == shape(source)
    assert tree.restore() == 0
    assert digest(str(source)) == before


@pytest.mark.parametrize(
    ("spoil", "changes"),
    [
        (lambda at: (at / "work/out").write_text("x"), 1),
        (lambda at: (at / "etc/passwd").write_text("root:y:0:0\n"), 1),
        (lambda at: os.remove(at / "etc/passwd"), 1),
        (lambda at: (at / "etc/passwd").chmod(0o600), 1),
        (lambda at: (at / "etc").chmod(0o700), 1),
        (lambda at: (os.remove(at / "etc/link"), (at / "etc/link").symlink_to("elsewhere")), 1),
        (lambda at: (os.remove(at / "a-b"), (at / "a-b").mkdir(), (at / "a-b/x").write_text("x")), 2),
        (lambda at: [os.remove(at / "a/b"), (at / "a").rmdir()], 1),
        (lambda at: (at / "work/many/levels").mkdir(parents=True), 1),
        (lambda at: os.link(at / "etc/passwd", at / "work/hard"), 2),
    ],
)
def test_whatever_a_sample_did_is_undone(source: Path, tmp_path: Path, spoil, changes: int) -> None:
    tree = Tree(str(source), str(tmp_path / "tree"))
    spoil(tmp_path / "tree")
    assert shape(tmp_path / "tree") != shape(source) or changes == 2
    assert tree.restore() == changes
    assert shape(tmp_path / "tree") == shape(source)
    assert tree.restore() == 0


def test_a_change_that_keeps_size_and_time_is_seen(source: Path, tmp_path: Path) -> None:
    tree = Tree(str(source), str(tmp_path / "tree"))
    path = tmp_path / "tree/etc/passwd"
    info = path.stat()
    path.write_text("toor:x:0:0\n")
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
    assert tree.restore() == 1
    assert path.read_text() == "root:x:0:0\n"


def test_owners_are_shifted_and_come_back_so(source: Path, tmp_path: Path, requires) -> None:
    requires.root()
    tree = Tree(str(source), str(tmp_path / "tree"), 100_000)
    tool = tmp_path / "tree/etc/deep/tool"
    for path in (tmp_path / "tree", *(tmp_path / "tree").rglob("*")):
        assert path.lstat().st_uid == 100_000, path
    assert tool.stat().st_mode & 0o7777 == 0o4755  # chown takes it away
    tool.write_text("spoilt")
    os.remove(tmp_path / "tree/etc/passwd")
    tree.restore()
    assert (tool.stat().st_uid, tool.stat().st_mode & 0o7777) == (100_000, 0o4755)
    assert (tmp_path / "tree/etc/passwd").stat().st_gid == 100_000


def test_a_copy_that_fails_leaves_nothing(source: Path, small_disk: Path) -> None:
    (source / "large").write_bytes(bytes(4 << 20))
    with pytest.raises(subprocess.CalledProcessError):
        Tree(str(source), str(small_disk / "tree"))
    assert not os.listdir(small_disk)
