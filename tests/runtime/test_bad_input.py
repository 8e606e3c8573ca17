"""Bad roots and bad programs: one clear line, the right exception and exit code, and nothing touched on the host."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from boxes import listing

import minictr as mc


def told(box: mc.Container, args: list[str], kind: type[mc.MinictrError], code: int, **options: object) -> str:
    """The message of the exception that running ARGS must end with."""
    with pytest.raises(kind) as caught:
        box.run(args, **options)
    error = caught.value
    assert type(error) is kind and error.exit_code == code
    assert "\n" not in str(error) and len(str(error)) < 600
    return str(error)


# --- roots ---


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "No such file or directory"),
        (lambda path: path.touch(), "not a directory"),
        (lambda path: path.mkdir(), "is empty"),
        (lambda path: path.symlink_to("/"), "symbolic link to /"),
        (lambda path: path.symlink_to("nowhere"), "symbolic link to nowhere"),
        (lambda path: os.mkfifo(path), "not a directory"),
    ],
)
def test_bad_roots(tmp_path, make, words):
    root = tmp_path / "root"
    make(root)
    before = listing(tmp_path)
    assert words in told(mc.Container(root), ["true"], mc.SpecError, 125)
    assert listing(tmp_path) == before


def test_a_root_below_a_file(tmp_path):
    (tmp_path / "file").touch()
    assert "Not a directory" in told(mc.Container(tmp_path / "file" / "root"), ["true"], mc.SpecError, 125)


@pytest.mark.parametrize("name", ["proc", "sys", "dev"])
@pytest.mark.parametrize("target", ["/proc", "/tmp", "../../../../tmp", "nowhere", "."])
def test_a_link_where_we_mount(own_rootfs, name, target):
    """Links to the host's own directories, and relative ones that climb (CVE-2019-16884 and its kind)."""
    shutil.rmtree(own_rootfs / name)
    (own_rootfs / name).symlink_to(target)
    host, before = set(os.listdir("/tmp")), listing(own_rootfs)
    message = told(mc.Container(own_rootfs), ["true"], mc.SpecError, 125)
    assert f"/{name} is a symbolic link to {target}" in message
    assert listing(own_rootfs) == before and not {"pts", "shm", "mqueue", "null", "sys"} & (
        set(os.listdir("/tmp")) - host
    )


@pytest.mark.parametrize("name", ["proc", "sys", "dev"])
def test_a_file_where_we_mount(own_rootfs, name):
    shutil.rmtree(own_rootfs / name)
    (own_rootfs / name).touch()
    before = listing(own_rootfs)
    assert f"/{name}" in told(mc.Container(own_rootfs), ["true"], mc.StepFailed, 125)
    assert listing(own_rootfs) == before


def test_missing_mount_points_are_made(own_rootfs, sh):
    for name in ("proc", "sys", "dev"):
        shutil.rmtree(own_rootfs / name)
    assert sh(mc.Container(own_rootfs), "ls -d /proc/1 /sys/fs /dev/null | wc -l") == "3"


def test_a_root_without_anything_useful(tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "README").touch()
    before = listing(tmp_path)
    message = told(mc.Container(tmp_path / "root"), ["bash"], mc.CommandNotFound, 127)
    assert "not found in PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" in message
    assert listing(tmp_path) == before


# --- programs ---

AARCH64 = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\xb7\x00" + bytes(200)
X86_64 = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\x3e\x00" + bytes(200)
FOREIGN = (AARCH64, "aarch64") if os.uname().machine == "x86_64" else (X86_64, "x86_64")


def program(root: Path, content: bytes, mode: int = 0o755) -> str:
    path = root / "bin" / "thing"
    path.write_bytes(content)
    path.chmod(mode)
    return "/bin/thing"


@pytest.mark.parametrize("words", [["nosuch"], ["/bin/nosuch"], ["/no/such/place"], ["/etc/passwd/x"], ["./nosuch"]])
def test_a_program_that_is_not_there(box, lab, words):
    before = listing(lab)
    message = told(box, words, mc.CommandNotFound, 127)
    assert words[0] in message and ("PATH=" in message) == ("/" not in words[0])
    assert listing(lab) == before


def test_the_path_searched_is_the_containers(box):
    message = told(box.with_(mc.Env((("PATH", "/here:/there"),))), ["nosuch"], mc.CommandNotFound, 127)
    assert "PATH=/here:/there" in message


@pytest.mark.parametrize(
    ("content", "mode", "error", "words"),
    [
        (b"#!/bin/sh\necho\n", 0o644, "EACCES", "not executable: chmod +x it"),
        (b"just text\n", 0o755, "ENOEXEC", "neither a program nor a script"),
        (b"", 0o755, "ENOEXEC", "neither a program nor a script"),
        (b"\x7fEL", 0o755, "ENOEXEC", "neither a program nor a script"),
        (b"#!/no/such/interpreter -x\n", 0o755, "ENOENT", "interpreter /no/such/interpreter is missing"),
        (b"#!\n", 0o755, "ENO", "interpreter"),
        (FOREIGN[0], 0o755, "ENOEXEC", f"is a program for {FOREIGN[1]}, this is {os.uname().machine}"),
    ],
)
def test_a_program_that_cannot_run(own_rootfs, content, mode, error, words):
    name = program(own_rootfs, content, mode)
    before = listing(own_rootfs)
    for command in (name, "thing"):
        message = told(mc.Container(own_rootfs), [command], mc.CommandNotExecutable, 126)
        assert name in message and error in message and words in message
    assert listing(own_rootfs) == before
    # the kernel's own answer, where the search is left to it
    covered = mc.Container(own_rootfs).with_(mc.Tmpfs("/tmp"))
    message = told(covered, [name], mc.CommandNotExecutable, 126)
    assert words in message and "feature exec" in message


def test_a_directory_as_program(box):
    assert "is a directory" in told(box, ["/etc"], mc.CommandNotExecutable, 126)


def test_a_fifo_and_a_device_as_program(own_rootfs):
    os.mkfifo(own_rootfs / "bin" / "fifo", 0o755)
    os.mknod(own_rootfs / "bin" / "device", 0o20755, os.makedev(1, 5))
    for name in ("fifo", "device"):
        assert "is not a regular file" in told(mc.Container(own_rootfs), [name], mc.CommandNotExecutable, 126)


def test_a_program_without_its_loader(own_rootfs):
    loaders = [
        *own_rootfs.glob("lib*/ld-linux*"),
        *own_rootfs.glob("lib/ld-linux*"),
        *own_rootfs.glob("lib64/ld-linux*"),
    ]
    for loader in loaders:
        loader.unlink(missing_ok=True)
    message = told(mc.Container(own_rootfs).with_(mc.Tmpfs("/tmp")), ["/bin/bash"], mc.CommandNotExecutable, 126)
    assert "dynamic loader" in message and "missing in the container" in message


def test_a_program_without_its_library(own_rootfs):
    """The loader itself is there: the start succeeds, and the program's own code 127 is not ours."""
    for library in own_rootfs.rglob("libtinfo*"):
        library.unlink()
    done = mc.Container(own_rootfs).run(["/bin/bash"], stderr=mc.PIPE)
    assert done.returncode == 127 and b"libtinfo" in done.stderr


def test_a_link_to_itself(own_rootfs):
    (own_rootfs / "bin" / "loop").symlink_to("loop")
    assert "ELOOP" in told(mc.Container(own_rootfs), ["/bin/loop"], mc.CommandNotExecutable, 126)


def test_a_link_that_leads_out_leads_nowhere(own_rootfs):
    """/bin/out -> ../../../../bin/ls of the host is /bin/ls of the container."""
    (own_rootfs / "bin" / "out").symlink_to("../../../../../../../../bin/true")
    assert mc.Container(own_rootfs).run(["out"]).returncode == 0
    (own_rootfs / "bin" / "host").symlink_to(os.path.realpath(__file__))
    told(mc.Container(own_rootfs), ["host"], mc.CommandNotFound, 127)


def test_one_that_is_closed_to_the_user(own_rootfs):
    """0700 root: not a user's program, though the start itself still could have opened it."""
    name = program(own_rootfs, b"#!/bin/sh\nexit 0\n", 0o700)
    own = mc.Container(own_rootfs)
    assert own.run([name]).returncode == 0
    assert "EACCES" in told(own.with_(mc.Identity("65534")), [name], mc.CommandNotExecutable, 126)


def test_the_search_goes_on_after_one_that_cannot_run(own_rootfs):
    """execvp(3): EACCES is remembered, a later directory may have a better one."""
    (own_rootfs / "opt").mkdir(exist_ok=True)
    (own_rootfs / "opt" / "true").write_text("text")
    own = mc.Container(own_rootfs).with_(mc.Env((("PATH", "/opt:/nowhere:/bin"),)))
    assert own.run(["true"]).returncode == 0


def test_arguments_that_are_too_long(box):
    with pytest.raises((mc.SpecError, mc.StepFailed)):
        box.run(["true", "x" * (128 << 10)])
    with pytest.raises(mc.StepFailed, match="E2BIG"):
        box.run(["true", *["x" * 100_000] * 100])


def test_nothing_is_made_by_a_start_that_fails_late(own_rootfs, tmp_path):
    """The last step fails: what the earlier ones mounted is gone with their namespace."""
    before = listing(own_rootfs)
    failing = mc.Container(own_rootfs).with_(mc.Tmpfs("/tmp"), mc.Bind(str(tmp_path), "/mnt"))
    told(failing, ["/bin/nosuch"], mc.CommandNotFound, 127)
    assert listing(own_rootfs) == before
