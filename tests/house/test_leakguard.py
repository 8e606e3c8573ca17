"""The leak guard guards: each kind of leak, made on purpose in a session of its own, fails that session by name."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import hostview
import pytest

HOUSE = Path(__file__).parent

# Name -> (the body of a test that leaves something, what the report on that very test must say)
LEFT_BY_A_TEST = {
    "descriptor": ("os.open('/etc/passwd', os.O_RDONLY)", "descriptors: left behind: "),
    "memfd": ("for _ in range(2): os.memfd_create('minictr-init')", "memfd:minictr-init"),
    "child": ("kept.append(subprocess.Popen(['sleep', '20']))", "children: left behind: pid "),
    "zombie": ("os._exit(0) if not os.fork() else time.sleep(0.1)", ", zombie, "),
    "mount": ("checked(libc.mount(b'none', b'/srv', b'tmpfs', 0, None))", "mounts: left behind: "),
    "umount": ("checked(libc.umount2(b'/mnt', 2))", "mounts: gone or changed: "),
    "namespace": ("checked(libc.unshare(0x04000000))", "state: left behind: namespace uts:"),
    "umask": ("os.umask(0o77)", "Umask:\t0077"),
    "signals": ("signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})", "state: left behind: SigBlk:"),
    "limit": ("resource.setrlimit(resource.RLIMIT_CORE, (1, 1))", "state: left behind: Max core file size"),
    "directory": ("os.chdir('/usr')", "state: left behind: directory /usr"),
}
CGROUP = f"minictr-leak-{os.getpid()}"
# What no single test is looked at for: these tests pass, and the session fails.
LEFT_BY_THE_SESSION = {
    "orphan": ("os.system('sleep 20 &')", "processes: left behind: pid "),
    "link": ("os.system('ip link add mcleak0 type bridge')", "links: left behind: "),
    "cgroup": (f"os.mkdir(next(hostview.own_cgroups()) + '/{CGROUP}')", "cgroups: left behind: "),
    "temporary file": ("open('/dev/shm/minictr-leak', 'w').close()", "temporary files: left behind: /dev/shm/minictr"),
}
PRELUDE = """
import ctypes, os, resource, signal, subprocess, sys, threading, time, warnings
import hostview
warnings.simplefilter("ignore")
libc = ctypes.CDLL(None, use_errno=True)
kept = []

def checked(result):
    if result:
        raise OSError(ctypes.get_errno(), "libc")
"""
# The session runs in namespaces of its own, so that what it leaves goes with them; its own cgroup is the host's.
OWN_NAMESPACES = ("unshare", "--mount", "--net", "--propagation=private", "--pid", "--fork", "--mount-proc")
MOUNTS = "mount -t tmpfs none /mnt && mount -t tmpfs none /dev/shm"
SHELL = ("sh", "-c", f'{MOUNTS} && "$@"; exit $?', "sh")  # pid 1 is this shell, and not pytest


def session(where: Path, **bodies: str) -> subprocess.CompletedProcess[str]:
    """A pytest run with the guard and one test for each body."""
    tests = (f"\ndef test_{kind}():\n    {body}\n" for kind, body in bodies.items())
    (where / "test_leak.py").write_text(PRELUDE + "".join(tests))
    (where / "pytest.ini").write_text("[pytest]\nleak_patience = 0.5\n")
    python = (sys.executable, "-m", "pytest", "-p", "leakguard", "-p", "no:cacheprovider", "-q", "--basetemp=base")
    command = [*OWN_NAMESPACES, *SHELL, *python]
    environment = {**os.environ, "PYTHONPATH": str(HOUSE)}
    return subprocess.run(command, cwd=where, env=environment, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture(scope="module")
def leaking_tests(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    return session(tmp_path_factory.mktemp("tests"), **{kind: body for kind, (body, _) in LEFT_BY_A_TEST.items()})


@pytest.fixture(scope="module")
def leaking_session(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    try:
        bodies = {kind.replace(" ", "_"): body for kind, (body, _) in LEFT_BY_THE_SESSION.items()}
        return session(tmp_path_factory.mktemp("session"), **bodies)
    finally:
        for top in hostview.own_cgroups():
            if os.path.isdir(f"{top}/{CGROUP}"):
                os.rmdir(f"{top}/{CGROUP}")


@pytest.mark.parametrize("kind", LEFT_BY_A_TEST)
def test_a_leaking_test_is_in_error(kind: str, leaking_tests: subprocess.CompletedProcess[str]) -> None:
    said = leaking_tests.stdout
    report = re.search(rf"ERROR at teardown of test_{kind} _+\n(.*?)\n(?:_____|=====)", said, re.DOTALL)
    assert report, said
    assert LEFT_BY_A_TEST[kind][1] in report[1]


def test_the_session_of_leaking_tests_fails(leaking_tests: subprocess.CompletedProcess[str]) -> None:
    """Every test passes, and every test leaves something."""
    assert leaking_tests.returncode == 1
    count = len(LEFT_BY_A_TEST)
    assert f"{count} passed, {count} errors" in leaking_tests.stdout


@pytest.mark.parametrize("kind", LEFT_BY_THE_SESSION)
def test_a_leaking_session_fails(kind: str, leaking_session: subprocess.CompletedProcess[str]) -> None:
    assert leaking_session.returncode == 1
    assert f"{len(LEFT_BY_THE_SESSION)} passed in" in leaking_session.stdout
    report = leaking_session.stdout.partition(" left on the host ")[2]
    assert LEFT_BY_THE_SESSION[kind][1] in report, leaking_session.stdout


def test_what_is_clean_or_only_late_passes(tmp_path: Path) -> None:
    answer = session(
        tmp_path,
        clean="subprocess.run(['true']); os.close(os.open('/etc/passwd', 0))",
        late="threading.Thread(target=subprocess.run, args=(['sleep', '0.05'],)).start()",
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "nothing; compared with before the first test" in answer.stdout


def test_a_look_costs_less_than_a_millisecond() -> None:
    """The best of many: this is about the look, not about the machine's neighbours."""
    costs = []
    for _ in range(50):
        start = time.perf_counter()
        hostview.quick()
        costs.append(time.perf_counter() - start)
    assert min(costs) < 0.001
