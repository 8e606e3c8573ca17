"""What a virtual machine is made of, without one: disks, the initial file system, the choice of a kernel."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from bench.environments import vm_boot
from bench.environments.base import EnvironmentBroken
from bench.environments.vm import half_of_memory, limits, ram


def test_a_disk_has_what_the_directory_has(tmp_path: Path, requires) -> None:
    requires.root()
    requires("mke2fs", "debugfs")
    source, image = tmp_path / "source", tmp_path / "disk.img"
    (source / "deep" / "er").mkdir(parents=True)
    (source / "deep" / "er" / "file").write_bytes(os.urandom(100_000))
    (source / "deep" / "link").symlink_to("er/file")
    (source / "spaced name").write_text("x")
    os.chown(source / "spaced name", 12, 34)
    os.chmod(source / "spaced name", 0o4751)
    vm_boot.disk(str(image), str(source))
    assert os.stat(image).st_blocks * 512 < os.stat(image).st_size / 100, "holes"
    vm_boot.fetch(str(image), "/deep", str(tmp_path / "deep"))
    vm_boot.fetch(str(image), "/spaced name", str(tmp_path / "spaced"))
    assert (tmp_path / "deep/er/file").read_bytes() == (source / "deep/er/file").read_bytes()
    assert os.readlink(tmp_path / "deep/link") == "er/file"
    info = os.stat(tmp_path / "spaced")
    assert (info.st_mode & 0o777, info.st_uid, info.st_gid) == (0o751, 12, 34)
    asked = subprocess.run(
        ["debugfs", "-R", 'stat "/spaced name"', str(image)], capture_output=True, text=True, check=True
    )
    assert "Mode:  04751" in asked.stdout, "the set-user-ID bit: on the disk, if not out of it"
    with pytest.raises(EnvironmentBroken, match="nothing"):
        vm_boot.fetch(str(image), "/nothing", str(tmp_path / "nothing"))


def test_a_disk_that_has_no_room_is_told_and_not_left(tmp_path: Path, small_disk: Path, requires) -> None:
    requires("mke2fs")
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "file").write_bytes(os.urandom(2 << 20))
    with pytest.raises(EnvironmentBroken, match="mke2fs of|disk of"):
        vm_boot.disk(str(small_disk / "disk.img"), str(tmp_path / "source"))
    assert os.listdir(small_disk) == []


def test_the_machines_own_kernel_is_taken_where_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else Debian's: here what would be fetched is there already, so nothing is."""
    release, said = os.uname().release, []
    (tmp_path / "boot").mkdir()
    (tmp_path / "boot" / f"vmlinuz-{release}").write_text("")
    (tmp_path / "lib/modules" / release).mkdir(parents=True)
    monkeypatch.setattr(vm_boot, "needed", lambda tree, release: (f"{tree}/a.ko",))
    own = vm_boot.kernel(boot=str(tmp_path / "boot"), modules=str(tmp_path))
    assert own == vm_boot.Kernel(release, str(tmp_path / "boot" / f"vmlinuz-{release}"), (f"{tmp_path}/a.ko",))

    def fails(tree: str, release: str) -> tuple[str, ...]:
        raise EnvironmentBroken("no virtio_blk")

    monkeypatch.setattr(vm_boot, "needed", fails)
    monkeypatch.setattr(vm_boot, "_fetch", kept)
    found = vm_boot.kernel(
        boot=str(tmp_path / "boot"), modules=str(tmp_path), cache=str(tmp_path / "cache"), progress=said.append
    )
    assert found.release == "6.1.0-kept" and [Path(path).name for path in found.modules] == ["00-a.ko", "01-b.ko"]
    assert "no virtio_blk" in said[0]


def kept(home: str) -> None:
    os.makedirs(f"{home}/modules")
    for name in ("01-b.ko", "00-a.ko"):
        Path(home, "modules", name).touch()
    Path(home, "release").write_text("6.1.0-kept")


def test_the_initial_file_system_is_an_archive_with_the_first_program(tmp_path: Path, requires) -> None:
    requires("cc", "xz")
    module = tmp_path / "one.ko"
    module.write_bytes(b"bytes of a module")
    subprocess.run(["xz", "-k", str(module)], check=True)
    vm_boot.initial(str(tmp_path / "initial"), (str(module), f"{module}.xz"))
    found = archive((tmp_path / "initial").read_bytes())
    assert found["init"][0] == 0o100755 and found["init"][1].startswith(b"\x7fELF")
    assert found["dev/console"][0] == 0o020600
    assert found["modules/00-one.ko"][1] == found["modules/01-one.ko"][1] == b"bytes of a module"
    assert sorted(os.listdir(tmp_path)) == ["initial", "one.ko", "one.ko.xz"]


def archive(data: bytes) -> dict[str, tuple[int, bytes]]:
    """Name -> mode, bytes: of newc, cpio(5)."""
    found, at = {}, 0
    while True:
        assert data[at : at + 6] == b"070701"
        fields = [int(data[at + 6 + 8 * field : at + 14 + 8 * field], 16) for field in range(13)]
        name = data[at + 110 : at + 109 + fields[11]].decode()
        begin = -(-(at + 110 + fields[11]) // 4) * 4
        if name == "TRAILER!!!":
            return found
        found[name] = fields[1], data[begin : begin + fields[6]]
        at = -(-(begin + fields[6]) // 4) * 4


def test_memory_is_told_as_it_was_given() -> None:
    text = "00000000-00000fff : Reserved\n00001000-0009fbff : System RAM\n00100000-1ffdbfff : System RAM\n"
    assert ram(text) == 512 << 20
    assert half_of_memory() % (64 << 20) == 0


def test_limits_have_the_names_and_the_numbers_of_this_process() -> None:
    import resource

    found = limits(Path("/proc/self/limits").read_text())
    for name in ("cpu", "nofile", "memlock", "rttime"):
        soft, _ = resource.getrlimit(getattr(resource, f"RLIMIT_{name.upper()}"))
        assert found[name] == soft, name
