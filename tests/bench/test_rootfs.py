"""The shared root file system: built once, found again, distrusted when somebody wrote to it."""

from __future__ import annotations

import dataclasses
import fcntl
import os
import subprocess
import threading
import time
from pathlib import Path

import pytest

from bench import rootfs
from bench.rootfs import MINIMAL, Recipe, RootfsError, digest, ensure

SMALL = Recipe((), ("sh", "true"))


@pytest.fixture(autouse=True)
def _needs(requires) -> None:
    requires("cc", "tar")


def test_it_is_built_once_and_found_again(tmp_path: Path) -> None:
    said: list[str] = []
    first = ensure(SMALL, cache=str(tmp_path), progress=said.append)
    inode = os.stat(first.path).st_ino
    again = ensure(SMALL, cache=str(tmp_path), progress=said.append)
    assert (
        (again.path, again.facts["digest"]) == (first.path, first.facts["digest"])
        and os.stat(again.path).st_ino == inode
        and not said
    )
    assert first.linux == ""
    for place in rootfs.PLACES:
        assert os.path.isdir(os.path.join(first.path, place))
    assert sorted(os.listdir(tmp_path)) == [SMALL.key, f"{SMALL.key}.lock"]


def test_roots_that_nobody_wants_any_more_go(tmp_path: Path) -> None:
    for name, age in (("old", rootfs.OLD + 60), ("held", rootfs.OLD + 60), ("young", 60)):
        (tmp_path / name / "root").mkdir(parents=True)
        (tmp_path / f"{name}.lock").touch()
        then = time.time() - age
        os.utime(tmp_path / f"{name}.lock", (then, then))
    with open(tmp_path / "held.lock", "rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ensure(SMALL, cache=str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == sorted(["held", "young", SMALL.key])


def test_the_clock_in_it_runs_alone(tmp_path: Path) -> None:
    """It is static: no library of the root is needed, and its report can be read."""
    made = ensure(SMALL, cache=str(tmp_path))
    headers = subprocess.run(["readelf", "-l", made.path + rootfs.TIMED], capture_output=True, text=True, check=True)
    assert "INTERP" not in headers.stdout
    done = subprocess.run([made.path + rootfs.TIMED, "t", "0", "sh", "-c", "exit 7"], capture_output=True, check=False)
    assert done.returncode == 7 and b'\n@minictr-bench {"wall_ns":' in done.stderr


def test_another_recipe_is_another_root() -> None:
    assert len({SMALL.key, MINIMAL.key, Recipe().key, Recipe(suite="trixie").key}) == 4
    assert dataclasses.replace(SMALL).key == SMALL.key


@pytest.mark.parametrize("how", ["write", "chmod", "add", "remove"])
def test_one_that_was_written_to_is_said_and_built_anew(tmp_path: Path, how: str) -> None:
    first = ensure(SMALL, cache=str(tmp_path))
    spoilt = Path(first.path) / "bin/true"
    {
        "write": lambda: spoilt.write_text("spoilt"),
        "chmod": lambda: spoilt.chmod(0o700),
        "add": lambda: (Path(first.path) / "etc/new").write_text(""),
        "remove": lambda: spoilt.unlink(),
    }[how]()
    said: list[str] = []
    again = ensure(SMALL, cache=str(tmp_path), progress=said.append)
    assert any("written to" in line for line in said)
    assert digest(again.path) == again.facts["digest"] and (Path(again.path) / "bin/true").exists()
    assert not (Path(again.path) / "etc/new").exists()


def test_two_at_once_build_one(tmp_path: Path) -> None:
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda: found.append(ensure(SMALL, cache=str(tmp_path)).facts["digest"]))  # type: ignore[arg-type]
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3 and len(set(found)) == 1


def test_what_a_killed_build_left_is_not_taken_for_whole(tmp_path: Path) -> None:
    partial = tmp_path / f"{SMALL.key}.partial"
    (partial / "root/bin").mkdir(parents=True)
    (tmp_path / SMALL.key / "root").mkdir(parents=True)  # without its made.json
    made = ensure(SMALL, cache=str(tmp_path))
    assert os.path.exists(made.path + rootfs.TIMED) and not partial.exists()


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        (Recipe((), ("no-such-program-here",)), "no-such-program-here"),
        pytest.param(Recipe(suite="nosuchsuite"), "root file system: .*suite", marks=pytest.mark.bench),
    ],
)
def test_a_build_that_fails_is_one_line_and_leaves_nothing(
    tmp_path: Path, recipe: Recipe, words: str, requires
) -> None:
    requires("mmdebstrap")
    with pytest.raises(RootfsError, match=words) as caught:
        ensure(recipe, cache=str(tmp_path))
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == [f"{recipe.key}.lock"]


def test_a_full_disk_is_told_before_anything_is_fetched(small_disk: Path) -> None:
    with pytest.raises(RootfsError, match="needs 3 GiB"):
        ensure(Recipe(), cache=str(small_disk))
    assert os.listdir(small_disk) == [f"{Recipe().key}.lock"]


def test_a_disk_that_fills_meanwhile_is_one_line(small_disk: Path) -> None:
    with pytest.raises(RootfsError, match=r"[Nn]o space left") as caught:
        ensure(MINIMAL, cache=str(small_disk))
    assert "\n" not in str(caught.value)
    assert os.listdir(small_disk) == [f"{MINIMAL.key}.lock"]


def test_no_compiler_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(RootfsError, match="install gcc"):
        ensure(SMALL, cache=str(tmp_path))
