"""``minictr record``: with what was recorded the program does the same again, and what was not recorded is denied."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from pathlib import Path

import pytest

import minictr as mc
from minictr.features.filters import SeccompFilter
from minictr.images.minimal import minimal

PYTHON = "/usr/bin/python3"
PROGRAM = """
import os, socket, subprocess, threading
t = threading.Thread(target=lambda: None); t.start(); t.join()
server = socket.create_server(("127.0.0.1", 0)); socket.create_connection(server.getsockname())
subprocess.run(["tar", "-czf", "/tmp/etc.tgz", "/etc"], check=True, capture_output=True)
print(os.path.getsize("/tmp/etc.tgz") > 100)
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory, requires):
    """A root with the programs that are recorded: a shell, tar and gzip, and Debian's Python."""
    requires.root()
    requires.landlock(4)
    requires(PYTHON)
    path = tmp_path_factory.mktemp("record") / "root"
    library = f"/usr/lib/python{python_version()}"
    programs = ["bash", "@coreutils", "tar", "gzip", "unshare", PYTHON]
    minimal(str(path), programs, include=[library])
    (path / "program.py").write_text(PROGRAM)
    return path


def python_version() -> str:
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    return subprocess.run([PYTHON, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def record(root, run_cli, tmp_path, store):
    """``record(*words, code=0)``: what was written, and the words of the command line that was printed."""

    def run(*words, code=0, rootfs=True, **options):
        path = tmp_path / "recorded.json"
        place = ("--rootfs", root) if rootfs else ()
        answer = run_cli("record", *place, "-o", path, *words, **options)
        assert answer.returncode == code, answer.stderr
        last = answer.stderr.splitlines()[-1]
        return json.loads(path.read_text()), shlex.split(last)[1:], answer

    return run


REAL = {
    "a shell": ["--overlay", "--", "bash", "-c", "echo x >/tmp/x; cat /etc/passwd >/tmp/y; rm /tmp/x; ls / >/dev/null"],
    "tar and gzip": ["--overlay", "--", "tar", "-czf", "/tmp/x.tgz", "/etc"],
    "python with threads, sockets and children": ["--overlay", "--", "python3", "/program.py"],
    "owners and modes": ["--overlay", "--", "bash", "-c", "chown 5:6 /etc; chmod 700 /etc; chown 0:0 /etc"],
    "another user": ["--overlay", "-u", "1000", "--", "bash", "-c", "id; echo x >/tmp/of-1000"],
    "a profile that loads its filter early": ["--profile", "docker", "--overlay", "--", "bash", "-c", "ls /; true"],
    "no filter": ["--security-opt", "seccomp=unconfined", "--overlay", "--", "ls", "/"],
}


@pytest.mark.parametrize("case", REAL)
def test_running_again_with_what_was_recorded_succeeds(record, run_cli, case):
    told, line, answer = record(*REAL[case])
    assert told["minictr"]["runs"] >= 2 and "with just this" in answer.stderr
    again = run_cli(*line)
    assert again.returncode == 0, again.stderr
    assert again.stdout == answer.stdout
    names = {name for row in told["linux"]["seccomp"]["syscalls"] for name in row["names"]}
    assert {"execve", "exit_group"} <= names and len(names) < 120
    assert told["linux"]["seccomp"]["defaultAction"] == "SCMP_ACT_ERRNO"


def test_what_was_not_recorded_is_denied(record, run_cli, root):
    """Recorded with one thing, run with others: a call, a capability, a path to read, one to write, a port."""
    script = "echo x >/tmp/x; cat /etc/passwd"
    _, line, _ = record("--overlay", "--", "bash", "-c", f"[ $0 = bash ] || eval $0; {script}")
    options = line[: line.index("--") + 1]
    tries = {
        "mkdir /tmp/d": "Operation not permitted",  # mkdir was not called
        "chown 5 /etc/passwd": "Operation not permitted",  # nor chown
        "cat /etc/group": "Permission denied",  # not read
        "echo x >/etc/new": "Permission denied",  # not written
        "echo >/dev/tcp/127.0.0.1/9": "Permission denied",  # not connected
    }
    for what, why in tries.items():
        answer = run_cli(*options, "bash", "-c", what)
        assert answer.returncode != 0 and why in answer.stderr, (what, answer.stderr)
        plain = run_cli("run", "--rootfs", root, "--overlay", "--", "bash", "-c", what)
        assert why not in plain.stderr, what


def test_capabilities_are_those_that_are_needed(record, run_cli):
    held = lambda told: told["process"]["capabilities"]["bounding"]  # noqa: E731
    assert held(record("--overlay", "--", "bash", "-c", "echo x >/tmp/x")[0]) == []
    told, line, _ = record("--overlay", "--", "chown", "5", "/etc")
    assert held(told) == ["CAP_CHOWN"] and run_cli(*line).returncode == 0
    without = line[: line.index("--cap-add")] + line[line.index("--cap-add") + 2 :]
    assert run_cli(*without).returncode == 1  # it was needed
    assert held(record("--overlay", "--cap-add", "MKNOD", "--", "mknod", "/tmp/n", "c", "1", "3")[0]) == ["CAP_MKNOD"]
    words = ["--cap-add", "SYS_ADMIN", "--", "unshare", "-m", "true"]
    told, _, answer = record(*words)
    assert held(told) == ["CAP_SYS_ADMIN"]
    assert "landlock" not in told["minictr"] and "or mounts" in answer.stderr  # in a domain of it nothing is mounted


def test_the_filter_never_allows_more_than_the_one_it_was_recorded_under(record):
    """clone3 keeps its ENOSYS, for C libraries know what to do then; socket its families."""
    threads = "import threading as t, socket; t.Thread(target=print).start(); socket.socket()"
    told, _, _ = record("--once", "--", "python3", "-c", threads)
    made, base = SeccompFilter.from_json(told), SeccompFilter.default()
    for call, *arguments in (("clone3",), ("socket", 38), ("socket", 40), ("clone", 0x20000), ("mount",), ("bpf",)):
        action = made.explain(call, *arguments).action
        assert action.kind == "errno", call
    assert made.explain("clone3").action == base.explain("clone3").action
    assert made.explain("socket", 2).action.kind == "allow"
    assert made.explain("swapon").action.number == 1


def test_calls_of_i386_are_recorded_as_such(root, record, run_cli, requires, tmp_path):
    if os.uname().machine != "x86_64":
        pytest.skip("ABIs of x86_64")
    source = Path(__file__).parent.parent / "runtime" / "calls.c"
    flags = ("-O1", "-static", "-no-pie")
    subprocess.run([requires("gcc"), *flags, "-o", root / "bin" / "calls", source], check=True)
    if mc.Container(root).without("seccomp").run(["calls", "32", "20"], capture_output=True).returncode:
        pytest.skip("not exercisable here: this kernel runs no i386 system calls")
    told, line, _ = record("--", "calls", "32", "20")
    assert told["linux"]["seccomp"]["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]
    assert run_cli(*line).returncode == 0
    told, line, _ = record("--once", "--", "calls", "64", "39")
    assert told["linux"]["seccomp"]["architectures"] == ["SCMP_ARCH_X86_64"]
    killed = run_cli(*line[: line.index("--") + 1], "calls", "32", "20")
    assert killed.returncode == 128 + 31  # another architecture is not answered at all


def test_the_hosts_own_root_with_landlock_alone(record, run_cli, tmp_path):
    place = tmp_path / "place"
    place.mkdir()
    words = ["--profile", "bare", "--rootfs", "/", "--", "sh", "-c", f"echo x >{place}/f; cat {place}/f"]
    told, line, _ = record(*words, rootfs=False)
    assert str(place) in told["minictr"]["landlock"]["rw"]
    again = run_cli(*line)
    assert (again.returncode, again.stdout) == (0, "x\n")


def test_input_from_a_file_is_read_again_and_a_pipe_is_not(record, tmp_path):
    text = tmp_path / "text"
    text.write_text("a line\n" * 100)
    script = "while read -r line; do last=$line; done; [ \"$last\" = 'a line' ]"
    with text.open() as file:
        told, _, answer = record("--", "bash", "-c", script, stdin=file)
    assert told["minictr"]["runs"] >= 2 and "not tried" not in answer.stderr
    told, _, answer = record("--", "bash", "-c", "read -r line; [ $line = word ]", input="word\n")
    assert told["minictr"]["runs"] == 1 and "its input is a pipe" in answer.stderr


def test_once_is_once_and_leaves_nothing_that_may_be_needed_out(record, run_cli, root):
    marker = root / "tmp" / "once"
    try:
        script = "[ ! -e /tmp/once ] && touch /tmp/once && chown 5 /tmp/once"
        told, line, answer = record("--once", "--", "bash", "-c", script)
        assert told["minictr"]["runs"] == 1 and "once" in answer.stderr
        assert told["process"]["capabilities"]["bounding"] == ["CAP_CHOWN"]
        marker.unlink()
        assert run_cli(*line).returncode == 0
    finally:
        marker.unlink(missing_ok=True)


def test_what_is_not_the_same_twice_is_an_error(root, run_cli, tmp_path, store):
    path = tmp_path / "r.json"
    try:
        script = "[ ! -e /tmp/once ] && touch /tmp/once"
        answer = run_cli("record", "--rootfs", root, "-o", path, "--", "bash", "-c", script)
    finally:
        (root / "tmp" / "once").unlink(missing_ok=True)
    assert answer.returncode == 125 and not path.exists()
    assert "it ended with 1, at first with 0" in answer.stderr and "--once" in answer.stderr


def test_a_program_that_failed_is_not_written_unless_asked(root, run_cli, tmp_path, store, record):
    path = tmp_path / "r.json"
    words = ("--rootfs", root, "-o", path, "--", "bash", "-c", "exit 3")
    answer = run_cli("record", *words)
    assert answer.returncode == 3 and not path.exists() and "nothing is written" in answer.stderr
    told, line, _ = record("--any-exit", "--", "bash", "-c", "exit 3", code=3)
    assert told["minictr"]["returncode"] == 3
    assert run_cli(*line).returncode == 3
    slow = run_cli("record", "--rootfs", root, "-o", path, "--timeout", "0.5", "--", "sleep", "9")
    assert slow.returncode == 124 and not path.exists()


def test_options_are_kept_but_for_what_was_recorded(record):
    options = ["--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=docker", "-e", "A=b c", "--overlay"]
    _, line, _ = record(*options, "--once", "--", "true")
    before = line[: line.index("--security-opt")]
    assert before[:1] == ["run"] and before[3:] == ["-e", "A=b c", "--overlay"]
    assert "SYS_ADMIN" not in line and line[-2:] == ["--", "true"]


def test_rules_of_landlock_that_were_given_are_kept(record):
    given = ["--ro", "/usr", "--ro", "/bin", "--ro", "/lib", "--ro", "/lib64", "--ro", "/etc"]
    told, line, _ = record(*given, "--once", "--", "true")
    assert "landlock" not in told["minictr"]
    assert line[3 : 3 + len(given)] == given


def test_python_records_as_well(root):
    box = mc.Container(root).with_(mc.Overlay())
    found = box.record(["bash", "-c", "echo x >/tmp/x; cat /etc/passwd"], timeout=60, stdout=mc.DEVNULL)
    assert (found.returncode, found.capabilities, found.landlock.rw) == (0, (), ("/dev/tty", "/tmp"))
    narrow = box.replace(features=found.features())
    assert narrow.run(["bash", "-c", "echo y >/tmp/y; cat /etc/passwd"], stdout=mc.DEVNULL).returncode == 0
    assert narrow.run(["bash", "-c", "cat /etc/group"], stderr=mc.DEVNULL).returncode == 1
    with pytest.raises(mc.CalledProcessError):
        box.record(["false"])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["-o", "/nowhere/x", "--", "true"], "--output=/nowhere/x: no directory /nowhere"),
        (["--"], "no command"),
        (["--explain-denials", "--", "true"], "--explain-denials"),
        (["-d", "--", "true"], "-d"),
    ],
)
def test_bad_input_is_one_line(root, run_cli, words, told, store):
    answer = run_cli("record", "--rootfs", root, *words)
    assert answer.returncode == 125 and told in answer.stderr and answer.stderr.count("\n") == 1
