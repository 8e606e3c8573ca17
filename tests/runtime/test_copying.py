"""Copies between host and container: the rules of ``docker container cp``, failures, and the roots of containers."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from ends import Ends, names
from waiting import eventually

import minictr as mc
from minictr.kernel import trees
from minictr.runtime.copying import (
    copy_in,
    copy_out,
    live_root,
    stopped_root,
)


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


def test_a_container_that_runs(own_rootfs: Path, tmp_path: Path, requires) -> None:
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
            copied = own_rootfs / "tmp/copy"
            eventually(lambda: copied.exists() and copied.read_text() == "hello", 5)
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
