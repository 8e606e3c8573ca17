"""The mount table: every field, and every character a path may hold."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from minictr.errors import StepFailed
from minictr.kernel import mounts
from minictr.kernel.mountinfo import MountInfo, mountinfo, parse


def test_mountinfo_parser() -> None:
    rows = parse(
        rb"36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue" + b"\n"
        rb"44 36 0:40 / /a\040b\011c\134d\012e\043 ro shared:7 master:2 unbindable - tmpfs none rw" + b"\n"
        b"45 36 0:41 /\xc3\xa9\\q /\x85\x0b rw - fuse.x - \n"
    )
    assert rows[0] == MountInfo(
        36,
        35,
        "98:0",
        "/mnt1",
        "/mnt2",
        ("rw", "noatime"),
        ("master:1",),
        "ext3",
        "/dev/root",
        ("rw", "errors=continue"),
    )
    assert rows[1].target == "/a b\tc\\d\ne#"
    assert rows[1].readonly
    assert rows[1].propagation == ("shared:7", "master:2", "unbindable")
    assert (rows[2].root, os.fsencode(rows[2].target), rows[2].fstype) == ("/é\\q", b"/\x85\x0b", "fuse.x")


def test_mountinfo_of_a_path_with_everything(in_child: Any, place: Path) -> None:
    odd = place / "a b\tc\\040\nd#é"
    odd.mkdir()

    def body() -> bool:
        with mounts.tmpfs(str(odd)):
            return any(mount.target == str(odd) for mount in mountinfo())

    assert in_child(body)


def test_mountinfo_of_another(requires: Any) -> None:
    assert mountinfo(os.getpid()) == mountinfo()
    with pytest.raises(StepFailed, match="ENOENT"):
        mountinfo(4194305)
