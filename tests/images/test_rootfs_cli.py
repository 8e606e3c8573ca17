"""``minictr rootfs``: what it prints, where, and its exit codes."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path


def test_minimal(tmp_path: Path, run_cli) -> None:
    done = run_cli("rootfs", "minimal", tmp_path / "root", "bash", "cat")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{tmp_path / 'root'}: ")
    assert (tmp_path / "root/bin/bash").exists()
    again = run_cli("rootfs", "minimal", tmp_path / "root", "bash")
    assert again.returncode == 125
    assert again.stderr == f"minictr rootfs: {tmp_path / 'root'} is not empty; remove it, or name a new directory\n"


def test_quiet_include_and_missing(tmp_path: Path, run_cli) -> None:
    done = run_cli("rootfs", "minimal", "-q", "--include", "/etc/os-release", tmp_path / "root", "true")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert "debian" in (tmp_path / "root/etc/os-release").read_text().lower() or os.path.exists("/etc/os-release")
    done = run_cli("rootfs", "minimal", tmp_path / "other", "nosuch1", "@nosuch2")
    assert done.returncode == 125
    assert done.stderr.count("\n") == 1
    assert "nosuch1" in done.stderr
    assert "@nosuch2" in done.stderr
    assert not (tmp_path / "other").exists()


def test_import_from_standard_input_and_notes(tmp_path: Path, run_cli) -> None:
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w") as tar:
        device = tarfile.TarInfo("dev/\x1bnull")
        device.type, device.devmajor, device.devminor = tarfile.CHRTYPE, 1, 3
        tar.addfile(device)
        file = tarfile.TarInfo("etc/x")
        file.size = 1
        tar.addfile(file, io.BytesIO(b"x"))
    with open(archive, "rb") as stream:
        done = run_cli("rootfs", "import", tmp_path / "root", "-", stdin=stream)
    assert done.returncode == 0
    assert "note: devices left out: 1" in done.stderr
    assert "\x1b" not in done.stderr
    assert (tmp_path / "root/etc/x").read_text() == "x"


def test_mistakes_are_one_line(tmp_path: Path, run_cli) -> None:
    for words, expected in (
        (("import", tmp_path / "r", "/no/such"), "No such file"),
        (("import", "--max-size", "much", tmp_path / "r", "/no/such"), "--max-size"),
        (("debian", "--suite", "-x", tmp_path / "r"), "--suite"),
        (("debian", "--include", "a,B!", tmp_path / "r"), "'B!'"),
        (("minimal", tmp_path / "r"), "PROGRAM"),
        (("nosuch",), "nosuch"),
    ):
        done = run_cli("rootfs", *words)
        assert (done.returncode, done.stdout) == (125, "")
        assert expected in done.stderr
        assert done.stderr.count("\n") == 1
    assert os.listdir(tmp_path) == []


def test_help(run_cli) -> None:
    for words in ((), ("minimal",), ("debian",), ("import",)):
        done = run_cli("rootfs", *words, "--help")
        assert done.returncode == 0
        assert "Usage: minictr rootfs" in done.stdout
