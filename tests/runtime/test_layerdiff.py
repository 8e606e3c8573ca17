"""What changed in an overlay's upper layer, and that layer as a thing of its own. The kernel makes the layers."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import minictr as mc
from minictr.images.tarball import import_tarball
from minictr.kernel import trees
from minictr.runtime.commit import commit_layer
from minictr.runtime.copying import IdMap, copy_out, merged_root
from minictr.runtime.layerdiff import changes


class Overlay:
    """Two lower layers and an upper one; ``with overlay.write() as root`` changes it through the kernel."""

    def __init__(self, house: Path) -> None:
        self.house, self.upper = house, house / "upper"
        self.top, self.bottom = house / "top", house / "bottom"
        for path in (self.upper, house / "work", self.top, self.bottom):
            path.mkdir()
        for name in ("keep", "edit", "gone", "meta", "replaced"):
            (self.bottom / "d" / name).mkdir(parents=True)
            (self.bottom / "d" / name / "f").write_text(name)
        (self.bottom / "file").write_text("file")
        (self.bottom / "to-dir").write_text("file")
        (self.top / "d" / "keep").mkdir(parents=True)
        (self.top / "d" / "keep" / "g").write_text("from the top")
        self.lowers = (str(self.top), str(self.bottom))

    def view(self, *options: str) -> int:
        layers = [f"lowerdir={self.top}:{self.bottom}", f"upperdir={self.upper}", f"workdir={self.house}/work"]
        return trees.create("overlay", ["source=overlay", *layers, *options], 0, "overlay")

    def change(self, script: Callable[[Path], None], *options: str) -> None:
        fd = self.view(*options)
        try:
            script(Path(f"/proc/self/fd/{fd}/."))
        finally:
            os.close(fd)

    def diff(self) -> list[str]:
        return [str(change) for change in changes(str(self.upper), self.lowers)]


@pytest.fixture
def overlay(tmp_path: Path, requires) -> Overlay:
    requires.root()
    (tmp_path / "layers").mkdir()
    return Overlay(tmp_path / "layers")


def many(root: Path) -> None:
    """Every kind of change."""
    (root / "new").mkdir()
    (root / "new/f").write_text("new")
    os.link(root / "new/f", root / "new/hard")
    (root / "d/edit/f").write_text("edited")
    shutil.rmtree(root / "d/gone")
    (root / "d/meta").chmod(0o700)
    shutil.rmtree(root / "d/replaced")
    (root / "d/replaced").mkdir()
    (root / "d/replaced/h").write_text("h")
    (root / "to-dir").unlink()
    (root / "to-dir").mkdir()
    (root / "file").rename(root / "renamed")
    os.mkfifo(root / "fifo")
    os.chown(root / "fifo", 5, 6)
    os.setxattr(root / "new/f", "user.x", b"y")


MANY = """\
C /d
C /d/edit
C /d/edit/f
D /d/gone
C /d/meta
C /d/replaced
D /d/replaced/f
A /d/replaced/h
A /fifo
D /file
A /new
A /new/f
A /new/hard
A /renamed
C /to-dir""".splitlines()


def test_nothing(overlay: Overlay) -> None:
    assert overlay.diff() == []
    overlay.change(lambda root: os.utime(root / "d/keep/f"))  # copied up, parents with it
    assert overlay.diff() == ["C /d", "C /d/keep", "C /d/keep/f"]


def test_every_kind_of_change(overlay: Overlay) -> None:
    overlay.change(many)
    assert overlay.diff() == MANY
    fd = os.open(overlay.upper, os.O_PATH | os.O_DIRECTORY)
    try:
        assert [str(change) for change in changes(fd, overlay.lowers)] == MANY
    finally:
        os.close(fd)


def test_a_directory_made_anew_hides_what_is_below(overlay: Overlay) -> None:
    """Also further down, where only its parent says so."""

    def again(root: Path) -> None:
        shutil.rmtree(root / "d")
        (root / "d/keep").mkdir(parents=True)
        (root / "d/keep/f").write_text("mine")

    overlay.change(again)
    assert overlay.diff() == [
        "C /d", "D /d/edit", "D /d/gone", "C /d/keep", "C /d/keep/f", "D /d/keep/g", "D /d/meta", "D /d/replaced",
    ]  # fmt: skip


def test_renamed_directories(overlay: Overlay) -> None:
    """redirect_dir: the layer has an attribute instead of the files."""

    def rename(root: Path) -> None:
        (root / "d/keep").rename(root / "moved")
        (root / "moved/g").unlink()
        (root / "moved/new").write_text("new")
        (root / "d/edit").rename(root / "d/other")

    overlay.change(rename, "redirect_dir=on")
    assert (overlay.upper / "moved").is_dir() and not (overlay.upper / "moved/f").exists()
    expected = [
        "C /d",
        "D /d/edit",
        "D /d/keep",
        "A /d/other",
        "A /d/other/f",
        "A /moved",
        "A /moved/f",
        "A /moved/new",
    ]
    assert overlay.diff() == expected
    assert layer(overlay) == [
        "d/", "d/.wh.edit", "d/.wh.keep", "d/other/", "d/other/f", "moved/", "moved/f", "moved/new",
    ]  # fmt: skip
    with pytest.raises(mc.SpecError, match="was renamed, and is in the layers below"):
        commit_layer(str(overlay.upper), io.BytesIO())


def test_metadata_alone(overlay: Overlay) -> None:
    """metacopy: the layer has a file's owner and not its data."""
    overlay.change(lambda root: os.chown(root / "file", 7, 7), "metacopy=on", "redirect_dir=on")
    assert overlay.diff() == ["C /file"]
    assert "trusted.overlay.metacopy" in os.listxattr(overlay.upper / "file")
    buffer = io.BytesIO()
    commit_layer(str(overlay.upper), buffer, lowers=overlay.lowers)
    buffer.seek(0)
    with tarfile.open(fileobj=buffer) as tar:
        file = tar.extractfile("file")
        assert file is not None and file.read() == b"file"
        assert tar.getmember("file").uid == 7


def test_whiteouts_by_attribute(overlay: Overlay) -> None:
    """Linux 6.7. And by the names of an ordinary user's overlay, which do not count here: a program may write them."""
    (overlay.upper / "d").mkdir()
    os.setxattr(overlay.upper / "d", "trusted.overlay.opaque", b"x")
    (overlay.upper / "d/gone").write_text("")
    os.setxattr(overlay.upper / "d/gone", "trusted.overlay.whiteout", b"y")
    (overlay.upper / "d/edit").write_text("")
    os.setxattr(overlay.upper / "d/edit", "user.overlay.whiteout", b"y")
    assert overlay.diff() == ["C /d", "C /d/edit", "D /d/gone"]
    assert layer(overlay) == ["d/", "d/edit", "d/.wh.gone"]
    found = [str(change) for change in changes(str(overlay.upper), overlay.lowers, prefix="user.overlay.")]
    assert found == ["C /d", "D /d/edit", "C /d/gone"]


# --- commit ---


def layer(overlay: Overlay) -> list[str]:
    """The names in the tarball of the layer."""
    buffer = io.BytesIO()
    commit_layer(str(overlay.upper), buffer, lowers=overlay.lowers)
    buffer.seek(0)
    with tarfile.open(fileobj=buffer) as tar:
        return [member.name + "/" * member.isdir() for member in tar]


def seen(root: Path | str) -> dict[str, tuple[object, ...]]:
    """Everything below ROOT as a program sees it."""
    found = {}
    for directory, below, files in os.walk(root):
        for name in (*below, *files):
            path = os.path.join(directory, name)
            info = os.lstat(path)
            data = Path(path).read_bytes() if stat.S_ISREG(info.st_mode) else b""
            key = os.path.relpath(path, root)
            found[key] = (info.st_mode, info.st_uid, info.st_gid, info.st_mtime_ns, data)
    return found


@pytest.fixture
def changed(overlay: Overlay) -> Iterator[tuple[Overlay, dict[str, tuple[object, ...]]]]:
    overlay.change(many)
    fd = merged_root([str(overlay.upper), *overlay.lowers])
    try:
        yield overlay, seen(f"/proc/self/fd/{fd}/.")
    finally:
        os.close(fd)


def test_a_layer_as_a_directory_is_a_layer(changed, tmp_path: Path) -> None:
    overlay, expected = changed
    done = commit_layer(str(overlay.upper), str(tmp_path / "kept"))
    assert done.files == 4
    assert [str(change) for change in changes(str(tmp_path / "kept"), overlay.lowers)] == MANY
    shutil.rmtree(overlay.upper)
    fd = merged_root([str(tmp_path / "kept"), *overlay.lowers])
    try:
        assert seen(f"/proc/self/fd/{fd}/.") == expected
    finally:
        os.close(fd)
    assert os.stat(tmp_path / "kept/new/f").st_nlink == 2
    with pytest.raises(mc.SpecError, match="is not empty"):
        commit_layer(str(tmp_path / "kept"), str(tmp_path / "kept"))


def test_a_layer_as_a_tarball_has_the_whiteouts_of_oci(changed, tmp_path: Path) -> None:
    overlay, _ = changed
    names = layer(overlay)
    assert "d/.wh.gone" in names and ".wh.file" in names
    assert names.index("d/replaced/") < names.index("d/replaced/.wh..wh..opq")
    assert "new/hard" in names and "./" not in names
    assert not any(name.startswith(("d/keep", "bottom")) for name in names)


def test_names_that_would_be_deletions(overlay: Overlay) -> None:
    """A container that makes ``.wh.etc`` must not delete /etc wherever its layer is used."""

    def plant(root: Path) -> None:
        (root / ".wh.d").write_text("")
        (root / "x").mkdir()
        (root / "x/.wh..wh..opq").write_text("")
        (root / ".wh.dir").mkdir()
        (root / ".wh.dir/f").write_text("")

    overlay.change(plant)
    buffer = io.BytesIO()
    done = commit_layer(str(overlay.upper), buffer, lowers=overlay.lowers)
    buffer.seek(0)
    with tarfile.open(fileobj=buffer) as tar:
        assert tar.getnames() == ["x"] or tar.getnames() == ["x", "x/.wh..wh..opq"]
        opaque = [name for name in tar.getnames() if name.endswith(".opq")]
        assert len(opaque) <= 1  # the kernel's own mark of a new directory
    assert any("mean a deletion in a layer: 4" in note for note in done.notes)


@pytest.mark.parametrize("ending", [".tar", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst"])
def test_the_whole_as_a_tarball_can_be_imported(changed, tmp_path: Path, requires, ending: str) -> None:
    overlay, expected = changed
    if ending == ".tar.zst":
        requires("zstd")
    commit_layer(str(overlay.upper), f"{tmp_path}/whole{ending}", lowers=overlay.lowers, whole=True)
    import_tarball(str(tmp_path / "back"), f"{tmp_path}/whole{ending}")
    assert seen(tmp_path / "back") == expected
    with pytest.raises(mc.SpecError, match="is there already, and is not overwritten"):
        commit_layer(str(overlay.upper), f"{tmp_path}/whole{ending}")
    assert sorted(os.listdir(tmp_path)) == ["back", "layers", f"whole{ending}"]


def test_the_same_layer_gives_the_same_bytes(changed, tmp_path: Path) -> None:
    overlay, _ = changed
    for name in ("a.tar.gz", "b.tar.gz"):
        commit_layer(str(overlay.upper), f"{tmp_path}/{name}", lowers=overlay.lowers)
    assert (tmp_path / "a.tar.gz").read_bytes() == (tmp_path / "b.tar.gz").read_bytes()
    assert gzip.decompress((tmp_path / "a.tar.gz").read_bytes())


def test_the_whole_as_a_directory_runs(own_rootfs: Path, tmp_path: Path, requires) -> None:
    """A container's changes become the next one's root."""
    requires.root()
    box = mc.Container(own_rootfs).with_(mc.Overlay(upper=str(tmp_path / "upper")))
    box.run(["bash", "-c", "echo hello > /etc/made; rm /bin/ls; mkdir /run/d; chown 5:6 /run/d"], check=True)
    assert [f"{change}" for change in changes(str(tmp_path / "upper"), [str(own_rootfs)]) if "/proc" not in change.path]
    lowers = [str(own_rootfs)]
    commit_layer(str(tmp_path / "upper"), str(tmp_path / "next"), lowers=lowers, whole=True)
    again = mc.Container(tmp_path / "next")
    done = again.run(["bash", "-c", "cat /etc/made; test ! -e /bin/ls"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "hello\n")


def test_what_is_mounted_is_not_in_it(own_rootfs: Path, tmp_path: Path, requires) -> None:
    """The layer of a running container that is thrown away with it: only its root can be read."""
    requires.root()
    box = mc.Container(own_rootfs).with_(mc.Overlay(), mc.Tmpfs("/mnt"), mc.Bind("/etc/passwd", "/etc/passwd"))
    script = "echo x > /mnt/x; echo made > /etc/made; exec sleep 60"
    with box.popen(["bash", "-c", f"{script}"]) as process:
        root = f"/proc/{process.pid}/root"
        while not os.path.exists(f"{root}/etc/made"):
            process.poll()
        fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
        try:
            done = commit_layer("", str(tmp_path / "whole"), whole=True, merged=fd)
        finally:
            os.close(fd)
        process.kill()
    assert (tmp_path / "whole/etc/made").read_text() == "made\n"
    assert os.listdir(tmp_path / "whole/mnt") == os.listdir(tmp_path / "whole/proc") == []
    assert not (tmp_path / "whole/etc/passwd").exists()
    assert any(note.startswith("mounted files left out: 1 ('/etc/passwd')") for note in done.notes)


def test_ids_are_those_inside(changed, tmp_path: Path) -> None:
    overlay, _ = changed
    os.chown(overlay.upper / "fifo", 100_007, 100_008)
    ids = IdMap(((0, 100_000, 65_536),), ((0, 100_000, 65_536),))
    commit_layer(str(overlay.upper), str(tmp_path / "kept"), id_map=ids)
    assert (os.lstat(tmp_path / "kept/fifo").st_uid, os.lstat(tmp_path / "kept/fifo").st_gid) == (7, 8)
    assert os.lstat(tmp_path / "kept/new").st_uid == 65534  # the host's root is nobody in there


def test_no_layer_and_failures(overlay: Overlay, tmp_path: Path) -> None:
    with pytest.raises(mc.SpecError, match="the container keeps no layer"):
        commit_layer("", str(tmp_path / "x"))
    with pytest.raises(mc.StepFailed, match="commit to .*: open the root .*/absent: ENOENT"):
        commit_layer(str(tmp_path / "absent"), str(tmp_path / "x.tar"))

    class Full(io.BytesIO):
        def write(self, data: object) -> int:
            raise OSError(28, "full")

    with pytest.raises(mc.StepFailed, match="commit to standard output: .*ENOSPC.*make room"):
        commit_layer(str(overlay.bottom), Full())
    assert os.listdir(tmp_path) == ["layers"]


def test_the_same_as_the_kernel_shows(changed, tmp_path: Path) -> None:
    """GNU tar and the kernel as judges: the layer unpacked over the merged lowers is the merged tree."""
    overlay, expected = changed
    below = merged_root(overlay.lowers)
    try:
        copy_out(below, "/.", str(tmp_path / "applied"), archive=True)
    finally:
        os.close(below)
    buffer = io.BytesIO()
    commit_layer(str(overlay.upper), buffer, lowers=overlay.lowers)
    buffer.seek(0)
    with tarfile.open(fileobj=buffer) as tar:
        for name in tar.getnames():
            directory, base = os.path.split(f"{tmp_path}/applied/{name}")
            if base == ".wh..wh..opq":
                for old in os.listdir(directory) if os.path.isdir(directory) else ():
                    subprocess.run(["rm", "-rf", f"{directory}/{old}"], check=True)
            elif base.startswith(".wh."):
                subprocess.run(["rm", "-rf", f"{directory}/{base.removeprefix('.wh.')}"], check=True)
            elif tar.getmember(name).isdir() and os.path.isfile(f"{directory}/{base}"):
                os.unlink(f"{directory}/{base}")
    exclude = ["--exclude=.wh.*", "--xattrs", "--xattrs-include=*"]
    subprocess.run(["tar", "-xpC", str(tmp_path / "applied"), *exclude], input=buffer.getvalue(), check=True)
    assert seen(tmp_path / "applied") == expected
