"""``minictr cp``, ``diff`` and ``commit`` on containers that run and that do not."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from waiting import eventually

Start = Callable[..., None]


@pytest.fixture
def start(store, own_rootfs: Path, run_cli, requires) -> Iterator[Start]:
    """``start("web", "--upper", DIR)``: a detached container on ``own_rootfs`` that waits for its end."""
    requires.root()
    names: list[str] = []

    def run(name: str, *options: str | Path, script: str = "exec sleep 1000") -> None:
        words = ("run", "-d", "--name", name, "--rootfs", own_rootfs, *options, "bash", "-c", script)
        done = run_cli(*words)
        assert done.returncode == 0, done.stderr
        names.append(name)

    yield run
    for name in names:
        done = run_cli("rm", "-f", name)
        assert done.returncode == 0, done.stderr


def test_cp_both_ways_running_and_stopped(start: Start, run_cli, own_rootfs: Path, tmp_path: Path) -> None:
    start("web")
    (tmp_path / "src/sub").mkdir(parents=True)
    (tmp_path / "src/sub/f").write_text("text")
    (tmp_path / "src/file:name").write_text("colon")
    done = run_cli("cp", tmp_path / "src", "web:/srv")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (own_rootfs / "srv/sub/f").read_text() == "text"
    assert run_cli("cp", "./file:name", "web:srv", cwd=tmp_path / "src").returncode == 0
    assert run_cli("stop", "-t", "0", "web").returncode == 0
    done = run_cli("cp", "web:/srv/.", tmp_path / "back")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert sorted(os.listdir(tmp_path / "back")) == ["file:name", "sub"]
    assert run_cli("cp", tmp_path / "src/sub/f", "web:/").returncode == 0
    assert (own_rootfs / "f").read_text() == "text"


def test_cp_by_way_of_tar(start: Start, run_cli, own_rootfs: Path, tmp_path: Path) -> None:
    start("web")
    (own_rootfs / "d").mkdir()
    (own_rootfs / "d/f").write_text("text")
    os.chown(own_rootfs / "d/f", 7, 8)
    done = run_cli("cp", "web:/d", "-", text=False)
    assert done.returncode == 0, done.stderr
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
        assert tar.getnames() == ["d", "d/f"]
    again = run_cli("cp", "-", "web:/tmp", text=False, input=done.stdout)
    assert (again.returncode, again.stderr) == (0, b"")
    assert os.stat(own_rootfs / "tmp/d/f").st_gid == 8
    cut = run_cli("cp", "-", "web:/tmp", text=False, input=done.stdout[:700])
    assert cut.returncode == 125
    assert cut.stderr.startswith(b"minictr cp: copy standard input to web:/tmp: ")


def test_cp_into_a_user_namespace(start: Start, run_cli, own_rootfs: Path, tmp_path: Path) -> None:
    os.chmod(tmp_path, 0o755)
    (tmp_path / "f").write_text("x")
    os.chown(tmp_path / "f", 5, 6)
    start("web", "--uidmap", "0:100000:65536")
    for words, owner in ((("cp",), (100_000, 100_000)), (("cp", "-a"), (100_005, 100_006))):
        done = run_cli(*words, tmp_path / "f", "web:/tmp/f")
        assert done.returncode == 0, done.stderr
        assert (os.stat(own_rootfs / "tmp/f").st_uid, os.stat(own_rootfs / "tmp/f").st_gid) == owner
    assert run_cli("stop", "-t", "0", "web").returncode == 0
    assert run_cli("cp", tmp_path / "f", "web:/tmp/g").returncode == 0
    assert os.stat(own_rootfs / "tmp/g").st_uid == 100_000
    assert run_cli("cp", "-a", "web:/tmp/f", tmp_path / "out").returncode == 0
    assert os.stat(tmp_path / "out").st_uid == 5


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("a", "b"), "one of SRC and DEST must be in a container: NAME:PATH"),
        (("web:/a", "other:/b"), "copying from one container to another is not supported"),
        (("web:/a", ""), "the destination is empty"),
        (("", "web:/a"), "the source is empty"),
        ((":/a", "b"), "no container's name before its colon"),
        (("nosuch:/a", "b"), "nosuch"),
        (("web:/absent", "b"), "copy web:/absent to b: open web:/absent: ENOENT"),
        (("/absent", "web:/tmp"), "copy /absent to web:/tmp: open /absent: ENOENT"),
        (("/etc/hostname", "web:/no/where/"), "there is no such directory: make it first"),
        (("-", "web:/etc/passwd"), "the destination must be a directory that is there"),
        (("a\x1b[31m", "web:/x"), "a\\x1b[31m"),
    ],
)
def test_mistakes_of_cp_are_one_line(
    start: Start, run_cli, tmp_path: Path, words: tuple[str, str], expected: str
) -> None:
    start("web")
    done = run_cli("cp", *words, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (125, "")
    assert expected in done.stderr
    assert done.stderr.startswith("minictr cp: ")
    assert done.stderr.count("\n") == 1
    assert "\x1b" not in done.stderr


CHANGE = "echo x > /home/new; rm /etc/group; echo y >> /etc/passwd; exec sleep 1000"


def test_diff_and_commit(start: Start, run_cli, tmp_path: Path) -> None:
    start("web", "--upper", tmp_path / "upper", script=CHANGE)
    eventually(lambda: "C /etc/passwd" in run_cli("diff", "web").stdout)
    running = run_cli("diff", "web").stdout.splitlines()
    assert {"C /etc", "D /etc/group", "C /etc/passwd", "C /home", "A /home/new"} <= set(running)
    done = run_cli("commit", "web", tmp_path / "layer.tar")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert run_cli("ps", "--format", "json").stdout.count('"running"') == 1  # and not paused
    with tarfile.open(tmp_path / "layer.tar") as tar:
        assert "etc/.wh.group" in tar.getnames()
    assert run_cli("stop", "-t", "0", "web").returncode == 0
    rows = json.loads(run_cli("diff", "--format", "json", "web").stdout)
    assert {"kind": "D", "path": "/etc/group"} in rows
    again = run_cli("commit", "web", tmp_path / "layer.tar")
    assert again.returncode == 125
    assert "is there already, and is not overwritten" in again.stderr
    assert run_cli("commit", "web", tmp_path / "layer").returncode == 0
    assert run_cli("commit", "--whole", "web", tmp_path / "whole").returncode == 0
    ran = run_cli("run", "--rootfs", tmp_path / "whole", "cat", "/home/new")
    assert (ran.returncode, ran.stdout) == (0, "x\n"), ran.stderr
    stream = run_cli("commit", "--whole", "web", "-", text=False)
    with tarfile.open(fileobj=io.BytesIO(stream.stdout)) as tar:
        assert "home/new" in tar.getnames()
    assert (
        run_cli("rootfs", "import", "-q", tmp_path / "imported", "-", text=False, input=stream.stdout).returncode == 0
    )
    (tmp_path / "layer/etc/group").lstat()
    words = ("--rootfs", tmp_path / "layer", "--mount", f"type=overlay,lower={tmp_path / 'rootfs'}")
    ran = run_cli("run", *words, "bash", "-c", "cat /home/new; test ! -e /etc/group")
    assert (ran.returncode, ran.stdout) == (0, "x\n"), ran.stderr


def test_no_layer(start: Start, run_cli, tmp_path: Path) -> None:
    start("web")
    for words in (("diff", "web"), ("commit", "web", tmp_path / "x")):
        done = run_cli(*words)
        assert (done.returncode, done.stdout) == (125, "")
        assert "has no layer" in done.stderr and "run with --upper DIR" in done.stderr
    assert run_cli("commit", "--whole", "web", tmp_path / "x").returncode == 0
    assert (tmp_path / "x/bin/bash").exists()


def test_interrupted(start: Start, minictr_cli: list[str], tmp_path: Path) -> None:
    """SIGTERM in the middle of a commit leaves nothing, and the container goes on."""
    start("web")
    with open(tmp_path / "rootfs/big", "wb") as file:
        for _ in range(200):
            file.write(os.urandom(1 << 20))
    process = subprocess.Popen([*minictr_cli, "commit", "--whole", "web", str(tmp_path / "x.tar.xz")])
    eventually(lambda: any("x.tar.xz" in name for name in os.listdir(tmp_path)))
    process.terminate()
    assert process.wait(timeout=20) == 143
    assert not [name for name in os.listdir(tmp_path) if "x.tar" in name]


def test_help(run_cli) -> None:
    for verb in ("cp", "diff", "commit"):
        done = run_cli(verb, "--help")
        assert done.returncode == 0
        assert f"Usage: minictr {verb}" in done.stdout
