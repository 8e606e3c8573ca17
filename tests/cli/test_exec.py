"""``minictr exec``: found by name, joined, ended as the program ends."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import subprocess
import termios
import time
from collections.abc import Callable, Iterator

import pytest
from waiting import eventually

import minictr as mc
from minictr.cli import options_exec
from minictr.cli.main import HotVerb

Exec = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def lab(started) -> mc.Process:
    """A container of this process's."""
    process: mc.Process = started("lab", profile="default")
    return process


@pytest.fixture
def name(lab) -> str:
    return "lab"


@pytest.fixture
def inside(run_cli, name) -> Exec:
    """``inside("--user", "1", "--", "id")``: ``minictr exec`` with the container's name in the place of ``--``."""

    def run(*words: str, **options: object):
        place = words.index("--")
        return run_cli("exec", *words[:place], name, *words[place + 1 :], **options)

    return run


def test_it_is_inside(inside, lab):
    done = inside("--", "bash", "-c", "uname -n; readlink /proc/self/ns/mnt; ps -o args= 2")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split("\n")[:3] == ["minictr", os.readlink(f"/proc/{lab.pid}/ns/mnt"), "sleep 1000"]


def test_two_dashes_after_the_name(run_cli, lab, name):
    assert run_cli("exec", name, "--", "echo", "in").stdout == "in\n"
    assert run_cli("exec", name, "--").stderr.startswith("minictr exec: no command")


def test_a_beginning_of_the_id_is_enough(run_cli, lab, store):
    (identity,) = store.ids()
    assert run_cli("exec", identity[:8], "echo", "in").stdout == "in\n"


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill -TERM $$", 143)]
)
def test_exit_codes(inside, script, code):
    assert inside("--", "bash", "-c", script).returncode == code


@pytest.mark.parametrize(("program", "code"), [("nosuch", 127), ("/etc", 126)])
def test_a_program_that_does_not_run(inside, program, code):
    done = inside("--", program)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith(f"minictr exec: exec {program}: ") and done.stderr.count("\n") == 1


def test_streams(inside):
    done = inside("-i", "--", "bash", "-c", "cat; echo err >&2", input="words")
    assert (done.stdout, done.stderr) == ("words", "err\n")


def test_options_of_the_program(inside, tmp_path):
    (tmp_path / "file").write_text("B=two\nC=3\n")
    words = ("-u", "1:2", "-w", "/usr", "-e", "A=1", "-eB=2", "--env-file", str(tmp_path / "file"))
    done = inside(*words, "--", "bash", "-c", "id -u; id -g; pwd; echo $A $B $C")
    assert done.stdout.split() == ["1", "2", "/usr", "1", "2", "3"]
    assert inside("--", "sh", "-c", "echo option -e", "-e", "x").stdout == "option -e\n"


def test_options_of_privilege(inside):
    def status(*words: str) -> dict[str, str]:
        rows = (row.partition(":") for row in inside(*words, "--", "cat", "/proc/self/status").stdout.splitlines())
        return {key: value.strip() for key, _, value in rows}

    own = int(status()["CapEff"], 16)
    assert int(status("--cap-add", "NET_RAW")["CapEff"], 16) == own | 1 << 13
    assert int(status("--cap-drop", "ALL")["CapEff"], 16) == 0
    assert status("--privileged")["NoNewPrivs"] == "0"
    assert status("--without", "no_new_privs", "--without", "capabilities")["NoNewPrivs"] == "0"


def test_without_a_namespace(inside):
    assert inside("--without", "uts", "--", "uname", "-n").stdout.strip() == os.uname().nodename


def test_descriptors(inside, tmp_path):
    done = inside("--preserve-fds", "1", "--", "sh", "-c", "echo through >&3")
    assert done.returncode == 125 and "3" in done.stderr  # it is not open here


def test_the_pid_is_told(inside, tmp_path):
    read, write = os.pipe()
    try:
        assert inside("--json-status-fd", str(write), "--", "true", pass_fds=[write]).returncode == 0
        rows = [json.loads(row) for row in os.read(read, 4096).splitlines()]
    finally:
        os.close(read)
        os.close(write)
    assert rows[0]["child-pid"] > 1 and rows[1] == {"exit-code": 0}


def test_a_time_limit(inside):
    start = time.monotonic()
    assert inside("--timeout", "0.3", "--", "sleep", "100").returncode == 124
    assert time.monotonic() - start < 9


def test_the_time_line(inside, tmp_path):
    assert inside("--trace=" + str(tmp_path / "trace.json"), "--", "true").returncode == 0
    assert "setns" in (tmp_path / "trace.json").read_text()


def test_detached(inside):
    done = inside("-d", "--", "sh", "-c", "echo seen by nobody; exec sleep 0.7")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    def parents() -> list[str]:
        rows = (row.split(maxsplit=1) for row in inside("--", "ps", "-e", "-o", "ppid=,args=").stdout.splitlines())
        return [parent for parent, words in rows if words == "sleep 0.7"]

    assert parents() == ["1"]
    eventually(lambda: parents() == [])


def test_detached_and_not_to_be_run(inside):
    done = inside("-d", "--", "nosuch")
    assert done.returncode == 127 and "nosuch" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "no container named"),
        (("{name}",), "no command"),
        (("nosuch", "true"), "no container nosuch"),
        (("-u", "nobody-here", "{name}", "true"), "nobody-here: no such user in /proc/"),
        (("--without", "shm", "{name}", "true"), "without shm: exec neither joins nor repeats it"),
        (("-d", "-t", "{name}", "true"), "-d and -t"),
        (("-w", "here", "{name}", "true"), "relative"),
        (("--cap-add", "NOSUCH", "{name}", "true"), "NOSUCH"),
        (("--detach-keys", "ctrl-p", "{name}", "true"), "--detach-keys is not supported"),
        (("--nosuch", "{name}", "true"), "no such option: --nosuch"),
    ],
)
def test_mistakes(run_cli, name, words, said):
    done = run_cli("exec", *(word.format(name=name) for word in words))
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr.startswith("minictr exec: ") and said in done.stderr and done.stderr.count("\n") == 1


def test_one_that_is_over(run_cli, lab, name):
    lab.kill()
    lab.wait()
    done = run_cli("exec", name, "true")
    assert done.returncode == 125 and done.stderr.count("\n") == 1


def test_signals_are_passed_on(minictr_cli, name):
    script = "trap 'echo got; exit 7' TERM; echo ready; while :; do sleep 0.02; done"
    command = [*minictr_cli, "exec", name, "bash", "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        process.terminate()
        assert (process.stdout.read(), process.wait(15)) == ("got\n", 7)


def test_the_container_ends_meanwhile(minictr_cli, name, lab):
    command = [*minictr_cli, "exec", name, "sh", "-c", "echo ready; exec sleep 100"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        lab.kill()
        assert process.wait(15) == 137


def test_killing_the_caller_leaves_the_program(minictr_cli, name, run_cli):
    """As docker's: who only watched is gone. It is of the container, and ends with it."""
    command = [*minictr_cli, "exec", name, "sh", "-c", "echo ready; exec sleep 654"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        process.kill()
    assert "sleep 654" in run_cli("exec", name, "ps", "ax").stdout


# --- a terminal ---


@contextlib.contextmanager
def on_terminal(command: list[str]) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """COMMAND on a pseudo terminal: (its master, the process)."""
    master, slave = os.openpty()

    def take() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True, preexec_fn=take
    )
    os.close(slave)
    try:
        yield master, process
    finally:
        process.kill()
        process.wait()
        os.close(master)


def shown(master: int, until: str, seconds: float = 15) -> str:
    text, deadline = "", time.monotonic() + seconds
    while until not in text:
        assert select.select([master], [], [], max(0, deadline - time.monotonic()))[0], text
        text += os.read(master, 65536).decode()
    return text


def test_called_from_a_terminal_it_has_one_of_its_own(minictr_cli, name):
    command = [*minictr_cli, "exec", "-e", "PS1=ready> ", name, "bash", "--norc", "--noprofile", "-i"]
    with on_terminal(command) as (master, process):
        shown(master, "ready> ")
        os.write(master, b"tty; sh -c 'echo go''ing; exec sleep 100'\n")
        assert "/dev/pts/0" in shown(master, "going")
        os.write(master, b"\x03")  # it is the job's, not ours
        shown(master, "ready> ")
        os.write(master, b"exit 9\n")
        assert process.wait(15) == 9


def test_no_tty_leaves_the_callers_terminal(minictr_cli, name):
    command = [*minictr_cli, "exec", "--no-tty", name, "sh", "-c", "ls /dev/pts; test -t 0 && echo yours"]
    with on_terminal(command) as (master, process):
        assert shown(master, "yours").split() == ["ptmx", "yours"]
        assert process.wait(15) == 0


def test_a_terminal_can_be_had_without_having_one(inside):
    assert inside("-t", "--", "tty").stdout.split() == ["/dev/pts/0"]


# --- the table ---


def test_each_option_is_one_line_of_help(run_cli):
    done = run_cli("exec", "--help")
    rows = [line for line in done.stdout.splitlines() if line.startswith("  -")]
    assert done.stdout.startswith("Usage: minictr exec [OPTIONS] NAME COMMAND [ARGUMENT]...\n")
    assert len(rows) == len(options_exec.TABLES["exec"])
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_both_parsers_read_it_alike():
    from minictr.cli.fastparse import parse
    from minictr.cli.main import parsed

    words = ["-it", "-u", "a:b", "-eA=1", "--env", "B", "-w/x", "--without=net", "--trace", "lab", "sh", "-c", "x -e y"]
    verb = HotVerb("exec")
    with verb.make_context("exec", list(words)) as context:
        assert parsed(context.params) == parse(words, options_exec.TABLES["exec"])
