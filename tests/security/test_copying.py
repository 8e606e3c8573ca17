"""Copies to and from a hostile container: its links, its devices, its races (CVE-2018-15664, CVE-2019-14271)."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import stat
import struct
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import minictr as mc
from minictr.runtime.copying import copy_in, copy_out, live_root, stopped_root, tar_in, tar_out

ROUNDS = 500
SECRET = "secret of the host\n"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory of the host that no copy may reach."""
    path = tmp_path / "outside"
    (path / "below").mkdir(parents=True)
    (path / "secret").write_text(SECRET)
    return path


def listing(path: Path) -> list[tuple[object, ...]]:
    """Everything of PATH that a write could change, times of change included."""
    rows = []
    for directory, below, files in os.walk(path):
        for name in (".", *below, *files):
            info = os.lstat(os.path.join(directory, name))
            rows.append((directory, name, info.st_mode, info.st_uid, info.st_size, info.st_mtime_ns, info.st_ctime_ns))
    return sorted(rows)


def clear(path: Path) -> None:
    """Whatever was copied there before: a link would be followed."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    shutil.rmtree(path, ignore_errors=True)


def found_in(path: Path) -> list[Path]:
    """Files at or below PATH, no link followed, that hold the host's secret."""
    files = [Path(directory, name) for directory, _, names in os.walk(path) for name in names]
    plain = (found for found in (path, *files) if not found.is_symlink() and found.is_file())
    return [] if path.is_symlink() else [found for found in plain if found.read_text() == SECRET]


@pytest.fixture
def root(tmp_path: Path, requires) -> Iterator[tuple[Path, int]]:
    requires.root()
    path = tmp_path / "root"
    path.mkdir()
    fd = stopped_root(str(path))
    yield path, fd
    os.close(fd)


# --- links and places that an image has prepared ---

ESCAPES = ("{outside}", "../../../../../../../../..{outside}", "/proc/self/root{outside}", "/proc/1/root{outside}")


@pytest.mark.parametrize("escape", ESCAPES)
def test_links_lead_nowhere(root, outside: Path, tmp_path: Path, escape: str) -> None:
    """As destination, on the way to it, as a directory that a tree is copied onto, as source, on the way to that."""
    path, fd = root
    target = escape.format(outside=outside)
    (path / "trap").symlink_to(target)
    (path / "to-secret").symlink_to(f"{target}/secret")
    (path / "tree").mkdir()
    (path / "tree/below").symlink_to(f"{target}/below")
    (path / "tree/secret").symlink_to(f"{target}/secret")
    (tmp_path / "tree/below").mkdir(parents=True)
    (tmp_path / "tree/below/x").write_text("x")
    (tmp_path / "tree/secret").write_text("changed")
    before = listing(outside)
    for source in ("tree", "tree/.", "tree/below", "tree/secret"):
        for dest in ("trap", "trap/", "trap/below", "trap/new", "to-secret", "/", "tree"):
            with contextlib.suppress(mc.MinictrError):
                copy_in(str(tmp_path / source), fd, dest)
    for source in ("trap/secret", "to-secret", "trap", "trap/.", "tree/secret", "trap/../trap/secret"):
        for follow in (False, True):
            clear(tmp_path / "got")
            with contextlib.suppress(mc.MinictrError):
                copy_out(fd, source, str(tmp_path / "got"), follow_link=follow)
            buffer = io.BytesIO()
            with contextlib.suppress(mc.MinictrError):
                tar_out(fd, source, buffer, follow_link=follow)
            assert SECRET.encode() not in buffer.getvalue()
            assert not found_in(tmp_path / "got")
    assert listing(outside) == before


def archive(*members: tuple[str, dict[str, object]]) -> io.BytesIO:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, fields in members:
            member = tarfile.TarInfo(name)
            for field, value in fields.items():
                setattr(member, field, value)
            tar.addfile(member, io.BytesIO(b"x" * member.size))
    buffer.seek(0)
    return buffer


def test_archives_for_a_root_that_is_hostile_too(root, outside: Path) -> None:
    path, fd = root
    (path / "link").symlink_to(outside)
    (path / "sub").mkdir()
    before = listing(outside)
    link = {"type": tarfile.SYMTYPE, "linkname": str(outside)}
    for members, words in (
        ([("link/secret", {"size": 3})], "leads through '/link', which is a symbolic link"),
        ([("a", link), ("a/secret", {"size": 3})], "which is a symbolic link"),
        ([("../outside/secret", {"size": 3})], "leads upwards"),
        ([("h", {"type": tarfile.LNKTYPE, "linkname": "link/secret"})], "no such file earlier"),
        ([("link", {"type": tarfile.DIRTYPE, "mode": 0o777})], "is there and is no directory"),
    ):
        with pytest.raises(mc.SpecError, match=words):
            tar_in(archive(*members), fd, "/")
    with pytest.raises(mc.SpecError):
        tar_in(archive(("x", {})), fd, "/link")
    tar_in(archive((f"{outside}/secret", {"size": 3}), ("link", {"size": 1})), fd, "/")
    assert (path / str(outside).lstrip("/") / "secret").read_text() == "xxx"
    assert not (path / "link").is_symlink()
    assert listing(outside) == before


def test_what_must_not_be_opened(root, tmp_path: Path) -> None:
    """A fifo hangs whoever opens it, a device may act; a socket is nobody's. None is opened, none hangs."""
    path, fd = root
    (path / "d").mkdir()
    os.mkfifo(path / "d/fifo")
    os.mknod(path / "d/tty", 0o666 | stat.S_IFCHR, os.makedev(5, 0))
    os.mknod(path / "d/disk", 0o666 | stat.S_IFBLK, os.makedev(7, 9))
    done = copy_out(fd, "d", str(tmp_path / "got"))
    assert os.listdir(tmp_path / "got") == ["fifo"]
    assert done.notes == ("devices left out, -a makes them: 2 ('/got/disk', '/got/tty')",)
    tar_out(fd, "d", io.BytesIO())
    (tmp_path / "file").write_text("x")
    for name in ("fifo", "tty"):
        with pytest.raises(mc.SpecError, match="neither a directory nor a regular file"):
            copy_in(str(tmp_path / "file"), fd, f"d/{name}")
        with pytest.raises(mc.SpecError, match="neither a directory nor a regular file"):
            copy_out(fd, "d/fifo", str(path / "d" / name))


def test_privilege_stays_inside(root, tmp_path: Path) -> None:
    """A program that a container made set-user-ID root must not be that on the host because somebody looked at it."""
    path, fd = root
    (path / "sh").write_text("")
    os.chmod(path / "sh", 0o6755)
    os.setxattr(path / "sh", "security.capability", struct.pack("<IIIII", 0x02000001, 1 << 21, 0, 0, 0))
    copy_out(fd, "sh", str(tmp_path))
    assert stat.S_IMODE((tmp_path / "sh").stat().st_mode) == 0o755
    assert os.listxattr(tmp_path / "sh") == []
    os.setxattr(path / "sh", "user.overlay.redirect", b"/x")
    os.setxattr(path / "sh", "trusted.overlay.opaque", b"y")
    copy_out(fd, "sh", str(tmp_path), archive=True)
    assert os.listxattr(tmp_path / "sh") == ["security.capability"]


def test_the_hosts_directory_keeps_its_mode(root, tmp_path: Path) -> None:
    """SRC/. into a directory that is there: /tmp does not become what a container's directory is."""
    path, fd = root
    (path / "d").mkdir(mode=0o777)
    os.chmod(path / "d", 0o777)
    os.chown(path / "d", 77, 77)
    (tmp_path / "mine").mkdir(mode=0o700)
    before = os.stat(tmp_path / "mine")
    copy_out(fd, "d/.", str(tmp_path / "mine"), archive=True)
    after = os.stat(tmp_path / "mine")
    assert (before.st_mode, before.st_uid) == (after.st_mode, after.st_uid)


def test_too_deep_and_too_big(root, tmp_path: Path) -> None:
    path, fd = root
    at = os.open(path, os.O_RDONLY)
    for _ in range(300):
        os.mkdir("d", dir_fd=at)
        below = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)
    for run in (lambda: copy_out(fd, "d", str(tmp_path / "got")), lambda: tar_out(fd, "d", io.BytesIO())):
        with pytest.raises(mc.SpecError, match="more than 256 directories deep"):
            run()
    subprocess.run(["rm", "-rf", str(path / "d"), str(tmp_path / "got")], check=True)
    with open(path / "huge", "wb") as file:
        file.truncate(1 << 43)
    copy_out(fd, "huge", str(tmp_path / "huge"))
    assert (tmp_path / "huge").stat().st_blocks < 100
    buffer = io.BytesIO()
    tar_out(fd, "huge", buffer)
    assert len(buffer.getvalue()) < 1 << 16


# --- races ---


@pytest.fixture
def race(lab: Path, tmp_path: Path, outside: Path) -> Iterator[tuple[Path, int]]:
    """A container in which /race/a is now a directory, now a link to OUTSIDE, as fast as a program can exchange them.

    Inside there is a directory of the same path, so that most copies through the link find a place there.
    """
    path = tmp_path / "hostile"
    subprocess.run(["cp", "-a", "--reflink=auto", str(lab), str(path)], check=True)
    (path / "race/a/below").mkdir(parents=True)
    (path / "race/a/secret").write_text("of the container\n")
    (path / "race/b").symlink_to(outside)
    inside = path / str(outside).lstrip("/")
    (inside / "below").mkdir(parents=True)
    (inside / "secret").write_text("of the container\n")
    with mc.Container(path).popen(["probe", "swap", "/race"], stdout=mc.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ok swap\n"
        fd = live_root(process.pid)
        try:
            yield path, fd
            assert process.poll() is None
        finally:
            os.close(fd)
            process.kill()


def naive_in(source: Path, rootfs: Path, dest: str) -> None:
    """As docker before 18.09: resolve the path, see that it is inside, then use it."""
    path = os.path.realpath(f"{rootfs}/{dest}")
    if path.startswith(f"{rootfs}/"):
        shutil.copyfile(source, f"{rootfs}/{dest}")


def test_the_race_is_won_against_a_naive_copy(race, outside: Path, tmp_path: Path) -> None:
    """Otherwise the next tests show nothing."""
    path, _ = race
    (tmp_path / "file").write_text("changed")
    for _round in range(100 * ROUNDS):
        with contextlib.suppress(OSError):
            naive_in(tmp_path / "file", path, "race/a/won")
        if (outside / "won").exists():
            return
    pytest.fail("the naive copy was never led out")


@pytest.mark.slow
def test_copies_in(race, outside: Path, tmp_path: Path) -> None:
    _, fd = race
    (tmp_path / "tree/a/below").mkdir(parents=True)
    (tmp_path / "tree/a/below/x").write_text("x")
    (tmp_path / "tree/a/secret").write_text("changed")
    before = listing(outside)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.add(tmp_path / "tree/a", "a")
    worked = dict.fromkeys(("file", "into", "tree", "contents", "tar"), 0)
    ways: dict[str, Callable[[], object]] = {
        "file": lambda: copy_in(str(tmp_path / "tree/a/secret"), fd, "/race/a/secret"),
        "into": lambda: copy_in(str(tmp_path / "tree/a/secret"), fd, "/race/a"),
        "tree": lambda: copy_in(str(tmp_path / "tree/a"), fd, "/race"),
        "contents": lambda: copy_in(f"{tmp_path}/tree/a/.", fd, "/race/a", archive=True),
        "tar": lambda: tar_in(io.BytesIO(packed.getvalue()), fd, "/race"),
    }
    for _round in range(ROUNDS):
        for name, way in ways.items():
            with contextlib.suppress(mc.MinictrError):
                way()
                worked[name] += 1
    assert listing(outside) == before
    assert all(worked.values()), worked
    assert sorted(os.listdir(outside)) == ["below", "secret"]


@pytest.mark.slow
def test_copies_out(race, outside: Path, tmp_path: Path) -> None:
    _, fd = race
    before = listing(outside)
    worked = 0
    for _round in range(ROUNDS):
        for source, follow in (("/race/a/secret", False), ("/race/a", True), ("/race", False), ("/race/a/.", False)):
            clear(tmp_path / "got")
            buffer = io.BytesIO()
            with contextlib.suppress(mc.MinictrError):
                copy_out(fd, source, str(tmp_path / "got"), follow_link=follow)
                tar_out(fd, source, buffer, follow_link=follow)
                worked += 1
            assert SECRET.encode() not in buffer.getvalue()
            assert not found_in(tmp_path / "got")
    assert listing(outside) == before
    assert worked > ROUNDS
