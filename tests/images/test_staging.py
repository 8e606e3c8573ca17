"""A directory appears all at once or not at all, whatever happens in between."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from minictr.errors import MinictrError, SpecError
from minictr.images.staging import check_target, remove_tree, staging


def test_the_directory_appears_at_the_end(tmp_path: Path) -> None:
    with staging(str(tmp_path / "new")) as stage:
        assert not (tmp_path / "new").exists()
        assert os.stat(stage.path).st_mode & 0o777 == 0o700
        Path(stage.path, "file").write_text("x")
    assert os.listdir(tmp_path) == ["new"]
    assert os.listdir(tmp_path / "new") == ["file"]


def test_an_empty_directory_is_taken(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    with staging(f"{tmp_path}/new/"):
        pass
    assert os.listdir(tmp_path) == ["new"]


@pytest.mark.parametrize("exception", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_an_exception_leaves_nothing(tmp_path: Path, exception: type[BaseException]) -> None:
    def fails() -> None:
        with staging(str(tmp_path / "new")) as stage:
            Path(stage.path, "deep/er").mkdir(parents=True)
            os.symlink("/etc", Path(stage.path, "deep/link"))
            raise exception

    with pytest.raises(exception):
        fails()
    assert os.listdir(tmp_path) == []
    assert os.path.exists("/etc/passwd")


def refused(path: str) -> str:
    with pytest.raises(SpecError) as caught, staging(path):
        pytest.fail("not refused")
    return str(caught.value)


def test_targets_that_are_refused(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    os.symlink("nowhere", tmp_path / "dangling")
    os.symlink(tmp_path / "full", tmp_path / "link")
    assert "not empty" in refused(str(tmp_path / "full"))
    assert "not a directory" in refused(str(tmp_path / "full" / "x"))
    assert "symbolic link" in refused(str(tmp_path / "dangling"))
    assert "symbolic link" in refused(str(tmp_path / "link"))
    assert "parent" in refused(str(tmp_path / "no" / "new"))
    assert "own root" in refused("/")
    assert "mount point" in refused("/proc")
    assert "not a directory name" in refused("")
    assert "not a directory name" in refused("a\0b")
    assert sorted(os.listdir(tmp_path)) == ["dangling", "full", "link"]


def test_a_parent_reached_by_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    os.symlink("real", tmp_path / "link")
    assert check_target(f"{tmp_path}/link/new") == (str(tmp_path / "real"), "new")


def test_somebody_makes_the_target_meanwhile(tmp_path: Path) -> None:
    def race() -> None:
        with staging(str(tmp_path / "new")):
            (tmp_path / "new").mkdir()
            (tmp_path / "new" / "theirs").touch()

    with pytest.raises(MinictrError, match="meanwhile"):
        race()
    assert os.listdir(tmp_path) == ["new"]
    assert os.listdir(tmp_path / "new") == ["theirs"]


def test_a_killed_build_is_swept_and_a_living_one_is_not(tmp_path: Path) -> None:
    import minictr

    code = (
        "import sys, time\nfrom minictr.images.staging import staging\n"
        f"with staging({str(tmp_path / 'new')!r}):\n    print(flush=True)\n    time.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(minictr.__path__[0]).parent)}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"\n"
        left = os.listdir(tmp_path)
        assert len(left) == 1
        with pytest.raises(RuntimeError), staging(str(tmp_path / "new")):
            raise RuntimeError
        assert os.listdir(tmp_path) == left
        other.send_signal(signal.SIGKILL)
        other.wait()
    assert os.listdir(tmp_path) == left
    with staging(str(tmp_path / "new")):
        assert left[0] not in os.listdir(tmp_path)
    assert os.listdir(tmp_path) == ["new"]


def test_names_that_only_look_like_ours_are_left(tmp_path: Path) -> None:
    (tmp_path / ".new.minictr-file").touch()
    (tmp_path / ".other.minictr-12345678").mkdir()
    with staging(str(tmp_path / "new")):
        pass
    assert sorted(os.listdir(tmp_path)) == [".new.minictr-file", ".other.minictr-12345678", "new"]


def test_what_is_mounted_is_not_deleted(tmp_path: Path, requires) -> None:
    """A mount below is an error that names it: behind it is somebody else's data."""
    requires.root()
    requires("mount")
    data = tmp_path / "data"
    data.mkdir()
    (data / "precious").touch()
    (tmp_path / "tree" / "mounted here").mkdir(parents=True)
    subprocess.run(["mount", "--bind", data, tmp_path / "tree" / "mounted here"], check=True)
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with pytest.raises(MinictrError, match="mounted here is mounted in it"):
            remove_tree(str(tmp_path), fd, "tree")
    finally:
        subprocess.run(["umount", tmp_path / "tree" / "mounted here"], check=True)
    assert (data / "precious").exists()
    remove_tree(str(tmp_path), fd, "tree")
    os.close(fd)
    assert os.listdir(tmp_path) == ["data"]


def test_a_parent_that_cannot_be_written() -> None:
    with pytest.raises(MinictrError, match=r"make a directory in /proc") as caught, staging("/proc/new"):
        pass
    assert getattr(caught.value, "errno", 0) in (errno.ENOENT, errno.EACCES, errno.EPERM)
