"""Links that are exchanged while containers start: mounts, devices and terminals never land outside the root."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from traps import ESCAPES

import minictr as mc
from minictr.runtime import join

STARTS = 500  # of each race, while the two names are exchanged some ten thousand times
AT_ONCE = 4
BASE = ("sysfs", "mqueue", "shm", "loopback", "net", "pids", "cgroupfs", "keyring", "masked_paths", "readonly_paths")


@contextmanager
def exchanging(tools: Path, directory: Path, name: str = "a", other: str = "b") -> Iterator[None]:
    """Two names of DIRECTORY change places meanwhile, again and again: by RENAME_EXCHANGE, so both are always there."""
    command = [tools / "files", "exchange", directory, name, other]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as racer:
        assert racer.stdout.readline() == "ok exchange\n"
        yield
        rounds = int(racer.communicate()[0])
    assert rounds >= STARTS, rounds


def tried(box: mc.Container, starts: int = STARTS) -> tuple[int, set[str]]:
    """How many of STARTS starts ran, and what the others were refused with: the error's name."""

    def once(_number: int) -> str:
        try:
            return "" if box.run(["/bin/probe", "user"], stdout=mc.DEVNULL).returncode == 0 else "ran, and failed"
        except mc.StepFailed as error:
            return os.strerror(error.errno or 0)
        except mc.SpecError as error:
            return os.strerror(40) if "is a symbolic link to" in str(error) else str(error)  # ELOOP, before it began

    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(once, range(starts)))
    return answers.count(""), {answer for answer in answers if answer}


# what a way that is exchanged may be refused with; anything else is a start that did not see what went wrong
REFUSALS = {os.strerror(number) for number in (1, 2, 17, 20, 22, 40)}  # EPERM ENOENT EEXIST ENOTDIR EINVAL ELOOP


def swapped(place: Path, target: str) -> Path:
    """PLACE with two names in it: "a" a directory, "b" a link to TARGET."""
    (place / "a").mkdir(parents=True)
    (place / "b").symlink_to(target)
    return place


@pytest.fixture
def quick(tiny: Path) -> mc.Container:
    """A container that is of the default profile where links matter, and starts in little time."""
    return mc.Container(tiny).without(*BASE)


Racing = Callable[[mc.Container, Path, str], mc.Container]


def in_the_image(box: mc.Container, volume: Path, _target: str) -> mc.Container:
    """The way to a bind's target lies in the image."""
    return box.with_(mc.Bind(str(volume), "/race/a/deep"), mc.Tmpfs("/race/a/tmp"))


def in_a_volume(box: mc.Container, volume: Path, _target: str) -> mc.Container:
    """The way lies in a volume that another container writes to (CVE-2021-30465)."""
    return box.with_(mc.Bind(f"{box.rootfs}/race", "/mnt"), mc.Bind(str(volume), "/mnt/a/deep"))


@pytest.mark.slow
@pytest.mark.parametrize("where", [in_the_image, in_a_volume])
@pytest.mark.parametrize("escape", [ESCAPES[0], ESCAPES[2]])
def test_mount_targets(quick, tools, trap, unharmed, tmp_path, where: Racing, escape):
    """The target of a volume becomes a link to the host while it is mounted, 500 starts long. CVE-2021-30465.

    That the race is one: test_a_naive_mount_loses.
    """
    target = escape.format(path=trap)
    swapped(Path(quick.rootfs) / "race", target)
    inside = Path(f"{quick.rootfs}{trap}")  # what the link means inside is there, too: most starts go on
    inside.mkdir(parents=True)
    (tmp_path / "volume").mkdir()
    box = where(quick, tmp_path / "volume", target)
    before = Path("/proc/self/mountinfo").read_text()
    with exchanging(tools, Path(quick.rootfs) / "race"):
        ran, refused = tried(box)
    assert unharmed()
    assert Path("/proc/self/mountinfo").read_text() == before
    assert ran > 0, refused
    assert refused <= REFUSALS
    assert os.listdir(tmp_path / "volume") == []


def test_a_naive_mount_loses(tools, trap, tiny, requires):
    """Weakened: a target looked at by path, then mounted on by path, as runc before 1.0-rc95. CVE-2021-30465."""
    swapped(tiny / "race", str(trap))
    script = """
        i=0
        while [ $i -lt 20000 ]; do
            i=$((i + 1))
            [ -L "$1/a" ] && continue
            mount -t tmpfs none "$1/a" || continue
            if mountpoint -q "$2"; then echo lost; exit; fi
            umount "$1/a" 2>/dev/null || umount "$1/b" 2>/dev/null
        done
    """
    naive = [requires("unshare"), "-m", "sh", "-c", script, "sh", tiny / "race", trap]
    with exchanging(tools, tiny / "race"):
        done = subprocess.run(naive, capture_output=True, text=True, timeout=100)
    assert done.stdout == "lost\n", done


@pytest.mark.slow
@pytest.mark.parametrize("place", ["dev", "proc", "tmp"])
def test_places_of_the_kernels_file_systems(quick, tools, trap, unharmed, place):
    """/dev, /proc or /tmp of the image is exchanged with a link while it is mounted on. CVE-2026-41579."""
    root = Path(quick.rootfs)
    (root / "other").symlink_to(trap)
    with exchanging(tools, root, place, "other"):
        ran, refused = tried(quick.with_(mc.Tmpfs("/tmp")), STARTS // 2)
    assert unharmed()
    assert ran > 0, refused
    assert refused <= REFUSALS


@pytest.mark.slow
def test_the_terminal_of_who_joins(quick, tools, trap, unharmed, tmp_path):
    """/dev/pts/ptmx of a volume is exchanged with a link to the host's while programs join. CVE-2025-52565.

    Weakened: with a devpts of its own the same programs get their terminal.
    """
    volume = tmp_path / "dev"
    (volume / "pts").mkdir(parents=True)
    (volume / "pts/ptmx").write_text("")
    (volume / "pts/other").symlink_to(trap / "ptmx")
    over = quick.without("dev").with_(mc.Bind(str(volume), "/dev"))
    with exchanging(tools, volume / "pts", "ptmx", "other"):
        told = {joined_on_a_terminal(over) for _ in range(40)}
    assert told <= {"Wrong medium type", os.strerror(40)}
    assert unharmed()
    assert joined_on_a_terminal(quick) == ""


def joined_on_a_terminal(box: mc.Container) -> str:
    """ "" when a program joined BOX on a terminal of its own; else the error's name."""
    with box.popen(["/bin/files", "overwrite", "/bin/probe"], stdin=mc.PIPE, stdout=mc.DEVNULL) as process:
        target = join.Target(process.pid, box.spec(), process.pidfd)
        with mc.Console() as console:
            try:
                with join.exec_popen(target, ["/bin/probe", "user"], console=console) as joined:
                    return "" if joined.wait(10) == 0 else "it failed"
            except mc.StepFailed as error:
                return os.strerror(error.errno or 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["console", "null"])
def test_a_volume_in_the_place_of_dev(quick, tools, trap, unharmed, tmp_path, name):
    """/dev is a volume in which a name is exchanged with a link to the host: nothing goes there. CVE-2025-52565."""
    volume = tmp_path / "dev"
    (volume / "pts").mkdir(parents=True)
    (volume / name).write_text("")
    (volume / "other").symlink_to(trap / name)
    box = quick.without("dev").with_(mc.Bind(str(volume), "/dev"), mc.MaskedPaths((f"/dev/{name}",)))
    with exchanging(tools, volume, name, "other"):
        ran, refused = tried(box, STARTS // 2)
    assert unharmed()
    assert ran > 0, refused
    assert refused <= REFUSALS
