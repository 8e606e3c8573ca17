"""Id-mapped mounts, by who owns a file there and on disk."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from minictr.errors import StepFailed, Unsupported
from minictr.kernel import mounts
from minictr.kernel.mounts import bind


@pytest.mark.parametrize("way", ["maps", "userns"])
def test_idmapped_bind(in_child: Any, place: Path, way: str) -> None:
    (place / "target").mkdir()
    (place / "mine").touch()

    def body() -> tuple[int, int, int]:
        from minictr.kernel.users import user_namespace

        text = "0 100000 1000\n"
        with user_namespace(uid_map=text, gid_map=text) as userns:
            how: dict[str, Any] = {"userns": userns.fileno()} if way == "userns" else {"uid_map": text, "gid_map": text}
            with bind(str(place), str(place / "target"), recursive=False, **how):
                shown = (place / "target/mine").stat()
                os.chown(place / "target/mine", 100007, 100008)
        stored = (place / "mine").stat()
        return shown.st_uid, shown.st_gid, stored.st_uid * 100 + stored.st_gid

    assert in_child(body) == (100000, 100000, 708)


def test_idmap_of_what_cannot_be_mapped(in_child: Any) -> None:
    def body() -> str:
        with pytest.raises(StepFailed) as caught:
            mounts.idmapped_tree("/proc", uid_map="0 1000 1\n", gid_map="0 1000 1\n")
        return str(caught.value)

    assert in_child(body).startswith("idmap /proc: EINVAL")


def test_mount_2_cannot_map_ids(in_child: Any, place: Path) -> None:
    def body() -> str:
        with pytest.raises(Unsupported) as caught:
            bind("/", str(place), uid_map="0 1000 1\n", gid_map="0 1000 1\n", api="old")
        return str(caught.value)

    assert "Linux 5.12" in in_child(body)


def test_the_error_names_the_file_system(in_child: Any, place: Path) -> None:
    def body() -> str:
        for name in "abc":
            (place / name).mkdir()
        with mounts.overlay(str(place / "c"), lower=[str(place / "a"), str(place / "b")]):
            with pytest.raises(StepFailed) as caught:
                mounts.idmapped_tree(str(place / "c"), uid_map="0 1000 1\n", gid_map="0 1000 1\n")
            return str(caught.value)

    words = in_child(body)
    assert f"overlay (on {place}/c) cannot be id-mapped" in words
    assert "ext4" in words


def test_probe_tells_which_can(in_child: Any, as_nobody: Any) -> None:
    from minictr.kernel import idmap

    def body() -> Any:
        before = mounts.mountinfo()
        return idmap.kinds(), str(idmap.probe()["idmap"]), before == mounts.mountinfo()

    found, told, untouched = in_child(body)
    assert untouched
    assert told.startswith("yes" if any(found.values()) else "no: ")
    assert all(name in told for name, can in found.items() if can)
    assert "be root" in str(as_nobody(lambda: idmap.probe()["idmap"]))
