"""The root: no way out of it, and none out of the directory that a tarball is unpacked into."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

import minictr as mc
from minictr.images.tarball import import_tarball

PROOF = str(Path(__file__).resolve())


@pytest.mark.parametrize(("program", "verb"), [("probe", "walk-out"), ("files", "walk-by-fd")])
def test_walking_out_of_the_root(den, attempt, powerful, program, verb):
    """The classic way out of chroot(2), by a second one below, or by a descriptor from above it. CVE-2004-2073.

    With a mount table of its own even a chroot is closed to it: the root is mounted over "/", so .. leads to itself.
    Weakened: the profile `bare`, which is chroot alone, is left by it.
    """
    words, box = f"{verb} {PROOF}", mc.Container(den)
    assert "No such" in attempt(box, words, program=program)
    assert "No such" in attempt(powerful(box, "SYS_ADMIN", "DAC_READ_SEARCH"), words, program=program)
    changed = mc.Container(den, features=[mc.Chroot() if f.name == "pivot_root" else f for f in box.features])
    assert "No such" in attempt(changed, words, program=program)
    bare = mc.Container(den, features="bare")
    assert attempt(bare, words, program=program) == ""
    without = bare.with_(mc.Capabilities(("CHOWN", "SETUID")))
    assert "not permitted" in attempt(without, words, program=program)


def test_mounts_of_the_host_cannot_be_reached(box, sh):
    """Not by name, by .., by /proc/PID/root of PID 1, nor by its mountinfo. CVE-2024-21626.

    Weakened: in the host's own root they all lead there.
    """
    assert not os.path.exists(f"{box.rootfs}{PROOF}")
    ways = (PROOF, f"/../../../..{PROOF}", f"/proc/1/root{PROOF}", f"/proc/self/root/..{PROOF}", f"/proc/1/cwd{PROOF}")
    for path in ways:
        assert sh(box, f"test -e {path} && echo reached; true") == ""
    look = "cut -d' ' -f5 /proc/self/mountinfo"
    assert str(box.rootfs) not in sh(box, look)
    hosts = mc.Container(
        "", features=[feature for feature in box.features if feature.name not in ("pivot_root", "nodev")]
    )
    for path in (PROOF, f"/../../../..{PROOF}", f"/proc/self/root/..{PROOF}"):
        assert sh(hosts, f"test -e {path} && echo reached") == "reached"


# --- a tarball ---


def member(tar: tarfile.TarFile, name: str | bytes, data: bytes = b"", **fields: object) -> None:
    info = tarfile.TarInfo(os.fsdecode(name))
    info.size, info.mode = len(data), 0o644
    for field, value in fields.items():
        setattr(info, field, value)
    tar.addfile(info, io.BytesIO(data))


def hostile(kind: str, trap: Path) -> io.BytesIO:
    """An archive of KIND that leads to TRAP, the neighbour of where it is unpacked."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        member(tar, "bin", type=tarfile.DIRTYPE, mode=0o755)
        if kind == "dotdot":
            member(tar, "../trap/secret", b"changed")
        elif kind == "absolute":
            member(tar, f"{trap}/secret", b"changed")
        elif kind == "link":
            member(tar, "a", type=tarfile.SYMTYPE, linkname="../trap")
            member(tar, "a/secret", b"changed")
        elif kind == "hard link":
            member(tar, "mine", type=tarfile.LNKTYPE, linkname="../trap/secret")
            member(tar, "mine", b"changed")
        elif kind == "directory":
            member(tar, "d", type=tarfile.SYMTYPE, linkname=str(trap))
            member(tar, "d", type=tarfile.DIRTYPE, mode=0o777)
            member(tar, "d/new", b"new")
        elif kind == "owner":
            member(tar, "d", type=tarfile.SYMTYPE, linkname="../trap/secret")
            member(tar, "d", type=tarfile.SYMTYPE, linkname="../trap/secret", mode=0o777, uid=7, gid=7, mtime=1)
    buffer.seek(0)
    return buffer


KINDS = ["dotdot", "absolute", "link", "hard link", "directory", "owner"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_tarball_that_leads_out(trap, unharmed, kind, tmp_path):
    """Members upwards, absolute, through links, as hard links: nothing outside changes. CVE-2007-4559, CVE-2014-6407.

    All the rest of hostile archives: tests/images/test_tarball_hostile.py.
    """
    try:
        import_tarball(str(tmp_path / "root"), hostile(kind, trap))
    except mc.MinictrError as error:
        if "\n" in str(error):
            raise
    assert unharmed()
    if (tmp_path / "root").exists():
        assert not any(name[0] == "." for name in os.listdir(tmp_path) if name != "root")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("owner", "directory")])
def test_a_naive_import_is_led_out(trap, unharmed, kind, tmp_path):
    """Weakened: tarfile.extractall, fully trusting, changes the host by the same archives. CVE-2007-4559."""
    with tarfile.open(fileobj=hostile(kind, trap)) as tar:
        tar.extractall(tmp_path / "root", filter="fully_trusted")
    assert not unharmed()


def test_devices_holes_and_names_of_a_tarball(tmp_path):
    """No device node, a huge file that is a hole, and names that are no UTF-8. CVE-2020-2023.

    Weakened: with ``devices`` the nodes are made (and `nodev` stands before them, test_devices.py).
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        member(tar, "bin", type=tarfile.DIRTYPE, mode=0o755)
        member(tar, "disk", type=tarfile.BLKTYPE, devmajor=8, devminor=0)
        member(tar, "mem", type=tarfile.CHRTYPE, devmajor=1, devminor=1)
        member(tar, b"\xff\xfe\x80", b"odd")
        sparse = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "hole"}
        member(tar, "x", b"0\n".ljust(512, b"\0"), pax_headers={**sparse, "GNU.sparse.realsize": str(1 << 40)})
    for devices in (False, True):
        root = tmp_path / f"root{devices}"
        buffer.seek(0)
        import_tarball(str(root), buffer, devices=devices)
        assert (root / "disk").is_block_device() == devices and (root / "mem").is_char_device() == devices
        assert Path(os.fsdecode(os.fsencode(root) + b"/\xff\xfe\x80")).read_bytes() == b"odd"
        hole = (root / "hole").stat()
        assert (hole.st_size, hole.st_blocks < 64) == (1 << 40, True)
    buffer.seek(0)
    with pytest.raises(mc.SpecError, match="more than"):
        import_tarball(str(tmp_path / "limited"), buffer, max_size=100)
