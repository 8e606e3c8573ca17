"""Trees that a container made are removed, whatever they are."""

from __future__ import annotations

import os

import pytest

from minictr.runtime.removal import remove_tree


@pytest.fixture
def below(tmp_path):
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield tmp_path, fd
    os.close(fd)


def test_deeper_than_any_stack(below):
    path, top = below
    fd = os.dup(top)
    for _ in range(2000):
        os.mkdir("d", dir_fd=fd)
        deeper = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = deeper
    os.close(fd)
    remove_tree("d", top)
    assert os.listdir(path) == []


def test_links_lead_nowhere(below):
    path, top = below
    (path / "outside").mkdir()
    (path / "outside" / "kept").write_text("x")
    (path / "tree" / "sub").mkdir(parents=True)
    (path / "tree" / "link").symlink_to("../outside")
    (path / "tree" / "sub" / "absolute").symlink_to(path / "outside")
    (path / "tree" / "sub" / "dangling").symlink_to("nowhere")
    os.mkfifo(path / "tree" / "sub" / "pipe")
    os.link(path / "outside" / "kept", path / "tree" / "hard")
    remove_tree("tree", top)
    assert sorted(os.listdir(path)) == ["outside"]
    assert (path / "outside" / "kept").read_text() == "x"
    (path / "link").symlink_to("outside")
    with pytest.raises(NotADirectoryError):
        remove_tree("link", top)
    assert (path / "outside" / "kept").exists()


def test_what_an_interrupted_removal_left(below):
    path, top = below
    (path / "tree" / "a" / "b").mkdir(parents=True)
    (path / "tree.gone.1" / "x").mkdir(parents=True)
    remove_tree("tree", top)
    assert os.listdir(path) == []
    remove_tree("tree", top)  # gone already


def test_odd_modes(below):
    path, top = below
    (path / "tree" / "a" / "b").mkdir(parents=True)
    (path / "tree" / "a" / "file").write_text("x")
    os.chmod(path / "tree" / "a" / "b", 0)
    os.chmod(path / "tree" / "a", 0)
    os.chmod(path / "tree", 0o500)
    remove_tree("tree", top)
    assert os.listdir(path) == []
