"""Who the program is, where image and command line are hostile: ids that lie, databases that are none."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from traps import ESCAPES

import minictr as mc


@pytest.fixture
def image(own_rootfs: Path) -> mc.Container:
    return mc.Container(own_rootfs)


def refusal(run: Callable[[], object]) -> str:
    """What the start that RUN makes is refused with; "" if it is not."""
    try:
        run()
    except mc.MinictrError as error:
        return str(error)
    return ""


def ids(box: mc.Container, user: str) -> tuple[int, int] | str:
    """The user and group that a program started for USER has; or what the start is refused with."""
    done: list[mc.Result] = []
    script = "exec cat /proc/self/status"
    told = refusal(
        lambda: done.append(
            box.with_(mc.Identity(user)).run(["sh", "-c", script], capture_output=True, text=True, timeout=5)
        )
    )
    if told:
        assert "\n" not in told and len(told) < 500
        return told
    rows = dict(re.findall(r"^(Uid|Gid):\s+(\d+)", done[0].stdout, re.MULTILINE))
    return int(rows["Uid"]), int(rows["Gid"])


# --- the command line ---

# Each of these has been id 0 somewhere: by strtol, by an overflow of int32 or int64, or by a name's digits
BAD = ["0x0", "0x3e8", "0abc", "", "-1", "-0", "+0", " 0", "0 ", "4294967295", "4294967296", "18446744073709551616"]
BAD += [
    "\u0660",
    "\uff10",
    "1e3",
    "0:",
    ":0",
    "0:0:0",
    "0:0x0",
    "0:-1",
    "0:4294967296",
    "root\n",
    "a/b",
    "9" * 5000,
    "1000,0",
]


@pytest.mark.parametrize("user", BAD)
def test_ids_that_are_none(image, user):
    """No spelling of a number that is no id becomes one, least of all 0. CVE-2024-40635, CVE-2016-3697."""
    assert isinstance(refused_or_ids(image, user), str)


def refused_or_ids(image: mc.Container, user: str) -> tuple[int, int] | str:
    try:
        return ids(image, user)
    except mc.SpecError as error:
        return str(error)


def test_ids_that_are(image):
    """Weakened: what is a number is taken for one, 0 too, and a name for its entry. CVE-2024-40635."""
    found = {user: ids(image, user) for user in ("0", "00", "root", "1000", "1000:5", "4294967294")}
    assert found == {
        "0": (0, 0),
        "00": (0, 0),
        "root": (0, 0),
        "1000": (1000, 0),
        "1000:5": (1000, 5),
        "4294967294": (4294967294, 0),
    }


def test_a_user_named_like_a_number(image):
    """A number is never a name: an image cannot make root of who asked for 12345. CVE-2016-3697.

    Weakened: what the same row is worth when it is asked for by a name.
    """
    for database in ("passwd", "group"):
        with open(Path(image.rootfs) / "etc" / database, "a") as file:
            file.write("12345:x:0:0::/:/bin/sh\n0x3039:x:0:0::/:/bin/sh\nmallory:x:0:0::/:/bin/sh\n")
    assert ids(image, "12345:12345") == (12345, 12345)
    assert ids(image, "12345") == (12345, 0)
    assert ids(image, "mallory:mallory") == (0, 0)


# --- databases ---


@pytest.mark.parametrize("escape", ESCAPES[:3])
def test_etc_is_a_link_to_the_hosts(image, escape, tmp_path):
    """Names are looked up in the image alone: the host's root would be another one's uid. CVE-2019-14271.

    Weakened: the same database in the image makes the name known.
    """
    fake = tmp_path / "etc"
    fake.mkdir()
    (fake / "passwd").write_text("mallory:x:0:0::/:/bin/sh\n")
    etc = Path(image.rootfs) / "etc"
    shutil.rmtree(etc)
    etc.symlink_to(escape.format(path=fake))
    assert "no such user" in str(ids(image, "mallory"))
    assert image.run(["true"]).returncode == 0
    etc.unlink()
    shutil.copytree(fake, etc)
    assert ids(image, "mallory") == (0, 0)


def fifo(path: Path) -> None:
    os.mkfifo(path)


def zero(path: Path) -> None:
    os.mknod(path.parent.parent / "zero", 0o20666, os.makedev(1, 5))
    path.symlink_to("/zero")


def huge(path: Path) -> None:
    with open(path, "wb") as file:
        file.truncate(1 << 40)


def long_line(path: Path) -> None:
    path.write_bytes(b"root:x:0:0:" + b"a" * (8 << 20) + b":/root:/bin/sh\nbig:x:0:0::/:/bin/sh\n")


def binary(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 1000 + b"\nroot:x:0:0:a:/root:/bin/sh\n")


def nul(path: Path) -> None:
    path.write_bytes(
        b"big\0:x:0:0::/:/bin/sh\nnegative:x:0\0:0::/:/bin/sh\nnone:x:0:0\0::/:/bin/sh\n\0root:x:0:0::/:\n"
    )


def digits(path: Path) -> None:
    path.write_text(
        f"big:x:{'9' * 5000}:0::/:\nnegative:x:-1:-1::/:\nnone:x:4294967295:0::/:\nalien:x:\u0661\u0662:0::/:\n"
    )


def link(path: Path) -> None:
    path.symlink_to(path.name)


def to_the_host(path: Path) -> None:
    path.symlink_to(f"/proc/self/root/etc/{path.name}")


MAKERS = [fifo, zero, huge, long_line, binary, nul, digits, link, to_the_host, Path.mkdir]


@pytest.mark.parametrize("database", ["passwd", "group"])
@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_hostile_databases(image, database, make):
    """Read within bounds, never waited for, never believed beyond what a number can be. CWE-400."""
    path = Path(image.rootfs) / "etc" / database
    path.unlink()
    make(path)
    for user in ("0", "root", "big", "negative", "none", "alien", "1234", "0:big"):
        told = refused_or_ids(image, user)
        assert isinstance(told, str) or user in ("0", "root", "1234"), (user, told)


def test_what_a_database_says_cannot_write_to_the_terminal(own_rootfs, run_cli):
    """Names and interpreters of the image are shown with their control characters spelled. CWE-150.

    Weakened: the file itself has them.
    """
    script = own_rootfs / "bin/evil"
    script.write_text("#!/\x1b[31mred\x1b]0;owned\x07\n")
    script.chmod(0o755)
    done = run_cli("run", "--rootfs", own_rootfs, "--", "/bin/evil")
    assert done.returncode in (126, 127) and "red" in done.stderr
    assert "\x1b" not in done.stderr and "\x07" not in done.stderr
    assert "\x1b" in script.read_text()
