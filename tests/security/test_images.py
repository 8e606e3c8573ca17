"""Hostile images: links, databases and places that were prepared to lead out of the root."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import minictr as mc


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory of the host that no image may reach, with a file to be found or changed."""
    path = tmp_path / "outside"
    path.mkdir()
    (path / "secret").write_text("secret of the host\n")
    return path


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


def unharmed(outside: Path) -> bool:
    return os.listdir(outside) == ["secret"] and (outside / "secret").read_text() == "secret of the host\n"


ESCAPES = ("{outside}", "../../../../../../../../..{outside}", "/proc/self/root{outside}", "/proc/1/root{outside}")


@pytest.mark.parametrize("escape", ESCAPES)
@pytest.mark.parametrize("place", ["mnt", "run", "opt"])
def test_a_volume_through_a_link(image, outside, sh, escape, place, tmp_path):
    """Its target is a link out of the root (CVE-2021-30465): it leads to a place inside, or the start is refused."""
    where = Path(image.rootfs) / place
    shutil.rmtree(where, ignore_errors=True)
    where.symlink_to(escape.format(outside=outside))
    (tmp_path / "volume").mkdir()
    bound = image.with_(mc.Bind(str(tmp_path / "volume"), f"/{place}/deeper"), mc.Tmpfs(f"/{place}/tmp"))
    told = refusal(lambda: sh(bound, f"touch /{place}/deeper/x; test ! -e /{place}/secret"))
    assert not told or "ELOOP" in told or "ENOENT" in told  # a link to what is not there in the image
    assert unharmed(outside)


@pytest.mark.parametrize("place", ["dev/pts", "dev/shm", "dev/mqueue", "dev/null"])
@pytest.mark.parametrize("escape", ESCAPES[:2])
def test_links_below_dev(image, outside, sh, place, escape):
    """/dev is a tmpfs of ours, so what the image has there is covered; without it the links must not be followed."""
    where = Path(image.rootfs) / place
    where.parent.mkdir(exist_ok=True)
    shutil.rmtree(where, ignore_errors=True)
    where.unlink(missing_ok=True)
    where.symlink_to(escape.format(outside=outside))
    assert sh(image, "test -c /dev/null -a ! -L /dev/null -a ! -L /dev/pts && echo fine") == "fine"
    told = refusal(lambda: image.without("dev").with_(mc.Shm(), mc.Mqueue()).run(["true"]))
    assert not told or "ELOOP" in told
    assert unharmed(outside)


@pytest.mark.parametrize("escape", ESCAPES)
def test_masks_and_read_only_paths_through_links(image, outside, escape):
    """CVE-2025-31133: a mask that follows a link would cover, or a read-only bind uncover, something else."""
    (Path(image.rootfs) / "cover").symlink_to(escape.format(outside=outside))
    for feature in (mc.MaskedPaths(("/cover",)), mc.ReadonlyPaths(("/cover",)), mc.MaskedPaths(("/cover/secret",))):
        with pytest.raises(mc.StepFailed, match="ELOOP"):
            image.with_(feature).run(["true"])
    assert unharmed(outside)


@pytest.mark.parametrize("escape", ESCAPES)
def test_a_working_directory_through_a_link(image, outside, sh, escape):
    (Path(image.rootfs) / "cwd").symlink_to(escape.format(outside=outside))
    told = refusal(lambda: sh(image.with_(mc.Cwd("/cwd")), "test ! -e secret"))
    assert not told or any(name in told for name in ("ELOOP", "ENOENT", "ESTALE"))
    assert unharmed(outside)


# --- /etc ---


@pytest.mark.parametrize("escape", ESCAPES[:2])
def test_etc_is_a_link_to_the_hosts(image, escape, tmp_path):
    """Names are looked up in the image alone: the host's root would be another one's uid."""
    fake = tmp_path / "etc"
    fake.mkdir()
    (fake / "passwd").write_text("mallory:x:0:0::/:/bin/sh\n")
    shutil.rmtree(Path(image.rootfs) / "etc")
    (Path(image.rootfs) / "etc").symlink_to(escape.format(outside=fake))
    with pytest.raises(mc.SpecError, match="no such user"):
        image.with_(mc.Identity("mallory")).run(["true"])
    assert image.run(["true"]).returncode == 0


def fifo(path: Path) -> None:
    os.mkfifo(path)


def zero(path: Path) -> None:
    os.mknod(path.parent.parent / "zero", 0o20666, os.makedev(1, 5))
    path.symlink_to("/zero")


def huge(path: Path) -> None:
    with open(path, "wb") as file:
        file.truncate(1 << 40)


def binary(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 1000 + b"\nroot:x:0:0:a:/root:/bin/sh\n")


def digits(path: Path) -> None:
    path.write_text(
        f"big:x:{'9' * 5000}:0::/:\nnegative:x:-1:-1::/:\nnone:x:4294967295:0::/:\nalien:x:\u0661\u0662:0::/:\n"
    )


@pytest.mark.parametrize("database", ["passwd", "group"])
@pytest.mark.parametrize(
    "make", [fifo, zero, huge, binary, digits, Path.mkdir, lambda path: path.symlink_to(path.name)]
)
@pytest.mark.parametrize("user", ["0", "root", "big", "negative", "none", "alien", "1234", "0:big"])
def test_hostile_databases(image, database, make, user):
    """Read within bounds, never waited for, never believed beyond what a number can be."""
    path = Path(image.rootfs) / "etc" / database
    path.unlink()
    make(path)
    told = refusal(lambda: image.with_(mc.Identity(user)).run(["true"], timeout=5, check=True))
    assert "\n" not in told and len(told) < 500
    assert told or user in ("0", "root", "1234")


def test_a_user_named_like_a_number(image, sh):
    """A number is never a name: else an image with a user "12345" of id 0 would make root of who asked for 12345."""
    for database in ("passwd", "group"):
        with open(Path(image.rootfs) / "etc" / database, "a") as file:
            file.write("12345:x:0:0::/:/bin/sh\n")
    assert sh(image.with_(mc.Identity("12345:12345")), "id -u; id -g") == "12345\n12345"


# --- the program itself ---


def test_a_program_that_is_a_link_to_proc_self_exe(image):
    """CVE-2019-5736: what is executed is the sealed start program once more, never the host's interpreter."""
    (Path(image.rootfs) / "bin" / "me").symlink_to("/proc/self/exe")
    told = refusal(lambda: harmless(image.run(["/bin/me"], capture_output=True)))
    assert not told or "exec /bin/me" in told


def harmless(done: mc.Result) -> None:
    """The start program without a start to make says nothing and leaves: without a word that could be its region's
    descriptor with 125, and with one that is no region with the errno of mapping that."""
    no_region = (errno.EACCES, errno.EBADF, errno.EINVAL, errno.ENODEV)
    assert done.returncode in (125, *no_region) and (done.stdout, done.stderr) == (b"", b"")


def test_a_script_whose_interpreter_is_proc_self_exe(image):
    script = Path(image.rootfs) / "bin" / "script"
    script.write_text("#!/proc/self/exe\n")
    script.chmod(0o755)
    told = refusal(lambda: harmless(image.with_(mc.Tmpfs("/tmp")).run(["script"], capture_output=True)))
    assert not told or "exec" in told
