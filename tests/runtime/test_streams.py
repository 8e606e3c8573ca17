"""Standard streams: whatever a caller hands in, and what must not get in."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import minictr as mc

MANY = 10 << 20


def test_devnull(box, sh):
    assert sh(box, "readlink /proc/self/fd/0", stdin=mc.DEVNULL) == "/dev/null"
    done = box.run(["sh", "-c", "echo out; echo err >&2"], stdout=mc.DEVNULL, stderr=mc.DEVNULL)
    assert (done.stdout, done.stderr) == (None, None)


def test_stderr_joins_stdout(box):
    done = box.run(["sh", "-c", "echo out; echo err >&2"], stdout=mc.PIPE, stderr=mc.STDOUT)
    assert (done.stdout, done.stderr) == (b"out\nerr\n", None)


def test_each_is_kept_apart(box):
    done = box.run(["sh", "-c", "cat; echo err >&2"], input=b"in", capture_output=True)
    assert (done.stdout, done.stderr) == (b"in", b"err\n")


def test_files_and_descriptors(box, tmp_path):
    (tmp_path / "in").write_text("from a file\n")
    with open(tmp_path / "in") as source, open(tmp_path / "out", "w") as target:
        done = box.run(["sh", "-c", "cat; echo err >&2"], stdin=source, stdout=target.fileno(), stderr=target)
    assert done.returncode == 0
    assert (tmp_path / "out").read_text() == "from a file\nerr\n"


def test_descriptors_may_be_swapped(box):
    """stdout goes where our stderr is and the other way round: a dup2 in a wrong order would lose one."""
    program = (
        "import minictr as mc, sys\n"
        "mc.Container(sys.argv[1]).run(['sh', '-c', 'echo out; echo err >&2'], stdout=2, stderr=1)"
    )
    done = run_python(program, str(box.rootfs))
    assert (done.stdout, done.stderr) == ("err\n", "out\n")


def test_a_socket_is_as_good_as_a_pipe(box):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(b"hello\n")
        box.run(["sh", "-c", "read line; echo got $line"], stdin=theirs, stdout=theirs)
        assert ours.recv(100) == b"got hello\n"


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1), (0, 1, 2)])
def test_a_caller_without_standard_streams(box, closed, tmp_path):
    """A daemon has them closed: descriptors that the start itself makes then have the numbers 0, 1, 2."""
    out = tmp_path / "out"
    program = (
        "import minictr as mc, os, sys\n"
        f"[os.close(fd) for fd in {closed}]\n"
        "box = mc.Container(sys.argv[1])\n"
        "program = ['sh', '-c', 'cat; ls /proc/self/fd; echo e >&2']\n"
        "r = box.run(program, input=b'in ', capture_output=True)\n"
        f"with open({str(out)!r}, 'wb') as file: file.write(r.stdout + r.stderr)\n"
    )
    run_python(program, str(box.rootfs))
    assert out.read_text().split() == ["in", "0", "1", "2", "3", "e"]


def test_a_closed_stream_that_is_to_be_inherited_is_an_error(box):
    program = (
        "import minictr as mc, os, sys\nos.close(0)\n"
        "try: mc.Container(sys.argv[1]).run(['true'])\n"
        "except mc.StepFailed as err: print(err)\n"
    )
    assert "pass descriptor 0 (stdin): EBADF" in run_python(program, str(box.rootfs)).stdout


def test_a_descriptor_that_is_not_open(box):
    with pytest.raises(mc.StepFailed, match="EBADF"):
        box.run(["true"], stdout=987)


@pytest.mark.parametrize("wrong", ["a string", 3.5, object()])
def test_what_is_no_stream(box, wrong):
    with pytest.raises(mc.SpecError, match="stdout"):
        box.run(["true"], stdin=mc.PIPE, stdout=wrong)


def test_ten_mebibytes_both_ways(box):
    data = os.urandom(MANY)
    done = box.run(["sh", "-c", "tee /dev/stderr"], input=data, capture_output=True)
    assert done.stdout == data and done.stderr == data


def test_a_program_that_does_not_read_its_input(box):
    done = box.run(["true"], input=bytes(MANY))
    assert done.returncode == 0


def test_nothing_else_gets_in(box, sh, tmp_path):
    """Inheritable descriptors of all kinds in the parent: files, directories, sockets, pipes (CVE-2024-21626)."""
    left = [os.open(tmp_path, os.O_RDONLY), os.open("/", os.O_PATH), *os.pipe(), os.memfd_create("secret", 0)]
    left += [os.dup(left[0]) for _ in range(200)]
    try:
        for fd in left:
            os.set_inheritable(fd, True)
        assert sh(box, "exec probe left-open", stdin=mc.DEVNULL) == "0 1 2"
        assert sh(box.without("init"), "exec probe left-open", stdin=mc.DEVNULL) == "0 1 2"
        assert sh(mc.Container(box.rootfs, features="bare"), "exec probe left-open") == "0 1 2"
        assert left[-1] > 200
    finally:
        for fd in left:
            os.close(fd)


def test_preserved_descriptors_are_the_ones_asked_for(box):
    program = (
        "import minictr as mc, os, sys\n"
        "r, w = os.pipe()\n"
        "for fd in range(3, 60):\n"
        "    os.dup2(w, fd, inheritable=fd % 2 == 0)\n"
        "box = mc.Container(sys.argv[1])\n"
        "for n in (0, 1, 5):\n"
        "    sys.stdout.flush(); box.run(['probe', 'left-open'], preserve_fds=n)\n"
    )
    lines = run_python(program, str(box.rootfs)).stdout.splitlines()
    assert [line.strip() for line in lines] == ["0 1 2", "0 1 2 3", "0 1 2 3 4 5 6 7"]


@pytest.mark.parametrize(("count", "error"), [(-1, mc.SpecError), (90, mc.StepFailed), (4000, mc.StepFailed)])
def test_preserved_descriptors_that_cannot_be(box, count, error):
    with pytest.raises(error):
        box.run(["true"], preserve_fds=count)


def run_python(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """PROGRAM in an interpreter of its own, with the minictr that is tested."""
    where = str(Path(mc.__file__).parent.parent)
    environment = {**os.environ, "PYTHONPATH": where}
    command = [sys.executable, "-P", "-W", "error", "-c", program, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    return done


def test_a_reader_that_comes_late_gets_all(box):
    """Raw pipes, as with Popen: the caller reads and writes by itself, from threads."""
    got: list[bytes] = []
    with box.popen(["cat"], stdin=mc.PIPE, stdout=mc.PIPE) as process:
        reader = threading.Thread(target=lambda: got.append(process.stdout.read()))
        reader.start()
        for _ in range(100):
            process.stdin.write(b"x" * 1000)
        process.stdin.close()
        reader.join(10)
        assert process.wait(10) == 0
    assert got == [b"x" * 100_000]
