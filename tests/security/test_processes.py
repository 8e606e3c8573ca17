"""Processes, terminals, keys and sockets of the host, and of the runtime: attempts/processes.c

Beside these: test_escapes.py (init by ptrace and signals, set-user-ID programs, namespaces by setns), test_exec.py (who
joins), tests/runtime/test_exit.py (zombies, with init and without).
"""

from __future__ import annotations

import json
import os
import pty
import secrets
import select
import socket
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import compiled
import pytest
from callers import on_terminal, session_key, terminal_fact

import minictr as mc
from minictr.runtime import join

CONSOLE = "/dev/tty60"  # one that nobody sees


@pytest.fixture
def pair() -> Iterator[tuple[int, int]]:
    """A pseudo terminal: the side of who holds it, and that of a shell in it."""
    ends = pty.openpty()
    yield ends
    for fd in ends:
        os.close(fd)


@pytest.fixture
def from_terminal(hostile, minictr_cli):
    """``from_terminal(FD, NAME, OPTION...)``: what came of it under `minictr run` on terminal FD, as from a shell."""

    def run(fd: int, name: str, *options: str) -> compiled.Verdict:
        words = [*minictr_cli, "run", *options, "--rootfs", str(hostile.rootfs), "--", "attempt", name]
        done = subprocess.run(
            [*words, f"terminal={terminal_fact(fd)}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            preexec_fn=partial(on_terminal, fd),
        )
        assert name in compiled.verdicts(done.stdout), done
        return compiled.verdicts(done.stdout)[name]

    return run


def typed(fd: int) -> bytes:
    """What came out of a terminal's other side: it echoes what is typed."""
    return os.read(fd, 100) if select.select([fd], [], [], 0.5)[0] else b""


def test_typing_into_the_callers_shell(from_terminal, pair):
    """TIOCSTI: CVE-2017-5226 (bubblewrap), CVE-2016-7545. A session of its own has no terminal of the caller's."""
    assert from_terminal(pair[1], "tiocsti").errno == "EPERM"
    assert typed(pair[0]) == b""
    answer = from_terminal(pair[1], "tiocsti", "--without", "session")
    if answer.result == compiled.NOT_EXERCISABLE:
        pytest.skip(f"not exercisable here: {answer.how}")
    assert answer.result == compiled.SUCCEEDED and typed(pair[0]) == b"x"


def test_typing_into_the_shell_of_who_joins(hostile, minictr_cli, pair, run_cli):
    """The same for `exec`: its terminal is the caller's as well. CVE-2016-7545's kind."""
    name = f"typing-{secrets.token_hex(4)}"
    assert run_cli("run", "-d", "--name", name, "--rootfs", hostile.rootfs, "--", "sleep", "1000").returncode == 0
    try:
        words = [*minictr_cli, "exec", name, "attempt", "tiocsti", f"terminal={terminal_fact(pair[1])}"]
        done = subprocess.run(
            words, stdout=subprocess.PIPE, text=True, timeout=60, preexec_fn=partial(on_terminal, pair[1])
        )
        assert compiled.verdicts(done.stdout)["tiocsti"].errno == "EPERM", done
        assert typed(pair[0]) == b""
    finally:
        assert run_cli("rm", "-f", name).returncode == 0


def test_pasting_into_the_callers_console(from_terminal):
    """TIOCLINUX on a virtual console: CVE-2023-28100 (Flatpak). The same wall as TIOCSTI's.

    Weakened, it is also the kernel's: since Linux 6.7 CAP_SYS_ADMIN is asked.
    """
    if not os.path.exists(CONSOLE):
        pytest.skip("not exercisable here: no virtual consoles")

    def answer(*options: str) -> compiled.Verdict:
        fd = os.open(CONSOLE, os.O_RDWR | os.O_NOCTTY)  # anew: the end of a session hangs it up
        try:
            return from_terminal(fd, "tioclinux", *options)
        finally:
            os.close(fd)

    assert answer().errno == "EPERM"
    weak = answer("--without", "session", "--cap-add", "SYS_ADMIN")
    if weak.result == compiled.NOT_EXERCISABLE:
        pytest.skip(f"not exercisable here: {weak.how}")
    assert weak.result == compiled.SUCCEEDED, weak


def test_the_callers_keys(hostile, walls):
    """A session keyring is inherited through execve and namespaces: keyrings(7). The filter is one more wall."""
    key = session_key()
    if not key:
        pytest.skip("not exercisable here: no keyrings")
    walls(hostile, hostile.without("seccomp", "keyring"), "keyring", "EPERM", key=key)
    walls(hostile.without("seccomp"), hostile.without("seccomp", "keyring"), "keyring", "ENOKEY", key=key)


def test_inheritable_capabilities(hostile, walls):
    """CVE-2022-24769 (moby): a set that is not empty comes back by an execve of a file with capabilities."""
    kept = next(f for f in hostile.features if f.name == "capabilities").bounding
    weak = hostile.with_(mc.Capabilities(kept, inheritable=kept))
    walls(hostile, weak, "inheritable", "empty")


def test_inheritable_capabilities_of_who_joins(hostile):
    """The same for `exec`, which CVE-2022-29162 (runc) was about."""
    with hostile.popen(["sleep", "1000"]) as process:
        target = join.Target(process.pid, hostile.spec(), process.pidfd)
        joined = join.exec_run(target, ["attempt", "inheritable"], capture_output=True, text=True, timeout=20)
    assert compiled.verdicts(joined.stdout)["inheritable"].result == compiled.BLOCKED


def test_abstract_sockets_of_the_host(hostile, tried, requires):
    """CVE-2020-15257: containerd's shim listened on one. They belong to the network namespace, not to a file's path."""
    with socket.socket(socket.AF_UNIX) as listener:
        name = f"minictr-{secrets.token_hex(8)}"
        listener.bind(f"\0{name}")
        listener.listen(8)
        assert tried(hostile, "abstract_socket", socket=name).errno == "ECONNREFUSED"
        shared = hostile.without("net")
        assert tried(shared, "abstract_socket", socket=name).result == compiled.SUCCEEDED
        requires.landlock(6)
        scoped = shared.with_(mc.Landlock(scopes=("abstract_unix_socket",)))
        assert tried(scoped, "abstract_socket", socket=name).errno == "EPERM"


def test_the_runtime_is_out_of_reach(hostile, walls):
    """kill(2) and ptrace(2) of who started the container, which is in another pid namespace: pid_namespaces(7)."""
    walls(hostile, hostile.without("pid"), "host_process", "ESRCH", host_pid=os.getpid())


@pytest.mark.parametrize("weak", [False, True], ids=["default", "weakened"])
def test_the_monitor_is_out_of_reach(hostile, run_cli, weak):
    """The parent of a detached container, which writes its log and its exit: nobody inside signals or traces it."""
    name = f"reach-{secrets.token_hex(4)}"
    options = ["--without", "pid"] if weak else []
    words = ["run", "-d", "--name", name, *options, "--rootfs", hostile.rootfs, "--", "sleep", "1000"]
    assert run_cli(*words).returncode == 0
    try:
        told = json.loads(run_cli("inspect", name).stdout)
        monitor = (told[0] if isinstance(told, list) else told)["Monitor"]["Pid"]
        assert Path(f"/proc/{monitor}/comm").exists()
        done = run_cli("exec", name, "attempt", "host_process", f"host_pid={monitor}")
        verdict = compiled.verdicts(done.stdout)["host_process"]
        assert verdict.result == (compiled.SUCCEEDED if weak else compiled.BLOCKED), verdict
        assert weak or verdict.errno == "ESRCH"
    finally:
        assert run_cli("rm", "-f", name).returncode == 0


def test_zombies_are_reaped(hostile, sh):
    """Orphans get PID 1 as their parent: one that waits for none fills the table of processes.

    The pids limit counts zombies as well. Docker's `--init`, moby issue 11529.
    """
    small = hostile.with_(mc.Pids(40))
    script = "probe orphans 20; probe orphans 20; probe orphans 20"
    assert sh(small, script).split() == ["0", "0", "0"]
    # without init: bash is PID 1, and reaps only what it knows of; the program itself never does
    weak = small.without("init")
    done = weak.run(["probe", "orphans", "60"], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0 and int(done.stdout) > 20


def test_who_joins_can_do_no_more(hostile, run_cli):
    """`exec` is a second way in: each class of the report ends there as it does for the container's own program."""
    name = f"joined-{secrets.token_hex(4)}"
    assert run_cli("run", "-d", "--name", name, "--rootfs", hostile.rootfs, "--", "sleep", "1000").returncode == 0
    try:
        joined = compiled.verdicts(run_cli("exec", name, "attempt", "all").stdout)
    finally:
        assert run_cli("rm", "-f", name).returncode == 0
    own = compiled.verdicts(hostile.run(["attempt", "all"], capture_output=True, text=True, timeout=60).stdout)
    assert {kind: verdict.result for kind, verdict in joined.items()} == {
        kind: verdict.result for kind, verdict in own.items()
    }
    assert [kind for kind, verdict in joined.items() if verdict.result == compiled.SUCCEEDED] == ["memory"]
