"""The root: what / is afterwards, and that the image is never written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from minictr.errors import SpecError, StepFailed
from minictr.kernel import core, mounts, ops, rootfs, trees
from minictr.kernel.mountinfo import mountinfo


def test_pivot_root(in_child: Any, place: Path) -> None:
    (place / "proc").mkdir()
    (place / "only").touch()

    def body() -> tuple[list[str], list[str], str]:
        mounts.bind(str(place), str(place)).keep()
        mounts.proc(str(place / "proc")).keep()
        rootfs.pivot_root(str(place))
        return sorted(os.listdir("/")), [mount.target for mount in mountinfo()], os.getcwd()

    assert in_child(body) == (["only", "proc"], ["/", "/proc"], "/")


def test_pivot_root_wants_a_mount_point(in_child: Any, place: Path) -> None:
    def body() -> tuple[str, str]:
        before = os.getcwd()
        with pytest.raises(StepFailed) as caught:
            rootfs.pivot_root(str(place))
        return str(caught.value), "" if os.getcwd() == before else os.getcwd()

    words, moved = in_child(body)
    # EINVAL where it is on another mount than / is: temporary files on a tmpfs (pivot_root(2))
    assert any(f"pivot root {place}: {error}" in words for error in ("EBUSY", "EINVAL"))
    assert "a mount point is needed" in words
    assert not moved


def test_chroot_hides_by_name_only(in_child: Any, place: Path) -> None:
    (place / "only").touch()

    def body() -> tuple[list[str], int]:
        outside = os.open("/", os.O_PATH)
        rootfs.chroot(str(place))
        seen = os.listdir("/")
        os.fchdir(outside)
        return seen, len(os.listdir("."))

    seen, beyond = in_child(body)
    assert seen == ["only"]
    assert beyond > 1


@pytest.mark.parametrize("call", [rootfs.pivot_root, rootfs.chroot])
def test_no_such_root(in_child: Any, call: Any) -> None:
    def body() -> str:
        with pytest.raises(StepFailed) as caught:
            call("/nowhere")
        return str(caught.value)

    assert "ENOENT" in in_child(body)


def test_an_ordinary_user_may_not(as_nobody: Any, place: Path) -> None:
    def body() -> list[str]:
        said = []
        for call in (rootfs.pivot_root, rootfs.chroot):
            with pytest.raises(StepFailed) as caught:
                call(str(place))
            said.append(str(caught.value))
        return said

    assert all("EPERM" in words for words in as_nobody(body))


@pytest.fixture
def image(place: Path) -> Path:
    (place / "etc").mkdir()
    (place / "etc/motd").write_text("of the image")
    (place / "removed").touch()
    return place


def test_a_layer_that_is_thrown_away(in_child: Any, image: Path) -> None:
    def body() -> tuple[str, list[str], list[str], int]:
        with rootfs.overlay_root(str(image), lower=[str(image)], size="1M") as root:
            (image / "etc/motd").write_text("changed")
            (image / "removed").unlink()
            (image / "new").touch()
            seen, inside = (image / "etc/motd").read_text(), sorted(os.listdir(image))
            with pytest.raises(OSError, match="No space"):
                (image / "large").write_bytes(bytes(2 << 20))
            stacked = sum(mount.target == root.target for mount in mountinfo())
        return seen, inside, sorted(os.listdir(image)), stacked

    # one mount alone: the tmpfs behind it hangs nowhere
    assert in_child(body) == ("changed", ["etc", "new"], ["etc", "removed"], 1)
    assert (image / "etc/motd").read_text() == "of the image"


def test_a_layer_that_is_kept(in_child: Any, image: Path, tmp_path: Path) -> None:
    upper, target = tmp_path / "upper", tmp_path / "target"
    upper.mkdir()
    target.mkdir()

    def body() -> list[str]:
        found = []
        for number in range(2):
            with rootfs.overlay_root(str(target), lower=[str(image)], upper=str(upper)):
                found.append((target / "etc/motd").read_text())
                (target / "etc/motd").write_text(f"run {number}")
        return found

    assert in_child(body) == ["of the image", "run 0"]
    assert (image / "etc/motd").read_text() == "of the image"
    assert (upper / "etc/motd").read_text() == "run 1"
    assert (tmp_path / "upper.work").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("count", [2, 40])
@pytest.mark.parametrize("name", ["plain{}", "o,d:d\\ {}"])
@pytest.mark.parametrize("api", ["auto", "old"])
def test_several_lower_layers_of_any_name(in_child: Any, tmp_path: Path, count: int, name: str, api: str) -> None:
    layers = [tmp_path / name.format(number) for number in range(count)]
    for number, layer in enumerate(layers):
        layer.mkdir()
        (layer / f"of-{number}").touch()
        (layer / "all").write_text(str(number))
    for directory in ("upper", "work", "target"):
        (tmp_path / directory).mkdir()

    def body() -> tuple[int, str, int]:
        target = tmp_path / "target"
        how = {"upper": str(tmp_path / "upper"), "work": str(tmp_path / "work")}
        with mounts.overlay(str(target), lower=[str(layer) for layer in layers], api=api, **how):
            found = len(os.listdir(target)), (target / "all").read_text()
        with mounts.overlay(str(target), lower=[str(layer) for layer in layers], api=api):
            with pytest.raises(OSError, match="Read-only"):
                (target / "x").touch()
            return *found, len(os.listdir(target))

    assert in_child(body) == (count + 1, "0", count + 1)


def test_overlay_mistakes(in_child: Any, image: Path) -> None:
    def body() -> str:
        with pytest.raises(StepFailed) as caught:
            rootfs.overlay_root(str(image), lower=["/nowhere"])
        return str(caught.value)

    assert in_child(body) == "open layer /nowhere: ENOENT (No such file or directory)"
    for wrong in ({"lower": []}, {"lower": ["/"], "work": "/w"}, {"lower": ["/"], "upper": "/u", "size": 1}):
        with pytest.raises(SpecError, match="lower is needed"):
            rootfs.overlay_root("/x", **wrong)  # type: ignore[arg-type]


def test_a_read_only_root(in_child: Any, place: Path) -> None:
    (place / "tmp").mkdir()

    def body() -> tuple[bool, bool]:
        mounts.bind(str(place), str(place)).keep()
        mounts.tmpfs(str(place / "tmp")).keep()
        rootfs.pivot_root(str(place))
        mounts.set_attributes("/", readonly=True)
        return os.access("/", os.W_OK), os.access("/tmp", os.W_OK)

    assert in_child(body) == (False, True)


def test_a_root_under_another_mount_is_no_root(in_child: Any, place: Path) -> None:
    """``..`` of the root leads onto what lies over it: verify_root looks, for an old root could be left there."""

    def body() -> tuple[str, str]:
        mounts.bind(str(place), str(place)).keep()
        rootfs.pivot_root(str(place))
        ops.execute("verify_root")
        tree, root = trees.create("tmpfs", [], 0, "tmpfs over the root"), os.open("/", os.O_PATH)
        core.check(core.lib.mc_move_mount(tree, b"", root, b"", trees.EMPTY_PATHS), "move_mount over the root")
        with pytest.raises(StepFailed) as caught:
            ops.execute("verify_root")
        return str(caught.value.errno), str(os.listdir("/.."))

    assert in_child(body) == ("18", "[]")  # EXDEV
