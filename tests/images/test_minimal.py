"""A root from the host's own files, run by chroot: it must work in there without a container's help."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from minictr.errors import SpecError
from minictr.images import dpkg
from minictr.images.loader import Search
from minictr.images.minimal import minimal

ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "TERM": "xterm",
    "LC_ALL": "C.UTF-8",
}


def inside(root: Path, *argv: str, **options: object) -> subprocess.CompletedProcess[str]:
    """Run a command by chroot(2) in ROOT."""
    return subprocess.run(
        ["chroot", root, *argv], check=False, capture_output=True, text=True, env=ENVIRONMENT, timeout=30, **options
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, requires) -> Path:
    requires.root()
    path = tmp_path_factory.mktemp("minimal") / "root"
    minimal(str(path), ["bash", "sh", "@coreutils", "awk", "perl"])
    return path


def files(root: Path) -> list[str]:
    return sorted(os.path.join(top, name) for top, directories, names in os.walk(root) for name in directories + names)


def test_bash_and_coreutils_run(root: Path) -> None:
    script = 'set -e; id -un; ls -ld /tmp /root; sort <<<"b"; echo x > /tmp/f; cat /tmp/f; rm /tmp/f; test -x /bin/sh'
    done = inside(root, "/bin/bash", "-c", script)
    assert done.stderr == ""
    assert done.returncode == 0
    assert done.stdout.split("\n")[0] == "root"
    assert "drwxrwxrwt" in done.stdout
    assert "drwx------" in done.stdout


def test_every_program_starts(root: Path) -> None:
    """No program of coreutils misses a library: the loader's own words would be on stderr, and the code 127."""
    for path in dpkg.programs("coreutils"):
        done = inside(root, path, "--version")
        assert "error while loading" not in done.stderr, path
        assert done.returncode != 127, path


def test_every_elf_file_finds_its_libraries_in_there(root: Path) -> None:
    """Each file that Search says is needed is in the root, at the very path."""
    search = Search()
    for path in files(root):
        if not os.path.isfile(path) or os.path.islink(path) or search.file(path) is None:
            continue
        found, missing = search.libraries(path.removeprefix(str(root)))
        assert missing == []
        for library in found:
            assert inside(root, "/bin/bash", "-c", '[ -e "$0" ]', library).returncode == 0, (path, library)


def test_links_are_as_on_the_host(root: Path) -> None:
    for name in ("bin", "sbin", "lib", "lib64"):
        if os.path.islink(f"/{name}"):
            assert os.readlink(root / name) == os.readlink(f"/{name}")
    assert os.readlink(root / "usr/bin/awk") == os.readlink("/usr/bin/awk")
    assert inside(root, "awk", "BEGIN { print 6 * 7 }").stdout == "42\n"


def test_modes_owners_and_times_are_kept(root: Path) -> None:
    for name in ("bin/ls", "bin/bash", "usr/bin"):
        here, there = os.stat(root / name), os.stat(f"/{name}")
        assert (here.st_mode, here.st_uid, here.st_gid, here.st_mtime) == (
            there.st_mode,
            there.st_uid,
            there.st_gid,
            there.st_mtime,
        )
    assert stat.S_IMODE(os.stat(root).st_mode) == 0o755


def test_nothing_of_the_hosts_users(root: Path) -> None:
    names = {line.split(":")[0] for line in (root / "etc/passwd").read_text().splitlines()}
    assert names == {"root", "nobody"}
    assert "root:*:0:0:root:/root:/bin/bash" in (root / "etc/passwd").read_text()
    groups = {line.split(":")[0] for line in (root / "etc/group").read_text().splitlines()}
    assert {"root", "tty", "nogroup"} <= groups
    assert not (root / "etc/shadow").exists()


def test_terminals_are_known(root: Path) -> None:
    entries = [path for path in files(root) if "/terminfo/" in path]
    for name in ("linux", "xterm", "xterm-256color", "screen", "tmux-256color", "vt100", "dumb"):
        assert any(path.endswith(f"/{name}") for path in entries), name
    assert inside(root, "bash", "-ic", 'echo "$PS1"').returncode == 0


def test_the_cache_lists_what_is_there(root: Path) -> None:
    listed = subprocess.run(
        ["/sbin/ldconfig", "-C", root / "etc/ld.so.cache", "-p"], check=True, capture_output=True, text=True
    ).stdout
    paths = [line.split("=> ")[1] for line in listed.split("\n") if "=>" in line]
    assert any(path.endswith("/libc.so.6") for path in paths)
    for path in paths:
        assert inside(root, "test", "-e", path).returncode == 0, path


def test_mount_points_are_empty(root: Path) -> None:
    for name in ("proc", "sys", "dev", "mnt", "home", "tmp"):
        assert os.listdir(root / name) == []
    assert (root / "etc/resolv.conf").exists()
    assert os.readlink(root / "etc/mtab") == "../proc/self/mounts"


def test_scripts_bring_their_interpreters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script of a script, and one by env, with options before the name."""
    first, second, third = tmp_path / "first", tmp_path / "second", tmp_path / "third"
    first.write_text(f"#!{second} x\n")
    second.write_text("#!/bin/sh\necho from second\n")
    third.write_text("#!/usr/bin/env -S A=1 bash -e\necho from $0 $A\n")
    for path in (first, second, third):
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    root = tmp_path / "root"
    minimal(str(root), ["first", str(third)])
    assert inside(root, str(first)).stdout == "from second\n"
    assert inside(root, str(third)).stdout == f"from {third} 1\n"
    assert not (root / "usr/bin/ls").exists()


def test_include_brings_trees_and_their_libraries(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "deep").mkdir(parents=True)
    (tree / "deep" / "file").write_text("content")
    os.link(tree / "deep" / "file", tree / "again")
    os.symlink("deep/file", tree / "link")
    os.mkfifo(tree / "fifo")
    (tree / "sort").write_bytes(Path("/usr/bin/sort").read_bytes())
    (tree / "sort").chmod(0o4711)
    root = tmp_path / "root"
    built = minimal(str(root), ["cat"], include=[str(tree), "/etc/passwd"])
    copied = Path(f"{root}{tree}")
    assert (copied / "link").read_text() == "content"
    assert os.readlink(copied / "link") == "deep/file"
    assert os.stat(copied / "again").st_ino == os.stat(copied / "deep/file").st_ino
    assert stat.S_IMODE(os.stat(copied / "sort").st_mode) == 0o4711
    assert not (copied / "fifo").exists()
    assert any("fifo is left out" in note for note in built.notes)
    assert inside(root, f"{tree}/sort", "--version").returncode == 0
    assert (root / "etc/passwd").read_bytes() == Path("/etc/passwd").read_bytes()


def test_capabilities_and_holes_are_kept(tmp_path: Path, requires) -> None:
    requires("setcap")
    program = tmp_path / "capable"
    program.write_bytes(Path("/usr/bin/true").read_bytes())
    program.chmod(0o755)
    subprocess.run(["setcap", "cap_net_raw+ep", program], check=True)
    sparse = tmp_path / "sparse"
    with open(sparse, "wb") as file:
        file.seek(1 << 26)
        file.write(b"end")
    minimal(str(tmp_path / "root"), [str(program)], include=[str(sparse)])
    copy = f"{tmp_path}/root{program}"
    assert os.getxattr(copy, "security.capability") == os.getxattr(program, "security.capability")
    holes = os.stat(f"{tmp_path}/root{sparse}")
    assert holes.st_size == (1 << 26) + 3
    assert holes.st_blocks * 512 < 1 << 20


def test_all_that_is_missing_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        minimal(str(tmp_path / "root"), ["bash", "nosuch1", "nosuch2", "@nosuchpackage", "./relative", "/no/such"])
    message = str(caught.value)
    for words in (
        "not found: nosuch1, nosuch2, /no/such",
        "@nosuchpackage: this package is not installed",
        "'./relative'",
    ):
        assert words in message
    assert "\n" not in message
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("include", "words"),
    [
        ("relative", "absolute"),
        ("/", "whole root"),
        ("/proc/self/status", "running kernel"),
        ("/dev", "running kernel"),
        ("/no/such", "No such file"),
    ],
)
def test_includes_that_are_refused(tmp_path: Path, include: str, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        minimal(str(tmp_path / "root"), ["true"], include=[include])
    assert os.listdir(tmp_path) == []


def test_target_inside_an_included_tree(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    os.symlink("tree", tmp_path / "alias")
    for target in ("tree/root", "alias/root"):
        with pytest.raises(SpecError, match=r"the target .* is in it"):
            minimal(str(tmp_path / target), ["true"], include=[str(tmp_path / "tree")])
    assert os.listdir(tmp_path / "tree") == []


@pytest.mark.parametrize(
    ("script", "words"),
    [("#!/no/interpreter\n", "its interpreter /no/interpreter"), ("#!/usr/bin/env nosuch\n", "its interpreter nosuch")],
)
def test_scripts_without_an_interpreter(tmp_path: Path, script: str, words: str) -> None:
    path = tmp_path / "script"
    path.write_text(script)
    path.chmod(0o755)
    with pytest.raises(SpecError, match=words):
        minimal(str(tmp_path / "root"), [str(path)])
    loop = tmp_path / "loop"
    loop.write_text(f"#!{loop}\n")
    loop.chmod(0o755)
    minimal(str(tmp_path / "root"), [str(loop)])  # the kernel refuses to start it; it can be copied


def test_a_failure_in_the_middle_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "copy_file_range", full)
    with pytest.raises(OSError, match=r"write '/.*': ENOSPC"):
        minimal(str(tmp_path / "root"), ["true"])
    assert os.listdir(tmp_path) == []


def test_as_an_ordinary_user(tmp_path: Path, requires) -> None:
    """Nobody's own copy: no owners, no set-ID bits, everything else."""
    requires.root()
    requires("setpriv")
    work = tmp_path / "work"
    work.mkdir(mode=0o755)
    os.chown(work, 65534, 65534)
    for parent in (tmp_path, *tmp_path.parents[:3]):
        if parent.stat().st_uid == 0 and str(parent) not in ("/", "/tmp"):
            parent.chmod(parent.stat().st_mode | 0o055)
    call = f"minimal({str(work / 'root')!r}, ['sh', 'cat', 'su', 'mount'])"
    code = f"from minictr.images.minimal import minimal; {call}"
    import minictr

    environment = {**ENVIRONMENT, "PYTHONPATH": str(Path(minictr.__path__[0]).parent), "PYTHONDONTWRITEBYTECODE": "1"}
    python = os.path.realpath(sys.executable)
    if not _reachable(python) or not _reachable(environment["PYTHONPATH"]):
        python = "/usr/bin/python3"  # this interpreter is in a private directory
        copy = work / "path" / "minictr"
        subprocess.run(["cp", "-r", "--", minictr.__path__[0], tmp_path / "copy"], check=True)
        copy.parent.mkdir()
        os.rename(tmp_path / "copy", copy)
        environment["PYTHONPATH"] = str(copy.parent)
    done = subprocess.run(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", python, "-B", "-c", code],
        check=False,
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    info = os.stat(work / "root/bin/mount")
    assert (info.st_uid, info.st_mode & 0o6000) == (65534, 0)
    assert inside(work / "root", "sh", "-c", "cat /etc/hostname").stdout == "minictr\n"


def _reachable(path: str) -> bool:
    """Whether everybody may go to PATH."""
    return all(os.stat(parent).st_mode & 0o001 for parent in Path(path).resolve().parents)


def test_package_names(tmp_path: Path) -> None:
    """Programs of a package: architectures, alternatives, diversions, from a database made here."""
    info = tmp_path / "info"
    info.mkdir()
    (tmp_path / "status").write_text("Package: dpkg\nStatus: install ok installed\nArchitecture: amd64\n")
    (info / "both:i386.list").write_text("/.\n/usr/bin/false\n")
    (info / "both:amd64.list").write_text("/.\n/usr/bin\n/usr/bin/true\n/usr/share/doc\n")
    (info / "moved.list").write_text("/usr/bin/moved-away\n/usr/bin/ls\n")
    (tmp_path / "diversions").write_text("/usr/bin/moved-away\n/usr/bin/cat\nother\n/usr/bin/ls\n/usr/bin/x\nmoved\n")
    database = str(tmp_path)
    assert dpkg.programs("both", database) == ["/usr/bin/true"]
    assert dpkg.programs("both:i386", database) == ["/usr/bin/false"]
    assert dpkg.programs("moved", database) == ["/usr/bin/cat", "/usr/bin/ls"]
    assert dpkg.programs("moved:amd64", database)
    for name, words in (("absent", "not installed"), ("UPPER", "not a package name"), ("../x", "not a package name")):
        with pytest.raises(SpecError, match=words):
            dpkg.programs(name, database)
    (info / "empty.list").write_text("/.\n/usr/share/doc/empty\n")
    with pytest.raises(SpecError, match="no programs"):
        dpkg.programs("empty", database)
    with pytest.raises(SpecError, match="no dpkg database"):
        dpkg.programs("both", str(tmp_path / "elsewhere"))


def test_alternatives_come_with_their_package() -> None:
    if os.path.exists("/usr/bin/mawk") and os.path.realpath("/usr/bin/awk") == "/usr/bin/mawk":
        assert "/usr/bin/awk" in dpkg.programs("mawk")
