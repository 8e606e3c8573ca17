"""What a plain ``minictr exec`` compiled serves the next ones, as long as nothing has changed that it was made from."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

SLOW = {"minictr.plan", "minictr.spec", "minictr.runtime.join", "minictr.features.process", "minictr.runtime.state"}
ASKED = "/proc/self/status"
ROWS = "Uid Gid Groups CapInh CapPrm CapEff CapBnd CapAmb NoNewPrivs Seccomp Seccomp_filters".split()


@pytest.fixture
def box(detached, run_cli):
    """Runs ``minictr exec`` in a detached container, which tells its state directory as ``box.directory``."""
    detached("lab")

    def run(*words: str, code: int = 0) -> str:
        done = run_cli("exec", "lab", *words)
        assert done.returncode == code, done.stderr
        return done.stdout if code == 0 else done.stderr

    run.directory = (
        Path(os.environ["MINICTR_ROOT"]) / "containers" / run_cli("inspect", "-f", "{{.Id}}", "lab").stdout.strip()
    )
    run.file = run.directory / "exec"
    return run


@pytest.fixture
def served(imported):
    """``served()``: whether an ``exec`` did without features, spec and plan."""

    def look() -> bool:
        code, modules, output = imported("exec", "lab", "echo", "done")
        assert (code, output) == (0, "done\n")
        return not modules & SLOW

    return look


def test_the_second_needs_no_plan(box, served):
    assert not box.file.exists()
    assert not served()
    assert box.file.stat().st_mode & 0o777 == 0o600
    assert served()
    assert box("sh", "-c", "echo other; exit 0") == "other\n"  # another command is served as well


@pytest.mark.parametrize("options", [["-e", "A=1"], ["-w", "/tmp"], ["-u", "1:1"], ["--cap-drop", "ALL"], ["-t"]])
def test_what_is_about_the_program_is_compiled_anew(box, options, imported):
    box("true")
    code, modules, _ = imported("exec", *options, "lab", "true")
    assert code == 0
    assert modules >= {"minictr.plan"}


def test_no_option_of_the_program_is_kept(box, run_cli):
    assert run_cli("exec", "-e", "A=1", "-u", "1:1", "lab", "sh", "-c", "echo $A; id -u").stdout == "1\n1\n"
    assert not box.file.exists()
    assert box("sh", "-c", "echo $A; id -u") == "\n0\n"


def test_it_is_as_confined(box, served):
    def rows() -> list[str]:
        return [line for line in box("cat", ASKED).splitlines() if line.split(":")[0] in ROWS]

    first = rows()
    assert served()
    assert rows() == first
    assert "NoNewPrivs:\t1" in first
    command = "readlink /proc/self/ns/*; cat /proc/self/cgroup; env; ls /proc/self/fd; cat /proc/self/limits; pwd"
    assert box("sh", "-c", command) == box("sh", "-c", command)
    box.file.unlink()
    kept = box("sh", "-c", command)
    assert box("sh", "-c", command) == kept


def test_errors_and_codes_are_the_same(box):
    box("true")
    again = box("nosuch", code=127)
    box.file.unlink()
    assert box("nosuch", code=127) == again
    assert "not found in PATH" in again
    box("sh", "-c", "exit 9", code=9)
    box("sh", "-c", "kill -9 $$", code=137)
    assert "/etc/passwd" in box("/etc/passwd", code=126)


def test_it_runs_once(box, run_cli):
    """What fails after the program ran is not tried again."""
    box("true")
    run_cli("exec", "--json-status-fd", "9", "lab", "sh", "-c", "echo x >> /tmp/ran")
    box("sh", "-c", "echo x >> /tmp/ran; exit 3", code=3)
    assert box("cat", "/tmp/ran") == "x\n"


@pytest.mark.parametrize("change", ["passwd", "state", "restart"])
def test_a_change_is_seen(box, run_cli, change, served):
    box("true")
    assert served()
    if change == "passwd":
        box("sh", "-c", "cat /etc/passwd > /tmp/p; echo 'x:x:7:7::/:/bin/sh' >> /tmp/p; cat /tmp/p > /etc/passwd")
    elif change == "state":
        assert run_cli("update", "--pids-limit", "99", "lab").returncode == 0
    else:
        assert run_cli("stop", "-t", "0", "lab").returncode == 0
        assert run_cli("start", "lab").returncode == 0
    assert not served()
    assert served()


def test_paused_and_over(box, run_cli, served):
    box("true")
    assert run_cli("pause", "lab").returncode == 0
    assert "it is paused: minictr unpause lab first" in box("true", code=125)
    run_cli("unpause", "lab")
    assert served()
    run_cli("stop", "-t", "0", "lab")
    assert "it is exited" in box("true", code=125)


def test_a_new_life_of_the_pid_is_another_process(box, run_cli, served):
    """The start time tells it, not the number: here the same file beside another process."""
    box("true")
    kept = box.file.read_bytes()
    run_cli("stop", "-t", "0", "lab")
    run_cli("start", "lab")
    box.file.write_bytes(kept)
    assert not served()


@pytest.mark.parametrize("how", ["cut", "empty", "flipped", "foreign", "link", "open to others", "directory", "huge"])
def test_a_file_that_is_not_ours_is_not_believed(box, tmp_path, how, served):
    box("true")
    whole = box.file.read_bytes()
    spoil(box.file, whole, how, tmp_path)
    assert not served()
    assert box("echo", "fine") == "fine\n"
    if how == "directory":
        box.file.rmdir()


def spoil(file: Path, whole: bytes, how: str, other: Path) -> None:
    if how == "cut":
        file.write_bytes(whole[:-3])
    elif how == "empty":
        file.write_bytes(b"")
    elif how == "flipped":
        file.write_bytes(whole[:99] + bytes([whole[99] ^ 1]) + whole[100:])
    elif how == "foreign":
        os.chown(file, 12345, 12345)
    elif how == "open to others":
        file.chmod(0o640)
    elif how == "huge":
        file.write_bytes(whole.ljust(2 << 20))
    else:
        file.unlink()
        if how == "link":
            (other / "kept").write_bytes(whole)
            file.symlink_to(other / "kept")
        else:
            file.mkdir()


def test_many_at_once(box, run_cli, served):
    """They may all write it: whole or not at all."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as pool:
        codes = list(pool.map(lambda n: run_cli("exec", "lab", "sh", "-c", f"exit {n}").returncode, range(16)))
    assert codes == list(range(16))
    assert served()


def test_it_goes_with_the_container(box, run_cli):
    box("true")
    assert run_cli("rm", "-f", "lab").returncode == 0
    deadline = time.monotonic() + 5
    while box.directory.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not box.directory.exists()
