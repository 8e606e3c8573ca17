"""Links of a hostile image, and of a configuration that names them: nothing of the host's is touched, by not one byte.

Each place is a link out, by every way of traps.ESCAPES, to a directory or a file of the trap. The trap's listing
(modes, owners, sizes, times, content) is the same before and after, whether the start is refused or goes on.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from traps import ESCAPES, listing

import minictr as mc
from minictr.runtime import join

# errors that a link may be refused with: each names the place or what to do
REFUSED = ("ELOOP", "ENOENT", "ENOTDIR", "EPERM", "ESTALE", "EINVAL", "is a symbolic link", "not a regular file")


@pytest.fixture
def image(tiny: Path) -> mc.Container:
    return mc.Container(tiny)


def outcome(box: mc.Container, *command: str) -> str:
    """ "" when COMMAND ran and said ok; else what the start was refused with, one line that says why."""
    try:
        done = box.run(command or ("/bin/probe", "user"), capture_output=True, text=True, timeout=20)
    except mc.MinictrError as error:
        told = str(error)
        assert "\n" not in told and any(word in told for word in REFUSED), told
        return told
    assert done.returncode == 0, done
    return ""


def replaced(root: str, place: str, target: str) -> None:
    """PLACE of ROOT is a link to TARGET."""
    path = Path(root, place)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        path.unlink()
    shutil.rmtree(path, ignore_errors=True)
    path.symlink_to(target)


PLACES = ("proc", "sys", "dev", "dev/pts", "dev/shm", "dev/mqueue", "dev/null", "dev/console", "dev/ptmx", "etc", "tmp")
PLACES += ("etc/passwd", "etc/group", "mnt", "sys/fs/cgroup")


@pytest.mark.parametrize("escape", ESCAPES)
@pytest.mark.parametrize("place", PLACES)
def test_a_place_of_the_image(image, trap, unharmed, place, escape):
    """A directory that a start mounts on, or reads, is a link to the host's. CVE-2026-41579, CVE-2026-47766."""
    for below in ("", "/null", "/nothing"):
        replaced(image.rootfs, place, escape.format(path=f"{trap}{below}"))
        told = [outcome(image), outcome(image.with_(mc.Tmpfs("/tmp"), mc.Overlay(), mc.Identity("1000")))]
        if place == "dev":
            told += [outcome(image.without("dev").with_(mc.Shm(), mc.Mqueue()))]
        assert unharmed(), told


@pytest.mark.parametrize("escape", ESCAPES)
@pytest.mark.parametrize("below", ["", "/below", "/below/new", "/secret", "/nothing", "/fifo"])
def test_a_place_of_the_configuration(image, trap, unharmed, tmp_path, below, escape):
    """Binds, tmpfs, cwd, masks and read-only paths named through a link. CVE-2021-30465, CVE-2025-31133."""
    (tmp_path / "volume").mkdir()
    (tmp_path / "volume" / "file").write_text("")
    before = listing(tmp_path / "volume")
    replaced(image.rootfs, "out", escape.format(path=trap))
    to = f"/out{below}"
    wishes: tuple[mc.Feature, ...] = (
        mc.Bind(str(tmp_path / "volume"), to),
        mc.Bind(str(tmp_path / "volume" / "file"), to, "ro"),
        mc.Tmpfs(to),
        mc.Cwd(to),
        mc.MaskedPaths((to,)),
        mc.ReadonlyPaths((to,)),
    )
    for wish in wishes:
        told = outcome(image.with_(wish))
        assert unharmed(), (wish, told)
    assert listing(tmp_path / "volume") == before


@pytest.mark.parametrize("escape", ESCAPES)
def test_masks_and_read_only_paths(image, trap, unharmed, escape):
    """A mask that follows a link would cover, or a read-only bind uncover, something else: refused. CVE-2025-31133."""
    replaced(image.rootfs, "cover", escape.format(path=trap))
    for feature in (mc.MaskedPaths(("/cover",)), mc.ReadonlyPaths(("/cover",)), mc.MaskedPaths(("/cover/secret",))):
        assert "ELOOP" in outcome(image.with_(feature))
    assert unharmed()


def test_a_naive_start_writes_to_the_host(tiny, trap, unharmed, requires):
    """Weakened: /dev made by path from outside the root, as runc's setupPtmx and setupDevSymlinks. CVE-2026-41579."""
    replaced(str(tiny), "dev", str(trap))
    script = 'rm -f "$1/dev/ptmx"; ln -s pts/ptmx "$1/dev/ptmx"; ln -s /proc/self/fd "$1/dev/stdout"'
    subprocess.run(["sh", "-c", script, "sh", tiny], check=True)
    assert not unharmed()


# --- masks without /dev/null ---


def test_a_masked_path_by_a_replaced_dev_null(image, trap, unharmed, attempt, tmp_path):
    """/dev/null of the image, or of a volume, is something else, and no mask is made of it. CVE-2025-31133."""
    volume = tmp_path / "dev"
    for make in (lambda path: path.symlink_to("/proc/sys/kernel/core_pattern"), lambda path: path.write_text("x")):
        shutil.rmtree(volume, ignore_errors=True)
        volume.mkdir()
        make(volume / "null")
        box = image.without("dev").with_(mc.Bind(str(volume), "/dev"), mc.MaskedPaths(("/proc/uptime",)))
        assert attempt(box, "write /proc/uptime")
        told = box.run(["/bin/probe", "read", "/proc/uptime"], capture_output=True, text=True)
        assert told.stdout == "ok read 0\n"
        told = image.run(["/bin/probe", "read", "/proc/uptime"], capture_output=True, text=True)
        assert told.stdout != "ok read 0\n"  # weakened: without the mask
    assert unharmed()


def test_a_mask_from_dev_null_by_path_would_be_anything(tiny, requires):
    """Weakened: a mask that is a bind of the container's /dev/null shows what that is a link to. CVE-2025-31133."""
    replaced(str(tiny), "dev/null", "../etc/hostname")
    (tiny / "etc/hostname").write_text("not null")
    (tiny / "masked").write_text("secret")
    script = 'mount --bind "$1/dev/null" "$1/masked" && cat "$1/masked"'
    done = subprocess.run([requires("unshare"), "-m", "sh", "-c", script, "sh", tiny], capture_output=True, text=True)
    assert done.stdout == "not null"


# --- terminals ---


def test_a_terminal_needs_a_dev_of_our_own(image, tmp_path):
    """/dev/console and /dev/pts are never those of an image or a volume. CVE-2025-52565."""
    for box in (image.without("devpts"), image.without("dev").with_(mc.Bind(str(tmp_path), "/dev"))):
        with pytest.raises(mc.SpecError, match="tty needs devpts"):
            box.with_(mc.Tty()).plan()


def test_a_ptmx_that_is_no_ptmx(image, tmp_path, trap, unharmed):
    """Joining with a terminal where /dev/pts is a volume's: what is no devpts is not used. CVE-2025-52565."""
    for number, make in enumerate((Path.touch, lambda path: path.symlink_to(trap / "ptmx"))):
        volume = tmp_path / f"dev{number}"
        (volume / "pts").mkdir(parents=True)
        make(volume / "pts" / "ptmx")
        box = image.without("dev").with_(mc.Bind(str(volume), "/dev"))
        with box.popen(["/bin/files", "overwrite", "/bin/probe"], stdin=mc.PIPE, stdout=mc.DEVNULL) as process:
            target = join.Target(process.pid, box.spec(), process.pidfd)
            with mc.Console() as console, pytest.raises(mc.StepFailed, match="ELOOP|EMEDIUMTYPE"):
                join.exec_popen(target, ["/bin/probe", "user"], console=console)
    assert unharmed()
