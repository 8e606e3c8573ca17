"""kernel/names: a file over another, in a throwaway mount namespace."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from minictr.errors import StepFailed
from minictr.kernel import names
from minictr.kernel.namespaces import unshare


def covered(path: Path, by: Path, text: str = "ours\n") -> tuple[str, str]:
    """What is read at PATH inside, and its row of mountinfo."""
    with unshare("mnt"):
        names.cover_file(str(path), text, by=str(by))
        rows = [line for line in Path("/proc/thread-self/mountinfo").read_text().splitlines() if f" {path} " in line]
        return path.read_text(), rows[-1]


def test_a_file_is_covered(tmp_path: Path, requires) -> None:
    requires.root()
    path, by = tmp_path / "hosts", tmp_path / "by"
    path.write_text("theirs\n")
    by.mkdir()
    text, row = covered(path, by)
    assert text == "ours\n"
    assert {"nosuid", "nodev", "noexec"} <= set(row.split()[5].split(","))
    assert path.read_text() == "theirs\n"
    assert list(by.iterdir()) == []


@pytest.mark.parametrize("target", ["/nowhere", "/proc/self/mem", "other", "../../../../etc/passwd"])
def test_a_link_is_covered_itself(tmp_path: Path, requires, target: str) -> None:
    requires.root()
    path = tmp_path / "hosts"
    (tmp_path / "other").write_text("other\n")
    path.symlink_to(target)
    assert covered(path, tmp_path)[0] == "ours\n"
    assert os.readlink(path) == target
    assert (tmp_path / "other").read_text() == "other\n"


def test_a_missing_one_is_made_and_its_directory_stays_as_old(tmp_path: Path, requires) -> None:
    requires.root()
    top = tmp_path / "etc"
    top.mkdir()
    os.utime(top, ns=(1_000_000_007, 2_000_000_009))
    assert covered(top / "hosts", tmp_path)[0] == "ours\n"
    assert (top / "hosts").read_bytes() == b""
    assert (top / "hosts").stat().st_mode & 0o7777 == 0o644
    assert top.stat().st_mtime_ns == 2_000_000_009


@pytest.mark.parametrize("kind", ["directory", "link on the way", "no such place for it"])
def test_refused(tmp_path: Path, requires, kind: str) -> None:
    requires.root()
    path, by = tmp_path / "etc" / "hosts", tmp_path
    path.mkdir(parents=True)
    if kind == "link on the way":
        (tmp_path / "way").symlink_to("etc")
        path = tmp_path / "way" / "file"
    elif kind == "no such place for it":
        path = tmp_path / "etc" / "file"
        path.write_text("")
        by = tmp_path / "nowhere"
    with pytest.raises(StepFailed, match=str(path)):
        covered(path, by)
    assert not (tmp_path / "etc" / "file").exists() or kind == "no such place for it"


def test_a_long_text(tmp_path: Path, requires) -> None:
    requires.root()
    path = tmp_path / "hosts"
    path.write_text("")
    text = "".join(f"10.0.{n // 250}.{n % 250} name{n}\n" for n in range(5000))
    assert covered(path, tmp_path, text)[0] == text


def test_probe(requires) -> None:
    requires.root()
    assert all(names.probe().values())
    assert set(names.probe()) == {"hosts", "resolv_conf", "hostname_file", "names"}
